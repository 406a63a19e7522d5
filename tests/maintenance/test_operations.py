"""What an operator runs: fsck, gc, migrate and rebase, on every file storage."""

import secrets
import threading
import time
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import pytest
import transaction

from kinto_attachment.attachments import records
from kinto_attachment.errors import StorageUnavailable, SweepRefused
from kinto_attachment.files.blob import Source
from kinto_attachment.maintenance import fsck as fsck_module
from kinto_attachment.maintenance.fsck import fsck
from kinto_attachment.maintenance.gc import collect
from kinto_attachment.maintenance.migrate import copy
from kinto_attachment.maintenance.rebase import rebase
from kinto_attachment.maintenance.server import Server
from kinto_attachment.rows.deletion import Rule
from kinto_attachment.rows.key_index import KeyIndex
from kinto_attachment.rows.links import Link
from tests.conftest import in_thread
from tests.support.site import ALICE, Site

NOW = timedelta(0)
BY_HASH = {
    "kinto.attachment.randomize": "false",
    "kinto.attachment.filename_pattern": "{hash}{extension}",
}


@pytest.fixture(
    params=[
        "local",
        "seaweedfs",
        pytest.param("moto", marks=pytest.mark.slow),
        pytest.param("gcs", marks=pytest.mark.slow),
    ]
)
def files(request):
    return request.param


@pytest.fixture
def site(make_server, files):
    return make_server(files)


def put(site, key, content=b"content"):
    """An object that no record has."""
    with site.storage.spool() as file:
        file.write(content)
        file.flush()
        digest = sha256(content).hexdigest()
        site.storage.put(key, Source(file, "a.txt", "text/plain", len(content), digest))


def findings(job) -> list[tuple[str, str, str]]:
    return sorted((finding.kind, finding.key, finding.record) for finding in job)


def change(record, **values):
    """Write the attachment of a record by hand."""
    storage, data = record.site.registry.storage, record.data
    data["attachment"].update(values)
    record.site.in_transaction(
        lambda: storage.update("record", record.collection.uri, record.id, data)
    )


def check(site, **options):
    return findings(fsck(site.server, **options))


def gc(site, older_than=NOW, **options):
    return findings(collect(site.server, older_than, **options))


def keys(site):
    return sorted(stat.key for stat in site.storage.list())


def orphan(record) -> str:
    """The name of an object like those of the record."""
    return f"{record.collection.bucket}/fonts/{uuid4()}.txt"


class TestFsck:
    def test_all_is_well(self, site):
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
        (key,) = keys(site)
        site.storage.delete([key])
        assert check(site) == [("missing object", key, record.uri)]

    def test_wrong_bytes(self, site):
        record = site.collection().record()
        record.upload(b"content")
        (key,) = keys(site)
        site.storage.delete([key])
        put(site, key, b"CONTENT")
        assert check(site) == []
        assert check(site, deep=True) == [("wrong bytes", key, record.uri)]

    def test_wrong_size(self, site):
        record = site.collection().record()
        record.upload(b"content")
        (key,) = keys(site)
        site.storage.delete([key])
        put(site, key, b"conten")
        assert check(site) == [("wrong size", key, record.uri)]

    def test_orphan_object(self, site):
        site.collection().record().upload(b"content")
        key = f"b/fonts/{uuid4()}.txt"
        put(site, key)
        put(site, "somewhere/else.txt")
        assert check(site) == [
            ("orphan object", key, ""),
            ("unknown object", "somewhere/else.txt", ""),
        ]

    def test_link_without_record(self, site):
        record = site.collection().record()
        record.upload(b"content")
        (key,) = keys(site)
        site.in_transaction(
            lambda: site.registry.storage.delete("record", record.collection.uri, record.id)
        )
        assert check(site) == [("link without record", key, record.uri)]

    def test_record_with_another_attachment(self, site):
        record = site.collection().record()
        record.upload(b"content")
        (key,) = keys(site)
        change(record, location="https://cdn.example/files/other.txt", hash="0" * 64)
        assert check(site) == [
            ("link without record", key, record.uri),
            ("record without link", "", record.uri),
        ]

    def test_wrong_location(self, site):
        record = site.collection().record()
        record.upload(b"content")
        (key,) = keys(site)
        change(record, location="https://cdn.example/files/other.txt")
        assert check(site) == [("wrong location", key, record.uri)]

    def test_wrong_hash(self, site):
        record = site.collection().record()
        record.upload(b"content")
        (key,) = keys(site)
        change(record, hash="0" * 64)
        assert check(site) == [("wrong hash", key, record.uri)]

    def test_unreadable_object(self, site, monkeypatch):
        for _ in range(3):
            site.collection().record().upload(b"content")
        bad, original = keys(site)[1], site.storage.open

        def read(key, *bounds):
            if key == bad:
                raise StorageUnavailable(key, "[Errno 5] Input/output error")
            return original(key, *bounds)

        monkeypatch.setattr(site.storage, "open", read)
        assert [kind for kind, _, _ in check(site, deep=True)] == ["unreadable object"]

    def test_a_storage_that_is_down_says_nothing_of_the_files(self, site, monkeypatch):
        for _ in range(11):
            site.collection().record().upload(b"content")

        def fail(key, *bounds):
            raise StorageUnavailable(key, "down")

        monkeypatch.setattr(site.storage, "open", fail)
        with pytest.raises(StorageUnavailable):
            check(site, deep=True)

    def test_an_upload_under_way(self, site, monkeypatch):
        """Its bytes are there, and its record is about to be."""
        monkeypatch.setattr(fsck_module, "PAUSE_SECONDS", 2)
        original, seen, threads = records.attach, [], []

        def attach(*args, **options):
            threads.append(threading.Thread(target=lambda: seen.append(check(site))))
            threads[0].start()
            time.sleep(0.5)
            return original(*args, **options)

        monkeypatch.setattr(records, "attach", attach)
        site.collection().record().upload(b"content")
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
            ("record without link", "", record.uri),
        ]

    def test_kept_files_are_known(self, make_server, files):
        site = make_server(files, **{"kinto.attachment.keep_old_files": "true"})
        record = site.collection().record()
        record.upload(b"first")
        record.upload(b"second")
        assert len(keys(site)) == 2
        assert check(site, deep=True) == []

    def test_private_files(self, make_server, files):
        site = make_server(files, **{"kinto.attachment.private": "true"})
        record = site.collection().record()
        record.upload(b"content")
        assert check(site, deep=True) == []

    def test_remedies(self, site):
        put(site, "somewhere/else.txt")
        assert all(finding.remedy for finding in fsck(site.server))


class TestGC:
    def test_nothing_to_do(self, site):
        site.collection().record().upload(b"content")
        assert gc(site) == []
        assert len(keys(site)) == 1

    def test_orphans(self, site):
        record = site.collection().record()
        record.upload(b"content")
        key = orphan(record)
        put(site, key)
        assert gc(site, dry_run=True) == [("deleted", key, "")]
        assert key in keys(site)
        assert gc(site) == [("deleted", key, "")]
        assert gc(site) == check(site) == []
        record.check(b"content")

    def test_young_ones_are_spared(self, site):
        record = site.collection().record()
        record.upload(b"content")
        put(site, orphan(record))
        assert gc(site, timedelta(hours=1)) == []
        assert gc(site, timedelta(hours=1), offline=True) != []

    def test_names_of_others_are_told_and_spared(self, site):
        record = site.collection().record()
        record.upload(b"content")
        put(site, "backups/monday.tar")
        assert gc(site, force=True) == [("unknown object", "backups/monday.tar", "")]
        assert "backups/monday.tar" in keys(site)

    def test_released_keys(self, site):
        """A process was killed between its commit and the deletion."""
        record = site.collection().record()
        record.upload(b"content")
        key = orphan(record)
        put(site, key)
        site.in_transaction(lambda: site.releases.add([key], Rule.DELETE))
        assert check(site) == []
        assert gc(site, timedelta(hours=1)) == [("deleted", key, "")]
        assert record.collection.releases == []
        record.check(b"content")

    def test_a_released_key_that_is_linked_stays(self, site):
        record = site.collection().record()
        record.upload(b"content")
        (key,) = keys(site)
        site.in_transaction(lambda: site.releases.add([key], Rule.DELETE))
        assert gc(site) == []
        record.check(b"content")

    def test_kept_files_stay(self, make_server, files):
        site = make_server(files, **{"kinto.attachment.keep_old_files": "true"})
        record = site.collection().record()
        record.upload(b"first")
        record.upload(b"second")
        assert gc(site) == []
        assert len(keys(site)) == 2

    def test_link_without_record(self, site):
        collection = site.collection()
        record, other = collection.record(), collection.record()
        for one in (record, other):
            one.upload(b"content")
        key = site.key(record.data["attachment"]["location"])
        site.in_transaction(
            lambda: site.registry.storage.delete("record", record.collection.uri, record.id)
        )
        assert gc(site, dry_run=True) == [("released", key, record.uri)]
        assert gc(site) == [("deleted", key, ""), ("released", key, record.uri)]
        assert check(site) == []
        other.check(b"content")

    def test_a_refused_upload_leaves_nothing(self, make_server, files):
        site = make_server(files, **BY_HASH, **{"kinto.attachment.folder": ""})
        collection = site.collection(schema={"type": "object", "required": ["family"]})
        collection.record().upload(b"refused", status=400)
        collection.record().upload(b"taken", data={"family": "sans"})
        assert len(keys(site)) == 2
        assert len(gc(site)) == 1
        assert len(keys(site)) == 1
        assert gc(site) == check(site, deep=True) == []

    def test_shared_keys_go_when_nobody_has_them(self, make_server, files):
        site = make_server(files, **BY_HASH)
        collection = site.collection()
        first, second, other = (collection.record() for _ in range(3))
        for record in (first, second):
            record.upload(b"same")
        other.upload(b"other")
        first.detach()
        assert gc(site) == []
        second.detach()
        assert len(keys(site)) == 2
        assert gc(site, timedelta(hours=1)) == []
        assert len(set(gc(site))) == 1
        assert len(keys(site)) == 1
        assert check(site, deep=True) == []

    def test_what_is_just_being_stored_again(self, make_server, files):
        """A claim is committed before the bytes are taken as there."""
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

    def test_what_is_just_being_deleted(self, make_server, files):
        """An upload of the same bytes waits, and stores them anew."""
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

    def test_claims_of_the_dead_end(self, site):
        claims = site.server.plugin.rows.reservations
        site.in_transaction(lambda: claims.reserve("a"))
        assert site.in_transaction(lambda: claims.reserved(["a", "b"], 0)) == {"a"}
        gc(site)
        assert site.in_transaction(lambda: claims.reserved(["a"], 0)) == {"a"}
        gc(site, offline=True)
        assert site.in_transaction(lambda: claims.reserved(["a"], 0)) == set()

    def test_stale_writes_are_forgotten(self, site):
        record = site.collection().record()
        record.upload(b"first")
        record.upload(b"second")
        where = ("attachment-link", "/attachment-links/*")

        def rows():
            return len(site.registry.storage.list_all(*where, include_deleted=True))

        assert site.in_transaction(rows) == 2
        gc(site, timedelta(hours=1))
        assert site.in_transaction(rows) == 2
        gc(site)
        assert site.in_transaction(rows) == 1

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
            put(site, name)
        expected = [("deleted", name, "")]
        assert [found for found in gc(site, dry_run=True) if found in expected] == expected
        assert [found for found in gc(site) if found in expected] == expected
        assert gc(site) == []
        record.check(b"content")


class TestRefusals:
    def test_memory_storage(self, make_site, file_settings):
        site = Site(**file_settings("local"))
        site.server = Server.of(site.registry, transaction.manager)
        put(site, f"a/b/{uuid4()}.txt")
        with pytest.raises(SweepRefused, match="in memory"):
            gc(site)
        assert len(keys(site)) == 1

    def test_no_links(self, site):
        record = site.collection().record()
        put(site, orphan(record))
        with pytest.raises(SweepRefused, match="No record has a file"):
            gc(site)
        assert len(keys(site)) == 1
        assert len(gc(site, force=True)) == 1
        assert keys(site) == []

    def test_another_storage(self, site):
        collection = site.collection()
        for _ in range(3):
            collection.record().upload(b"content")
        site.storage.delete(keys(site)[1:])
        put(site, orphan(collection.record()))
        with pytest.raises(SweepRefused, match="Of 3 files of records, 1 are in this storage"):
            gc(site)
        assert len(keys(site)) == 2


class TestMigrate:
    @pytest.fixture(params=["local", "seaweedfs", pytest.param("gcs", marks=pytest.mark.slow)])
    def target(self, request, make_site):
        return make_site("memory", request.param, **{"kinto.app": uuid4().hex}).storage

    def run(self, site, target, **options):
        return findings(copy(site.server, target, **options))

    def test_copies_what_records_have(self, site, target):
        collection = site.collection()
        contents = {}
        for number in range(4):
            record = collection.record()
            content = secrets.token_bytes(1000 * number)
            contents[site.key(record.upload(content, f"a{number}.pdf").json["location"])] = content
        assert {kind for kind, _, _ in self.run(site, target, dry_run=True)} == {"copied"}
        assert list(target.list()) == []
        assert [key for _, key, _ in self.run(site, target)] == sorted(contents)
        for key, content in contents.items():
            assert b"".join(target.open(key)) == content
        assert self.run(site, target) == []

    def test_goes_on(self, site, target):
        collection = site.collection()
        for _ in range(3):
            collection.record().upload(b"content")
        job = copy(site.server, target)
        next(job)
        job.close()
        assert len(list(target.list())) == 1
        collection.record().upload(b"meanwhile")
        assert len(self.run(site, target)) == 3

    def test_what_is_replaced_meanwhile(self, site, target):
        record = site.collection().record()
        record.upload(b"first")
        job = copy(site.server, target)
        next(job)
        record.upload(b"second")
        assert list(job) == []
        assert len(self.run(site, target)) == 1
        assert set(keys(site)) < {stat.key for stat in target.list()}  # gc there takes the other

    def test_damage_is_not_copied(self, site, target):
        record = site.collection().record()
        record.upload(b"content")
        (key,) = keys(site)
        site.storage.delete([key])
        assert self.run(site, target) == [("missing object", key, record.uri)]
        put(site, key, b"CONTENT")
        assert self.run(site, target) == [("wrong bytes", key, record.uri)]
        assert list(target.list()) == []

    def test_kept_files_move_too(self, make_server, files, target):
        site = make_server(files, **{"kinto.attachment.keep_old_files": "true"})
        record = site.collection().record()
        record.upload(b"first")
        record.upload(b"second")
        assert len(self.run(site, target)) == 2
        assert sorted(stat.key for stat in target.list()) == keys(site)


class TestRebase:
    OLD, NEW = "https://cdn.example/files/", "https://other.example/"

    def test_locations(self, site):
        collection = site.collection()
        records = [collection.record() for _ in range(3)]
        for record in records:
            record.upload(b"content", data={"family": "sans"})
        plain = collection.record()
        plain.put(family="serif")
        before = [record.data for record in (*records, plain)]
        assert len(findings(rebase(site.server, self.OLD, self.NEW, dry_run=True))) == 3
        assert [record.data for record in (*records, plain)] == before
        assert len(findings(rebase(site.server, self.OLD, self.NEW))) == 3
        for record, old in zip((*records, plain), before, strict=True):
            new = record.data
            if record is plain:
                assert new == old
                continue
            assert new["last_modified"] > old["last_modified"]
            location = old["attachment"]["location"].replace(self.OLD, self.NEW)
            expected = {**old, "attachment": {**old["attachment"], "location": location}}
            assert {**new, "last_modified": 0} == {**expected, "last_modified": 0}
        assert findings(rebase(site.server, self.OLD, self.NEW)) == []
        assert check(site, deep=True) == []

    def test_everything_still_works(self, site):
        record = site.collection().record()
        record.upload(b"content")
        findings(rebase(site.server, self.OLD, self.NEW))
        assert record.http.get(record.attachment_uri, headers=ALICE).body == b"content"
        record.upload(b"newer")
        record.check(b"newer")

    def test_relative_ones(self, make_server, files):
        site = make_server(files, **{"kinto.attachment.base_url": ""})
        record = site.collection().record()
        location = record.upload(b"content").json["location"]
        for old, new in (("", self.NEW), (self.NEW, self.OLD), (self.OLD, "")):
            assert len(findings(rebase(site.server, old, new))) == 1
            assert record.data["attachment"]["location"] == new + location
            assert findings(rebase(site.server, old, new)) == []

    def test_a_write_meanwhile_is_not_lost(self, site, monkeypatch):
        record = site.collection().record()
        record.upload(b"content")
        update, threads, left = site.registry.storage.update, [], [1]

        def patch():
            record.http.patch_json(record.uri, {"data": {"family": "sans"}}, headers=ALICE)

        def update_while_patched(resource_name, *args, **kwargs):
            if resource_name == "record" and left:
                left.pop()
                threads.append(in_thread(patch, timeout=0.5))
            return update(resource_name, *args, **kwargs)

        monkeypatch.setattr(site.registry.storage, "update", update_while_patched)
        job = rebase(site.server, self.OLD, self.NEW)
        next(job)
        threads[0].join(30)
        findings(job)
        data = record.data
        assert (data["family"], data["attachment"]["location"][:21]) == ("sans", self.NEW[:21])


def test_a_million_keys_need_no_memory():
    import tracemalloc

    known = KeyIndex()
    tracemalloc.start()
    known.add((f"some/folder/{number:036}.jpg", number) for number in range(100_000))
    assert sum(1 for _ in known) == len(known) == 100_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000


def test_link_is_of():
    from kinto_attachment.files.ref import RecordRef

    link = Link(RecordRef("a", "b", "c"), "x/y.png", "12")
    assert link.is_of({"location": "https://a.example/x/y.png"})
    assert not link.is_of({"location": "https://a.example/xx/y.png"[:-1]})
    assert not link.is_of(None)
