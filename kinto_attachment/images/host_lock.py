"""One at a time on this host, whichever process it is in."""

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
"""Files by which processes tell each other what they are at."""


@contextmanager
def only_one(name: str, seconds: float) -> Iterator[None]:
    """One thread of all processes of this host makes what has that name, for others to find. It
    only saves work: on another host the same may be made.

    :raises ResizeBusy: somebody has been at it for so long.
    """
    digest = sha256(name.encode()).digest()
    deadline = time.monotonic() + seconds
    try:
        file = (_lock_folder() / str(int.from_bytes(digest[:4], "big") % LOCK_FILES)).open("ab")
    except OSError as error:
        logger.warning("Nothing can be locked on this host: %s", error)
        yield
        return
    with file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ResizeBusy("The same image is being made.") from None
                time.sleep(0.02)
        yield


def _lock_folder() -> Path:
    """That of this user: who else may write there could keep all images from being made."""
    folder = Path(tempfile.gettempdir()) / f"kinto-attachment-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} is somebody else's")
    return folder
