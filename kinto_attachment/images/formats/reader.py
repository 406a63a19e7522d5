"""Reading untrusted files: bounded, and without moving the position of a shared file."""

import os
from mmap import MAP_PRIVATE, PROT_READ, mmap
from typing import BinaryIO

_CHUNK = 64 * 1024
# The bytes that encoders put into each sub-block but the last: some use one less than possible.
_FULL = 254


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


class BlockReader:
    """A file that is read from its start to its end in constant memory, for formats that store data
    in sub-blocks: a byte with a length, and as many bytes (GIF 89a, section 15).

    :param file: a seekable file.
    :param blocks: how many sub-blocks may be skipped.
    """

    def __init__(self, file: BinaryIO, blocks: int = 1_000_000) -> None:
        self._file = file
        self._start = self._position = 0
        self._blocks = blocks
        self._lengths = (0, 0)
        self._chunk = b""

    @property
    def offset(self) -> int:
        """The offset of the next byte in the file."""
        return self._start + self._position

    def take(self, size: int) -> bytes:
        """Return the next ``size`` bytes.

        :raises EOFError: if there are fewer.
        """
        if self._position + size > len(self._chunk):
            self._advance(size)
        taken = self._chunk[self._position : self._position + size]
        if len(taken) < size:
            raise EOFError
        self._position += size
        return taken

    def skip(self) -> None:
        """Skip sub-blocks up to and including the empty one that ends them.

        :raises EOFError: if the file ends before.
        :raises ValueError: if there are too many sub-blocks.
        """
        longest, size = 0, 1
        self._lengths = (0, 0)
        while size:
            if self._position >= len(self._chunk):
                self._advance(1)
                if not self._chunk:
                    raise EOFError
            size = self._chunk[self._position]
            self._position += size + 1
            if size:
                longest = max(longest, size)
                self._lengths = (size, longest)
            self._blocks -= 1
            if self._blocks < 0:
                raise ValueError("too many sub-blocks")

    @property
    def ends_with_last(self) -> bool:
        """Whether the file ends after what looks like the last of the sub-blocks that were skipped,
        without the empty one. Encoders fill all of them but the last."""
        last, longest = self._lengths
        is_last = last > 0 and (last < longest or longest < _FULL)
        return is_last and self.offset == size_of(self._file)

    def _advance(self, size: int) -> None:
        """Read a chunk from the current position."""
        self._start, self._position = self.offset, 0
        self._chunk = read_at(self._file, self._start, max(size, _CHUNK))


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

    def map(self) -> bytes | mmap:
        """Return all bytes, without a copy where the file system allows that (mmap(2)). The file
        must not become shorter: the process would be killed when it looks at what is gone."""
        try:
            return mmap(self._descriptor, 0, flags=MAP_PRIVATE, prot=PROT_READ)
        except (OSError, ValueError):
            self.seek(0)
            return self.read()
