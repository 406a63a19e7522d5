"""An index of keys in a temporary file, for jobs that compare rows with objects."""

import sqlite3
from collections.abc import Iterable, Iterator

from .paging import PAGE


class KeyIndex:
    """Any number of keys with a number each, in constant memory.

    >>> keys = KeyIndex()
    >>> keys.add([("a", 1), ("b", 2)])
    >>> keys.find(["b", "c"]), list(keys), len(keys)
    ({'b': 2}, [('a', 1), ('b', 2)], 2)
    """

    def __init__(self) -> None:
        # An empty name is a file that is deleted with its connection:
        # https://sqlite.org/inmemorydb.html
        self._database = sqlite3.connect("", check_same_thread=False)
        self._database.execute("CREATE TABLE keys (key TEXT PRIMARY KEY, number) WITHOUT ROWID")

    def add(self, items: Iterable[tuple[str, int]]) -> None:
        """Add keys, or replace their numbers."""
        self._database.executemany("INSERT OR REPLACE INTO keys VALUES (?, ?)", items)

    def remove(self, keys: Iterable[str]) -> None:
        """Remove keys; those that are not there are ignored."""
        self._database.executemany("DELETE FROM keys WHERE key = ?", ((key,) for key in keys))

    def remove_below(self, folder: str) -> None:
        """Remove all keys that begin with this path, which ends with a slash."""
        end = f"{folder[:-1]}0"  # the character after the slash
        self._database.execute("DELETE FROM keys WHERE key >= ? AND key < ?", (folder, end))

    def find(self, keys: list[str]) -> dict[str, int]:
        """Return those of at most 1000 keys that are there, with their numbers."""
        marks = ",".join("?" * len(keys))
        query = f"SELECT key, number FROM keys WHERE key IN ({marks})"
        return dict(self._database.execute(query, keys))

    def __iter__(self) -> Iterator[tuple[str, int]]:
        """Yield the items in the order of their keys. Keys may be removed meanwhile."""
        last = ""
        query = "SELECT key, number FROM keys WHERE key > ? ORDER BY key LIMIT ?"
        while page := self._database.execute(query, (last, PAGE)).fetchall():
            yield from page
            last = page[-1][0]

    def __len__(self) -> int:
        return self._database.execute("SELECT COUNT(*) FROM keys").fetchone()[0]

    def close(self) -> None:
        """Delete the file."""
        self._database.close()
