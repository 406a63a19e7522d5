"""The parts of a multipart upload to S3, as arguments of boto3's calls.

The limits are from https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html.
"""

from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from typing import Any, BinaryIO

from ...errors import StorageUnavailable
from ...files.blob import Source

MIB = 1024 * 1024
MIN_PART_BYTES = PART_BYTES = 5 * MIB
MAX_PART_BYTES = 5 * 1024 * MIB
MAX_PARTS = 10_000

COPY_BYTES = 64 * MIB
"""The number of bytes that one request copies, so that a slow server answers in time: SeaweedFS
takes more than 5 seconds for 1 GiB."""

WORKERS = 4
"""The maximum number of simultaneous requests. The part of each request is in memory, and so is the
next part. Parts are therefore as small as S3 allows."""

DELETE_KEYS = 250
"""The maximum number of keys in one DeleteObjects. S3 accepts 1000, but several smaller requests at
the same time are faster than a single one."""

Part = dict[str, Any]


def read_parts(source: Source) -> Iterator[Part]:
    """Yield the bytes of a source as at most 10 000 parts, the arguments of UploadPart.

    :raises StorageUnavailable: if the file has more or fewer bytes than the source says.
    """
    size = max(PART_BYTES, -(-source.size // MAX_PARTS))
    missing = source.size
    source.file.seek(0)
    while body := read_exactly(source.file, size):
        missing -= len(body)
        yield {"Body": body}
    if missing:
        raise StorageUnavailable(
            "spool", f"the file has {source.size - missing} bytes instead of {source.size}"
        )


def compose_parts(
    read: Callable[[str, int, int], Iterator[bytes]],
    bucket_name: str,
    sizes: Sequence[tuple[str, int]],
) -> Iterator[Part]:
    """Yield the parts that join several blobs into one. S3 itself copies most of them: they are
    arguments of UploadPartCopy. Blobs that are too small for a part of their own are read, and
    their bytes are arguments of UploadPart.

    :param read: returns the bytes of a key from one offset to another, as ``IStorage.open`` does.
    :param sizes: the key of each blob and its number of bytes.
    """
    small = BytesIO()
    # Plan for half of the parts that S3 allows, because each blob adds up to one more.
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
            remaining = size - start
            # The last part must not be smaller than S3 allows.
            length = remaining if remaining < copy + MIN_PART_BYTES else copy
            part = {"CopySource": {"Bucket": bucket_name, "Key": key}}
            if length < size:  # S3 accepts no range of a blob that has only 5 MiB
                part["CopySourceRange"] = f"bytes={start}-{start + length - 1}"
            yield part
            start += length
    if small.tell():
        yield {"Body": small.getvalue()}


def read_exactly(file: BinaryIO, size: int) -> bytes:
    """Return the next ``size`` bytes, or fewer at the end of the file."""
    pieces = []
    while size and (piece := file.read(size)):
        pieces.append(piece)
        size -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
