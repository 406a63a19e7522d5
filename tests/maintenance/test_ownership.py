"""A storage knows which database it belongs to."""

import json
import logging
import os
import threading
import time
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from uuid import uuid4

import psycopg2
import pytest
from kinto.core.storage.exceptions import BackendError

from kinto_attachment.errors import ForeignStorage, StorageUnavailable
from kinto_attachment.files.blob import Source
from kinto_attachment.files.key import MARKER, marked_folder
from kinto_attachment.maintenance.adopt_storage import adopt_storage
from kinto_attachment.maintenance.fsck import fsck
from kinto_attachment.maintenance.gc import collect
from kinto_attachment.maintenance.migrate import copy
from kinto_attachment.rows import identity
from kinto_attachment.settings import read_settings
from kinto_attachment.storage import open_storage
from kinto_attachment.transactions import ownership
from kinto_attachment.transactions.ownership import OwnedStorage
from tests.support.maintenance import findings
from tests.support.site import ALICE

OFFLINE = {"older_than": timedelta(0), "offline": True}


@pytest.fixture(params=["local", "seaweedfs"])
def files(request):
    return request.param


@pytest.fixture
def two(make_server, files, file_settings):
    """Two servers with databases of their own on one storage; the first one has a file."""
    settings = file_settings(files)
    one, other = (make_server(files, **settings) for _ in range(2))
    record = one.collection().record()
    record.upload(b"content")
    return one, other, record


def kinds(job) -> list[str]:
    return [kind for kind, _, _ in findings(job)]


def owner(site) -> str:
    return json.loads(b"".join(site.storage.open(MARKER)))["owner"]


def put_marker(site, content: bytes) -> None:
    storage = site.storage.inner
    storage.delete([MARKER])
    with storage.spool() as file:
        file.write(content)
        file.flush()
        storage.put(MARKER, Source(file, "a.json", "application/json", len(content), ""))


def identity_rows(site) -> list[dict]:
    rows = identity.IDENTITY_ROWS, identity.IDENTITY_PARENT
    return site.in_transaction(lambda: site.registry.storage.list_all(*rows))


def adopt(site, answer=True, **options):
    asked = []

    def confirm(whose):
        asked.append(whose)
        return answer

    return kinds(adopt_storage(site.server, confirm, **options)), asked


class TestForeignStorage:
    def test_gc_deletes_nothing(self, two):
        one, other, record = two
        for _ in range(12):  # more than a new server is forgiven
            other.collection().record().upload(b"x")
        before = other.keys
        for options in ({}, {"force": True}, {"dry_run": True}):
            with pytest.raises(ForeignStorage, match="adopt-storage"):
                list(collect(other.server, **OFFLINE, **options))
        assert other.keys == before
        assert record.http.get(record.attachment_uri, headers=ALICE).body == b"content"

    def test_fsck_finds_it_and_advises_no_gc(self, two):
        one, other, _ = two
        assert findings(fsck(one.server)) == []
        (finding,) = fsck(other.server)
        assert (finding.kind, finding.remedy) == (
            "foreign storage",
            "kinto-attachment adopt-storage",
        )

    def test_migrate_does_not_fill_it(self, two, make_server):
        one, other, _ = two
        third = make_server("local")
        third.collection().record().upload(b"third")
        with pytest.raises(ForeignStorage):
            list(copy(third.server, one.storage))
        assert one.keys == other.keys

    def test_it_is_served_with_a_warning(self, two, caplog):
        one, other, _ = two
        with caplog.at_level(logging.WARNING):
            record = other.collection().record()
            assert record.upload(b"x").status_code == 201
            record.upload(b"y", status=200)
        assert len([m for m in caplog.messages if "belongs to the database" in m]) == 1
        assert other.read(record.data["attachment"]["location"]) == b"y"

    def test_what_loses_its_last_link_stays_until_it_is_adopted(self, two):
        _, other, _ = two
        record = other.collection().record()
        record.upload(b"x")
        record.detach()
        assert [rule for rule, _ in record.collection.releases] == ["delete"]
        assert len(record.collection.keys) == 1
        assert adopt(other)[0] == ["adopted"]
        list(collect(other.server, **OFFLINE, force=True))
        assert record.collection.keys == record.collection.releases == []

    def test_is_told_at_the_start(self, two, make_server, files, caplog):
        one, _, _ = two
        own = {name: value for name, value in one.settings.items() if ".attachment." in name}
        with caplog.at_level(logging.WARNING):
            third = make_server(files, **own)
        assert third.storage.claim().is_foreign
        (message,) = [m for m in caplog.messages if "belongs to the database" in m]
        assert "kinto-attachment adopt-storage" in message
        assert identity_rows(third) == []

    def test_a_mark_that_cannot_be_read_now(self, two, monkeypatch):
        """The storage is out of order when a process looks for the first time."""
        _, other, _ = two
        record = other.collection().record()
        record.upload(b"x")
        other.storage._seen_by, other.storage._is_foreign = 0, False
        read, left = other.storage.inner.open, [1]

        def fail_once(key, *args):
            if key == MARKER and left:
                left.pop()
                raise StorageUnavailable(key, "503 SlowDown")
            return read(key, *args)

        monkeypatch.setattr(other.storage.inner, "open", fail_once)
        record.detach()
        assert not left and len(record.collection.keys) == 1
        record.upload(b"y")
        record.detach()
        assert len(record.collection.keys) == 2

    def test_a_process_notices_that_another_database_adopts_it(self, two, monkeypatch):
        one, other, record = two
        assert adopt(other)[0] == ["adopted"]
        monkeypatch.setattr(ownership, "TRUST_SECONDS", 0)
        record.detach()
        assert len(record.collection.keys) == 1


class TestStart:
    """A server starts whatever its storage and its database do."""

    def test_with_a_storage_that_fails(self, make_server, monkeypatch, caplog):
        def fail(storage):
            raise StorageUnavailable(MARKER, "no route to host")

        monkeypatch.setattr(OwnedStorage, "claim", fail)
        make_server("local").http.get("/")
        assert [m for m in caplog.messages if "no route to host" in m]

    def test_with_a_storage_that_does_not_respond(self, make_server, monkeypatch):
        over = threading.Event()

        def hang(storage):
            over.wait(60)
            raise StorageUnavailable(MARKER)

        monkeypatch.setattr(OwnedStorage, "claim", hang)
        monkeypatch.setattr(ownership, "START_SECONDS", 0.1)
        started = time.monotonic()
        make_server("local").http.get("/")
        assert time.monotonic() - started < 30
        over.set()

    def test_leaves_no_connection_to_processes_that_are_forked_later(self, make_server):
        site = make_server("local")
        site.collection()
        (pool,) = {
            backend.client.session_factory.session_factory.kw["bind"]
            for backend in (site.registry.storage, site.registry.permission)
        }
        assert pool.pool.checkedin()
        site.storage.warn()
        assert not pool.pool.checkedin()


class TestTwoDatabases:
    """Both mark the storage at the same time: one of them has to see that it is not its own."""

    @pytest.fixture
    def at_once(self, make_server, file_settings, files, monkeypatch):
        settings = file_settings(files)
        one, other = (make_server(files, **settings) for _ in range(2))
        put = one.storage.inner.put

        def put_late(key, source):
            if key == MARKER:
                other.storage._look()
            return put(key, source)

        monkeypatch.setattr(one.storage.inner, "put", put_late)
        return one, other

    def are_owners(self, sites) -> list[bool]:
        return [identity_rows(site)[0]["owner"] == owner(site) for site in sites]

    def test_upload(self, at_once, monkeypatch):
        one, other = at_once
        one.collection().record().upload(b"content")
        owners = self.are_owners(at_once)
        assert sorted(owners) == [False, True]
        assert one.storage.may_delete_released() is owners[0]
        monkeypatch.setattr(ownership, "TRUST_SECONDS", 0)
        assert other.storage.may_delete_released() is owners[1]

    def test_gc(self, at_once):
        one, other = at_once
        if one.storage.exclusive:  # the mark of the other one stays
            with pytest.raises(ForeignStorage):
                list(collect(one.server, **OFFLINE))
        else:
            assert list(collect(one.server, **OFFLINE)) == []
        assert self.are_owners(at_once) == [not one.storage.exclusive, one.storage.exclusive]


class TestTwoProcesses:
    """Both look at a new storage at the same time: one marks it and stores a file before the other
    one has looked at everything."""

    @pytest.mark.parametrize("step", ["list", "find", "put"])
    def test_upload(self, make_server, files, monkeypatch, step):
        site = make_server(files)
        record, other = (site.collection().record() for _ in range(2))
        process = OwnedStorage(site.storage.inner, site.rows.identities)
        part = site.rows.identities if step == "find" else site.storage.inner
        call, left = getattr(part, step), [1]

        def late(*args):
            if left:
                left.pop()
                with process.spool() as file:
                    file.write(b"content")
                    file.flush()
                    process.put("a/b.txt", Source(file, "b.txt", "text/plain", 7, ""))
            return call(*args)

        monkeypatch.setattr(part, step, late)
        record.upload(b"content", status=201)
        assert not left
        other.upload(b"content", status=201)
        assert site.storage.claim().is_settled


class TestAdoptStorage:
    def test_says_whose_it_is_and_asks(self, two):
        one, other, _ = two
        before = owner(one)
        with pytest.raises(ForeignStorage):
            adopt(other, answer=False)
        assert adopt(other, dry_run=True) == (["adopted"], [])
        assert owner(one) == before
        found, asked = adopt(other)
        assert found == ["adopted"] and before in asked[0]
        assert owner(one) != before
        assert kinds(fsck(one.server)) == ["foreign storage"]

    def test_its_own(self, two):
        assert adopt(two[0]) == ([], [])

    def test_a_marker_that_cannot_be_read(self, make_server, files):
        site = make_server(files)
        site.collection().record().upload(b"content")
        for content in (b"[]", b"\xff", b"", b"{}"):
            put_marker(site, content)
            assert kinds(fsck(site.server)) == ["foreign storage"]
        assert adopt(site)[0] == ["adopted"]
        assert kinds(fsck(site.server)) == []


class TestMarker:
    def test_is_no_orphan(self, make_server, files):
        site = make_server(files)
        site.collection().record().upload(b"content")
        assert owner(site)
        assert findings(fsck(site.server)) == findings(collect(site.server, **OFFLINE)) == []
        assert owner(site)

    def test_a_storage_from_before_there_were_markers(self, make_server, files):
        site = make_server(files)
        site.collection().record().upload(b"content")
        site.storage.delete([MARKER])
        site.in_transaction(
            lambda: site.registry.storage.delete_all(
                identity.IDENTITY_ROWS, identity.IDENTITY_PARENT
            )
        )
        assert findings(fsck(site.server)) == []
        assert findings(collect(site.server, **OFFLINE)) == []
        assert owner(site)

    def test_from_before_there_were_nonces(self, make_server, files):
        site = make_server(files)
        site.collection().record().upload(b"content")
        old = {"owner": owner(site), "folders": []}
        (row,) = identity_rows(site)
        site.in_transaction(
            lambda: site.registry.storage.update(
                identity.IDENTITY_ROWS, identity.IDENTITY_PARENT, row["id"], old
            )
        )
        put_marker(site, json.dumps({"owner": owner(site)}).encode())
        assert findings(fsck(site.server)) == findings(collect(site.server, **OFFLINE)) == []
        assert json.loads(b"".join(site.storage.open(MARKER)))["nonce"]
        assert findings(fsck(site.server)) == []

    def test_no_file_is_left_if_the_database_fails(self, make_server, files, monkeypatch):
        """The first upload of a process also reads the mark, and writes it."""
        by_name = {
            "kinto.attachment.randomize": "false",
            "kinto.attachment.filename_pattern": "{filename}",
        }
        site = make_server(files, **by_name)
        record = site.collection().record()

        def fail():
            raise BackendError(message="The database is down.")

        for call in ("get", "find"):
            with monkeypatch.context() as patch:
                patch.setattr(site.rows.identities, call, fail)
                record.upload(b"content", status=503)
            assert site.keys == []
        record.upload(b"content", status=201)

    def test_only_a_write_makes_it(self, make_server, files):
        """Neither the start nor ``fsck`` does: the database may be read-only."""
        site = make_server(files)
        assert findings(fsck(site.server)) == []
        assert findings(collect(site.server, dry_run=True)) == []
        assert identity_rows(site) == []
        assert list(site.storage.backend.list()) == []

    def test_outlives_a_flush(self, make_server, files):
        site = make_server(files)
        site.collection().record().upload(b"content")
        site.http.post("/__flush__", headers=ALICE)
        assert findings(fsck(site.server)) == []

    def test_a_copy_of_a_database_is_another_one(self, make_server, files):
        """A staging server is restored from the dump of a production server."""
        site = make_server(files)
        site.collection().record().upload(b"content")
        site.close()
        url = copy_database(site.settings["kinto.storage_url"])
        urls = {"kinto.storage_url": url, "kinto.permission_url": url}
        staging = make_server(files, **{**site.settings, **urls})
        assert len(staging.in_transaction(lambda: list(staging.links.all()))) == 1
        assert kinds(fsck(staging.server)) == ["foreign storage"]
        with pytest.raises(ForeignStorage):
            list(collect(staging.server, **OFFLINE))


def copy_database(url: str) -> str:
    with closing(psycopg2.connect(url)) as connection:
        name, copied = connection.info.dbname, f"kinto_{uuid4().hex}"
    with closing(psycopg2.connect(url.replace(name, "postgres"))) as connection:
        connection.autocommit = True  # CREATE DATABASE is not for transactions
        cursor = connection.cursor()
        # No session may use the database meanwhile, not even one of PostgreSQL's own.
        query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
        cursor.execute(query, (name,))
        cursor.execute(f"CREATE DATABASE {copied} TEMPLATE {name}")
    return url.replace(name, copied)


class TestPrefix:
    @pytest.fixture
    def servers(self, make_server, files, file_settings):
        settings = file_settings(files)
        return [
            make_server(files, **settings, **{"kinto.attachment.prefix": prefix})
            for prefix in ("one", "two/deep/", "")
        ]

    def test_each_sees_its_own(self, servers):
        records = []
        for number, site in enumerate(servers):
            record = site.collection().record()
            record.upload(b"%d" % number)
            records.append(record)
        for number, (site, record) in enumerate(zip(servers, records, strict=True)):
            assert len({owner(site) for site in servers}) == 3
            assert findings(fsck(site.server, deep=True)) == []
            assert findings(collect(site.server, **OFFLINE)) == []
            got = record.http.get(record.attachment_uri, headers=ALICE)
            assert got.body == b"%d" % number

    def test_is_in_the_location_and_before_every_key(self, servers):
        site = servers[1]
        record = site.collection().record()
        record.upload(b"content")
        base_url = site.settings["kinto.attachment.base_url"]
        location = record.data["attachment"]["location"]
        assert location.startswith(f"{base_url}two/deep/{record.collection.bucket}/")
        raw = open_storage(
            read_settings(
                {
                    name.removeprefix("kinto."): value
                    for name, value in site.settings.items()
                    if name.startswith("kinto.attachment.") and not name.endswith(".prefix")
                }
            )
        )
        keys = [stat.key for stat in raw.list()]
        assert sorted(keys) == sorted([location.removeprefix(base_url), f"two/deep/{MARKER}"])
        record.detach()
        assert [stat.key for stat in raw.list()] == [f"two/deep/{MARKER}"]

    def test_gc_of_the_whole_leaves_what_is_below_a_prefix(self, make_server, files, file_settings):
        """The keys below the prefix look like those of the server without one."""
        settings = {**file_settings(files), "kinto.attachment.folder": "{bucket_id}"}
        whole = make_server(files, **settings)
        part = make_server(files, **settings, **{"kinto.attachment.prefix": "bucket"})
        whole.collection().record().upload(b"whole")
        record = part.collection().record()
        record.upload(b"part")
        assert findings(collect(whole.server, **OFFLINE)) == []
        assert findings(fsck(whole.server)) == []
        assert record.http.get(record.attachment_uri, headers=ALICE).body == b"part"

    def test_a_prefix_whose_mark_is_young(self, make_server, files, file_settings, monkeypatch):
        """It was adopted just now, and the files are older."""
        settings = {**file_settings(files), "kinto.attachment.folder": "{bucket_id}"}
        whole = make_server(files, **settings)
        part = make_server(files, **settings, **{"kinto.attachment.prefix": "bucket"})
        whole.collection().record().upload(b"whole")
        part.collection().record().upload(b"part")
        before, stats = part.keys, whole.storage.inner.list

        def list_later(prefix=""):
            later = datetime.now(timezone.utc) + timedelta(hours=1)
            for stat in stats(prefix):
                yield replace(stat, modified=later) if marked_folder(stat.key) else stat

        monkeypatch.setattr(whole.storage.inner, "list", list_later)
        time.sleep(1.1)  # SeaweedFS knows whole seconds
        assert findings(collect(whole.server, timedelta(0))) == []
        assert part.keys == before


class TestVanishedFolder:
    @pytest.fixture
    def site(self, make_server):
        return make_server("local")

    def heartbeat(self, site):
        return site.http.get("/__heartbeat__", status="*").json["attachments"]

    @pytest.mark.parametrize("is_new", [False, True])
    @pytest.mark.parametrize("mount_point", [False, True])
    def test_is_not_made_again(self, site, make_server, is_new, mount_point):
        """:param is_new: whether the process has never seen the folder."""
        record = site.collection().record()
        record.upload(b"content")
        root = Path(site.storage.base_path)
        root.rename(root.with_name("unmounted"))
        if mount_point:
            root.mkdir()
        if is_new:
            site.storage._seen_by = 0
        record.upload(b"new", status=503)
        site.http.post("/media", b"new", headers=ALICE, status=503)
        assert self.heartbeat(site) is False
        assert list(root.rglob("*")) == [] if mount_point else not root.exists()
        record.http.get(record.attachment_uri, headers=ALICE, status=503)
        (finding,) = fsck(site.server, deep=True)
        assert finding.kind == "missing marker"
        assert finding.remedy.startswith("mount its file system")
        with pytest.raises(ForeignStorage, match="mounted"):
            list(collect(site.server))
        if mount_point:
            root.rmdir()
        root.with_name("unmounted").rename(root)
        record.upload(b"new", status=200)
        assert self.heartbeat(site) is True

    def test_a_file_is_detached_meanwhile(self, site):
        record = site.collection().record()
        record.upload(b"content")
        root = Path(site.storage.base_path)
        root.rename(root.with_name("unmounted"))
        record.detach(status=204)
        root.with_name("unmounted").rename(root)
        assert findings(fsck(site.server)) == []
        assert kinds(collect(site.server)) == ["deleted"]
        assert record.collection.keys == []

    @pytest.mark.parametrize("own_path", [False, True])
    def test_of_a_server_that_is_read_only(self, make_server, site, own_path):
        """:param own_path: whether that server mounts the file system elsewhere."""
        record = site.collection().record()
        record.upload(b"content")
        root = Path(site.storage.base_path)
        settings = {**site.settings, "kinto.readonly": "true"}
        if own_path:
            mounted = root.with_name("read-only")
            mounted.symlink_to(root)
            settings["kinto.attachment.base_path"] = str(mounted)
        reader = make_server("local", **settings)
        assert self.heartbeat(reader) is True
        root.rename(root.with_name("unmounted"))
        assert self.heartbeat(reader) is False
        status = 404 if own_path else 503
        reader.http.get(record.attachment_uri, headers=ALICE, status=status)
        assert kinds(fsck(reader.server)) == ["missing marker"]
        root.with_name("unmounted").rename(root)
        assert self.heartbeat(reader) is True
        reader.http.get(record.attachment_uri, headers=ALICE, status=200)
        Path(reader.storage.path(record.collection.keys[0])).unlink()
        reader.http.get(record.attachment_uri, headers=ALICE, status=404)

    def test_a_new_folder_on_purpose(self, site):
        site.collection().record().upload(b"content")
        root = Path(site.storage.base_path)
        root.rename(root.with_name("broken disk"))
        assert adopt(site)[0] == ["adopted"]
        site.collection().record().upload(b"content")

    def test_a_file_in_its_place(self, site):
        record = site.collection().record()
        root = Path(site.storage.base_path)
        root.write_bytes(b"a file")
        record.upload(b"content", status=503)
        assert self.heartbeat(site) is False
        root.unlink()
        record.upload(b"content", status=201)


def test_modes(make_server):
    modes = {"kinto.attachment.file_mode": "0640", "kinto.attachment.dir_mode": "0750"}
    umask = os.umask(0o077)
    try:
        site = make_server("local", **modes)
        site.collection().record().upload(b"content")
        site.put("a/b/c.txt")
    finally:
        os.umask(umask)
    root = Path(site.storage.base_path)
    found = {(path.is_dir(), path.stat().st_mode & 0o777) for path in [root, *root.rglob("*")]}
    assert found == {(True, 0o750), (False, 0o640)}
