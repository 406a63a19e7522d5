"""Files of a local storage while they are received."""

import errno
import io
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from typing import BinaryIO

from ..files.blob import CHUNK

_COPY_BYTES = 1024 * 1024 * 1024

SPOOL_PREFIX = ".kinto-attachment-spool-"
"""How the temporary names begin, where a file cannot be without a name."""


class Spool(io.BufferedRandom):
    """A file that receives bytes and has no name yet, or only a temporary one.

    :param root: the folder of the storage that created the file.
    :param descriptor: the open file.
    :param path: the temporary path; None if the file system supports files without a name.
    """

    def __init__(self, root: bytes, descriptor: int, path: bytes | None = None):
        super().__init__(io.FileIO(descriptor, "w+"))
        self.root = root
        self.path = path

    def close(self) -> None:
        """Close the file and remove its temporary name. Idempotent."""
        if not self.closed and self.path:
            with suppress(FileNotFoundError):
                os.unlink(self.path)
        super().close()


_CANNOT_COPY = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}


def append(spool: Spool, file: BinaryIO) -> None:
    """Append the rest of an open file to a spool. Where the file system can, it copies the bytes
    itself, or lets both files share them.

    :raises OSError: if the bytes cannot be read or written.
    """
    spool.flush()
    source, target = file.fileno(), spool.fileno()
    try:
        while os.copy_file_range(source, target, _COPY_BYTES):
            pass
        return
    except AttributeError:
        pass  # not Linux
    except OSError as error:
        if error.errno not in _CANNOT_COPY:
            raise
    while chunk := os.read(source, CHUNK):
        view = memoryview(chunk)
        while view:
            view = view[os.write(target, view) :]


CLAIM_SECONDS = 30
"""How long a claim lasts. It is held for a few calls of the file system."""


@contextmanager
def claimed(root: bytes, path: bytes) -> Iterator[None]:
    """Wait until no other caller has claimed the path. A claim is a file that only one caller can
    create; that works where locks do not. A claim of a process that died is taken over.

    :param root: the folder of the storage, which contains the claim.
    """
    claim = os.path.join(root, f"{SPOOL_PREFIX}{sha256(path).hexdigest()[:32]}".encode())
    seen, since = None, 0.0
    while True:
        try:
            os.close(os.open(claim, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            break
        except FileExistsError:
            with suppress(FileNotFoundError):
                status = os.stat(claim)
                found = (status.st_ino, status.st_mtime_ns)
                # The clock of a file server may differ from ours, so only our own is asked.
                if found != seen:
                    seen, since = found, time.monotonic()
                elif time.monotonic() - since > CLAIM_SECONDS:
                    os.unlink(claim)
            time.sleep(0.005)
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            os.unlink(claim)
