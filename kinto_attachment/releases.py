"""Keys that nobody needs any more, written down before anything is deleted.

A transaction writes in it what it lets go. The storage is told after the commit, and the row goes
when that is done; what a process left undone ``gc`` finds here.

==================  ============================  ======  ==================
resource_name       parent_id                     id      data
==================  ============================  ======  ==================
attachment-release  /attachment-releases/{id}     random  ``rule``, ``keys``
==================  ============================  ======  ==================
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any
from uuid import uuid4

from kinto.core.storage import exceptions

from .rows import pages, scan

RELEASE = "attachment-release"
RELEASES_PARENT = "/attachment-releases"


class Rule(str, Enum):
    """What is to become of keys that lost their link."""

    DELETE = "delete"
    """One record had it: its bytes go once the transaction is committed."""
    SWEEP = "sweep"
    """Named by its hash: somebody may just be storing the same bytes, so only ``gc`` decides."""
    KEEP = "keep"
    """``keep_old_files``: the bytes stay, and stay known."""

    @classmethod
    def of(cls, shared: bool, keep_old: bool) -> "Rule":
        """What becomes of a key.

        :param shared: whether others may have it too.
        """
        return cls.KEEP if keep_old else cls.SWEEP if shared else cls.DELETE


@dataclass(frozen=True)
class Release:
    """Keys that lost their link together, at most a page of them.

    :param modified: when, in milliseconds since 1970.
    """

    id: str
    rule: Rule
    keys: tuple[str, ...]
    modified: int


class Releases:
    """The rows, in Kinto's storage. Every method works within the caller's transaction.

    :param storage: ``registry.storage``.
    """

    def __init__(self, storage: Any):
        self._storage = storage

    def add(self, keys: Iterable[str], rule: Rule) -> list[str]:
        """Write down what is to become of any number of keys; the ids of the rows."""
        return [self._add(page, rule) for page in pages(keys)]

    def _add(self, keys: list[str], rule: Rule) -> str:
        release_id = uuid4().hex
        row = {"rule": rule, "keys": keys}
        self._storage.update(RELEASE, f"{RELEASES_PARENT}/{release_id}", release_id, row)
        return release_id

    def get(self, release_id: str) -> Release | None:
        try:
            row = self._storage.get(RELEASE, f"{RELEASES_PARENT}/{release_id}", release_id)
        except exceptions.ObjectNotFoundError:
            return None
        return _release(row)

    def drop(self, release_id: str) -> None:
        """Forget it: its keys are dealt with. Again does nothing."""
        self._storage.delete_all(RELEASE, f"{RELEASES_PARENT}/{release_id}", with_deleted=False)

    def all(self) -> Iterator[Release]:
        """Every release on the server, read a page at a time."""
        for row in scan(self._storage, RELEASE, RELEASES_PARENT):
            yield _release(row)


def _release(row: dict[str, Any]) -> Release:
    return Release(row["id"], Rule(row["rule"]), tuple(row["keys"]), row["last_modified"])
