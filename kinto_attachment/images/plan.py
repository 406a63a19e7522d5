"""Which part of an image is scaled to how many pixels, and in which format it is written.

All arithmetic is in integers, rounded half up from exact ratios, so that every server computes the
same plan.
"""

import re
from dataclasses import dataclass

from ..errors import SizeRefused

MAX_SIDE = 4096
"""The longest side that is made, in pixels, unless a setting says otherwise."""

_SIZE = re.compile(r"([0-9]{1,5})x([0-9]{1,5})")


@dataclass(frozen=True)
class Size:
    """The size that a client asks for, in pixels. A side of 0 follows from the other side; 0 x 0 is
    the size of the image itself."""

    width: int
    height: int

    @classmethod
    def parse(cls, text: str) -> "Size":
        """Read a size as it is written in URLs.

        :raises SizeRefused: if the text is not a size.

        >>> Size.parse("320x0")
        Size(width=320, height=0)
        """
        match = _SIZE.fullmatch(text)
        if not match:
            raise SizeRefused(
                f"{text[:20]!r} is not a size. Give a width and a height in pixels, each of at most"
                " five digits, such as 320x0."
            )
        return cls(int(match[1]), int(match[2]))


@dataclass(frozen=True)
class Trim:
    """A rectangle within an image, in pixels of the upright image.

    :param left: distance from the left edge of the image.
    :param top: distance from its top edge.
    """

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True)
class Plan:
    """The rectangle of the image that is used, and the size it is scaled to. Two requests with
    equal plans ask for the same variant.

    :param left: distance of the rectangle from the left edge, in pixels of the upright image.
    :param top: distance from the top edge, likewise.
    :param crop_width: width of the rectangle, likewise.
    :param crop_height: height of the rectangle, likewise.
    :param width: width of the variant, in its own pixels.
    :param height: height of the variant, likewise.
    """

    left: int
    top: int
    crop_width: int
    crop_height: int
    width: int
    height: int


def plan(
    image_width: int,
    image_height: int,
    size: Size,
    max_side: int = MAX_SIDE,
    trim: Trim | None = None,
) -> Plan:
    """Return how to make an image of that size. Nothing is ever enlarged, and no side becomes
    longer than ``max_side``.

    ``Wx0``, ``0xH`` and ``0x0`` keep the proportions. ``WxH`` gives exactly that size, cropped
    about the centre. Where the image has fewer pixels than the size, the result has fewer too.

    :param image_width: width of the upright image in pixels.
    :param image_height: its height in pixels.
    :param size: what the client asks for.
    :param max_side: the longest side to make, in pixels.
    :param trim: the part of the image to use; None for all of it.
    :raises SizeRefused: if the trim is empty or not inside the image.

    >>> plan(1200, 800, Size(600, 0))
    Plan(left=0, top=0, crop_width=1200, crop_height=800, width=600, height=400)
    >>> plan(1200, 800, Size(5000, 0)) == plan(1200, 800, Size(1200, 0))
    True
    >>> plan(1200, 800, Size(2000, 500))
    Plan(left=0, top=150, crop_width=1200, crop_height=500, width=1200, height=500)
    """
    box = trim or Trim(0, 0, image_width, image_height)
    if not (
        box.left >= 0
        and box.top >= 0
        and 0 < box.width <= image_width - box.left
        and 0 < box.height <= image_height - box.top
    ):
        raise SizeRefused(
            f"The part of {box.width} x {box.height} pixels at ({box.left}, {box.top}) is not"
            f" inside the image, which has {image_width} x {image_height} pixels.",
            "trim",
        )
    width = min(size.width or box.width, box.width, max_side)
    height = min(size.height or box.height, box.height, max_side)
    if size.width and size.height:
        return _cover(box, width, height)
    if width * box.height <= height * box.width:
        height = max(1, _scaled(box.height, width, box.width))
    else:
        width = max(1, _scaled(box.width, height, box.height))
    return Plan(box.left, box.top, box.width, box.height, width, height)


def _cover(box: Trim, width: int, height: int) -> Plan:
    """Return the plan that uses the largest part of the box with the proportions of the result,
    about the centre of the box."""
    crop_width, crop_height = box.width, box.height
    if box.width * height >= box.height * width:
        crop_width = _scaled(box.height, width, height)
    else:
        crop_height = _scaled(box.width, height, width)
    left = box.left + (box.width - crop_width) // 2
    top = box.top + (box.height - crop_height) // 2
    return Plan(left, top, crop_width, crop_height, width, height)


def _scaled(length: int, numerator: int, denominator: int) -> int:
    """Return ``length * numerator / denominator``, rounded half up."""
    return (2 * length * numerator + denominator) // (2 * denominator)


# At these qualities a variant looks like the original, and encoding takes a third of the time that
# the encoders need with their defaults.
_QUALITY = {"jpeg": 80, "webp": 80, "avif": 60}

FORMATS = ("jpeg", "png", "webp", "avif", "gif")
"""The formats that can be written."""

ANIMATED = ("gif", "webp")
"""Those of them in which an animation stays animated."""


@dataclass(frozen=True)
class Output:
    """A format to write, and its quality.

    :param format: one of :data:`FORMATS`.
    :param quality: 1 to 100, for JPEG, WebP and AVIF; None for the default, which is 80 for JPEG
        and WebP and 60 for AVIF.
    :raises ValueError: if there is no such format or quality.

    >>> Output("avif").q, Output("jpeg", 70).q, Output("webp").mimetype
    (60, 70, 'image/webp')
    """

    format: str
    quality: int | None = None

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ValueError(f"{self.format!r} is not one of {', '.join(FORMATS)}")
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise ValueError(f"{self.quality} is not a quality from 1 to 100")

    @property
    def q(self) -> int:
        """The quality, with the default filled in; 0 for formats without one."""
        return _QUALITY.get(self.format, 0) and (self.quality or _QUALITY[self.format])

    @property
    def mimetype(self) -> str:
        """The media type of the format."""
        return f"image/{self.format}"

    @property
    def animates(self) -> bool:
        """Whether an animation stays animated in this format."""
        return self.format in ANIMATED
