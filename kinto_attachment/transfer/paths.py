"""Choosing safe local paths for files that others have named."""

import os
import re
import sqlite3
import sys
import unicodedata
from collections.abc import Iterator
from itertools import chain, count
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import KeyRefused
from ..files.filename import extension_of
from ..files.key import check_key

PART = ".part"
"""The suffix of an incomplete file."""

MAX_NAME = 255 - len(PART)
"""Bytes of a filename, so that its part file fits into the 255 bytes of most file systems."""

# https://learn.microsoft.com/windows/win32/fileio/naming-a-file
_NOT_ON_WINDOWS = re.compile(
    r'.*[<>:"|?*].*|.*[. ]|(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])(\s*\..*)?',
    re.IGNORECASE | re.DOTALL,
)
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,200}")


def is_record_id(text: str) -> bool:
    """Return whether a record can have that id.

    >>> is_record_id("2e41d7e6"), is_record_id("..")
    (True, False)
    """
    return _ID.fullmatch(text) is not None


class PathAllocator:
    """Allocates paths below a folder. No two paths are equal, no path is a folder of another one,
    and the same holds for their part files. The paths are remembered in a temporary file. ::

        allocator = PathAllocator()
        allocator.give("first", "a/b.txt")    # 'a/b.txt'
        allocator.give("second", "a/b.txt")   # 'a/b-second.txt'
        allocator.give("third", "a")          # 'a-third'
        allocator.give("fourth", "a/b.txt/c") # 'a-fourth/b.txt/c'

    :param windows: whether names must be valid on Windows.
    :param fold: whether the file system ignores case and Unicode normalisation.
    """

    def __init__(self, windows: bool = os.name == "nt", fold: bool = sys.platform != "linux"):
        self._windows, self._fold = windows, fold
        # An empty name means a temporary file: https://sqlite.org/inmemorydb.html#temp_db
        self._taken = sqlite3.connect("", check_same_thread=False)
        self._taken.execute("CREATE TABLE taken (path TEXT PRIMARY KEY, folder) WITHOUT ROWID")

    def give(self, record: str, *wanted: Any) -> str:
        """Return a path that no other record has: the first of ``wanted`` that is safe, or else
        the id of the record. If that path is taken, insert the id. The same sequence of calls
        returns the same paths.

        :param record: the id of the record.
        :param wanted: what the record suggests, of any type; unsafe values are ignored.
        :raises ValueError: if ``record`` is not the id of a record.
        """
        if not is_record_id(record):
            raise ValueError(f"{ascii(record)[:80]} is not the id of a record")
        path = first = next(filter(self._accepts, wanted), None) or self._by_id(record, wanted)
        ids = chain([record], (f"{record}-{number}" for number in count(2)))
        others = chain.from_iterable(_alternatives(first, suffix) for suffix in ids)
        name = PurePosixPath(first).name
        # A complete file must not have the name of the part file of another one.
        if len(name.encode()) > MAX_NAME or name.lower().endswith(PART):
            path = next(others)
        while not self._take(path):
            path = next(others)
        return path

    def reserve(self, path: str) -> None:
        """Give a path to no record."""
        self._take(path)

    def has_file(self, path: str) -> bool:
        """Return whether a record has that path for its file."""
        return self._is_folder(self._folded(path)) is False

    def has_folder(self, path: str) -> bool:
        """Return whether a record has a path below that one."""
        return self._is_folder(self._folded(path)) is True

    def close(self) -> None:
        """Delete the temporary file."""
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
        """Reserve a path; return whether it was free."""
        path = self._folded(path)
        files = [path, path + PART]
        folders = [str(folder) for folder in PurePosixPath(path).parents][:-1]
        if any(self._is_folder(name) is not None for name in files):
            return False
        if any(self._is_folder(name) is False for name in folders):
            return False
        rows = [*((name, False) for name in files), *((name, True) for name in folders)]
        self._taken.executemany("INSERT OR IGNORE INTO taken VALUES (?, ?)", rows)
        return True

    def _folded(self, path: str) -> str:
        return unicodedata.normalize("NFC", path).casefold() if self._fold else path

    def _is_folder(self, path: str) -> bool | None:
        """Return whether the path is a folder (True) or a file (False); None if it is free."""
        found = self._taken.execute("SELECT folder FROM taken WHERE path = ?", (path,)).fetchone()
        return bool(found[0]) if found else None


def _alternatives(path: str, record: str) -> Iterator[str]:
    """Yield the path with the id in the filename, then with the id in the first folder, because
    that folder may be a file.

    >>> list(_alternatives("a/b.txt", "1f"))
    ['a/b-1f.txt', 'a-1f/b.txt']
    """
    yield _with_id(path, record)
    folder, slash, rest = path.partition("/")
    if slash:
        yield f"{_with_id(folder, record)}/{rest}"


def _with_id(path: str, record: str) -> str:
    """Return the path with the id before the extension. The filename is cut to
    :data:`MAX_NAME`.

    >>> _with_id("a/b.txt", "1f")
    'a/b-1f.txt'
    """
    place = PurePosixPath(path)
    extension = place.suffix if len(place.suffix.encode()) <= 17 else ""
    stem = place.name.removesuffix(extension).encode()
    kept = stem[: MAX_NAME - len(f"-{record}{extension}".encode())].decode(errors="ignore")
    return str(place.with_name(f"{kept}-{record}{extension}"))


def link_on_the_way(root: Path, path: str) -> Path | None:
    """Return the first symbolic link among the folders and the file of a path below ``root``; None
    if there is none."""
    place = root
    for name in path.split("/"):
        place = place / name
        if place.is_symlink():
            return place
    return None
