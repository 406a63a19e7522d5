"""In what format an image comes out."""

from dataclasses import dataclass

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
