"""Blobs of a storage as one file to read and seek in."""

import os
from collections.abc import Sequence
from contextlib import closing
from io import BufferedReader, RawIOBase
from typing import Any

from ..errors import BlobDamaged
from ..files.blob import Label
from ..files.key import KeyTemplate
from . import IStorage

READ_BYTES = 256 * 1024
"""Bytes that one request reads from the storage."""


class StoredFile(BufferedReader):
    """The bytes of several blobs, one after the other, as a file to read and seek in. Only what is
    read is fetched from the storage, :data:`READ_BYTES` at a time.

    Reading raises :class:`~kinto_attachment.errors.BlobNotFound` if a blob is missing,
    ``BlobDamaged`` if it is shorter than it should be, and ``StorageUnavailable``.

    :param parts: the key of each blob and its size in bytes.
    :ivar keys: the keys of the blobs.
    :ivar size: bytes of all blobs together.
    """

    def __init__(self, storage: IStorage, parts: Sequence[tuple[str, int]]):
        super().__init__(_Parts(storage, parts), READ_BYTES)
        self.keys = [key for key, _ in parts]
        self.size = sum(size for _, size in parts)


class PlacedFile(StoredFile):
    """One blob that has a key of its owner already, so that it need not be copied.

    :param size: bytes of the blob.
    :param label: what the object says about itself.
    :ivar key: the key.
    """

    def __init__(self, storage: IStorage, key: str, size: int, label: Label):
        super().__init__(storage, [(key, size)])
        self.key = key
        self.label = label

    def fits(self, template: KeyTemplate, label: Label) -> bool:
        """Return whether the bytes lie where the template wants them, and say what they should."""
        return template.unique and template.makes(self.key) and self.label == label


class _Parts(RawIOBase):
    """Each read is one request to the storage."""

    def __init__(self, storage: IStorage, parts: Sequence[tuple[str, int]]):
        self._storage = storage
        self._parts = parts
        self._size = sum(size for _, size in parts)
        self._offset = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._offset, os.SEEK_END: self._size}[whence]
        self._offset = max(0, start + offset)
        return self._offset

    def readinto(self, buffer: Any) -> int:
        start = self._offset
        for key, size in self._parts:
            if start < size:
                return self._read(key, size, start, buffer)
            start -= size
        return 0

    def _read(self, key: str, size: int, start: int, buffer: Any) -> int:
        end = min(start + len(buffer), size)
        with closing(self._storage.open(key, start, end)) as chunks:
            found = b"".join(chunks)
        if len(found) < end - start:
            raise BlobDamaged(key, f"it ends before its {size} bytes")
        buffer[: len(found)] = found
        self._offset += len(found)
        return len(found)
