"""The byte ranges that a request asks for (RFC 9110, section 14), and the stream of their bytes."""

import logging
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from io import FileIO
from typing import Any, BinaryIO

from ..errors import BlobDamaged, StorageUnavailable
from ..files.blob import CHUNK, Blob
from ..storage import IStorage

logger = logging.getLogger(__name__)

MAX_RANGES = 16
"""Ranges in one response. Each of them is a read of its own from the storage."""

_UNIT = re.compile(r"\s*bytes\s*=(.*)", re.IGNORECASE | re.DOTALL)
_SPEC = re.compile(r"([0-9]+)-([0-9]+)?|-([0-9]+)")
_PLAIN_SPEC = r"(?:[0-9]{1,18}-[0-9]{0,18}|-[0-9]{1,18})"
_PLAIN = re.compile(rf"bytes={_PLAIN_SPEC}(?:, ?{_PLAIN_SPEC})*")


@dataclass(frozen=True)
class Range:
    """A range of the bytes of a file.

    :param start: the offset of the first byte.
    :param end: the offset after the last byte.
    :param size: bytes of the whole file.

    >>> Range(0, 500, 1234).content_range
    'bytes 0-499/1234'
    """

    start: int
    end: int
    size: int

    @property
    def length(self) -> int:
        """Bytes of the range."""
        return self.end - self.start

    @property
    def content_range(self) -> str:
        """The value of ``Content-Range``."""
        return f"bytes {self.start}-{self.end - 1}/{self.size}"


def read_ranges(header: str, size: int) -> list[Range] | None:
    """Return the ranges that a ``Range`` header asks for, in the order of the header.

    :param header: the value of ``Range``.
    :param size: bytes of the file.
    :returns: the ranges that are within the file. An empty list means that none of them is, so that
        the response is a 416. None means that the whole file is to be sent: the header is not a
        valid byte range, has more than :data:`MAX_RANGES` ranges, or asks for more bytes than the
        file has (section 14.2).

    >>> read_ranges("bytes=0-1,-1", 10)
    [Range(start=0, end=2, size=10), Range(start=9, end=10, size=10)]
    >>> read_ranges("bytes=5-99999999999999999999999", 10)
    [Range(start=5, end=10, size=10)]
    >>> read_ranges("bytes=10-", 10), read_ranges("bytes=2-1", 10), read_ranges("lines=1-2", 10)
    ([], None, None)
    """
    unit = _UNIT.fullmatch(header)
    if not unit:
        return None
    # A recipient must ignore empty elements of a list (RFC 9110, section 5.6.1).
    specs = [spec for spec in (part.strip(" \t") for part in unit[1].split(",")) if spec]
    if not specs or len(specs) > MAX_RANGES:
        return None
    ranges = []
    for spec in specs:
        match = _SPEC.fullmatch(spec)
        if not match:
            return None
        # Python refuses int() for very long strings of digits, but accepts Decimal().
        first, last, suffix = (None if text is None else Decimal(text) for text in match.groups())
        if suffix is not None:
            if suffix and not size:
                return None  # all of an empty file: Content-Range cannot express that
            start, end = size - min(suffix, size), size
        else:
            if last is not None and last < first:
                return None
            start, end = min(first, size), size if last is None or last >= size else last + 1
        if start < end:
            ranges.append(Range(int(start), int(end), size))
    if sum(piece.length for piece in ranges) > size:
        return None
    return ranges


def is_plain(header: str) -> bool:
    """Return whether every server reads the value of ``Range`` alike. nginx, for one, refuses empty
    elements, tabs, and numbers of more than 63 bits.

    >>> is_plain("bytes=0-1, -1"), is_plain("bytes=0-1,,-1")
    (True, False)
    """
    return _PLAIN.fullmatch(header) is not None


class RangeStream(Iterator[bytes]):
    """The chunks of ranges of a blob, one range after the other, in constant memory.

    All ranges are opened before a byte is sent. Most errors are found then, and replacing the blob
    afterwards does not change what is sent.

    Iteration raises ``StorageUnavailable`` if the storage fails, or if bytes are missing at the end
    of a range. The client then receives fewer bytes than ``Content-Length`` announced.

    :param parts: for each range, the bytes to send before it, and the range.
    :param end: the bytes to send after the last range.
    :param on_close: is called once when the server has sent the response, or has given up. It
        takes the number of bytes that were sent.
    :ivar sent: the number of bytes so far.
    :raises BlobNotFound: if the storage does not have the blob.
    :raises BlobDamaged: if the stored blob has another size.
    :raises StorageUnavailable: if the storage cannot be reached.
    """

    def __init__(
        self,
        storage: IStorage,
        blob: Blob,
        parts: list[tuple[bytes, Range]],
        end: bytes = b"",
        on_close: Callable[[int], None] = lambda sent: None,
    ):
        self.sent = 0
        self._blob = blob
        self._on_close: Callable[[int], None] | None = None
        self._opened: list[Any] = []
        try:
            for _, piece in parts:
                # A range at the end is read to the end of the blob, to detect a blob that is too
                # long.
                end_of_read = None if piece.end == blob.size else piece.end
                chunks = storage.open(blob.key, piece.start, end_of_read)
                self._opened.append(chunks)
                if chunks.length != piece.length:
                    reason = f"{chunks.length} bytes instead of {piece.length}"
                    raise BlobDamaged(blob.key, f"{reason} ({piece.content_range})")
        except BaseException:
            self.close()
            raise
        self._chunks = self._read(parts, end)
        self._on_close = on_close

    def _read(self, parts: list[tuple[bytes, Range]], end: bytes) -> Iterator[bytes]:
        for (head, piece), chunks in zip(parts, self._opened, strict=True):
            if head:
                yield head
            missing = piece.length
            for chunk in chunks:
                missing -= len(chunk)
                yield chunk
            if missing:
                raise StorageUnavailable(self._blob.key, f"{missing} bytes are missing at the end")
        if end:
            yield end

    def __next__(self) -> bytes:
        try:
            chunk = next(self._chunks)
        except StorageUnavailable:
            # The headers were sent, so an error response is impossible. The server closes the
            # connection, and the client sees that bytes are missing.
            logger.exception("A download was broken off.")
            raise
        self.sent += len(chunk)
        return chunk

    def as_file(self, environ: dict[str, Any]) -> Any:
        """Return the blob wrapped in the server's ``wsgi.file_wrapper`` (PEP 3333), with which the
        server sends a file by itself. Return None if the blob is not a file, or the server has no
        such wrapper.

        Call this for a whole blob only: uWSGI cannot send a part of a file.
        """
        file, wrapper = getattr(self._opened[0], "file", None), environ.get("wsgi.file_wrapper")
        return wrapper(_SentFile(file, self, self._blob.size), CHUNK) if file and wrapper else None

    def close(self) -> None:
        """Close all ranges. Idempotent."""
        for chunks in self._opened:
            chunks.close()
        on_close, self._on_close = self._on_close, None
        if on_close:
            on_close(self.sent)


class _SentFile(FileIO):
    """An open file that the server sends by itself, and closes when it has done so (PEP 3333).

    :param pieces: are closed with the file.
    :param size: bytes of the file.
    """

    def __init__(self, file: BinaryIO, pieces: RangeStream, size: int):
        self._pieces = pieces
        self._size = size
        super().__init__(os.dup(file.fileno()))

    def close(self) -> None:
        if not self.closed:
            # Servers that do not read the file leave its position at the start.
            self._pieces.sent = self.tell() or self._size
        super().close()
        self._pieces.close()


def check_size(blob: Blob, size: int) -> None:
    """Compare the size of a blob with the size that the storage states.

    :raises BlobDamaged: if they differ.
    """
    if size != blob.size:
        raise BlobDamaged(blob.key, f"it has {size} bytes instead of {blob.size}")
