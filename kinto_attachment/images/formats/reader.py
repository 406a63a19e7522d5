"""Files of strangers, read with an eye on the clock."""

import os
from typing import BinaryIO


class BoundedReader:
    """A file that can be read so often and so much, and then has an end.

    :param reads: how many calls it answers.
    :param size: bytes, in all.
    """

    def __init__(self, file: BinaryIO, reads: int, size: int) -> None:
        self._file = file
        self._reads = reads
        self._left = size

    def read(self, size: int = -1) -> bytes:
        """At most so many bytes, none when the bounds are reached."""
        self._reads -= 1
        if self._reads < 0 or self._left <= 0:
            return b""
        chunk = self._file.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(chunk)
        return chunk

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)


def read_at(file: BinaryIO, offset: int, size: int) -> bytes:
    """So many bytes from there; fewer only if there are no more."""
    file.seek(offset)
    return file.read(size)


def size_of(file: BinaryIO) -> int:
    """Bytes of the whole file."""
    return file.seek(0, os.SEEK_END)


class SharedFile:
    """What is read of an open file whose position belongs to somebody else, who is not disturbed.

    :param descriptor: it stays open.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._at = 0

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            size = max(0, os.fstat(self._descriptor).st_size - self._at)
        chunk = os.pread(self._descriptor, size, self._at)
        self._at += len(chunk)
        return chunk

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_CUR:
            offset += self._at
        elif whence == os.SEEK_END:
            offset += os.fstat(self._descriptor).st_size
        self._at = offset
        return offset
