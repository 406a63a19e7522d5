"""Moving in: a database and a folder that the existing plugin has made become this plugin's."""

import os
import secrets
import shutil
import subprocess
import tracemalloc
from contextlib import closing
from datetime import timedelta
from hashlib import sha256
from itertools import count, islice
from pathlib import Path
from uuid import uuid4

import psycopg2
import pytest
import requests
import transaction

from kinto_attachment.errors import AttachmentError
from kinto_attachment.files.blob import Source
from kinto_attachment.files.ref import RecordRef
from kinto_attachment.finding import Finding
from kinto_attachment.legacy import adoption as legacy
from kinto_attachment.legacy.adoption import LegacyRows
from kinto_attachment.legacy.kept_files import KeptFiles
from kinto_attachment.maintenance.fsck import fsck
from kinto_attachment.maintenance.gc import collect
from kinto_attachment.maintenance.server import Server
from kinto_attachment.rows import paging
from kinto_attachment.rows.links import Link
from kinto_attachment.settings import read_settings
from tests.conftest import in_thread
from tests.support.servers.existing import ExistingPlugin, NotInstalled, find_python
from tests.support.servers.wsgi import BIN
from tests.support.site import ALICE, Collection, Site

AUTH = ("alice", "secret")
BUCKETS = ("b1", "b_2", "b-3")
COLLECTIONS = ("c1", "c_2")

LOCATIONS = {
    "absolute": {"kinto.attachment.base_url": "https://cdn.example/files/"},
    "relative": {
        "kinto.attachment.base_url": "",
        "kinto.attachment.extra.base_url": "https://cdn.example/files/",
    },
    "named": {"kinto.attachment.base_url": "", "kinto.attachment.randomize": "false"},
}


@pytest.fixture(scope="session")
def existing_python(tmp_path_factory):
    try:
        return find_python(tmp_path_factory.mktemp("existing") / "venv")
    except NotInstalled as error:
        pytest.skip(f"the existing plugin cannot be installed: {error}")


class Client:
    """Of the existing plugin, over HTTP."""

    def __init__(self, url: str):
        self._url = url

    def request(self, method: str, path: str, **options) -> requests.Response:
        response = requests.request(method, self._url + path, auth=AUTH, timeout=30, **options)
        response.raise_for_status()
        return response

    def upload(self, path: str, filename: str = "a.png") -> dict:
        file = (filename, secrets.token_bytes(2000), "image/png")
        return self.request("POST", f"{path}/attachment", files={"attachment": file}).json()


def live(client: Client) -> None:
    """What an existing deployment has been through."""
    for bucket in (*BUCKETS, "gone"):
        client.request("PUT", f"/buckets/{bucket}")
        for collection in (*COLLECTIONS, "gone"):
            uri = f"/buckets/{bucket}/collections/{collection}"
            client.request("PUT", uri)
            for number in range(10):
                client.upload(f"{uri}/records/r_{number}")
            client.request("PUT", f"{uri}/records/plain", json={"data": {"a": 1}})
            client.upload(f"{uri}/records/r_0", "b.png")  # replaced
            client.request("DELETE", f"{uri}/records/r_1/attachment")
            client.request("DELETE", f"{uri}/records/r_2")
            # Without a word to the plugin: row and file stay.
            client.request("PUT", f"{uri}/records/r_3", json={"data": {"a": 1}})
        client.request("DELETE", f"/buckets/{bucket}/collections/gone")
    client.request("DELETE", "/buckets/gone")
    records = "/buckets/b1/collections/c1/records"
    data = client.request("GET", f"{records}/r_4").json()["data"]
    for name in ("c1/records/copy", "c_2/records/copy"):
        client.request(
            "PUT",
            f"/buckets/b1/collections/{name}",
            json={"data": {"attachment": data["attachment"]}},
            headers={"X-Copy": "yes"},
        )


ATTACHED = {f"r_{number}" for number in (0, *range(4, 10))}
STALE = {f"/buckets/{b}/collections/{c}/records/r_3" for b in BUCKETS for c in COLLECTIONS}
COPIES = {
    RecordRef("b1", collection, record)
    for collection, record in (("c1", "r_4"), ("c1", "copy"), ("c_2", "copy"))
}


def attached() -> set[RecordRef]:
    refs = (RecordRef(b, c, r) for b in BUCKETS for c in COLLECTIONS for r in ATTACHED)
    return {*refs, *COPIES}


class Deployment:
    """A database and a folder, as the existing plugin left them."""

    def __init__(self, settings: dict[str, str], database: str, folder: Path, ini: Path):
        self.settings, self.database, self.folder, self.ini = settings, database, folder, ini

    def copy(self, folder: Path) -> "Deployment":
        """Another one, of which a test may do with what it likes."""
        with closing(psycopg2.connect(self.database)) as connection:
            own, copied = connection.info.dbname, f"kinto_{secrets.token_hex(16)}"
        url = self.database.replace(own, copied)
        with closing(psycopg2.connect(self.database.replace(own, "postgres"))) as connection:
            connection.autocommit = True  # CREATE DATABASE is not for transactions
            connection.cursor().execute(f"CREATE DATABASE {copied} TEMPLATE {own}")
        shutil.copytree(self.folder, folder / "files")
        ini = folder / "kinto.ini"
        text = self.ini.read_text().replace(own, copied)
        ini.write_text(text.replace(str(self.folder), str(folder / "files")))
        changed = {self.database: url, str(self.folder): str(folder / "files")}
        settings = {name: changed.get(value, value) for name, value in self.settings.items()}
        return Deployment(settings, url, folder / "files", ini)

    def query(self, query: str) -> list[tuple]:
        with closing(psycopg2.connect(self.database)) as connection, connection.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchall()

    @property
    def rows(self) -> list[tuple]:
        return self.query("SELECT * FROM objects WHERE parent_id = '__attachments__'")

    def snapshot(self) -> tuple:
        """All that moving in must not touch: objects with their timestamps, and files."""
        objects = self.query(
            "SELECT id, parent_id, resource_name, last_modified, data::text, deleted FROM objects"
            " WHERE parent_id NOT LIKE '/attachment-%' AND parent_id <> '__attachments__'"
            " ORDER BY 1, 2, 3"
        )
        timestamps = self.query(
            "SELECT parent_id, resource_name, last_modified FROM timestamps"
            " WHERE parent_id NOT LIKE '/attachment-%' AND parent_id <> '__attachments__'"
            " ORDER BY 1, 2"
        )
        files = [
            (path, path.stat().st_mtime_ns, path.read_bytes())
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        ]
        return objects, timestamps, files


def keeps_nothing(site: Site) -> KeptFiles:
    """Whatever the settings of the site say about old files, none is kept."""
    return KeptFiles(read_settings({"attachment.storage": "memory"}), site.storage, site.rows)


class House(Site):
    """This plugin, in the existing one's place."""

    def __init__(self, deployment: Deployment):
        self.deployment = deployment
        settings = {**deployment.settings}
        settings["kinto.includes"] = settings["kinto.includes"].replace("copier", "")
        super().__init__(**settings)
        self.server = Server.of(self.registry, transaction.manager)
        base_url = settings["kinto.attachment.base_url"]
        self.legacy = LegacyRows(self.rows, base_url, keeps_nothing(self))

    def adopt(self, *scope: str) -> list[Finding]:
        return list(self.legacy.adopt(*scope, transaction_manager=transaction.manager))

    def record(self, ref: RecordRef):
        return Collection(self, ref.bucket, ref.collection).record(ref.record)

    def every_link(self) -> list[Link]:
        return self.in_transaction(lambda: list(self.links.all()))

    def problems(self) -> set[tuple[str, str]]:
        return {(finding.kind, finding.key) for finding in fsck(self.server, deep=True)}

    def check_complete(self) -> None:
        """Every attachment is linked and readable, and only what the existing plugin lost is not
        known."""
        links = self.every_link()
        assert {link.ref for link in links} == attached()
        assert len(links) == len(attached())
        assert {link.ref for link in links if link.shared} == COPIES
        for ref in attached():
            record = self.record(ref)
            attachment = record.data["attachment"]
            content = self.http.get(record.attachment_uri, headers=ALICE).body
            assert sha256(content).hexdigest() == attachment["hash"]
            assert self.read(attachment["location"]) == content
        problems = self.problems()
        assert {kind for kind, _ in problems} == {"orphan object"}
        assert len(problems) == len(STALE)
        assert not self.deployment.rows


@pytest.fixture(scope="session")
def deployments(existing_python, kinto_settings, tmp_path_factory):
    made = {}

    def deployment(locations: str) -> Deployment:
        if locations not in made:
            folder = tmp_path_factory.mktemp("deployment")
            settings = {
                **kinto_settings("postgresql", fresh=True),
                **LOCATIONS[locations],
                "kinto.attachment.base_path": str(folder / "files"),
                "kinto.includes": "kinto.plugins.default_bucket kinto_attachment "
                "kinto.plugins.flush kinto.plugins.history copier",
            }
            with ExistingPlugin(existing_python, settings, folder) as server:
                live(Client(server.url))
            database = settings["kinto.storage_url"]
            made[locations] = Deployment(settings, database, folder / "files", server.ini)
        return made[locations]

    return deployment


@pytest.fixture(
    params=[
        "absolute",
        *(pytest.param(name, marks=pytest.mark.slow) for name in LOCATIONS if name != "absolute"),
    ]
)
def house(request, deployments, tmp_path):
    return House(deployments(request.param).copy(tmp_path))


@pytest.fixture
def one_house(deployments, tmp_path):
    return House(deployments("absolute").copy(tmp_path))


class TestAdopt:
    def test_everything_is_adopted_and_nothing_touched(self, house):
        before = house.deployment.snapshot()
        assert house.in_transaction(house.legacy.exist)
        found = house.adopt()
        assert {f.record for f in found if f.kind == "adopted"} == {r.uri for r in attached()}
        left = [f for f in found if f.kind == "left behind"]
        assert {f.record for f in left} == STALE
        assert {f.detail for f in left} == {"it has no attachment"}
        assert len(found) == len(attached()) + len(STALE)
        assert not house.in_transaction(house.legacy.exist)
        house.check_complete()
        assert house.deployment.snapshot() == before

    def test_again_does_nothing(self, house):
        house.adopt()
        links = house.every_link()
        assert house.adopt() == []
        assert [(k, k.modified) for k in house.every_link()] == [(k, k.modified) for k in links]

    def test_what_was_left_behind_is_collected(self, house):
        left = {f.key for f in house.adopt() if f.kind == "left behind"}
        assert {f.key for f in collect(house.server, timedelta(0))} == left
        assert house.problems() == set()

    def test_replacing_and_deleting_afterwards_removes_the_old_files(self, house):
        house.adopt()
        one, other = (house.record(RecordRef("b_2", "c1", name)) for name in ("r_5", "r_6"))
        old = [record.data["attachment"]["location"] for record in (one, other)]
        one.upload(b"new")
        other.detach()
        house.http.delete("/buckets/b-3", headers=ALICE)
        stored = {stat.key for stat in house.storage.list()}
        assert not stored & {house.key(location) for location in old}
        # But for the file of r_3 in each collection, which nobody knew.
        assert len([key for key in stored if key.startswith("b-3/")]) == len(COLLECTIONS)

    def test_a_copied_file_stays_as_long_as_one_record_has_it(self, house):
        house.adopt()
        first, *rest = [house.record(ref) for ref in COPIES]
        content = house.read(first.data["attachment"]["location"])
        first.upload(b"new")
        rest.pop().detach()
        list(collect(house.server, timedelta(0)))
        location = rest[0].data["attachment"]["location"]
        assert house.read(location) == content
        rest[0].detach()
        gone = {finding.key for finding in collect(house.server, timedelta(0))}
        assert house.key(location) in gone

    def test_a_copy_whose_original_is_detached_keeps_its_file(self, one_house):
        """The existing plugin was told nothing: its row is there, the record has no attachment."""
        original = RecordRef("b1", "c1", "r_4")
        storage = one_house.registry.storage
        with transaction.manager:
            storage.update("record", original.collection_uri, original.record, {"a": 1})
        found = one_house.adopt()
        assert original.uri not in {finding.record for finding in found}
        assert {k.ref for k in one_house.every_link() if k.shared} == COPIES - {original}

    @pytest.mark.parametrize(
        "after", [1, 30, *(pytest.param(count, marks=pytest.mark.slow) for count in (0, 9, 47))]
    )
    def test_interrupted_and_run_again(self, one_house, monkeypatch, after):
        monkeypatch.setattr(legacy, "PAGE", 4)
        monkeypatch.setattr(paging, "PAGE", 4)
        before = one_house.deployment.snapshot()
        steps, delete_all = count(), one_house.registry.storage.delete_all

        def fail(*args, **options):
            if next(steps) == 2:
                raise KeyboardInterrupt
            return delete_all(*args, **options)

        findings = one_house.legacy.adopt(transaction_manager=transaction.manager)
        with closing(findings):
            assert len(list(islice(findings, after))) == after
        assert one_house.in_transaction(one_house.legacy.exist)
        with monkeypatch.context() as patch:
            patch.setattr(one_house.registry.storage, "delete_all", fail)
            with pytest.raises(KeyboardInterrupt):
                one_house.adopt()
        assert one_house.in_transaction(one_house.legacy.exist)
        one_house.adopt()
        one_house.check_complete()
        assert one_house.deployment.snapshot() == before

    def test_another_base_url_than_before(self, deployments, tmp_path):
        deployment = deployments("absolute").copy(tmp_path)
        deployment.settings["kinto.attachment.base_url"] = "https://new.example/"
        house = House(deployment)
        house.adopt()
        links = house.every_link()
        assert {link.ref for link in links} == attached()
        assert {link.ref for link in links if link.shared} == COPIES
        assert {kind for kind, _ in house.problems()} == {"orphan object"}

    @pytest.mark.parametrize(
        "scope",
        [
            ("b1", "c_2"),
            ("b1", "c_2", "r_7"),
            pytest.param(("b1",), marks=pytest.mark.slow),
            pytest.param(("b1", "c1", "plain"), marks=pytest.mark.slow),
            pytest.param(("none",), marks=pytest.mark.slow),
        ],
    )
    def test_only_a_part(self, one_house, scope):
        def is_meant(ref):
            return (ref.bucket, ref.collection, ref.record)[: len(scope)] == scope

        one_house.adopt(*scope)
        expected = {ref for ref in attached() if is_meant(ref)}
        assert {link.ref for link in one_house.every_link()} == expected
        one_house.adopt()
        one_house.check_complete()

    def test_a_record_that_is_replaced_meanwhile(self, one_house, monkeypatch):
        """Its new file is the one it is linked to, not what was read before."""
        record = one_house.record(RecordRef("b_2", "c1", "r_5"))
        original, left = legacy._Adoption._keys, [lambda: record.upload(b"new")]

        def keys(self, attachments):
            if left:
                in_thread(left.pop())
            return original(self, attachments)

        monkeypatch.setattr(legacy._Adoption, "_keys", keys)
        one_house.adopt()
        attachment = record.data["attachment"]
        ref = RecordRef("b_2", "c1", "r_5")
        links = one_house.in_transaction(lambda: one_house.links.of(ref))
        assert [link.key for link in links] == [one_house.key(attachment["location"])]
        assert one_house.read(attachment["location"]) == b"new"


class TestMigrate:
    @pytest.fixture
    def migrate(self, one_house):
        deployment = one_house.deployment
        folder = deployment.ini.parent
        text = deployment.ini.read_text().replace("plugins.history copier", "plugins.history")
        deployment.ini.write_text(text.replace("level = WARNING", "level = INFO"))

        def run(*options: str) -> str:
            command = [str(BIN / "kinto"), "migrate", "--ini", str(deployment.ini), *options]
            env = {**os.environ, "PYTHONPATH": str(folder)}
            done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
            assert done.returncode == 0, done.stderr
            return done.stderr

        return run

    def test_adopts_all_once(self, one_house, migrate):
        before = one_house.deployment.snapshot()
        log = migrate()
        assert f"'adopted': {len(attached())}, 'left behind': {len(STALE)}" in log
        one_house.check_complete()
        assert one_house.deployment.snapshot() == before
        assert "attachment schema is up-to-date" in migrate()

    def test_dry_run_changes_nothing(self, one_house, migrate):
        rows = one_house.deployment.rows
        assert "would be adopted" in migrate("--dry-run")
        assert one_house.deployment.rows == rows
        assert one_house.every_link() == []


class TestRows:
    """Rows written by hand, on both of Kinto's storages."""

    @pytest.fixture
    def site(self, kinto, kinto_settings, file_settings):
        return Site(**kinto_settings(kinto, fresh=True), **file_settings("local"))

    @pytest.fixture
    def rows(self, site):
        return LegacyRows(site.rows, "https://cdn.example/files/", keeps_nothing(site))

    @pytest.fixture(params=legacy.RESOURCE_NAMES)
    def write(self, request, site):
        def write(ref: RecordRef, key: str, **changes) -> None:
            row = {
                "location": key,
                "bucket_uri": f"/buckets/{ref.bucket}",
                "collection_uri": ref.collection_uri,
                "record_uri": ref.uri,
            }
            site.in_transaction(
                lambda: site.registry.storage.create(
                    request.param, legacy.PARENT, {**row, **changes}
                )
            )

        return write

    @pytest.fixture
    def unlinked(self, site):
        """A record with a file, and its key, of which no link tells."""
        collection = site.collection()

        def make() -> tuple[RecordRef, str]:
            record = collection.record()
            record.upload()
            ref = RecordRef(collection.bucket, "fonts", record.id)
            site.in_transaction(lambda: site.links.remove(ref))
            return ref, site.key(record.data["attachment"]["location"])

        return make

    def adopt(self, site, rows, *scope):
        return site.in_transaction(lambda: list(rows.adopt(*scope)))

    def test_both_formats(self, site, rows, write, unlinked):
        assert not site.in_transaction(rows.exist)
        ref, key = unlinked()
        write(ref, key)
        assert site.in_transaction(rows.exist)
        assert self.adopt(site, rows) == [Finding("adopted", key, ref.uri)]
        digest = sha256(b"--fake--").hexdigest()
        assert site.in_transaction(lambda: site.links.of(ref)) == [Link(ref, key, digest)]
        assert not site.in_transaction(rows.exist)

    def test_a_record_that_is_linked_already(self, site, rows, write):
        record = site.collection().record()
        record.upload()
        ref = RecordRef(record.collection.bucket, "fonts", record.id)
        write(ref, site.key(record.data["attachment"]["location"]))
        assert self.adopt(site, rows) == []
        assert not site.in_transaction(rows.exist)
        record.check(b"--fake--")

    def test_left_behind(self, site, rows, write, unlinked):
        ref, key = unlinked()
        gone = RecordRef("none", "such", "record")
        write(ref, "another/key.png")
        write(gone, "gone/key.png")
        found = self.adopt(site, rows)
        assert set(found) == {
            Finding("adopted", key, ref.uri),
            Finding("left behind", "another/key.png", ref.uri, "it has another attachment"),
            Finding("left behind", "gone/key.png", gone.uri, "the record is gone"),
        }

    @pytest.mark.parametrize("changes", [{"location": None}, {"record_uri": 7}, {"record_uri": ""}])
    def test_a_row_that_says_nothing(self, site, rows, write, changes):
        write(RecordRef("a", "b", "c"), "a/b.png", **changes)
        assert [finding.kind for finding in self.adopt(site, rows)] == ["left behind"]
        assert not site.in_transaction(rows.exist)

    def test_two_records_of_one_file(self, site, rows, write, unlinked):
        (one, key), (other, _) = unlinked(), unlinked()
        storage = site.registry.storage
        with transaction.manager:
            attachment = storage.get("record", one.collection_uri, one.record)["attachment"]
            changed = {"attachment": attachment}
            storage.update("record", other.collection_uri, other.record, changed)
        for ref in (one, other):
            write(ref, key)
        self.adopt(site, rows, one.bucket, one.collection, one.record)
        links = site.in_transaction(lambda: site.links.having(key))
        assert [(link.ref, link.shared) for link in links] == [(one, True)]
        self.adopt(site, rows)
        links = site.in_transaction(lambda: site.links.having(key))
        assert {(link.ref, link.shared) for link in links} == {(one, True), (other, True)}

    @pytest.mark.parametrize("base_url", ["", "https://cdn.example/files/"])
    def test_a_copy_of_what_is_linked_already(self, site, rows, write, unlinked, base_url):
        (ref, key), (other, _) = unlinked(), unlinked()
        storage = site.registry.storage
        with transaction.manager:
            attachment = storage.get("record", ref.collection_uri, ref.record)["attachment"]
            site.links.add(Link(ref, key, attachment["hash"]))
            changed = {"attachment": {**attachment, "location": base_url + key}}
            storage.update("record", other.collection_uri, other.record, changed)
        write(ref, key)
        self.adopt(site, rows)
        links = site.in_transaction(lambda: site.links.having(key))
        assert {(link.ref, link.shared) for link in links} == {(ref, True), (other, True)}

    def test_a_row_that_came_after_the_records_were_read(
        self, site, rows, write, unlinked, monkeypatch
    ):
        ref, key = unlinked()
        write(ref, key)
        monkeypatch.setattr(legacy._Adoption, "_unlinked_records", lambda *args: iter(()))
        assert self.adopt(site, rows) == [Finding("adopted", key, ref.uri)]


class TestOtherPlaces:
    """Locations below something that is no URL, and was another than today's."""

    @pytest.mark.parametrize(
        "base_url", ["//cdn.example/files/", "/files/", "https://old.example/"]
    )
    def test_adopted(self, make_server, base_url):
        site = make_server("local")
        ref, key = old_file(site, base_url=base_url)
        assert adopt(site) == [Finding("adopted", key, ref.uri)]
        assert [link.key for link in every_link(site)] == [key]


KEEP = {"kinto.attachment.keep_old_files": "true"}


class TestKeptFiles:
    """Those of ``keep_old_files`` had no rows."""

    def grown_old(self, site):
        """In a time in which nobody believes in uploads any more."""
        return list(collect(site.server, timedelta(0), offline=True, force=True))

    def test_they_stay(self, make_server):
        site = make_server("local", **KEEP)
        ref, key = old_file(site)
        folder = f"{ref.bucket}/fonts"
        kept = sorted(f"{folder}/{uuid4()}.txt" for _ in range(3))
        for name in (*kept, "somebody/else/s.txt"):
            put(site, name)
        found = adopt(site)
        assert sorted(f.key for f in found if f.kind == "kept") == kept
        assert [f.key for f in found if f.kind == "adopted"] == [key]
        assert len(found) == 4
        assert {f.kind for f in self.grown_old(site)} <= {"unknown object"}
        assert {stat.key for stat in site.storage.list()} == {key, *kept, "somebody/else/s.txt"}
        assert {f.kind for f in fsck(site.server)} <= {"unknown object", "orphan object"}
        assert adopt(site) == []

    def test_that_of_a_row_whose_record_is_gone(self, make_server):
        """Its name is one of older settings."""
        site = make_server("local", **KEEP)
        gone = RecordRef("none", "such", "record")
        write_row(site, gone, "older/name.txt")
        put(site, "older/name.txt")
        assert adopt(site) == [Finding("kept", "older/name.txt", gone.uri, "the record is gone")]
        releases = site.in_transaction(lambda: list(site.releases.all()))
        assert [(r.rule.value, r.keys) for r in releases] == [("keep", ("older/name.txt",))]

    def test_only_where_old_files_are_kept(self, make_server):
        site = make_server("local", **{"kinto.attachment.resources.b.c.keep_old_files": "true"})
        ref, key = old_file(site)
        write_row(site, RecordRef("x", "y", "z"), "older/name.txt")
        write_row(site, RecordRef("b", "c", "d"), "newer/name.txt")
        kinds = {f.key: f.kind for f in adopt(site)}
        expected = {"older/name.txt": "left behind", "newer/name.txt": "kept"}
        assert kinds == {key: "adopted", **expected}

    def test_the_storage_is_listed_once_and_only_if_needed(self, make_server, monkeypatch):
        site = make_server("local", **KEEP)
        calls, original = [], site.storage.list
        monkeypatch.setattr(
            site.storage, "list", lambda *args: calls.append(args) or original(*args)
        )
        old_file(site)
        adopt(site)
        assert len(calls) == 1
        adopt(site)  # all of it is done: what nobody has by now was never kept
        assert len(calls) == 1

    def test_interrupted(self, make_server):
        """``gc`` waits until all is written down."""
        site = make_server("local", **KEEP)
        old_file(site)
        put(site, f"blog/fonts/{uuid4()}.txt")
        job = site.server.plugin.legacy.adopt(transaction_manager=transaction.manager)
        next(job)
        job.close()
        with pytest.raises(AttachmentError, match="kinto-attachment import"):
            self.grown_old(site)

    def test_the_server_replaces_the_last_old_file_before(self, make_server):
        """Kept files are safe until the import even so."""
        site = make_server("local", **KEEP)
        ref, key = old_file(site)
        kept = f"{ref.bucket}/fonts/{uuid4()}.txt"
        put(site, kept)
        Collection(site, ref.bucket, "fonts").record(ref.record).upload(b"new")
        with pytest.raises(AttachmentError, match="kinto-attachment import"):
            self.grown_old(site)
        adopt(site)
        self.grown_old(site)
        assert {kept, key} < {stat.key for stat in site.storage.list()}
        assert not site.in_transaction(site.plugin.legacy.exist)


class TestTrial:
    """``--dry-run``."""

    @pytest.fixture(params=["true", "false"])
    def site(self, request, make_server):
        return make_server("local", **KEEP, **{"kinto.transaction_per_request": request.param})

    def test_says_what_would_be_and_changes_nothing(self, site):
        one, _ = old_file(site)
        old_file(site)
        copy = RecordRef(one.bucket, "fonts", "copy")
        storage = site.registry.storage

        def write_copy():
            attachment = storage.get("record", one.collection_uri, one.record)["attachment"]
            storage.create("record", copy.collection_uri, {"id": "copy", "attachment": attachment})

        site.in_transaction(write_copy)
        write_row(site, RecordRef("none", "such", "record"), "older/name.txt")
        put(site, f"blog/fonts/{uuid4()}.txt")
        before = self.rows(site)
        would = adopt(site, dry_run=True)
        assert self.rows(site) == before
        assert sorted(map(str, would)) == sorted(map(str, adopt(site)))
        assert {f.record for f in would if f.detail == "shared"} == {one.uri, copy.uri}
        assert self.rows(site) != before

    def rows(self, site) -> list:
        with closing(psycopg2.connect(site.settings["kinto.storage_url"])) as connection:
            cursor = connection.cursor()
            cursor.execute("SELECT * FROM objects ORDER BY 1, 2, 3")
            return [str(row) for row in cursor.fetchall()]

    def test_nobody_waits_for_it(self, site):
        (ref, _), _ = old_file(site), old_file(site)
        job = site.server.plugin.legacy.adopt(transaction_manager=transaction.manager, dry_run=True)
        next(job)
        record = Collection(site, ref.bucket, "fonts").record(ref.record)
        uploading = in_thread(lambda: record.upload(b"new"), timeout=20)
        assert not uploading.is_alive()
        list(job)


MANY = """
INSERT INTO objects (deleted, parent_id, resource_name, id, last_modified, data)
SELECT false, made.parent, made.name, made.id, from_epoch(1500000000000 + i), made.data::jsonb
  FROM generate_series(1, {count}) AS i,
  LATERAL (SELECT 'b/c' || i % 20 || '/' || i || '.png' AS key,
                  '/buckets/b/collections/c' || i % 20 AS uri) AS its,
  LATERAL (VALUES
    (its.uri, 'record', 'r' || i, jsonb_build_object('attachment', jsonb_build_object(
       'filename', 'a.png', 'mimetype', 'image/png', 'size', 4, 'hash', repeat('e3b0', 16),
       'location', 'https://cdn.example/files/' || its.key))),
    ('__attachments__', '', md5(i::text), jsonb_build_object(
       'location', its.key, 'bucket_uri', '/buckets/b', 'collection_uri', its.uri,
       'record_uri', its.uri || '/records/r' || i))
  ) AS made (parent, name, id, data);
INSERT INTO objects (deleted, parent_id, resource_name, id, last_modified, data)
SELECT false, '/buckets/b', 'collection', 'c' || i, from_epoch(1500000000000 + i), '{{}}'
  FROM generate_series(0, 19) AS i;
INSERT INTO objects (deleted, parent_id, resource_name, id, last_modified, data)
VALUES (false, '', 'bucket', 'b', from_epoch(1500000000000), '{{}}');
"""


@pytest.mark.slow
def test_many_rows_in_constant_memory(kinto_settings, file_settings):
    """All take hardly more than the first of them do."""
    settings = kinto_settings("postgresql", fresh=True)
    site = Site(**settings, **file_settings("local"))
    with closing(psycopg2.connect(settings["kinto.storage_url"])) as connection:
        connection.cursor().execute(MANY.format(count=20_000))
        connection.commit()
    rows = LegacyRows(site.rows, "https://cdn.example/files/", keeps_nothing(site))
    findings = rows.adopt(transaction_manager=transaction.manager)
    tracemalloc.start()
    try:
        found = sum(1 for _ in islice(findings, 3_000))
        _, first = tracemalloc.get_traced_memory()
        found += sum(1 for _ in findings)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == 20_000
    assert not site.in_transaction(rows.exist)
    assert peak < 1.5 * first


def put(site: Site, key: str, content: bytes = b"kept") -> None:
    """An object that no record has."""
    with site.storage.spool() as file:
        file.write(content)
        file.flush()
        digest = sha256(content).hexdigest()
        site.storage.put(key, Source(file, "a.txt", "text/plain", len(content), digest))


def write_row(site: Site, ref: RecordRef, key: str) -> None:
    row = {
        "location": key,
        "bucket_uri": f"/buckets/{ref.bucket}",
        "collection_uri": ref.collection_uri,
        "record_uri": ref.uri,
    }
    site.in_transaction(lambda: site.registry.storage.create("", legacy.PARENT, row))


def old_file(
    site: Site, key: str = "", base_url: str = "https://cdn.example/files/"
) -> tuple[RecordRef, str]:
    """A record with a file, as the existing plugin left them, and its key."""
    ref = RecordRef(site.collection().bucket, "fonts", "r")
    key = key or f"{ref.bucket}/fonts/{uuid4()}.txt"
    content = b"an old file"
    put(site, key, content)
    attachment = {
        "filename": "a.txt",
        "hash": sha256(content).hexdigest(),
        "location": f"{base_url}{key}",
        "mimetype": "text/plain",
        "size": len(content),
    }
    record = {"id": ref.record, "attachment": attachment}
    storage = site.registry.storage
    site.in_transaction(lambda: storage.create("record", ref.collection_uri, record))
    write_row(site, ref, key)
    return ref, key


def adopt(site: Site, **options) -> list[Finding]:
    rows = site.server.plugin.legacy
    return list(rows.adopt(transaction_manager=transaction.manager, **options))


def every_link(site: Site) -> list[Link]:
    return site.in_transaction(lambda: list(site.links.all()))


class TestBeforeTheImport:
    """A server that has not been told: old files are found when they are replaced or deleted."""

    @pytest.fixture
    def record(self, kinto_settings, file_settings):
        settings = {**kinto_settings("postgresql", fresh=True), **file_settings("local")}
        site = Site(**settings)
        collection = site.collection()
        record = collection.record()
        record.upload(b"old")
        (link,) = site.in_transaction(lambda: list(site.links.all()))
        row = {
            "location": link.key,
            "bucket_uri": f"/buckets/{collection.bucket}",
            "collection_uri": collection.uri,
            "record_uri": record.uri,
        }

        def make_it_old():
            site.links.remove(link.ref)
            site.links.forget(2**52)
            site.registry.storage.create("", "__attachments__", row)

        site.in_transaction(make_it_old)
        site.close()
        site = Site(**settings)  # it has looked, and does not look again
        yield Collection(site, collection.bucket, "fonts").record(record.id)
        site.close()

    def test_reads(self, record):
        assert record.http.get(record.attachment_uri, headers=ALICE).body == b"old"

    def test_replaces(self, record, caplog):
        record.upload(b"new", status=200)
        record.check(b"new")
        assert "There are files of the existing plugin" in caplog.text
        assert not record.site.in_transaction(record.site.plugin.legacy.exist)

    @pytest.mark.parametrize("how", ["detach", "record", "records", "collection", "bucket"])
    def test_deletes(self, record, how):
        bucket = f"/buckets/{record.collection.bucket}"
        uri = {
            "detach": record.attachment_uri,
            "record": record.uri,
            "records": f"{record.collection.uri}/records",
            "collection": record.collection.uri,
            "bucket": bucket,
        }[how]
        (key,) = record.collection.keys
        record.http.delete(uri, headers=ALICE)
        assert record.collection.releases == [("sweep", key)]
        server = Server.of(record.site.registry, transaction.manager)
        list(collect(server, timedelta(0)))
        assert record.collection.keys == []

    def test_gc_waits(self, record):
        server = Server.of(record.site.registry, transaction.manager)
        with pytest.raises(AttachmentError, match="kinto-attachment import"):
            list(collect(server, timedelta(0), force=True))
        assert len(record.collection.keys) == 1

    def test_reads_what_was_named_otherwise(self, make_server):
        """By older settings, of which the row tells, and of this record only."""
        site = make_server("local")
        ref, key = old_file(site, "elsewhere/a-photo.txt")
        other = Collection(site, ref.bucket, "fonts").record("other")
        attachment = site.in_transaction(
            lambda: site.registry.storage.get("record", ref.collection_uri, ref.record)
        )["attachment"]
        site.in_transaction(
            lambda: site.registry.storage.create(
                "record", ref.collection_uri, {"id": "other", "attachment": attachment}
            )
        )
        record = Collection(site, ref.bucket, "fonts").record(ref.record)
        assert site.http.get(record.attachment_uri, headers=ALICE).body == b"an old file"
        assert site.http.get(other.attachment_uri, headers=ALICE, status=404)
        adopt(site)
        for each in (record, other):
            assert site.http.get(each.attachment_uri, headers=ALICE).body == b"an old file"
