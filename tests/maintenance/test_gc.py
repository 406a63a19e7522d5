"""``gc``: what it deletes, and when it refuses to run, on every file storage."""

from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
import transaction

from kinto_attachment.errors import SweepRefused
from kinto_attachment.maintenance import gc as gc_module
from kinto_attachment.maintenance.server import Server
from kinto_attachment.rows.deletion import Rule
from tests.support.maintenance import check, gc, orphan
from tests.support.site import Site
from tests.support.threads import in_thread

BY_HASH = {
    "kinto.attachment.randomize": "false",
    "kinto.attachment.filename_pattern": "{hash}{extension}",
}


class TestGC:
    def test_nothing_to_do(self, site):
        site.collection().record().upload(b"content")
        assert gc(site) == []
        assert len(site.keys) == 1

    def test_orphans_are_deleted(self, site):
        record = site.collection().record()
        record.upload(b"content")
        key = orphan(record)
        site.put(key)
        assert gc(site, dry_run=True) == [("deleted", key, "")]
        assert key in site.keys
        assert gc(site) == [("deleted", key, "")]
        assert gc(site) == check(site) == []
        record.check(b"content")

    def test_young_ones_are_spared(self, site):
        record = site.collection().record()
        record.upload(b"content")
        site.put(orphan(record))
        assert gc(site, timedelta(hours=1)) == []
        assert gc(site, timedelta(hours=1), offline=True) != []

    def test_objects_of_other_applications_are_reported_and_spared(self, site):
        record = site.collection().record()
        record.upload(b"content")
        site.put("backups/monday.tar")
        assert gc(site, force=True) == [("unknown object", "backups/monday.tar", "")]
        assert "backups/monday.tar" in site.keys

    def test_released_keys_are_deleted(self, site):
        """A process was killed after its commit and before the deletion."""
        record = site.collection().record()
        record.upload(b"content")
        key = orphan(record)
        site.put(key)
        site.in_transaction(lambda: site.releases.add([key], Rule.DELETE))
        assert check(site) == []
        assert gc(site, timedelta(hours=1)) == [("deleted", key, "")]
        assert record.collection.releases == []
        record.check(b"content")

    def test_a_released_key_that_is_linked_stays(self, site):
        record = site.collection().record()
        record.upload(b"content")
        (key,) = site.keys
        site.in_transaction(lambda: site.releases.add([key], Rule.DELETE))
        assert gc(site) == []
        record.check(b"content")

    def test_kept_files_stay(self, make_server, files):
        site = make_server(files, **{"kinto.attachment.keep_old_files": "true"})
        record = site.collection().record()
        record.upload(b"first")
        record.upload(b"second")
        assert gc(site) == []
        assert len(site.keys) == 2

    def test_link_without_record(self, site):
        collection = site.collection()
        record, other = collection.record(), collection.record()
        for one in (record, other):
            one.upload(b"content")
        key = site.key(record.data["attachment"]["location"])
        site.in_transaction(
            lambda: site.registry.storage.delete("record", record.collection.uri, record.id)
        )
        assert gc(site, dry_run=True) == [("released", key, record.place.uri)]
        assert gc(site) == [("deleted", key, ""), ("released", key, record.place.uri)]
        assert check(site) == []
        other.check(b"content")

    def test_a_refused_upload_leaves_nothing(self, make_server, files):
        site = make_server(files, **BY_HASH, **{"kinto.attachment.folder": ""})
        collection = site.collection(schema={"type": "object", "required": ["family"]})
        collection.record().upload(b"refused", status=400)
        collection.record().upload(b"taken", data={"family": "sans"})
        assert len(site.keys) == 2
        assert len(gc(site)) == 1
        assert len(site.keys) == 1
        assert gc(site) == check(site, deep=True) == []

    def test_shared_keys_are_deleted_with_their_last_record(self, make_server, files):
        site = make_server(files, **BY_HASH)
        collection = site.collection()
        first, second, other = (collection.record() for _ in range(3))
        for record in (first, second):
            record.upload(b"same")
        other.upload(b"other")
        first.detach()
        assert gc(site) == []
        second.detach()
        assert len(site.keys) == 2
        assert gc(site, timedelta(hours=1)) == []
        assert len(set(gc(site))) == 1
        assert len(site.keys) == 1
        assert check(site, deep=True) == []

    def test_bytes_that_are_stored_again_meanwhile(self, make_server, files):
        """The reservation is committed before the upload relies on the stored bytes."""
        site = make_server(files, **BY_HASH)
        collection = site.collection()
        record, again = collection.record(), collection.record()
        collection.record().upload(b"other")
        record.upload(b"same")
        record.detach()
        put_bytes, found = site.storage.put, []

        def collect_meanwhile(key, source):
            try:
                put_bytes(key, source)
            finally:
                in_thread(lambda: found.extend(gc(site)))

        site.storage.put = collect_meanwhile
        try:
            again.upload(b"same")
        finally:
            del site.storage.put
        assert found == []
        assert site.read(again.data["attachment"]["location"]) == b"same"
        assert gc(site) == check(site, deep=True) == []

    def test_bytes_that_are_uploaded_while_they_are_deleted(self, make_server, files):
        """An upload of the same bytes waits, and stores them again."""
        site = make_server(files, **BY_HASH)
        collection = site.collection()
        record, again = collection.record(), collection.record()
        collection.record().upload(b"other")
        record.upload(b"same")
        record.detach()
        delete, threads = site.storage.delete, []

        def upload_meanwhile(some):
            threads.append(in_thread(lambda: again.upload(b"same"), timeout=0.5))
            delete(some)

        site.storage.delete = upload_meanwhile
        try:
            assert len(gc(site)) == 1
        finally:
            del site.storage.delete
        threads[0].join(30)
        assert site.read(again.data["attachment"]["location"]) == b"same"
        assert check(site, deep=True) == []

    def test_reservations_of_dead_processes_are_removed(self, site):
        reservations = site.server.plugin.rows.reservations
        site.in_transaction(lambda: reservations.reserve("a"))
        assert site.in_transaction(lambda: reservations.reserved(["a", "b"], 0)) == {"a"}
        gc(site)
        assert site.in_transaction(lambda: reservations.reserved(["a"], 0)) == {"a"}
        gc(site, offline=True)
        assert site.in_transaction(lambda: reservations.reserved(["a"], 0)) == set()

    def test_traces_of_replaced_links_are_removed_after_a_year(self, site, monkeypatch):
        record = site.collection().record()
        record.upload(b"first")
        record.upload(b"second")
        kinds = ("attachment-link", "attachment-former")

        def rows():
            list_all = site.registry.storage.list_all
            return [
                len(list_all(kind, "/attachment-links/*", include_deleted=True)) for kind in kinds
            ]

        assert site.in_transaction(rows) == [2, 1]
        gc(site)
        assert site.in_transaction(rows) == [2, 1]
        monkeypatch.setattr("kinto_attachment.maintenance.gc.REMEMBERED_SECONDS", 0)
        gc(site)
        assert site.in_transaction(rows) == [1, 0]

    def test_unfinished_uploads(self, site, files, monkeypatch):
        record = site.collection().record()
        record.upload(b"content")
        name = orphan(record)
        if files in ("moto", "seaweedfs"):
            where = {"Bucket": site.storage.bucket_name, "Key": name}
            upload = site.storage.client.create_multipart_upload(**where)
            site.storage.client.upload_part(
                **where, UploadId=upload["UploadId"], PartNumber=1, Body=b"x"
            )
        elif files == "local":
            name = ".kinto-attachment-spool-abc"
            (Path(site.storage.base_path) / name).write_bytes(b"x")
        else:
            name = ".kinto-attachment-compose/abc"
            site.put(name)
        expected = [("deleted", name, "")]
        assert [found for found in gc(site, dry_run=True) if found in expected] == expected
        assert [found for found in gc(site) if found in expected] == expected
        assert gc(site) == []
        record.check(b"content")


class TestRefusals:
    def test_memory_storage(self, make_site, file_settings, monkeypatch):
        monkeypatch.setattr(gc_module, "MIN_AGE", timedelta(0))
        site = Site(**file_settings("local"))
        site.server = Server.of(site.registry, transaction.manager)
        site.put(f"a/b/{uuid4()}.txt")
        with pytest.raises(SweepRefused, match="in memory"):
            gc(site)
        assert len(site.keys) == 1

    def test_no_links(self, site):
        record = site.collection().record()
        site.put(orphan(record))
        with pytest.raises(SweepRefused, match="no record has one"):
            gc(site)
        assert len(site.keys) == 1
        assert len(gc(site, force=True)) == 1
        assert site.keys == []

    def test_another_storage(self, site):
        collection = site.collection()
        for _ in range(3):
            collection.record().upload(b"content")
        site.storage.delete(site.keys[1:])
        site.put(orphan(collection.record()))
        with pytest.raises(SweepRefused, match="Only 1 of the 3 files of records are in"):
            gc(site)
        assert len(site.keys) == 2
