"""The one thing of EXIF that changes what an image looks like (CIPA DC-008, section 4.6.5)."""

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

_ORIENTATION = 0x0112
_SHORT = 3


def read_orientation(exif: bytes) -> int:
    """From 1 to 8, as the tag says; 1 where nothing valid says otherwise.

    :param exif: a TIFF block, with or without ``Exif`` and two zeros before it.

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
    """Whether width and height change places."""
    return orientation in (5, 6, 7, 8)


HEAD_BYTES = 128 * 1024
"""Bytes that are read at once. Few formats have their size behind them, and JPEGs with large
previews or profiles."""

# What a JPEG may have before its size, in calls and bytes.
_MAX_READS, _MAX_READ_BYTES = 8192, 16 * 1024 * 1024
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
_SVG = "http://www.w3.org/2000/svg svg"
# CSS Values and Units 4, section 6.2: pixels of each unit.
_UNITS = {"": 1, "px": 1, "pt": 4 / 3, "pc": 16, "in": 96, "cm": 96 / 2.54, "mm": 9.6 / 2.54}


@dataclass(frozen=True)
class ImageHeader:
    """An image, as its header has it.

    :param format: ``jpeg``, ``png``, ``gif``, ``webp``, ``avif``, ``svg``, ``tiff``, ``heic``,
        ``bmp``, ``ico`` or ``jp2``.
    :param width: pixels of the image as it is shown, upright.
    :param orientation: how it has to be turned for that, from 1 to 8 as EXIF has it. AVIF and HEIC
        are turned by their decoders.
    """

    format: str
    width: int
    height: int
    orientation: int = UPRIGHT

    @property
    def mimetype(self) -> str:
        """By the bytes, whatever the file is called."""
        return _MIMETYPES[self.format]

    @property
    def resizable(self) -> bool:
        """Whether it can be had in other sizes."""
        return self.format in ("jpeg", "png", "webp", "gif", "avif")

    @property
    def stored(self) -> tuple[int, int]:
        """Width and height before it is turned upright."""
        if is_sideways(self.orientation):
            return self.height, self.width
        return self.width, self.height


def read_header(file: BinaryIO) -> ImageHeader | None:
    """What image a file is; None if it is none, or nobody can tell its size.

    :param file: seekable; it is left at its start.

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
    """As stored; below 1 if nobody can tell."""
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
        return width & 0xFFFF, height & 0xFFFF  # they are not signed
    if format == "webp" and head[12:16] == b"VP8 ":
        return width & 0x3FFF, height & 0x3FFF  # above are hints how to scale (RFC 6386, 9.1)
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
    """The start of the first chunk of that name: PNG has name and length in one order, WebP in
    the other, and an even length."""
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
    """The largest of them; 0 stands for 256."""
    count = int.from_bytes(head[4:6], "little")
    entries = [head[at : at + 16] for at in range(6, 6 + 16 * count, 16)]
    if not 1 <= count <= 64 or any(len(entry) < 16 or entry[3] for entry in entries):
        return 0, 0
    return max((entry[0] or 256, entry[1] or 256) for entry in entries)


class _Root(Exception):
    """The first element of a document; not an error, it ends the parsing."""


def _svg(head: bytes) -> tuple[int, int]:
    """The size in pixels of CSS: of the root, or of its ``viewBox``."""
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
    """0 where it is not given, or follows from the page."""
    text = (length or "").strip().lower()
    number = text.rstrip("abcdefghijklmnopqrstuvwxyz%")
    try:
        pixels = float(number) * _UNITS[text[len(number) :]]
    except (ValueError, KeyError):
        return 0.0
    return pixels if 0 < pixels < 1e9 else 0.0
