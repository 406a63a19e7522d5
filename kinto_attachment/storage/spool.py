"""Files of a local storage while they are received."""

import io
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256

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
