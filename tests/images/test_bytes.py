"""How many bytes a size of an image takes, and that none of them are metadata."""

import io
from functools import cache
from importlib.util import find_spec

import pytest
from PIL import Image, ImageDraw

from kinto_attachment.images.formats.header import read_header
from kinto_attachment.images.plan import Output, Size, Trim, plan
from tests.support import golden, images, profiles

pytestmark = pytest.mark.skipif(not find_spec("pyvips"), reason="pyvips is not installed")

SECRET = b"48.8584 N, 2.2945 E"
FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "AVIF"]
# Encoded with less quality or more effort than a server does.
TIGHT = {
    "JPEG": {"quality": 30, "optimize": True},
    "PNG": {"optimize": True},
    "WEBP": {"quality": 5, "method": 6},
    "GIF": {},
    "AVIF": {"quality": 10, "speed": 6},
}


@pytest.fixture
def make(workers):
    """Return a function that resizes an image as a server does, and returns the bytes."""

    def resize(data: bytes, size: str, format: str | None = None, trim: Trim | None = None):
        header = read_header(io.BytesIO(data))
        planned = plan(header.width, header.height, Size.parse(size), trim=trim)
        return workers.make(data, header, planned, Output(format or header.format))

    return resize


def chart(width: int = 600, height: int = 400) -> Image.Image:
    """Return a chart with texts, of few colours."""
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    for step in range(30):
        colour = (8 * step, 255 - 8 * step, 100)
        draw.line((0, step * height // 30, width, height - step * height // 40), colour, 2)
        draw.rectangle(
            (step * width // 30, height - step * 9, step * width // 30 + 9, height), colour
        )
        draw.text((step * width // 40, step * height // 31), f"The value {step}", "black")
    return image


photo = cache(images.photo)  # which is another one each time


def tight(format: str, **options) -> bytes:
    image = chart().quantize(16) if format in ("PNG", "GIF") else photo(300, 200)
    return images.encode(image, format, **TIGHT[format], **options)


class TestPalette:
    @pytest.mark.parametrize("colours", [2, 16, 64, 256])
    @pytest.mark.parametrize("size", ["599x0", "300x0", "80x80"])
    def test_is_kept(self, make, colours, size):
        data = images.encode(chart().quantize(colours), "PNG", optimize=True)
        result = make(data, size)
        found = images.decode(result)
        assert found.mode == "P"
        true_colours = images.encode(images.decode(data).convert("RGB"), "PNG")
        expected = make(true_colours, size)
        assert images.psnr(found, images.decode(expected)) > 35
        assert 1.6 * len(result) < len(expected)

    def test_is_kept_with_opacity(self, make):
        data = images.encode(golden.RGBA.quantize(200), "PNG")
        found = images.decode(make(data, "96x0"))
        assert (found.mode, found.has_transparency_data) == ("P", True)

    def test_is_not_kept_if_that_would_be_seen(self, make):
        data = images.encode(images.photo(600, 400).quantize(256), "PNG")
        assert images.decode(make(data, "150x0")).mode == "RGB"

    def test_is_not_made_where_there_was_none(self, make):
        assert images.decode(make(images.encode(chart(), "PNG"), "300x0")).mode == "RGB"

    @pytest.mark.parametrize("size", ["1990x0", "4090x0"])
    def test_of_a_large_photo_takes_no_long_time(self, make, size):
        tile = images.photo(1024, 1024).quantize(256)
        large = Image.new("P", (4096, 4096))
        large.putpalette(tile.getpalette())
        for at in range(16):
            large.paste(tile, (at % 4 * 1024, at // 4 * 1024))
        data = images.encode(large, "PNG", compress_level=1)
        make(images.gif(30, 20, 1), "0x0")  # This starts the worker.
        started = images.cpu_seconds()
        assert images.decode(make(data, size)).mode == "RGB"
        assert images.cpu_seconds() - started < 5


class TestFullSize:
    @pytest.mark.parametrize("format", FORMATS)
    def test_has_no_more_bytes_than_the_original(self, make, format):
        data = tight(format)
        for size in ("0x0", "5000x0"):
            result = make(data, size)
            assert len(result) <= len(data)
            assert images.psnr(images.decode(result), images.decode(data)) > 45
        # In another format, it may.
        assert images.decode(make(data, "0x0", "png")).format == "PNG"

    @pytest.mark.parametrize("format", ["JPEG", "WEBP", "PNG", "AVIF"])
    def test_has_no_metadata(self, make, format):
        exif = Image.Exif()
        exif[0x010E] = SECRET.decode()
        data = tight(format, exif=exif, xmp=SECRET)
        assert SECRET in data
        result = make(data, "0x0")
        assert SECRET not in result and b"xif\0" not in result
        if format in ("JPEG", "PNG"):  # their metadata can be left out
            assert len(result) <= len(tight(format))

    def test_has_no_comment(self, make):
        for data in (
            tight("GIF", comment=SECRET),
            tight("JPEG", comment=SECRET),
            images.with_segments(tight("JPEG"), 0xEC, SECRET),
            images.with_segments(tight("JPEG"), 0xE0, b"JFIF\0\1\1\0\0\1\0\1" + SECRET),
            images.with_chunk(tight("PNG"), b"tEXt", b"Comment\0" + SECRET),
            tight("JPEG").replace(b"\xff\xd9", images.segment(0xFE, SECRET) + b"\xff\xd9"),
            images.with_hidden(tight("JPEG"), SECRET),
        ):
            assert SECRET in data
            assert SECRET not in make(data, "0x0")

    @pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF"])
    def test_has_no_profile(self, make, format):
        for profile in (profiles.profile(), profiles.profile(profiles.P3), b"noise"):
            data = tight(format, icc_profile=profile)
            assert "icc_profile" not in images.decode(make(data, "0x0")).info

    def test_is_upright(self, make):
        data = images.turned(images.photo(300, 200), "JPEG", 6, quality=5)
        result = images.decode(make(data, "0x0"))
        assert result.size == (200, 300) and not result.getexif()

    def test_of_a_part_is_that_part(self, make):
        result = make(tight("JPEG"), "0x0", trim=Trim(10, 10, 100, 100))
        assert images.decode(result).size == (100, 100)

    def test_of_an_animation_keeps_all_frames(self, make):
        for format in ("GIF", "WEBP"):
            data = images.animation(format, 90, 60, 5)
            result = make(data, "0x0")
            assert images.decode(result).n_frames == 5 and len(result) <= len(data)
