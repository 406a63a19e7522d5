"""Letting one request at a time write a record.

Kinto compares ``If-Match`` with a record that it read without a lock. Of several requests with the
same ``If-Match``, all may find it right before the first of them writes. A request that must be the
only one to write therefore locks the record, reads it again, and only then decides.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, RLock
from typing import Any
from weakref import WeakValueDictionary

from ..files.ref import RecordRef

# The row of a deleted record is locked, too. A record that never was has no row; of those that
# create it, the database lets one win.
_LOCK_ROW = (
    "SELECT 1 FROM objects WHERE id = :id AND parent_id = :parent "
    "AND resource_name = 'record' FOR UPDATE"
)


class RecordLocks:
    """Locks on single records.

    :param storage: ``registry.storage``.
    """

    def __init__(self, storage: Any):
        self._storage = storage
        self._local_locks: WeakValueDictionary[str, Any] = WeakValueDictionary()
        self._guard = Lock()

    @contextmanager
    def hold(self, ref: RecordRef) -> Iterator[None]:
        """Make all others that want to write or lock the record wait.

        In PostgreSQL they wait until the caller's transaction has ended. Where Kinto's storage has
        no transactions (see :attr:`Rows.rolls_back`), only the other threads of this process that
        hold the record wait, until the block is left.
        """
        client = getattr(self._storage, "client", None)
        if client is None or client.commit_manually:
            with self._local_lock(ref.uri):
                yield
            return
        import sqlalchemy  # here, because PostgreSQL is an optional extra of Kinto

        row = {"id": ref.record, "parent": ref.collection_uri}
        with client.connect() as connection:
            connection.execute(sqlalchemy.text(_LOCK_ROW), row)
        yield

    def _local_lock(self, uri: str) -> Any:
        """Return the lock of a record, which lives for as long as a thread uses it."""
        with self._guard:
            return self._local_locks.setdefault(uri, RLock())
