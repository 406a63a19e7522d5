"""A name that is free again is used again, and no deletion that is late takes the new file."""

import os

import pytest

from kinto_attachment.maintenance.gc import _Collector
from kinto_attachment.transactions.files import FileTransaction
from tests.support.maintenance import check, gc
from tests.support.site import ALICE
from tests.support.threads import in_thread

NAMES = {"kinto.attachment.randomize": "false", "kinto.attachment.folder": "f"}


def before_gc_deletes(monkeypatch, call) -> None:
    """Call something in another thread when ``gc`` is about to delete files."""
    delete, left = _Collector._delete, [call]

    def delete_later(self, keys):
        if keys and left:
            in_thread(left.pop())
        return delete(self, keys)

    monkeypatch.setattr(_Collector, "_delete", delete_later)


@pytest.mark.parametrize("is_deleted", [False, True], ids=["released", "deleted"])
def test_gc_beside_the_request_that_deletes(make_server, files, monkeypatch, is_deleted):
    """The request has released the name, and perhaps deleted the file, when ``gc`` begins."""
    site = make_server(files, **NAMES)
    collection = site.collection()
    one, two = collection.record(), collection.record()
    collection.record().upload(b"other", "other.jpg")
    one.upload(b"first", "a.jpg")
    settle, released = FileTransaction._settle_release, []

    def stop(self, release_id):
        released.append(release_id)
        if is_deleted:
            self._storage.delete(["f/a.jpg"])

    monkeypatch.setattr(FileTransaction, "_settle_release", stop)
    one.detach()
    monkeypatch.setattr(FileTransaction, "_settle_release", settle)

    done = []

    def go_on():
        done.append(True)
        site.storage.delete(["f/a.jpg"])
        site.in_transaction(lambda: site.releases.drop(released[0]))
        two.upload(b"second", "a.jpg")

    before_gc_deletes(monkeypatch, go_on)
    gc(site)
    if not done:
        go_on()
    assert two.http.get(two.attachment_uri, headers=ALICE).body == b"second"
    assert check(site) == []


def test_two_at_once(make_server, monkeypatch):
    """The second deletes an orphan whose name an upload then takes."""
    site = make_server("local", **NAMES)
    collection = site.collection()
    for _ in range(2):
        collection.record().upload(b"other", "other.jpg")
    site.put("f/a.jpg", b"orphan")
    os.utime(site.storage.path("f/a.jpg"), (1e9, 1e9))
    record = collection.record()

    def gc_and_upload():
        gc(site)
        record.upload(b"second", "a.jpg")

    before_gc_deletes(monkeypatch, gc_and_upload)
    gc(site)
    assert record.http.get(record.attachment_uri, headers=ALICE).body == b"second"
    assert check(site) == []


@pytest.mark.parametrize("how", ["detach", "delete", "replace"])
def test_a_stale_write(make_site, between_read_and_write, how):
    """The record gets other bytes under the same name between its read and its write."""
    record = make_site("postgresql", "local", **NAMES).collection().record()
    record.upload(b"first", "image.jpg")
    stale = {**record.data, "family": "sans"}

    def again():
        if how == "detach":
            record.detach()
        elif how == "delete":
            record.http.delete(record.uri, headers=ALICE)
        else:
            record.upload(b"between", "image.jpg")
        record.upload(b"second!!", "image.jpg")

    between_read_and_write(again)
    record.http.put_json(record.uri, {"data": stale}, headers=ALICE)
    assert record.data["attachment"]["size"] == 8
    assert record.http.get(record.attachment_uri, headers=ALICE).body == b"second!!"
