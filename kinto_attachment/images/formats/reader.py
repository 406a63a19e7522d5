"""Reading untrusted files: bounded, and without moving the position of a shared file."""

import os
from typing import BinaryIO


class BoundedReader:
    """A file that appears to end after a number of reads or bytes.

    This bounds the time that a parser spends on a hostile file.

    :param file: a seekable file.
    :param reads: how many calls of :meth:`read` return bytes.
    :param size: how many bytes they return in all.
    """

    def __init__(self, file: BinaryIO, reads: int, size: int) -> None:
        self._file = file
        self._reads = reads
        self._remaining = size

    def read(self, size: int = -1) -> bytes:
        """Return at most ``size`` bytes, or none when the bounds are reached."""
        self._reads -= 1
        if self._reads < 0 or self._remaining <= 0:
            return b""
        chunk = self._file.read(self._remaining if size < 0 else min(size, self._remaining))
        self._remaining -= len(chunk)
        return chunk

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position, as ``io.IOBase.seek``. This is not bounded."""
        return self._file.seek(offset, whence)


def read_at(file: BinaryIO, offset: int, size: int) -> bytes:
    """Return ``size`` bytes from ``offset``, or fewer if the file ends there. A negative ``size``
    means all bytes up to the end."""
    file.seek(offset)
    return file.read(size)


def size_of(file: BinaryIO) -> int:
    """Return the size of the file in bytes. Its position is at the end afterwards."""
    return file.seek(0, os.SEEK_END)


class SharedFile:
    """A file with a position of its own, on a descriptor that another process reads too.

    Processes share the position of a descriptor that one of them has received from the other. This
    class reads with ``pread`` and leaves the shared position alone.

    :param descriptor: an open file. The caller closes it.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._offset = 0

    def read(self, size: int = -1) -> bytes:
        """Return at most ``size`` bytes; a negative ``size`` means all bytes up to the end."""
        if size < 0:
            size = max(0, os.fstat(self._descriptor).st_size - self._offset)
        chunk = os.pread(self._descriptor, size, self._offset)
        self._offset += len(chunk)
        return chunk

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position, as ``io.IOBase.seek``."""
        if whence == os.SEEK_CUR:
            offset += self._offset
        elif whence == os.SEEK_END:
            offset += os.fstat(self._descriptor).st_size
        self._offset = offset
        return offset
