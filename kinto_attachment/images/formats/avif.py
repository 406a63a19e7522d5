"""Checks of an AVIF before it is decoded.

The container states a size for each image, and so do the AV1 data of the image. A decoder may trust
either, so both are checked.
"""

from typing import BinaryIO

from ...errors import ImageRefused
from . import isobmff
from .header import ImageHeader
from .limits import Checked, Limits, contradiction
from .reader import read_at

MAX_IMAGES = 1024
"""Coded images in one file: tiles, alpha channels and thumbnails."""

_SEQUENCE_HEADER = 1
# Blocks of AV1 have sides of up to 128 pixels, and some encoders round the size up to whole blocks.
_SLACK = 128


def check_avif(file: BinaryIO, image: ImageHeader, limits: Limits) -> Checked:
    """Check an AVIF; see :func:`kinto_attachment.images.formats.check_image`.

    :raises ImageRefused: if the file is malformed, or if an image in it is larger than it states or
        larger than is allowed.
    """
    try:
        items = isobmff.read_items(file)
        coded = [item for item in items.items.values() if item.kind == b"av01"]
        if not coded or len(coded) > MAX_IMAGES:
            raise ImageRefused(
                f"The AVIF has {len(coded)} coded images, but only 1 to {MAX_IMAGES} are allowed."
                " Save it again with an image editor."
            )
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
        raise ImageRefused(f"The AVIF cannot be read: {error}.") from error
    if sum(item.size[0] * item.size[1] for item in coded) > 4 * limits.avif_pixels:
        raise ImageRefused(
            "The images in the AVIF have too many pixels in all. Upload a smaller image."
        )
    return Checked()


def _first(file: BinaryIO, items: isobmff.Items, item: isobmff.Item, size: int) -> bytes:
    """Return the first bytes of an item's data.

    :raises Malformed: if the item has no data.
    """
    if not item.stored:
        raise isobmff.Malformed("an image in it has no data")
    if item.in_idat:
        return items.idat[item.offset : item.offset + size]
    return read_at(file, item.offset, size)


def _check_grid(data: bytes, item: isobmff.Item, coded: list[isobmff.Item], limits: Limits) -> None:
    """Check a grid of tiles (ISO/IEC 23008-12, section 6.6.2.3).

    :param data: the first bytes of the grid's data.
    :param item: the grid.
    :param coded: all coded images of the file, as any of them may be a tile.
    """
    width = 4 if data[1:2] and data[1] & 1 else 2
    if len(data) < 4 + 2 * width:
        raise isobmff.Malformed("a grid of tiles in it is cut off")
    tiles = (data[2] + 1) * (data[3] + 1)
    size = (
        int.from_bytes(data[4 : 4 + width], "big"),
        int.from_bytes(data[4 + width : 4 + 2 * width], "big"),
    )
    if size != item.size:
        raise contradiction("AVIF")
    largest = max(tile.size[0] * tile.size[1] for tile in coded)
    if tiles > MAX_IMAGES or tiles * largest > 4 * limits.avif_pixels:
        raise ImageRefused(
            "The tiles of the AVIF have too many pixels in all. Upload a smaller image."
        )


def stated_colours(file: BinaryIO) -> tuple[int, int]:
    """Return the numbers (ITU-T H.273) of the primaries and of the transfer function that an AVIF
    states: in its container, or else in its AV1 data. 2 stands for unspecified.

    :raises Malformed: if the file is malformed.
    """
    items = isobmff.read_items(file)
    if items.shown.colours:
        return items.shown.colours
    coded = [items.shown, *(item for item in items.items.values() if item.kind == b"av01")]
    first = next(item for item in coded if item.kind == b"av01")
    return _sequence_header(_first(file, items, first, 128)).colours()


def coded_size(data: bytes) -> tuple[int, int]:
    """Return the largest width and height that AV1 data allow a frame, in pixels, from their
    sequence header.

    :param data: the first bytes of a coded image.
    :raises Malformed: if there is no sequence header.
    """
    return _sequence_header(data).frame_size()


def _sequence_header(data: bytes) -> "_Bits":
    """Return the sequence header of AV1 data (AV1 specification, sections 5.3 to 5.5).

    :raises Malformed: if there is none.
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
            return _Bits(data[offset : offset + size])
        offset += size
    raise isobmff.Malformed("an image in it has no AV1 sequence header")


class _Bits:
    """The bits of a sequence header, read from its start."""

    def __init__(self, data: bytes) -> None:
        self._remaining = 8 * len(data)
        self._value = int.from_bytes(data, "big")

    def take(self, count: int) -> int:
        """Return the number in the next ``count`` bits.

        :raises Malformed: if there are fewer bits.
        """
        self._remaining -= count
        if self._remaining < 0:
            raise isobmff.Malformed("an AV1 sequence header in it is cut off")
        return self._value >> self._remaining & ((1 << count) - 1)

    def frame_size(self) -> tuple[int, int]:
        """Read the header up to the largest width and height of a frame, and return these."""
        self._profile = self.take(3)
        self.take(1)  # still_picture
        self._is_reduced = self.take(1)  # reduced_still_picture_header
        if self._is_reduced:
            self.take(5)  # seq_level_idx
        else:
            self._skip_operation()
        wide, high = self.take(4) + 1, self.take(4) + 1
        return self.take(wide) + 1, self.take(high) + 1

    def colours(self) -> tuple[int, int]:
        """Read the header up to the numbers of the colour space, and return the first two."""
        self.frame_size()
        if not self._is_reduced and self.take(1):  # frame_id_numbers_present_flag
            self.take(7)
        self.take(3)  # use_128x128_superblock, enable_filter_intra, enable_intra_edge_filter
        if not self._is_reduced:
            self._skip_tools()
        self.take(3)  # enable_superres, enable_cdef, enable_restoration
        if self.take(1) and self._profile == 2:  # high_bitdepth
            self.take(1)  # twelve_bit
        if self._profile != 1:
            self.take(1)  # mono_chrome
        is_described = self.take(1)  # color_description_present_flag
        return (self.take(8), self.take(8)) if is_described else (2, 2)

    def _skip_tools(self) -> None:
        """Skip the tools of the coder that a header has if it is not reduced."""
        self.take(4)  # enable_interintra_compound to enable_dual_filter
        has_order = self.take(1)  # enable_order_hint
        if has_order:
            self.take(2)  # enable_jnt_comp, enable_ref_frame_mvs
        if self.take(1) or self.take(1):  # seq_choose_screen_content_tools, or forced
            self.take(1) or self.take(1)  # seq_choose_integer_mv, seq_force_integer_mv
        if has_order:
            self.take(3)  # order_hint_bits_minus_1

    def _skip_operation(self) -> None:
        """Skip the timing, and the operating points, of a header that is not reduced."""
        delay = 0
        if self.take(1):  # timing_info_present_flag
            self.take(64)
            if self.take(1):  # equal_picture_interval
                zeros = 0
                while not self.take(1):
                    zeros += 1
                self.take(zeros)
            if self.take(1):  # decoder_model_info_present_flag
                delay = self.take(5) + 1
                self.take(42)
        has_display_delay = self.take(1)
        for _ in range(self.take(5) + 1):  # operating_points_cnt_minus_1
            self.take(12)
            if self.take(5) > 7:  # seq_level_idx
                self.take(1)  # seq_tier
            if delay and self.take(1):
                self.take(2 * delay + 1)
            if has_display_delay and self.take(1):
                self.take(4)
