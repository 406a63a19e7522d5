"""Files that ``gc`` never deletes, whatever races it and whatever is misconfigured."""

import os
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import transaction

from kinto_attachment.attachments import records
from kinto_attachment.errors import StorageUnavailable, SweepRefused
from kinto_attachment.maintenance import gc as gc_module
from kinto_attachment.maintenance.fsck import fsck
from kinto_attachment.maintenance.gc import collect
from kinto_attachment.rows import deletion
from kinto_attachment.rows.deletion import Rule
from kinto_attachment.transactions import placement
from kinto_attachment.transactions.files import FileTransaction
from tests.support.maintenance import change
from tests.support.site import ALICE
from tests.support.threads import in_thread

BY_NAME = {"kinto.attachment.randomize": "false", "kinto.attachment.filename_pattern": "{filename}"}
BY_HASH = {"kinto.attachment.randomize": "false", "kinto.attachment.filename_pattern": "{hash}"}
NOW = timedelta(0)


@pytest.fixture
def make(make_server):
    return lambda **settings: make_server("local", **settings)


def age(site):
    """Date all files back by three days."""
    for path in Path(site.storage.base_path).rglob("*"):
        if path.is_file():
            os.utime(path, (time.time() - 3 * 86400,) * 2)


def test_the_file_of_a_wrong_location(make):
    """The location was rewritten by hand."""
    site = make()
    record = site.collection().record()
    record.upload(b"content")
    change(record, location="https://elsewhere.example/oops.jpg")
    assert [finding.kind for finding in collect(site.server, NOW)] == []
    assert len(site.keys) == 1


def test_files_of_more_records_than_a_page(make):
    """There are more links than rows that Kinto returns at once."""
    site = make(**BY_HASH, **{"kinto.storage_max_fetch_size": "20"})
    collection = site.collection()
    for number in range(30):
        collection.record(f"r{number}").upload(b"content %d" % number)
    links = site.in_transaction(lambda: list(site.links.all()))
    for copy in range(3):
        for link in links:
            original = collection.record(link.ref.record.record)
            record = collection.record(f"{original.id}-{copy}")
            site.in_transaction(
                lambda link=link, place=record.place: site.links.add(replace(link, ref=place))
            )
            row = {"id": record.id, record.field: original.row[record.field]}
            site.in_transaction(
                lambda row=row: site.registry.storage.create("record", collection.uri, row)
            )
    site.in_transaction(lambda: site.releases.add(site.keys, Rule.SWEEP))
    age(site)
    assert list(collect(site.server, NOW)) == []
    assert len(site.keys) == 30
    assert list(fsck(site.server)) == []
    site.http.delete(collection.uri, headers=ALICE)
    list(collect(site.server, NOW, offline=True))
    assert site.keys == []


def test_a_name_that_is_used_again(make, monkeypatch):
    """``gc`` has read a release, which the server then settles itself. The name is uploaded again,
    and no record has it yet when ``gc`` comes to delete it."""
    site = make(**BY_NAME)
    collection = site.collection()
    collection.record("r").upload(b"old", "a.txt")
    with monkeypatch.context() as slow:
        slow.setattr(FileTransaction, "settle", lambda self: None)
        collection.record("r").detach()
    finish, attach, left = gc_module._Collector._finish, records.attach, [1]

    def finish_late(self, release, delete):
        if left:
            left.pop()
            in_thread(lambda: settle(site, release.id))
            monkeypatch.setattr(records, "attach", attach_late)
            in_thread(lambda: collection.record("r2").upload(b"new", "a.txt"))
            return
        yield from finish(self, release, delete)

    def attach_late(*args, **options):
        (release,) = [each for each in taken if each]
        in_thread(lambda: list(finish(collector, release, collector._delete_unlinked)))
        return attach(*args, **options)

    taken = site.in_transaction(lambda: list(site.releases.all()))
    before = gc_module.datetime.now(gc_module.timezone.utc) - timedelta(seconds=5)
    collector = gc_module._Collector(site.server, before, before, False)
    monkeypatch.setattr(gc_module._Collector, "_finish", finish_late)
    list(collect(site.server, timedelta(seconds=5)))
    assert site.read(collection.record("r2").data["attachment"]["location"]) == b"new"


def settle(site, release_id):
    site.plugin.begin(transaction.manager)._settle_release(release_id)


def test_released_names_go_when_they_are_old(make, monkeypatch):
    site = make(**BY_NAME)
    record = site.collection().record()
    record.upload(b"old", "a.txt")
    with monkeypatch.context() as dead:
        dead.setattr(FileTransaction, "settle", lambda self: None)
        record.detach()
    assert list(collect(site.server, timedelta(hours=24))) == []
    assert len(record.collection.releases) == 1
    age(site)
    assert [finding.kind for finding in collect(site.server, timedelta(hours=24))] == ["deleted"]
    assert site.keys == record.collection.releases == []


def test_a_folder_of_another_server(make):
    """Two servers share a folder by accident."""
    one = make()
    two = make(**{"kinto.attachment.base_path": one.settings["kinto.attachment.base_path"]})
    for number in range(3):
        one.collection().record().upload(b"%d" % number)
    collection = two.collection()
    for number in range(20):
        collection.record().upload(b"%d" % number)
    age(one)
    with pytest.raises(SweepRefused, match="20 files belong to no record, and only 3"):
        list(collect(one.server))
    assert len(one.keys) == 23


def test_a_deletion_that_may_still_be_under_way(make, monkeypatch):
    """The storage did not answer in time and may still be deleting: the same bytes are not stored
    meanwhile."""
    site = make(**BY_HASH)
    record, other = site.collection().record("r"), site.collection().record("r")
    for each in (record, other):
        each.upload(b"same")
    record.detach()
    (key,) = [key for key in site.keys if record.collection.bucket in key]

    def fail(keys):
        raise StorageUnavailable(key, "timed out")

    with monkeypatch.context() as patch:
        patch.setattr(site.storage, "delete", fail)
        with pytest.raises(StorageUnavailable):
            list(collect(site.server, NOW, offline=True))
    monkeypatch.setattr(placement, "DELETION_WAIT_SECONDS", 0.2)
    record.upload(b"same", status=503)
    monkeypatch.setattr(deletion, "CONDEMNED_SECONDS", 0)
    time.sleep(0.01)
    record.upload(b"same", status=200)
    assert site.read(record.data["attachment"]["location"]) == b"same"


def test_kept_files_are_not_reported_as_deleted(make):
    site = make(**{"kinto.attachment.keep_old_files": "true"})
    collection = site.collection()
    collection.record("r").upload(b"content")
    site.in_transaction(lambda: site.registry.storage.delete_all("record", collection.uri))
    assert [finding.kind for finding in collect(site.server, NOW)] == ["released"]
    assert len(site.keys) == 1
