"""The parts of a multipart upload to S3, as arguments of its calls.

The limits are those of https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html.
"""

from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from typing import Any, BinaryIO

from ..errors import StorageUnavailable
from ..files.blob import Source
from .base import at_once

MIB = 1024 * 1024
MIN_PART_BYTES = PART_BYTES = 5 * MIB
MAX_PART_BYTES = 5 * 1024 * MIB
MAX_PARTS = 10_000

COPY_BYTES = 64 * MIB
"""Bytes copied by one request, so that a slow server answers it in time: SeaweedFS takes more
than 5 seconds for 1 GiB."""

WORKERS = 4
"""Requests on their way at once; of parts, each is held in memory, and the next one: so parts are
as small as they may be."""

DELETE_KEYS = 250
"""Keys in one DeleteObjects, of 1000 that S3 takes: a few such requests at once are done sooner
than one."""

Part = dict[str, Any]


def read_parts(source: Source) -> Iterator[Part]:
    """The bytes of a source, in at most 10 000 parts for UploadPart.

    :raises StorageUnavailable: there are more or fewer than were received.
    """
    size = max(PART_BYTES, -(-source.size // MAX_PARTS))
    left = source.size
    source.file.seek(0)
    while body := _read_exactly(source.file, size):
        left -= len(body)
        yield {"Body": body}
    if left:
        raise StorageUnavailable("spool", f"{left} of {source.size} bytes are missing")


def compose_parts(
    read: Callable[[str, int, int], Iterator[bytes]],
    bucket_name: str,
    sizes: Sequence[tuple[str, int]],
) -> Iterator[Part]:
    """The parts of a whole made of blobs: copies by S3 itself (for UploadPartCopy), but bytes
    where blobs are too small for a part of their own.

    :param read: gives the bytes of a key from an offset to another, as ``IStorage.open``.
    :param sizes: key and bytes of each blob.
    """
    small = BytesIO()
    # Half of the parts there may be: each blob adds up to one more.
    copy = max(COPY_BYTES, -(-sum(size for _, size in sizes) // (MAX_PARTS // 2)))
    copy = min(copy, MAX_PART_BYTES - MIN_PART_BYTES)
    for key, size in sizes:
        start = 0
        if small.tell() or size < MIN_PART_BYTES:
            start = min(size, max(0, MIN_PART_BYTES - small.tell()))
            start = size if size - start < MIN_PART_BYTES else start
            for chunk in read(key, 0, start):
                small.write(chunk)
            if small.tell() >= MIN_PART_BYTES:
                yield {"Body": small.getvalue()}
                small = BytesIO()
        while start < size:
            left = size - start
            # Not one of them is to be left with less than the least.
            length = left if left < copy + MIN_PART_BYTES else copy
            part = {"CopySource": {"Bucket": bucket_name, "Key": key}}
            if length < size:  # S3 takes no range of a blob of 5 MiB
                part["CopySourceRange"] = f"bytes={start}-{start + length - 1}"
            yield part
            start += length
    if small.tell():
        yield {"Body": small.getvalue()}


def send_all(send: Callable[[int, Part], Part], parts: Iterator[Part]) -> list[Part]:
    """Send the parts as they come, a few at once; what each was answered, in their order.

    :param send: takes the number of a part, from 1, and the part.
    """
    sent = at_once(lambda numbered: send(*numbered), enumerate(parts, start=1), WORKERS)
    return sorted(sent, key=lambda answer: answer["PartNumber"])


def _read_exactly(file: BinaryIO, size: int) -> bytes:
    """As many bytes, or fewer at the end of the file."""
    pieces = []
    while size and (piece := file.read(size)):
        pieces.append(piece)
        size -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
