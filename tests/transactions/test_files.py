"""Files and Kinto's transaction: after any failure no file is lost, and none is left over."""

from contextlib import nullcontext

import pytest
import transaction
from kinto.core.events import AfterResourceChanged, ResourceChanged
from kinto.core.storage.exceptions import BackendError, IntegrityError
from pyramid.events import NewRequest

from kinto_attachment.errors import BlobExists, StorageUnavailable
from tests.support.data_manager import FailingDataManager
from tests.support.site import ALICE
from tests.support.streaming import LARGE, STREAMING, watched
from tests.support.threads import in_thread


@pytest.fixture
def on_write(site):
    """Call functions when a record is written, within the transaction."""
    calls = []

    def listener(event):
        for call in calls:
            call()

    site.registry.registerHandler(listener, (ResourceChanged,))
    yield calls.append
    site.registry.unregisterHandler(listener, (ResourceChanged,))


@pytest.fixture(params=["create", "update", "detach"])
def operation(request, record):
    if request.param != "create":
        record.upload(b"before", data={"family": "sans"})
    if request.param == "detach":
        return lambda **options: record.detach(**options)
    return lambda **options: record.upload(b"after", **options)


def test_a_listener_that_raises(record, operation, on_write):
    def fail():
        raise RuntimeError("broken listener")

    before = record.snapshot()
    on_write(fail)
    operation(status=500)
    assert record.snapshot() == before


@pytest.mark.parametrize(
    "step, sort_key",
    [
        ("tpc_begin", "!first"),
        ("tpc_begin", "~~last"),
        ("commit", "!first"),
        ("commit", "~~last"),
        ("tpc_vote", "!first"),  # before the files
        ("tpc_vote", "}between"),  # and before SQLAlchemy, which commits in its vote
    ],
)
def test_a_commit_that_fails(record, operation, on_write, step, sort_key):
    before = record.snapshot()
    on_write(lambda: transaction.get().join(FailingDataManager(step, sort_key)))
    operation(status=500)
    assert record.snapshot() == before


def test_a_commit_in_doubt(make_site, files):
    """The response to COMMIT is lost: the rows are right, and the bytes are there."""
    site = make_site("postgresql", files)
    record = site.collection().record()
    record.upload(b"before")

    def listener(event):
        transaction.get().join(FailingDataManager("tpc_vote", "~~last"))

    site.registry.registerHandler(listener, (ResourceChanged,))
    record.upload(b"after", status=500)
    site.registry.unregisterHandler(listener, (ResourceChanged,))
    data = record.data["attachment"]
    assert data["size"] == len(b"after")
    assert site.read(data["location"]) == b"after"


def test_a_put_that_fails(site, record, monkeypatch):
    record.upload(b"before")
    before = record.snapshot()
    put = site.storage.put

    def fail_after(key, source):
        put(key, source)
        raise StorageUnavailable(key, "the answer was lost")

    monkeypatch.setattr(site.storage, "put", fail_after)
    record.upload(b"after", status=503)
    assert record.snapshot() == before


def test_a_put_with_a_bug(site, record, monkeypatch):
    before = record.snapshot()

    def fail(key, source):
        raise ZeroDivisionError

    monkeypatch.setattr(site.storage, "put", fail)
    record.upload(b"after", status=500)
    assert record.snapshot() == before


def test_a_key_that_is_taken(site, record, monkeypatch):
    put, taken = site.storage.put, []

    def take(key, source):
        if len(taken) < 3:
            taken.append(key)
            raise BlobExists(key)
        put(key, source)

    monkeypatch.setattr(site.storage, "put", take)
    record.upload(b"content", status=201)
    attachment = record.check(b"content")
    assert site.key(attachment["location"]) not in taken


def test_a_delete_that_fails_is_left_to_gc(site, record, monkeypatch):
    first = record.upload(b"first").json

    def fail(keys):
        raise StorageUnavailable(next(iter(keys)))

    monkeypatch.setattr(site.storage, "delete", fail)
    second = record.upload(b"second", status=200).json
    monkeypatch.undo()
    assert site.read(second["location"]) == b"second"
    assert record.collection.releases == [("delete", site.key(first["location"]))]
    assert site.read(first["location"]) == b"first"


def test_a_connection_that_is_lost_after_the_commit(site, record, monkeypatch):
    record.upload(b"first")
    monkeypatch.setattr(
        site.releases, "get", lambda id: (_ for _ in ()).throw(BackendError(message="lost"))
    )
    record.upload(b"second", status=200)
    monkeypatch.undo()
    assert record.collection.releases != []
    assert site.read(record.data["attachment"]["location"]) == b"second"


@pytest.mark.parametrize("failures", [1, 5])
def test_a_conflict_is_tried_again(site, record, operation, monkeypatch, failures):
    """Kinto's timestamps collide after the bytes were stored."""
    left = [failures]
    for name in ("create", "update"):
        original = getattr(site.registry.storage, name)

        def write(resource_name, *args, original=original, **kwargs):
            if resource_name == "record" and left[0]:
                left[0] -= 1
                raise IntegrityError(message="duplicate key")
            return original(resource_name, *args, **kwargs)

        monkeypatch.setattr(site.registry.storage, name, write)
    existed = record.snapshot()[0] == 200
    response = operation()
    monkeypatch.undo()
    assert left == [0]
    if response.status_int == 204:
        assert record.snapshot()[3:] == (None, [], [], [])
    else:
        assert response.status_int == (200 if existed else 201)
        record.check(b"after")


def test_a_conflict_in_a_listener_is_tried_again(site, record, operation, monkeypatch):
    """The history writes entries whose timestamps are unique in the bucket."""
    left, hooks = [3], []
    create = site.registry.storage.create

    def fail(resource_name, *args, **kwargs):
        if resource_name == "history" and left[0]:
            left[0] -= 1
            raise IntegrityError(message="duplicate key")
        return create(resource_name, *args, **kwargs)

    def listener(event):
        hooks.append(event.payload["action"])

    site.registry.registerHandler(listener, (AfterResourceChanged,))
    monkeypatch.setattr(site.registry.storage, "create", fail)
    existed = record.snapshot()[0] == 200
    response = operation()
    monkeypatch.undo()
    site.registry.unregisterHandler(listener, (AfterResourceChanged,))
    assert left == [0]
    assert hooks == ["update" if existed else "create"]
    if response.status_int == 204:
        assert record.snapshot()[3:] == (None, [], [], [])
    else:
        assert response.status_int == (200 if existed else 201)
        record.check(b"after")
    history = f"/buckets/{record.collection.bucket}/history?uri={record.uri}"
    entries = record.http.get(history, headers=ALICE).json["data"]
    assert len(entries) == (2 if existed else 1)


def test_a_conflict_without_end_is_a_409(site, record, operation, monkeypatch):
    before = record.snapshot()

    def fail(*args, **kwargs):
        raise IntegrityError(message="duplicate key")

    for name in ("create", "update"):
        monkeypatch.setattr(site.registry.storage, name, fail)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    operation(status=409)
    monkeypatch.undo()
    assert record.snapshot() == before


def test_a_record_that_is_created_meanwhile(site, record, monkeypatch):
    """Another request creates the record first: the upload becomes an update."""
    put = site.storage.put

    def put_slowly(key, source):
        put(key, source)
        monkeypatch.undo()
        in_thread(lambda: record.put(family="sans"))

    monkeypatch.setattr(site.storage, "put", put_slowly)
    record.upload(b"content", status=200)
    record.check(b"content")
    assert record.data["family"] == "sans"


def test_a_record_that_is_deleted_meanwhile(site, record, monkeypatch):
    record.upload(b"first")
    put = site.storage.put

    def put_slowly(key, source):
        put(key, source)
        monkeypatch.undo()
        in_thread(lambda: record.http.delete(record.uri, headers=ALICE))

    monkeypatch.setattr(site.storage, "put", put_slowly)
    record.upload(b"content", status=201)
    record.check(b"content")


def test_a_collection_that_is_deleted_meanwhile(site, record, monkeypatch):
    put = site.storage.put

    def put_slowly(key, source):
        put(key, source)
        monkeypatch.undo()
        in_thread(lambda: record.http.delete(record.collection.uri, headers=ALICE))

    monkeypatch.setattr(site.storage, "put", put_slowly)
    record.upload(b"content", status=404)
    assert record.collection.keys == record.collection.links == []


def test_a_write_from_before_the_replacement(site, record):
    """A PATCH of something else read the record before an upload replaced the file: it would
    bring the old attachment back, whose bytes are gone."""
    record.upload(b"first")
    old = record.data
    record.upload(b"second")
    storage, get = site.registry.storage, site.registry.storage.get
    stale = [True]

    def get_stale(resource_name, parent_id, object_id, **kwargs):
        if resource_name == "record" and stale:
            return {**old}
        return get(resource_name, parent_id, object_id, **kwargs)

    storage.get = get_stale
    try:
        response = record.http.patch_json(
            record.uri, {"data": {"family": "serif"}}, headers=ALICE, status="*"
        )
    finally:
        del storage.get
    assert response.status_int == 409
    if site.rows.rolls_back:
        record.check(b"second")


@pytest.mark.parametrize("size", [6, LARGE])
def test_no_connection_is_held_while_bytes_move(make_site, files, monkeypatch, size):
    site = make_site("postgresql", files)
    record = site.collection().record()
    record.upload(b"first")
    pool = site.registry.storage.client.session_factory.session_factory.kw["bind"].pool
    seen = []
    for name in ("spool", "put", "delete"):
        original = getattr(site.storage, name)

        def watch(*args, name=name, original=original):
            seen.append((name, pool.checkedout()))
            return original(*args)

        monkeypatch.setattr(site.storage, name, watch)
    is_streamed, is_large = files in STREAMING, size == LARGE
    streams = watched(site.storage, on_call=lambda name: seen.append((name, pool.checkedout())))
    with streams if is_streamed else nullcontext():
        record.upload(bytes(size))
    calls = [name for name, _ in seen if name != "write"]
    whole = ["finish"] if is_streamed and is_large else ["put"]
    assert calls == [*(() if is_streamed else ["spool"]), *whole, "delete"]
    assert {connections for _, connections in seen} == {0}


def test_other_hooks_survive_the_restart(site, record, on_write):
    """Hooks that other plugins added before the body was read still run."""
    called = []

    def listener(event):
        if not hasattr(event.request, "parent"):
            transaction.get().addAfterCommitHook(lambda success: called.append(success))

    site.registry.registerHandler(listener, (NewRequest,))
    record.upload(b"content")
    site.registry.unregisterHandler(listener, (NewRequest,))
    assert called == [True]
