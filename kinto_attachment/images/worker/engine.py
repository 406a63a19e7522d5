"""Colour profiles (https://www.color.org/specification/ICC.1-2022-05.pdf)."""

import struct

import pyvips

from ...errors import ImageRefused
from ..formats.header import UPRIGHT, ImageHeader, is_sideways
from ..plan import Output, Plan

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


# Where decoding smaller stops: the rest is left to a better filter.
_RESIDUAL = 1.3
# By how many pixels of the result a crop may be off, as it begins at a pixel that was decoded.
_OFF = 0.06
# Pixels that may be added to a side so that it is scaled to whole ones.
_SPARE = 16
_LOADERS = {
    "avif": "heifload_buffer",
    "gif": "gifload_buffer",
    "jpeg": "jpegload_buffer",
    "png": "pngload_buffer",
    "webp": "webpload_buffer",
}
# A JPEG that ends in the middle but says it is whole is a warning among those that cameras cause.
_LENIENT = "truncated"
_STRICT = {"jpeg": "warning"}
_CUT_OFF = "premature end"
_WHITE = [255, 255, 255]


def prepare() -> None:
    """Once in the process: only the decoders that are meant to be reached, and no cache."""
    pyvips.operation_block_set("VipsForeignLoad", True)
    for name in ("Jpeg", "Png", "Webp", "Nsgif", "Heif"):
        pyvips.operation_block_set(f"VipsForeignLoad{name}", False)
    pyvips.cache_set_max(0)


def resize(
    source: bytes, header: ImageHeader, plan: Plan, output: Output, frames: int = 1
) -> bytes:
    """The image as it was planned.

    :param source: a file that was checked.
    :param frames: how many of them are used.
    :raises ImageRefused: it is broken.
    """
    try:
        return _make(source, header, plan, output, frames, _STRICT.get(header.format, _LENIENT))
    except pyvips.Error as error:
        if header.format not in _STRICT or _CUT_OFF in error.detail:
            raise ImageRefused(_reason(header, error)) from error
    try:
        return _make(source, header, plan, output, frames, _LENIENT)
    except pyvips.Error as error:
        raise ImageRefused(_reason(header, error)) from error


def _make(
    source: bytes, header: ImageHeader, plan: Plan, output: Output, frames: int, fail_on: str
) -> bytes:
    plan = _as_stored(header, plan)
    shrink = _shrink(plan) if header.format == "jpeg" else 1
    animated = frames > 1 and output.animates
    image = _load(source, header, shrink, frames if animated else 1, fail_on)
    pages = image.pagesplit() if animated else [image]
    pages = [_resize(page, header.orientation, plan, shrink) for page in pages]
    return _save(_join(pages, image) if animated else pages[0], output)


def _as_stored(header: ImageHeader, plan: Plan) -> Plan:
    """The plan for the image before it is turned upright."""
    left, top, crop_width, crop_height = plan.left, plan.top, plan.crop_width, plan.crop_height
    width, height = plan.width, plan.height
    # Where a turned image has its sides: measured from the far ones.
    if header.orientation in (2, 3, 6, 7):
        left = header.width - left - crop_width
    if header.orientation in (3, 4, 7, 8):
        top = header.height - top - crop_height
    if is_sideways(header.orientation):
        left, crop_width, width, top, crop_height, height = (
            *(top, crop_height, height),
            *(left, crop_width, width),
        )
    return Plan(left, top, crop_width, crop_height, width, height)


def _shrink(plan: Plan) -> int:
    """By how much a JPEG is decoded smaller, which costs less than anything that is done later."""
    x, y = plan.crop_width / plan.width, plan.crop_height / plan.height

    def fits(shrink: int) -> bool:
        off = max(_off(plan.left, shrink) / x, _off(plan.top, shrink) / y)
        return min(x, y) >= shrink * _RESIDUAL and off <= _OFF

    return next(filter(fits, (8, 4, 2)), 1)


def _off(side: int, shrink: int) -> int:
    """How far it is from the next pixel of a smaller image."""
    return min(side % shrink, -side % shrink)


def _load(
    source: bytes, header: ImageHeader, shrink: int, frames: int, fail_on: str
) -> pyvips.Image:
    options = {"fail_on": fail_on, "access": "sequential"}
    if header.format == "jpeg":
        options["shrink"] = shrink
    if header.format in ("gif", "webp"):
        options["n"] = frames
    image = pyvips.Operation.call(_LOADERS[header.format], source, **options)
    width, height = (side // shrink for side in header.stored)
    if (image.width, image.get_page_height()) != (width, height):
        raise ImageRefused("The image contradicts itself about its size.")
    return image


def _resize(image: pyvips.Image, orientation: int, plan: Plan, shrink: int) -> pyvips.Image:
    """One frame: cropped, scaled, in sRGB, upright."""
    image = _crop(image, plan, shrink)
    if (plan.width, plan.height) != (image.width, image.height):
        image = _scale(image, plan, shrink)
    image = _to_srgb(image)
    if orientation != UPRIGHT:
        # It was read line by line, and is turned in memory.
        image = _turn(image.copy_memory(), orientation)
    return image


def _crop(image: pyvips.Image, plan: Plan, shrink: int) -> pyvips.Image:
    """The part that is used, and what has to be added to it."""
    left, top = (2 * plan.left + shrink) // (2 * shrink), (2 * plan.top + shrink) // (2 * shrink)
    width = _whole(plan.crop_width, plan.width, shrink)
    height = _whole(plan.crop_height, plan.height, shrink)
    there = min(width, image.width - left), min(height, image.height - top)
    if there != (image.width, image.height):
        image = image.crop(left, top, *there)
    if there != (width, height):
        image = image.embed(0, 0, width, height, extend="copy")
    return image


def _whole(crop: int, length: int, shrink: int) -> int:
    """So many pixels of what was decoded that they are scaled to whole ones. The decoder leaves
    out the rest of a division, and the scaler puts half of a rest on either side: both move the
    image, by up to half a pixel."""
    first = -(-crop // shrink)
    return min(range(first, first + _SPARE), key=lambda side: -side * shrink * length % crop)


def _scale(image: pyvips.Image, plan: Plan, shrink: int) -> pyvips.Image:
    """By the exact factor, then to the exact size."""
    format, has_alpha = image.format, image.hasalpha()
    if has_alpha:
        image = image.premultiply()
    image = image.resize(
        shrink * plan.width / plan.crop_width,
        vscale=shrink * plan.height / plan.crop_height,
        kernel="lanczos3",
    )
    if has_alpha:
        image = image.unpremultiply().cast(format)
    if (image.width, image.height) != (plan.width, plan.height):
        image = image.crop(0, 0, plan.width, plan.height)
    return image


def _turn(image: pyvips.Image, orientation: int) -> pyvips.Image:
    """Upright: CIPA DC-008, section 4.6.5."""
    if orientation in (2, 4, 5, 7):
        image = image.fliphor()
    turns = {3: "d180", 4: "d180", 5: "d270", 6: "d90", 7: "d90", 8: "d270"}
    return image.rot(turns[orientation]) if orientation in turns else image


def _join(frames: list[pyvips.Image], animation: pyvips.Image) -> pyvips.Image:
    """An animation of these frames, which keeps its times."""
    joined = pyvips.Image.arrayjoin(frames, across=1).copy()
    joined.set_type(pyvips.GValue.gint_type, "page-height", frames[0].height)
    for name in ("delay", "loop"):
        if animation.get_typeof(name):
            joined.set_type(animation.get_typeof(name), name, animation.get(name))
    return joined


def _to_srgb(image: pyvips.Image) -> pyvips.Image:
    """Whatever the colours are: a profile that makes no sense is left alone."""
    if image.get_typeof("icc-profile-data") and not is_srgb(image.get("icc-profile-data")):
        try:
            image = image.icc_transform("srgb", embedded=True, intent="perceptual")
        except pyvips.Error:
            image = image.copy()
            image.remove("icc-profile-data")
    if image.interpretation != "srgb":
        image = image.colourspace("srgb")
    return image if image.format == "uchar" else image.cast("uchar")


def _save(image: pyvips.Image, output: Output) -> bytes:
    if output.format == "jpeg":
        if image.hasalpha():
            image = image.flatten(background=_WHITE)
        return image.jpegsave_buffer(Q=output.q, keep="none")
    if output.format == "png":
        return image.pngsave_buffer(keep="none")
    if output.format == "webp":
        return image.webpsave_buffer(Q=output.q, effort=2, keep="none")
    if output.format == "avif":
        return image.heifsave_buffer(Q=output.q, effort=0, compression="av1", keep="none")
    return image.gifsave_buffer(effort=1, dither=0, keep="none")


def _reason(header: ImageHeader, error: pyvips.Error) -> str:
    """The first line of what the library says, which knows no names of files."""
    if "out of memory" in error.detail:
        return "The image needs more memory than it may use."
    lines = [line.strip() for line in error.detail.splitlines() if line.strip()]
    return f"The {header.format.upper()} is damaged: {''.join(lines[:1])[:200]}"
