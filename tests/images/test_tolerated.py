"""Images that are not quite valid come out as browsers show them."""

import io
from importlib.util import find_spec

import pytest
from PIL import Image

from kinto_attachment.images.formats.header import read_header
from kinto_attachment.images.plan import Output, Size, plan
from tests.support import images
from tests.support.tolerated import BLUE, CLEAR, GREEN, RED, TOLERATED, frame, gif

pytestmark = pytest.mark.skipif(not find_spec("pyvips"), reason="pyvips is not installed")


WHOLE = Size(0, 0)


@pytest.fixture(scope="module")
def make():
    """Return a function that resizes as a server does, and opens the result."""
    workers = images.BytesResizer()

    def resize(data: bytes, size: Size = WHOLE, format: str = "png") -> Image.Image:
        header = read_header(io.BytesIO(data))
        planned = plan(header.width, header.height, size)
        return Image.open(io.BytesIO(workers.make(data, header, planned, Output(format))))

    yield resize
    workers.close()


def is_close(found: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    """Return whether two colours are the same but for what JPEG and AVIF lose."""
    if expected == CLEAR:
        return found[3] == 0
    return all(abs(one - other) <= 8 for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("name", TOLERATED)
def test_the_size_is_what_browsers_show(name):
    header = read_header(io.BytesIO(TOLERATED[name].make()))
    assert (header.width, header.height) == TOLERATED[name].size


@pytest.mark.parametrize("name", TOLERATED)
def test_the_pixels_are_what_browsers_show(make, name):
    expected, data = TOLERATED[name], TOLERATED[name].make()
    result = make(data).convert("RGBA")
    assert result.size == expected.size
    found = {place: result.getpixel(place) for place in expected.pixels}
    for place, colour in expected.pixels.items():
        assert is_close(found[place], colour), (place, found)
    width = max(1, expected.size[0] // 3)
    assert make(data, Size(width, 0), "webp").size[0] == width


@pytest.mark.parametrize("screen", [(640, 480), (60, 40)])
def test_later_frames_may_lie_anywhere_on_the_screen(make, screen):
    """A frame that the first one does not cover is not lost, and each keeps its delay."""
    width, height = screen
    first, last = frame(0, 0, 10, 10, 2), frame(width - 20, height - 10, 20, 10, 3)
    result = make(gif(screen, first, last.replace(b"\x0a\0", b"\x14\0", 1)), format="gif")
    assert (result.size, result.n_frames) == (screen, 2)
    shown = []
    for number in range(2):
        result.seek(number)
        result.load()
        image = result.convert("RGBA")
        shown += [result.info["duration"]]
        assert is_close(image.getpixel((5, 5)), RED)
        assert is_close(image.getpixel((width - 5, height - 5)), GREEN if number else CLEAR)
        assert is_close(image.getpixel((30, 20)), CLEAR)
    assert shown == [100, 200]


@pytest.mark.parametrize("disposal", [2, 3])
def test_what_a_frame_leaves_behind_is_transparent(make, disposal):
    whole, small = frame(0, 0, 60, 40, 2, disposal), frame(10, 10, 20, 10, 1)
    result = make(gif((60, 40), whole, small), format="gif")
    result.seek(1)
    image = result.convert("RGBA")
    assert is_close(image.getpixel((15, 15)), BLUE)
    assert is_close(image.getpixel((50, 30)), CLEAR)


def test_a_gif_that_covers_its_screen_stays_opaque(make):
    data = gif((60, 40), frame(0, 0, 60, 40, 2), frame(10, 10, 20, 10, 1))
    assert make(data).mode in ("RGB", "P")
