"""The boxes of AVIF and HEIF files, read without decoding an image (ISO/IEC 23008-12; AV1-AVIF 1.1
for AVIF; ISO/IEC 14496-12 for the boxes)."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from math import floor
from typing import BinaryIO

from .reader import read_at, size_of

MAX_META = 1024 * 1024
"""Bytes of metadata. An image of 25 megapixels in tiles of 512 x 512 has about 10 KB."""

MAX_ENTRIES = 65536
"""Items in a file, boxes in a box, and associations of items with properties that are read."""


class Malformed(ValueError):
    """The file is not a valid AVIF or HEIF, or exceeds the limits of this module. The message is to
    follow "The AVIF cannot be read:"."""


@dataclass
class Item:
    """One coded image, or an instruction to derive an image from others.

    :param kind: four bytes: ``av01`` is an image coded in AV1, ``grid`` joins tiles.
    :param stored: whether the item has data.
    :param offset: where the data begins: an offset in the file, or in the box ``idat``.
    :param in_idat: whether the data is in ``idat``.
    :param size: width and height in pixels, as the image is coded.
    :param visible: width and height of what is shown: the decoder crops and turns the image.
    :param colours: the numbers of its primaries and its transfer function, or None if none are
        stated.
    """

    kind: bytes = b""
    stored: bool = False
    offset: int = -1
    in_idat: bool = False
    size: tuple[int, int] = (0, 0)
    visible: tuple[int, int] = (0, 0)
    colours: tuple[int, int] | None = None


@dataclass
class Items:
    """The items of a file.

    :param primary: the id of the item that is shown.
    :param idat: the payload of the box ``idat``, which holds small items.
    :param items: the items by their ids.
    :param is_premultiplied: whether the colours of the item that is shown were multiplied by its
        alpha channel.
    """

    primary: int = 0
    idat: bytes = b""
    items: dict[int, Item] = field(default_factory=dict)
    is_premultiplied: bool = False

    @property
    def shown(self) -> Item:
        """The item that is shown."""
        return self.item(self.primary)

    def item(self, number: int) -> Item:
        """Return the item with that id, which is added if there is none.

        :raises Malformed: if there are too many items.
        """
        if len(self.items) > MAX_ENTRIES:
            raise Malformed(f"it has more than {MAX_ENTRIES} items, which is too many")
        return self.items.setdefault(number, Item())


def read_items(file: BinaryIO) -> Items:
    """Read the items of a file.

    :param file: a seekable file. Its position is undefined afterwards.
    :raises Malformed: if the file has no valid metadata, or too much of it.
    """
    start, end = _find_meta(file)
    meta = read_at(file, start, end - start)
    if len(meta) < end - start:
        raise Malformed("its metadata is cut off")
    found = Items()
    properties: list[tuple[bytes, bytes]] = []
    associations: dict[int, list[int]] = {}
    premultiplied: set[int] = set()
    try:
        for kind, payload in boxes(meta[4:]):
            if kind == b"pitm":
                found.primary = int.from_bytes(payload[4 : 6 if payload[0] == 0 else 8], "big")
            elif kind == b"iinf":
                _read_kinds(payload, found)
            elif kind == b"iloc":
                _read_locations(payload, found)
            elif kind == b"idat":
                found.idat = payload
            elif kind == b"iref":
                premultiplied = _premultiplied(payload)
            elif kind == b"iprp":
                _read_properties(payload, properties, associations)
    except (struct.error, IndexError) as error:
        raise Malformed("a box in it is cut off") from error
    for number, indexes in associations.items():
        applied = [properties[index - 1] for index in indexes if 1 <= index <= len(properties)]
        # The size comes before all that changes it, whose order counts.
        for kind, inside in sorted(applied, key=lambda each: each[0] != b"ispe"):
            _apply(found.item(number), kind, inside)
    found.is_premultiplied = found.primary in premultiplied
    return found


def _find_meta(file: BinaryIO) -> tuple[int, int]:
    """Return the start and the end offset of the payload of the box ``meta``."""
    end, offset = size_of(file), 0
    for _ in range(64):
        header = read_at(file, offset, 16)
        if len(header) < 8:
            break
        size, kind = struct.unpack_from(">I4s", header)
        start = 8
        if size == 1 and len(header) == 16:
            (size,) = struct.unpack_from(">Q", header, 8)
            start = 16
        size = size or end - offset
        if size < start or offset + size > end:
            break
        if kind == b"meta":
            if size > MAX_META:
                raise Malformed(f"its metadata has over {MAX_META} bytes, which is too many")
            return offset + start, offset + size
        offset += size
    raise Malformed("it has no metadata")


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield kind and payload of each of the boxes that these bytes consist of."""
    offset = 0
    for _ in range(MAX_ENTRIES):
        if offset + 8 > len(data):
            return
        size, kind = struct.unpack_from(">I4s", data, offset)
        if size == 0:
            size = len(data) - offset
        if size < 8 or offset + size > len(data):
            raise Malformed("a box in it is larger than the box around it")
        yield kind, data[offset + 8 : offset + size]
        offset += size
    raise Malformed(f"it has {MAX_ENTRIES} boxes or more, which is too many")


def _read_kinds(payload: bytes, found: Items) -> None:
    """Read the box ``iinf``, which states the kind of each item."""
    for kind, entry in boxes(payload[6 if payload[0] == 0 else 8 :]):
        if kind == b"infe" and entry[0] in (2, 3):
            wide = 2 if entry[0] == 2 else 4
            number = int.from_bytes(entry[4 : 4 + wide], "big")
            found.item(number).kind = entry[6 + wide : 10 + wide]


def _read_locations(payload: bytes, found: Items) -> None:
    """Read the box ``iloc``, which states where the data of each item is."""
    version, widths = payload[0], payload[4:6]
    offset_width, length_width = widths[0] >> 4, widths[0] & 15
    base_width, index_width = widths[1] >> 4, (widths[1] & 15 if version else 0)
    wide = 2 if version < 2 else 4
    cursor = 6

    def take(width: int) -> int:
        nonlocal cursor
        cursor += width
        if cursor > len(payload):
            raise Malformed("the location of an image in it is cut off")
        return int.from_bytes(payload[cursor - width : cursor], "big")

    for _ in range(take(wide)):
        item = found.item(take(wide))
        method = take(2) & 15 if version else 0
        take(2)
        base, extents = take(base_width), take(2)
        each = index_width + offset_width + length_width
        if extents:
            take(index_width)
            item.offset = base + take(offset_width)
            take(length_width)
        cursor += each * max(extents - 1, 0)
        item.stored, item.in_idat = extents > 0, method == 1


def _premultiplied(payload: bytes) -> set[int]:
    """Return the items that the box ``iref`` calls premultiplied (ISO/IEC 23008-12, 6.10.1.2)."""
    wide = 2 if payload[0] == 0 else 4
    references = boxes(payload[4:])
    return {int.from_bytes(each[:wide], "big") for kind, each in references if kind == b"prem"}


def _read_properties(
    payload: bytes, properties: list[tuple[bytes, bytes]], associations: dict[int, list[int]]
) -> None:
    """Read the box ``iprp``: the properties, and the numbers of the properties of each item."""
    for kind, inside in boxes(payload):
        if kind == b"ipco":
            properties.extend(boxes(inside))
        elif kind == b"ipma":
            wide = 2 if inside[0] == 0 else 4
            width = 2 if inside[3] & 1 else 1
            (count,) = struct.unpack_from(">I", inside, 4)
            cursor = 8
            for _ in range(min(count, MAX_ENTRIES)):
                number = int.from_bytes(inside[cursor : cursor + wide], "big")
                cursor += wide
                of = inside[cursor]
                cursor += 1
                indexes = inside[cursor : cursor + of * width]
                cursor += of * width
                associations[number] = [
                    int.from_bytes(indexes[at : at + width], "big") & (0x7FFF >> 8 * (2 - width))
                    for at in range(0, len(indexes), width)
                ]


def _apply(item: Item, kind: bytes, payload: bytes) -> None:
    """Apply a property to an item: ``ispe`` states its size, ``clap`` crops it, ``irot`` turns it,
    and ``colr`` states its colour space. Others are ignored."""
    width, height = item.visible
    if kind == b"ispe" and len(payload) >= 12:
        item.size = item.visible = struct.unpack_from(">II", payload, 4)
    elif kind == b"clap" and len(payload) >= 32:
        item.visible = _cropped(item.visible, struct.unpack_from(">IIIIiIiI", payload))
    elif kind == b"irot" and payload and payload[0] & 1:
        item.visible = (height, width)
    elif kind == b"colr" and payload[:4] == b"nclx" and len(payload) >= 8:
        item.colours = struct.unpack_from(">HH", payload, 4)


def _cropped(size: tuple[int, int], aperture: tuple[int, ...]) -> tuple[int, int]:
    """Return the size of the clean aperture (ISO/IEC 14496-12, section 12.1.4), or the given size
    if the aperture is not inside the image.

    :param aperture: numerators and denominators of its width, its height, and the distances of its
        centre from the centre of the image.
    """
    cropped = []
    for side, (length, divisor, shift, shift_divisor) in zip(
        size, (aperture[:2] + aperture[4:6], aperture[2:4] + aperture[6:]), strict=True
    ):
        if not divisor or not shift_divisor:
            return size
        length, centre = Fraction(length, divisor), Fraction(shift, shift_divisor)
        if length < 1 or abs(centre) > (side - length) / 2:
            return size
        cropped.append(floor(length + Fraction(1, 2)))
    return cropped[0], cropped[1]
