"""Which resumable uploads this user has begun, for the next run of the command.

An upload that is not finished has a file of its own in ``~/.local/state/kinto-attachment``, or
below ``XDG_STATE_HOME``. The file contains the id of the upload on the server. Its name is the hash
of everything that has to be the same, so that an upload is only found by a command that would send
exactly the same bytes, as the same user, to the same place, under the same conditions. The file is
locked while a process sends the upload.
"""

import hashlib
import json
import logging
import os
import re
import time
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

UPLOAD_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")

logger = logging.getLogger(__name__)

FORGOTTEN_SECONDS = 30 * 24 * 3600
"""An entry that was not used for this long is deleted. Servers keep uploads for 7 days at most."""


class Journal:
    """The uploads that were begun. It works without a folder that can be written to, but then
    remembers nothing."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._is_new = True
        self._has_warned = False

    def open(self, **identity: Any) -> "JournalEntry":
        """Return the entry of an upload, and lock it. If another process has locked it, return an
        entry that is not kept.

        :param identity: everything that distinguishes the upload from others, as JSON.
        """
        name = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        try:
            folder = _folder()
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._clean(folder)
            path = folder / f"{name}.json"
            return JournalEntry(path, _open_locked(path))
        except BlockingIOError:
            return JournalEntry()
        except (OSError, RuntimeError) as error:
            self._warn(error)
            return JournalEntry()

    def _clean(self, folder: Path) -> None:
        """Delete entries that are too old to be continued, once in a run."""
        with self._lock:
            if not self._is_new:
                return
            self._is_new = False
        for path in folder.glob("*.json"):
            with suppress(OSError):
                if path.stat().st_mtime < time.time() - FORGOTTEN_SECONDS:
                    path.unlink()

    def _warn(self, error: Exception) -> None:
        with self._lock:
            if self._has_warned:
                return
            self._has_warned = True
        why = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
        logger.warning(
            "If this run is interrupted, the next one cannot resume its uploads: %s", why
        )


class JournalEntry:
    """What is remembered of one upload.

    :param path: where it is kept.
    :param file: the locked file; None if nothing is kept.
    :ivar upload: the id of the upload; empty if there is none.
    """

    def __init__(self, path: Path = Path(), file: BinaryIO | None = None):
        self._path, self._file = path, file
        self.upload = _read(file) if file else ""
        if self.upload:
            with suppress(OSError):
                os.utime(path)

    def write(self, upload: str) -> None:
        """Remember the id of an upload; if it is empty, forget the former one."""
        self.upload = upload
        if self._file:
            with suppress(OSError):  # a full disk must not stop the upload
                self._file.seek(0)
                self._file.truncate()
                self._file.write(json.dumps({"upload": upload}).encode() if upload else b"")
                self._file.flush()

    def close(self) -> None:
        """Unlock the entry, and delete it if it has no upload. Idempotent."""
        if self._file:
            if not self.upload:
                with suppress(OSError):
                    self._path.unlink()
            with suppress(OSError):
                self._file.close()
            self._file = None


def _folder() -> Path:
    """Return the folder of the entries.

    :raises RuntimeError: if this user has no home.
    """
    # https://specifications.freedesktop.org/basedir-spec: a relative path is to be ignored.
    given = os.environ.get("XDG_STATE_HOME", "")
    state = Path(given) if os.path.isabs(given) else Path.home() / ".local" / "state"
    return state / "kinto-attachment"


def _open_locked(path: Path) -> BinaryIO:
    """Open a file of this user, and lock it; create it if there is none.

    :raises BlockingIOError: if another process has locked it.
    :raises PermissionError: if it belongs to another user.
    """
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    file = open(os.open(path, flags, 0o600), "r+b")
    try:
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = os.fstat(file.fileno())
            if found.st_uid != os.geteuid():
                raise PermissionError(1, "it belongs to another user", str(path))
            if not found.st_nlink:
                raise BlockingIOError()  # the other process has finished its upload just now
    except BaseException:
        file.close()
        raise
    return file


def _read(file: BinaryIO) -> str:
    """Return the id in a file; empty if the file is new, or was not written to its end."""
    try:
        upload = json.loads(file.read(1000))["upload"]
    except (ValueError, LookupError, TypeError):
        return ""
    return upload if isinstance(upload, str) and UPLOAD_ID.fullmatch(upload) else ""
