"""The one thing of EXIF that changes what an image looks like (CIPA DC-008, section 4.6.5)."""

import struct

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
