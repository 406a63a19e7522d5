"""Colour profiles (https://www.color.org/specification/ICC.1-2022-05.pdf)."""

import struct

# The description of those that are sRGB, by whoever made them: converting would change nothing.
_SRGB = {
    "sRGB",
    "sRGB built-in",
    "sRGB IEC61966-2.1",
    "sRGB IEC61966-2-1 black scaled",
    "sRGB IEC61966-2-1 no black scaling",
    "sRGB2014",
    "c2",
    "uRGB",
}
_TAGS = 100


def is_srgb(profile: bytes) -> bool:
    """Whether it calls itself one of the known ones.

    >>> is_srgb(b"")
    False
    """
    return _description(profile) in _SRGB


def _description(profile: bytes) -> str:
    """Empty where there is none."""
    if len(profile) < 132:
        return ""
    (count,) = struct.unpack_from(">I", profile, 128)
    for at in range(132, min(132 + 12 * min(count, _TAGS), len(profile) - 11), 12):
        name, offset, size = struct.unpack_from(">4sII", profile, at)
        if name == b"desc":
            return _text(profile[offset : offset + min(size, 1024)])
    return ""


def _text(tag: bytes) -> str:
    if tag[:4] == b"desc" and len(tag) >= 12:
        (length,) = struct.unpack_from(">I", tag, 8)
        return tag[12 : 12 + length].split(b"\0")[0].decode("ascii", "replace").strip()
    if tag[:4] == b"mluc" and len(tag) >= 28:
        length, offset = struct.unpack_from(">II", tag, 20)
        return tag[offset : offset + length].decode("utf-16-be", "replace").strip("\0 ")
    return ""
