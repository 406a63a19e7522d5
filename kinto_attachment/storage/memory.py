"""Storage in a dict, for tests and for servers that may lose every file when they stop."""

from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from io import BytesIO
from tempfile import SpooledTemporaryFile
from threading import Lock
from typing import BinaryIO

from zope.interface import implementer

from ..errors import BlobExists, BlobNotFound
from ..files.blob import CHUNK, Label, Source
from ..files.key import check_key
from ..settings import Settings
from . import IStorage, Stat
from .base import Storage
from .staged import IComposingStorage


@implementer(IStorage, IComposingStorage)
class MemoryFileStorage(Storage):
    """A storage in the memory of one process. Other processes do not see its blobs.

    Methods without a docstring are documented in the interfaces.

    :param base_url: the URL below which clients find the blobs.

    >>> MemoryFileStorage().url("a.txt")
    'a.txt'
    """

    exclusive = True
    place = "memory"

    def __init__(self, base_url: str = ""):
        self.base_url = base_url
        self._blobs: dict[str, tuple[bytes, datetime]] = {}
        self._lock = Lock()

    @classmethod
    def from_settings(cls, settings: Settings) -> "MemoryFileStorage":
        """Return an empty storage."""
        return cls(settings["base_url"])

    def spool(self) -> BinaryIO:
        return SpooledTemporaryFile(max_size=1024 * 1024)

    def put(self, key: str, source: Source) -> None:
        self._store(key, b"".join(source.chunks()))

    def open(self, key: str, start: int = 0, end: int | None = None) -> "MemoryChunks":
        return MemoryChunks(self._get(key)[0][start:end])

    def stat(self, key: str) -> Stat:
        data, modified = self._get(key)
        return Stat(key, len(data), modified)

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._blobs.pop(check_key(key), None)

    def list(self, prefix: str = "") -> Iterator[Stat]:
        for key, (data, modified) in sorted(self._blobs.items()):
            if key.startswith(prefix):
                yield Stat(key, len(data), modified)

    def compose(self, parts: Iterable[str], key: str, label: Label) -> None:
        self._store(key, b"".join(self._get(part)[0] for part in parts))

    def _get(self, key: str) -> tuple[bytes, datetime]:
        try:
            return self._blobs[check_key(key)]
        except KeyError:
            raise BlobNotFound(key) from None

    def _store(self, key: str, data: bytes) -> None:
        check_key(key)
        with self._lock:
            if key in self._blobs:
                raise BlobExists(key)
            self._blobs[key] = data, datetime.now(timezone.utc)


class MemoryChunks(Iterator[bytes]):
    """An iterator over bytes, :data:`CHUNK` at a time.

    :ivar length: the total number of bytes.
    """

    def __init__(self, data: bytes):
        self.length = len(data)
        self._file = BytesIO(data)

    def __next__(self) -> bytes:
        if chunk := self._file.read(CHUNK):
            return chunk
        raise StopIteration

    def close(self) -> None:
        """Drop the bytes that were not read."""
        self._file = BytesIO()
