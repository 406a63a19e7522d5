"""Checks of a GIF before it is decoded (https://www.w3.org/Graphics/GIF/spec-gif89a.txt)."""

from typing import BinaryIO

from ...errors import ImageRefused
from .header import ImageHeader
from .limits import Checked, Limits, truncated
from .reader import read_at

MAX_BLOCKS = 1_000_000
"""Sub-blocks in a file. Most of them have 255 bytes, the most that they can have."""

_CHUNK = 256 * 1024
_EXTENSION, _IMAGE, _TRAILER = 0x21, 0x2C, 0x3B


def check_gif(file: BinaryIO, image: ImageHeader, limits: Limits) -> Checked:
    """Check a GIF; see :func:`kinto_attachment.images.formats.check_image`.

    :raises ImageRefused: if the file is malformed or cut off, has no frame, too many frames or
        blocks, or a frame that is too large.
    """
    blocks, frames = _Blocks(file), 0
    flags = blocks.take(13)[10]
    blocks.take(_table(flags))
    while (kind := blocks.take(1)[0]) != _TRAILER:
        if kind == _EXTENSION:
            blocks.take(1)
        elif kind == _IMAGE:
            frames += 1
            limits.animated(frames, image)
            descriptor = blocks.take(9)
            width, height = (int.from_bytes(descriptor[at : at + 2], "little") for at in (4, 6))
            limits.check_size("gif", width, height)
            blocks.take(_table(descriptor[8]) + 1)
        else:
            raise ImageRefused(
                "The GIF is damaged: it has a block of an unknown kind. Save it again with an image"
                " editor."
            )
        blocks.skip()
    if not frames:
        raise ImageRefused("The GIF has no frame. Save it again with an image editor.")
    return Checked(limits.animated(frames, image))


def _table(flags: int) -> int:
    """Return the bytes of the colour table that follows.

    :param flags: the packed byte of the screen or image descriptor.
    """
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


class _Blocks:
    """A GIF, read from its start to its end in constant memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._start = self._position = self._blocks = 0
        self._chunk = b""

    def take(self, size: int) -> bytes:
        """Return the next ``size`` bytes.

        :raises ImageRefused: if there are fewer.
        """
        if self._position + size > len(self._chunk):
            self._advance()
        taken = self._chunk[self._position : self._position + size]
        if len(taken) < size:
            raise truncated("GIF")
        self._position += size
        return taken

    def skip(self) -> None:
        """Skip sub-blocks up to and including the empty one that ends them.

        :raises ImageRefused: if the file ends before, or has too many sub-blocks.
        """
        size = 1
        while size:
            if self._position >= len(self._chunk):
                self._advance()
            size = self._chunk[self._position]
            self._position += size + 1
            self._blocks += 1
            if self._blocks > MAX_BLOCKS:
                raise ImageRefused(
                    f"The GIF has more than {MAX_BLOCKS} blocks, which is too many. Upload a"
                    " smaller one."
                )

    def _advance(self) -> None:
        """Read a chunk from the current position."""
        self._start += self._position
        self._position = 0
        self._chunk = read_at(self._file, self._start, _CHUNK)
        if not self._chunk:
            raise truncated("GIF")
