"""Failures of every storage call and of every transaction step, in every operation.

Afterwards the record is unchanged, or changed as asked; ``gc`` deletes what is left over, and then
``fsck`` finds nothing.
"""

from contextlib import contextmanager

import pytest
import transaction
from kinto.core.events import ResourceChanged

from kinto_attachment.errors import StorageUnavailable
from kinto_attachment.maintenance.fsck import fsck
from kinto_attachment.maintenance.gc import collect
from kinto_attachment.maintenance.server import Server
from tests.support.data_manager import FailingDataManager
from tests.support.site import ALICE, Site

BY_HASH = {
    "kinto.attachment.randomize": "false",
    "kinto.attachment.filename_pattern": "{hash}{extension}",
}
BY_NAME = {"kinto.attachment.randomize": "false"}

CALLS = ("spool", "put", "open", "stat", "delete", "list")


def create(record):
    return record.upload(b"created", data={"a": 1}, status="*")


def replace(record):
    record = record.collection.record("there")
    return record.upload(b"replaced", status="*")


def detach(record):
    return record.collection.record("there").detach(status="*")


def delete(record):
    uri = record.collection.record("there").uri
    return record.http.delete(uri, headers=ALICE, status="*")


def delete_all(record):
    return record.http.delete(f"{record.collection.uri}/records", headers=ALICE, status="*")


def delete_collection(record):
    return record.http.delete(record.collection.uri, headers=ALICE, status="*")


def delete_bucket(record):
    uri = f"/buckets/{record.collection.bucket}"
    return record.http.delete(uri, headers=ALICE, status="*")


def put_without(record):
    uri = record.collection.record("there").uri
    return record.http.put_json(uri, {"data": {"a": 2}}, headers=ALICE, status="*")


def patch_null(record):
    uri = record.collection.record("there").uri
    body = {"data": {"attachment": None}}
    return record.http.patch_json(uri, body, headers=ALICE, status="*")


def batch(record):
    there = record.collection.record("there")
    body = {
        "requests": [
            {"method": "DELETE", "path": there.attachment_uri},
            {"method": "PUT", "path": there.uri, "body": {"data": {"a": 3}}},
            {"method": "DELETE", "path": record.collection.record("also").uri},
        ]
    }
    return record.http.post_json("/batch", body, headers=ALICE, status="*")


def download(record):
    uri = record.collection.record("there").attachment_uri
    return record.http.get(uri, headers=ALICE, status="*")


OPERATIONS = [
    *(create, replace, delete, delete_collection, batch, download),
    *(
        pytest.param(one, marks=pytest.mark.slow)
        for one in (detach, delete_all, delete_bucket, put_without, patch_null)
    ),
]


@pytest.fixture(
    params=[
        pytest.param({}, id="random"),
        pytest.param(BY_HASH, id="by hash", marks=pytest.mark.slow),
        pytest.param(BY_NAME, id="by name", marks=pytest.mark.slow),
    ]
)
def site(request, make_database, file_settings, faulty_files):
    settings = {**make_database(), **file_settings(faulty_files)}
    site = Site(**settings, **request.param)
    site.http.put_json("/buckets/other", {}, headers=ALICE)
    site.http.put_json("/buckets/other/collections/c", {}, headers=ALICE)
    yield site
    site.close()


@pytest.fixture(params=["local", pytest.param("moto", marks=pytest.mark.slow)])
def faulty_files(request):
    return request.param


@pytest.fixture
def record(site):
    """A record that does not exist yet, beside some that do."""
    collection = site.collection()
    for name in ("there", "also", "third"):
        collection.record(name).upload(name.encode())
    return collection.record("new")


def state(record) -> dict:
    """Return what a client sees of the records, bytes included."""
    seen = {}
    for name in ("there", "also", "third", "new"):
        one = record.collection.record(name)
        answer = one.http.get(one.uri, headers=ALICE, status="*")
        attachment = answer.json.get("data", {}).get("attachment")
        content = None
        if attachment:
            content = one.http.get(one.attachment_uri, headers=ALICE, status=200).body
        seen[name] = (answer.status_int, answer.json.get("data", {}).get("a"), content)
    return seen


@contextmanager
def failing_call(storage, number: int, after: bool):
    """Let the call of that number fail, before or after it did its work. Yield a list that gets
    the names of all calls."""
    seen: list[str] = []
    originals = {name: getattr(storage, name) for name in CALLS}

    def watched(name):
        def call(*args, **kwargs):
            seen.append(name)
            fails = len(seen) == number
            if fails and not after:
                raise StorageUnavailable("fault", f"{name} fails before")
            result = originals[name](*args, **kwargs)
            if fails:
                if hasattr(result, "close"):
                    result.close()
                raise StorageUnavailable("fault", f"{name} fails after")
            return result

        return call

    for name in CALLS:
        setattr(storage, name, watched(name))
    try:
        yield seen
    finally:
        for name in CALLS:
            delattr(storage, name)


def check_all(site, record, response, before: dict, state=state) -> None:
    """Check that no file is lost, and that none is left over.

    :param state: returns what a client sees, such as ``before``.
    """
    after = state(record)
    if response.status_int >= 400:
        assert after == before
    server = Server.of(site.registry, transaction.manager)
    assert {finding.kind for finding in fsck(server, deep=True)} <= {"orphan object"}
    list(collect(server, offline=True, force=True))
    assert list(fsck(server, deep=True)) == []
    linked = site.in_transaction(lambda: {link.key for link in site.links.all()})
    assert {stat.key for stat in site.storage.list()} == linked
    assert state(record) == after


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_storage_calls(site, operation, after):
    """Let each call of the operation fail, one after the other."""
    number = 1
    while True:
        collection = site.collection()
        for name in ("there", "also", "third"):
            collection.record(name).upload(name.encode())
        record = collection.record("new")
        before = state(record)
        with failing_call(site.storage, number, after) as seen:
            response = operation(record)
        assert response.status_int < 400 or response.status_int in (500, 503)
        check_all(site, record, response, before)
        if len(seen) < number:
            break  # the operation makes no more calls
        number += 1
    assert response.status_int < 400
    if operation in (create, replace):
        assert number > 2


@pytest.mark.parametrize(
    "step, sort_key",
    [
        ("tpc_begin", "!first"),
        ("tpc_begin", "~~last"),
        ("commit", "!first"),
        ("commit", "~~last"),
        ("tpc_vote", "!first"),
        ("tpc_vote", "~~last"),
        ("tpc_finish", "!first"),
        ("tpc_finish", "~~last"),
    ],
)
@pytest.mark.parametrize("operation", [one for one in OPERATIONS if one is not download])
def test_transaction_steps(site, record, operation, step, sort_key):
    before = state(record)
    left = [1]

    def listener(event):
        if left:
            left.pop()
            transaction.get().join(FailingDataManager(step, sort_key))

    site.registry.registerHandler(listener, (ResourceChanged,))
    try:
        response = operation(record)
    finally:
        site.registry.unregisterHandler(listener, (ResourceChanged,))
    assert left == []
    if step == "tpc_finish" or (step, sort_key) == ("tpc_vote", "~~last"):
        # The database has committed in its vote, so the 500 is wrong.
        check_all(site, record, response, state(record))
    else:
        assert response.status_int >= 500
        check_all(site, record, response, before)
