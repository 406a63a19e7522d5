"""Deleting a key without losing an upload.

Bytes are deleted in three steps, so that a process may die after each of them:

1. The transaction that takes the last link off a key writes a *release*: the key, and what is to
   become of it (:class:`Rule`).
2. After the commit the bytes are deleted, if the rule is ``DELETE``.
3. The release is dropped.

``gc`` finishes what a process left undone.

A key that is named after its hash can be uploaded again at the very moment in which ``gc`` finds
that nothing links it. The upload and ``gc`` therefore announce what they are about to do, commit
that, and only then look at what the other one has announced. Whichever looks second sees the
other::

    upload                          gc
    ------                          --
    reserve(key), commit            condemn(keys), commit
    wait while is_condemned(key)    spare what is reserved
    storage.put(key)                spare what is linked
    link(key), drop the             storage.delete(the rest)
      reservation, commit           pardon(keys), commit

``gc`` reads the reservations before the links: a reservation that is gone by then has become a
link that it sees.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from typing import Any
from uuid import uuid4

from kinto.core.storage import Filter, exceptions
from kinto.core.utils import COMPARISON

from ..files.key import is_key
from .paging import (
    Row,
    UnreadableRow,
    check_types,
    delete_rows,
    find_rows,
    keyset,
    pages,
    readable,
    scan,
    unreadable,
)

RELEASE_ROWS = "attachment-release"
RELEASES_PARENT = "/attachment-releases"
RESERVATION_ROWS = "attachment-claim"
RESERVATIONS_PARENT = "/attachment-claims"
CONDEMNED_ROWS = "attachment-doom"
CONDEMNED_PARENT = "/attachment-dooms"

CONDEMNED_SECONDS = 300
"""A mark older than this is ignored: the ``gc`` that set it has died and has no request in
flight."""


class Rule(str, Enum):
    """What becomes of a key that lost its link."""

    DELETE = "delete"
    """One record had it: its bytes are deleted after the commit."""
    SWEEP = "sweep"
    """It is named after its hash, and another upload may be storing the same bytes: only ``gc``
    deletes it."""
    KEEP = "keep"
    """``keep_old_files``: the bytes stay, and the row keeps ``gc`` and ``fsck`` from taking them
    for an orphan."""

    @classmethod
    def of(cls, shared: bool, keep_old: bool) -> "Rule":
        """Return the rule for a key.

        :param shared: whether several records may have the key.
        :param keep_old: the setting ``keep_old_files`` of its collection.
        """
        return cls.KEEP if keep_old else cls.SWEEP if shared else cls.DELETE


@dataclass(frozen=True)
class Release:
    """At most a page of keys that lost their links in one transaction.

    :param modified: when it was written, in milliseconds since 1970.
    """

    id: str
    rule: Rule
    keys: tuple[str, ...]
    modified: int


class Releases:
    """Keys that lost their link, and what is to become of them.

    :param storage: ``registry.storage``.
    """

    def __init__(self, storage: Any):
        self._storage = storage

    def add(self, keys: Iterable[str], rule: Rule) -> list[str]:
        """Write down what is to become of any number of keys; return the ids of the rows."""
        return [self._add(page, rule) for page in pages(keys)]

    def _add(self, keys: list[str], rule: Rule) -> str:
        release_id = uuid4().hex
        row = {"rule": rule, "keys": keys}
        self._storage.update(RELEASE_ROWS, f"{RELEASES_PARENT}/{release_id}", release_id, row)
        return release_id

    def get(self, release_id: str) -> Release | None:
        """Return the release, or None if it was dropped."""
        parent = f"{RELEASES_PARENT}/{release_id}"
        try:
            row = self._storage.get(RELEASE_ROWS, parent, release_id)
        except exceptions.ObjectNotFoundError:
            return None
        return next(readable([row], _release), None)

    def has(self, key: str) -> bool:
        """Return whether the key is about to be deleted. This reads every release."""
        return any(key in each.keys for each in self.all() if each.rule is not Rule.KEEP)

    def drop(self, release_id: str) -> None:
        """Forget a release whose keys were dealt with. Idempotent."""
        parent = f"{RELEASES_PARENT}/{release_id}"
        self._storage.delete_all(RELEASE_ROWS, parent, with_deleted=False)

    def all(self) -> Iterator[Release]:
        """Yield every release on the server, read a page at a time."""
        yield from readable(scan(self._storage, RELEASE_ROWS, RELEASES_PARENT), _release)

    def unreadable(self) -> Iterator[UnreadableRow]:
        """Yield every row that cannot be read."""
        rows = scan(self._storage, RELEASE_ROWS, RELEASES_PARENT)
        yield from unreadable(RELEASE_ROWS, rows, _release)


def _release(row: Row) -> Release:
    check_types(row, keys=list)
    if not all(isinstance(key, str) for key in row["keys"]):
        raise TypeError("a key is not text")
    # No storage can have the others.
    keys = tuple(key for key in row["keys"] if is_key(key))
    return Release(row["id"], Rule(row["rule"]), keys, row["last_modified"])


@dataclass(frozen=True)
class Reservation:
    """An upload's announcement that it is about to store a key.

    :param modified: when the database wrote it, in milliseconds since 1970.
    """

    id: str
    key: str
    modified: int


class Reservations:
    """Announcements of uploads and of ``gc``, see the module. The caller commits after each call,
    before it does anything else.

    :param storage: ``registry.storage``.
    """

    def __init__(self, storage: Any):
        self._storage = storage

    def reserve(self, key: str) -> Reservation:
        """Announce that the key is about to be stored, or to be linked because it is stored."""
        reservation_id = uuid4().hex
        parent = f"{RESERVATIONS_PARENT}/{reservation_id}"
        row = self._storage.update(RESERVATION_ROWS, parent, key, {})
        return Reservation(reservation_id, key, row["last_modified"])

    def renew(self, reservation: Reservation) -> Reservation | None:
        """Write a reservation again, because its upload goes on. Return None if it has expired and
        ``gc`` has dropped it."""
        parent = f"{RESERVATIONS_PARENT}/{reservation.id}"
        if not self._storage.delete_all(RESERVATION_ROWS, parent, with_deleted=False):
            return None
        row = self._storage.update(RESERVATION_ROWS, parent, reservation.key, {})
        return replace(reservation, modified=row["last_modified"])

    def drop(self, reservation: Reservation) -> None:
        """Withdraw a reservation: the key is linked, or the upload has failed. Idempotent."""
        parent = f"{RESERVATIONS_PARENT}/{reservation.id}"
        self._storage.delete_all(RESERVATION_ROWS, parent, with_deleted=False)

    def reserved(self, keys: Sequence[str], since: int) -> set[str]:
        """Return those of the keys that an upload has reserved.

        :param since: ignore older reservations, in milliseconds since 1970.
        """
        list_all = partial(self._storage.list_all, RESERVATION_ROWS, f"{RESERVATIONS_PARENT}/*")
        return set(find_rows(list_all, keys, Filter("last_modified", since, COMPARISON.GT)))

    def drop_before(self, before: int) -> int:
        """Drop the reservations of uploads that died, and return how many there were.

        :param before: only older reservations are dropped; in milliseconds since 1970.
        """
        old = Filter("last_modified", before, COMPARISON.LT)
        return len(delete_rows(self._storage, RESERVATION_ROWS, f"{RESERVATIONS_PARENT}/*", old))

    def condemn(self, keys: Iterable[str]) -> str:
        """Announce that the keys are about to be deleted; return the id of the mark."""
        mark_id = uuid4().hex
        self._storage.update(CONDEMNED_ROWS, CONDEMNED_PARENT, mark_id, {"keys": list(keys)})
        return mark_id

    def pardon(self, mark_id: str) -> None:
        """Remove a mark: the keys are deleted, or will stay. Idempotent."""
        own = [Filter("id", mark_id, COMPARISON.EQ)]
        self._storage.delete_all(CONDEMNED_ROWS, CONDEMNED_PARENT, filters=own, with_deleted=False)

    def is_condemned(self, reservation: Reservation) -> bool:
        """Return whether a ``gc`` that is alive is about to delete the reserved key. The database
        dated both rows, so the clocks of the servers do not matter."""
        oldest = reservation.modified - CONDEMNED_SECONDS * 1000
        recent = Filter("last_modified", oldest, COMPARISON.GT)
        marks = readable(self._marks(recent), _condemned_keys)
        return any(reservation.key in keys for keys in marks)

    def unreadable(self) -> Iterator[UnreadableRow]:
        """Yield every mark of ``gc`` that cannot be read."""
        yield from unreadable(CONDEMNED_ROWS, self._marks(), _condemned_keys)

    def _marks(self, *filters: Filter) -> Iterator[Row]:
        list_all = partial(self._storage.list_all, CONDEMNED_ROWS, CONDEMNED_PARENT)
        for rows in keyset(list_all, *filters):
            yield from rows


def _condemned_keys(row: Row) -> list[Any]:
    check_types(row, keys=list)
    return row["keys"]
