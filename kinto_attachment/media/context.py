"""Permissions in the media store, and functions that read its requests."""

from dataclasses import dataclass
from typing import Any

import http_sf
from kinto.authorization import RouteFactory
from pyramid.authorization import Everyone
from pyramid.request import Request

from ..errors import DigestMismatch, FieldRefused, NotADigest
from ..files.blob import is_digest
from ..http.requests import RequestBody, owner_of
from ..http.text import decode_body, parse_json

PRINCIPALS = {
    "media_create_principals": "system.Authenticated",
    "media_read_principals": "system.Authenticated",
}
"""Two settings like Kinto's ``bucket_create_principals``, with their default values."""


class MediaContext(RouteFactory):
    """The media store, and the permission that the request needs.

    ``media_create_principals`` may store, and ``media_read_principals`` may read all entries of all
    owners. Every authenticated user may read and delete their own entries.

    :ivar body: the body of the request. It is closed when the request is finished.
    """

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
        """Return whether the user may do this, at least with their own entries."""
        self._principals = principals
        is_own = self.owner != Everyone and not self._stores
        return is_own or super().check_permission(principals, None)

    @property
    def owner(self) -> str:
        """The principal that owns what the request stores or deletes; see
        :func:`kinto_attachment.http.requests.owner_of`."""
        return owner_of(self._request)

    @property
    def reads_all(self) -> bool:
        """Whether the user may read the entries of other owners."""
        return super().check_permission(self._principals, [("/media", "read")])


MAX_STAT = 1000
"""Largest number of hashes in the body of ``POST /media/stat``."""

MAX_QUESTION = 128 * 1024
"""Largest size of that body in bytes."""

DIGEST_HEADERS = ("Content-Digest", "Repr-Digest")
"""The headers in which a client may send the hash of the body (RFC 9530)."""


@dataclass(frozen=True)
class ClaimedDigest:
    """The hash that a client says the body has.

    :param digest: the SHA-256 in lowercase hex.
    :param field: the name of the header, or ``hash`` for the URL.
    :param location: where the client says it: ``path`` or ``header``.
    """

    digest: str
    field: str
    location: str


def claimed_digest(request: Request) -> ClaimedDigest | None:
    """Return the hash that the client says the body has, in the URL or a header (RFC 9530). Return
    None if the client says nothing.

    :raises NotADigest: if a hash is malformed.
    :raises DigestMismatch: if the URL and the headers contain different hashes.
    """
    claims = []
    if "hash" in request.matchdict:
        digest = request.matchdict["hash"].lower()
        if not is_digest(digest):
            raise NotADigest("hash must be a SHA-256: 64 hexadecimal digits.", "hash", "path")
        claims.append(ClaimedDigest(digest, "hash", "path"))
    for name in DIGEST_HEADERS:
        digest = _read_digest_header(name, request.headers.get(name))
        if digest:
            claims.append(ClaimedDigest(digest, name, "header"))
    for other in claims[1:]:
        if other.digest != claims[0].digest:
            first = claims[0]
            raise DigestMismatch(
                other.digest, first.digest, other.field, other.location, first.field
            )
    return claims[0] if claims else None


def _read_digest_header(name: str, value: str | None) -> str | None:
    """Return the SHA-256 in the value of a digest header, in hex. Return None if there is none; the
    hashes of other algorithms are ignored.

    :raises NotADigest: if the value is malformed.

    >>> _read_digest_header("Repr-Digest", "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:")
    'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'
    """
    if value is None:
        return None
    try:
        found = http_sf.parse(value.encode("latin-1"), tltype="dictionary").get("sha-256")
    except (http_sf.StructuredFieldError, UnicodeEncodeError) as error:
        reason = f"{name} must be a dictionary of digests, as in RFC 9530 ({error})."
        raise NotADigest(reason, name, "header") from error
    if found is None:
        return None
    digest = found[0]
    if not isinstance(digest, bytes) or len(digest) != 32:
        reason = f"sha-256 in {name} must be a byte sequence of 32 bytes."
        raise NotADigest(reason, name, "header")
    return digest.hex()


def declared_type(request: Request) -> str | None:
    """Return the media type that the client gives the body. Return None for
    ``application/x-www-form-urlencoded``, which clients such as curl send with any body.

    :raises FieldRefused: if the body is a multipart form.
    """
    declared = request.headers.get("Content-Type", "")
    if declared.lower().startswith("multipart/"):
        raise FieldRefused(
            "The media store takes no form: send the bytes of the file as the body. Forms are for "
            "POST /media on a server with a media library.",
            "Content-Type",
            "header",
        )
    return None if declared.startswith("application/x-www-form-urlencoded") else declared


def read_question(request: Request, body: RequestBody) -> list[str]:
    """Return the hashes in the body of ``POST /media/stat``, in lowercase hex and each only once.

    :raises JSONTooLarge: if the body is larger than :data:`MAX_QUESTION`.
    :raises FieldRefused: if the body is not a JSON list of at most :data:`MAX_STAT` items.
    :raises NotADigest: if an item is not a SHA-256.
    """
    text = decode_body(request, body.read_all(MAX_QUESTION))
    digests = parse_json(text, "the body", "body")
    if isinstance(digests, dict):
        digests = digests.get("hashes")
    if not isinstance(digests, list) or len(digests) > MAX_STAT:
        raise FieldRefused(f"hashes must be a list of at most {MAX_STAT} SHA-256 digests", "hashes")
    for digest in digests:
        if not isinstance(digest, str) or not is_digest(digest.lower()):
            wrong = f"hashes contains {str(digest)[:100]!r}"
            reason = f"{wrong}, which is not a SHA-256: 64 hexadecimal digits."
            raise NotADigest(reason, "hashes", "body")
    return list(dict.fromkeys(digest.lower() for digest in digests))
