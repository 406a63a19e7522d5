"""JPEG before it is decoded (ITU-T T.81, annex B)."""

import re
from typing import BinaryIO

from ...errors import ImageRefused
from .header import ImageHeader
from .limits import Checked, Limits, contradiction, truncated
from .reader import read_at

MAX_SEGMENTS = 4096
"""A scan has a few, a file some dozens."""

SCANS = 20
"""Of the largest image that is allowed, as each goes over all of its pixels."""

_CHUNK = 64 * 1024
# In coded data 0xff stands before a zero, or a restart marker.
_MARKER = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")
_SOF = {0xC0, 0xC1, 0xC2}
# Lossless, hierarchical and arithmetic ones.
_UNUSUAL = {0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_EOI, _SOS, _APP2 = 0xD9, 0xDA, 0xE2


def check_jpeg(file: BinaryIO, image: ImageHeader, limits: Limits) -> Checked:
    """
    :raises ImageRefused: too many scans, too little data, sizes that contradict each other.
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
            raise ImageRefused("The JPEG is of a kind that browsers do not show.")
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
            raise ImageRefused(f"The JPEG has more than {allowed} scans, which is too many.")
        offset += max(length, 2)
    else:
        raise ImageRefused(f"The JPEG has more than {MAX_SEGMENTS} segments, which is too many.")
    if size != image.stored:
        raise contradiction("JPEG")
    if profile > limits.profile and _has_profile(file):
        raise ImageRefused(f"The colour profile has over {limits.profile} bytes.")
    _check_coded(image, coded)
    return Checked(parts=((0, offset),))


def _check_coded(image: ImageHeader, coded: int) -> None:
    """Each block of 8 x 8 pixels has at least one bit (T.81, F.1.2 and G.1.2)."""
    blocks = -(-image.width // 8) * -(-image.height // 8)
    if 8 * coded < blocks:
        raise ImageRefused("The JPEG has too little data for its size.")


def _has_profile(file: BinaryIO) -> bool:
    return b"ICC_PROFILE\0" in read_at(file, 0, 1024 * 1024)


def _next_marker(file: BinaryIO, offset: int) -> tuple[int, int] | None:
    """Where the next marker is, and which."""
    while chunk := read_at(file, offset, _CHUNK):
        match = _MARKER.search(chunk)
        if match:
            return offset + match.start(), match[0][1]
        if len(chunk) < _CHUNK:
            return None
        offset += len(chunk) - 1
    return None
