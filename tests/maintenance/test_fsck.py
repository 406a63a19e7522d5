"""``fsck``: what it finds, on every file storage."""

import threading
import time
from types import SimpleNamespace
from uuid import uuid4

import pytest

from kinto_attachment.attachments import records
from kinto_attachment.errors import StorageUnavailable
from kinto_attachment.maintenance import fsck as fsck_module
from kinto_attachment.maintenance.fsck import fsck
from tests.support.maintenance import change, check
from tests.support.threads import in_thread


class TestFsck:
    def test_a_consistent_server(self, site):
        collection = site.collection()
        for number in range(5):
            collection.record().upload(b"content %d" % number)
        collection.record().put(family="sans")
        detached = collection.record()
        detached.upload(b"x")
        detached.detach()
        assert check(site) == check(site, deep=True) == []

    def test_missing_object(self, site):
        record = site.collection().record()
        record.upload(b"content")
        (key,) = site.keys
        site.storage.delete([key])
        assert check(site) == [("missing object", key, record.place.uri)]

    def test_wrong_bytes(self, site):
        record = site.collection().record()
        record.upload(b"content")
        (key,) = site.keys
        site.storage.delete([key])
        site.put(key, b"CONTENT")
        assert check(site) == []
        assert check(site, deep=True) == [("wrong bytes", key, record.place.uri)]

    def test_wrong_size(self, site):
        record = site.collection().record()
        record.upload(b"content")
        (key,) = site.keys
        site.storage.delete([key])
        site.put(key, b"conten")
        assert check(site) == [("wrong size", key, record.place.uri)]

    def test_orphan_object(self, site):
        site.collection().record().upload(b"content")
        key = f"b/fonts/{uuid4()}.txt"
        site.put(key)
        site.put("somewhere/else.txt")
        assert check(site) == [
            ("orphan object", key, ""),
            ("unknown object", "somewhere/else.txt", ""),
        ]

    def test_link_without_record(self, site):
        record = site.collection().record()
        record.upload(b"content")
        (key,) = site.keys
        site.in_transaction(
            lambda: site.registry.storage.delete("record", record.collection.uri, record.id)
        )
        assert check(site) == [("link without record", key, record.place.uri)]

    def test_record_with_another_attachment(self, site):
        record = site.collection().record()
        record.upload(b"content")
        (key,) = site.keys
        change(record, location="https://cdn.example/files/other.txt", hash="0" * 64)
        assert check(site) == [
            ("link without record", key, record.place.uri),
            ("record without link", "", record.place.uri),
        ]

    def test_wrong_location(self, site):
        record = site.collection().record()
        record.upload(b"content")
        (key,) = site.keys
        change(record, location="https://cdn.example/files/other.txt")
        assert check(site) == [("wrong location", key, record.place.uri)]

    def test_wrong_hash(self, site):
        record = site.collection().record()
        record.upload(b"content")
        (key,) = site.keys
        change(record, hash="0" * 64)
        assert check(site) == [("wrong hash", key, record.place.uri)]

    def test_unreadable_object(self, site, monkeypatch):
        for _ in range(3):
            site.collection().record().upload(b"content")
        bad, original = site.keys[1], site.storage.open

        def read(key, *bounds):
            if key == bad:
                raise StorageUnavailable(key, "[Errno 5] Input/output error")
            return original(key, *bounds)

        monkeypatch.setattr(site.storage, "open", read)
        assert [kind for kind, _, _ in check(site, deep=True)] == ["unreadable object"]

    def test_a_storage_that_is_down(self, site, monkeypatch):
        for _ in range(11):
            site.collection().record().upload(b"content")

        def fail(key, *bounds):
            raise StorageUnavailable(key, "down")

        monkeypatch.setattr(site.storage, "open", fail)
        with pytest.raises(StorageUnavailable):
            check(site, deep=True)

    def test_an_upload_under_way(self, site, monkeypatch):
        """Its bytes are stored, and its record is about to be written."""
        paused, written = threading.Event(), threading.Event()
        original, seen, threads = records.attach, [], []

        def pause(seconds):
            paused.set()
            assert written.wait(30)

        def attach(*args, **options):
            threads.append(threading.Thread(target=lambda: seen.append(check(site))))
            threads[0].start()
            assert paused.wait(30)
            return original(*args, **options)

        clock = SimpleNamespace(monotonic=time.monotonic, sleep=pause)
        monkeypatch.setattr(fsck_module, "time", clock)
        monkeypatch.setattr(fsck_module, "PAUSE_SECONDS", 60)
        monkeypatch.setattr(records, "attach", attach)
        site.collection().record().upload(b"content")
        written.set()
        threads[0].join()
        assert seen == [[]]

    def test_a_name_that_is_used_again(self, make_server, files, monkeypatch):
        names = {
            "kinto.attachment.randomize": "false",
            "kinto.attachment.filename_pattern": "{filename}",
        }
        site = make_server(files, **names)
        record = site.collection().record()
        record.upload(b"short", "a.txt")
        original = fsck_module.find_records
        left = [1]

        def rows_of(*args):
            if left:
                left.pop()
                in_thread(record.detach)
                in_thread(lambda: record.upload(b"a longer one", "a.txt"))
            return original(*args)

        monkeypatch.setattr(fsck_module, "find_records", rows_of)
        assert check(site, deep=True) == []

    def test_record_without_link(self, site):
        record = site.collection().record()
        record.upload(b"content")
        (link,) = site.in_transaction(lambda: list(site.links.all()))
        site.in_transaction(lambda: site.links.remove(link.ref))
        assert check(site) == [
            ("orphan object", link.key, ""),
            ("record without link", "", record.place.uri),
        ]

    def test_kept_files_are_known(self, make_server, files):
        site = make_server(files, **{"kinto.attachment.keep_old_files": "true"})
        record = site.collection().record()
        record.upload(b"first")
        record.upload(b"second")
        assert len(site.keys) == 2
        assert check(site, deep=True) == []

    def test_private_files(self, make_server, files):
        site = make_server(files, **{"kinto.attachment.private": "true"})
        record = site.collection().record()
        record.upload(b"content")
        assert check(site, deep=True) == []

    def test_every_finding_has_a_remedy(self, site):
        site.put("somewhere/else.txt")
        assert all(finding.remedy for finding in fsck(site.server))
