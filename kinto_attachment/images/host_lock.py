"""A lock that all processes of this host share."""

import fcntl
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from ..errors import ResizeBusy

logger = logging.getLogger(__name__)

LOCK_FILES = 1024
"""Number of lock files. Names that happen to share a file wait for each other without harm."""


@contextmanager
def only_one(name: str, seconds: float) -> Iterator[None]:
    """Hold a lock during the block, so that only one thread on this host makes an image. Other
    threads and processes wait, and find the image afterwards.

    The lock only saves work. Another host may make the same image at the same time, and so may this
    host if a lock file cannot be opened.

    :param name: identifies the image.
    :param seconds: how long to wait for the lock.
    :raises ResizeBusy: if another thread or process holds the lock for longer than that.
    """
    digest = sha256(name.encode()).digest()
    deadline = time.monotonic() + seconds
    try:
        file = (_lock_folder() / str(int.from_bytes(digest[:4], "big") % LOCK_FILES)).open("ab")
    except OSError as error:
        logger.warning("Cannot lock on this host, so the same image may be made twice: %s", error)
        yield
        return
    with file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ResizeBusy("The same image is still being made.") from None
                time.sleep(0.02)
        yield


def _lock_folder() -> Path:
    """Return a folder that only this user can write to. Any other user with access to the lock
    files could hold the locks and stop all images from being made.

    :raises OSError: if there is no such folder.
    """
    folder = Path(tempfile.gettempdir()) / f"kinto-attachment-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another user")
    return folder
