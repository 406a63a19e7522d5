"""PNG before it is decoded (https://www.w3.org/TR/png-3/)."""

import struct
import zlib
from typing import BinaryIO

from ...errors import ImageRefused
from .header import ImageHeader
from .limits import Checked, Limits, contradiction, truncated
from .reader import read_at, size_of

MAX_CHUNKS = 65536
"""Usual encoders write 8 KiB or more into each."""

# What changes how the pixels look. Texts, times and the frames of animations are left out.
_KEPT = {
    *(b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS"),
    *(b"cHRM", b"gAMA", b"iCCP", b"sRGB", b"sBIT"),
}
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_MAX_RATIO = 1032
"""Deflate makes no more than that of one byte (https://zlib.net/zlib_tech.html)."""


def check_png(file: BinaryIO, image: ImageHeader, limits: Limits) -> Checked:
    """
    :raises ImageRefused: too much compressed text, more or less data than the size needs.
    """
    end, offset, parts, data, text = size_of(file), 8, [(0, 8)], 0, 0
    kind = b""
    for _ in range(MAX_CHUNKS):
        header = read_at(file, offset, 8)
        if len(header) < 8:
            raise truncated("PNG")
        length, kind = struct.unpack(">I4s", header)
        after = offset + 12 + length
        if after > end:
            raise truncated("PNG")
        if kind == b"IDAT":
            data += length
        elif kind == b"zTXt" or (kind == b"iTXt" and _is_compressed(file.read(82))):
            text += length
        elif kind == b"iCCP":
            _check_profile(file.read(min(length, limits.profile + 1)), limits.profile)
        elif kind == b"acTL":
            frames = int.from_bytes(file.read(4), "big")
            limits.check_animation(frames, frames * image.width * image.height)
        if text > limits.text:
            raise ImageRefused(f"The PNG has over {limits.text} bytes of compressed text.")
        if kind in _KEPT:
            _keep(parts, offset, after)
        offset = after
        if kind == b"IEND":
            break
    else:
        raise ImageRefused(f"The PNG has more than {MAX_CHUNKS} chunks, which is too many.")
    _check_data(read_at(file, 8, 25), image, data)
    return Checked(parts=tuple(parts))


def _keep(parts: list[tuple[int, int]], start: int, end: int) -> None:
    if parts[-1][1] == start:
        start = parts.pop()[0]
    parts.append((start, end))


def _check_data(header: bytes, image: ImageHeader, data: int) -> None:
    """Whether so many compressed bytes can be these pixels."""
    length, kind, width, height, depth, colour = struct.unpack(">I4sIIBB", header[:18])
    if (length, kind) != (13, b"IHDR") or (width, height) != image.stored:
        raise contradiction("PNG")
    # Each line has a byte more, and each of the seven passes of an interlaced one has lines.
    raw = height * (-(-width * depth * _CHANNELS.get(colour, 4) // 8) + 1)
    if data * _MAX_RATIO < raw:
        raise ImageRefused("The PNG has too little data for its size.")
    if data > 2 * raw + 65536:
        raise ImageRefused("The PNG has more data than its size needs.")


def _is_compressed(text: bytes) -> bool:
    """Whether the flag after the keyword of such a text says so."""
    return text.partition(b"\0")[2][:1] == b"\1"


def _check_profile(chunk: bytes, limit: int) -> None:
    compressed = chunk.partition(b"\0")[2][1:]
    inflate = zlib.decompressobj()
    try:
        profile = inflate.decompress(compressed, limit + 1)
    except zlib.error:
        return  # the decoder goes on without it
    if len(profile) > limit or len(chunk) > limit:
        raise ImageRefused(f"The colour profile has over {limit} bytes.")
