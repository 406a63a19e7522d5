"""Checks of a JPEG before it is decoded (ITU-T T.81, annex B)."""

import re
from typing import BinaryIO

from ...errors import ImageRefused
from .header import ImageHeader
from .limits import Checked, Limits, contradiction, truncated
from .reader import read_at, size_of

MAX_SEGMENTS = 4096
"""Segments in a file. Usual files have a few dozen, and a few more for each scan."""

SCANS = 20
"""Scans that the largest allowed image may have. A smaller image may have more, because the decoder
goes over all pixels once for each scan."""

MARKER = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")
"""The markers that end coded data. Within coded data, 0xff comes only before a zero byte or as part
of a restart marker."""

TABLES = {0xC4, 0xDB, 0xDC, 0xDD}
"""Segments that say how to decode the scans that follow."""

_CHUNK = 64 * 1024
# Start of frame: baseline, extended, progressive.
_SOF = {0xC0, 0xC1, 0xC2}
# Start of frame of lossless, hierarchical and arithmetic coding.
_UNUSUAL = {0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_EOI, _SOS, _APP2, _PROGRESSIVE = 0xD9, 0xDA, 0xE2, 0xC2
# Segments that may come between scans: tables, comments and those of applications.
_BETWEEN = {*TABLES, 0xFE, *range(0xE0, 0xF0)}
_END = bytes([0xFF, _EOI])
_ALL = (1 << 64) - 1


def check_jpeg(file: BinaryIO, image: ImageHeader, limits: Limits) -> Checked:
    """Check a JPEG; see :func:`kinto_attachment.images.formats.check_image`.

    Most JPEGs have one scan, and end with it. Only the ends of its data are looked at then: to
    search all of it takes a twentieth of the time of decoding it. Whatever a hostile file may hide
    there does not matter, because the decoder reads nothing that follows the only scan.

    Some cameras omit the marker at the end, and append a film or sound. Such a file is complete if
    all scans have begun; whether the last one is complete turns out when it is decoded.

    :raises ImageRefused: if the file is cut off, has too many scans or segments, too little data or
        too large a profile, states other sizes than its header, or is of an unusual kind.
    """
    size, scans, coded, profile, offset, missing = None, 0, 0, 0, 2, _Missing()
    parts: tuple[tuple[int, int] | bytes, ...]
    allowed = min(limits.scans, SCANS * limits.pixels // (image.width * image.height))
    for _ in range(MAX_SEGMENTS):
        found = _next_marker(file, offset)
        if found is None and not missing.is_empty:
            raise truncated("JPEG")
        start, marker = found or (size_of(file), _EOI)
        if scans:
            coded += start - offset
        offset = start + 2
        if found and marker == _EOI:
            parts = ((0, offset),)
            break
        if missing.is_empty and not (found and _continues(file, offset, marker)):
            parts = (0, start), _END
            break
        if marker == 0xD8:
            continue
        length = int.from_bytes(read_at(file, offset, 2), "big")
        if marker in _UNUSUAL:
            raise ImageRefused(
                "The JPEG is of a kind that is not resized: lossless, hierarchical or arithmetic."
                " Request 0x0 for the file itself, or save it as a baseline or progressive JPEG."
            )
        if marker in _SOF:
            if size:
                raise contradiction("JPEG")
            frame = read_at(file, offset + 2, max(length - 2, 6))
            _check_precision(frame)
            size = int.from_bytes(frame[3:5], "big"), int.from_bytes(frame[1:3], "big")
            missing.begin(frame, marker == _PROGRESSIVE)
        elif marker == _SOS:
            scans += 1
            missing.remove(read_at(file, offset + 2, max(length - 2, 0)))
            if missing.is_only_scan and _ends_with_scan(file, offset + length):
                coded = _count_coded(file, offset + length, _least_coded(image))
                parts = ()
                break
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
    return Checked(parts=parts)


class _Missing:
    """Which coefficients of which components no scan has brought so far in full precision.

    :ivar is_only_scan: whether the scan noted last is the only one that the decoder reads. It is if
        it is the first one, and has all components of a JPEG that is not progressive.
    """

    def __init__(self) -> None:
        self._of: dict[int, int] = {}
        self._is_progressive = False
        self._has_begun = False
        self._components = 0
        self._scans = 0
        self.is_only_scan = False

    @property
    def is_empty(self) -> bool:
        """Whether the scans that were found make a complete picture."""
        return self._has_begun and not self._of

    def begin(self, frame: bytes, is_progressive: bool) -> None:
        """Note the components.

        :param frame: the payload of the start of frame (T.81, B.2.2).
        """
        self._of = dict.fromkeys(frame[6 : 6 + 3 * frame[5] : 3], _ALL) if len(frame) > 5 else {}
        self._is_progressive, self._has_begun = is_progressive, bool(self._of)
        self._components = frame[5] if self._of else 0

    def remove(self, scan: bytes) -> None:
        """Note a scan.

        :param scan: the payload of its start (T.81, B.2.3).
        """
        self._scans += 1
        count = scan[0] if scan else 0
        if len(scan) < 2 * count + 4:
            return
        first, last, precision = scan[2 * count + 1 : 2 * count + 4]
        brought = _ALL
        if self._is_progressive:
            is_final = not precision & 15 and first <= last <= 63
            brought = (1 << last + 1) - (1 << first) if is_final else 0
        for component in scan[1 : 2 * count + 1 : 2]:
            left = self._of.get(component, 0) & ~brought
            self._of[component] = left
            if not left:
                del self._of[component]
        # The decoder counts the components and does not compare their names.
        has_all = self.is_empty and count == self._components
        self.is_only_scan = has_all and self._scans == 1 and not self._is_progressive


def _continues(file: BinaryIO, offset: int, marker: int) -> bool:
    """Return whether a segment belongs to the JPEG, and not by chance to what follows it.

    :param offset: where the length of the segment is.
    """
    head = read_at(file, offset, 3)
    if len(head) < 3:
        return False
    length = int.from_bytes(head[:2], "big")
    if marker == _SOS:
        return 1 <= head[2] <= 4 and length == 6 + 2 * head[2]
    if marker not in _BETWEEN or length < 2:
        return False
    following = read_at(file, offset + length, 2)
    return len(following) == 2 and following[0] == 0xFF and following[1] not in (0x00, 0x01)


def _check_precision(frame: bytes) -> None:
    """Check that there are 8 bits per sample.

    :param frame: the payload of the start of frame.
    """
    if frame[:1] not in (b"", b"\x08"):
        raise ImageRefused(
            f"The JPEG has {frame[0]} bits per channel, and only those of 8 bits are resized."
            " Request 0x0 for the file itself, or save it with 8 bits."
        )


def _check_coded(image: ImageHeader, coded: int) -> None:
    """Check that there is a bit at least for each block of 8 x 8 pixels (T.81, F.1.2 and G.1.2).

    :param coded: bytes of coded data.
    """
    if coded < _least_coded(image):
        raise ImageRefused(
            "The JPEG has too little data for its size. Save it again with an image editor."
        )


def _least_coded(image: ImageHeader) -> int:
    """Return how many bytes of coded data an image must have."""
    blocks = -(-image.width // 8) * -(-image.height // 8)
    return -(-blocks // 8)


def _count_coded(file: BinaryIO, offset: int, most: int) -> int:
    """Return how many bytes of coded data there are from the offset, or ``most`` if there are
    more."""
    chunk = read_at(file, offset, most)
    match = MARKER.search(chunk)
    return match.start() if match else len(chunk)


def _ends_with_scan(file: BinaryIO, offset: int) -> bool:
    """Return whether a file ends with coded data and the marker for the end, as far as its last
    bytes tell.

    :param offset: where the coded data begins.
    """
    tail = read_at(file, max(offset, size_of(file) - _CHUNK), _CHUNK)
    found = MARKER.search(tail)
    return found is not None and found[0] == _END and found.end() == len(tail)


def _has_profile(file: BinaryIO) -> bool:
    """Return whether a colour profile begins in the first MiB. Its segments share their type with
    other data."""
    return b"ICC_PROFILE\0" in read_at(file, 0, 1024 * 1024)


def _next_marker(file: BinaryIO, offset: int) -> tuple[int, int] | None:
    """Return the offset of the next marker, and its second byte; None if there is no marker."""
    while chunk := read_at(file, offset, _CHUNK):
        match = MARKER.search(chunk)
        if match:
            return offset + match.start(), match[0][1]
        if len(chunk) < _CHUNK:
            return None
        offset += len(chunk) - 1  # a marker may begin with the last byte
    return None
