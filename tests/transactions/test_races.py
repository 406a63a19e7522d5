"""Races of two requests, step by step: afterwards the record has its bytes, whichever won."""

import errno
import os
from contextlib import contextmanager
from hashlib import sha256

import pytest
from sqlalchemy.exc import OperationalError

from kinto_attachment.attachments import context
from kinto_attachment.attachments.writes import guard, listeners
from kinto_attachment.errors import StorageUnavailable
from kinto_attachment.rows import links, paging
from kinto_attachment.rows.deletion import Releases
from kinto_attachment.rows.record_lock import RecordLocks
from kinto_attachment.transactions.files import FileTransaction
from tests.conftest import FILE_STORAGES
from tests.support.selection import mostly
from tests.support.site import ALICE, batch
from tests.support.threads import in_thread

FIELD_NAMES = {"attachment", "cover"}

PLAIN_NAMES = {"kinto.attachment.randomize": "false"}
BY_HASH = {**PLAIN_NAMES, "kinto.attachment.filename_pattern": "{hash}"}


def content(record) -> bytes | None:
    attachment = record.data.get("attachment")
    return record.site.read(attachment["location"]) if attachment else None


@pytest.mark.parametrize(
    "how", ["replace", "detach", "null", "delete", "plural", "collection", "bucket"]
)
@pytest.mark.parametrize("method", ["put_json", "patch_json"])
def test_a_stale_write_never_brings_an_attachment_back(
    make_site, files, between_read_and_write, how, method
):
    site = make_site("postgresql", files)
    record = site.collection().record()
    record.upload(b"first")
    stale, bucket = {**record.data, "family": "sans"}, record.collection.bucket
    null = {"data": {"attachment": None}}
    between_read_and_write(
        {
            "replace": lambda: record.upload(b"second"),
            "detach": record.detach,
            "null": lambda: record.http.patch_json(record.uri, null, headers=ALICE),
            "delete": lambda: record.http.delete(record.uri, headers=ALICE),
            "plural": lambda: delete_with_others(record),
            "collection": lambda: record.http.delete(record.collection.uri, headers=ALICE),
            "bucket": lambda: record.http.delete(f"/buckets/{bucket}", headers=ALICE),
        }[how]
    )
    call = getattr(record.http, method)
    response = call(record.uri, {"data": stale}, headers=ALICE, status="*")
    # The request is repeated with what is there now.
    if how in ("collection", "bucket"):
        assert response.status_int in (403, 404)
        for uri in (f"/buckets/{bucket}", record.collection.uri):
            record.http.put_json(uri, {}, headers=ALICE)
        record.http.get(record.uri, headers=ALICE, status=404)
    elif how in ("delete", "plural"):
        assert response.status_int == (201 if method == "put_json" else 404)
        assert record.snapshot()[3:] == (None, [], [], [])
    else:
        assert response.status_int == 200
        assert response.json["data"] == record.data
        assert record.data["family"] == "sans"
        assert content(record) == (b"second" if how == "replace" else None)


def delete_with_others(record) -> None:
    """Delete more records than are handled one by one."""
    for _ in range(guard.FEW + 1):
        record.collection.record().upload(b"x")
    record.http.delete(f"{record.collection.uri}/records", headers=ALICE)


@pytest.mark.parametrize("method", ["put_json", "patch_json"])
def test_a_stale_write_never_drops_a_first_upload(
    make_site, kinto, files, between_read_and_write, method
):
    record = make_site(kinto, files).collection().record()
    record.put(family="sans")
    between_read_and_write(lambda: record.upload(b"first"))
    call = getattr(record.http, method)
    response = call(record.uri, {"data": {"family": "serif"}}, headers=ALICE, status="*")
    if kinto == "postgresql" and method == "patch_json":
        assert response.status_int == 200
        record.check(b"first")
    else:  # nothing is rolled back, but no file is left over
        assert record.snapshot()[3:] == (None, [], [], [])


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_a_stale_batch_never_drops_a_first_upload(
    make_site, kinto, files, between_read_and_write, method
):
    record = make_site(kinto, files).collection().record()
    record.put(family="sans")
    between_read_and_write(lambda: record.upload(b"first"))
    other = record.collection.record()
    response = batch(
        record,
        (method, record.uri, {"data": {"family": "serif"}}),
        ("PUT", other.uri, {"data": {"family": "mono"}}),
        status="*",
    )
    statuses = [each["status"] for each in response.json["responses"]]
    assert statuses == [200, 201]
    if kinto == "postgresql" and method == "PATCH":
        record.check(b"first")
    else:
        assert record.snapshot()[3:] == (None, [], [], [])
        record.put(family="again")


def test_a_batch_that_drops_a_file_and_writes_on(record):
    record.upload(b"first")
    answer = batch(
        record,
        ("PATCH", record.collection.record().uri, {"data": {}}),
        ("DELETE", record.uri, None),
        ("PUT", record.uri, {"data": {"family": "serif"}}),
        ("PATCH", record.uri, {"data": {"family": "mono"}}),
    )
    assert [each["status"] for each in answer.json["responses"]] == [404, 200, 201, 200]
    assert record.snapshot()[3:] == (None, [], [], [])
    record.upload(b"second")
    answer = batch(
        record,
        ("PUT", record.uri, {"data": {"family": "serif"}}),
        ("PATCH", record.uri, {"data": {"family": "mono"}}),
    )
    assert [each["status"] for each in answer.json["responses"]] == [200, 200]
    assert record.snapshot()[3:] == (None, [], [], [])


def test_a_deletion_that_read_the_record_before_its_first_upload(
    make_site, kinto, files, monkeypatch
):
    site = make_site(kinto, files)
    record = site.collection().record()
    record.put(family="sans")
    original, left = site.registry.storage.get, [lambda: record.upload(b"first")]

    def get_and_wait(resource_name, *args, **kwargs):
        found = original(resource_name, *args, **kwargs)
        if resource_name == "record" and left:
            in_thread(left.pop())
        return found

    monkeypatch.setattr(site.registry.storage, "get", get_and_wait)
    record.http.delete(record.uri, headers=ALICE)
    assert record.snapshot()[0] == 404
    assert record.snapshot()[3:] == (None, [], [], [])


def test_a_deletion_that_meets_a_deletion_and_an_upload(make_site, files, between_read_and_write):
    """The second deletion reads the record without its attachment; it is tried again."""
    record = make_site("postgresql", files).collection().record()
    if record.field != "attachment":
        pytest.skip("uploads to other fields wait for deletions of the record")
    record.upload(b"first")
    storage, get, left = record.site.registry.storage, record.site.registry.storage.get, [3]

    def get_then_without(resource_name, *args, **kwargs):
        found = get(resource_name, *args, **kwargs)
        if resource_name == "record" and left[0]:
            left[0] -= 1
            if not left[0]:
                found.pop(record.field)
        return found

    storage.get = get_then_without
    try:
        record.detach(status=204)
    finally:
        del storage.get
    assert record.snapshot()[3:] == (None, [], [], [])


def test_a_second_loss_does_not_hide_the_first(make_site, files, between_read_and_write):
    record = make_site("postgresql", files).collection().record()
    record.upload(b"first")
    # The first request for the timestamp of a collection writes it, and others wait for that.
    record.http.get(f"{record.collection.uri}/records", headers=ALICE)

    def lose_twice():
        record.detach()
        record.put(attachment=None)

    between_read_and_write(lose_twice)
    body = {"data": {"family": "serif"}}
    record.http.patch_json(record.uri, body, headers=ALICE, status=200)
    assert content(record) is None


@pytest.mark.parametrize("where", ["before the old link is removed", "after"])
@pytest.mark.parametrize("mode", ["transactions", "memory", "no transactions"])
@pytest.mark.parametrize("files", mostly(FILE_STORAGES, {"local", "gcs"}))
def test_two_uploads_that_swap_their_links(make_site, files, monkeypatch, mode, where):
    more = {"kinto.transaction_per_request": "false"} if mode == "no transactions" else {}
    site = make_site("memory" if mode == "memory" else "postgresql", files, **more)
    record = site.collection().record()
    record.upload(b"before")
    threads = []

    def upload_once():
        if not threads:
            threads.append(None)
            threads[0] = in_thread(lambda: record.upload(b"second"), timeout=0.7)

    owner, name = (links.Links, "remove") if where == "after" else (FileTransaction, "link")
    original = getattr(owner, name)

    def meet(*args):
        if where == "after":
            removed = original(*args)
            upload_once()
            return removed
        upload_once()
        return original(*args)

    monkeypatch.setattr(owner, name, meet)
    record.upload(b"first")
    threads[0].join()
    record.check(content(record))


def test_a_put_that_fails_deletes_no_other_file(make_site, kinto, files, monkeypatch):
    """The upload failed before it learned that the name was taken."""
    site = make_site(kinto, files, **PLAIN_NAMES)
    collection = site.collection()
    first, second = collection.record(), collection.record()
    first.upload(b"precious", "a.txt")
    key = site.key(first.data["attachment"]["location"])

    def fail(key, source):
        raise StorageUnavailable(key, "timed out")

    monkeypatch.setattr(site.storage, "put", fail)
    second.upload(b"other", "a.txt", status=503)
    monkeypatch.undo()
    assert content(first) == b"precious"
    assert collection.keys == [key]


def test_a_full_disk(make_site, kinto, monkeypatch):
    site = make_site(kinto, "local", **PLAIN_NAMES)
    record = site.collection().record()
    record.upload(b"before", "a.txt")
    before = record.snapshot()
    spool = site.storage.spool

    class Full:
        """A spool whose buffer cannot be written out, not even when it is closed."""

        def __init__(self, file):
            self._file = file

        def __getattr__(self, name):
            return getattr(self._file, name)

        def flush(self):
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self):
            self._file.close()
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(site.storage, "spool", lambda: Full(spool()))
    response = record.upload(b"after", "a.txt", status=503)
    assert response.json["message"].startswith("The file storage is unavailable")
    monkeypatch.undo()
    assert record.snapshot() == before


def test_a_refused_upload_by_hash_is_known_to_gc(make_site, kinto, files):
    site = make_site(kinto, files, **BY_HASH)
    collection = site.collection(schema={"properties": {"a": {"type": "string"}}})
    record = collection.record()
    record.upload(b"content", data={"a": 1}, status=400)
    (key,) = collection.keys
    assert collection.releases == [("sweep", key)]
    record.upload(b"content", data={"a": "x"}, status=201)
    assert collection.links == [key]


def test_an_upload_during_the_deletion_of_its_collection(make_site, kinto, files, monkeypatch):
    """Kinto did not see the new record. It keeps its file, which others of the same bytes lose."""
    monkeypatch.setattr(paging, "PAGE", 1)
    site = make_site(kinto, files, **BY_HASH)
    collection = site.collection()
    for index in range(3):
        collection.record(f"r{index}").upload(b"same")
    place = collection.record("r1").place
    monkeypatch.setattr(
        listeners,
        "_files_now",
        lambda request, refs: {ref: {place: {}} for ref in refs if ref == place.record},
    )
    # As if the collection had been created again by then.
    monkeypatch.setattr(listeners, "_bury", lambda request, refs: set())
    site.http.delete(collection.uri, headers=ALICE)
    assert len(collection.keys) == 1
    pages = site.in_transaction(lambda: list(site.links.below(collection.bucket)))
    assert [link.ref.record.record for page in pages for link in page] == ["r1"]


def test_a_trusted_copy_while_its_source_is_replaced(make_site, files, monkeypatch):
    site = make_site("postgresql", files)
    source, copy = site.collection().record(), site.collection().record()
    source.upload(b"first")
    attachment = source.data["attachment"]
    for module in (listeners, guard):
        monkeypatch.setattr(module, "is_trusted_copy", lambda request: True)
    original, left, threads = FileTransaction.link, [1], []

    def link(self, *args):
        if left:
            left.pop()
            threads.append(in_thread(lambda: source.upload(b"second"), timeout=2))
        return original(self, *args)

    monkeypatch.setattr(FileTransaction, "link", link)
    copy.put(attachment=attachment)
    threads[0].join()
    assert content(copy) == b"first"
    assert content(source) == b"second"


def test_a_trusted_copy_of_a_replaced_file(make_site, files, monkeypatch):
    site = make_site("postgresql", files)
    source, copy = site.collection().record(), site.collection().record()
    source.upload(b"first")
    attachment = source.data["attachment"]
    having = links.Links.having

    def replaced_meanwhile(self, key):
        found = having(self, key)
        in_thread(lambda: source.upload(b"second"))
        return found

    for module in (listeners, guard):
        monkeypatch.setattr(module, "is_trusted_copy", lambda request: True)
    monkeypatch.setattr(links.Links, "having", replaced_meanwhile)
    body = {"data": {"attachment": attachment}}
    copy.http.put_json(copy.uri, body, headers=ALICE, status=409)
    monkeypatch.undo()
    copy.http.get(copy.uri, headers=ALICE, status=404)
    source.check(b"second")


@pytest.mark.parametrize("target", ["bucket", "collection"])
def test_each_collection_keeps_its_old_files_or_not(make_site, kinto, files, target):
    site = make_site(
        kinto, files, **{"kinto.attachment.resources.mixed.kept.keep_old_files": "true"}
    )
    site.http.put_json("/buckets/mixed", {}, headers=ALICE)
    locations = {}
    for name in ("kept", "other"):
        uri = f"/buckets/mixed/collections/{name}"
        site.http.put_json(uri, {}, headers=ALICE)
        mimetype, body = site.http.encode_multipart([], [("attachment", "a.txt", b"x")])
        locations[name] = site.http.post(
            f"{uri}/records/r/attachment", body, headers={**ALICE, "Content-Type": mimetype}
        ).json["location"]
        if target == "collection":
            site.http.delete(uri, headers=ALICE)
    site.http.delete("/buckets/mixed", headers=ALICE)
    assert site.read(locations["kept"]) == b"x"
    keys = [stat.key for stat in site.storage.list("mixed/")]
    assert keys == [site.key(locations["kept"])]
    site.storage.delete(keys)


def test_a_lost_connection_while_settling(make_site, files, monkeypatch):
    """SQLAlchemy raises an error in the commit after the commit: the response stays the same."""
    site = make_site("postgresql", files)
    record = site.collection().record()
    record.upload(b"first")

    def drop(self, release_id):
        raise OperationalError("COMMIT", {}, Exception("server closed the connection"))

    monkeypatch.setattr(Releases, "drop", drop)
    record.upload(b"second", status=200)
    monkeypatch.undo()
    assert content(record) == b"second"
    assert len(record.collection.releases) == 1
    record.put(family="sans")  # the next request succeeds


def test_equal_keys_where_links_cannot_be_made(make_site, kinto, monkeypatch):
    """The key never exists before its bytes do."""
    site = make_site(kinto, "local", **BY_HASH)
    site.collection().record().upload(b"first")  # the storage has its mark by then
    collection = site.collection()
    rename, seen = os.rename, []

    def no_link(*args, **kwargs):
        raise OSError(errno.EPERM, "no links here")

    def fail(source, destination):
        seen.append(os.path.exists(destination))
        raise OSError(errno.EIO, "I/O error")

    monkeypatch.setattr(os, "link", no_link)
    monkeypatch.setattr(os, "rename", fail)
    collection.record().upload(b"same", status=503)
    assert seen == [False]
    assert collection.keys == []
    monkeypatch.setattr(os, "rename", rename)
    record = collection.record()
    record.upload(b"same", status=201)
    assert content(record) == b"same"
    assert collection.keys == collection.links
    # The first upload may have stored its bytes.
    assert collection.releases == [("sweep", key) for key in collection.keys]


def test_a_record_that_is_created_while_an_append_locks_it(make_site, files, monkeypatch):
    """The lock finds nothing, and the read after it does."""
    site = make_site("postgresql", files, **{"kinto.attachment.fields": "pictures[]"})
    record = site.collection().record()
    original_hold, original_read = RecordLocks.hold, context.read_record
    at_lock, after_read = [b"first"], [b"second"]

    def append(content):
        form = record.http.encode_multipart((), [("pictures", "a.txt", content)])
        headers = {**ALICE, "Content-Type": form[0]}
        record.http.post(f"{record.uri}/attachments/pictures", form[1], headers=headers)

    @contextmanager
    def hold(self, ref):
        with original_hold(self, ref) as found:
            if at_lock:
                in_thread(lambda: append(at_lock.pop()))
            yield found

    def read(request, ref):
        found = original_read(request, ref)
        if found and not at_lock and after_read:
            in_thread(lambda: append(after_read.pop()))
        return found

    monkeypatch.setattr(RecordLocks, "hold", hold)
    monkeypatch.setattr(context, "read_record", read)
    append(b"third")
    hashes = [sha256(each).hexdigest() for each in (b"second", b"first", b"third")]
    assert sorted(each["hash"] for each in record.data["pictures"]) == sorted(hashes)
    assert len(record.collection.keys) == 3
