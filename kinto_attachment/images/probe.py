"""Which stored blobs are images, and how large they are."""

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
"""Bytes that one request reads from the storage."""

MAX_REMEMBERED = 10_000
"""Number of blobs whose headers a process remembers."""


class ImageProbe:
    """The reader of the headers of stored images.

    A key and a hash together always mean the same bytes, so each process remembers the headers that
    it has read.
    """

    def __init__(self, storage: IStorage):
        self._storage = storage
        self._known: OrderedDict[tuple[str, str], ImageHeader | None] = OrderedDict()

    def known(self, blob: Blob) -> ImageHeader | None:
        """Return the header if :meth:`of` has read it and this process still remembers it. This
        method never asks the storage."""
        return self._known.get((blob.key, blob.digest))

    def of(self, blob: Blob) -> ImageHeader | None:
        """Return the header of the image, or None if the blob is not an image.

        :raises BlobNotFound: if the storage does not have the blob.
        :raises BlobDamaged: if the blob is shorter than it should be.
        :raises StorageUnavailable: if the storage cannot be reached.
        """
        if (blob.key, blob.digest) in self._known:
            return self.known(blob)
        # Not all of the header is at the start of the file. The file is seekable, so that only the
        # needed parts are read from the storage.
        with BufferedReader(_Stored(self._storage, blob), READ_BYTES) as reader:
            header = read_header(reader)
        self._known[blob.key, blob.digest] = header
        while len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)
        return header


class _Stored(RawIOBase):
    """A blob as a file to read and seek in. Each read is one request to the storage."""

    def __init__(self, storage: IStorage, blob: Blob):
        self._storage = storage
        self._blob = blob
        self._offset = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._offset, os.SEEK_END: self._blob.size}[whence]
        self._offset = max(0, start + offset)
        return self._offset

    def readinto(self, buffer: Any) -> int:
        end = min(self._offset + len(buffer), self._blob.size)
        if end <= self._offset:
            return 0
        with closing(self._storage.open(self._blob.key, self._offset, end)) as chunks:
            found = b"".join(chunks)
        if len(found) < end - self._offset:
            raise BlobDamaged(self._blob.key, f"it ends before its {self._blob.size} bytes")
        buffer[: len(found)] = found
        self._offset += len(found)
        return len(found)
