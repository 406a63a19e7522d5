"""Images of every kind, compared with those of an independent decoder and of a colour management
system: Pillow and lcms.

The size must be the same, colours may differ by 3 of 255, and opacity by 2.
"""

import io
import itertools
from importlib.util import find_spec

import pytest
from PIL import Image, ImageChops, ImageOps

from kinto_attachment.images.formats.header import read_header
from kinto_attachment.images.plan import Output, Size, plan
from tests.support import golden, images, profiles

pytestmark = pytest.mark.skipif(not find_spec("pyvips"), reason="pyvips is not installed")

COLOURS, OPACITY = 3, 2
WEBP, ANIMATED_WEBP = 5, 12
"""By how much colours differ in a lossy WebP of the highest quality: it has 220 shades of each, not
256, and leaves small differences between frames out."""


@pytest.fixture
def resize(workers):
    """Return a function that resizes an image as a server does."""

    def make(data: bytes, size: str, format: str = "png", quality: int | None = None):
        header = read_header(io.BytesIO(data))
        planned = plan(header.width, header.height, Size.parse(size))
        result = images.decode(workers.make(data, header, planned, Output(format, quality)))
        assert result.size == (planned.width, planned.height)
        return result

    return make


def in_srgb(data: bytes, profile: bytes | None) -> Image.Image:
    """Return an image as it should be shown."""
    image = ImageOps.exif_transpose(images.decode(data))
    if image.mode.startswith("I"):
        image = image.convert("I").point(lambda value: value / 257).convert("L")
    elif image.mode == "P" or "transparency" in image.info:
        image = image.convert("RGBA")
    elif image.mode == "1":
        image = image.convert("L")
    return profiles.in_srgb(image, profile)


def check(found: Image.Image, wanted: Image.Image, only_flat: bool, colours: int = COLOURS) -> None:
    """Compare an image with the one that is wanted, as they are shown on black and on white.

    :param wanted: in its full size.
    :param only_flat: whether to compare only the parts that have one colour. What is around edges
        depends on the filter.
    :param colours: by how much colours may differ.
    """
    mask = _flat(wanted) if only_flat else Image.new("L", wanted.size, 255)
    mask, wanted = (each.resize(found.size, Image.Resampling.NEAREST) for each in (mask, wanted))
    assert mask.histogram()[255] > 50
    found = found.convert("RGBA")
    pairs = [(found.getchannel("A"), wanted.getchannel("A"), OPACITY)]
    for background in ("black", "white"):
        on = Image.new("RGBA", found.size, background)
        shown = (Image.alpha_composite(on, each).convert("RGB") for each in (found, wanted))
        pairs.append((*shown, colours))
    for one, other, allowed in pairs:
        for band in ImageChops.difference(one, other).split():
            assert ImageChops.multiply(band, mask).getextrema()[1] <= allowed


def _flat(image: Image.Image) -> Image.Image:
    """Return a mask of the pixels around which the colour hardly changes, for six pixels."""
    changes = Image.new(image.mode, image.size)
    for x, y in itertools.product((-6, -3, -1, 0, 1, 3, 6), repeat=2):
        shifted = ImageChops.offset(image, x, y)
        changes = ImageChops.lighter(changes, ImageChops.difference(image, shifted))
    mask = Image.new("L", image.size, 255)
    for band in changes.split():
        mask = ImageChops.multiply(mask, band.point(lambda value: 255 * (value <= 4)))
    return mask


@pytest.mark.parametrize("name", golden.SAMPLES)
def test_an_image_is_as_pillow_and_lcms_show_it(resize, name):
    data, profile = golden.SAMPLES[name].make(), golden.SAMPLES[name].profile
    wanted = in_srgb(data, profile)
    full = resize(data, "0x0")
    assert full.size == wanted.size
    # Decoders of AVIF differ in how they enlarge the colours.
    check(full, wanted, only_flat="avif" in name)
    check(resize(data, f"{wanted.width // 2}x0"), wanted, only_flat=True)
    assert "icc_profile" not in full.info and "gamma" not in full.info


@pytest.mark.parametrize("format", ["jpeg", "png", "webp", "avif", "gif"])
@pytest.mark.parametrize("name", ["profile-png-p3", "profile-png-alpha", "profile-png-grey"])
def test_every_format_shows_the_same_colours(resize, name, format):
    data, profile = golden.SAMPLES[name].make(), golden.SAMPLES[name].profile
    wanted = in_srgb(data, profile)
    if format in ("jpeg", "gif"):  # a GIF is opaque or not, and a JPEG is always
        data = images.encode(images.on_white(wanted), "PNG")
        wanted = in_srgb(data, None)
    allowed = WEBP if format == "webp" else COLOURS
    for size in ("0x0", "96x0"):
        found = resize(data, size, format, None if format == "gif" else 100)
        check(found, wanted, only_flat=True, colours=allowed)


@pytest.mark.parametrize("format", ["gif", "webp"])
@pytest.mark.parametrize("name", golden.ANIMATIONS)
def test_an_animation_is_as_pillow_shows_it(resize, name, format):
    if "alpha" in name and format == "gif":
        pytest.skip("A GIF is opaque or not.")
    data, profile = golden.ANIMATIONS[name].make(), golden.ANIMATIONS[name].profile
    original = images.decode(data)
    for size in ("0x0", "96x0"):
        found = resize(data, size, format, 100 if format == "webp" else None)
        assert found.n_frames == original.n_frames == len(golden.DELAYS)
        # GIF counts how often an animation is repeated, WebP how often it is shown.
        shown = [
            each.info["loop"] + (each.format == "GIF" and each.info["loop"] > 0)
            for each in (found, original)
        ]
        assert shown[0] == shown[1]
        for frame, delay in enumerate(golden.DELAYS):
            for each in (found, original):
                each.seek(frame)
                each.load()
            assert found.info["duration"] == original.info["duration"] == delay
            wanted = profiles.in_srgb(original.convert("RGBA"), profile)
            check(found, wanted, True, ANIMATED_WEBP if format == "webp" else COLOURS)
