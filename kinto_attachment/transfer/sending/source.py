"""A local file that is sent, and has to stay the same meanwhile."""

import os
from collections.abc import Iterator
from typing import BinaryIO

from ...files.blob import CHUNK
from ..pool import remedy_for
from ..responses import LATER, TransferFailed


class SourceFile:
    """An open local file, read in constant memory.

    :ivar size: bytes of the file when this object was made.
    """

    def __init__(self, file: BinaryIO):
        self._file = file
        self._version = _version(file)
        self.size = os.fstat(file.fileno()).st_size

    def chunks(self, start: int, end: int) -> Iterator[bytes]:
        """Yield the bytes from ``start`` up to ``end``.

        :raises TransferFailed: if the file cannot be read, or was changed since this object was
            made; before the last chunk at the latest.
        """
        self._file.seek(start)
        left = end - start
        while left > 0:
            chunk = self._read(min(CHUNK, left))
            left -= len(chunk)
            if not chunk:
                raise changed()
            if not left:
                self.check_unchanged()
            yield chunk

    def check_unchanged(self) -> None:
        """
        :raises TransferFailed: if the file was changed since this object was made.
        """
        if _version(self._file) != self._version:
            raise changed()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except OSError as error:  # requests would take it for a connection error
            raise TransferFailed(
                "failed", error.strerror or str(error), remedy_for(error)
            ) from error


def changed() -> TransferFailed:
    """Return the error for a file that does not stay the same during its upload."""
    return TransferFailed("changed", "the file was changed while it was read", LATER)


def _version(file: BinaryIO) -> tuple[int, int]:
    """Return what changes when the file is written."""
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns
