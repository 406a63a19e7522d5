"""Byte ranges of a request: RFC 9110, section 14."""

import re
from dataclasses import dataclass

MAX_RANGES = 16
"""Ranges answered in one response: each is read from the storage by itself."""

# Digits of an offset: more than any file has bytes.
_UNIT = re.compile(r"\s*bytes\s*=(.*)", re.IGNORECASE | re.DOTALL)
_SPEC = re.compile(r"([0-9]{1,18})-([0-9]{1,18})?|-([0-9]{1,18})", re.ASCII)


@dataclass(frozen=True)
class Range:
    """Bytes from offset ``start`` up to, not including, ``end``, of ``size`` in all.

    >>> Range(0, 500, 1234).content_range
    'bytes 0-499/1234'
    """

    start: int
    end: int
    size: int

    @property
    def length(self) -> int:
        return self.end - self.start

    @property
    def content_range(self) -> str:
        """The value of ``Content-Range``."""
        return f"bytes {self.start}-{self.end - 1}/{self.size}"


def read_ranges(header: str, size: int) -> list[Range] | None:
    """What a ``Range`` header asks of a file, in its order.

    :param size: bytes of the file.
    :returns: the ranges that there are, none if they all begin after the end (an answer of 416);
        None when all of the file is to be sent: the header is no byte range, or asks for more
        than :data:`MAX_RANGES` pieces or more bytes than there are (section 14.2).

    >>> read_ranges("bytes=0-1,-1", 10)
    [Range(start=0, end=2, size=10), Range(start=9, end=10, size=10)]
    >>> read_ranges("bytes=10-", 10), read_ranges("bytes=2-1", 10), read_ranges("lines=1-2", 10)
    ([], None, None)
    """
    unit = _UNIT.fullmatch(header)
    if not unit:
        return None
    # RFC 9110, section 5.6.1: a recipient takes empty elements of a list for nothing.
    specs = [spec for spec in (part.strip(" \t") for part in unit[1].split(",")) if spec]
    if not specs or len(specs) > MAX_RANGES:
        return None
    ranges = []
    for spec in specs:
        match = _SPEC.fullmatch(spec)
        if not match:
            return None
        first, last, suffix = match.groups()
        if suffix is not None:
            if int(suffix) and not size:
                return None  # all of an empty file, for which Content-Range has no words
            start, end = max(0, size - int(suffix)), size
        else:
            if last is not None and int(last) < int(first):
                return None
            start, end = int(first), size if last is None else min(int(last) + 1, size)
        if start < end:
            ranges.append(Range(start, end, size))
    if sum(piece.length for piece in ranges) > size:
        return None
    return ranges
