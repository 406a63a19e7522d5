"""Who may do what in the media store: two settings of Kinto's kind, and one's own entries."""

from dataclasses import dataclass
from json import loads
from typing import Any

import http_sf
from kinto.authorization import RouteFactory
from pyramid.authorization import Everyone
from pyramid.request import Request

from ..errors import BodyTooLarge, DigestMismatch, FieldRefused, NotADigest
from ..files.blob import is_digest
from ..http.requests import RequestBody, owner_of

PRINCIPALS = {
    "media_create_principals": "system.Authenticated",
    "media_read_principals": "system.Authenticated",
}
"""Settings, as Kinto's ``bucket_create_principals``, and what they are by default."""


class MediaContext(RouteFactory):
    """``media_create_principals`` may store, ``media_read_principals`` may read all that anybody
    stores. Whoever is authenticated may read and delete what is his own."""

    def __init__(self, request: Request):
        super().__init__(request)
        self.resource_name = "media"
        self.permission_object_id = "/media"
        self._request = request
        self._stores = request.method in ("POST", "PUT") and not request.path.endswith("/stat")
        creates = self._stores or request.method == "DELETE"
        self.required_permission = "create" if creates else "read"
        self._principals: list[str] = []
        self.body = RequestBody(request.environ)
        request.add_finished_callback(lambda request: self.body.close())

    def check_permission(self, principals: list[str], bound_perms: Any) -> bool:
        self._principals = principals
        is_own = self.owner != Everyone and not self._stores
        return is_own or super().check_permission(principals, None)

    @property
    def owner(self) -> str:
        """Whose entries are meant; see :func:`kinto_attachment.http.requests.owner_of`."""
        return owner_of(self._request)

    @property
    def reads_all(self) -> bool:
        """Whether he may read what others store."""
        return super().check_permission(self._principals, [("/media", "read")])


MAX_STAT = 1000
"""Hashes in one question."""

MAX_QUESTION = 128 * 1024
"""Bytes of it."""

DIGEST_HEADERS = ("Content-Digest", "Repr-Digest")


@dataclass(frozen=True)
class ClaimedDigest:
    """A hash, and where it was said."""

    digest: str
    field: str
    location: str


def claimed_digest(request: Request) -> ClaimedDigest | None:
    """The hash that the body is said to have, by the URL or by a header (RFC 9530).

    :raises NotADigest: it is none.
    :raises DigestMismatch: they say different ones.
    """
    said = []
    if "hash" in request.matchdict:
        digest = request.matchdict["hash"].lower()
        if not is_digest(digest):
            raise NotADigest("Not a SHA-256: 64 hexadecimal digits.", "hash", "path")
        said.append(ClaimedDigest(digest, "hash", "path"))
    for name in DIGEST_HEADERS:
        digest = _read_digest_header(name, request.headers.get(name))
        if digest:
            said.append(ClaimedDigest(digest, name, "header"))
    for other in said[1:]:
        if other.digest != said[0].digest:
            raise DigestMismatch(other.digest, said[0].digest, other.field, other.location)
    return said[0] if said else None


def _read_digest_header(name: str, value: str | None) -> str | None:
    """The SHA-256 in it, in hex, if there is one: other algorithms are the client's own affair.

    >>> _read_digest_header("Repr-Digest", "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:")
    'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'
    """
    if value is None:
        return None
    try:
        found = http_sf.parse(value.encode("latin-1"), tltype="dictionary").get("sha-256")
    except (http_sf.StructuredFieldError, UnicodeEncodeError) as error:
        raise NotADigest(f"Not a dictionary of digests: {error}", name, "header") from error
    if found is None:
        return None
    digest = found[0]
    if not isinstance(digest, bytes) or len(digest) != 32:
        raise NotADigest("sha-256 is not a byte sequence of 32 bytes.", name, "header")
    return digest.hex()


def declared_type(request: Request) -> str | None:
    """The type that the client gives the body, if it does: it is what many clients say of
    anything.

    :raises FieldRefused: it is a form.
    """
    declared = request.headers.get("Content-Type", "")
    if declared.lower().startswith("multipart/"):
        raise FieldRefused(
            "A form is no media: send the bytes as they are; or there is no media library here.",
            "Content-Type",
            "header",
        )
    return None if declared.startswith("application/x-www-form-urlencoded") else declared


def read_question(body: RequestBody) -> list[str]:
    """The hashes that are asked for, each once.

    :raises FieldRefused: it is no JSON list of at most 1000.
    :raises NotADigest: of hashes.
    """
    content = b""
    while chunk := body.read():
        content += chunk
        if len(content) > MAX_QUESTION:
            raise BodyTooLarge(max(len(content), body.length or 0), MAX_QUESTION)
    try:
        digests = loads(content)
    except (ValueError, RecursionError) as error:
        raise FieldRefused(f"not valid JSON ({error})", "hashes") from error
    if isinstance(digests, dict):
        digests = digests.get("hashes")
    if not isinstance(digests, list) or len(digests) > MAX_STAT:
        raise FieldRefused(f"not a list of at most {MAX_STAT} hashes", "hashes")
    for digest in digests:
        if not isinstance(digest, str) or not is_digest(digest.lower()):
            raise NotADigest(f"{str(digest)[:100]!r} is no SHA-256.", "hashes", "body")
    return list(dict.fromkeys(digest.lower() for digest in digests))
