"""Colour spaces, and the many ways in which images state them."""

import re
import struct
from io import BytesIO

from PIL import Image, ImageCms

from .images import with_chunk

# Red, green and blue under D50, as published with the profiles of these colour spaces.
SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))
P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
ADOBE = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
BT2020 = ((0.67346, 0.27904, -0.00193), (0.16567, 0.67535, 0.02998), (0.12505, 0.04561, 0.79685))
PROPHOTO = ((0.79767, 0.28804, 0), (0.13519, 0.71187, 0), (0.03134, 0.00009, 0.82491))

# The same as x and y of white, red, green and blue, as in the chunk cHRM.
CHRM = {
    SRGB: (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06),
    P3: (0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
    ADOBE: (0.3127, 0.329, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06),
    BT2020: (0.3127, 0.329, 0.708, 0.292, 0.17, 0.797, 0.131, 0.046),
}

# Parametric curves, by their kind and their parameters.
SRGB_CURVE = (3, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
BT709_CURVE = (3, 1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)


def gamma(exponent: float) -> tuple[float, ...]:
    """Return the curve of a power."""
    return (0, exponent)


def _numbers(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(65536 * value) for value in values))


def profile(
    primaries=SRGB,
    curve=SRGB_CURVE,
    space: bytes = b"RGB ",
    kind: bytes = b"mntr",
    name="a profile",
    more: dict[bytes, bytes] | None = None,
) -> bytes:
    """Return an ICC profile.

    :param kind: its class.
    :param name: its description.
    :param more: tags to add or replace.
    """
    trc = struct.pack(">4s4xH2x", b"para", curve[0]) + _numbers(*curve[1:])
    tags = {
        b"desc": struct.pack(">4s4xI", b"desc", len(name) + 1) + name.encode() + bytes(79),
        b"wtpt": b"XYZ \0\0\0\0" + _numbers(0.9642, 1, 0.8249),
    }
    if space == b"GRAY":
        tags[b"kTRC"] = trc
    else:
        for letter, primary in zip("rgb", primaries, strict=True):
            tags[f"{letter}XYZ".encode()] = b"XYZ \0\0\0\0" + _numbers(*primary)
            tags[f"{letter}TRC".encode()] = trc
    tags.update(more or {})
    table, data = struct.pack(">I", len(tags)), b""
    for tag, value in tags.items():
        value += bytes(-len(value) % 4)
        table += struct.pack(">4sII", tag, 132 + 12 * len(tags) + len(data), len(value))
        data += value
    size = 128 + len(table) + len(data)
    header = struct.pack(">I4xI4s4s4s", size, 0x02400000, kind, space, b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + _numbers(0.9642, 1, 0.8249)
    return header.ljust(128, b"\0") + table + data


def in_srgb(image: Image.Image, of: bytes | None) -> Image.Image:
    """Return the image in sRGB, converted by lcms.

    :param of: the ICC profile of its colour space; None for sRGB.
    """
    alpha = image.convert("RGBA").getchannel("A")
    if of:
        colours = {"RGBA": "RGB", "LA": "L"}.get(image.mode, image.mode)
        source = ImageCms.getOpenProfile(BytesIO(of))
        target = ImageCms.createProfile("sRGB")
        image = ImageCms.profileToProfile(image.convert(colours), source, target, outputMode="RGB")
    image = image.convert("RGB").convert("RGBA")
    image.putalpha(alpha)
    return image


# -- PNG


def with_cicp(png: bytes, primaries: int, transfer: int, matrix: int = 0, full: int = 1) -> bytes:
    return with_chunk(png, b"cICP", bytes([primaries, transfer, matrix, full]))


def with_gamma(png: bytes, exponent: float, primaries=None) -> bytes:
    """State the colour space in ``gAMA``, and in ``cHRM`` if primaries are given."""
    png = with_chunk(png, b"gAMA", struct.pack(">I", round(100_000 / exponent)))
    return with_chrm(png, primaries) if primaries else png


def with_chrm(png: bytes, primaries) -> bytes:
    return with_chunk(
        png, b"cHRM", struct.pack(">8I", *(round(100_000 * each) for each in CHRM[primaries]))
    )


def with_srgb(png: bytes) -> bytes:
    return with_chunk(png, b"sRGB", b"\0")


# -- AVIF


def with_nclx(avif: bytes, primaries: int, transfer: int) -> bytes:
    """Change the numbers of the colour space that an AVIF states."""
    changed, times = re.subn(
        rb"(colrnclx)....",
        lambda match: match[1] + struct.pack(">HH", primaries, transfer),
        avif,
        flags=re.DOTALL,
    )
    assert times
    return changed


def with_coded_colours(avif: bytes, primaries: int, transfer: int) -> bytes:
    """Change the numbers of the colour space in the AV1 data, and let only these state it."""
    start = avif.index(b"mdat") + 4
    bits = "".join(f"{byte:08b}" for byte in avif[start : start + 32])
    usual, changed = (
        "1" + "".join(f"{code:08b}" for code in codes)
        for codes in ((1, 13, 6), (primaries, transfer, 6))
    )
    assert bits.count(usual) == 1
    header = int(bits.replace(usual, changed), 2).to_bytes(32, "big")
    return (avif[:start] + header + avif[start + 32 :]).replace(b"colrnclx", b"freenclx")
