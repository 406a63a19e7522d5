"""Images made by code: ordinary ones, and hostile ones that would harm an unguarded decoder."""

import math
import re
import struct
import tempfile
import time
import zlib
from collections.abc import Callable
from functools import cache
from io import BytesIO

import psutil
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageStat

from kinto_attachment.images.formats.header import ImageHeader
from kinto_attachment.images.plan import Output, Plan
from kinto_attachment.images.worker.pool import WorkerPool

RED, GREEN, BLUE, YELLOW = (230, 20, 20), (20, 200, 20), (20, 20, 230), (230, 220, 20)


class BytesResizer(WorkerPool):
    """A worker pool that takes and returns bytes instead of files."""

    @property
    def pid(self) -> int:
        """The process id of the first worker."""
        return self._pool()._slots[0].process.pid

    def make(self, data: bytes, header: ImageHeader, plan: Plan, output: Output) -> bytes:
        with tempfile.TemporaryFile() as file, tempfile.TemporaryFile() as into:
            file.write(data)
            self.resize(file, header, plan, output, into)
            return into.read()


# -- ordinary images


def photo(width: int, height: int) -> Image.Image:
    """Return an image with soft and hard edges in all colours, as photos have."""
    # In photos, colours vary less than brightness.
    scales = [(8, 70), (64, 40), (64, 40)]
    bands = [
        Image.effect_noise((width // scale + 1, height // scale + 1), sigma).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        for scale, sigma in scales
    ]
    image = Image.merge("YCbCr", bands).convert("RGB")
    draw = ImageDraw.Draw(image)
    for step in range(12):
        x, y = width * step // 12, height * step // 12
        colour = (20 * step, 255 - 20 * step, 40 + 10 * step)
        draw.ellipse((x, height - y - height // 6, x + width // 9, height - y), fill=colour)
        draw.line((0, y, width, height - y), fill=colour, width=max(1, width // 200))
    return image.filter(ImageFilter.GaussianBlur(0.8))


def corners(width: int, height: int) -> Image.Image:
    """Return a white image with a red, a green, a blue and a yellow corner, clockwise from the top
    left. Each corner takes a third of each side."""
    image = Image.new("RGB", (width, height), "white")
    w, h = width // 3, height // 3
    image.paste(RED, (0, 0, w, h))
    image.paste(GREEN, (width - w, 0, width, h))
    image.paste(BLUE, (width - w, height - h, width, height))
    image.paste(YELLOW, (0, height - h, w, height))
    return image


def encode(image: Image.Image, format: str, **options) -> bytes:
    file = BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def decode(data: bytes) -> Image.Image:
    image = Image.open(BytesIO(data))
    image.load()
    return image


def size_of(data: bytes) -> tuple[int, int]:
    return Image.open(BytesIO(data)).size


def on_grey(image: Image.Image) -> Image.Image:
    """Return the image with grey behind its transparent parts."""
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "grey"), image).convert("RGB")


def on_white(image: Image.Image) -> Image.Image:
    """Return the image with white behind its transparent parts."""
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def psnr(one: Image.Image, other: Image.Image) -> float:
    """Return the peak signal-to-noise ratio of two images in decibels. Above 30, the difference
    can hardly be seen."""
    assert one.size == other.size
    difference = ImageStat.Stat(ImageChops.difference(on_grey(one), on_grey(other)))
    error = sum(difference.sum2) / sum(difference.count)
    return math.inf if not error else 10 * math.log10(255**2 / error)


def turned(image: Image.Image, format: str, orientation: int, **options) -> bytes:
    """Encode an image, with this orientation in its EXIF data."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(image, format, exif=exif, **options)


def animation(format: str, width: int, height: int, frames: int, duration: int = 70) -> bytes:
    """Return an animation from blue to red that is shown several times.

    :param duration: milliseconds per frame.
    """
    images = [
        Image.new("RGB", (width, height), (255 * at // frames, 90, 255 - 255 * at // frames))
        for at in range(frames)
    ]
    options = {"save_all": True, "append_images": images[1:], "duration": duration, "loop": 3}
    return encode(images[0], format, **options)


@cache
def usual() -> dict[str, bytes]:
    """Return ordinary images of all formats, by name."""
    small, with_alpha = photo(300, 200), photo(300, 200).convert("RGBA")
    with_alpha.putalpha(Image.linear_gradient("L").resize((300, 200)))
    return {
        "jpeg": encode(small, "JPEG"),
        "jpeg-progressive": encode(small, "JPEG", progressive=True),
        "jpeg-grey": encode(small.convert("L"), "JPEG"),
        "jpeg-cmyk": encode(small.convert("CMYK"), "JPEG"),
        "jpeg-turned": turned(small, "JPEG", 6),
        "jpeg-trailing": encode(small, "JPEG") + b"a film" * 1000,
        "png": encode(small, "PNG"),
        "png-alpha": encode(with_alpha, "PNG"),
        "png-palette": encode(small.quantize(64), "PNG"),
        "png-grey16": encode(Image.new("I;16", (300, 200), 40000), "PNG"),
        "png-1bit": encode(small.convert("1"), "PNG"),
        "png-text": with_chunk(encode(small, "PNG"), b"tEXt", b"Comment\0hello"),
        "apng": animation("PNG", 300, 200, 4),
        "webp": encode(small, "WEBP"),
        "webp-lossless": encode(with_alpha, "WEBP", lossless=True),
        "webp-animated": animation("WEBP", 300, 200, 4),
        "gif": encode(small, "GIF"),
        "gif-animated": animation("GIF", 300, 200, 4),
        "avif": encode(small, "AVIF", speed=10),
        "avif-alpha": encode(with_alpha, "AVIF", speed=10),
    }


# -- parts of files


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunk(png: bytes, kind: bytes, data: bytes, times: int = 1) -> bytes:
    """Insert chunks into a PNG, after its header."""
    return png[:33] + chunk(kind, data) * times + png[33:]


def png(width: int, height: int, data: bytes, depth: int = 8, colour: int = 2) -> bytes:
    """Return a PNG with this size in its header, and with this compressed data."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


# The first pixel and the distances of the pixels in each of the passes of an interlaced PNG.
_ADAM7 = [
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2)),
    (0, 1, 1, 2),
]


def png_of(image: Image.Image, depth: int = 8, interlaced: bool = False) -> bytes:
    """Encode an image of mode L, LA, RGB or RGBA with any number of bits per channel."""
    bits = "".join if depth < 8 else None
    channels, pixels = len(image.getbands()), image.tobytes()
    data = b""
    for left, top, x, y in _ADAM7 if interlaced else [(0, 0, 1, 1)]:
        for line in range(top, image.height, y):
            row = [
                pixels[channels * (line * image.width + column) + channel]
                for column in range(left, image.width, x)
                for channel in range(channels)
            ]
            if not row:
                continue
            if bits:
                packed = bits(f"{value >> (8 - depth):0{depth}b}" for value in row)
                packed += "0" * (-len(packed) % 8)
                row = int(packed, 2).to_bytes(len(packed) // 8, "big")
            data += b"\0" + (bytes(row) if depth <= 8 else b"".join(bytes([v, v]) for v in row))
    header = struct.pack(
        ">IIBBBBB",
        *(*image.size, depth, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, interlaced),
    )
    chunks = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def segment(marker: int, data: bytes) -> bytes:
    """Return a segment of a JPEG."""
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def with_segments(jpeg: bytes, marker: int, data: bytes, times: int = 1) -> bytes:
    """Insert segments at the start of a JPEG."""
    return jpeg[:2] + segment(marker, data) * times + jpeg[2:]


def riff(chunks: bytes) -> bytes:
    """Return a WebP file with these chunks."""
    return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WEBP" + chunks


def vp8x(width: int, height: int, flags: int = 0) -> bytes:
    """Return the chunk of a WebP that holds the size of its canvas."""
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"VP8X" + struct.pack("<II", 10, flags) + size


def gif(width: int, height: int, frames: int, frame: tuple[int, int] | None = None) -> bytes:
    """Return an animation whose frames have data for two pixels only.

    :param frame: the size that each frame claims; by default that of the animation.
    """
    descriptor = b"," + struct.pack("<HHHHB", 0, 0, *(frame or (width, height)), 0)
    block = b"!\xf9\4\0\1\0\0\0" + descriptor + b"\2\2\x4c\1\0"
    table = b"\0\0\0\xff\xff\xff"
    header = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0)
    return header + table + block * frames + b";"


def resized_sof(jpeg: bytes, width: int, height: int) -> bytes:
    """Change the size in the header of a JPEG, but not its data."""
    at = re.search(rb"\xff[\xc0-\xc2]\0\x11", jpeg).start() + 5
    return jpeg[:at] + struct.pack(">HH", height, width) + jpeg[at + 4 :]


def resized_ispe(avif: bytes, width: int, height: int) -> bytes:
    """Change the size in the container of an AVIF, but not in its image."""
    parts = re.split(rb"(ispe\0\0\0\0)........", avif, flags=re.DOTALL)
    return b"".join(
        part + struct.pack(">II", width, height) if part == b"ispe\0\0\0\0" else part
        for part in parts
    )


def many_scans(times: int) -> bytes:
    """Return a progressive JPEG whose last scan is repeated this many times."""
    jpeg = encode(Image.linear_gradient("L"), "JPEG", progressive=True, quality=30)
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:-2] + jpeg[last:-2] * times + b"\xff\xd9"


def with_hidden(jpeg: bytes, data: bytes) -> bytes:
    """Return a JPEG that is followed by other data, and ends as if it were the data of its scan."""
    return jpeg + data + bytes(100_000) + b"\xff\xd9"


def box(kind: bytes, *parts: bytes) -> bytes:
    """Return a box of an AVIF."""
    data = b"".join(parts)
    return struct.pack(">I", len(data) + 8) + kind + data


def avif_grid(width: int, height: int, claimed: tuple[int, int], rows: int, columns: int) -> bytes:
    """Return an AVIF that is a grid. All tiles are the same image of 64 x 64 pixels.

    :param width: the width in the properties of the grid, in pixels; likewise ``height``.
    :param claimed: the width and height in the grid itself.
    """
    tile = encode(Image.new("RGB", (64, 64), "red"), "AVIF", speed=10)
    coded = tile[tile.index(b"mdat") + 4 :]
    config = tile[tile.index(b"av1C") - 4 :][:12]
    grid = struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, *claimed)
    full = bytes(4)
    properties = box(
        b"ipco",
        box(b"ispe", full, struct.pack(">II", width, height)),
        box(b"ispe", full, struct.pack(">II", 64, 64)),
        config,
        box(b"pixi", full, b"\3\10\10\10"),
    )
    links = box(b"ipma", full, struct.pack(">IHBBBHBBBB", 2, 1, 2, 1, 4, 2, 3, 2, 0x83, 4))
    used = struct.pack(f">HH{rows * columns}H", 1, rows * columns, *[2] * (rows * columns))

    def meta(offset: int) -> bytes:
        return box(
            b"meta",
            full,
            box(b"hdlr", full, bytes(4), b"pict", bytes(13)),
            box(b"pitm", full, b"\0\1"),
            box(
                b"iloc",
                b"\1\0\0\0\x44\0\0\2",
                struct.pack(">HHHHII", 1, 1, 0, 1, 0, len(grid)),
                struct.pack(">HHHHII", 2, 0, 0, 1, offset, len(coded)),
            ),
            box(
                b"iinf",
                full,
                b"\0\2",
                box(b"infe", b"\2\0\0\0", b"\0\1\0\0grid\0"),
                box(b"infe", b"\2\0\0\0", b"\0\2\0\0av01\0"),
            ),
            box(b"iref", full, box(b"dimg", used)),
            box(b"iprp", properties, links),
            box(b"idat", grid),
        )

    start = box(b"ftyp", b"avif", bytes(4), b"avifmif1miaf")
    offset = len(start) + len(meta(0)) + 8
    return start + meta(offset) + box(b"mdat", coded)


def noise(magic: bytes, size: int = 5000) -> bytes:
    """Return some first bytes, followed by random ones."""
    return magic + Image.effect_noise((size, 1), 90).tobytes()


# -- hostile images


def _cut(data: bytes, share: float = 0.5) -> bytes:
    """Return the first part of a file."""
    return data[: int(len(data) * share)]


@cache
def _of_photo(format: str, **options) -> bytes:
    return encode(photo(300, 200), format, **options)


# By name: a function that makes the image, and words from the reason for refusing it.
HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "png-ztxt": (
        lambda: with_chunk(
            _of_photo("PNG"), b"zTXt", b"Comment\0\0" + zlib.compress(bytes(7_000_000)), 2000
        ),
        "compressed text",
    ),
    "png-itxt": (
        lambda: with_chunk(
            _of_photo("PNG"), b"iTXt", b"C\0\1\0\0\0" + zlib.compress(bytes(7_000_000)), 2000
        ),
        "compressed text",
    ),
    "png-huge-1bit": (
        lambda: png(100_000, 100_000, zlib.compress(bytes(10**6)), 1, 0),
        "a side may have 16384",
    ),
    "png-pixels": (lambda: png(16_000, 16_000, zlib.compress(bytes(10**6))), "megapixels"),
    "png-too-little": (lambda: png(7000, 7000, zlib.compress(bytes(1000))), "too little data"),
    "png-short-idat": (lambda: png(300, 200, zlib.compress(noise(b"", 9000))), "damaged"),
    "png-bomb": (
        lambda: png(100, 100, zlib.compress(bytes(300_000_000), 1)),
        "more data than its size needs",
    ),
    "png-many-chunks": (
        lambda: with_chunk(_of_photo("PNG"), b"tIME", bytes(7), 100_000),
        "chunks",
    ),
    "png-profile": (
        lambda: with_chunk(
            _of_photo("PNG"), b"iCCP", b"sRGB\0\0" + zlib.compress(bytes(200_000_000), 1)
        ),
        "colour profile",
    ),
    "png-cut": (lambda: _cut(_of_photo("PNG")), "cut off"),
    "png-noise-in-idat": (lambda: png(300, 200, noise(b"")), "damaged"),
    "png-no-idat": (lambda: png(300, 200, b"").replace(chunk(b"IDAT", b""), b""), "too little"),
    "apng-frames": (
        lambda: with_chunk(_of_photo("PNG"), b"acTL", struct.pack(">II", 50_000, 0)),
        "frames",
    ),
    "jpeg-880-scans": (lambda: many_scans(880), "64 scans"),
    "jpeg-segments": (
        lambda: _of_photo("JPEG")[:-2] + segment(0xFE, b"") * 25_000 + b"\xff\xd9",
        "segments",
    ),
    "jpeg-cut": (lambda: _cut(_of_photo("JPEG")), "cut off"),
    "jpeg-cut-with-an-end": (lambda: _cut(_of_photo("JPEG")) + b"\xff\xd9", "damaged"),
    "jpeg-larger-sof": (lambda: resized_sof(_of_photo("JPEG"), 9000, 5000), "too little data"),
    "jpeg-wider-sof": (lambda: resized_sof(_of_photo("JPEG"), 400, 300), "damaged"),
    "jpeg-two-sizes": (
        lambda: with_segments(
            _of_photo("JPEG"), 0xC0, b"\10\0\x20\0\x20\3\1\x22\0\2\x11\1\3\x11\1"
        ),
        "contradicts itself",
    ),
    "jpeg-lossless": (
        lambda: re.sub(rb"\xff\xc0\0\x11", b"\xff\xc3\0\x11", _of_photo("JPEG")),
        "of a kind",
    ),
    "jpeg-profile": (
        lambda: with_segments(_of_photo("JPEG"), 0xE2, b"ICC_PROFILE\0\1\1" + bytes(65000), 200),
        "colour profile",
    ),
    "gif-20000-frames": (lambda: gif(2000, 2000, 20_000), "megapixels in all"),
    "gif-many-frames": (lambda: gif(10, 10, 20_000), "frames"),
    "gif-large-frame": (lambda: gif(10, 10, 2, (16_000, 16_000)), "megapixels"),
    "gif-side": (lambda: gif(65535, 65535, 1), "a side may have"),
    "gif-cut": (lambda: _cut(_of_photo("GIF")), "cut off"),
    "gif-no-frame": (lambda: gif(300, 200, 0), "no frame"),
    "gif-blocks": (
        lambda: gif(300, 200, 1)[:-1] + b"!\xfe" + b"\1a" * 2_000_000 + b"\0;",
        "blocks",
    ),
    "webp-cut": (lambda: _cut(_of_photo("WEBP")), "cut off"),
    "webp-cut-inside": (
        lambda: riff(b"VP8 " + struct.pack("<I", 2000) + _of_photo("WEBP")[20:2020]),
        "damaged",
    ),
    "webp-larger-canvas": (
        lambda: riff(vp8x(6000, 6000) + _of_photo("WEBP")[12:]),
        "contradicts itself",
    ),
    "webp-canvas-side": (
        lambda: riff(vp8x(1 << 24, 100) + _of_photo("WEBP")[12:]),
        "a side may have",
    ),
    "webp-frames": (
        lambda: riff(vp8x(16, 16, 2) + (b"ANMF" + struct.pack("<I", 16) + bytes(16)) * 5000),
        "frames",
    ),
    "webp-frame-outside": (
        lambda: riff(vp8x(16, 16, 2) + b"ANMF" + struct.pack("<I", 16) + b"\xff" * 12 + bytes(4)),
        "contradicts itself",
    ),
    "webp-chunks": (
        lambda: riff(vp8x(300, 200) + b"JUNK\0\0\0\0" * 50_000 + _of_photo("WEBP")[12:]),
        "chunks",
    ),
    "avif-12000": (
        lambda: avif_grid(12_000, 12_000, (12_000, 12_000), 188, 188),
        "144 megapixels, but only 25 are allowed",
    ),
    "avif-lying-container": (
        lambda: resized_ispe(encode(Image.new("RGB", (3000, 2000)), "AVIF", speed=10), 300, 200),
        "contradicts itself",
    ),
    "avif-lying-grid": (
        lambda: avif_grid(128, 128, (12_000, 12_000), 188, 188),
        "contradicts itself",
    ),
    "avif-many-tiles": (lambda: avif_grid(128, 128, (128, 128), 200, 200), "tiles"),
    "avif-few-tiles": (lambda: avif_grid(512, 512, (512, 512), 2, 2), "damaged"),
    "avif-cut": (lambda: _cut(_of_photo("AVIF", speed=10)), "damaged"),
}

# By name: a function that makes bytes that no image starts with, or an image without a size.
NO_IMAGE: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "text": lambda: b"a,b\n1,2\n",
    "html": lambda: b"<!doctype html><html><svg xmlns='http://www.w3.org/2000/svg'></svg></html>",
    "html-svg": lambda: b"<svg><script>alert(1)</script></svg>",
    "svg-entities": lambda: (
        b"<!DOCTYPE svg [<!ENTITY a0 'xxxxxxxxxx'>"
        + b"".join(b"<!ENTITY a%d '%s'>" % (at, b"&a%d;" % (at - 1) * 10) for at in range(1, 12))
        + b"]><svg xmlns='http://www.w3.org/2000/svg' width='&a11;'/>"
    ),
    "png-zero": lambda: png(0, 100, zlib.compress(b"")),
    "jpeg-zero": lambda: resized_sof(_of_photo("JPEG"), 0, 0),
    "gif-zero": lambda: gif(0, 10, 1),
    "webp-zero": lambda: re.sub(
        rb"(\x9d\x01\x2a)....", rb"\1\0\0\0\0", _of_photo("WEBP"), flags=re.DOTALL
    ),
    "avif-zero": lambda: resized_ispe(_of_photo("AVIF", speed=10), 0, 0),
    "png-magic": lambda: noise(b"\x89PNG\r\n\x1a\n"),
    "gif-header-only": lambda: b"GIF89a",
    "jpeg-magic": lambda: b"\xff\xd8\xff\xe0" + bytes(5000),
    "webp-magic": lambda: noise(b"RIFF\0\1\0\0WEBP"),
    "avif-magic": lambda: noise(b"\0\0\0\x20ftypavif"),
    "bmp-magic": lambda: b"BM",
}


def cpu_seconds() -> float:
    """Return the seconds of CPU that this process and its image workers have taken. Unlike the
    clock, they do not depend on what else the machine does."""
    workers = [
        each.cpu_times()
        for each in psutil.Process().children(recursive=True)
        if "images.worker" in " ".join(each.cmdline())
    ]
    return time.process_time() + sum(each.user + each.system for each in workers)
