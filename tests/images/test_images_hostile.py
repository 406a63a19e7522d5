"""Hostile images are refused quickly, in little memory, and with a reason."""

import io
import struct
import time
from importlib.util import find_spec

import psutil
import pytest

from kinto_attachment.errors import ImageRefused
from kinto_attachment.images.formats import check_image
from kinto_attachment.images.formats.header import read_header
from kinto_attachment.images.formats.limits import Limits
from kinto_attachment.images.plan import Output, Size, plan
from tests.support import images, profiles
from tests.support.tolerated import TWINS

HOSTILE = {**images.HOSTILE, **TWINS}

pytestmark = pytest.mark.skipif(not find_spec("pyvips"), reason="pyvips is not installed")


def resize(workers, data: bytes) -> bytes:
    header = read_header(io.BytesIO(data))
    planned = plan(header.width, header.height, Size(100, 0))
    return workers.make(data, header, planned, Output("webp"))


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_images_are_refused(workers, name):
    make, reason = HOSTILE[name]
    data = make()
    resize(workers, images.gif(30, 20, 1))  # This starts the worker.
    pid = workers.pid
    started = images.cpu_seconds()
    with pytest.raises(ImageRefused) as refused:
        resize(workers, data)
    assert images.cpu_seconds() - started < 2
    assert reason in refused.value.reason
    assert "/" not in refused.value.reason and len(refused.value.reason) < 300
    assert workers.pid == pid


@pytest.mark.parametrize("name", images.NO_IMAGE)
def test_what_is_no_image_is_recognised_quickly(name):
    data = images.NO_IMAGE[name]()
    started = time.monotonic()
    assert read_header(io.BytesIO(data)) is None
    assert time.monotonic() - started < 0.5


def test_the_memory_of_the_worker_stays_small(workers):
    """One process resizes all images twice, ordinary and hostile ones."""
    samples = [*images.usual().values(), *(make() for make, _ in HOSTILE.values())]
    assert len(samples) > 41
    resize(workers, samples[0])
    worker = psutil.Process(workers.pid)
    refused = 0
    for data in samples * 2:
        try:
            resize(workers, data)
        except ImageRefused:
            refused += 1
        assert worker.memory_info().rss < 300 * 1024 * 1024
    assert refused == 2 * len(HOSTILE)
    assert workers.pid == worker.pid


@pytest.mark.parametrize("name", [*images.usual()])
def test_ordinary_images_pass(name):
    data = images.usual()[name]
    file = io.BytesIO(data)
    checked = check_image(file, read_header(file))
    assert checked.frames == (4 if name in ("gif-animated", "webp-animated") else 1)


def test_png_texts_and_frames_do_not_reach_the_decoder():
    data = images.animation("PNG", 30, 20, 4)
    data = images.with_chunk(data, b"zTXt", b"Comment\0\0secret", 3)
    data = images.with_chunk(data, b"eXIf", b"MM\0*secret")
    file = io.BytesIO(data + b"PK\3\4 and an archive: secret")
    stripped = check_image(file, read_header(file)).read(file)
    assert stripped.startswith(b"\x89PNG") and stripped.endswith(b"IEND\xaeB`\x82")
    for name in (b"zTXt", b"eXIf", b"acTL", b"fcTL", b"fdAT", b"secret"):
        assert name not in stripped
    file = io.BytesIO(stripped)
    assert check_image(file, read_header(file)).read(file) == stripped


def test_bytes_after_an_image_do_not_reach_the_decoder():
    for format in ("JPEG", "WEBP"):
        data = images.encode(images.photo(60, 40), format)
        file = io.BytesIO(data + b"<html>" * 100)
        assert check_image(file, read_header(file)).read(file) == data


def test_scans_after_the_only_one_are_not_decoded(workers):
    data = images.encode(images.photo(600, 400), "JPEG")
    expected = resize(workers, data)
    scan = data[data.index(b"\xff\xda") : -2]
    hidden = images.with_hidden(data, 1000 * scan)
    started = images.cpu_seconds()
    assert resize(workers, hidden) == expected
    assert images.cpu_seconds() - started < 0.5


def test_scans_of_components_of_one_name_are_counted():
    # The decoder counts the components: it takes the first scan for one of three.
    data = images.encode(images.photo(60, 40), "JPEG")
    frame = data.index(b"\xff\xc0") + 10
    scan = data.index(b"\xff\xda")
    start = images.segment(0xDA, b"\1\1\0\0\x3f\0") + bytes(100)
    components = b"".join(b"\1" + data[at + 1 : at + 3] for at in range(frame, frame + 9, 3))
    hostile = data[:frame] + components + data[frame + 9 : scan] + 880 * start + b"\xff\xd9"
    with pytest.raises(ImageRefused, match="64 scans"):
        check_image(io.BytesIO(hostile), read_header(io.BytesIO(hostile)))


@pytest.mark.parametrize(
    ("name", "limits", "reason"),
    [
        ("jpeg", Limits(max_bytes=1000), "over 1000 bytes"),
        ("jpeg", Limits(pixels=59_999), "megapixels"),
        ("jpeg-progressive", Limits(scans=5), "5 scans"),
        ("avif", Limits(avif_pixels=59_999), "megapixels"),
        ("gif", Limits(gif_pixels=59_999), "megapixels"),
        ("png", Limits(side=299), "a side may have 299"),
    ],
)
def test_images_over_a_limit_are_refused(name, limits, reason):
    file = io.BytesIO(images.usual()[name])
    check_image(file, read_header(file))
    with pytest.raises(ImageRefused, match=reason):
        check_image(file, read_header(file), limits)


def test_large_images_may_have_fewer_scans():
    data = images.many_scans(50)
    check_image(io.BytesIO(data), read_header(io.BytesIO(data)))
    with pytest.raises(ImageRefused, match="20 scans"):
        check_image(io.BytesIO(data), read_header(io.BytesIO(data)), Limits(pixels=256 * 256))


def test_only_the_first_frame_of_a_long_animation_is_used():
    for data, limits, frames in [
        (images.gif(30, 20, 300), Limits(), 300),
        (images.gif(30, 20, 301), Limits(), 1),
        (images.gif(1000, 1000, 100), Limits(), 100),
        (images.gif(1000, 1000, 101), Limits(), 1),
        (images.animation("WEBP", 30, 20, 4), Limits(frames=3), 1),
    ]:
        file = io.BytesIO(data)
        assert check_image(file, read_header(file), limits).frames == frames


def test_uncompressed_text_does_not_reach_the_decoder():
    text = b"XML:com.adobe.xmp\0\0\0\0\0" + b"x" * 2_000_000
    data = images.with_chunk(images.usual()["png"], b"iTXt", text)
    file = io.BytesIO(data)
    assert len(check_image(file, read_header(file)).read(file)) < 1_000_000


def test_a_large_profile_passes(workers):
    data = images.usual()["jpeg"]
    piece = b"ICC_PROFILE\0\1\1" + bytes(65_000)
    assert resize(workers, images.with_segments(data, 0xE2, piece, 30))


PNG, AVIF = images.usual()["png"], images.usual()["avif-alpha"]
TABLE = struct.pack(">4s4xI", b"curv", 300_000) + bytes(600_000)
CURVES = dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), TABLE)
# What states a colour space in a way that would fail or take long, by name.
COLOURS = {
    "gamma-0": lambda: images.with_chunk(PNG, b"gAMA", bytes(4)),
    "gamma-huge": lambda: images.with_chunk(PNG, b"gAMA", b"\xff" * 4),
    "gamma-short": lambda: images.with_chunk(PNG, b"gAMA", b"\1"),
    "gamma-often": lambda: images.with_chunk(PNG, b"gAMA", b"\0\1\x86\xa0", 60_000),
    "one-primary": lambda: profiles.with_gamma(
        images.with_chunk(PNG, b"cHRM", struct.pack(">8I", *[30_000] * 8)), 1
    ),
    "near-primaries": lambda: profiles.with_gamma(
        images.with_chunk(
            PNG, b"cHRM", struct.pack(">8I", 31_270, 32_900, 1, 1, 1, 2, 30_000, 30_001)
        ),
        1,
    ),
    "primaries-outside": lambda: profiles.with_gamma(
        images.with_chunk(PNG, b"cHRM", struct.pack(">8I", *[0xFFFFFFFF, 0] * 4)), 1
    ),
    "code-255": lambda: profiles.with_cicp(PNG, 255, 255, 255, 255),
    "code-short": lambda: images.with_chunk(PNG, b"cICP", b"\1"),
    "long-curves": lambda: _with_profile(profiles.profile(more=CURVES)),
    "no-primaries": lambda: _with_profile(
        profiles.profile(more={b"rXYZ": b"XYZ " + bytes(16), b"gXYZ": b"XYZ " + bytes(16)})
    ),
    "many-tags": lambda: _with_profile(
        profiles.profile(more={struct.pack(">I", at): bytes(4) for at in range(10_000)})
    ),
    "large-table": lambda: _with_profile(
        profiles.profile(more={b"A2B0": b"mft2\0\0\0\0\x0f\x0f\xff\0" + bytes(500_000)})
    ),
    "nclx-65535": lambda: profiles.with_nclx(AVIF, 65535, 65535),
    "prem-of-nothing": lambda: images.encode(
        images.photo(300, 200).convert("RGBA"), "AVIF", speed=10, alpha_premultiplied=True
    ).replace(b"prem\0\1", b"prem\xff\xff"),
}


def _with_profile(profile: bytes) -> bytes:
    return images.encode(images.photo(300, 200), "PNG", icc_profile=profile)


@pytest.mark.parametrize("name", COLOURS)
def test_strange_colour_spaces_are_resized_quickly(workers, name):
    data = COLOURS[name]()
    resize(workers, images.gif(30, 20, 1))  # This starts the worker.
    pid = workers.pid
    started = images.cpu_seconds()
    result = images.decode(resize(workers, data))
    assert images.cpu_seconds() - started < 2
    assert result.size == (100, 67) and workers.pid == pid
