"""Which blobs are images, and of what size."""

import os
from collections import OrderedDict
from contextlib import closing
from io import BufferedReader, RawIOBase
from typing import Any

from ..errors import BlobDamaged
from ..files.blob import Blob
from ..storage import IStorage
from .formats.header import ImageHeader, read_header

READ_BYTES = 256 * 1024
"""Bytes that are read at once."""

MAX_REMEMBERED = 10_000
"""Images that a process remembers."""


class ImageProbe:
    """What the blobs of a storage are. That of a key and a hash stays what it is: a process looks
    once."""

    def __init__(self, storage: IStorage):
        self._storage = storage
        self._known: OrderedDict[tuple[str, str], ImageHeader | None] = OrderedDict()

    def known(self, blob: Blob) -> ImageHeader | None:
        """What :meth:`of` found, if it was asked lately."""
        return self._known.get((blob.key, blob.digest))

    def of(self, blob: Blob) -> ImageHeader | None:
        """What image a blob is; None if it is none.

        :raises BlobNotFound:
        :raises BlobDamaged: it is shorter than it was.
        """
        if (blob.key, blob.digest) in self._known:
            return self.known(blob)
        # Only what is needed of it: the size is at the beginning, but not all of what matters.
        with BufferedReader(_Stored(self._storage, blob), READ_BYTES) as reader:
            header = read_header(reader)
        self._known[blob.key, blob.digest] = header
        while len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)
        return header


class _Stored(RawIOBase):
    """A blob as a file that can be read anywhere, a request to the storage each time."""

    def __init__(self, storage: IStorage, blob: Blob):
        self._storage = storage
        self._blob = blob
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._blob.size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        end = min(self._at + len(buffer), self._blob.size)
        if end <= self._at:
            return 0
        with closing(self._storage.open(self._blob.key, self._at, end)) as chunks:
            found = b"".join(chunks)
        if len(found) < end - self._at:
            raise BlobDamaged(self._blob.key, f"it ends before its {self._blob.size} bytes")
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)
