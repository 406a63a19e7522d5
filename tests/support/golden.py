"""Images of every kind that their formats allow and that devices make, small and made by code."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from PIL import Image

from . import images
from . import profiles as colour
from .images import encode, png_of, turned

SIDE = 24
"""Pixels of the side of a patch."""

_LEVELS = (0, 20, 60, 110, 160, 200, 235, 255)
_OPACITY = (255, 0, 40, 80, 120, 160, 200, 255)


class Sample(NamedTuple):
    """An image.

    :param make: returns its bytes.
    :param profile: the ICC profile of its colour space; None for sRGB.
    """

    make: Callable[[], bytes]
    profile: bytes | None = None


def sample(make: Callable[..., bytes], *arguments, space: bytes | None = None, **options) -> Sample:
    """Return the image that a function makes.

    :param space: the ICC profile of its colour space; None for sRGB.
    """
    return Sample(partial(make, *arguments, **options), space)


def patches(mode: str = "RGB", more: int = 0) -> Image.Image:
    """Return an image of patches of dark, light, grey, pale and pure colours. Columns differ in
    their opacity.

    :param mode: the mode of the image in Pillow.
    :param more: pixels by which it is wider and higher.
    """
    rows = (
        lambda level: (level, level, level),
        lambda level: (level, 40, 40),
        lambda level: (40, level, 40),
        lambda level: (40, 40, level),
        lambda level: (level, 255 - level, 128),
        lambda level: (60 + level // 3, 200 - level // 2, level),
    )
    size = len(_LEVELS) * SIDE + more, len(rows) * SIDE + more
    image, alpha = Image.new("RGB", size, (90, 140, 60)), Image.new("L", size, 255)
    for x, (level, opacity) in enumerate(zip(_LEVELS, _OPACITY, strict=True)):
        alpha.paste(opacity, (x * SIDE, 0, x * SIDE + SIDE, size[1]))
        for y, row in enumerate(rows):
            image.paste(row(level), (x * SIDE, y * SIDE, x * SIDE + SIDE, y * SIDE + SIDE))
    if "A" in mode:
        image.putalpha(alpha)
    return image.convert(mode)


RGB, GREY, RGBA, ODD = patches(), patches("L"), patches("RGBA"), patches(more=5)
# Decoders of AVIF differ by 1, which becomes more where pure colours are converted.
_MUTED = RGB.point(lambda value: 70 + value * 150 // 255)
PNG, GREY_PNG = encode(RGB, "PNG"), encode(GREY, "PNG")
_FLAT = {"quality": 95, "subsampling": 0}
_LOSSLESS = {"speed": 10, "subsampling": "4:4:4", "quality": 100}
_OPTIONS = {"JPEG": _FLAT, "PNG": {}, "WEBP": {"lossless": True}, "AVIF": _LOSSLESS}

P3, LINEAR = colour.profile(colour.P3), colour.profile(curve=(0, 1))
ADOBE = colour.profile(colour.ADOBE, (0, 563 / 256))
WIDE = colour.profile(colour.BT2020, colour.BT709_CURVE)
PROPHOTO = colour.profile(colour.PROPHOTO, (0, 1.8))
GREY_LINEAR = colour.profile(curve=(0, 1), space=b"GRAY")
GREY_22 = colour.profile(curve=(0, 2.2), space=b"GRAY")


def _encode(format: str, image: Image.Image | None = None, **options) -> bytes:
    usual = _MUTED if format == "AVIF" else RGB
    return encode(image or usual, format, **{**_OPTIONS[format], **options})


def _turned(format: str, orientation: int) -> bytes:
    return turned(ODD, format, orientation, **_OPTIONS[format])


KINDS: dict[str, Sample] = {
    **{
        f"jpeg-{name}{'-progressive' * progressive}": sample(
            _encode, "JPEG", ODD, subsampling=name, progressive=progressive
        )
        for name in ("4:4:4", "4:2:2", "4:2:0")
        for progressive in (False, True)
    },
    "jpeg-grey": sample(_encode, "JPEG", GREY),
    "jpeg-rgb": sample(_encode, "JPEG", keep_rgb=True),
    "jpeg-cmyk": sample(_encode, "JPEG", RGB.convert("CMYK")),
    "jpeg-restarts": sample(_encode, "JPEG", ODD, restart_marker_rows=1),
    **{
        f"png-{mode}-{depth}{'-interlaced' * interlaced}": sample(
            png_of, patches(mode, more=5), depth, interlaced
        )
        for mode, depth, interlaced in [
            *(("L", depth, False) for depth in (1, 2, 4, 8, 16)),
            *((mode, depth, False) for mode in ("LA", "RGB", "RGBA") for depth in (8, 16)),
            *(("L", 1, True), ("L", 8, True), ("RGB", 8, True), ("RGBA", 16, True)),
        ]
    },
    **{
        f"png-palette-{colours}": sample(_encode, "PNG", ODD.quantize(colours))
        for colours in (2, 4, 16, 256)
    },
    "png-palette-alpha": sample(_encode, "PNG", RGBA.quantize(200)),
    "png-transparent-colour": sample(_encode, "PNG", transparency=(40, 40, 110)),
    "webp-lossy": sample(_encode, "WEBP", ODD, lossless=False, quality=95),
    "webp-lossless": sample(_encode, "WEBP", ODD),
    "webp-lossy-alpha": sample(_encode, "WEBP", RGBA, lossless=False, quality=95),
    "webp-lossless-alpha": sample(_encode, "WEBP", RGBA),
    "gif": sample(encode, ODD.quantize(256), "GIF", interlace=False),
    "gif-interlaced": sample(encode, ODD.quantize(64), "GIF", interlace=True),
    "gif-transparent": sample(encode, ODD.quantize(64), "GIF", transparency=3),
    **{
        f"avif-{name}": sample(_encode, "AVIF", ODD, subsampling=name)
        for name in ("4:4:4", "4:2:2", "4:2:0", "4:0:0")
    },
    "avif-alpha": sample(_encode, "AVIF", RGBA),
    "avif-premultiplied": sample(_encode, "AVIF", RGBA, alpha_premultiplied=True),
    "avif-limited-range": sample(_encode, "AVIF", range="limited"),
    **{
        f"{format.lower()}-orientation-{orientation}": sample(_turned, format, orientation)
        for format in _OPTIONS
        for orientation in range(2, 9)
    },
}


def _with_profile(format: str, profile: bytes, image: Image.Image | None = None) -> bytes:
    return _encode(format, image, icc_profile=profile)


# By an ICC profile.
PROFILES: dict[str, Sample] = {
    **{
        f"{format.lower()}-{name}": sample(_with_profile, format, profile, space=profile)
        for format in _OPTIONS
        for name, profile in [
            *(("p3", P3), ("adobe", ADOBE), ("linear", LINEAR), ("bt2020", WIDE)),
            ("srgb", colour.profile()),
        ]
    },
    "png-prophoto": sample(_with_profile, "PNG", PROPHOTO, space=PROPHOTO),
    "png-palette": sample(_with_profile, "PNG", P3, RGB.quantize(256), space=P3),
    "png-alpha": sample(_with_profile, "PNG", P3, RGBA, space=P3),
    "webp-alpha": sample(_with_profile, "WEBP", P3, RGBA, space=P3),
    "jpeg-grey": sample(_with_profile, "JPEG", GREY_LINEAR, GREY, space=GREY_LINEAR),
    "png-grey": sample(_with_profile, "PNG", GREY_LINEAR, GREY, space=GREY_LINEAR),
    "png-grey-alpha": sample(_with_profile, "PNG", GREY_LINEAR, patches("LA"), space=GREY_LINEAR),
    "png-grey-of-colours": sample(_with_profile, "PNG", P3, GREY),
    # It is judged by what it says, not by what it is called.
    **{
        f"{format.lower()}-p3-called-srgb": sample(
            _with_profile, format, colour.profile(colour.P3, name="sRGB IEC61966-2.1"), space=P3
        )
        for format in _OPTIONS
    },
    "png-linear-called-srgb": sample(
        _with_profile, "PNG", colour.profile(curve=(0, 1), name="sRGB"), space=LINEAR
    ),
    **{
        f"jpeg-of-class-{kind.decode()}": sample(
            _with_profile, "JPEG", colour.profile(colour.P3, kind=kind), space=P3
        )
        for kind in (b"scnr", b"prtr", b"spac")
    },
    # Browsers ignore these.
    **{
        f"{format.lower()}-{name}": sample(_with_profile, format, profile)
        for format in _OPTIONS
        for name, profile in {
            "cut": P3[:-1],
            "noise": images.noise(b"", 3000),
            "of-a-link": colour.profile(colour.P3, kind=b"link"),
            "abstract": colour.profile(colour.P3, kind=b"abst"),
            "of-named-colours": colour.profile(colour.P3, kind=b"nmcl"),
            "of-grey": GREY_LINEAR,
            "of-cmyk": colour.profile(colour.P3, space=b"CMYK"),
            "without-signature": P3.replace(b"acsp", b"abcd"),
        }.items()
    },
}


def _gamma(exponent: float, primaries=None, png: bytes = PNG) -> bytes:
    return colour.with_gamma(png, exponent, primaries)


def _cicp(primaries: int, transfer: int, png: bytes = PNG, **options) -> bytes:
    return colour.with_cicp(png, primaries, transfer, **options)


def _nclx(primaries: int, transfer: int, image: Image.Image | None = None, **options) -> bytes:
    return colour.with_nclx(_encode("AVIF", image, **options), primaries, transfer)


def _coded(primaries: int, transfer: int) -> bytes:
    return colour.with_coded_colours(_encode("AVIF"), primaries, transfer)


_POWER = {exponent: colour.profile(curve=(0, exponent)) for exponent in (0.5, 1, 1.8, 2.2, 2.8)}
_PNG_P3, _PNG_LINEAR = (encode(RGB, "PNG", icc_profile=each) for each in (P3, LINEAR))
_RGB_16 = png_of(RGB, 16)

# By numbers.
NUMBERS: dict[str, Sample] = {
    **{
        f"png-gamma-{exponent}": sample(_gamma, exponent, space=profile)
        for exponent, profile in _POWER.items()
    },
    "png-gamma-16": sample(_gamma, 1, None, _RGB_16, space=LINEAR),
    "png-gamma-palette": sample(_gamma, 1, None, encode(RGB.quantize(256), "PNG"), space=LINEAR),
    "png-gamma-alpha": sample(_gamma, 1, None, encode(RGBA, "PNG"), space=LINEAR),
    "png-gamma-alpha-16": sample(_gamma, 1, None, png_of(RGBA, 16), space=LINEAR),
    "png-gamma-grey": sample(_gamma, 2.2, None, GREY_PNG, space=GREY_22),
    "png-gamma-grey-alpha": sample(
        _gamma, 1, None, encode(patches("LA"), "PNG"), space=GREY_LINEAR
    ),
    "png-gamma-grey-2": sample(_gamma, 1, None, png_of(GREY, 2), space=GREY_LINEAR),
    "png-gamma-grey-alpha-16": sample(_gamma, 1, None, png_of(patches("LA"), 16), space=LINEAR),
    "png-gamma-grey-16": sample(_gamma, 1, None, png_of(GREY, 16), space=GREY_LINEAR),
    "png-chromaticities": sample(
        _gamma, 2.2, colour.ADOBE, space=colour.profile(colour.ADOBE, (0, 2.2))
    ),
    "png-chromaticities-linear": sample(
        _gamma, 1, colour.P3, space=colour.profile(colour.P3, (0, 1))
    ),
    "png-chromaticities-alone": sample(colour.with_chrm, PNG, colour.P3),
    "png-cicp-p3": sample(_cicp, 12, 13, space=P3),
    "png-cicp-linear": sample(_cicp, 1, 8, space=LINEAR),
    "png-cicp-2.2": sample(_cicp, 12, 4, space=colour.profile(colour.P3, (0, 2.2))),
    "png-cicp-2.8": sample(_cicp, 1, 5, space=_POWER[2.8]),
    **{f"png-cicp-2020-{code}": sample(_cicp, 9, code, space=WIDE) for code in (1, 6, 14, 15)},
    "png-cicp-srgb": sample(_cicp, 1, 13),
    "png-cicp-grey": sample(_cicp, 1, 8, GREY_PNG, space=GREY_LINEAR),
    "png-cicp-16": sample(_cicp, 12, 13, _RGB_16, space=P3),
    "png-cicp-unspecified": sample(_cicp, 12, 2, space=P3),
    # The first of cICP, iCCP, sRGB, and gAMA with cHRM counts.
    "png-cicp-before-profile": sample(_cicp, 12, 13, _PNG_LINEAR, space=P3),
    "png-cicp-before-gamma": sample(_cicp, 12, 13, _gamma(1), space=P3),
    "png-profile-before-srgb": sample(colour.with_srgb, _PNG_P3, space=P3),
    "png-profile-before-gamma": sample(_gamma, 1, colour.SRGB, _PNG_P3, space=P3),
    "png-srgb-before-gamma": sample(_gamma, 1, colour.ADOBE, colour.with_srgb(PNG)),
    # What cannot be used does not count.
    "png-cicp-of-video": sample(_cicp, 12, 13, _gamma(1), matrix=1, space=LINEAR),
    "png-gamma-0": sample(images.with_chunk, PNG, b"gAMA", bytes(4)),
    "png-gamma-huge": sample(images.with_chunk, PNG, b"gAMA", b"\xff" * 4),
    "png-cicp-short": sample(images.with_chunk, PNG, b"cICP", b"\x0c\x0d"),
    "png-cicp-unknown": sample(_cicp, 77, 13, _PNG_LINEAR, space=LINEAR),
    "png-gamma-after-broken-profile": sample(
        _gamma, 1, None, encode(RGB, "PNG", icc_profile=P3[:-1]), space=LINEAR
    ),
    "avif-nclx-p3": sample(_nclx, 12, 13, space=P3),
    "avif-nclx-linear": sample(_nclx, 1, 8, space=LINEAR),
    "avif-nclx-2020": sample(_nclx, 9, 14, space=WIDE),
    "avif-nclx-after-profile": sample(_nclx, 1, 8, icc_profile=P3, space=P3),
    "avif-nclx-after-broken-profile": sample(
        _nclx, 1, 8, icc_profile=colour.profile(kind=b"abst"), space=LINEAR
    ),
    "avif-coded-p3": sample(_coded, 12, 13, space=P3),
    "avif-coded-linear": sample(_coded, 1, 8, space=LINEAR),
    "avif-coded-unspecified": sample(_coded, 2, 2),
    "avif-nclx-unspecified": sample(_nclx, 2, 2),
    "avif-nclx-unknown": sample(_nclx, 99, 99),
    "avif-nclx-alpha": sample(_nclx, 12, 13, RGBA, space=P3),
    "avif-nclx-premultiplied": sample(_nclx, 12, 13, RGBA, alpha_premultiplied=True, space=P3),
}

SAMPLES = {
    f"{group}-{name}": each
    for group, samples in (("kind", KINDS), ("profile", PROFILES), ("numbers", NUMBERS))
    for name, each in samples.items()
}


DELAYS = (20, 100, 70, 1000, 30)
"""Milliseconds for which the frames of an animation are shown."""


def _animation(format: str, mode: str = "RGB", **options) -> bytes:
    """Return an animation in which a part of the image moves.

    :param options: for Pillow.
    """
    frames = []
    for at in range(len(DELAYS)):
        frame = patches(mode)
        part = Image.new(mode, (50, 40), (20, 20 + 50 * at, 200, 255)[: len(mode)])
        frame.paste(part, (10 + 25 * at, 30 + 10 * at))
        if "A" in mode:
            frame.paste((0, 0, 0, 0), (20 * at, 100, 20 * at + 40, 140))
        frames.append(frame.quantize(128) if format == "GIF" and mode == "RGB" else frame)
    options = {"duration": list(DELAYS), "loop": 2, **options}
    return encode(frames[0], format, save_all=True, append_images=frames[1:], **options)


ANIMATIONS: dict[str, Sample] = {
    **{
        f"gif-disposal-{disposal}": sample(_animation, "GIF", disposal=disposal)
        for disposal in (0, 1, 2)
    },
    "gif-transparent": sample(_animation, "GIF", "RGBA", disposal=2),
    "gif-for-ever": sample(_animation, "GIF", loop=0),
    "webp-lossless": sample(_animation, "WEBP", lossless=True),
    "webp-lossless-alpha": sample(_animation, "WEBP", "RGBA", lossless=True),
    "webp-lossy-alpha": sample(_animation, "WEBP", "RGBA", quality=90),
    "webp-p3": sample(_animation, "WEBP", lossless=True, icc_profile=P3, space=P3),
}
