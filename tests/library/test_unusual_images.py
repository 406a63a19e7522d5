"""Images that are not quite valid, or of formats that are not resized, in the media library."""

import re

import pytest
from PIL import Image

from tests.support import images
from tests.support.library import MediaLibrary, settings
from tests.support.tolerated import TOLERATED, TWINS

NAMES = [
    *("gif-screen-640x480", "gif-large-frame", "gif-end-none"),
    *("png-no-end", "png-wrong-checksum", "png-late-exif"),
    *("jpeg-film", "jpeg-turned-then-upright", "avif-cropped"),
]
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"/>'


@pytest.fixture
def any_library(make_site):
    """Return a library that takes files of any type."""
    options = {"kinto.attachment.extensions": "any"}
    return MediaLibrary(make_site(**settings("site", **options)))


@pytest.mark.parametrize("name", NAMES)
def test_facts_and_sizes_are_what_browsers_show(any_library, name):
    image, extension = TOLERATED[name], name.partition("-")[0]
    content = image.make()
    data = any_library.add(content, f"a.{extension}")
    assert (data["type"], data["width"], data["height"]) == ("image", *image.size)
    assert any_library.get(f"image/0x0/{data['id']}.{extension}").body == content
    whole = f"image/{image.size[0]}x0/{data['id']}.{extension}?format=png"
    result = images.decode(any_library.get(whole).body).convert("RGBA")
    assert result.size == image.size
    for place, colour in image.pixels.items():
        found = result.getpixel(place)
        if not colour[3]:  # what is transparent may have any colour
            found, colour = found[3:], colour[3:]
        assert all(abs(a - b) <= 8 for a, b in zip(found, colour, strict=True)), (place, found)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("jpeg-12-bit", "12 bits per channel.*Request 0x0"),
        ("jpeg-arithmetic", "arithmetic.*Request 0x0"),
        ("jpeg-cut-in-last-block", "cut off"),
        ("png-cut-in-pixels", "cut off"),
        ("gif-cut-after-block", "cut off"),
    ],
)
def test_what_is_not_resized_is_served_as_it_is(any_library, name, reason):
    content, extension = TWINS[name][0](), name.partition("-")[0]
    data = any_library.add(content, f"a.{extension}")
    assert data["type"] == "image"
    response = any_library.get(f"image/100x0/{data['id']}.{extension}", status=400)
    assert re.search(reason, response.json["message"])
    assert any_library.get(f"image/0x0/{data['id']}.{extension}").body == content
    assert any_library.get(f"original/{data['id']}.{extension}").body == content


@pytest.mark.parametrize(
    ("filename", "content"),
    [
        ("a.tiff", images.encode(Image.new("RGB", (60, 40)), "TIFF")),
        ("a.jxl", b"\xff\x0a" + bytes(100)),
        ("a.heic", images.noise(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")),
        ("a.psd", b"8BPS\0\1" + bytes(100)),
        ("a.bmp", images.encode(Image.new("RGB", (60, 40)), "BMP")),
    ],
)
def test_other_formats_are_served_as_they_are(any_library, filename, content):
    data = any_library.add(content, filename)
    extension = data["extension"]
    response = any_library.get(f"image/10x0/{data['id']}.{extension}", status=400)
    reason = f"This file of type {data['mimeType']} cannot be resized: request 0x0"
    assert reason in response.json["message"]
    assert any_library.get(f"image/0x0/{data['id']}.{extension}").body == content


def test_a_drawing_without_a_size_is_an_image(local_library):
    data = local_library.add(SVG, "a.svg")
    assert (data["type"], data["width"], data["height"]) == ("image", 0, 0)
    assert local_library.get(f"image/320x0/{data['id']}.svg").body == SVG
    local_library.get(f"image/320x0/{data['id']}.svg?format=png", status=400)


def test_a_part_of_a_drawing_without_a_size_is_refused(local_library):
    facts = local_library.upload(SVG, "a.svg")
    trim = {"left": 0, "top": 0, "width": 1, "height": 1}
    answer = local_library.describe(facts, status=400, variants=[{"name": "dot", "trim": trim}])
    assert "inside the image" in answer["message"]


@pytest.mark.parametrize("letter", ["a", "写"])
def test_a_long_name_keeps_its_extension_in_every_size(local_library, letter):
    data = local_library.add(filename=letter * 251 + ".jpg")
    for size, suffix in (("60x0", "-60x40"), ("30x30", "-30x30")):
        response = local_library.get(f"image/{size}/{data['id']}.jpg")
        disposition = response.headers["Content-Disposition"]
        assert 'filename="' in disposition and '.jpg"' in disposition
        assert disposition.endswith(f"{suffix}.jpg")
    webp = local_library.get(f"image/60x0/{data['id']}.jpg?format=webp")
    assert webp.headers["Content-Disposition"].endswith("-60x40.webp")
