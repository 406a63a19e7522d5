"""Leases: which process works on an upload.

A process takes a lease before it begins, renews it while it works, and gives it back. A lease that
is not renewed expires, and another process may take it.

A process that was only slow must not write what another one has superseded. It therefore renews the
lease at the start of each transaction that writes: a lease that is lost cannot be renewed, and one
that was renewed cannot be taken before the transaction ends.
"""

from typing import Any

from kinto.core.storage import Filter
from kinto.core.utils import COMPARISON

from ..paging import create_row, database_time

LEASE_ROWS = "attachment-lease"
LEASES_PARENT = "/attachment-leases"

LEASE_SECONDS = 30
"""A lease expires when its holder has not renewed it for this long."""

_SEIZURES = 20


class Leases:
    """The leases on all uploads.

    :param storage: ``registry.storage``.
    """

    def __init__(self, storage: Any):
        self._storage = storage

    def take(self, upload_id: str, holder: str) -> bool:
        """Take the lease; return False if another process holds it. Commit before the work begins.

        :param holder: an id of the process that takes it.
        """
        if self._create(upload_id, holder):
            return True
        now = database_time(self._storage)
        dead = Filter("last_modified", now - LEASE_SECONDS * 1000, COMPARISON.LT)
        return self._delete(upload_id, dead) and self._create(upload_id, holder)

    def renew(self, upload_id: str, holder: str) -> bool:
        """Extend the lease; return False if it belongs to another process by now, or was dropped.

        If it returns True, no other process can take the lease before this transaction ends.
        """
        return self.give_back(upload_id, holder) and self._create(upload_id, holder)

    def give_back(self, upload_id: str, holder: str) -> bool:
        """Return the lease, so that another process may take it. Return False if it was lost."""
        return self._delete(upload_id, Filter("holder", holder, COMPARISON.EQ))

    def seize(self, upload_id: str, holder: str) -> bool:
        """Take the lease, even from another holder: the upload is about to be deleted. No other
        process can take it before this transaction ends. Return False if others take it again and
        again."""
        for _ in range(_SEIZURES):
            self.drop(upload_id)
            if self._create(upload_id, holder):
                return True
        return False

    def drop(self, upload_id: str) -> None:
        """Delete the lease, even of another holder: the upload is gone. Idempotent."""
        self._delete(upload_id)

    def _create(self, upload_id: str, holder: str) -> bool:
        row = {"id": upload_id, "holder": holder}
        return create_row(self._storage, LEASE_ROWS, _parent(upload_id), row)

    def _delete(self, upload_id: str, *filters: Filter) -> bool:
        parent, which = _parent(upload_id), list(filters)
        return bool(self._storage.delete_all(LEASE_ROWS, parent, filters=which, with_deleted=False))


def _parent(upload_id: str) -> str:
    return f"{LEASES_PARENT}/{upload_id}"
