"""Locks on records where requests have no transactions."""

import threading
import time

import pytest
from kinto.core.storage.exceptions import BackendError

from kinto_attachment.files.ref import RecordRef
from kinto_attachment.rows.record_lock import MAX_LOCK_CONNECTIONS, RecordLocks
from tests.support.threads import at_once, in_thread

REF = RecordRef("bucket", "collection", "record")


@pytest.fixture
def site(make_site):
    return make_site("postgresql", "local", **{"kinto.transaction_per_request": "false"})


@pytest.fixture
def processes(site):
    """The locks of two processes with one database."""
    return RecordLocks(site.registry.storage), RecordLocks(site.registry.storage)


@pytest.fixture
def lock_connections(site):
    """Return how many connections hold a lock, or wait for one."""
    import sqlalchemy

    query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = "
    query += "(SELECT oid FROM pg_database WHERE datname = current_database())"

    def count():
        with site.registry.storage.client.connect(readonly=True) as connection:
            return connection.execute(sqlalchemy.text(query)).scalar()

    return count


def test_another_process_waits(processes):
    one, two = processes
    order = []

    def wait():
        with two.hold(REF):
            order.append("two")

    with one.hold(REF):
        thread = in_thread(wait, timeout=0.5)
        order.append("one")
        with two.hold(RecordRef("bucket", "collection", "other")):
            pass
    thread.join()
    assert order == ["one", "two"]


def test_the_lock_of_a_process_that_fails_is_released(processes, lock_connections):
    one, two = processes
    with pytest.raises(ZeroDivisionError), one.hold(REF), one.hold(REF):
        1 / 0  # noqa: B018
    assert lock_connections() == 0
    with two.hold(REF):
        assert lock_connections() == 1
    assert lock_connections() == 0


def test_many_records_take_few_connections(site, processes, lock_connections):
    """Each thread also uses one of Kinto's connections, of which there may be fewer."""
    counts, ids = [], iter(range(40))
    guard = threading.Lock()

    def work():
        with guard:
            number = next(ids)
        ref = RecordRef("bucket", "collection", f"r{number % 8}")
        with processes[number % 2].hold(ref):
            counts.append(lock_connections())
            time.sleep(0.02)

    at_once(40, work)
    assert len(counts) == 40
    assert max(counts) <= 2 * MAX_LOCK_CONNECTIONS
    assert lock_connections() == 0


def test_a_database_that_cannot_be_reached(processes, monkeypatch):
    import sqlalchemy

    locks, _ = processes
    nowhere = sqlalchemy.create_engine("postgresql+psycopg2://nobody@127.0.0.1:1/nothing")
    monkeypatch.setitem(vars(locks), "_engine", nowhere)
    for _ in range(MAX_LOCK_CONNECTIONS + 1):
        with pytest.raises(BackendError), locks.hold(REF):
            raise AssertionError("unreachable")
