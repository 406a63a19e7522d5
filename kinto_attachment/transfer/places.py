"""Where files go that others have named."""

import os
import re
import sqlite3
import sys
import unicodedata
from itertools import chain, count
from pathlib import Path, PurePosixPath
from typing import Any

from ..blob import extension_of
from ..errors import KeyRefused
from ..keys import check_key

PART = ".part"
"""Put after the name of a file that is not complete."""

MAX_NAME = 255 - len(PART)
"""Bytes of a name, as file systems have it."""

# https://learn.microsoft.com/windows/win32/fileio/naming-a-file
_NOT_ON_WINDOWS = re.compile(
    r'.*[<>:"|?*].*|.*[. ]|(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])(\s*\..*)?',
    re.IGNORECASE | re.DOTALL,
)
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,200}")


class Places:
    """Paths below a folder, no two of them the same; those that were given are remembered in a
    temporary file. ::

        places = Places()
        places.give("first", "a/b.txt")    # 'a/b.txt'
        places.give("second", "a/b.txt")   # 'a/b-second.txt'

    :param windows: whether names have to be those that Windows takes.
    :param fold: whether names that differ in case, or in how accents are written, are the same.
    """

    def __init__(self, windows: bool = os.name == "nt", fold: bool = sys.platform != "linux"):
        self._windows, self._fold = windows, fold
        # An empty name is a file that goes with its connection: https://sqlite.org/inmemorydb.html
        self._taken = sqlite3.connect("", check_same_thread=False)
        self._taken.execute("CREATE TABLE taken (path TEXT PRIMARY KEY) WITHOUT ROWID")

    def give(self, record: str, *wanted: Any) -> str:
        """The first of these that is a path below a folder and none of it, or the id of the
        record; with that id in it if it is taken. The same questions get the same answers.

        :param wanted: whatever a record says: no strings, paths that lead elsewhere.
        :raises ValueError: that is the id of no record.
        """
        if not _ID.fullmatch(record):
            raise ValueError(f"{ascii(record)[:80]} is no id of a record")
        path = wish = next(filter(self._accepts, wanted), None) or self._by_id(record, wanted)
        ids = chain([record], (f"{record}-{number}" for number in count(2)))
        others = (_with_id(wish, suffix) for suffix in ids)
        name = PurePosixPath(wish).name
        # What is not complete must not meet what is.
        if len(name.encode()) > MAX_NAME or name.lower().endswith(PART):
            path = next(others)
        while not self._take(path):
            path = next(others)
        return path

    def close(self) -> None:
        self._taken.close()

    def _accepts(self, wanted: Any) -> bool:
        if not isinstance(wanted, str):
            return False
        try:
            names = check_key(wanted).split("/")
        except KeyRefused:
            return False
        if any(unicodedata.category(char) in ("Cc", "Zl", "Zp") for char in wanted):
            return False
        if any(len(name.encode()) > 255 for name in names):
            return False
        return not (self._windows and any(_NOT_ON_WINDOWS.fullmatch(name) for name in names))

    def _by_id(self, record: str, wanted: tuple) -> str:
        last = wanted[-1] if wanted and isinstance(wanted[-1], str) else ""
        extension = extension_of(last)
        return f"{record}.{extension}" if extension else record

    def _take(self, path: str) -> bool:
        if self._fold:
            path = unicodedata.normalize("NFC", path).casefold()
        row = self._taken.execute("INSERT OR IGNORE INTO taken VALUES (?)", (path,))
        return row.rowcount > 0


def _with_id(path: str, record: str) -> str:
    """The path with the id before its extension, and short enough.

    >>> _with_id("a/b.txt", "1f")
    'a/b-1f.txt'
    """
    place = PurePosixPath(path)
    extension = place.suffix if len(place.suffix.encode()) <= 17 else ""
    stem = place.name.removesuffix(extension).encode()
    kept = stem[: MAX_NAME - len(f"-{record}{extension}".encode())].decode(errors="ignore")
    return str(place.with_name(f"{kept}-{record}{extension}"))


def link_on_the_way(root: Path, path: str) -> Path | None:
    """The first symbolic link among the folders, and the file, of that path below the root."""
    place = root
    for name in path.split("/"):
        place = place / name
        if place.is_symlink():
            return place
    return None
