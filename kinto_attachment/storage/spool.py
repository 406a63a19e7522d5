"""Files of a local storage while they are received."""

import io
import os
from contextlib import suppress

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
