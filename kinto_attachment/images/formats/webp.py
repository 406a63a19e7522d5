"""Checks of a WebP before it is decoded (RFC 9649)."""

import struct
from collections.abc import Iterator
from typing import BinaryIO

from ...errors import ImageRefused
from .header import ImageHeader
from .limits import Checked, Limits, contradiction, truncated
from .reader import read_at, size_of

MAX_CHUNKS = 16384
"""Chunks in a file, or in one frame of an animation."""


def check_webp(file: BinaryIO, image: ImageHeader, limits: Limits) -> Checked:
    """Check a WebP; see :func:`kinto_attachment.images.formats.check_image`.

    :raises ImageRefused: if the file is cut off, has no frame, too many frames or chunks or too
        large a profile, or if a frame is larger than the file states.
    """
    end = 8 + int.from_bytes(read_at(file, 4, 4), "little")
    if end > size_of(file):
        raise truncated("WebP")
    frames = 0
    for kind, start, length in _chunks(file, 12, end):
        if kind == b"ANMF":
            frames += 1
            limits.animated(frames, image)
            _check_frame(file, start, length, image)
        elif kind in (b"VP8 ", b"VP8L"):
            if _size(kind, read_at(file, start, 10)) != image.stored:
                raise contradiction("WebP")
            frames += 1
        elif kind == b"ICCP" and length > limits.profile:
            raise ImageRefused(
                f"The colour profile of the WebP has over {limits.profile} bytes, which is too"
                " many. Save it with a smaller profile."
            )
    if not frames:
        raise ImageRefused("The WebP has no frame. Save it again with an image editor.")
    return Checked(limits.animated(frames, image), ((0, end),))


def _check_frame(file: BinaryIO, start: int, length: int, image: ImageHeader) -> None:
    """Check that a frame is within the canvas, and that its data have the size that it states.

    :param start: offset of the payload of its chunk ``ANMF``.
    :param length: bytes of that payload.
    """
    header = read_at(file, start, 12)
    left, top, width, height = (
        int.from_bytes(header[at : at + 3], "little") for at in range(0, 12, 3)
    )
    size = (width + 1, height + 1)
    canvas = image.stored
    if 2 * left + size[0] > canvas[0] or 2 * top + size[1] > canvas[1]:
        raise contradiction("WebP")
    for kind, at, _ in _chunks(file, start + 16, start + length):
        if kind in (b"VP8 ", b"VP8L") and _size(kind, read_at(file, at, 10)) != size:
            raise contradiction("WebP")


def _size(kind: bytes, data: bytes) -> tuple[int, int]:
    """Return the width and height of a frame (RFC 6386, section 9.1; RFC 9649, section 3.4).

    :param kind: the name of its chunk, ``VP8`` with a space or ``VP8L``.
    :param data: the first ten bytes of its payload.
    """
    if len(data) < 10:
        raise truncated("WebP")
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 6)
        return width & 0x3FFF, height & 0x3FFF
    bits = int.from_bytes(data[1:5], "little")
    return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1


def _chunks(file: BinaryIO, offset: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind of each chunk, and the offset and the length of its payload.

    :param offset: where the first chunk begins.
    :param end: where the last chunk ends.
    """
    for _ in range(MAX_CHUNKS):
        if offset + 8 > end:
            return
        kind, length = struct.unpack("<4sI", read_at(file, offset, 8))
        if offset + 8 + length > end:
            raise truncated("WebP")
        yield kind, offset + 8, length
        offset += 8 + length + length % 2
    raise ImageRefused(
        f"The WebP has {MAX_CHUNKS} chunks or more, which is too many. Save it again with an image"
        " editor."
    )
