"""What stands before the decoder sees a byte.

A few kilobytes can ask a decoder for gigabytes, or for minutes. All of that can be read from the
structure of the file, without decoding: that is done here, in constant memory.
"""

from typing import BinaryIO

from ...errors import ImageRefused
from .avif import check_avif
from .gif import check_gif
from .header import ImageHeader
from .jpeg import check_jpeg
from .limits import Checked, Limits
from .png import check_png
from .reader import size_of
from .webp import check_webp

__all__ = ["Checked", "Limits", "check_image"]

_CHECKS = {
    "avif": check_avif,
    "gif": check_gif,
    "jpeg": check_jpeg,
    "png": check_png,
    "webp": check_webp,
}


def check_image(file: BinaryIO, image: ImageHeader, limits: Limits | None = None) -> Checked:
    """What of the file may be decoded.

    :param file: seekable.
    :param image: what :func:`~kinto_attachment.images.formats.header.read_header` says of it.
    :raises ImageRefused: it cannot be decoded, or not without harm; the reason says why.

    ::

        checked = check_image(file, read_header(file))
        source = checked.read(file)
    """
    limits = limits or Limits()
    if not image.resizable:
        raise ImageRefused(f"An image of type {image.mimetype} cannot be resized.")
    if size_of(file) > limits.max_bytes:
        raise ImageRefused(f"The image has over {limits.max_bytes} bytes, which is too many.")
    limits.check_size(image.format, image.width, image.height)
    return _CHECKS[image.format](file, image, limits)
