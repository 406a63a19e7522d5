"""Keys that nobody needs any more, written down before anything is deleted.

A transaction writes in it what it lets go. The storage is told after the commit, and the row goes
when that is done; what a process left undone ``gc`` finds here.

==================  ============================  ======  ==================
resource_name       parent_id                     id      data
==================  ============================  ======  ==================
attachment-release  /attachment-releases/{id}     random  ``rule``, ``keys``
==================  ============================  ======  ==================
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any
from uuid import uuid4

from kinto.core.storage import Filter, exceptions
from kinto.core.utils import COMPARISON

from .paging import pages, scan

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


CLAIM = "attachment-claim"
CLAIMS_PARENT = "/attachment-claims"
DOOM = "attachment-doom"
DOOMS_PARENT = "/attachment-dooms"

LEASE = 300
"""Seconds after which who doomed a key is dead, and no request of his is still on its way."""


@dataclass(frozen=True)
class Claim:
    """
    :param modified: since when, in milliseconds since 1970.
    """

    id: str
    key: str
    modified: int


class Claims:
    """The rows, in Kinto's storage. Every method works within the caller's transaction, which is
    to be committed before anything else is done.

    :param storage: ``registry.storage``.
    """

    def __init__(self, storage: Any):
        self._storage = storage

    def claim(self, key: str) -> Claim:
        """Say that the key is about to be stored, or taken as stored."""
        claim_id = uuid4().hex
        row = self._storage.update(CLAIM, f"{CLAIMS_PARENT}/{claim_id}", key, {})
        return Claim(claim_id, key, row["last_modified"])

    def drop(self, claim: Claim) -> None:
        """The key is linked, or given up. Again does nothing."""
        self._storage.delete_all(CLAIM, f"{CLAIMS_PARENT}/{claim.id}", with_deleted=False)

    def claimed(self, keys: Sequence[str], since: int) -> set[str]:
        """Those of at most 1000 keys that were claimed since then (milliseconds since 1970)."""
        filters = [
            Filter("id", list(keys), COMPARISON.IN),
            Filter("last_modified", since, COMPARISON.GT),
        ]
        rows = self._storage.list_all(CLAIM, f"{CLAIMS_PARENT}/*", filters=filters)
        return {row["id"] for row in rows}

    def drop_before(self, before: int) -> int:
        """Forget the claims of who died before then (milliseconds since 1970); how many."""
        old = [Filter("last_modified", before, COMPARISON.LT)]
        return len(
            self._storage.delete_all(CLAIM, f"{CLAIMS_PARENT}/*", filters=old, with_deleted=False)
        )

    def doom(self, keys: Iterable[str]) -> str:
        """Say that the keys are about to be deleted; the id of the doom."""
        doom_id = uuid4().hex
        self._storage.update(DOOM, DOOMS_PARENT, doom_id, {"keys": list(keys)})
        return doom_id

    def spare(self, doom_id: str) -> None:
        """They are deleted, or not going to be. Again does nothing."""
        own = [Filter("id", doom_id, COMPARISON.EQ)]
        self._storage.delete_all(DOOM, DOOMS_PARENT, filters=own, with_deleted=False)

    def is_doomed(self, claim: Claim) -> bool:
        """Whether somebody alive is about to delete what is claimed. Both were dated by the
        database, whatever the clocks of the servers say."""
        recent = [Filter("last_modified", claim.modified - LEASE * 1000, COMPARISON.GT)]
        rows = self._storage.list_all(DOOM, DOOMS_PARENT, filters=recent)
        return any(claim.key in row["keys"] for row in rows)
