"""The headers of images: format, size and orientation.

The rest of the file is not checked here; see :mod:`kinto_attachment.images.formats`.
"""

import struct
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO
from xml.parsers import expat

import imagesize

from . import isobmff
from .reader import BoundedReader, read_at

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
_UNITS = {"": 1, "px": 1, "pt": 4 / 3, "pc": 16, "in": 96, "cm": 96 / 2.54, "mm": 9.6 / 2.54}


@dataclass(frozen=True)
class ImageHeader:
    """What the header of an image states.

    :param format: ``jpeg``, ``png``, ``gif``, ``webp``, ``avif``, ``svg``, ``tiff``, ``heic``,
        ``bmp``, ``ico`` or ``jp2``.
    :param width: pixels of the upright image.
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
    if width < 1 or height < 1:
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
    text = head[:256].removeprefix(b"\xef\xbb\xbf").lstrip()
    is_markup = text.startswith((b"<", b"\xff\xfe<\0", b"\xfe\xff\0<"))
    return "svg" if is_markup else None


def _dimensions(format: str, head: bytes, file: BinaryIO) -> tuple[int, int]:
    """Return width and height as they are stored; numbers below 1 mean that they are unknown.

    :raises ValueError, struct.error, OverflowError: if the file is malformed.
    """
    if format == "svg":
        return _svg(head)
    if format == "ico":
        return _ico(head)
    if format in ("avif", "heic"):
        item = isobmff.read_items(file).shown
        width, height = item.size
        return (height, width) if item.angle % 180 else (width, height)
    source = file if format in ("jpeg", "tiff", "jp2") else BytesIO(head)
    source = BoundedReader(source, _MAX_READS, _MAX_READ_BYTES)
    width, height = imagesize.get(source, exif_rotation=False)
    if format == "gif" and len(head) >= 10:
        return width & 0xFFFF, height & 0xFFFF  # imagesize reads them as signed numbers
    if format == "webp" and head[12:16] == b"VP8 ":
        # The two upper bits are hints for scaling (RFC 6386, section 9.1).
        return width & 0x3FFF, height & 0x3FFF
    return int(width), int(height)


def _orientation(format: str, head: bytes, file: BinaryIO) -> int:
    if format == "jpeg":
        source = BoundedReader(file, _MAX_READS, _MAX_READ_BYTES)
        info = imagesize.get_info(source, dpi=False, colors=False, channels=False)
        return info.rotation if 1 <= info.rotation <= 8 else UPRIGHT
    if format == "png":
        return read_orientation(_chunk(file, 8, b"eXIf", "big", 12))
    if format == "webp" and head[12:16] == b"VP8X":
        return read_orientation(_chunk(file, 12, b"EXIF", "little", 8))
    return UPRIGHT


def _chunk(file: BinaryIO, offset: int, name: bytes, order: str, extra: int) -> bytes:
    """Return the first 64 KiB of the payload of the first chunk with that name, or no bytes.

    :param offset: where the first chunk begins.
    :param order: ``big`` for a PNG, in which the length comes before the name; ``little`` for a
        WebP, in which the name comes first and payloads are padded to an even length.
    :param extra: bytes of a chunk besides its payload.
    """
    for _ in range(_MAX_CHUNKS):
        header = read_at(file, offset, 8)
        kind, length = (header[4:], header[:4]) if order == "big" else (header[:4], header[4:])
        if len(header) < 8:
            break
        if kind == name:
            return file.read(min(int.from_bytes(length, order), 64 * 1024))
        size = int.from_bytes(length, order)
        offset += extra + size + (size % 2 if order == "little" else 0)
    return b""


def _ico(head: bytes) -> tuple[int, int]:
    """Return the size of the largest image in an icon. In the file, 0 stands for 256."""
    count = int.from_bytes(head[4:6], "little")
    entries = [head[at : at + 16] for at in range(6, 6 + 16 * count, 16)]
    if not 1 <= count <= 64 or any(len(entry) < 16 or entry[3] for entry in entries):
        return 0, 0
    return max((entry[0] or 256, entry[1] or 256) for entry in entries)


class _Root(Exception):
    """Ends the parsing of a document at its first element. This is not an error."""


def _svg(head: bytes) -> tuple[int, int]:
    """Return the size of a drawing in CSS pixels, from its width and height or its ``viewBox``."""
    root: list[tuple[str, dict[str, str]]] = []

    def on_start(name: str, attributes: dict[str, str]) -> None:
        root.append((name, attributes))
        raise _Root

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler = on_start
    try:
        for at in range(0, len(head), 4096):
            parser.Parse(head[at : at + 4096], False)
    except _Root:
        name, attributes = root[0]
    except expat.ExpatError:
        return 0, 0
    if not root or name != _SVG:
        return 0, 0
    width, height = _pixels(attributes.get("width")), _pixels(attributes.get("height"))
    box = [_pixels(part) for part in attributes.get("viewBox", "").replace(",", " ").split()]
    if len(box) == 4 and box[2] and box[3]:
        width = width or (height * box[2] / box[3] if height else box[2])
        height = height or width * box[3] / box[2]
    return round(width), round(height)


def _pixels(length: str | None) -> float:
    """Return a length in CSS pixels, or 0 if it is missing, invalid or relative to the page."""
    text = (length or "").strip().lower()
    number = text.rstrip("abcdefghijklmnopqrstuvwxyz%")
    try:
        pixels = float(number) * _UNITS[text[len(number) :]]
    except (ValueError, KeyError):
        return 0.0
    return pixels if 0 < pixels < 1e9 else 0.0
