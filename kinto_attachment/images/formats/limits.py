"""What an image may demand of the decoder, and which parts of its file the decoder gets."""

from dataclasses import dataclass
from typing import BinaryIO

from ...errors import ImageRefused
from .header import ImageHeader
from .reader import read_at

MEGA = 1_000_000


@dataclass(frozen=True)
class Limits:
    """The most that an image may demand of the decoder.

    :param max_bytes: bytes of the file.
    :param pixels: pixels of one frame.
    :param avif_pixels: pixels of one frame of an AVIF.
    :param gif_pixels: pixels of one frame of a GIF.
    :param side: pixels of the longer side.
    :param scans: scans of a JPEG. A usual progressive JPEG has 10.
    :param frames: frames of an animation. Of a longer animation only the first frame is used; an
        animation that is over ten times longer is refused.
    :param animation: pixels of all frames together; likewise.
    :param profile: bytes of a colour profile. The profile of a camera has a few hundred bytes,
        that of a printer about 2 MB.
    :param text: bytes of compressed text in a PNG. They may inflate to a thousand times more.
    """

    max_bytes: int = 100 * 1024 * 1024
    pixels: int = 50 * MEGA
    avif_pixels: int = 25 * MEGA
    gif_pixels: int = 20 * MEGA
    side: int = 16384
    scans: int = 64
    frames: int = 300
    animation: int = 100 * MEGA
    profile: int = 4 * 1024 * 1024
    text: int = 1024 * 1024

    def of_frame(self, format: str) -> int:
        """Return how many pixels a frame in that format may have."""
        return {"avif": self.avif_pixels, "gif": self.gif_pixels}.get(format, self.pixels)

    def check_size(self, format: str, width: int, height: int) -> None:
        """Check the size of a frame in pixels.

        :raises ImageRefused: if a side is too long, or the frame has too many pixels.
        """
        if max(width, height) > self.side:
            raise ImageRefused(
                f"The image is {width} x {height} pixels, but a side may have {self.side} at most."
                " Upload a smaller image."
            )
        allowed = self.of_frame(format)
        if width * height > allowed:
            megapixels = -(-width * height // MEGA)
            raise ImageRefused(
                f"The image has {megapixels} megapixels, but only {allowed / MEGA:g} are allowed."
                " Upload a smaller image."
            )

    def animated(self, frames: int, image: ImageHeader) -> int:
        """Return how many frames of an animation are used: all of them, or 1.

        :param frames: the number of frames of the image, or of those found so far.
        :raises ImageRefused: as :meth:`check_animation`.
        """
        pixels = frames * image.width * image.height
        self.check_animation(frames, pixels)
        return frames if frames <= self.frames and pixels <= self.animation else 1

    def check_animation(self, frames: int, pixels: int) -> None:
        """Check that an animation is not so large that even its first frame is refused.

        :param frames: the number of frames, or of those found so far.
        :param pixels: pixels of all frames together.
        :raises ImageRefused: if either is over ten times the limit.
        """
        if frames > 10 * self.frames:
            raise ImageRefused(
                f"The animation has more than {10 * self.frames} frames, which is too many. Upload"
                " a shorter one."
            )
        if frames > 1 and pixels > 10 * self.animation:
            raise ImageRefused(
                f"The frames of the animation have more than {10 * self.animation / MEGA:g}"
                " megapixels in all, which is too many. Upload a shorter or smaller one."
            )


@dataclass(frozen=True)
class Checked:
    """What the decoder gets of an image that passed the checks.

    :param frames: how many frames are used; 1 unless the image is animated.
    :param parts: what the decoder gets, in order: the ``(start, end)`` offsets of parts of the
        file, and bytes that the file lacks. An empty tuple means the whole file.
    :param skipped: how many frames to skip before the first one that is used.
    """

    frames: int = 1
    parts: tuple[tuple[int, int] | bytes, ...] = ()
    skipped: int = 0

    def read(self, file: BinaryIO) -> bytes:
        """Return the bytes that the decoder gets: the parts, one after the other."""
        if not self.parts:
            return read_at(file, 0, -1)
        pieces = [
            part if isinstance(part, bytes) else read_at(file, part[0], part[1] - part[0])
            for part in self.parts
        ]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def truncated(name: str) -> ImageRefused:
    """Return the error for a file that ends too early.

    :param name: the format, as it is written in sentences.
    """
    return ImageRefused(
        f"The {name} is cut off: the file ends before the image does. Upload the complete file."
    )


def damaged(name: str) -> ImageRefused:
    """Return the error for a file that lacks some of the pixels.

    :param name: the format, as it is written in sentences.
    """
    return ImageRefused(
        f"The {name} is cut off or damaged: a part of the picture is missing. Upload the complete"
        " file."
    )


def contradiction(name: str) -> ImageRefused:
    """Return the error for a file that states different sizes, or sizes that do not fit together.

    :param name: the format, as it is written in sentences.
    """
    return ImageRefused(
        f"The {name} contradicts itself about its size. Save it again with an image editor."
    )
