"""ICC profiles, read and written as bytes (https://www.color.org/specification/ICC.1-2022-05.pdf).

libvips converts between profiles. This module says whether that is possible and needed, and makes
profiles for images that state their colour space in another way.
"""

import struct
from collections.abc import Callable
from operator import mul

Curve = Callable[[float], float]
"""A transfer function: from a stored value to light, both from 0 to 1."""

Matrix = list[list[float]]

# Scanners, displays, printers and colour spaces. The other classes do not describe images.
_CLASSES = {b"scnr", b"mntr", b"prtr", b"spac"}
# What lcms, which libvips uses, accepts.
_MAX_TAGS, _MAX_ENTRIES = 100, 65530
# The three primaries of sRGB in columns, adapted to the white of profiles, D50.
_SRGB: Matrix = [
    [0.43607, 0.38515, 0.14307],
    [0.22249, 0.71687, 0.06061],
    [0.01392, 0.09708, 0.71410],
]
_D50 = (0.9642, 1.0, 0.8249)
# From XYZ to the responses of the eye that adapt to a white (annex E).
_BRADFORD: Matrix = [
    [0.8951, 0.2664, -0.1614],
    [-0.7502, 1.7135, 0.0367],
    [0.0389, -0.0685, 1.0296],
]
# A profile is sRGB if no colour differs from it by more than this share of the full range.
_TOLERANCE = 1.2 / 255
# Each value of eight bits falls on an entry of the table, and three entries lie between two values.
_ENTRIES = 255 * 4 + 1


def is_usable(profile: bytes, space: bytes) -> bool:
    """Return whether browsers would use a profile. They ignore one that is cut off, that is not
    about images, or that is about images of another kind.

    :param space: the kind of the image: ``RGB``, followed by a space, ``GRAY`` or ``CMYK``.

    >>> is_usable(b"", b"GRAY")
    False
    """
    if len(profile) < 132 or profile[36:40] != b"acsp":
        return False
    (size,) = struct.unpack_from(">I", profile)
    return (
        132 <= size <= len(profile)
        and profile[12:16] in _CLASSES
        and profile[16:20] == space
        and profile[20:24] in (b"XYZ ", b"Lab ")
        and all(132 <= start <= size - length for _, start, length in _tags(profile))
    )


def _tags(profile: bytes) -> list[tuple[bytes, int, int]]:
    """Return the names, offsets and lengths of the first tags of a profile."""
    (count,) = struct.unpack_from(">I", profile, 128)
    end = min(132 + 12 * min(count, _MAX_TAGS), len(profile) - 11)
    return [struct.unpack_from(">4sII", profile, at) for at in range(132, end, 12)]


def is_srgb(profile: bytes) -> bool:
    """Return whether a profile has the primaries and the curve of sRGB, whatever it is called.

    >>> is_srgb(b"")
    False
    """
    if not is_usable(profile, b"RGB "):
        return False
    tags = {name: profile[start : start + size] for name, start, size in _tags(profile)}
    if not {b"A2B0", b"D2B0"}.isdisjoint(tags):
        return False  # it has a table, which counts more
    try:
        columns = [_xyz(tags[name]) for name in (b"rXYZ", b"gXYZ", b"bXYZ")]
        curves = [_curve(tags[name]) for name in (b"rTRC", b"gTRC", b"bTRC")]
        return _is_close(_transposed(columns), curves)
    except (KeyError, IndexError, ValueError, ArithmeticError, struct.error):
        return False


def _is_close(primaries: Matrix, curves: list[Curve]) -> bool:
    """Return whether all pure and grey colours have nearly the same values in sRGB."""
    to_srgb = _product(_inverse(_SRGB), primaries)
    for step in range(33):
        value = step / 32
        light = [curve(value) for curve in curves]
        for lit in ((1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1)):
            mixed = _times(to_srgb, [each * on for each, on in zip(light, lit, strict=True)])
            for found, on in zip(mixed, lit, strict=True):
                if abs(_encoded(found) - on * value) > _TOLERANCE:
                    return False
    return True


def _encoded(light: float) -> float:
    """Return the value in sRGB of an amount of light (IEC 61966-2-1)."""
    light = min(max(light, 0), 1)
    return 12.92 * light if light <= 0.0031308 else 1.055 * light ** (1 / 2.4) - 0.055


def _xyz(tag: bytes) -> list[float]:
    """Return the colour in a tag of type ``XYZ``."""
    return [each / 65536 for each in struct.unpack_from(">3i", tag, 8)]


def _curve(tag: bytes) -> Curve:
    """Return the function in a tag of type ``curv`` or ``para``.

    :raises ValueError: if there is no such function.
    """
    if tag[:4] == b"curv":
        (count,) = struct.unpack_from(">I", tag, 8)
        if count < 2:
            exponent = struct.unpack_from(">H", tag, 12)[0] / 256 if count else 1
            return lambda value: value**exponent
        table = struct.unpack_from(f">{min(count, _MAX_ENTRIES)}H", tag, 12)
        return lambda value: _interpolated(table, value)
    if tag[:4] == b"para":
        (kind,) = struct.unpack_from(">H", tag, 8)
        g, a, b, c, d, e, f = _parameters(kind, tag)
        return lambda x: max(a * x + b, 0) ** g + e if x >= d else c * x + f
    raise ValueError("not a curve")


def _parameters(kind: int, tag: bytes) -> tuple[float, ...]:
    """Return the seven parameters of a parametric curve of the last kind that is equal to this one
    (section 10.18)."""
    numbers = struct.unpack_from(f">{(1, 3, 4, 5, 7)[kind]}i", tag, 12)
    g, a, b, c, d, e, f = (*(each / 65536 for each in numbers), *(7 - len(numbers)) * (0.0,))
    if kind == 0:
        return g, 1, 0, 0, 0, 0, 0
    if kind in (1, 2):
        return g, a, b, 0, -b / a, c, c
    return g, a, b, c, d, e, f


def _interpolated(table: tuple[int, ...], value: float) -> float:
    place = value * (len(table) - 1)
    before = min(int(place), len(table) - 2)
    first, second = table[before : before + 2]
    return (first + (second - first) * (place - before)) / 65535


def profile(space: bytes, chromaticities: tuple[tuple[float, float], ...], curve: Curve) -> bytes:
    """Return the profile of a colour space.

    :param space: the kind of the image: ``RGB``, followed by a space, or ``GRAY``.
    :param chromaticities: x and y (CIE 1931) of red, green, blue and white.
    :param curve: from a stored value to light, for each of the three.
    :raises ArithmeticError: if there is no colour space with these primaries.
    """
    if space == b"GRAY":
        return _profile(space, {b"kTRC": _curve_tag(curve)})
    red, green, blue, white = ([x / y, 1, (1 - x - y) / y] for x, y in chromaticities)
    primaries = _transposed([red, green, blue])
    amounts = _times(_inverse(primaries), white)
    adapted = _product(_adaptation(white), primaries)
    tags = {
        name + b"XYZ": b"XYZ " + bytes(4) + _fixed([each * amount for each in column])
        for name, column, amount in zip(
            (b"r", b"g", b"b"), _transposed(adapted), amounts, strict=True
        )
    }
    curves = dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), _curve_tag(curve))
    return _profile(space, tags | curves)


def _adaptation(white: list[float]) -> Matrix:
    """Return the matrix that turns colours under a white into those under D50."""
    pairs = zip(_times(_BRADFORD, white), _times(_BRADFORD, list(_D50)), strict=True)
    scaled = [
        [new / old * each for each in row] for row, (old, new) in zip(_BRADFORD, pairs, strict=True)
    ]
    return _product(_inverse(_BRADFORD), scaled)


def _curve_tag(curve: Curve) -> bytes:
    values = (min(max(curve(at / (_ENTRIES - 1)), 0), 1) for at in range(_ENTRIES))
    table = [round(65535 * each) for each in values]
    return struct.pack(f">4s4xI{_ENTRIES}H", b"curv", _ENTRIES, *table)


def _profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    """Return a profile of a display with these tags (section 7)."""
    table, data = struct.pack(">I", len(tags)), b""
    for name, tag in tags.items():
        table += struct.pack(">4sII", name, 132 + 12 * len(tags) + len(data), len(tag))
        data += tag + bytes(-len(tag) % 4)
    header = struct.pack(
        ">I4xI4s4s4s12x4s28x12s48x",
        *(128 + len(table) + len(data), 0x04400000, b"mntr", space, b"XYZ ", b"acsp"),
        _fixed(list(_D50)),
    )
    return header + table + data


def _fixed(numbers: list[float]) -> bytes:
    if max(map(abs, numbers)) >= 32768:
        raise OverflowError("a profile cannot hold such a colour")
    return struct.pack(f">{len(numbers)}i", *(round(65536 * each) for each in numbers))


def _transposed(matrix: Matrix) -> Matrix:
    return [list(column) for column in zip(*matrix, strict=True)]


def _times(matrix: Matrix, vector: list[float]) -> list[float]:
    return [sum(map(mul, row, vector)) for row in matrix]


def _product(one: Matrix, other: Matrix) -> Matrix:
    return _transposed([_times(one, column) for column in _transposed(other)])


def _inverse(matrix: Matrix) -> Matrix:
    """Return the inverse of a 3 x 3 matrix.

    :raises ZeroDivisionError: if there is none.
    """
    (a, b, c), (d, e, f), (g, h, i) = matrix
    adjugate = [
        [e * i - f * h, c * h - b * i, b * f - c * e],
        [f * g - d * i, a * i - c * g, c * d - a * f],
        [d * h - e * g, b * g - a * h, a * e - b * d],
    ]
    determinant = a * adjugate[0][0] + b * adjugate[1][0] + c * adjugate[2][0]
    return [[each / determinant for each in row] for row in adjugate]
