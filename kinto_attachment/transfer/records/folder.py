"""The files of a folder, one record after the other."""

import os
import sqlite3
import unicodedata
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from itertools import groupby

from ...finding import Finding, Progress
from ..local_files import LocalFile, find_files
from ..paths import PART
from .index import INDEX, read_index
from .layout import RecordFile, read_path

_COLUMNS = "record TEXT, field TEXT, position INTEGER, filename TEXT, attribute TEXT"


@dataclass(frozen=True)
class FolderFile:
    """A file of a folder, and what it is on its record."""

    local: LocalFile
    target: RecordFile


class RecordFolder:
    """A folder of files of records. What is found is kept in a temporary file.

    :param root: the folder.
    """

    def __init__(self, root: str | os.PathLike):
        self._root = os.fspath(root)
        # An empty name means a temporary file: https://sqlite.org/inmemorydb.html#temp_db
        self._found = sqlite3.connect("", check_same_thread=False)
        self._found.execute(f"CREATE TABLE indexed (name TEXT PRIMARY KEY, {_COLUMNS})")
        self._found.execute(f"CREATE TABLE files (name TEXT, {_COLUMNS})")

    def read(self, progress: Progress) -> Iterator[Finding]:
        """Find the files; yield a finding for everything that cannot be uploaded.

        :param progress: is told of the files.
        :raises CommandFailed: if the index of the folder is malformed.
        """
        rows = ((_composed(name), *astuple(file)) for name, file in read_index(self._root))
        self._found.executemany("INSERT OR REPLACE INTO indexed VALUES (?, ?, ?, ?, ?, ?)", rows)
        for found in find_files([self._root]):
            if isinstance(found, Finding):
                yield found
            elif found.name in (INDEX, INDEX + PART):
                continue
            elif target := self._target_of(found.name):
                row = (found.name, *astuple(target))
                self._found.execute("INSERT INTO files VALUES (?, ?, ?, ?, ?, ?)", row)
                if progress.is_shown:
                    progress.expect(1, found.size)
            else:
                yield Finding("skipped", found.name, "", "an incomplete download")

    def records(self) -> Iterator[tuple[str, list[FolderFile]]]:
        """Yield the ids of the records, each with its files: those of a field are together, in
        their order."""
        rows = self._found.execute(
            "SELECT name, record, field, position, filename, attribute FROM files"
            " ORDER BY record, field, position, name"
        )
        files = (
            FolderFile(LocalFile(os.path.join(self._root, name), name), RecordFile(*target))
            for name, *target in rows
        )
        for record, group in groupby(files, key=lambda file: file.target.record):
            yield record, list(group)

    def _target_of(self, name: str) -> RecordFile | None:
        """Return what the file of that name is; None if it is an incomplete one."""
        query = "SELECT record, field, position, filename, attribute FROM indexed WHERE name = ?"
        row = self._found.execute(query, (_composed(name),)).fetchone()
        if row:
            return RecordFile(*row)
        return None if name.lower().endswith(PART) else read_path(name)

    def close(self) -> None:
        """Delete the temporary file."""
        self._found.close()


def _composed(name: str) -> str:
    """Return the name in the Unicode form NFC: copying a folder may change the form."""
    return unicodedata.normalize("NFC", name)
