"""The colour space that a PNG or an AVIF states, other than by an ICC profile.

The numbers are those of ITU-T H.273, which the chunk ``cICP`` of PNG and the box ``colr`` of AVIF
share.
"""

import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from io import BytesIO

from . import isobmff
from .avif import stated_colours

Chromaticities = tuple[tuple[float, float], ...]
"""The x and y (CIE 1931) of red, green, blue and white."""


@dataclass(frozen=True)
class ColourSpace:
    """A colour space.

    :param chromaticities: those of its primaries and its white.
    :param curve: from a stored value to light, both from 0 to 1.
    """

    chromaticities: Chromaticities
    curve: Callable[[float], float]


def stated_colour_space(format: str, data: bytes, has_profile: bool) -> ColourSpace | None:
    """Return the colour space that an image states in numbers, or None if it states none that
    counts: then it is that of its ICC profile, else sRGB.

    :param format: the format of the image.
    :param data: the image.
    :param has_profile: whether the image has a usable ICC profile.

    >>> stated_colour_space("jpeg", b"", False)
    """
    if format == "png":
        return _of_png(data, has_profile)
    if format == "avif" and not has_profile:
        return _of_avif(data)
    return None


def is_premultiplied(format: str, data: bytes) -> bool:
    """Return whether the colours of an image were multiplied by its alpha channel. Only an AVIF can
    say so.

    >>> is_premultiplied("png", b"")
    False
    """
    return format == "avif" and isobmff.read_items(BytesIO(data)).is_premultiplied


def _of_png(data: bytes, has_profile: bool) -> ColourSpace | None:
    """Return what counts most, as the PNG specification orders it: ``cICP``, ``iCCP``, ``sRGB``,
    ``gAMA`` with ``cHRM`` (https://www.w3.org/TR/png-3/#color-chunk-precendence)."""
    chunks: dict[bytes, bytes] = {}
    for kind, payload in _before_pixels(data):
        chunks.setdefault(kind, payload)
    code = chunks.get(b"cICP", b"")
    # Pixels of a PNG are never Y'CbCr.
    if len(code) == 4 and code[2] == 0 and _is_known(code[0], code[1]):
        return _coded(code[0], code[1], is_full=code[3] != 0)
    if has_profile or b"sRGB" in chunks or len(chunks.get(b"gAMA", b"")) != 4:
        return None
    gamma = int.from_bytes(chunks[b"gAMA"], "big") / 100_000
    if not 0.01 <= gamma <= 100:
        return None
    return ColourSpace(_chromaticities(chunks.get(b"cHRM", b"")), partial(_power, 1 / gamma))


def _before_pixels(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the names and payloads of the chunks that come before the palette and the pixels. Those
    that state a colour space do."""
    offset = 8
    while offset + 8 <= len(png):
        length, kind = struct.unpack_from(">I4s", png, offset)
        if kind in (b"PLTE", b"IDAT"):
            return
        yield kind, png[offset + 8 : offset + 8 + length]
        offset += 12 + length


def _chromaticities(chunk: bytes) -> Chromaticities:
    """Return what a chunk ``cHRM`` states, or that of sRGB if it states nothing possible."""
    if len(chunk) != 32:
        return _PRIMARIES[1]
    white, *primaries = ((x / 100_000, y / 100_000) for x, y in struct.iter_unpack(">II", chunk))
    if not all(0 <= x <= 1 and 0 < y <= 1 for x, y in (white, *primaries)):
        return _PRIMARIES[1]
    return *primaries, white


def _of_avif(data: bytes) -> ColourSpace | None:
    try:
        primaries, transfer = stated_colours(BytesIO(data))
    except isobmff.Malformed:
        return None
    # The decoder has turned Y'CbCr into full-range RGB.
    return _coded(primaries, transfer) if _is_known(primaries, transfer) else None


def _is_known(primaries: int, transfer: int) -> bool:
    """Return whether both numbers are known. 2 means unspecified."""
    return primaries in {2, *_PRIMARIES} and transfer in {2, *_CURVES}


def _coded(primaries: int, transfer: int, is_full: bool = True) -> ColourSpace:
    """Return the colour space with these numbers. What is unspecified is as in sRGB.

    :param is_full: whether black is 0 and white the largest value, as usual in images.
    """
    curve = _CURVES.get(transfer, _srgb)
    return ColourSpace(
        _PRIMARIES.get(primaries, _PRIMARIES[1]),
        curve if is_full else lambda value: curve(min(max((255 * value - 16) / 219, 0), 1)),
    )


def _power(exponent: float, value: float) -> float:
    return value**exponent


def _srgb(value: float) -> float:
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


def _bt709(value: float) -> float:
    return value / 4.5 if value < 0.081 else ((value + 0.099) / 1.099) ** (1 / 0.45)


def _smpte240(value: float) -> float:
    return value / 4 if value < 0.0913 else ((value + 0.1115) / 1.1115) ** (1 / 0.45)


# In high dynamic range, light of so many cd/m2 is white (ITU-R BT.2408). Brighter light is white
# too.
_WHITE_LIGHT = 203


def _pq(value: float) -> float:
    """Perceptual quantisation, in which the largest value is 10000 cd/m2 (ITU-R BT.2100)."""
    root = value ** (32 / 2523)
    ratio = max(root - 107 / 128, 0) / (2413 / 128 - 2392 / 128 * root)
    return 10_000 / _WHITE_LIGHT * ratio ** (8192 / 1305)


def _hlg(value: float) -> float:
    """Hybrid log-gamma, on a display of 1000 cd/m2 (ITU-R BT.2100)."""
    if value <= 0.5:
        scene = value**2 / 3
    else:
        scene = (math.exp((value - 0.55991073) / 0.17883277) + 0.28466892) / 12
    return 1000 / _WHITE_LIGHT * scene**1.2


_D65, _C = (0.3127, 0.329), (0.31, 0.316)
_NTSC = ((0.63, 0.34), (0.31, 0.595), (0.155, 0.07), _D65)
_P3 = ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06))
_PRIMARIES: dict[int, Chromaticities] = {
    1: ((0.64, 0.33), (0.3, 0.6), (0.15, 0.06), _D65),  # BT.709 and sRGB
    4: ((0.67, 0.33), (0.21, 0.71), (0.14, 0.08), _C),  # BT.470 M
    5: ((0.64, 0.33), (0.29, 0.6), (0.15, 0.06), _D65),  # BT.470 BG
    6: _NTSC,
    7: _NTSC,
    8: ((0.681, 0.319), (0.243, 0.692), (0.145, 0.049), _C),  # film
    9: ((0.708, 0.292), (0.17, 0.797), (0.131, 0.046), _D65),  # BT.2020
    10: ((1, 1e-9), (1e-9, 1), (1e-9, 1e-9), (1 / 3, 1 / 3)),  # XYZ
    11: (*_P3, (0.314, 0.351)),  # cinema
    12: (*_P3, _D65),  # Display P3
    22: ((0.63, 0.34), (0.295, 0.605), (0.155, 0.077), _D65),  # EBU 3213
}
_CURVES: dict[int, Callable[[float], float]] = {
    **dict.fromkeys((1, 6, 11, 12, 14, 15), _bt709),
    4: partial(_power, 2.2),
    5: partial(_power, 2.8),
    7: _smpte240,
    8: partial(_power, 1),
    13: _srgb,
    16: _pq,
    17: lambda value: 52.37 / 48 * value**2.6,  # SMPTE 428-1
    18: _hlg,
}
