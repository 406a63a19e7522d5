"""Checks of a PNG before it is decoded (https://www.w3.org/TR/png-3/)."""

import struct
import zlib
from typing import BinaryIO

from ...errors import ImageRefused
from .header import ImageHeader
from .limits import Checked, Limits, contradiction, damaged, truncated
from .reader import read_at, size_of

MAX_CHUNKS = 65536
"""Chunks in a file. Usual encoders put 8 KiB or more into each chunk of pixels."""

# Chunks that change how the image looks. All others, such as texts, times and the frames of
# animations, do not reach the decoder.
_KEPT = {
    *(b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS"),
    *(b"cHRM", b"cICP", b"gAMA", b"iCCP", b"sRGB", b"sBIT"),
}
# Channels of each colour type.
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# Bytes that are inflated at once, and bytes that may follow the pixels.
_PIECE, _SURPLUS = 64 * 1024, 1024 * 1024
_MAX_RATIO = 1032
"""The most bytes that one byte of deflated data can inflate to
(https://zlib.net/zlib_tech.html)."""


def check_png(file: BinaryIO, image: ImageHeader, limits: Limits) -> Checked:
    """Check a PNG; see :func:`kinto_attachment.images.formats.check_image`.

    The last chunks may be cut off: whether all pixels are there turns out when it is decoded.

    :raises ImageRefused: if the file has no pixels, too many chunks or frames, too much compressed
        text or too large a profile, or has more or less data than its size needs.
    """
    end, offset, parts, data, text = size_of(file), 8, [(0, 8)], 0, 0
    kind = b""
    seen: set[bytes] = set()
    for _ in range(MAX_CHUNKS):
        header = read_at(file, offset, 8)
        if len(header) < 8 and data:
            break
        if len(header) < 8:
            raise truncated("PNG")
        length, kind = struct.unpack(">I4s", header)
        after = offset + 12 + length
        if after > end:
            if kind != b"IDAT" and not data:
                raise truncated("PNG")
            if kind == b"IDAT":
                data += end - offset - 8
                _keep(parts, offset, end)
            break
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
            raise ImageRefused(
                f"The PNG has over {limits.text} bytes of compressed text, which is too many. Save"
                " it without metadata."
            )
        if kind in _KEPT and kind not in seen:
            _keep(parts, offset, after)
        if kind != b"IDAT":
            seen.add(kind)  # another one of that kind would not count
        offset = after
        if kind == b"IEND":
            break
    else:
        raise ImageRefused(
            f"The PNG has more than {MAX_CHUNKS} chunks, which is too many. Save it again with an"
            " image editor."
        )
    _check_data(read_at(file, 8, 25), image, data)
    return Checked(parts=tuple(parts))


def repair(png: bytes, image: ImageHeader) -> bytes:
    """Return a PNG that is valid and has the same pixels: with the right checksum of its pixels,
    and with the end that it may lack.

    :param png: what the decoder got of a PNG that was checked, and could not read.
    :raises ImageRefused: if a part of the pixels is missing.
    """
    stream, start, end = _pixels(png)
    inflate, checksum, size = zlib.decompressobj(-zlib.MAX_WBITS), 1, 0
    expected = _raw_size(png[8:33], image)
    try:
        for at in range(2, len(stream), _PIECE):
            raw = inflate.decompress(stream[at : at + _PIECE])
            checksum, size = zlib.adler32(raw, checksum), size + len(raw)
            if inflate.eof or size > expected + _SURPLUS:
                break
    except zlib.error as error:
        raise damaged("PNG") from error
    if size > expected + _SURPLUS:
        raise _surplus()
    if size < expected or not inflate.eof:
        raise damaged("PNG")
    used = min(at + _PIECE, len(stream)) - len(inflate.unused_data)
    return b"".join(
        (
            png[:start],
            _chunk(b"IDAT", stream[:used] + struct.pack(">I", checksum)),
            png[end:] if end < len(png) else _chunk(b"IEND", b""),
        )
    )


def _pixels(png: bytes) -> tuple[bytes, int, int]:
    """Return the payload of all chunks ``IDAT`` of a PNG, and where they begin and end. The last
    chunk may be cut off."""
    pieces, start, end, offset = [], 0, len(png), 8
    while offset + 8 <= len(png):
        length, kind = struct.unpack_from(">I4s", png, offset)
        if kind == b"IDAT":
            start = start or offset
            pieces.append(png[offset + 8 : offset + 8 + length])
        elif pieces:
            end = offset
            break
        offset += 12 + length
    return b"".join(pieces), start, end


def _chunk(kind: bytes, payload: bytes) -> bytes:
    checksum = zlib.crc32(payload, zlib.crc32(kind))
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", checksum)


# The left and top of each pass of an interlaced image, and its steps to the right and down.
_PASSES = (
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
    *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)


def _raw_size(header: bytes, image: ImageHeader) -> int:
    """Return the bytes of the pixels after inflating. Each line begins with a byte for its filter.

    :param header: the chunk ``IHDR``.
    """
    depth, colour, interlace = header[16], header[17], header[20]
    width, height = image.stored
    size = 0
    for left, top, right, down in _PASSES if interlace else ((0, 0, 1, 1),):
        columns, lines = -(-(width - left) // right), -(-(height - top) // down)
        if columns > 0 and lines > 0:
            size += lines * (-(-columns * depth * _CHANNELS.get(colour, 4) // 8) + 1)
    return size


def _keep(parts: list[tuple[int, int]], start: int, end: int) -> None:
    """Add a part, or extend the last part if they touch."""
    if parts[-1][1] == start:
        start = parts.pop()[0]
    parts.append((start, end))


def _check_data(header: bytes, image: ImageHeader, data: int) -> None:
    """Check that the pixels can be compressed to that many bytes.

    :param header: the chunk ``IHDR``.
    :param data: bytes of all chunks ``IDAT``.
    """
    length, kind, width, height = struct.unpack(">I4sII", header[:16])
    if (length, kind) != (13, b"IHDR") or (width, height) != image.stored:
        raise contradiction("PNG")
    raw = _raw_size(header, image)
    if data * _MAX_RATIO < raw:
        raise ImageRefused(
            "The PNG has too little data for its size. Save it again with an image editor."
        )
    if data > 2 * raw + 65536:
        raise _surplus()


def _surplus() -> ImageRefused:
    return ImageRefused(
        "The PNG has more data than its size needs. Save it again with an image editor."
    )


def _is_compressed(text: bytes) -> bool:
    """Return whether the flag after the keyword of a chunk ``iTXt`` says that the text is
    compressed.

    :param text: the first bytes of the payload. A keyword has at most 79 bytes.
    """
    return text.partition(b"\0")[2][:1] == b"\1"


def _check_profile(chunk: bytes, limit: int) -> None:
    """Check the size of a colour profile.

    :param chunk: the payload of a chunk ``iCCP``.
    :param limit: bytes, for the compressed and for the inflated profile.
    """
    compressed = chunk.partition(b"\0")[2][1:]
    inflate = zlib.decompressobj()
    try:
        profile = inflate.decompress(compressed, limit + 1)
    except zlib.error:
        return  # the decoder ignores an invalid profile
    if len(profile) > limit or len(chunk) > limit:
        raise ImageRefused(
            f"The colour profile of the PNG has over {limit} bytes, which is too many. Save it with"
            " a smaller profile."
        )
