"""Turns: of several uploads that store the same key, one goes first.

Where a storage overwrites, the second of two uploads of the same bytes would replace the type and
the disposition that the first one gave them. The first to write the row of a key stores the bytes.
The others wait until they are there, or until the row is gone because the first upload has failed.

The row is no lock there. A process may die, or store a large file for longer than the others wait;
then they store the bytes all the same. The type of a file is worth less than an upload.

A name such as ``photo.jpg``, under which two uploads have different bytes, goes to the first to
write its row, for as long as an upload may take. The others take another name.
"""

from collections.abc import Iterable
from hashlib import sha256
from typing import Any

from kinto.core.storage import Filter
from kinto.core.utils import COMPARISON

from .paging import create_row, delete_rows

TURN_ROWS = "attachment-turn"
TURNS_PARENT = "/attachment-turns"

TURN_SECONDS = 20
"""A turn ends after this long, even if the upload has not ended."""


class Turns:
    """Which upload may store a key. The caller commits after each call.

    :param storage: ``registry.storage``.
    """

    def __init__(self, storage: Any):
        self._storage = storage

    def take(self, key: str, holder: str, now: int, seconds: float | None = None) -> bool:
        """Take the turn; return False if another upload has it.

        :param holder: an id of the upload.
        :param now: milliseconds since 1970 by the clock of the database, which dates the rows.
        :param seconds: how long the turn of another upload lasts; None for
            :data:`TURN_SECONDS`.
        """
        ended = Filter("last_modified", now - int((seconds or TURN_SECONDS) * 1000), COMPARISON.LT)
        self._storage.delete_all(TURN_ROWS, _parent(key), filters=[ended], with_deleted=False)
        row = {"id": key, "holder": holder}
        return create_row(self._storage, TURN_ROWS, _parent(key), row)

    def renew(self, key: str, holder: str) -> bool:
        """Let the turn last as long again; return False if it has ended."""
        own = Filter("holder", holder, COMPARISON.EQ)
        parent = _parent(key)
        if not self._storage.delete_all(TURN_ROWS, parent, filters=[own], with_deleted=False):
            return False
        return create_row(self._storage, TURN_ROWS, parent, {"id": key, "holder": holder})

    def end(self, keys: Iterable[str], holder: str) -> None:
        """Let the next upload take its turn. Idempotent."""
        own = Filter("holder", holder, COMPARISON.EQ)
        for key in keys:
            self._storage.delete_all(TURN_ROWS, _parent(key), filters=[own], with_deleted=False)

    def drop_before(self, before: int) -> None:
        """Drop the turns of uploads that died.

        :param before: only older turns are dropped; in milliseconds since 1970.
        """
        old = Filter("last_modified", before, COMPARISON.LT)
        delete_rows(self._storage, TURN_ROWS, f"{TURNS_PARENT}/*", old)


def _parent(key: str) -> str:
    # One for each key, as concurrent uploads write them; a key may have characters that a parent
    # must not have.
    return f"{TURNS_PARENT}/{sha256(key.encode()).hexdigest()}"
