"""What a client says of a file before it sends the bytes to the storage: a JSON object."""

from dataclasses import dataclass
from typing import Any

from pyramid.request import Request

from ...errors import FieldRefused, NotADigest
from ...files.blob import is_digest
from ...http.text import decode_body, parse_json
from ...plugin import plugin_of

_OF_RECORDS = ("data", "permissions")
_TEXTS = ("filename", "mimetype", "hash", "target")


@dataclass(frozen=True)
class Announcement:
    """A file that a client is about to send.

    :param size: in bytes.
    :param mimetype: the media type that the client declares; empty if none.
    :param digest: its SHA-256 in lowercase hex; empty if the client does not say.
    :param data: further attributes of the record; None if there are none.
    :param permissions: the permissions of the record; None if there are none.
    :param target: what the upload is to become, below ``/media``; None if the client does not say.
    """

    size: int
    filename: str | None = None
    mimetype: str = ""
    digest: str = ""
    data: dict[str, Any] | None = None
    permissions: dict[str, Any] | None = None
    target: str | None = None


def read_announcement(request: Request, known: tuple[str, ...]) -> Announcement:
    """Read the body of the request.

    :param known: the keys that it may have.
    :raises JSONTooLarge: if it is larger than ``client.max_json``.
    :raises Refused: if it is not such an object; the error names the key that is wrong.
    """
    body = read_object(request, known)
    size = body.get("size")
    if type(size) is not int or size < 0:
        raise FieldRefused("size must be the size of the file in bytes", "size")
    for name in _TEXTS:
        if body.get(name) is not None and not isinstance(body[name], str):
            raise FieldRefused(f"{name} must be text", name)
    for name in _OF_RECORDS:
        if body.get(name) is not None and not isinstance(body[name], dict):
            raise FieldRefused(f"{name} is not a JSON object", name)
    digest = (body.get("hash") or "").lower()
    if "hash" in body and body["hash"] is not None and not is_digest(digest):
        raise NotADigest("hash must be a SHA-256: 64 hexadecimal digits.", "hash")
    return Announcement(
        size=size,
        filename=body.get("filename"),
        mimetype=body.get("mimetype") or "",
        digest=digest,
        data=body.get("data"),
        permissions=body.get("permissions"),
        target=body.get("target"),
    )


def read_object(request: Request, known: tuple[str, ...]) -> dict[str, Any]:
    """Return the JSON object that is the body of the request; an empty one for an empty body.

    :param known: the keys that it may have.
    :raises JSONTooLarge: if it is larger than ``client.max_json``.
    :raises FieldRefused: if it is something else, or has another key.
    """
    content = request.context.body.read_all(plugin_of(request).settings["client.max_json"])
    body = parse_json(decode_body(request, content or b"{}"), "the body", "body")
    if not isinstance(body, dict):
        raise FieldRefused("the body must be a JSON object", "body")
    for name in body.keys() - set(known):
        raise FieldRefused(f"{name[:100]!r} is not one of {', '.join(known)}", name[:100])
    return body
