"""Letting one request at a time write a record.

Kinto compares ``If-Match`` with a record that it read without a lock. Of several requests with the
same ``If-Match``, all may find it right before the first of them writes. A request that must be the
only one to write therefore locks the record, reads it again, and only then decides.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from hashlib import sha256
from threading import BoundedSemaphore, Lock, RLock
from typing import Any
from weakref import WeakValueDictionary

from kinto.core.storage.exceptions import BackendError

from ..files.ref import RecordRef

# The row of a deleted record is locked, too. A record that never was has no row; of those that
# create it, the database lets one win.
_LOCK_ROW = (
    "SELECT 1 FROM objects WHERE id = :id AND parent_id = :parent "
    "AND resource_name = 'record' FOR UPDATE"
)
_LOCK_NUMBER = "SELECT pg_advisory_xact_lock(:number)"

MAX_LOCK_CONNECTIONS = 5
"""The most connections of one process that do nothing but lock records."""


class RecordLocks:
    """Locks on single records.

    :param storage: ``registry.storage``.
    """

    def __init__(self, storage: Any):
        self._storage = storage
        self._local_locks: WeakValueDictionary[str, _LocalLock] = WeakValueDictionary()
        self._guard = Lock()
        self._connections = BoundedSemaphore(MAX_LOCK_CONNECTIONS)

    @contextmanager
    def hold(self, ref: RecordRef) -> Iterator[bool]:
        """Make all others that want to write or lock the record wait. Yield whether there was
        anything to lock: a record that did not exist may be created right after.

        In PostgreSQL they wait until the caller's transaction has ended. Where the caller has none
        (``transaction_per_request = false``), only others that hold the record wait, until the
        block is left; a thread must not hold two records at once then. The same is true of Kinto's
        memory storage, which belongs to one process.

        :raises BackendError: if the database cannot be reached.
        """
        client = getattr(self._storage, "client", None)
        if client is None or client.commit_manually:
            with self._local_lock(ref.uri) as is_outermost:
                if client is None or not is_outermost:
                    yield True
                else:
                    with self._lock_in_database(ref.uri):
                        yield True
            return
        import sqlalchemy  # here, because PostgreSQL is an optional extra of Kinto

        row = {"id": ref.record, "parent": ref.collection_uri}
        with client.connect() as connection:
            found = connection.execute(sqlalchemy.text(_LOCK_ROW), row).first()
        yield found is not None

    def _local_lock(self, uri: str) -> "_LocalLock":
        """Return the lock of a record, which lives for as long as a thread uses it."""
        with self._guard:
            return self._local_locks.setdefault(uri, _LocalLock())

    @contextmanager
    def _lock_in_database(self, uri: str) -> Iterator[None]:
        """Make other processes wait.

        The lock belongs to a transaction on a connection of its own, because Kinto commits each
        statement on its connections and gives them back. It is none of Kinto's pool: if all
        connections of the pool held locks, the holders could not get a second one to write with.
        Whatever ends the connection releases the lock.
        """
        import sqlalchemy

        number = int.from_bytes(sha256(uri.encode()).digest()[:8], "big", signed=True)
        with self._connections:
            try:
                connection = self._engine.connect()
            except sqlalchemy.exc.SQLAlchemyError as error:
                raise BackendError(original=error) from error
            with connection:
                try:
                    connection.execute(sqlalchemy.text(_LOCK_NUMBER), {"number": number})
                except sqlalchemy.exc.SQLAlchemyError as error:
                    raise BackendError(original=error) from error
                yield

    @cached_property
    def _engine(self) -> Any:
        """Makes connections to Kinto's database, and keeps none."""
        import sqlalchemy

        url = self._storage.client.session_factory.get_bind().url
        return sqlalchemy.create_engine(url, poolclass=sqlalchemy.pool.NullPool)


class _LocalLock:
    """A lock for the threads of this process. As a context manager it returns whether the thread
    did not have it before."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._depth = 0

    def __enter__(self) -> bool:
        self._lock.acquire()
        self._depth += 1
        return self._depth == 1

    def __exit__(self, *error: Any) -> None:
        self._depth -= 1
        self._lock.release()
