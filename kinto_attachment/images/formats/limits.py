"""How much an image may ask of whoever decodes it, and what of it the decoder gets."""

from dataclasses import dataclass
from typing import BinaryIO

from ...errors import ImageRefused
from .header import ImageHeader
from .reader import read_at

MEGA = 1_000_000


@dataclass(frozen=True)
class Limits:
    """
    :param max_bytes: of the file.
    :param pixels: of one frame; ``avif_pixels`` and ``gif_pixels`` of those.
    :param side: pixels of the longer side.
    :param scans: of a JPEG. Usual progressive ones have 10.
    :param frames: that are animated; of more only the first is used, of ten times more none.
    :param animation: pixels of all frames; likewise.
    :param profile: bytes of a colour profile. Those of cameras have a few hundred, of printers
        some 2 MB.
    :param text: bytes of compressed text in a PNG, which may inflate to a thousand times more.
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
        """Pixels a frame may have."""
        return {"avif": self.avif_pixels, "gif": self.gif_pixels}.get(format, self.pixels)

    def check_size(self, format: str, width: int, height: int) -> None:
        """
        :raises ImageRefused: that is more than a frame may have.
        """
        if max(width, height) > self.side:
            raise ImageRefused(
                f"The image is {width} x {height} pixels, a side may have {self.side}."
            )
        allowed = self.of_frame(format)
        if width * height > allowed:
            megapixels = -(-width * height // MEGA)
            raise ImageRefused(
                f"The image has {megapixels} megapixels, {allowed / MEGA:g} are allowed."
            )

    def animated(self, frames: int, image: ImageHeader) -> int:
        """How many frames are used: all, or the first.

        :raises ImageRefused: they are beyond everything.
        """
        pixels = frames * image.width * image.height
        self.check_animation(frames, pixels)
        return frames if frames <= self.frames and pixels <= self.animation else 1

    def check_animation(self, frames: int, pixels: int) -> None:
        """
        :raises ImageRefused: there are more than ten times as many as are animated.
        """
        if frames > 10 * self.frames:
            raise ImageRefused(
                f"The animation has more than {10 * self.frames} frames, which is too many."
            )
        if frames > 1 and pixels > 10 * self.animation:
            raise ImageRefused(
                f"The frames of the animation have more than {10 * self.animation / MEGA:g}"
                " megapixels in all, which is too many."
            )


@dataclass(frozen=True)
class Checked:
    """What the decoder gets.

    :param frames: of an animation, how many; 1 of anything else.
    :param parts: from where to where in the file; all of it if there are none.
    """

    frames: int = 1
    parts: tuple[tuple[int, int], ...] = ()

    def read(self, file: BinaryIO) -> bytes:
        """The bytes of the parts, without what was left out."""
        if not self.parts:
            return read_at(file, 0, -1)
        pieces = [read_at(file, start, end - start) for start, end in self.parts]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def truncated(name: str) -> ImageRefused:
    return ImageRefused(f"The {name} is cut off: it ends before its end.")


def contradiction(name: str) -> ImageRefused:
    return ImageRefused(f"The {name} contradicts itself about its size.")
