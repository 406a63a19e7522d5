"""``migrate`` while the server already runs on the other storage, and what it refuses."""

import os
import subprocess
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import pytest

from kinto_attachment.attachments import records
from kinto_attachment.cli import main
from kinto_attachment.errors import NotImported, SettingError
from kinto_attachment.maintenance import migrate
from kinto_attachment.maintenance.migrate import copy
from kinto_attachment.rows.deletion import Rule
from tests.support.servers.wsgi import BIN, write_ini
from tests.support.site import ALICE, Collection, Site
from tests.support.threads import in_thread

NAMED = {"kinto.attachment.randomize": "false"}
BY_HASH = {**NAMED, "kinto.attachment.filename_pattern": "{hash}{extension}"}
BY_NAME = {**NAMED, "kinto.attachment.filename_pattern": "{filename}"}
KEEP = {"kinto.attachment.keep_old_files": "true"}


@pytest.fixture(params=["local", pytest.param("seaweedfs", marks=pytest.mark.slow)])
def files(request):
    return request.param


@pytest.fixture
def make(make_server, files, file_settings):
    """Two servers with the same database: on the old storage, and on the new one."""

    def make(**settings: str) -> tuple[Site, Site]:
        old = make_server("local", **settings)
        return old, make_server("local", **{**old.settings, **file_settings(files)})

    return make


def there(site: Site) -> dict[str, bytes]:
    return {stat.key: b"".join(site.storage.open(stat.key)) for stat in site.storage.list()}


def kinds(job) -> list[str]:
    return [finding.kind for finding in job]


def collections(old: Site, new: Site) -> tuple[Collection, Collection]:
    """One collection, by both servers."""
    before = old.collection()
    return before, Collection(new, before.bucket, "fonts")


class TestServerOnTheNewStorage:
    def test_uploads_to_the_new_storage_stay(self, make):
        old, new = make()
        before, after = collections(old, new)
        before.record().upload(b"one")
        assert kinds(copy(old.server, new.storage)) == ["copied"]
        after.record().upload(b"two")
        assert list(copy(old.server, new.storage)) == []

    def test_newer_bytes_are_not_overwritten(self, make):
        """After the job has read its page of links, a file is replaced by another of its name."""
        old, new = make(**BY_NAME)
        before, after = collections(old, new)
        for number in range(3):
            before.record(f"r{number}").upload(b"old", f"{number}.txt")
        job = copy(old.server, new.storage)
        next(job)

        def replace():
            after.record("r2").detach()
            after.record("r2").upload(b"new", "2.txt")

        in_thread(replace)
        assert set(kinds(job)) == {"copied"}
        assert new.read(after.record("r2").data["attachment"]["location"]) == b"new"

    def test_bytes_of_an_upload_under_way_are_not_overwritten(self, make, monkeypatch):
        """The new bytes are stored, and their record is not written yet."""
        old, new = make(**BY_NAME)
        before, after = collections(old, new)
        before.record("r").upload(b"old", "a.txt")
        attach, found = records.attach, []

        def copy_first(*args, **options):
            in_thread(lambda: found.extend(copy(old.server, new.storage)))
            return attach(*args, **options)

        monkeypatch.setattr(records, "attach", copy_first)
        in_thread(lambda: after.record("r").upload(b"new", "a.txt"))
        # Where names cannot be taken exclusively, none is given twice.
        expected = ("conflict", True) if new.storage.exclusive else ("copied", False)
        assert [(finding.kind, finding.is_problem) for finding in found] == [expected]
        assert new.read(after.record("r").data["attachment"]["location"]) == b"new"
        assert list(copy(old.server, new.storage)) == []

    def test_a_copy_of_a_detached_file_stays(self, make, monkeypatch):
        """An upload of the same bytes may have found the copy and rely on it."""
        old, new = make(**BY_HASH)
        before, after = collections(old, new)
        before.record("r").upload(b"same")
        job = copy(old.server, new.storage)
        next(job)
        in_thread(lambda: after.record("r").detach())
        attach = records.attach

        def end_first(*args, **options):
            in_thread(lambda: list(job))
            return attach(*args, **options)

        monkeypatch.setattr(records, "attach", end_first)
        in_thread(lambda: after.record("s").upload(b"same"))
        assert new.read(after.record("s").data["attachment"]["location"]) == b"same"

    def test_a_file_that_is_detached_meanwhile(self, make):
        old, new = make(**BY_NAME)
        before, after = collections(old, new)
        for number in range(2):
            before.record(f"r{number}").upload(b"old", f"{number}.txt")
        job = copy(old.server, new.storage)
        next(job)
        in_thread(before.record("r1").detach)
        assert list(job) == []

    def test_a_copy_that_arrives_damaged(self, make, monkeypatch):
        old, new = make()
        before, _ = collections(old, new)
        before.record().upload(b"content")
        original = new.storage.open
        monkeypatch.setattr(new.storage, "open", lambda key: original(key, 1))
        (finding,) = copy(old.server, new.storage)
        assert (finding.kind, finding.is_problem) == ("wrong bytes", True)
        monkeypatch.undo()
        assert kinds(copy(old.server, new.storage)) == ["copied"]
        assert there(new) == there(old)


class TestReusedNames:
    def test_between_two_runs(self, make):
        """The name has another file since the first run copied it."""
        old, new = make(**BY_NAME)
        before, _ = collections(old, new)
        before.record("r").upload(b"first", "a.txt")
        assert kinds(copy(old.server, new.storage)) == ["copied"]
        before.record("r").detach()
        before.record("r").upload(b"other", "a.txt")
        assert kinds(copy(old.server, new.storage)) == ["copied"]
        assert list(there(new).values()) == [b"other"]
        assert list(copy(old.server, new.storage)) == []

    def test_during_a_run(self, make):
        old, new = make(**BY_NAME)
        before, _ = collections(old, new)
        for number in range(2):
            before.record(f"r{number}").upload(b"first", f"{number}.txt")
        job = copy(old.server, new.storage)
        next(job)

        def replace():
            before.record("r1").detach()
            before.record("r1").upload(b"other", "1.txt")

        in_thread(replace)
        assert kinds(job) == ["copied"]
        assert there(new) == there(old)

    def test_a_kept_file_whose_name_is_taken_there(self, make):
        old, new = make(**BY_NAME)
        key = f"{old.collection().bucket}/fonts/a.txt"
        old.put(key, b"kept")
        new.put(key, b"other")
        old.in_transaction(lambda: old.releases.add([key], Rule.KEEP))
        (finding,) = copy(old.server, new.storage)
        assert (finding.kind, finding.is_problem) == ("conflict", True)
        assert there(new) == {key: b"other"}


class TestCopiedFiles:
    @pytest.fixture
    def private(self, monkeypatch):
        """Whether each object was put as a private one, by its key."""
        told: dict[str, bool] = {}

        def watch(site):
            original = site.storage.put

            def put(key, source):
                told[key] = source.private
                original(key, source)

            monkeypatch.setattr(site.storage, "put", put)
            return told

        return watch

    def test_kept_files_of_private_collections(self, make, private):
        old, new = make(**KEEP, **{"kinto.attachment.private": "true"})
        told, record = private(new), old.collection().record()
        record.upload(b"old secret")
        record.upload(b"new secret")
        assert kinds(copy(old.server, new.storage)) == ["copied"] * 2
        assert [told[key] for key in there(old)] == [True, True]

    def test_kept_files_of_unknown_collections_are_private(self, make, private):
        """Their keys are of older settings, so they might be private."""
        old, new = make(**{"kinto.attachment.resources.secret.private": "true"})
        told, keys = private(new), ["a/b/c/d/e.txt", f"blog/fonts/{uuid4()}.txt"]
        for key in keys:
            old.put(key, b"kept")
        old.in_transaction(lambda: old.releases.add(keys, Rule.KEEP))
        assert kinds(copy(old.server, new.storage)) == ["copied"] * 2
        assert [told[key] for key in keys] == [True, True]

    def test_kept_files_of_public_collections(self, make, private):
        old, new = make(**KEEP)
        told, record = private(new), old.collection().record()
        record.upload(b"old")
        record.upload(b"new")
        assert kinds(copy(old.server, new.storage)) == ["copied"] * 2
        assert [told[key] for key in there(old)] == [False, False]

    def test_the_media_store(self, make, private):
        """Media that are verified, and media that are not verified yet."""
        old, new = make(**{"kinto.attachment.media.verifier": "none"})
        told = private(new)
        headers = {**ALICE, "Content-Type": "text/plain"}
        old.http.post("/media", b"verified", headers=headers, status=201)
        digest = sha256(b"not yet").hexdigest()
        old.http.post(f"/media/{digest}?verify=false", b"not yet", headers=headers, status=202)
        assert kinds(copy(old.server, new.storage)) == ["copied"] * 2
        assert there(new) == there(old)
        assert [told[key] for key in there(old)] == [True, True]
        assert list(copy(old.server, new.storage)) == []

    def test_records_without_link_are_reported(self, make):
        """A record whose file is not linked is reported."""
        old, new = make()
        record = old.collection().record("r")
        record.upload(b"content")
        (link,) = old.in_transaction(lambda: list(old.links.all()))
        old.in_transaction(lambda: old.links.remove(link.ref))
        (finding,) = copy(old.server, new.storage)
        expected = ("record without link", record.place.uri, True)
        assert (finding.kind, finding.record, finding.is_problem) == expected

    def test_dry_run_reports_missing_files(self, make):
        old, new = make()
        old.collection().record().upload(b"content")
        old.storage.delete(list(there(old)))
        assert kinds(copy(old.server, new.storage, dry_run=True)) == ["missing object"]


class TestRefused:
    def test_before_the_import(self, make):
        old, new = make()
        row = {"location": "a/b.txt", "record_uri": "/buckets/a/collections/b/records/c"}
        old.in_transaction(
            lambda: old.registry.storage.create("attachments", "__attachments__", row)
        )
        with pytest.raises(NotImported, match="kinto-attachment import"):
            list(copy(old.server, new.storage))
        assert there(new) == {}

    def test_the_same_storage(self, make_server, files):
        """The same storage, configured twice."""
        site = make_server(files)
        site.collection().record().upload(b"content")
        other = make_server(files, **site.settings)
        before = there(site)
        for dry_run in (True, False):
            with pytest.raises(SettingError, match="is the storage"):
                list(copy(site.server, other.storage, dry_run=dry_run))
        assert there(site) == before

    def test_the_same_folder(self, make_server, tmp_path):
        site = make_server("local", **{"kinto.attachment.base_path": str(tmp_path / "files")})
        site.collection().record().upload(b"content")
        (tmp_path / "other").symlink_to(tmp_path / "files")
        path = {"kinto.attachment.base_path": str(tmp_path / "other")}
        with pytest.raises(SettingError, match="is the storage"):
            list(copy(site.server, make_server("local", **path).storage))

    def test_different_storages_are_accepted(self, make):
        old, new = make()
        assert not migrate._is_same(old.storage, new.storage)
        assert (there(old), there(new)) == ({}, {})


class TestOtherIniFile:
    """The ini file of the other server is read as that server reads it."""

    @pytest.fixture
    def site(self, make_server, tmp_path):
        site = make_server("local", **{"kinto.attachment.base_path": str(tmp_path / "files")})
        site.collection().record().upload(b"content")
        return site

    @pytest.fixture
    def run(self, site, tmp_path):
        ini = write_ini(tmp_path / "kinto.ini", site.settings)

        def run(text: str | bytes) -> int:
            to = tmp_path / "to.ini"
            to.write_bytes(text if isinstance(text, bytes) else text.encode())
            return main(["migrate", "--ini", str(ini), "--to", str(to)])

        return run

    APP = "[app:main]\nuse = egg:kinto\nkinto.attachment.base_path = "

    @pytest.mark.parametrize(
        "text",
        [
            f"{APP}%(here)s/disk/files\n",
            f"[DEFAULT]\ndisk = %(here)s/disk\n{APP}%(disk)s/files\n",
            "[app:main]\nuse = config:base.ini\n",
        ],
    )
    def test_interpolation_and_inclusion(self, run, tmp_path, text):
        (tmp_path / "base.ini").write_text(f"{self.APP}{tmp_path}/disk/files\n")
        assert run(text) == 0
        copies = [
            path
            for path in (tmp_path / "disk" / "files").rglob("*.*")
            if "storage.json" not in path.name
        ]
        assert [path.read_bytes() for path in copies] == [b"content"]

    def test_environment(self, run, tmp_path, monkeypatch, capsys):
        """The environment applies to both servers."""
        monkeypatch.setenv("KINTO_ATTACHMENT_BASE_PATH", str(tmp_path / "disk" / "files"))
        assert run(f"{self.APP}%(here)s/elsewhere\n") == 2
        assert "the storage that has the files already" in capsys.readouterr().err
        assert not (tmp_path / "elsewhere").exists()

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "nonsense",
            "[app:main]\nkinto.attachment.base_path: %(nowhere)s/x\n",
            "[app:main]\nuse = egg:kinto\n",
            "[app:main]\nuse = egg:nothing-of-that-name\n",
            "[app:main]\nuse = config:nowhere.ini\n",
            b"\xff",
        ],
    )
    def test_broken(self, run, text, capsys):
        assert run(text) == 2
        said = capsys.readouterr().err
        assert said.startswith("kinto-attachment: ") and "Traceback" not in said

    def test_the_same(self, run, tmp_path, capsys):
        assert run((tmp_path / "kinto.ini").read_bytes()) == 2
        assert "the storage that has the files already" in capsys.readouterr().err


class TestExitStatus:
    def shell(self, ini: Path) -> tuple[int, str]:
        command = [BIN / "kinto-attachment", "fsck", "--ini", str(ini)]
        env = {**os.environ, "PYTHONWARNINGS": "ignore"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=env)
        return done.returncode, done.stderr

    @pytest.fixture
    def settings(self, make_server):
        return make_server("local").settings

    def test_the_database_is_down(self, settings, tmp_path):
        url = "postgresql://kinto@127.0.0.1:1/nothing"
        down = {**settings, "kinto.storage_url": url, "kinto.permission_url": url}
        status, said = self.shell(write_ini(tmp_path / "kinto.ini", down))
        assert status == 2
        assert "Connection refused" in said.splitlines()[-1] or "kinto-attachment: " in said

    def test_a_broken_ini(self, tmp_path):
        ini = tmp_path / "kinto.ini"
        ini.write_text("nonsense")
        status, said = self.shell(ini)
        assert status == 2 and said.startswith("kinto-attachment: --ini: ")

    def test_a_plugin_that_is_not_there(self, settings, tmp_path):
        wrong = {**settings, "kinto.includes": "kinto_attachment nothing_of_that_name"}
        status, said = self.shell(write_ini(tmp_path / "kinto.ini", wrong))
        assert status == 2 and "nothing_of_that_name" in said

    def test_an_unexpected_error(self, settings, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr(
            "kinto_attachment.cli.server_commands.fsck", lambda *args, **options: 1 / 0
        )
        assert main(["fsck", "--ini", str(write_ini(tmp_path / "kinto.ini", settings))]) == 2
        assert "ZeroDivisionError" in capsys.readouterr().err
