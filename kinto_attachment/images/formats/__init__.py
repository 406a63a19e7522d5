"""Checks that an image must pass before it reaches the decoder.

A file of a few kilobytes can make a decoder use gigabytes of memory, or minutes of time. The
structure of the file tells how much the decoder would need, so the checks read the structure and
decode nothing. They need constant memory.
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
    """Check an image, and return which parts of its file the decoder gets.

    :param file: a seekable file. Its position is undefined afterwards.
    :param image: what :func:`~kinto_attachment.images.formats.header.read_header` returned for it.
    :param limits: what the image may demand of the decoder; None for the defaults.
    :raises ImageRefused: if the image cannot be resized, is broken, or exceeds the limits. The
        reason is a sentence for the client.

    ::

        checked = check_image(file, read_header(file))
        source = checked.read(file)
    """
    limits = limits or Limits()
    if not image.resizable:
        raise ImageRefused(
            f"An image of type {image.mimetype} cannot be resized. Upload a JPEG, PNG, WebP, GIF or"
            " AVIF."
        )
    if size_of(file) > limits.max_bytes:
        raise ImageRefused(
            f"The file of the image has over {limits.max_bytes} bytes, which is too many. Upload a"
            " smaller one."
        )
    limits.check_size(image.format, image.width, image.height)
    return _CHECKS[image.format](file, image, limits)
