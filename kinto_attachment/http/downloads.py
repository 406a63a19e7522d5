"""Bytes on their way out: what every door answers with.

RFC 9110 says what a ``GET`` may ask (sections 13 and 14), RFC 9530 how the answer tells its digest.
Nothing here knows whose bytes they are, nor who may have them.
"""

import logging
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from kinto.core.errors import ERRORS, http_error
from pyramid import httpexceptions
from pyramid.request import Request
from pyramid.response import Response
from webob.datetime_utils import parse_date, serialize_date

from ..errors import BlobDamaged, StorageUnavailable
from ..files.blob import CHUNK, Blob
from ..files.filename import content_disposition
from ..files.mimetype import is_shown, served_type
from ..plugin import plugin_of
from ..storage import IStorage
from ..storage.staged import sign
from .ranges import Range, read_ranges

logger = logging.getLogger(__name__)

SAFE = {
    "X-Content-Type-Options": "nosniff",
    # An origin of its own, without scripts; pictures made of markup may have their style.
    "Content-Security-Policy": "default-src 'none'; media-src 'self'; style-src 'unsafe-inline'; "
    "sandbox",
}
"""Headers of all that strangers uploaded: it is shown at most, and nothing in it runs."""


@dataclass(frozen=True)
class Download:
    """One file, as it is answered.

    :param filename: to save it as.
    :param modified: since when it is this file, in seconds since 1970.
    :param cache_control: the header.
    :param saved: whether browsers are to save it, even if they could show it.
    :param dated: whether no other file was here in that second: then its date is a strong
        validator (RFC 9110, section 8.8.2.2).
    """

    blob: Blob
    filename: str
    modified: int
    cache_control: str
    saved: bool = False
    dated: bool = True

    @property
    def etag(self) -> str:
        return f'"{self.blob.digest}"'

    @property
    def disposition(self) -> str:
        return content_disposition(self.filename, is_shown(self.blob.mimetype) and not self.saved)

    @property
    def mimetype(self) -> str:
        return served_type(self.blob.mimetype)

    @property
    def validators(self) -> dict[str, str]:
        """Headers of every answer, those without the bytes too."""
        return {
            "ETag": self.etag,
            "Last-Modified": serialize_date(self.modified),
            "Cache-Control": self.cache_control,
            **SAFE,
        }

    @property
    def headers(self) -> dict[str, str]:
        """Headers of an answer with the bytes, or some of them."""
        digest = b64encode(bytes.fromhex(self.blob.digest)).decode()
        return {
            "Content-Type": self.mimetype,
            "Content-Disposition": self.disposition,
            "Accept-Ranges": "bytes",
            "Repr-Digest": f"sha-256=:{digest}:",
            **self.validators,
        }


class FileResponse(Response):
    """A response whose body cannot be asked for: Kinto measures every one it sends, by reading it
    into memory."""

    body = b""

    def __init__(self, status: int, headers: dict[str, Any], app_iter: Any = ()):
        headerlist = [(name, str(value)) for name, value in headers.items()]
        super().__init__(status=status, headerlist=headerlist, app_iter=app_iter)


def serve(request: Request, download: Download) -> Response:
    """The answer to a ``GET`` or ``HEAD``: 200, 206, 304, or 307 where the settings say so.

    No connection to the database should be held by now.

    :raises HTTPPreconditionFailed: ``If-Match`` or ``If-Unmodified-Since`` is not met.
    :raises HTTPRequestRangeNotSatisfiable: the file is shorter.
    :raises BlobNotFound: the bytes are not there.
    :raises BlobDamaged: there are more or fewer of them.
    :raises StorageUnavailable: nobody knows.
    """
    if _is_known(request, download):
        return FileResponse(304, download.validators)
    plugin = plugin_of(request)
    settings, storage = plugin.settings, plugin.storage
    blob = download.blob
    if request.method == "HEAD":
        _check_size(blob, storage.stat(blob.key).size)
        return FileResponse(200, {**download.headers, "Content-Length": blob.size})
    if settings["download"] == "redirect":
        expires = settings["redirect_expires"]
        labels = {"disposition": download.disposition, "mimetype": download.mimetype}
        url = sign(storage, blob.key, "GET", expires=expires, **labels)
        if url:
            headers = {"Location": url, "Cache-Control": "no-store", "Content-Length": 0, **SAFE}
            # Whoever has the URL has the file.
            return FileResponse(307, {**headers, "Referrer-Policy": "no-referrer"})
        logger.warning("These credentials cannot sign URLs: the file is streamed.")
    # nginx would judge these by what it sees of the file.
    judged = any(name in request.headers for name in ("If-Match", "If-Unmodified-Since"))
    if settings["download"] == "accel" and not judged:
        _check_size(blob, storage.stat(blob.key).size)
        headers = {**download.headers, "X-Accel-Redirect": settings["accel_path"] + quote(blob.key)}
        del headers["Accept-Ranges"]  # nginx says so too
        return FileResponse(200, headers)
    return _stream(request, download, storage)


def _is_known(request: Request, download: Download) -> bool:
    """Whether the client has the file already (RFC 9110, section 13.2.2).

    :raises HTTPPreconditionFailed: it wants another.
    """
    modified = download.modified
    if "If-Match" in request.headers:
        failed = download.blob.digest not in request.if_match
    else:
        unmodified_since = _seconds(request.headers.get("If-Unmodified-Since"))
        failed = unmodified_since is not None and modified > unmodified_since
    if failed:
        response = http_error(
            httpexceptions.HTTPPreconditionFailed(),
            errno=ERRORS.MODIFIED_MEANWHILE,
            message="The file is another than the precondition says.",
        )
        response.headers.update(download.validators)
        raise response
    if "If-None-Match" in request.headers:
        return download.blob.digest in request.if_none_match
    modified_since = _seconds(request.headers.get("If-Modified-Since"))
    return modified_since is not None and modified <= modified_since


def _ranges_of(request: Request, download: Download) -> list[Range] | None:
    """What of the file is asked for, None if it is all.

    :raises HTTPRequestRangeNotSatisfiable:
    """
    header, size = request.headers.get("Range"), download.blob.size
    if header is None or not _is_same(request.headers.get("If-Range"), download):
        return None
    ranges = read_ranges(header, size)
    if ranges == []:
        response = http_error(
            httpexceptions.HTTPRequestRangeNotSatisfiable(),
            errno=ERRORS.INVALID_PARAMETERS,
            message=f"The file has {size} bytes, none of them in that range.",
            details=[{"location": "header", "name": "Range", "description": header[:200]}],
        )
        response.headers.update({**download.validators, "Content-Range": f"bytes */{size}"})
        raise response
    return ranges


def _is_same(condition: str | None, download: Download) -> bool:
    """Whether ``If-Range`` lets ``Range`` be: only for exactly this file."""
    if condition is None or condition.strip() == download.etag:
        return True
    return download.dated and _seconds(condition) == download.modified


def _seconds(date: str | None) -> float | None:
    """An HTTP date in seconds since 1970; None for what is none."""
    try:
        parsed = parse_date(date) if date and '"' not in date else None
        return None if parsed is None else parsed.timestamp()
    except (ValueError, OverflowError):
        return None  # a year 99999999


def _stream(request: Request, download: Download, storage: IStorage) -> Response:
    blob, ranges = download.blob, _ranges_of(request, download)
    if ranges is None:
        whole = Range(0, blob.size, blob.size)
        pieces = RangeStream(storage, blob, [(b"", whole)])
        headers = {**download.headers, "Content-Length": blob.size}
        return FileResponse(200, headers, pieces.as_file(request.environ) or pieces)
    if len(ranges) == 1:
        headers = {**download.headers, "Content-Range": ranges[0].content_range}
        parts, end = [(b"", ranges[0])], b""
    else:
        boundary = uuid4().hex
        headers = {**download.headers, "Content-Type": f"multipart/byteranges; boundary={boundary}"}
        parts = [
            (
                f"\r\n--{boundary}\r\nContent-Type: {download.mimetype}\r\n"
                f"Content-Range: {piece.content_range}\r\n\r\n".encode(),
                piece,
            )
            for piece in ranges
        ]
        end = f"\r\n--{boundary}--\r\n".encode()
    length = sum(len(head) + piece.length for head, piece in parts) + len(end)
    return FileResponse(
        206, {**headers, "Content-Length": length}, RangeStream(storage, blob, parts, end)
    )


class RangeStream(Iterator[bytes]):
    """Ranges of a blob one after the other, in constant memory. All are opened at once: what they
    are is decided before a byte is sent, even if the blob is replaced meanwhile.

    :param parts: what to say before each range, and the range.
    :param end: what to say after all.
    :raises BlobNotFound: the blob is not there.
    :raises BlobDamaged: it is not as long as it should be. When that turns out later iteration
        fails, and the client has fewer bytes than were announced.
    """

    def __init__(
        self, storage: IStorage, blob: Blob, parts: list[tuple[bytes, Range]], end: bytes = b""
    ):
        self._blob = blob
        self._opened: list[Any] = []
        try:
            for _, piece in parts:
                # To its end: a blob that is too long is found out too.
                end_of_read = None if piece.end == blob.size else piece.end
                chunks = storage.open(blob.key, piece.start, end_of_read)
                self._opened.append(chunks)
                if chunks.length != piece.length:
                    raise BlobDamaged(blob.key, f"{chunks.length} bytes of {piece.content_range}")
        except BaseException:
            self.close()
            raise
        self._chunks = self._read(parts, end)

    def _read(self, parts: list[tuple[bytes, Range]], end: bytes) -> Iterator[bytes]:
        for (head, piece), chunks in zip(parts, self._opened, strict=True):
            if head:
                yield head
            left = piece.length
            for chunk in chunks:
                left -= len(chunk)
                yield chunk
            if left:
                raise StorageUnavailable(self._blob.key, f"{left} bytes are missing at the end")
        if end:
            yield end

    def __next__(self) -> bytes:
        try:
            return next(self._chunks)
        except StorageUnavailable:
            # The answer has begun: all that is left is to break it off.
            logger.exception("A download was broken off.")
            raise

    def as_file(self, environ: dict[str, Any]) -> Any:
        """The same as a file that the server may send by itself (PEP 3333), if it is one; only
        for a whole blob, as uWSGI knows no part of a file."""
        file, wrapper = getattr(self._opened[0], "file", None), environ.get("wsgi.file_wrapper")
        return wrapper(file, CHUNK) if file and wrapper else None

    def close(self) -> None:
        for chunks in self._opened:
            chunks.close()


def _check_size(blob: Blob, size: int) -> None:
    if size != blob.size:
        raise BlobDamaged(blob.key, f"{size} bytes, not {blob.size}")
