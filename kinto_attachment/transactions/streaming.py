"""Files that are sent on to the storage while they arrive.

A small file stays in memory until it is stored. Of a larger one, nothing is kept on this machine:
its key is chosen, and reserved, when its first bytes are there. The reservation is renewed for as
long as bytes arrive, so ``gc`` takes neither the unfinished upload nor the stored object for
something that a process has left behind, however slow the client is.
"""

import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from typing import Any, NamedTuple

from ..errors import BlobExists, StorageUnavailable
from ..files.blob import CHUNK, Label
from ..files.key import KeyTemplate
from ..storage import IStorage
from ..storage.staged import IStreamingStorage
from ..storage.stored_file import StoredFile
from ..storage.stream import PART_BYTES, Stream
from .placement import Placement

MEMORY_BYTES = PART_BYTES
"""Bytes of the largest file that is kept in memory."""


class Destination(NamedTuple):
    """Where a file goes.

    :param keys: candidates, as the template makes them.
    :param label: what the stored object says about itself.
    """

    keys: Iterable[str]
    label: Label
    template: KeyTemplate


def can_stream(storage: IStorage, template: KeyTemplate, size: int) -> bool:
    """Return whether the storage can take a file of that template while it arrives.

    :param size: the most bytes that the file can have; 0 if that is not known.
    """
    return (
        IStreamingStorage.providedBy(storage)
        and not template.needs_digest
        and size <= storage.max_stream
    )


class StreamedFile:
    """A file that is received into memory, and sent on to the storage once it is too large.

    It is written to, flushed at its end, and read after that. While it is in memory it can be read
    at any time.

    :param destination: is called when the file becomes too large, and can read its first bytes.
    :param timed: returns a context in which the time of the storage is measured.
    :ivar key: the key that it has, or is to have, in the storage; empty while it is in memory.
    :ivar label: what the stored object says about itself; None while it is in memory.
    :ivar size: bytes so far.
    """

    def __init__(
        self,
        storage: IStorage,
        placement: Placement,
        destination: Callable[[], Destination],
        timed: Callable[[], AbstractContextManager],
    ):
        self._storage = storage
        self._placement = placement
        self._destination = destination
        self._timed = timed
        # Unlike memory of ``malloc``, this goes back to the system when the file is closed. Only
        # what is written takes memory.
        self._file: Any = mmap(-1, MEMORY_BYTES, MAP_PRIVATE | MAP_ANONYMOUS)
        self._stream: Stream | None = None
        self._may_be_stored = False
        self.key = ""
        self.label: Label | None = None
        self.size = 0

    @property
    def bytes_in_memory(self) -> int:
        """Bytes of a file that is in memory."""
        return 0 if self.key else self.size

    def write(self, chunk: bytes) -> int:
        """Add bytes at the end.

        :raises StorageUnavailable: if they or earlier ones cannot be stored.
        """
        left = memoryview(chunk)
        if not self.key and self.size + len(left) > MEMORY_BYTES:
            # Its first bytes tell where it goes, so they come before.
            first = left[: MEMORY_BYTES - self.size]
            self.size += self._file.write(first)
            left = left[len(first) :]
            self._start()
        self.size += len(left)
        if self._stream is None:
            self._file.write(left)
        else:
            with self._timed():
                self._stream.write(left)
        return len(chunk)

    def flush(self) -> None:
        """Store what was sent to the storage: nothing more is written. Idempotent.

        :raises StorageUnavailable: if it cannot be stored.
        """
        if self._stream is None:
            return
        with self._timed():
            self._placement.renew(is_due=True)
            self._may_be_stored = True
            try:
                self._stream.finish()
            except BlobExists as error:
                self._may_be_stored = False
                reason = "another upload has taken the name while this one arrived"
                raise StorageUnavailable(self.key, reason) from error
            except BaseException:
                self._placement.leave_name(self.key)
                raise
        self._stream = None
        self._placement.own(self.key)
        self._file = StoredFile(self._storage, [(self.key, self.size)])

    def move(self) -> None:
        """Store a file that is in memory, which then has a key. Nothing more is written to it."""
        if not self.key:
            self._start()
        self.flush()

    def close(self) -> None:
        """Give the file up, unless it is stored. Idempotent."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.abort()
            if not self._may_be_stored:
                self._placement.disown(self.key)
        self._file.close()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position at which the file is read, and return it."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._file.tell(), os.SEEK_END: self.size}[whence]
        self._file.seek(max(0, min(start + offset, self.size)))
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        """Return at most ``size`` bytes; a negative ``size`` means all bytes up to the end."""
        left = self.size - self._file.tell()
        return self._file.read(left if size < 0 else min(size, left))

    def _start(self) -> None:
        """Send the file on to the storage from here on."""
        keys, self.label, template = self._destination()
        self.key = self._placement.begin(keys, template)
        self._file.seek(0)
        with self._timed():
            self._stream = self._storage.stream(self.key, self.label)
            while chunk := self._file.read(min(CHUNK, self.size - self._file.tell())):
                self._stream.write(chunk)
        self._file.close()
