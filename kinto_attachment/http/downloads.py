"""Downloads: the responses with which every door serves a file.

RFC 9110 defines what a ``GET`` may ask for (preconditions in section 13, ranges in section 14), and
RFC 9530 how the response states the hash of the file. Views check permissions before they call this
module.
"""

import logging
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from kinto.core.errors import ERRORS, http_error
from pyramid import httpexceptions
from pyramid.request import Request
from pyramid.response import Response
from webob.datetime_utils import parse_date, serialize_date

from ..files.blob import Blob
from ..files.filename import content_disposition, cut_filename
from ..files.mimetype import is_shown, served_type
from ..plugin import plugin_of
from ..storage import IStorage
from ..storage.staged import sign
from .ranges import Range, RangeStream, check_size, is_plain, read_ranges
from .responses import NO_STORE
from .transfers import note_file, storage_time, transfer_of

logger = logging.getLogger(__name__)

SAFE = {
    "X-Content-Type-Options": "nosniff",
    # The sandbox gives the file an origin of its own and runs no scripts. Inline styles are allowed
    # because SVG images need them.
    "Content-Security-Policy": "default-src 'none'; media-src 'self'; style-src 'unsafe-inline'; "
    "sandbox",
}
"""Headers of all files. Any client may have uploaded them, so browsers may show them but must not
run any code in them."""

SAFE_PDF = {
    **SAFE,
    # Browsers show PDFs with a viewer of their own. That of Safari is an embedded object which
    # fetches ranges of the file, and does not work in a sandbox. No script can come from a PDF: it
    # is no page, whatever it contains.
    "Content-Security-Policy": "default-src 'none'; object-src 'self'; connect-src 'self'; "
    "style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'",
}
"""Headers of PDFs."""

MAX_URL_NAME = 200
"""Bytes of a filename in the URL of a storage."""


@dataclass(frozen=True)
class Download:
    """One file, as it is served.

    :param blob: the bytes of the file.
    :param filename: the name under which browsers save the file.
    :param modified: since when this file is at this URL, in seconds since 1970.
    :param cache_control: the value of ``Cache-Control``.
    :param saved: whether browsers are to save the file, even if they could show it.
    :param dated: whether no other file was at this URL in that second. Then its date is a strong
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
        """The value of ``ETag``."""
        return f'"{self.blob.digest}"'

    @property
    def disposition(self) -> str:
        """The value of ``Content-Disposition``."""
        return content_disposition(self.filename, self._is_inline)

    @property
    def short_disposition(self) -> str:
        """The same for a URL, in which each byte of the filename takes up to five: proxies and
        clients refuse long ones."""
        return content_disposition(cut_filename(self.filename, MAX_URL_NAME), self._is_inline)

    @property
    def _is_inline(self) -> bool:
        return is_shown(self.blob.mimetype) and not self.saved

    @property
    def mimetype(self) -> str:
        """The value of ``Content-Type``."""
        return served_type(self.blob.mimetype)

    @property
    def validators(self) -> dict[str, str]:
        """The headers that identify the file, even in a response without any of its bytes."""
        return {
            "ETag": self.etag,
            "Last-Modified": serialize_date(self.modified),
            "Cache-Control": self.cache_control,
            **(SAFE_PDF if self.mimetype == "application/pdf" else SAFE),
        }

    @property
    def headers(self) -> dict[str, str]:
        """The headers of a response with all or some of the bytes of the file."""
        digest = b64encode(bytes.fromhex(self.blob.digest)).decode()
        return {
            "Content-Type": self.mimetype,
            "Content-Disposition": self.disposition,
            "Accept-Ranges": "bytes",
            "Repr-Digest": f"sha-256=:{digest}:",
            **self.validators,
        }


class FileResponse(Response):
    """A response that streams ``app_iter`` and whose ``body`` appears to be empty. Kinto reads the
    ``body`` of each response to measure it, which would load the whole file into memory."""

    body = b""

    def __init__(self, status: int, headers: dict[str, Any], app_iter: Any = ()):
        headerlist = [(name, str(value)) for name, value in headers.items()]
        super().__init__(status=status, headerlist=headerlist, app_iter=app_iter)


def serve(request: Request, download: Download) -> Response:
    """Return the response to a ``GET`` or ``HEAD``: 200, 206 or 304; or 307 if the setting
    ``download`` is ``redirect``.

    With ``?download``, browsers save the file even if they could show it. Release the database
    connection before this call, because the storage may be slow.

    :raises HTTPPreconditionFailed: if ``If-Match`` or ``If-Unmodified-Since`` is not met.
    :raises HTTPRequestRangeNotSatisfiable: if the file ends before the requested ranges.
    :raises BlobNotFound: if the storage does not have the blob.
    :raises BlobDamaged: if the stored blob has another size.
    :raises StorageUnavailable: if the storage cannot be reached.
    """
    if request.GET.get("download", "no").lower() not in ("no", "false", "0"):
        download = replace(download, saved=True)
    note_file(request, download.blob.size, download.blob.digest)
    if _is_known(request, download):
        return FileResponse(304, download.validators)
    with storage_time(request):
        return _serve(request, download)


def _serve(request: Request, download: Download) -> Response:
    plugin = plugin_of(request)
    settings, storage = plugin.settings, plugin.storage
    blob = download.blob
    if request.method == "HEAD":
        check_size(blob, storage.stat(blob.key).size)
        return FileResponse(200, {**download.headers, "Content-Length": blob.size})
    if settings["download"] == "redirect":
        expires = settings["redirect_expires"]
        labels = {"disposition": download.short_disposition, "mimetype": download.mimetype}
        url = sign(storage, blob.key, "GET", expires=expires, **labels)
        if url:
            headers = {"Location": url, "Content-Length": 0, **NO_STORE, **SAFE}
            # Any client with the URL can download the file, so other sites must not learn it.
            return FileResponse(307, {**headers, "Referrer-Policy": "no-referrer"})
        logger.warning(
            "The credentials of the storage cannot sign URLs. The file is streamed instead."
        )
    if settings["download"] == "accel" and _is_for_nginx(request, download):
        check_size(blob, storage.stat(blob.key).size)
        headers = {**download.headers, "X-Accel-Redirect": settings["accel_path"] + quote(blob.key)}
        del headers["Accept-Ranges"]  # nginx adds it
        return FileResponse(200, headers)
    return _stream(request, download, storage)


def _is_for_nginx(request: Request, download: Download) -> bool:
    """Return whether nginx can send what the request asks for.

    nginx evaluates preconditions and ranges itself, and does so after it has taken over the headers
    of the file. Its refusal would be cached as long as the file.
    """
    if any(name in request.headers for name in ("If-Match", "If-Unmodified-Since")):
        return False
    header = request.headers.get("Range")
    return header is None or (is_plain(header) and bool(read_ranges(header, download.blob.size)))


def _is_known(request: Request, download: Download) -> bool:
    """Return whether the client already has the file (RFC 9110, section 13.2.2).

    :raises HTTPPreconditionFailed: if ``If-Match`` or ``If-Unmodified-Since`` is not met.
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
            message="The file is not the one that If-Match or If-Unmodified-Since requires.",
        )
        response.headers.update({**download.validators, **NO_STORE})
        raise response
    if "If-None-Match" in request.headers:
        return download.blob.digest in request.if_none_match
    modified_since = _seconds(request.headers.get("If-Modified-Since"))
    return modified_since is not None and modified <= modified_since


def _ranges_of(request: Request, download: Download) -> list[Range] | None:
    """Return the ranges of the file that the request asks for, or None for the whole file.

    :raises HTTPRequestRangeNotSatisfiable: if the file ends before the requested ranges.
    """
    header, size = request.headers.get("Range"), download.blob.size
    if header is None or not _is_same(request.headers.get("If-Range"), download):
        return None
    ranges = read_ranges(header, size)
    if ranges == []:
        response = http_error(
            httpexceptions.HTTPRequestRangeNotSatisfiable(),
            errno=ERRORS.INVALID_PARAMETERS,
            message=f"The file has {size} bytes, and none of them is in the requested range.",
            details=[{"location": "header", "name": "Range", "description": header[:200]}],
        )
        content_range = {"Content-Range": f"bytes */{size}"}
        response.headers.update({**download.validators, **content_range, **NO_STORE})
        raise response
    return ranges


def _is_same(condition: str | None, download: Download) -> bool:
    """Return whether ``Range`` applies: there is no ``If-Range``, or it names exactly this file.

    :param condition: the value of ``If-Range``; None without that header.
    """
    if condition is None or condition.strip() == download.etag:
        return True
    return download.dated and _seconds(condition) == download.modified


def _seconds(date: str | None) -> float | None:
    """Return an HTTP date in seconds since 1970, or None if it is missing or invalid."""
    try:
        parsed = parse_date(date) if date and '"' not in date else None
        return None if parsed is None else parsed.timestamp()
    except (ValueError, OverflowError):
        return None  # the year is out of range


def _stream(request: Request, download: Download, storage: IStorage) -> Response:
    """Return a response with the bytes: 200, or 206 with one or several ranges."""
    blob, ranges = download.blob, _ranges_of(request, download)
    transfer = transfer_of(request)
    on_sent: Callable[[int], None] = transfer.sent if transfer else lambda size: None
    if ranges is None:
        whole = Range(0, blob.size, blob.size)
        pieces = RangeStream(storage, blob, [(b"", whole)], on_close=on_sent)
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
    pieces = RangeStream(storage, blob, parts, end, on_sent)
    return FileResponse(206, {**headers, "Content-Length": length}, pieces)
