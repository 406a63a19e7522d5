"""The byte ranges that a request asks for (RFC 9110, section 14)."""

import re
from dataclasses import dataclass
from decimal import Decimal

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
