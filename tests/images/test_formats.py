"""Image headers, plans, and resized images compared with those of Pillow."""

import io
import struct
import time
from importlib.util import find_spec

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

from kinto_attachment.errors import ImageRefused, SizeRefused
from kinto_attachment.images.formats import check_image
from kinto_attachment.images.formats.header import ImageHeader, read_header, read_orientation
from kinto_attachment.images.formats.reader import SharedFile
from kinto_attachment.images.plan import Output, Plan, Size, Trim, plan
from kinto_attachment.images.worker.icc import is_srgb
from tests.support import images, profiles

pytestmark = pytest.mark.skipif(not find_spec("pyvips"), reason="pyvips is not installed")

SIDES = st.integers(1, 20_000)
SIZES = st.builds(Size, st.integers(0, 25_000), st.integers(0, 25_000))
FORMATS = ["JPEG", "PNG", "WEBP", "AVIF"]
SAMPLES = images.usual()
MALFORMED_SIZES = ["320", "x", "-1x2", "1x2x3", "100000x1", "1.5x2", "1x", "\u0663x\u0663", ""]


def read(data: bytes) -> ImageHeader | None:
    return read_header(io.BytesIO(data))


@pytest.fixture(scope="module")
def photo():
    return images.photo(1001, 667)


@pytest.fixture
def make(workers):
    """Return a function that resizes as a server does, and returns the result, opened by Pillow,
    and its plan."""

    def resize(data, size, format="png", trim=None, quality=None):
        header = read(data)
        planned = plan(header.width, header.height, size, trim=trim)
        result = workers.make(data, header, planned, Output(format, quality))
        assert read(result).format == format
        return Image.open(io.BytesIO(result)), planned

    return resize


def by_pillow(data: bytes, planned: Plan) -> Image.Image:
    """Return the image as Pillow resizes it."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    right, bottom = planned.left + planned.crop_width, planned.top + planned.crop_height
    image = image.crop((planned.left, planned.top, right, bottom))
    return image.resize((planned.width, planned.height), Image.Resampling.LANCZOS)


# -- headers


@pytest.mark.parametrize("name", SAMPLES)
def test_a_header_is_read(name):
    header = read(SAMPLES[name])
    expected = (200, 300) if name == "jpeg-turned" else (300, 200)
    assert (header.width, header.height) == expected
    assert header.format == name.partition("-")[0].replace("apng", "png")
    assert header.mimetype == f"image/{header.format}"
    assert header.resizable


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_change_the_sides(format, orientation):
    header = read(images.turned(images.corners(60, 40), format, orientation))
    assert (header.width, header.height) == ((60, 40) if orientation < 5 else (40, 60))


@pytest.mark.parametrize("format", ["TIFF", "BMP", "ICO", "JPEG2000"])
def test_other_formats_are_read_and_not_resized(format):
    data = images.encode(Image.new("RGB", (64, 64)), format)
    header = read(data)
    assert header.width == 64 and not header.resizable
    with pytest.raises(ImageRefused, match="cannot be resized"):
        check_image(io.BytesIO(data), header)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_change_the_sides_of_a_tiff(orientation):
    data = images.turned(Image.new("RGB", (60, 40)), "TIFF", orientation)
    header = read(data)
    assert (header.width, header.height) == ((60, 40) if orientation < 5 else (40, 60))


@pytest.mark.parametrize("height", [40, -40])
def test_bitmaps_of_all_ages_are_read(height):
    modern = images.encode(Image.new("RGB", (60, 40)), "BMP")
    modern = modern[:22] + struct.pack("<i", height) + modern[26:]
    old = b"BM" + struct.pack("<IHHIIHHHH", 26 + 7200, 0, 0, 26, 12, 60, 40, 1, 24) + bytes(7200)
    for data in (modern, old):
        assert (read(data).width, read(data).height) == (60, 40)


def test_the_reserved_byte_of_an_icon_is_ignored():
    data = images.encode(Image.new("RGB", (64, 64)), "ICO", sizes=[(16, 16), (64, 64)])
    assert (read(data).format, read(data).width) == ("ico", 64)
    data = data[:9] + b"\x20" + data[10:]
    assert (read(data).format, read(data).width) == ("ico", 64)
    assert read(data[:18] + b"\0\0\0\0" + data[22:]) is None  # an image inside the directory


def test_a_size_behind_large_segments_is_found():
    data = images.encode(Image.new("RGB", (64, 32)), "JPEG")
    data = images.with_segments(data, 0xE2, b"MPF\0" + bytes(65_000), 40)
    assert (read(data).width, read(data).height) == (64, 32)


SVG = 'xmlns="http://www.w3.org/2000/svg"'


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (f'<svg {SVG} width="30" height="20"/>', (30, 20)),
        (f"<svg {SVG} width='30px' height='1in'>", (30, 96)),
        (f'<svg {SVG} viewBox="0 0 40 10"/>', (40, 10)),
        (f'<svg {SVG} width="100%" height="100%" viewBox="0,0,40,10"/>', (40, 10)),
        (f'<svg {SVG} width="80" viewBox="0 0 40 10"/>', (80, 20)),
        (
            f'\ufeff<?xml version="1.0"?>\n<!-- width="1" -->\n<!DOCTYPE svg [<!ENTITY w "7">]>'
            f'<svg {SVG} width="&w;" height="2"><g width="9"/></svg>',
            (7, 2),
        ),
        (f"<svg {SVG}/>", (0, 0)),
        (f'<svg {SVG} width="80"/>', (0, 0)),
        (f'<svg {SVG} width="100%" height="50"/>', (0, 0)),
        (f'<svg {SVG} width="10em" height="5em"/>', (0, 0)),
        (f'<svg {SVG} width="10em" height="9" viewBox="0 0 40 10"/>', (40, 10)),
        (f'<svg {SVG} width="1_0" height="\u0663" viewBox="-5 -5 4e1 10"/>', (40, 10)),
        (f'<svg {SVG} width="80" height="auto" viewBox="0 0 40 0"/>', (0, 0)),
        (f'<svg {SVG} width="0.2" height="0.2"/>', (0, 0)),
        (f'<svg {SVG} width="40Q" height="1CM"/>', (38, 38)),
        (f'{" " * 3000}<!--{"-x" * 300_000}--><svg {SVG} width="3" height="2"/>', (3, 2)),
        (
            '<s:svg xmlns:s="http://www.w3.org/2000/svg" width="3" height="2"/>',
            (3, 2),
        ),
    ],
)
def test_an_svg_is_read(text, size):
    header = read(text.encode())
    assert (header.format, header.width, header.height) == ("svg", *size)
    assert not header.resizable


@pytest.mark.parametrize("encoding", ["utf-16"])
def test_an_svg_in_another_encoding_is_read(encoding):
    assert read(f'<svg {SVG} width="3" height="2"/>'.encode(encoding)).format == "svg"


def test_the_search_for_the_root_of_an_svg_ends():
    text = f"<!--{'x' * 8_000_000}--><svg {SVG} width='3' height='2'/>"
    started = time.monotonic()
    assert read(text.encode()) is None
    assert time.monotonic() - started < 0.5


@pytest.mark.parametrize("name", images.NO_IMAGE)
def test_what_is_no_image_has_no_header(name):
    assert read(images.NO_IMAGE[name]()) is None


@given(st.binary(max_size=400))
def test_a_header_has_positive_sides_or_is_none(data):
    header = read(data)
    assert header is None or header.format == "svg" or min(header.width, header.height) > 0


@given(
    name=st.sampled_from(sorted(SAMPLES)),
    changes=st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), max_size=8),
    cut=st.integers(0, 800),
)
@settings(deadline=None)
def test_damaged_images_are_read_or_refused(name, changes, cut):
    data = bytearray(SAMPLES[name])
    for at, value in changes:
        data[at % len(data)] = value
    del data[len(data) - cut :]
    file = io.BytesIO(data)
    header = read_header(file)
    assert file.tell() == 0
    if header and header.resizable:
        try:
            checked = check_image(file, header)
        except ImageRefused as refused:
            assert refused.reason.endswith(".")
        else:
            assert len(checked.read(file)) <= len(data) + 100


@given(st.binary(max_size=200))
@example(b"II*\0\xff\xff\xff\xff")
@example(b"MM\0*\0\0\0\x08\xff\xff\x01\x12")
def test_any_exif_has_a_valid_orientation(data):
    assert 1 <= read_orientation(data) <= 8


# -- plans


@pytest.mark.parametrize("text", MALFORMED_SIZES)
def test_malformed_sizes_are_refused(text):
    with pytest.raises(SizeRefused) as refused:
        Size.parse(text)
    assert (refused.value.field, refused.value.location) == ("size", "path")


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("600x0", (0, 0, 1200, 800, 600, 400)),
        ("0x100", (0, 0, 1200, 800, 150, 100)),
        ("0x0", (0, 0, 1200, 800, 1200, 800)),
        ("5000x0", (0, 0, 1200, 800, 1200, 800)),
        ("2000x500", (0, 150, 1200, 500, 1200, 500)),
        ("100x100", (200, 0, 800, 800, 100, 100)),
        ("9999x9999", (0, 0, 1200, 800, 1200, 800)),
        ("1x0", (0, 0, 1200, 800, 1, 1)),
    ],
)
def test_a_plan(size, expected):
    assert plan(1200, 800, Size.parse(size)) == Plan(*expected)


def test_a_plan_of_a_trim():
    trim = Trim(100, 50, 400, 200)
    assert plan(1200, 800, Size(200, 0), trim=trim) == Plan(100, 50, 400, 200, 200, 100)
    assert plan(1200, 800, Size(900, 900), trim=trim) == Plan(100, 50, 400, 200, 400, 200)
    assert plan(1200, 800, Size(100, 100), trim=trim) == Plan(200, 50, 200, 200, 100, 100)


@pytest.mark.parametrize("trim", [(-1, 0, 5, 5), (0, 0, 0, 5), (0, 0, 5, 6), (4, 0, 2, 2)])
def test_a_trim_outside_the_image_is_refused(trim):
    with pytest.raises(SizeRefused) as refused:
        plan(5, 5, Size(1, 1), trim=Trim(*trim))
    assert refused.value.field == "trim"


@given(SIDES, SIDES, SIZES, st.integers(1, 5000), st.data())
def test_any_plan_keeps_the_proportions(width, height, size, max_side, data):
    left, top = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    inside = st.integers(1, width - left), st.integers(1, height - top)
    trim = Trim(left, top, data.draw(inside[0]), data.draw(inside[1]))
    planned = plan(width, height, size, max_side, trim)
    # The crop lies inside the trim, and is never enlarged.
    assert trim.left <= planned.left and trim.top <= planned.top
    assert 1 <= planned.width <= planned.crop_width <= trim.left + trim.width - planned.left
    assert 1 <= planned.height <= planned.crop_height <= trim.top + trim.height - planned.top
    assert max(planned.width, planned.height) <= max_side
    # The proportions are exact to a pixel, either of the result or of the crop.
    x_scale, y_scale = planned.crop_width / planned.width, planned.crop_height / planned.height
    assert (
        min(
            abs(planned.crop_height / x_scale - planned.height),
            abs(planned.crop_width / y_scale - planned.width),
            abs(planned.crop_height - planned.height * x_scale),
            abs(planned.crop_width - planned.width * y_scale),
        )
        < 1
    )
    if size.width and size.height:
        assert planned.width == min(size.width, trim.width, max_side)
        assert planned.height == min(size.height, trim.height, max_side)
        again = Size(planned.width, planned.height)
        assert plan(width, height, again, max_side, trim) == planned
    else:
        assert (planned.crop_width, planned.crop_height) == (trim.width, trim.height)
    if size.width and not size.height and planned.width < max_side > planned.height:
        assert plan(width, height, Size(planned.width, 0), max_side, trim) == planned


@given(SIDES, SIDES, st.integers(1, 5000), st.integers(0, 30_000))
def test_sizes_larger_than_the_image_give_its_own_size(width, height, max_side, more):
    assert plan(width, height, Size(width + more, 0), max_side) == plan(
        width, height, Size(width, 0), max_side
    )


# -- resized images


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("size", ["700x0", "320x0", "0x50", "90x70", "400x100", "60x60", "0x0"])
def test_results_resemble_those_of_pillow(make, photo, format, size):
    options = {"subsampling": "4:4:4"} if format == "AVIF" else {}
    data = images.encode(photo, format, **options)
    result, planned = make(data, Size.parse(size))
    expected = by_pillow(data, planned)
    assert result.size == (planned.width, planned.height)
    assert images.psnr(result, expected) > 31


@pytest.mark.parametrize(
    "format, orientation",
    [
        *((format, number) for format in ("JPEG", "PNG", "WEBP") for number in range(1, 9)),
        # Encoding takes long, and the image is turned before.
        *(("AVIF", number) for number in (1, 6)),
        *(pytest.param("AVIF", each, marks=pytest.mark.slow) for each in (2, 3, 4, 5, 7, 8)),
    ],
)
def test_images_of_every_orientation_are_resized(make, photo, format, orientation):
    data = images.turned(photo, format, orientation)
    for size, trim in [("300x0", None), ("80x80", None), ("100x0", Trim(101, 203, 333, 250))]:
        result, planned = make(data, Size.parse(size), trim=trim)
        assert images.psnr(result, by_pillow(data, planned)) > 31, size


@pytest.mark.parametrize("orientation", range(1, 9))
def test_corners_are_where_they_belong(make, orientation):
    upright = images.corners(600, 300)
    # The camera stored the pixels turned the other way.
    inverse = {5: 5, 6: 8, 7: 7, 8: 6}.get(orientation, orientation)
    exif = Image.Exif()
    exif[0x0112] = inverse
    carrier = Image.open(io.BytesIO(images.encode(upright, "PNG", exif=exif)))
    stored = ImageOps.exif_transpose(carrier)
    result, _ = make(images.turned(stored, "JPEG", orientation, quality=95), Size(60, 0))
    assert result.size == (60, 30)
    places = {(4, 4): "RED", (55, 4): "GREEN", (55, 25): "BLUE", (4, 25): "YELLOW"}
    for place, name in places.items():
        colour = getattr(images, name)
        found = result.convert("RGB").getpixel(place)
        assert all(abs(a - b) < 20 for a, b in zip(found, colour, strict=True)), name


@pytest.mark.parametrize("name", sorted(set(SAMPLES) - {"jpeg-cmyk", "png-grey16"}))
def test_images_of_every_kind_are_resized(make, name):
    result, planned = make(SAMPLES[name], Size(120, 0))
    assert images.psnr(result, by_pillow(SAMPLES[name], planned)) > 35


def test_grey_of_16_bits_is_resized(make):
    result, _ = make(SAMPLES["png-grey16"], Size(30, 0))
    assert result.mode in ("L", "RGB")
    assert abs(result.convert("L").getpixel((15, 10)) - 40000 / 257) < 2


def test_cmyk_becomes_rgb(make):
    image = Image.new("CMYK", (200, 100), (0, 0, 0, 0))
    image.paste((0, 255, 255, 0), (0, 0, 100, 100))
    result, _ = make(images.encode(image, "JPEG", quality=95), Size(50, 0), "jpeg")
    assert result.mode == "RGB"
    red, white = result.getpixel((10, 12)), result.getpixel((40, 12))
    assert red[0] > 180 and red[1] < 80 and red[2] < 80
    assert min(white) > 245


def test_colours_of_a_profile_are_converted(make, photo):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    swapped = _red_is_green(srgb.tobytes())
    data = images.encode(photo, "PNG", icc_profile=swapped)
    result, planned = make(data, Size(200, 0))
    opened = Image.open(io.BytesIO(data))
    expected = ImageCms.profileToProfile(
        opened, ImageCms.ImageCmsProfile(io.BytesIO(swapped)), srgb
    )
    expected = expected.resize((planned.width, planned.height), Image.Resampling.LANCZOS)
    assert images.psnr(result, expected) > 31
    assert images.psnr(result, by_pillow(data, planned)) < 25  # The profile changes the colours.
    assert "icc_profile" not in result.info


def _red_is_green(profile: bytes) -> bytes:
    """Return the profile under another name, and with the red and green primaries exchanged."""
    exchanged = profile.replace(b"rXYZ", b"-XYZ").replace(b"gXYZ", b"rXYZ")
    exchanged = exchanged.replace(b"-XYZ", b"gXYZ")
    return exchanged.replace(
        "sRGB built-in".encode("utf-16-be"), "exchanged....".encode("utf-16-be")
    )


def test_srgb_is_recognised_by_its_primaries_and_curves():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert is_srgb(srgb)
    assert is_srgb(profiles.profile(name="a display"))
    assert not is_srgb(_red_is_green(srgb))
    assert not is_srgb(profiles.profile(profiles.P3, name="sRGB"))
    for curve in (profiles.BT709_CURVE, (0, 2.2), (1, 2.4, 1, 0), (2, 2.4, 1, 0, 0.1)):
        assert not is_srgb(profiles.profile(curve=curve, name="sRGB"))


@given(
    changes=st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), max_size=8),
    cut=st.integers(0, 400),
)
@example([(131, 255)], 0)
def test_a_damaged_profile_is_srgb_or_not(changes, cut):
    data = bytearray(profiles.profile())
    for at, value in changes:
        data[at % len(data)] = value
    assert is_srgb(bytes(data[: len(data) - cut])) in (True, False)


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_not_srgb(data):
    assert not is_srgb(data)


@pytest.mark.parametrize("format", ["jpeg", "png", "webp", "avif", "gif"])
def test_outputs_have_no_metadata(make, photo, format):
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    data = images.encode(photo, "JPEG", exif=exif, comment=b"secret", quality=95)
    result, planned = make(data, Size(160, 0), format)
    assert not result.getexif()
    assert "comment" not in result.info and "icc_profile" not in result.info
    expected = by_pillow(data, planned)
    # The result is about as close as what Pillow makes with the same codec.
    options = {"avif": {"quality": 60}, "png": {}, "gif": {}}.get(format, {"quality": 80})
    by_codec = Image.open(io.BytesIO(images.encode(expected, format.upper(), **options)))
    assert images.psnr(result, expected) > min(images.psnr(by_codec, expected) - 1.5, 35)


def test_higher_quality_makes_larger_files(workers, photo):
    header = read(images.encode(photo, "PNG"))
    data, planned = images.encode(photo, "PNG"), plan(header.width, header.height, Size(400, 0))
    for format in ("jpeg", "webp", "avif"):
        small, usual, large = (
            len(workers.make(data, header, planned, Output(format, quality)))
            for quality in (20, None, 95)
        )
        assert small < usual < large


@pytest.mark.parametrize("quality", [0, 101])
def test_invalid_outputs_are_refused(quality):
    with pytest.raises(ValueError):
        Output("jpeg", quality)
    with pytest.raises(ValueError):
        Output("bmp")


def test_transparent_pixels_are_white_in_jpeg(make):
    image = Image.new("RGBA", (60, 40), (200, 0, 0, 0))
    image.paste((0, 0, 200, 255), (30, 0, 60, 40))
    result, _ = make(images.encode(image, "PNG"), Size(30, 0), "jpeg")
    assert min(result.getpixel((4, 10))) > 245
    assert result.getpixel((25, 10))[2] > 150


@pytest.mark.parametrize("source", ["GIF", "WEBP"])
@pytest.mark.parametrize("format", ["gif", "webp"])
def test_animations_stay_animated(make, source, format):
    data = images.animation(source, 90, 60, 5, duration=70)
    result, _ = make(data, Size(45, 0), format)
    assert (result.size, result.n_frames) == ((45, 30), 5)
    # WebP counts how often the animation is shown, GIF how often it is repeated.
    assert result.info["loop"] == 3 + (source == "GIF") - (format == "gif")
    original = Image.open(io.BytesIO(data))
    for frame in range(5):
        result.seek(frame)
        result.load()
        original.seek(frame)
        assert result.info["duration"] == 70
        expected = original.convert("RGB").resize((45, 30), Image.Resampling.LANCZOS)
        assert images.psnr(result, expected) > 30


@pytest.mark.parametrize("format", ["jpeg", "png", "avif"])
def test_animations_become_their_first_frame(make, format):
    result, _ = make(images.animation("GIF", 90, 60, 5), Size(45, 0), format)
    assert getattr(result, "n_frames", 1) == 1
    assert result.convert("RGB").getpixel((20, 15))[2] > 200  # The first frame is blue.


def test_long_animations_become_their_first_frame(make):
    result, _ = make(images.gif(30, 20, 301), Size(15, 0), "gif")
    assert result.n_frames == 1
    result, _ = make(images.gif(30, 20, 300), Size(15, 0), "gif")
    assert result.size == (15, 10)


@pytest.mark.parametrize("data", [b"pixels", b""])
def test_a_shared_file_is_mapped_or_read(data, tmp_path):
    (tmp_path / "file").write_bytes(data)
    with (tmp_path / "file").open("rb") as file:
        assert SharedFile(file.fileno()).map()[:] == data
        assert file.tell() == 0
