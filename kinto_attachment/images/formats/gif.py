"""GIF before it is decoded (https://www.w3.org/Graphics/GIF/spec-gif89a.txt)."""

from typing import BinaryIO

from ...errors import ImageRefused
from .header import ImageHeader
from .limits import Checked, Limits, truncated
from .reader import read_at

MAX_BLOCKS = 1_000_000
"""Sub-blocks have up to 255 bytes, and all but their last ones usually do."""

_CHUNK = 256 * 1024
_EXTENSION, _IMAGE, _TRAILER = 0x21, 0x2C, 0x3B


def check_gif(file: BinaryIO, image: ImageHeader, limits: Limits) -> Checked:
    """
    :raises ImageRefused: too many frames, no frame, one that is too large, no end.
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
            raise ImageRefused("The GIF is damaged.")
        blocks.skip()
    if not frames:
        raise ImageRefused("The GIF has no frame.")
    return Checked(limits.animated(frames, image))


def _table(flags: int) -> int:
    """Bytes of the colour table that follows."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


class _Blocks:
    """A GIF from its start, a chunk at a time."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._start = self._at = self._blocks = 0
        self._chunk = b""

    def take(self, size: int) -> bytes:
        if self._at + size > len(self._chunk):
            self._advance()
        taken = self._chunk[self._at : self._at + size]
        if len(taken) < size:
            raise truncated("GIF")
        self._at += size
        return taken

    def skip(self) -> None:
        """Over sub-blocks up to the empty one that ends them."""
        size = 1
        while size:
            if self._at >= len(self._chunk):
                self._advance()
            size = self._chunk[self._at]
            self._at += size + 1
            self._blocks += 1
            if self._blocks > MAX_BLOCKS:
                raise ImageRefused(f"The GIF has more than {MAX_BLOCKS} blocks.")

    def _advance(self) -> None:
        self._start += self._at
        self._at = 0
        self._chunk = read_at(self._file, self._start, _CHUNK)
        if not self._chunk:
            raise truncated("GIF")
