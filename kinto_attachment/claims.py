"""Who is storing a shared key, and who is about to delete one.

A key that is named by its hash may be stored by somebody in the very moment in which ``gc`` finds
that nobody has it. Both say what they are about to do, commit that, and then look at what the
other has said: one of the two sees the other.

* Who stores writes a *claim*, then waits while the key is *doomed*. The claim goes in the
  transaction that writes the link.
* ``gc`` dooms keys, then spares those that are claimed, or linked. Claims are read before links: a
  claim that is gone by then has become a link that is there.

==================  ==========================  ======  ==========
resource_name       parent_id                   id      data
==================  ==========================  ======  ==========
attachment-claim    /attachment-claims/{uuid}   key
attachment-doom     /attachment-dooms           uuid    ``keys``
==================  ==========================  ======  ==========
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from kinto.core.storage import Filter
from kinto.core.utils import COMPARISON

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
