"""AVIF before it is decoded: what each of its images says of its size, and what AV1 says of it."""

from typing import BinaryIO

from ...errors import ImageRefused
from . import isobmff
from .header import ImageHeader
from .limits import Checked, Limits, contradiction
from .reader import read_at

MAX_IMAGES = 1024
"""Tiles, alpha, thumbnails."""

_SEQUENCE_HEADER = 1
# Blocks of AV1 have up to 128 pixels a side: some encoders say the size in those.
_SLACK = 128


def check_avif(file: BinaryIO, image: ImageHeader, limits: Limits) -> Checked:
    """
    :raises ImageRefused: an image in it is larger than it says, or than is allowed.
    """
    try:
        items = isobmff.read_items(file)
        coded = [item for item in items.items.values() if item.kind == b"av01"]
        if not coded or len(coded) > MAX_IMAGES:
            raise ImageRefused(f"The AVIF has {len(coded)} images, 1 to {MAX_IMAGES} are allowed.")
        for item in items.items.values():
            limits.check_size("avif", *item.size)
        for item in items.items.values():
            if item.kind == b"grid":
                _check_grid(_first(file, items, item, 12), item, coded, limits)
        for item in coded:
            width, height = coded_size(_first(file, items, item, 128))
            limits.check_size("avif", width, height)
            if width > item.size[0] + _SLACK or height > item.size[1] + _SLACK:
                raise contradiction("AVIF")
    except isobmff.Malformed as error:
        raise ImageRefused(f"The AVIF is damaged: {error}.") from error
    if sum(item.size[0] * item.size[1] for item in coded) > 4 * limits.avif_pixels:
        raise ImageRefused("The images in the AVIF have too many pixels in all.")
    return Checked()


def _first(file: BinaryIO, items: isobmff.Items, item: isobmff.Item, size: int) -> bytes:
    """The first bytes of an image."""
    if not item.stored:
        raise isobmff.Malformed("an image has no data")
    if item.in_idat:
        return items.idat[item.offset : item.offset + size]
    return read_at(file, item.offset, size)


def _check_grid(data: bytes, item: isobmff.Item, coded: list[isobmff.Item], limits: Limits) -> None:
    """ISO/IEC 23008-12, section 6.6.2.3."""
    width = 4 if data[1:2] and data[1] & 1 else 2
    if len(data) < 4 + 2 * width:
        raise isobmff.Malformed("a grid is cut off")
    tiles = (data[2] + 1) * (data[3] + 1)
    size = (
        int.from_bytes(data[4 : 4 + width], "big"),
        int.from_bytes(data[4 + width : 4 + 2 * width], "big"),
    )
    if size != item.size:
        raise contradiction("AVIF")
    largest = max(tile.size[0] * tile.size[1] for tile in coded)
    if tiles > MAX_IMAGES or tiles * largest > 4 * limits.avif_pixels:
        raise ImageRefused("The tiles of the AVIF have too many pixels in all.")


def coded_size(data: bytes) -> tuple[int, int]:
    """The largest frame by the sequence header of AV1 (AV1 specification, sections 5.3 to 5.5).

    :raises Malformed: there is none.
    """
    offset = 0
    while offset < len(data):
        header = data[offset]
        offset += 2 if header & 4 else 1
        size, shift, more = len(data) - offset, 0, bool(header & 2)
        if more:
            size = 0
        while more and offset < len(data) and shift < 56:
            byte = data[offset]
            size |= (byte & 127) << shift
            shift, offset, more = shift + 7, offset + 1, byte > 127
        if header >> 3 & 15 == _SEQUENCE_HEADER:
            return _Bits(data[offset : offset + size]).frame_size()
        offset += size
    raise isobmff.Malformed("an image has no header of AV1")


class _Bits:
    """A sequence header."""

    def __init__(self, data: bytes) -> None:
        self._left = 8 * len(data)
        self._value = int.from_bytes(data, "big")

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise isobmff.Malformed("a header of AV1 is cut off")
        return self._value >> self._left & ((1 << count) - 1)

    def frame_size(self) -> tuple[int, int]:
        self.take(4)  # profile, still
        if self.take(1):
            self.take(5)
        else:
            self._skip_operation()
        wide, high = self.take(4) + 1, self.take(4) + 1
        return self.take(wide) + 1, self.take(high) + 1

    def _skip_operation(self) -> None:
        """Everything about time in a header that is not reduced to a still image."""
        delay = 0
        if self.take(1):  # timing
            self.take(64)
            if self.take(1):
                zeros = 0
                while not self.take(1):
                    zeros += 1
                self.take(zeros)
            if self.take(1):  # decoder model
                delay = self.take(5) + 1
                self.take(42)
        shown_late = self.take(1)
        for _ in range(self.take(5) + 1):
            self.take(12)
            if self.take(5) > 7:
                self.take(1)
            if delay and self.take(1):
                self.take(2 * delay + 1)
            if shown_late and self.take(1):
                self.take(4)
