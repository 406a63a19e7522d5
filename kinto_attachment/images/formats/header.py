"""The headers of images: format, size and orientation.

The rest of the file is not checked here; see :mod:`kinto_attachment.images.formats`.
"""

import re
import struct
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO
from xml.parsers import expat

import imagesize

from . import isobmff
from .reader import BlockReader, BoundedReader, read_at

UPRIGHT = 1
"""The orientation of an image that is shown as it is stored."""

# The tag "Orientation" and its type in EXIF.
_ORIENTATION = 0x0112
_SHORT = 3


def read_orientation(exif: bytes) -> int:
    """Return the orientation that EXIF states, from 1 to 8, or 1 if it states none that is valid
    (CIPA DC-008, section 4.6.5).

    :param exif: a TIFF block, with or without ``Exif`` and two zero bytes before it.

    >>> read_orientation(b"MM\\0*" + bytes([0, 0, 0, 8, 0, 1, 1, 18, 0, 3, 0, 0, 0, 1, 0, 6, 0, 0]))
    6
    """
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None or len(exif) < 8:
        return UPRIGHT
    (start,) = struct.unpack_from(f"{order}I", exif, 4)
    if start + 2 > len(exif):
        return UPRIGHT
    (count,) = struct.unpack_from(f"{order}H", exif, start)
    end = min(start + 2 + 12 * count, len(exif) - 11)
    for entry in range(start + 2, end, 12):
        tag, kind, length, value = struct.unpack_from(f"{order}HHIH", exif, entry)
        if tag == _ORIENTATION:
            valid = kind == _SHORT and length == 1 and 1 <= value <= 8
            return value if valid else UPRIGHT
    return UPRIGHT


def is_sideways(orientation: int) -> bool:
    """Return whether turning the image upright swaps its width and height."""
    return orientation in (5, 6, 7, 8)


HEAD_BYTES = 128 * 1024
"""Bytes that are read first. They contain the size of most images. In a few formats, and in JPEGs
with a large preview or colour profile, the size comes later."""

# How many calls and bytes to read in search of the size or the orientation.
_MAX_READS, _MAX_READ_BYTES = 8192, 16 * 1024 * 1024
# Bytes of a drawing in which its root element must begin.
_MAX_PROLOG = 1024 * 1024
# How many chunks of a PNG or WebP to look at for its EXIF.
_MAX_CHUNKS = 256

_MIMETYPES = {
    "avif": "image/avif",
    "bmp": "image/bmp",
    "gif": "image/gif",
    "heic": "image/heic",
    "ico": "image/x-icon",
    "jp2": "image/jp2",
    "jpeg": "image/jpeg",
    "png": "image/png",
    "svg": "image/svg+xml",
    "tiff": "image/tiff",
    "webp": "image/webp",
}
_MAGIC = {
    b"\xff\xd8\xff": "jpeg",
    b"\x89PNG\r\n\x1a\n": "png",
    b"GIF87a": "gif",
    b"GIF89a": "gif",
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
    b"II+\0": "tiff",
    b"\0\0\0\x0cjP  \r\n\x87\n": "jp2",
    b"\0\0\1\0": "ico",
    b"BM": "bmp",
}
_AVIF = {b"avif", b"avis"}
_HEIC = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}
# The namespace and the name of the root element, as expat joins them.
_SVG = "http://www.w3.org/2000/svg svg"
# Pixels per unit of length: CSS Values and Units 4, section 6.2.
_UNITS = {
    **{"": 1, "px": 1, "pt": 4 / 3, "pc": 16},
    **{"in": 96, "cm": 96 / 2.54, "mm": 9.6 / 2.54, "q": 2.4 / 2.54},
}
_LENGTH = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?)(%|[a-z]*)")
# Blocks of a GIF, and markers of a JPEG.
GIF_EXTENSION, GIF_FRAME = 0x21, 0x2C
_APP1, _SOS = 0xE1, 0xDA


@dataclass(frozen=True)
class ImageHeader:
    """What the header of an image states.

    :param format: ``jpeg``, ``png``, ``gif``, ``webp``, ``avif``, ``svg``, ``tiff``, ``heic``,
        ``bmp``, ``ico`` or ``jp2``.
    :param width: pixels of the upright image; 0 for a drawing (SVG) that has no size of its own.
    :param height: likewise.
    :param orientation: how the stored image has to be turned to be upright, from 1 to 8 as in EXIF.
        It is always 1 for AVIF and HEIC, whose decoders turn them.
    """

    format: str
    width: int
    height: int
    orientation: int = UPRIGHT

    @property
    def mimetype(self) -> str:
        """The media type of the format."""
        return _MIMETYPES[self.format]

    @property
    def resizable(self) -> bool:
        """Whether this server can resize images of the format."""
        return self.format in ("jpeg", "png", "webp", "gif", "avif")

    @property
    def stored(self) -> tuple[int, int]:
        """Width and height of the stored image, before it is turned upright."""
        if is_sideways(self.orientation):
            return self.height, self.width
        return self.width, self.height


def read_header(file: BinaryIO) -> ImageHeader | None:
    """Return the header of an image, or None if the file is no image or its size cannot be found.

    :param file: a seekable file. Its position is at the start afterwards.

    >>> read_header(BytesIO(b"GIF89a" + bytes([64, 1, 240, 0, 0, 0, 0]))).width
    320
    >>> read_header(BytesIO(b"<html>"))
    """
    try:
        head = read_at(file, 0, HEAD_BYTES)
        format = _format(head)
        if format is None:
            return None
        width, height = _dimensions(format, head, file)
        orientation = _orientation(format, head, file)
    except (ValueError, struct.error, OverflowError):
        return None
    finally:
        file.seek(0)
    if format != "svg" and (width < 1 or height < 1):
        return None
    if is_sideways(orientation):
        width, height = height, width
    return ImageHeader(format, width, height, orientation)


def _format(head: bytes) -> str | None:
    """Return the format that the first bytes of a file indicate, or None. ``svg`` stands for any
    markup here."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[4:8] == b"ftyp":
        end = min(int.from_bytes(head[:4], "big"), 1024)
        brands = {head[8:12], *(head[at : at + 4] for at in range(16, end, 4))}
        return "avif" if brands & _AVIF else "heic" if brands & _HEIC else None
    for magic, format in _MAGIC.items():
        if head.startswith(magic):
            return format
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    is_markup = text.startswith((b"<", b"\xff\xfe<\0", b"\xfe\xff\0<"))
    return "svg" if is_markup else None


def _dimensions(format: str, head: bytes, file: BinaryIO) -> tuple[int, int]:
    """Return width and height as they are stored; numbers below 1 mean that they are unknown.

    :raises ValueError, struct.error, OverflowError: if the file is malformed.
    """
    if format == "svg":
        return _svg(file)
    if format == "ico":
        return _ico(head)
    if format == "bmp":
        return _bmp(head)
    if format == "gif":
        return _gif(file)
    if format in ("avif", "heic"):
        return isobmff.read_items(file).shown.visible
    source = file if format in ("jpeg", "tiff", "jp2") else BytesIO(head)
    source = BoundedReader(source, _MAX_READS, _MAX_READ_BYTES)
    width, height = imagesize.get(source, exif_rotation=False)
    if format == "webp" and head[12:16] == b"VP8 ":
        # The two upper bits are hints for scaling (RFC 6386, section 9.1).
        return width & 0x3FFF, height & 0x3FFF
    return int(width), int(height)


def _orientation(format: str, head: bytes, file: BinaryIO) -> int:
    if format == "jpeg":
        return read_orientation(_jpeg_exif(file))
    if format == "tiff":
        return read_orientation(_first_directory(head, file))
    if format == "png":
        # After the pixels it comes too late: browsers show the image as it is stored.
        return read_orientation(_chunk(file, 8, b"eXIf", "big", 12, before=b"IDAT"))
    if format == "webp" and head[12:16] == b"VP8X":
        return read_orientation(_chunk(file, 12, b"EXIF", "little", 8))
    return UPRIGHT


def _jpeg_exif(file: BinaryIO) -> bytes:
    """Return the first EXIF block before the pixels of a JPEG, or no bytes. Of several blocks, the
    first counts."""
    offset = 2
    for _ in range(_MAX_READS):
        head = read_at(file, offset, 10)
        if len(head) < 10 or head[0] != 0xFF or head[1] == _SOS:
            break
        if head[1] in (0xFF, 0x01):  # a fill byte, or a marker without a segment
            offset += 1 if head[1] == 0xFF else 2
            continue
        length = int.from_bytes(head[2:4], "big")
        if head[1] == _APP1 and head[4:] == b"Exif\0\0":
            return file.read(max(length - 8, 0))
        offset += 2 + length
    return b""


def _first_directory(head: bytes, file: BinaryIO) -> bytes:
    """Return the start of a TIFF, with its first directory moved there. The directory may be
    anywhere in the file, and has the orientation of the first page."""
    order = "little" if head[:2] == b"II" else "big"
    start = int.from_bytes(head[4:8], order)
    count = read_at(file, start, 2)
    entries = file.read(12 * int.from_bytes(count, order))
    return head[:4] + (8).to_bytes(4, order) + count + entries


def _chunk(
    file: BinaryIO, offset: int, name: bytes, order: str, extra: int, before: bytes = b""
) -> bytes:
    """Return the first 64 KiB of the payload of the first chunk with that name, or no bytes.

    :param offset: where the first chunk begins.
    :param order: ``big`` for a PNG, in which the length comes before the name; ``little`` for a
        WebP, in which the name comes first and payloads are padded to an even length.
    :param extra: bytes of a chunk besides its payload.
    :param before: the name of a chunk that ends the search.
    """
    for _ in range(_MAX_CHUNKS):
        header = read_at(file, offset, 8)
        kind, length = (header[4:], header[:4]) if order == "big" else (header[:4], header[4:])
        if len(header) < 8 or kind == before:
            break
        if kind == name:
            return file.read(min(int.from_bytes(length, order), 64 * 1024))
        size = int.from_bytes(length, order)
        offset += extra + size + (size % 2 if order == "little" else 0)
    return b""


def _ico(head: bytes) -> tuple[int, int]:
    """Return the size of the largest image in an icon. In the file, 0 stands for 256.

    The reserved byte of an entry is not looked at, because some programs write the number of
    colours there. The place of each image tells an icon from other files with as short a magic.
    """
    count = int.from_bytes(head[4:6], "little")
    entries = [head[at : at + 16] for at in range(6, 6 + 16 * count, 16)]
    if not 1 <= count <= 64 or any(len(entry) < 16 for entry in entries):
        return 0, 0
    for entry in entries:
        size, offset = struct.unpack_from("<II", entry, 8)
        if not size or offset < 6 + 16 * count:
            return 0, 0
    sizes = [(entry[0] or 256, entry[1] or 256) for entry in entries]
    return max(sizes, key=lambda sides: sides[0] * sides[1])


def _bmp(head: bytes) -> tuple[int, int]:
    """Return the size of a bitmap. A negative height means that the lines are stored from the top
    to the bottom. The header of OS/2 1.x has 12 bytes, and sides of two bytes."""
    (length,) = struct.unpack_from("<I", head, 14)
    width, height = struct.unpack_from("<HH" if length == 12 else "<ii", head, 18)
    return (width, abs(height)) if length == 12 or 16 <= length <= 256 else (0, 0)


def gif_table(flags: int) -> int:
    """Return the bytes of the colour table that follows in a GIF.

    :param flags: the packed byte of the screen or of a frame.
    """
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _gif(file: BinaryIO) -> tuple[int, int]:
    """Return the size of the canvas of a GIF, as Chromium determines it: the screen, extended so
    that it holds the whole first frame. Later frames do not change it."""
    blocks = BlockReader(file)
    width = height = 0
    try:
        width, height, flags = struct.unpack("<6xHHB2x", blocks.take(13))
        blocks.take(gif_table(flags))
        while (kind := blocks.take(1)[0]) == GIF_EXTENSION:
            blocks.take(1)
            blocks.skip()
        if kind == GIF_FRAME:
            left, top, *sides = struct.unpack("<4H", blocks.take(8))
            width, height = max(width, left + sides[0]), max(height, top + sides[1])
    except EOFError:
        pass  # there is no frame, so the screen is all that is known
    return width, height


class _Root(Exception):
    """Ends the parsing of a document at its first element. This is not an error."""


def _svg(file: BinaryIO) -> tuple[int, int]:
    """Return the size of a drawing in CSS pixels: from its width and height, as far as they are
    absolute, and from its ``viewBox``. Return 0 for both if that does not determine both.

    :raises ValueError: if the file is not a drawing.
    """
    attributes = _root_of(file)
    width, height = (_length(attributes.get(side)) for side in ("width", "height"))
    numbers = attributes.get("viewBox", "").replace(",", " ").split()
    box = [_length(number) for number in numbers[2:]] if len(numbers) == 4 else []
    if None in (width, height):  # one depends on a font
        width = height = 0.0
    if len(box) == 2 and box[0] and box[1]:
        width = width or (height * box[0] / box[1] if height else box[0])
        height = height or width * box[1] / box[0]
    sides = round(width or 0), round(height or 0)
    return sides if all(sides) else (0, 0)


def _root_of(file: BinaryIO) -> dict[str, str]:
    """Return the attributes of the root element of a drawing.

    :raises ValueError: if the file is not a drawing.
    """
    root: list[tuple[str, dict[str, str]]] = []

    def on_start(name: str, attributes: dict[str, str]) -> None:
        root.append((name, attributes))
        raise _Root

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler = on_start
    source = BoundedReader(file, _MAX_READS, _MAX_PROLOG)
    source.seek(0)
    try:
        while text := source.read(64 * 1024):
            parser.Parse(text, False)
    except (_Root, expat.ExpatError):
        pass
    if not root or root[0][0] != _SVG:
        raise ValueError("not a drawing")
    return root[0][1]


def _length(text: str | None) -> float | None:
    """Return a length in CSS pixels; 0 if it is missing, invalid, or a share of the page; None if
    it depends on a font."""
    match = _LENGTH.fullmatch((text or "").strip().lower())
    if not match:
        return 0.0
    number, unit = match.groups()
    if unit not in _UNITS:
        return 0.0 if unit == "%" else None
    pixels = float(number) * _UNITS[unit]
    return pixels if 0 < pixels < 1e9 else 0.0
