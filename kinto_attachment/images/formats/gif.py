"""Checks of a GIF before it is decoded (https://www.w3.org/Graphics/GIF/spec-gif89a.txt)."""

import struct
from typing import BinaryIO

from ...errors import ImageRefused
from .header import GIF_EXTENSION, GIF_FRAME, ImageHeader, gif_table
from .limits import Checked, Limits, truncated
from .reader import BlockReader

MAX_BLOCKS = 1_000_000
"""Sub-blocks in a file. Most of them have 255 bytes, the most that they can have."""

_TRAILER = 0x3B
_GRAPHIC_CONTROL = 0xF9
# How a frame is disposed of before the next one: its area becomes transparent, or as it was before.
_CLEAR, _RESTORE = 2, 3
_HEADER = 13


def check_gif(file: BinaryIO, image: ImageHeader, limits: Limits) -> Checked:
    """Check a GIF; see :func:`kinto_attachment.images.formats.check_image`.

    A GIF without its trailer is complete if its last frame is. Anything else in place of the
    trailer ends it too, as in browsers.

    :raises ImageRefused: if the file is malformed or cut off, has no frame, too many frames or
        blocks, or a frame that is too large.
    """
    blocks, frames = BlockReader(file, MAX_BLOCKS), _Frames(image, limits)
    try:
        frames.flags = blocks.take(_HEADER)[10]
        start = _HEADER + gif_table(frames.flags)
        blocks.take(start - _HEADER)
        end, tail = frames.read(blocks)
    except ValueError as error:
        raise ImageRefused(
            f"The GIF has more than {MAX_BLOCKS} blocks, which is too many. Upload a smaller one."
        ) from error
    except EOFError as error:
        raise truncated("GIF") from error
    if not frames.count:
        raise ImageRefused("The GIF has no frame. Save it again with an image editor.")
    count = limits.animated(frames.count, image)
    tails = (tail,) if tail else ()
    if not frames.is_bare:
        return Checked(count, ((0, end), *tails))
    # The decoder would fill bare pixels with black unless a frame is transparent, and it ignores
    # some sizes of screens, such as 640 x 480, but no frame. So it gets another frame before the
    # first: one transparent pixel in the last corner of the canvas.
    parts: list[tuple[int, int] | bytes] = [(0, start), _corner(image)]
    for offset, control in frames.cleared:
        parts += [(start, offset), control]
        start = offset + len(control)
    return Checked(count, (*parts, (start, end), *tails), skipped=1)


class _Frames:
    """The frames of a GIF, checked one by one."""

    def __init__(self, image: ImageHeader, limits: Limits) -> None:
        self._image = image
        self._limits = limits
        self.flags = 0
        """The packed byte of the screen."""
        self.count = 0
        self.is_bare = False
        """Whether any pixel of the canvas may remain without a colour."""
        self.cleared: list[tuple[int, bytes]] = []
        """Offsets of graphic controls, and what to write there so that the areas of their frames
        become transparent afterwards. The decoder would give them the background colour, which
        browsers ignore, unless the frame has a transparent colour: here, one that no pixel has."""
        self._is_cleared = False
        self._control = (0, b"")

    def read(self, blocks: BlockReader) -> tuple[int, bytes]:
        """Read all frames, and return where the part of the file ends that the decoder gets, and
        what to add to it.

        :param blocks: the file, from the end of its header.
        :raises ImageRefused, EOFError, ValueError: if a frame is not acceptable or not complete.
        """
        end = 0
        while kind := self._kind(blocks):
            if kind == _TRAILER:
                return blocks.offset, b""
            if kind == GIF_FRAME:
                self._read_frame(blocks)
                try:
                    blocks.skip()
                except EOFError:
                    if not blocks.ends_with_last:
                        raise
                    return blocks.offset, b"\0;"
                end = blocks.offset
            elif not self._skip_extension(blocks):
                break
        if not self.count:
            raise truncated("GIF")
        return end, b";"

    def _kind(self, blocks: BlockReader) -> int:
        """Return what comes next; 0 if nothing does, or nothing known."""
        try:
            kind = blocks.take(1)[0]
        except EOFError:
            return 0
        if kind in (GIF_EXTENSION, GIF_FRAME, _TRAILER):
            return kind
        if not self.count:
            raise ImageRefused(
                "The GIF is damaged: it has a block of an unknown kind. Save it again with an image"
                " editor."
            )
        return 0

    def _skip_extension(self, blocks: BlockReader) -> bool:
        """Skip an extension, and return whether it is complete."""
        try:
            if blocks.take(1)[0] == _GRAPHIC_CONTROL:
                length = blocks.take(1)[0]
                self._control = (blocks.offset, blocks.take(length))
            blocks.skip()
        except EOFError:
            return False
        return True

    def _read_frame(self, blocks: BlockReader) -> None:
        """Read a frame up to its data.

        :raises ImageRefused: if it is too large, or one too many.
        """
        self.count += 1
        self._limits.animated(self.count, self._image)
        left, top, width, height, flags = struct.unpack("<4HB", blocks.take(9))
        self._limits.check_size("gif", width, height)
        is_partial = left or top or width < self._image.width or height < self._image.height
        if is_partial and (self.count == 1 or self._is_cleared):
            self.is_bare = True
        offset, control = self._control
        self._control = (0, b"")
        disposal = control[0] >> 2 & 7 if len(control) == 4 else 0
        # Before the first frame, everything was transparent.
        self._is_cleared |= disposal == _CLEAR or (disposal == _RESTORE and self.count == 1)
        has_spare_colour = (flags if flags & 0x80 else self.flags) & 7 < 7
        if disposal == _CLEAR and has_spare_colour and not control[0] & 1:
            self.cleared.append((offset, bytes([control[0] | 1, *control[1:3], 255])))
        blocks.take(gif_table(flags) + 1)


def _corner(image: ImageHeader) -> bytes:
    """Return a frame of one transparent pixel in the bottom right corner."""
    control = bytes([GIF_EXTENSION, _GRAPHIC_CONTROL, 4, 1, 0, 0, 0, 0])
    # Two colours of its own, and the codes: clear, the first colour, end.
    descriptor = struct.pack("<B4HB", GIF_FRAME, image.width - 1, image.height - 1, 1, 1, 0x80)
    return control + descriptor + bytes(6) + b"\2\2\x44\1\0"
