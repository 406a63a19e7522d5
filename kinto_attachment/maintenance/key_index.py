"""What an operator does to the files of a whole server: each job a generator of findings.

Nothing is held while bytes move, and nothing grows with the number of files: rows are read a page
at a time, each page in a transaction of its own, and what has to be remembered is in a file.
"""

import sqlite3
from collections.abc import Iterable, Iterator

from ..rows.paging import PAGE


class Keys:
    """Keys with a number each, any number of them, in a temporary file.

    >>> keys = Keys()
    >>> keys.add([("a", 1), ("b", 2)])
    >>> keys.find(["b", "c"]), list(keys), len(keys)
    ({'b': 2}, [('a', 1), ('b', 2)], 2)
    """

    def __init__(self) -> None:
        # An empty name is a file that goes with its connection: https://sqlite.org/inmemorydb.html
        self._database = sqlite3.connect("", check_same_thread=False)
        self._database.execute("CREATE TABLE keys (key TEXT PRIMARY KEY, number) WITHOUT ROWID")

    def add(self, items: Iterable[tuple[str, int]]) -> None:
        self._database.executemany("INSERT OR REPLACE INTO keys VALUES (?, ?)", items)

    def remove(self, keys: Iterable[str]) -> None:
        self._database.executemany("DELETE FROM keys WHERE key = ?", ((key,) for key in keys))

    def find(self, keys: list[str]) -> dict[str, int]:
        """Those of at most 1000 keys that are there, with their numbers."""
        marks = ",".join("?" * len(keys))
        query = f"SELECT key, number FROM keys WHERE key IN ({marks})"
        return dict(self._database.execute(query, keys))

    def __iter__(self) -> Iterator[tuple[str, int]]:
        """In the order of the keys; what is removed meanwhile does not matter."""
        last = ""
        query = "SELECT key, number FROM keys WHERE key > ? ORDER BY key LIMIT ?"
        while page := self._database.execute(query, (last, PAGE)).fetchall():
            yield from page
            last = page[-1][0]

    def __len__(self) -> int:
        return self._database.execute("SELECT COUNT(*) FROM keys").fetchone()[0]

    def close(self) -> None:
        self._database.close()
