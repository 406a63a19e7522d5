"""The headers of tus 1.0 (https://tus.io/protocols/resumable-upload)."""

import binascii
import hashlib
import re
from base64 import b64decode
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import format_datetime

from pyramid.request import Request

from ..errors import FieldRefused, NotOffsetStream, VersionRefused
from ..http.requests import is_decimal

VERSION = "1.0.0"

EXTENSIONS = (
    "creation",
    "creation-with-upload",
    "creation-defer-length",
    "expiration",
    "checksum",
    "termination",
    "concatenation",
)

ALGORITHMS = ("sha1", "sha256", "md5")
"""The algorithms of ``Upload-Checksum``."""

OFFSET_STREAM = "application/offset+octet-stream"
"""The media type of bytes that are sent."""

_MAX_METADATA = 64 * 1024
_MAX_DIGITS = 18
_KEY = re.compile(r"[!-+\--~]+")


@dataclass(frozen=True)
class Checksum:
    """What ``Upload-Checksum`` says about the body of a request.

    :param algorithm: one of :data:`ALGORITHMS`.
    :param digest: the raw digest.
    """

    algorithm: str
    digest: bytes

    def start(self) -> "hashlib._Hash":
        """Return a new hash of the algorithm. It guards against accidents, not against attacks."""
        return hashlib.new(self.algorithm, usedforsecurity=False)


@dataclass(frozen=True)
class Concatenation:
    """What ``Upload-Concat`` says.

    :param parts: the ids of the partial uploads of a final one; None for a partial upload.
    """

    parts: tuple[str, ...] | None


def check_version(request: Request) -> None:
    """Check that the client speaks the protocol.

    :raises VersionRefused: if it does not.
    """
    version = request.headers.get("Tus-Resumable", "")
    if version != VERSION:
        raise VersionRefused(version, VERSION)


def check_content_type(request: Request) -> None:
    """Check that the body of the request is bytes of a file.

    :raises NotOffsetStream: if it is not.
    """
    if not is_offset_stream(request):
        raise NotOffsetStream(request.headers.get("Content-Type", ""), OFFSET_STREAM)


def is_offset_stream(request: Request) -> bool:
    """Return whether the ``Content-Type`` says that the body is bytes of a file."""
    mimetype = request.headers.get("Content-Type", "").partition(";")[0]
    return mimetype.strip().lower() == OFFSET_STREAM


def read_number(request: Request, name: str) -> int | None:
    """Return the number of bytes in a header, or None if there is no such header.

    :raises FieldRefused: if the value is not a decimal number.
    """
    value = request.headers.get(name)
    if value is None:
        return None
    if not is_decimal(value) or len(value) > _MAX_DIGITS:
        raise _refused(name, f"must be a number of bytes, not {value[:100]!r}")
    return int(value)


def read_offset(request: Request) -> int:
    """Return ``Upload-Offset``.

    :raises FieldRefused: if it is missing or malformed.
    """
    offset = read_number(request, "Upload-Offset")
    if offset is None:
        raise _refused("Upload-Offset", "is missing")
    return offset


def read_length(request: Request) -> int | None:
    """Return the size that a new upload will have, or None if its sender will say so later.

    :raises FieldRefused: if the headers say both or neither.
    """
    length, deferred = read_number(request, "Upload-Length"), is_deferred(request)
    if deferred and length is not None:
        raise _refused("Upload-Length", "cannot be sent together with Upload-Defer-Length")
    if not deferred and length is None:
        raise _refused("Upload-Length", "is missing: send it, or Upload-Defer-Length: 1")
    return length


def is_deferred(request: Request) -> bool:
    """Return whether the sender of a new upload will tell its size later.

    :raises FieldRefused: if ``Upload-Defer-Length`` has another value than 1.
    """
    value = request.headers.get("Upload-Defer-Length")
    if value not in (None, "1"):
        raise _refused("Upload-Defer-Length", f"must be 1, not {value[:100]!r}")
    return value is not None


def read_metadata(text: str | None) -> dict[str, str]:
    """Return what ``Upload-Metadata`` says.

    :raises FieldRefused: if it is malformed.

    >>> read_metadata("filename Zm9vLnR4dA==,is_confidential")
    {'filename': 'foo.txt', 'is_confidential': ''}
    """
    found: dict[str, str] = {}
    text = text or ""
    if len(text) > _MAX_METADATA:
        raise _refused("Upload-Metadata", f"is longer than {_MAX_METADATA} bytes")
    for pair in text.split(",") if text.strip() else ():
        key, _, value = pair.strip().partition(" ")
        if not _KEY.fullmatch(key):
            raise _refused("Upload-Metadata", f"has an empty or non-ASCII key: {key[:100]!r}")
        if key in found:
            raise _refused("Upload-Metadata", f"has {key[:100]!r} twice")
        try:
            found[key] = b64decode(value.strip(), validate=True).decode()
        except (binascii.Error, ValueError):
            reason = f"has a value of {key[:100]!r} that is not UTF-8 text in base64"
            raise _refused("Upload-Metadata", reason) from None
    return found


def read_checksum(request: Request) -> Checksum | None:
    """Return what ``Upload-Checksum`` says, or None if there is no such header.

    :raises FieldRefused: if it is malformed, or if its algorithm is unknown.
    """
    text = request.headers.get("Upload-Checksum")
    if text is None:
        return None
    algorithm, _, value = text.strip().partition(" ")
    if algorithm not in ALGORITHMS:
        known = ", ".join(ALGORITHMS)
        raise _refused("Upload-Checksum", f"must begin with {known}, not {algorithm[:100]!r}")
    try:
        digest = b64decode(value.strip(), validate=True)
    except (binascii.Error, ValueError):
        digest = b""
    checksum = Checksum(algorithm, digest)
    if len(digest) != checksum.start().digest_size:
        raise _refused("Upload-Checksum", f"has no {algorithm} digest in base64")
    return checksum


def read_concatenation(text: str) -> Concatenation | None:
    """Return what ``Upload-Concat`` says, or None if the text is empty.

    :raises FieldRefused: if it is malformed.

    >>> read_concatenation("final;/files/a /files/b").parts
    ('a', 'b')
    """
    if not text:
        return None
    kind, semicolon, urls = text.partition(";")
    if kind == "partial" and not semicolon:
        return Concatenation(None)
    parts = tuple(url.rstrip("/").rpartition("/")[2] for url in urls.split())
    if kind != "final" or not parts:
        raise _refused("Upload-Concat", "must be partial, or final; and URLs of uploads")
    if len(set(parts)) < len(parts):
        raise _refused("Upload-Concat", "names an upload twice")
    return Concatenation(parts)


def http_date(seconds: float) -> str:
    """Return a point in time, in seconds since 1970, as HTTP writes it (IMF-fixdate).

    >>> http_date(0)
    'Thu, 01 Jan 1970 00:00:00 GMT'
    """
    return format_datetime(datetime.fromtimestamp(int(seconds), timezone.utc), usegmt=True)


def _refused(header: str, reason: str) -> FieldRefused:
    return FieldRefused(f"{header} {reason}", header, "header")
