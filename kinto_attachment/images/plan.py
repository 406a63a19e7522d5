"""What size comes out: which part of an image is scaled to how many pixels.

All in integers, rounded half up from exact ratios, so that every server computes the same.
"""

import re
from dataclasses import dataclass

from ..errors import SizeRefused

MAX_SIDE = 4096
"""Pixels of a side that is made, unless a setting says otherwise."""

_SIZE = re.compile(r"([0-9]{1,5})x([0-9]{1,5})")


@dataclass(frozen=True)
class Size:
    """What was asked for, in pixels. 0 x 0 is the image's own size, a single 0 follows from the
    other side."""

    width: int
    height: int

    @classmethod
    def parse(cls, text: str) -> "Size":
        """
        :raises SizeRefused: it is no size.

        >>> Size.parse("320x0")
        Size(width=320, height=0)
        """
        match = _SIZE.fullmatch(text)
        if not match:
            raise SizeRefused("A size is a width and a height in pixels, such as 320x0.")
        return cls(int(match[1]), int(match[2]))


@dataclass(frozen=True)
class Trim:
    """A part of an image, in pixels of it as it is shown."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True)
class Plan:
    """The part of the image that is used, and the size it gets. Two requests with equal plans are
    for the same variant.

    All in pixels, and all but the size in those of the image as it is shown.
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
    """How to make that size. Nothing is ever enlarged, no side gets over ``max_side``.

    ``Wx0``, ``0xH`` and ``0x0`` keep the proportions. ``WxH`` gives exactly that, or less where
    the image has less, cropped about its centre.

    :raises SizeRefused: the trim is not inside the image.

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
        raise SizeRefused("That part is not inside the image.", "trim")
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
    """The largest part of the box with these proportions, about its centre."""
    crop_width, crop_height = box.width, box.height
    if box.width * height >= box.height * width:
        crop_width = _scaled(box.height, width, height)
    else:
        crop_height = _scaled(box.width, height, width)
    left = box.left + (box.width - crop_width) // 2
    top = box.top + (box.height - crop_height) // 2
    return Plan(left, top, crop_width, crop_height, width, height)


def _scaled(length: int, numerator: int, denominator: int) -> int:
    """``length * numerator / denominator``, rounded half up."""
    return (2 * length * numerator + denominator) // (2 * denominator)


# What the eye does not tell from the original, at a third of the time of the encoders' defaults.
_QUALITY = {"jpeg": 80, "webp": 80, "avif": 60}

FORMATS = ("jpeg", "png", "webp", "avif", "gif")
"""What can be written."""


@dataclass(frozen=True)
class Output:
    """
    :param format: one of :data:`FORMATS`.
    :param quality: 1 to 100, for JPEG, WebP and AVIF; None is 80, AVIF 60.
    :raises ValueError: there is no such format or quality.

    >>> Output("avif").q, Output("jpeg", 70).q, Output("webp").mimetype
    (60, 70, 'image/webp')
    """

    format: str
    quality: int | None = None

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ValueError(f"{self.format!r} is none of {', '.join(FORMATS)}")
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise ValueError(f"{self.quality} is no quality from 1 to 100")

    @property
    def q(self) -> int:
        """The quality; 0 where there is none to choose."""
        return _QUALITY.get(self.format, 0) and (self.quality or _QUALITY[self.format])

    @property
    def mimetype(self) -> str:
        return f"image/{self.format}"

    @property
    def animates(self) -> bool:
        """Whether an animation stays one."""
        return self.format in ("gif", "webp")
