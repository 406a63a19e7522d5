"""Checks of a JPEG before it is decoded (ITU-T T.81, annex B)."""

import re
from typing import BinaryIO

from ...errors import ImageRefused
from .header import ImageHeader
from .limits import Checked, Limits, contradiction, truncated
from .reader import read_at

MAX_SEGMENTS = 4096
"""Segments in a file. Usual files have a few dozen, and a few more for each scan."""

SCANS = 20
"""Scans that the largest allowed image may have. A smaller image may have more, because the decoder
goes over all pixels once for each scan."""

_CHUNK = 64 * 1024
# The markers that end coded data. Within coded data, 0xff comes only before a zero byte or as part
# of a restart marker.
_MARKER = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")
# Start of frame: baseline, extended, progressive.
_SOF = {0xC0, 0xC1, 0xC2}
# Start of frame of lossless, hierarchical and arithmetic coding.
_UNUSUAL = {0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_EOI, _SOS, _APP2 = 0xD9, 0xDA, 0xE2


def check_jpeg(file: BinaryIO, image: ImageHeader, limits: Limits) -> Checked:
    """Check a JPEG; see :func:`kinto_attachment.images.formats.check_image`.

    :raises ImageRefused: if the file is cut off, has too many scans or segments, too little data or
        too large a profile, states other sizes than its header, or is of an unusual kind.
    """
    size, scans, coded, profile, offset = None, 0, 0, 0, 2
    allowed = min(limits.scans, SCANS * limits.pixels // (image.width * image.height))
    for _ in range(MAX_SEGMENTS):
        found = _next_marker(file, offset)
        if found is None:
            raise truncated("JPEG")
        start, marker = found
        if scans:
            coded += start - offset
        offset = start + 2
        if marker == _EOI:
            break
        if marker == 0xD8:
            continue
        length = int.from_bytes(read_at(file, offset, 2), "big")
        if marker in _UNUSUAL:
            raise ImageRefused(
                "The JPEG is of a kind that browsers do not show: lossless, hierarchical or"
                " arithmetic. Save it as a baseline or progressive JPEG."
            )
        if marker in _SOF:
            if size:
                raise contradiction("JPEG")
            payload = read_at(file, offset + 3, 4)
            size = int.from_bytes(payload[2:], "big"), int.from_bytes(payload[:2], "big")
        elif marker == _SOS:
            scans += 1
        elif marker == _APP2:
            profile += length
        if scans > allowed:
            raise ImageRefused(
                f"The JPEG has more than {allowed} scans, which is too many. Save it as a baseline"
                " JPEG."
            )
        offset += max(length, 2)
    else:
        raise ImageRefused(
            f"The JPEG has more than {MAX_SEGMENTS} segments, which is too many. Save it again with"
            " an image editor."
        )
    if size != image.stored:
        raise contradiction("JPEG")
    if profile > limits.profile and _has_profile(file):
        raise ImageRefused(
            "The colour profile of the JPEG, together with other segments of its type, has over"
            f" {limits.profile} bytes, which is too many. Save it without metadata."
        )
    _check_coded(image, coded)
    return Checked(parts=((0, offset),))


def _check_coded(image: ImageHeader, coded: int) -> None:
    """Check that there is a bit at least for each block of 8 x 8 pixels (T.81, F.1.2 and G.1.2).

    :param coded: bytes of coded data.
    """
    blocks = -(-image.width // 8) * -(-image.height // 8)
    if 8 * coded < blocks:
        raise ImageRefused(
            "The JPEG has too little data for its size. Save it again with an image editor."
        )


def _has_profile(file: BinaryIO) -> bool:
    """Return whether a colour profile begins in the first MiB. Its segments share their type with
    other data."""
    return b"ICC_PROFILE\0" in read_at(file, 0, 1024 * 1024)


def _next_marker(file: BinaryIO, offset: int) -> tuple[int, int] | None:
    """Return the offset of the next marker, and its second byte; None if there is no marker."""
    while chunk := read_at(file, offset, _CHUNK):
        match = _MARKER.search(chunk)
        if match:
            return offset + match.start(), match[0][1]
        if len(chunk) < _CHUNK:
            return None
        offset += len(chunk) - 1  # a marker may begin with the last byte
    return None
