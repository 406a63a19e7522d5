"""Decoding, resizing and encoding with libvips (https://www.libvips.org/API/current/).

Only the worker process imports this module, so that libvips is never loaded into a server.
"""

from mmap import mmap

import pyvips

from ...errors import ImageRefused
from ..formats.colour import is_premultiplied, stated_colour_space
from ..formats.header import UPRIGHT, ImageHeader, is_sideways
from ..formats.limits import damaged
from ..formats.metadata import without_metadata
from ..formats.png import repair
from ..plan import Output, Plan
from . import icc

# The JPEG decoder leaves at least this factor to the scaler, whose filter is better.
_RESIDUAL = 1.3
# A crop begins at a pixel that was decoded. This may shift it by at most so many pixels of the
# result.
_MAX_SHIFT = 0.06
# Pixels that may be added to a side so that it is scaled to a whole number of pixels.
_MAX_PADDING = 16
# pyvips copies what it passes to the loaders of buffers, but not a source in memory.
_LOADERS = {
    "avif": "heifload_source",
    "gif": "gifload_source",
    "jpeg": "jpegload_source",
    "png": "pngload_source",
    "webp": "webpload_source",
}
# libvips only warns of a JPEG that is cut off but has an end marker. Images of some cameras cause
# warnings too, so a JPEG that fails is decoded again, leniently, unless the warning says that it is
# cut off.
_LENIENT = "truncated"
_STRICT = {"jpeg": "warning"}
_CUT_OFF = "premature end"
_NO_MEMORY = "out of memory"
_WHITE = [255]
_ICC = "icc-profile-data"
# How hard to look for a palette of an image of up to so many pixels. It takes long.
_EFFORTS = ((1_000_000, 5), (4_000_000, 2))
# An image in a palette that differs less than this from one without looks the same (36 dB).
_ALIKE = 4
# A frame of a GIF whose colours differ more than this from those of the palette before, on average,
# gets its own. With the default of 3, small parts in a new colour would have a wrong one.
_NEW_PALETTE = 0.5
# What a profile calls the colours of an image. Those of all other images are RGB.
_SPACES = {"b-w": b"GRAY", "grey16": b"GRAY", "cmyk": b"CMYK"}


def prepare() -> None:
    """Set up libvips: allow only the decoders that are needed, and keep no cache. Call this once in
    the process, before :func:`resize`."""
    pyvips.operation_block_set("VipsForeignLoad", True)
    for name in ("Jpeg", "Png", "Webp", "Nsgif", "Heif"):
        pyvips.operation_block_set(f"VipsForeignLoad{name}", False)
    pyvips.cache_set_max(0)


def resize(
    source: bytes | mmap,
    header: ImageHeader,
    plan: Plan,
    output: Output,
    frames: int = 1,
    skipped: int = 0,
) -> bytes:
    """Return the resized image, encoded.

    :param source: the bytes of an image that :func:`~kinto_attachment.images.formats.check_image`
        accepted; a mapped file only if it is a JPEG.
    :param header: the header of the image.
    :param plan: the part of the image to use, and the size of the result.
    :param output: the format of the result.
    :param frames: how many frames of the image to use.
    :param skipped: how many frames come before those.
    :raises ImageRefused: if the image is broken, or needs too much memory.
    """
    used = range(skipped, skipped + frames)
    _take_messages()  # those of an earlier image
    try:
        return _make(source, header, plan, output, used, _STRICT.get(header.format, _LENIENT))
    except pyvips.Error as error:
        if header.format == "jpeg" and _CUT_OFF in error.detail:
            raise damaged("JPEG") from error
        if header.format not in ("jpeg", "png") or _NO_MEMORY in error.detail:
            raise ImageRefused(_reason(header, error)) from error
    # libvips refuses a PNG whose pixels have a wrong checksum. Browsers show it.
    source = repair(source, header) if header.format == "png" else source
    try:
        return _make(source, header, plan, output, used, _LENIENT)
    except pyvips.Error as error:
        raise ImageRefused(_reason(header, error)) from error


def _make(
    source: bytes | mmap, header: ImageHeader, plan: Plan, output: Output, used: range, fail_on: str
) -> bytes:
    stored = _as_stored(header, plan)
    shrink = _shrink(stored) if header.format == "jpeg" else 1
    animated = len(used) > 1 and output.animates
    image = _load(source, header, shrink, used if animated else used[:1], fail_on)
    profile = _profile(image, header, source)
    if image.hasalpha() and is_premultiplied(header.format, source):
        image = _unpremultiplied(image, image.format)
    pages = image.pagesplit() if animated else [image]
    pages = [_resize(page, header.orientation, stored, shrink, profile) for page in pages]
    result = _join(pages, image, used) if animated else pages[0]
    made = _save(result, output, had_palette=bool(image.get_typeof("palette")))
    if header.format == "jpeg" and _CUT_OFF in _take_messages():
        raise damaged("JPEG")
    is_srgb = image.format == "uchar" and image.interpretation != "cmyk" and not profile
    # Frames that are skipped are not in the original: they help the decoder.
    is_original = not used.start and _is_whole(header, plan, output)
    kept = without_metadata(header.format, source) if is_srgb and is_original else None
    return kept if kept and len(kept) < len(made) else made


def _take_messages() -> str:
    """Return what libvips has reported so far, and forget it. That a JPEG ends within its last
    lines is reported without failing."""
    return pyvips.Error("").detail


def _is_whole(header: ImageHeader, plan: Plan, output: Output) -> bool:
    """Return whether an image is already of the format and the size that is wanted, and upright."""
    width, height = header.width, header.height
    is_upright = header.orientation == UPRIGHT
    whole = Plan(0, 0, width, height, width, height)
    return output.format == header.format and plan == whole and is_upright


def _as_stored(header: ImageHeader, plan: Plan) -> Plan:
    """Return the plan in pixels of the image as it is stored, before it is turned upright."""
    left, top, crop_width, crop_height = plan.left, plan.top, plan.crop_width, plan.crop_height
    width, height = plan.width, plan.height
    # In these orientations the distance counts from the opposite side of the stored image.
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
    """Return the factor by which the decoder makes a JPEG smaller: 1, 2, 4 or 8. Decoding fewer
    pixels costs less than scaling them down afterwards."""
    x, y = plan.crop_width / plan.width, plan.crop_height / plan.height

    def fits(shrink: int) -> bool:
        shift = max(_distance(plan.left, shrink) / x, _distance(plan.top, shrink) / y)
        return min(x, y) >= shrink * _RESIDUAL and shift <= _MAX_SHIFT

    return next(filter(fits, (8, 4, 2)), 1)


def _distance(offset: int, shrink: int) -> int:
    """Return the distance from an offset to the nearest edge of a pixel that was decoded ``shrink``
    times smaller, in pixels of the image."""
    return min(offset % shrink, -offset % shrink)


def _load(
    source: bytes | mmap, header: ImageHeader, shrink: int, used: range, fail_on: str
) -> pyvips.Image:
    """Open the image; its pixels are decoded when they are needed.

    :param shrink: the factor by which the decoder makes a JPEG smaller.
    :param used: which frames to decode.
    :raises ImageRefused: if the image has another size than its header.
    """
    options = {"fail_on": fail_on, "access": "sequential"}
    if header.format == "jpeg":
        options["shrink"] = shrink
    if header.format in ("gif", "webp"):
        options |= {"page": used.start, "n": len(used)}
    memory = pyvips.Source.new_from_memory(source)
    image = pyvips.Operation.call(_LOADERS[header.format], memory, **options)
    width, height = (side // shrink for side in header.stored)
    if (image.width, image.get_page_height()) != (width, height):
        raise ImageRefused(
            "The image contradicts itself about its size. Save it again with an image editor."
        )
    return image


def _profile(image: pyvips.Image, header: ImageHeader, source: bytes | mmap) -> bytes:
    """Return the ICC profile of the colour space of an image; no bytes if that is sRGB."""
    space = _SPACES.get(image.interpretation, b"RGB ")
    profile = image.get(_ICC) if image.get_typeof(_ICC) else b""
    if not icc.is_usable(profile, space):
        profile = b""
    stated = stated_colour_space(header.format, source, bool(profile))
    if stated:
        try:
            profile = icc.profile(space, stated.chromaticities, stated.curve)
        except ArithmeticError:
            profile = b""  # no light has these colours
    return b"" if icc.is_srgb(profile) else profile


def _resize(
    image: pyvips.Image, orientation: int, plan: Plan, shrink: int, profile: bytes
) -> pyvips.Image:
    """Return one frame cropped, scaled, in sRGB and upright."""
    image = _crop(image, plan, shrink)
    if (plan.width, plan.height) != (image.width, image.height):
        image = _scale(image, plan, shrink)
    image = _to_srgb(image, profile)
    if orientation != UPRIGHT:
        # The decoder delivers line after line, but turning needs all lines.
        image = _turn(image.copy_memory(), orientation)
    return image


def _crop(image: pyvips.Image, plan: Plan, shrink: int) -> pyvips.Image:
    """Return the part of the image that is used, padded so that it is scaled to whole pixels."""
    left, top = (2 * plan.left + shrink) // (2 * shrink), (2 * plan.top + shrink) // (2 * shrink)
    width = _whole(plan.crop_width, plan.width, shrink)
    height = _whole(plan.crop_height, plan.height, shrink)
    available = min(width, image.width - left), min(height, image.height - top)
    if available != (image.width, image.height):
        image = image.crop(left, top, *available)
    if available != (width, height):
        image = image.embed(0, 0, width, height, extend="copy")
    return image


def _whole(crop: int, length: int, shrink: int) -> int:
    """Return how many decoded pixels a side must have so that it is scaled to a whole number of
    pixels, or nearly so.

    With any other number the image would shift by up to half a pixel: the decoder drops the
    remainder when it divides a side by ``shrink``, and the scaler spreads a remainder over both
    ends.

    :param crop: length of the side in pixels of the image.
    :param length: length of the side in pixels of the result.
    """
    first = -(-crop // shrink)
    return min(range(first, first + _MAX_PADDING), key=lambda side: -side * shrink * length % crop)


def _scale(image: pyvips.Image, plan: Plan, shrink: int) -> pyvips.Image:
    """Scale by the exact factor, then cut off what exceeds the exact size."""
    format, has_alpha = image.format, image.hasalpha()
    if has_alpha:
        image = image.premultiply()
    image = image.resize(
        shrink * plan.width / plan.crop_width,
        vscale=shrink * plan.height / plan.crop_height,
        kernel="lanczos3",
    )
    if has_alpha:
        image = _unpremultiplied(image, format)
    if (image.width, image.height) != (plan.width, plan.height):
        image = image.crop(0, 0, plan.width, plan.height)
    return image


def _unpremultiplied(image: pyvips.Image, format: str) -> pyvips.Image:
    """Divide the colours by the alpha channel."""
    return image.unpremultiply().rint().cast(format)


def _turn(image: pyvips.Image, orientation: int) -> pyvips.Image:
    """Turn the image upright (CIPA DC-008, section 4.6.5)."""
    if orientation in (2, 4, 5, 7):
        image = image.fliphor()
    turns = {3: "d180", 4: "d180", 5: "d270", 6: "d90", 7: "d90", 8: "d270"}
    return image.rot(turns[orientation]) if orientation in turns else image


def _join(frames: list[pyvips.Image], animation: pyvips.Image, used: range) -> pyvips.Image:
    """Return an animation of these frames, with the delays and the loop count of the original.

    :param used: the numbers of these frames in the original.
    """
    joined = pyvips.Image.arrayjoin(frames, across=1).copy()
    joined.set_type(pyvips.GValue.gint_type, "page-height", frames[0].height)
    for name in ("delay", "loop"):
        if animation.get_typeof(name):
            value = animation.get(name)
            value = value[used.start : used.stop] if name == "delay" else value
            joined.set_type(animation.get_typeof(name), name, value)
    return joined


def _to_srgb(image: pyvips.Image, profile: bytes) -> pyvips.Image:
    """Convert the image to sRGB, or to grey with the curve of sRGB, with 8 bits per channel.

    :param profile: the ICC profile of its colour space; no bytes for sRGB.
    """
    is_grey = image.interpretation in ("b-w", "grey16")
    if profile:
        image = _converted(image, profile)
    if image.interpretation == "cmyk":
        image = _without_inks(image)
    elif is_grey and image.bands > 2:
        image = image[2:].copy(interpretation="b-w")  # red, green and blue are equal
    if image.interpretation not in ("srgb", "b-w"):
        image = image.colourspace("b-w" if is_grey else "srgb")
    return image if image.format == "uchar" else image.cast("uchar")


def _converted(image: pyvips.Image, profile: bytes) -> pyvips.Image:
    """Convert the image to sRGB, or leave it as it is if the profile is invalid."""
    image = image.copy()
    image.set_type(pyvips.GValue.blob_type, _ICC, profile)
    try:
        return image.icc_transform("srgb", embedded=True, intent="perceptual", depth=8)
    except pyvips.Error:
        return image


def _without_inks(image: pyvips.Image) -> pyvips.Image:
    """Convert CMYK without a profile as browsers do: each ink filters its light."""
    light = 255 - image
    return (light[:3] * light[3] / 255).rint().cast("uchar").copy(interpretation="srgb")


def _save(image: pyvips.Image, output: Output, had_palette: bool) -> bytes:
    """Encode the image without its metadata. JPEG has no transparency: its background is white.

    :param had_palette: whether the colours of the original were in a palette.
    """
    if output.format == "jpeg":
        if image.hasalpha():
            image = image.flatten(background=_WHITE)
        return image.jpegsave_buffer(Q=output.q, keep="none")
    if output.format == "png":
        pixels = image.width * image.height
        effort = next((effort for most, effort in _EFFORTS if pixels <= most), 0)
        if had_palette and effort and image.bands > 2:
            return _save_palette(image.copy_memory(), effort)
        return image.pngsave_buffer(keep="none")
    if output.format == "webp":
        return image.webpsave_buffer(Q=output.q, effort=2, keep="none")
    if output.format == "avif":
        return image.heifsave_buffer(Q=output.q, effort=0, compression="av1", keep="none")
    return image.gifsave_buffer(effort=1, dither=0, interpalette_maxerror=_NEW_PALETTE, keep="none")


def _save_palette(image: pyvips.Image, effort: int) -> bytes:
    """Encode the image as a PNG, with a palette if that takes fewer bytes and looks the same."""
    indexed = image.pngsave_buffer(keep="none", palette=True, dither=0, effort=effort)
    plain = image.pngsave_buffer(keep="none")
    return indexed if len(indexed) < len(plain) and _error(indexed, image) <= _ALIKE else plain


def _error(png: bytes, image: pyvips.Image) -> float:
    """Return by how much a PNG differs from an image, as the root of the mean square."""
    found = pyvips.Image.pngload_buffer(png)
    if found.bands < image.bands:
        found = found.addalpha()
    if image.hasalpha():
        found, image = found.premultiply(), image.premultiply()
    return ((found - image) ** 2).avg() ** 0.5


def _reason(header: ImageHeader, error: pyvips.Error) -> str:
    """Return a sentence about the image, with the first line of libvips's message. There are no
    file names in it, because libvips decodes from memory."""
    if _NO_MEMORY in error.detail:
        return "Resizing the image needs too much memory. Upload a smaller image."
    lines = [line.strip() for line in error.detail.splitlines() if line.strip()]
    return (
        f"The {header.format.upper()} cannot be resized and may be damaged"
        f" ({''.join(lines[:1])[:200]}). Save it again with an image editor."
    )
