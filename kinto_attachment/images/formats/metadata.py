"""Images without what they carry besides their pixels, such as the place where they were taken."""

import re
import struct
from io import BytesIO
from mmap import mmap

from . import isobmff
from .jpeg import MARKER, TABLES

# A comment, or an application's extension other than that which says how often a GIF is repeated.
_IN_GIF = re.compile(rb"!(\xfe|\xff(?!\x0bNETSCAPE2\.0))")
_OF_AVIF = {b"ftyp", b"meta", b"mdat"}
_OF_PNG = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
_OF_WEBP = {b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF"}
_EOI, _SOS, _APP0, _APP14, _APP15, _COMMENT = 0xD9, 0xDA, 0xE0, 0xEE, 0xEF, 0xFE


def without_metadata(format: str, data: bytes | mmap) -> bytes | None:
    """Return an image without anything but its pixels, which are in sRGB; None if that takes more
    than leaving parts out.

    :param data: an image that passed :func:`kinto_attachment.images.formats.check_image`; a mapped
        file only if it is a JPEG.

    >>> without_metadata("gif", b"GIF89a...!\\xfe\\x05hello\\0;")
    """
    if format == "png":
        return _png(data)
    if format == "jpeg":
        return _jpeg(data)
    has_more = {"avif": _has_avif_more, "gif": _IN_GIF.search, "webp": _has_webp_more}[format]
    return None if has_more(data) else data


def _png(data: bytes) -> bytes:
    offset, parts = 8, [data[:8]]
    while offset + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, offset)
        if kind in _OF_PNG:
            parts.append(data[offset : offset + 12 + length])
        offset += 12 + length
    return b"".join(parts)


def _jpeg(data: bytes | mmap) -> bytes | None:
    offset, parts = 2, [data[:2]]
    while offset + 4 <= len(data) and data[offset] == 0xFF:
        marker, length = struct.unpack_from(">xBH", data, offset)
        if marker == _SOS:
            end = _end_of_scans(data, offset + 2 + length)
            return None if end is None else b"".join((*parts, data[offset:end]))
        segment = data[offset : offset + 2 + length]
        # These two say how colours are coded. The first may contain a small image.
        says_colours = (marker == _APP0 and segment[4:9] == b"JFIF\0" and length == 16) or (
            marker == _APP14 and segment[4:9] == b"Adobe" and length == 14
        )
        if says_colours or not (_APP0 <= marker <= _APP15 or marker == _COMMENT):
            parts.append(segment)
        offset += 2 + length
    return None


def _end_of_scans(jpeg: bytes | mmap, offset: int) -> int | None:
    """Return where a JPEG ends, as something else may follow; None if there is more than pixels
    before.

    :param offset: where the coded data begins.
    """
    while found := MARKER.search(jpeg, offset):
        marker, offset = found[0][1], found.end()
        if marker == _EOI:
            return offset
        if marker != _SOS and marker not in TABLES:
            return None
        offset += int.from_bytes(jpeg[offset : offset + 2], "big")
    return None


def _has_webp_more(data: bytes) -> bool:
    offset = 12
    while offset + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, offset)
        if kind not in _OF_WEBP:
            return True
        offset += 8 + length + length % 2
    return False


def _has_avif_more(data: bytes) -> bool:
    boxes = {kind for kind, _ in isobmff.boxes(data)}
    kinds = {item.kind for item in isobmff.read_items(BytesIO(data)).items.values()}
    return not (boxes <= _OF_AVIF and kinds <= {b"av01", b"grid"}) or b"colrprof" in data
