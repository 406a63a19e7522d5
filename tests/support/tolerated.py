"""Images that are not quite as their formats want them, and that browsers show nevertheless; and
hostile ones that resemble them.

Sizes and pixels are those that Chromium 156 shows, with two exceptions. Of the clean apertures of
AVIF, it follows only those in the top left corner, and the standard follows all. It may leave out
the last lines of a JPEG without an end, although they are there.
"""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from tests.support import images

RED, GREEN, BLUE, CLEAR = (255, 0, 0, 255), (0, 255, 0, 255), (0, 0, 255, 255), (0, 0, 0, 0)
WHITE = (255, 255, 255, 255)


@dataclass(frozen=True)
class Tolerated:
    """An image, and what browsers show of it.

    :param make: returns the file.
    :param size: width and height.
    :param pixels: colours by their places.
    """

    make: Callable[[], bytes]
    size: tuple[int, int]
    pixels: dict[tuple[int, int], tuple[int, int, int, int]]


# -- GIF


def _codes(codes: list[int]) -> bytes:
    """Return codes of three bits each."""
    bits = sum(code << 3 * at for at, code in enumerate(codes))
    return bits.to_bytes(-(-3 * len(codes) // 8), "little")


def frame(left: int, top: int, width: int, height: int, colour: int, disposal: int = 1) -> bytes:
    """Return a frame of one colour of the table: 1 is blue, 2 red, and 3 green."""
    # The codes have three bits. Code 4 forgets what came before, so that they stay that short.
    eight = b"".join([_codes([4, colour, colour] * 8)] * (width * height // 16))
    pairs, odd = divmod(width * height % 16, 2)
    data = eight + _codes([4, colour, colour] * pairs + [4, colour] * odd + [5])
    blocks = [data[at : at + 255] for at in range(0, len(data), 255)]
    control = b"!\xf9\4" + bytes([disposal << 2]) + b"\x0a\0\0\0"
    descriptor = b"," + struct.pack("<HHHHB", left, top, width, height, 0)
    chain = b"".join(bytes([len(block)]) + block for block in blocks)
    return control + descriptor + b"\2" + chain + b"\0"


def gif(screen: tuple[int, int], *frames: bytes, end: bytes = b";") -> bytes:
    """Return a GIF with a screen of this size."""
    table = b"\0\0\0\0\0\xff\xff\0\0\0\xff\0"
    return b"GIF89a" + struct.pack("<HHBBB", *screen, 0x81, 1, 0) + table + b"".join(frames) + end


_RED_SCREEN = (frame(0, 0, 100, 100, 2),)
_GIFS = {
    **{
        f"gif-screen-{width}x{height}": Tolerated(
            lambda size=(width, height): gif(size, frame(10, 20, 100, 50, 2)),
            (width, height),
            {(0, 0): CLEAR, (10, 20): RED, (109, 69): RED, (110, 70): CLEAR},
        )
        for width, height in [(640, 480), (800, 600), (1024, 768), (1600, 1200), (3000, 100)]
    },
    "gif-small-frame": Tolerated(
        lambda: gif((200, 100), frame(10, 20, 100, 50, 2)),
        (200, 100),
        {(0, 0): CLEAR, (50, 50): RED, (199, 99): CLEAR},
    ),
    "gif-large-frame": Tolerated(
        lambda: gif((100, 100), frame(0, 0, 200, 150, 2)), (200, 150), {(199, 149): RED}
    ),
    "gif-screen-1x1": Tolerated(
        lambda: gif((1, 1), frame(0, 0, 200, 150, 2)), (200, 150), {(199, 149): RED}
    ),
    "gif-screen-0x0": Tolerated(
        lambda: gif((0, 0), frame(0, 0, 200, 150, 2)), (200, 150), {(199, 149): RED}
    ),
    "gif-screen-100x0": Tolerated(
        lambda: gif((100, 0), frame(0, 0, 200, 150, 2)), (200, 150), {(199, 149): RED}
    ),
    "gif-outside": Tolerated(
        lambda: gif((100, 100), frame(50, 60, 80, 30, 2)),
        (130, 100),
        {(49, 60): CLEAR, (50, 60): RED, (129, 89): RED, (129, 90): CLEAR},
    ),
    "gif-second-frame-outside": Tolerated(
        lambda: gif((100, 100), *_RED_SCREEN, frame(0, 0, 200, 150, 3)),
        (100, 100),
        {(0, 0): RED, (99, 99): RED},
    ),
    "gif-after-comment": Tolerated(
        lambda: gif((1, 1), b"!\xfe" + b"\x04abcd" * 40_000 + b"\0", frame(0, 0, 20, 10, 2)),
        (20, 10),
        {(19, 9): RED},
    ),
    **{
        f"gif-end-{name}": Tolerated(
            lambda end=end, cut=cut: gif((100, 100), *_RED_SCREEN, end=b"")[:cut] + end,
            (100, 100),
            {(0, 0): RED, (99, 99): RED},
        )
        for name, cut, end in [
            ("none", None, b""),
            ("none-of-blocks", -1, b""),
            ("zeros", None, b"\0\0\0"),
            ("junk", None, b"hello"),
            ("half-an-extension", None, b"!\xfe\x09abc"),
        ]
    },
}


# -- PNG


def noisy() -> Image.Image:
    """Return an image whose last pixels are blue."""
    image = images.photo(300, 200)
    image.paste(BLUE[:3], (280, 190, 300, 200))
    return image


def png(
    adler: bytes | None = None, extra: bytes = b"", interlaced: bool = False, cut: int | None = None
) -> bytes:
    """Return a PNG.

    :param adler: what to write in place of the checksum of the pixels.
    :param extra: chunks after the pixels.
    :param cut: where to end the file, in bytes after the pixels; negative ones count from its end.
    """
    image = noisy()
    lines = [b"\0" + image.crop((0, y, 300, y + 1)).tobytes() for y in range(200)]
    if interlaced:
        passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)]
        passes += [(0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
        at = image.load()
        lines = [
            b"\0" + bytes(value for x in range(left, 300, right) for value in at[x, y])
            for left, top, right, down in passes
            for y in range(top, 200, down)
        ]
    data = zlib.compress(b"".join(lines))
    data = data if adler is None else data[:-4] + adler
    header = struct.pack(">IIBBBBB", 300, 200, 8, 2, 0, 0, int(interlaced))
    chunks = images.chunk(b"IHDR", header) + images.chunk(b"IDAT", data) + extra
    return (b"\x89PNG\r\n\x1a\n" + chunks + images.chunk(b"IEND", b""))[:cut]


def _png(**options) -> Tolerated:
    return Tolerated(lambda: png(**options), (300, 200), {(299, 199): BLUE})


_EXIF = b"MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"
_PNGS = {
    "png-no-end": _png(cut=-12),
    "png-half-an-end": _png(cut=-7),
    "png-no-checksum-of-chunk": _png(cut=-16),
    "png-half-a-checksum-of-chunk": _png(cut=-14),
    "png-no-checksum": _png(cut=-20),
    "png-half-a-checksum": _png(cut=-18),
    "png-wrong-checksum": _png(adler=b"\1\2\3\4"),
    "png-wrong-checksum-interlaced": _png(adler=b"\1\2\3\4", interlaced=True),
    "png-no-checksum-interlaced": _png(cut=-20, interlaced=True),
    "png-late-exif": _png(extra=images.chunk(b"eXIf", _EXIF)),
}


# -- JPEG


def jpeg(**options) -> bytes:
    image = images.corners(300, 200)
    return images.encode(image, "JPEG", quality=95, **options)


def film() -> bytes:
    """Return what a camera may append: it looks like segments, scans and ends of a JPEG."""
    markers = b"".join(bytes([0xFF, kind]) + b"\0\x0cabcdefghij" for kind in range(0xC0, 0xFF))
    return b"\0\0\1\x0a\x0e\0\0\0Image_UTC_Data1" + markers * 90 + bytes(range(256)) * 200


def exif(orientation: int) -> bytes:
    """Return the payload of a segment with EXIF data."""
    return b"Exif\0\0" + _EXIF[:18] + bytes([0, orientation]) + _EXIF[20:]


def _jpeg(make: Callable[[], bytes], size: tuple[int, int] = (300, 200)) -> Tolerated:
    width, height = size
    places = {(5, 5): "RED", (width - 6, height - 6): "BLUE"}
    if size != (300, 200):  # turned clockwise
        places = {(5, 5): "YELLOW", (width - 6, 5): "RED"}
    return Tolerated(
        make, size, {place: (*getattr(images, name), 255) for place, name in places.items()}
    )


def two_exifs(first: int, second: int) -> bytes:
    """Return a JPEG with two blocks of EXIF data."""
    data = images.with_segments(jpeg(), 0xE1, exif(second))
    return images.with_segments(data, 0xE1, exif(first))


_JPEGS = {
    "jpeg-no-end": _jpeg(lambda: jpeg()[:-2]),
    "jpeg-half-an-end": _jpeg(lambda: jpeg()[:-1]),
    "jpeg-progressive-no-end": _jpeg(lambda: jpeg(progressive=True)[:-2]),
    "jpeg-film": _jpeg(lambda: jpeg()[:-2] + film()),
    "jpeg-progressive-film": _jpeg(lambda: jpeg(progressive=True)[:-2] + film()),
    "jpeg-film-after-end": _jpeg(lambda: jpeg() + film()),
    "jpeg-upright-then-turned": _jpeg(lambda: two_exifs(1, 6)),
    "jpeg-turned-then-upright": _jpeg(lambda: two_exifs(6, 1), (200, 300)),
}


# -- AVIF


def avif(*properties: bytes, width: int = 160, height: int = 120) -> bytes:
    """Return an AVIF, red at the top left, green at the top right, and blue at the bottom left.

    :param properties: more properties of the image.
    """
    image = Image.new("RGB", (width, height), "white")
    w, h = width // 2, height // 2
    for place, colour in (((0, 0), RED), ((w, 0), GREEN), ((0, h), BLUE)):
        image.paste(colour[:3], (*place, place[0] + w, place[1] + h))
    encoded = images.encode(image, "AVIF", speed=10, quality=95, subsampling="4:4:4")
    coded = encoded[encoded.index(b"mdat") + 4 :]
    config = encoded[encoded.index(b"av1C") - 4 :][:12]
    full, size = bytes(4), struct.pack(">II", width, height)
    all_of_it = [images.box(b"ispe", full, size), config, *properties]
    links = bytes([1, 0x82, *(0x80 | at for at in range(3, len(all_of_it) + 1))])

    def meta(offset: int) -> bytes:
        place = struct.pack(">HHHII", 1, 0, 1, offset, len(coded))
        entry = images.box(b"infe", b"\2\0\0\0", b"\0\1\0\0av01\0")
        head = struct.pack(">IHB", 1, 1, len(all_of_it))
        return images.box(
            b"meta",
            full,
            images.box(b"hdlr", full, bytes(4), b"pict", bytes(13)),
            images.box(b"pitm", full, b"\0\1"),
            images.box(b"iloc", b"\0\0\0\0\x44\0\0\1", place),
            images.box(b"iinf", full, b"\0\1", entry),
            images.box(
                b"iprp",
                images.box(b"ipco", *all_of_it),
                images.box(b"ipma", full, head, links),
            ),
        )

    start = images.box(b"ftyp", b"avif", bytes(4), b"avifmif1miaf")
    return start + meta(len(start) + len(meta(0)) + 8) + images.box(b"mdat", coded)


def clap(width: int, height: int, x: int, y: int, divisor: int = 1) -> bytes:
    """Return the property that crops an image.

    :param x: by how many halves of a pixel the part is right of the centre.
    :param y: by how many it is below.
    """
    sides = (width * divisor, divisor, height * divisor, divisor)
    return images.box(b"clap", struct.pack(">IIIIiIiI", *sides, x, 2, y, 2))


TURN = images.box(b"irot", b"\1")
"""Turns an image by 90 degrees anticlockwise."""

_AVIFS = {
    "avif-cropped": Tolerated(
        lambda: avif(clap(120, 80, 0, 0)),
        (120, 80),
        {(58, 38): RED, (61, 38): GREEN, (58, 41): BLUE, (61, 41): WHITE},
    ),
    "avif-cropped-corner": Tolerated(
        lambda: avif(clap(120, 80, -40, -40)), (120, 80), {(78, 58): RED, (81, 61): WHITE}
    ),
    "avif-cropped-fraction": Tolerated(
        lambda: avif(clap(120, 80, 40, 40, 3)), (120, 80), {(38, 18): RED, (41, 21): WHITE}
    ),
    "avif-cropped-then-turned": Tolerated(
        lambda: avif(clap(120, 80, 0, 0), TURN), (80, 120), {(38, 58): GREEN, (38, 61): RED}
    ),
    "avif-turned-then-cropped": Tolerated(
        lambda: avif(TURN, clap(80, 120, 0, 0)), (80, 120), {(38, 58): GREEN, (38, 61): RED}
    ),
}

TOLERATED = {**_GIFS, **_PNGS, **_JPEGS, **_AVIFS}


# -- hostile twins


def _pixels(side: int) -> bytes:
    """Return a PNG of ``side`` x ``side`` pixels with a wrong checksum and too few lines."""
    data = zlib.compress(bytes((side + 1) * side // 2 * 3), 1)
    return images.png(side, side, data[:-4] + b"\1\2\3\4")


TWINS: dict[str, tuple[Callable[[], bytes], str]] = {
    "gif-frame-far-outside": (
        lambda: gif((10, 10), frame(60_000, 60_000, 10, 10, 2)),
        "a side may have",
    ),
    "gif-frame-makes-it-large": (
        lambda: gif((10, 10), frame(9000, 9000, 10, 10, 2)),
        "megapixels",
    ),
    "gif-bare-frames": (
        lambda: gif((1600, 1200), *[frame(1, 1, 2, 2, 2, disposal=2)] * 2900),
        "megapixels in all",
    ),
    "gif-cut-in-frame": (lambda: gif((100, 100), *_RED_SCREEN, end=b"")[:-9], "cut off"),
    "gif-cut-after-block": (
        lambda: gif((100, 100), *_RED_SCREEN, end=b"")[: 13 + 12 + 8 + 11 + 3 * 256],
        "cut off",
    ),
    "gif-cut-in-second-frame": (
        lambda: gif((100, 100), *_RED_SCREEN * 2, end=b"")[:-9],
        "cut off",
    ),
    "gif-blocks-in-extension": (
        lambda: gif((9, 9), frame(0, 0, 9, 9, 2), b"!\xfe" + b"\1a" * 2_000_000),
        "blocks",
    ),
    "png-cut-in-pixels": (lambda: png(cut=-40), "cut off"),
    "png-cut-in-pixels-interlaced": (lambda: png(cut=-40, interlaced=True), "cut off"),
    "png-half-of-the-lines": (lambda: _pixels(4000), "cut off"),
    "png-bomb-without-end": (
        lambda: images.png(200, 200, zlib.compress(bytes(150_000_000), 9)[:-9])[:-12],
        "more data than its size needs",
    ),
    "png-wrong-checksum-and-damaged": (
        lambda: png(adler=b"\1\2\3\4").replace(b"IDAT\x78\x9c", b"IDAT\x78\x9c\xff"),
        "damaged",
    ),
    "jpeg-cut-in-last-block": (lambda: jpeg()[:-12], "cut off"),
    "jpeg-progressive-cut": (lambda: jpeg(progressive=True)[:-200], "cut off"),
    "jpeg-without-last-scan": (
        lambda: (data := jpeg(progressive=True))[: data.rindex(b"\xff\xda")],
        "cut off",
    ),
    "jpeg-scans-without-end": (lambda: images.many_scans(880)[:-2], "64 scans"),
    "jpeg-segments-without-end": (
        lambda: jpeg()[:-2] + images.segment(0xFE, b"") * 25_000,
        "segments",
    ),
    "jpeg-12-bit": (
        lambda: jpeg().replace(b"\xff\xc0\0\x11\x08", b"\xff\xc1\0\x11\x0c"),
        "12 bits per channel",
    ),
    "jpeg-arithmetic": (
        lambda: jpeg().replace(b"\xff\xc0\0\x11", b"\xff\xc9\0\x11"),
        "arithmetic",
    ),
    "avif-large-but-cropped": (
        lambda: images.resized_ispe(avif(clap(12, 8, 0, 0)), 12_000, 12_000),
        "144 megapixels",
    ),
    "avif-cropped-outside": (lambda: avif(clap(120, 80, 200, 0)), "contradicts itself"),
    "avif-cropped-to-nothing": (lambda: avif(clap(0, 80, 0, 0)), "damaged"),
    "avif-cropped-by-zero": (lambda: avif(clap(120, 80, 0, 0, 0)), "damaged"),
}
