"""The commands that work on the ini file of a server."""

import json
import os
import secrets
import signal
import subprocess
import time
from pathlib import Path
from uuid import uuid4

import pytest
from botocore.exceptions import ClientError

from tests.support.command import interrupted, leave_orphan, shell
from tests.support.library import MediaLibrary
from tests.support.servers.wsgi import BIN, write_ini
from tests.support.site import SETTINGS, Site


class TestFsck:
    def test_nothing_to_report(self, run, record):
        assert run("fsck") == (0, [], "no problems\n")
        assert run("fsck", "--deep", "--json") == (0, [], "")

    def test_problems(self, run, ini, record, settings):
        path = leave_orphan(record, settings)
        key = f"{record.collection.bucket}/fonts/{path.name}"
        status, lines, summary = run("fsck")
        assert (status, lines) == (1, [f"orphan object  {key}  kinto-attachment gc --ini {ini}"])
        assert summary == "1 orphan object\n"
        leave_orphan(record, settings)
        assert run("fsck")[2] == "2 orphan objects\n"

    def test_columns(self, run, record, settings, site):
        """What belongs together is in one column, whatever is beside it."""
        leave_orphan(record, settings)
        site.storage.delete(record.collection.links)
        _, lines, summary = run("fsck")
        starts = {line.index(record.collection.bucket) for line in lines}
        assert (len(lines), starts) == (2, {len("missing object  ")})
        assert summary == "1 missing object, 1 orphan object\n"

    def test_quiet(self, run, record, settings):
        assert run("fsck", "--quiet") == (0, [], "")
        leave_orphan(record, settings)
        status, lines, summary = run("fsck", "--quiet")
        assert (status, len(lines), summary) == (1, 1, "1 orphan object\n")

    def test_json(self, run, ini, record, settings):
        path = leave_orphan(record, settings)
        status, (line,), _ = run("fsck", "--json")
        assert status == 1
        assert json.loads(line) == {
            "kind": "orphan object",
            "key": f"{record.collection.bucket}/fonts/{path.name}",
            "remedy": f"kinto-attachment gc --ini {ini}",
        }


class TestGC:
    def test_dry_run(self, run, record, settings):
        path = leave_orphan(record, settings)
        status, lines, summary = run("gc", "--offline", "--dry-run")
        assert (status, len(lines), summary) == (0, 1, "Dry run: would delete 1\n")
        assert path.exists()

    def test_ages(self, run, record, settings):
        path = leave_orphan(record, settings)
        assert run("gc")[:2] == run("gc", "--older-than", "90s")[:2] == (0, [])
        os.utime(path, (time.time() - 3000, time.time() - 3000))
        assert run("gc", "--older-than", "0")[1] == []  # an upload may be in progress
        os.utime(path, (time.time() - 6000, time.time() - 6000))
        assert run("gc", "--older-than", "2h")[1] == []
        assert len(run("gc", "--older-than", "90m")[1]) == 1
        assert not path.exists()
        assert run("fsck")[0] == 0

    @pytest.mark.parametrize("age", ["", "x", "24", "-1h", "1w"])
    def test_malformed_ages(self, run, age, capsys):
        with pytest.raises(SystemExit) as stopped:
            run("gc", f"--older-than={age}")
        assert stopped.value.code == 2
        assert "is not an age" in capsys.readouterr().err

    def test_a_refusal(self, run, site, settings):
        path = leave_orphan_of_no_collection(settings)
        status, lines, why = run("gc", "--offline", "--force")
        assert (status, lines) == (2, [])
        assert "If no other server uses it, run: kinto-attachment adopt-storage" in why
        status, lines, why = run("adopt-storage")
        assert (status, lines) == (2, [])
        assert "To adopt it without being asked, use --yes." in why
        assert len(run("adopt-storage", "--yes")[1]) == 1
        status, lines, why = run("gc", "--offline")
        assert (status, lines) == (2, [])
        assert "The storage contains files, but no record has one." in why
        assert path.exists()
        assert run("gc", "--offline", "--force")[0] == 0
        assert not path.exists()


def leave_orphan_of_no_collection(settings) -> Path:
    folder = Path(settings["kinto.attachment.base_path"]) / "some" / "thing"
    folder.mkdir(parents=True)
    path = folder / f"{uuid4()}.txt"
    path.write_bytes(b"orphan")
    return path


class TestMigrate:
    @pytest.fixture
    def other(self, settings, tmp_path):
        changed = {**settings, "kinto.attachment.base_path": "%(here)s/other"}
        path = write_ini(tmp_path / "other.ini", changed)
        path.write_text(path.read_text().replace("%%(here)s", "%(here)s"))
        return path

    def test_copies(self, run, record, other, tmp_path):
        status, lines, summary = run("migrate", "--to", str(other))
        assert (status, len(lines), summary) == (0, 1, "1 copied\n")
        (copy,) = (
            path for path in (tmp_path / "other").rglob("*.*") if path.name != "storage.json"
        )
        assert copy.read_bytes() == b"content"
        assert run("migrate", "--to", str(other)) == (0, [], "nothing to copy\n")

    def test_a_target_of_another_database(self, run, record, other, tmp_path):
        """The remedy works as it stands."""
        mark = tmp_path / "other" / "__kinto-attachment__" / "storage.json"
        mark.parent.mkdir(parents=True)
        own = json.loads((tmp_path / "files" / "__kinto-attachment__" / mark.name).read_text())
        mark.write_text(json.dumps({**own, "owner": "0" * 32}))
        status, lines, said = run("migrate", "--to", str(other))
        assert (status, lines) == (2, [])
        assert said.startswith(f"kinto-attachment: --to {other}: ")
        assert said.rstrip().endswith(f"kinto-attachment adopt-storage --ini {other}")
        assert shell("adopt-storage", "--ini", str(other), "--yes")[0] == 0
        assert run("migrate", "--to", str(other))[0] == 0

    def test_dry_run_writes_nothing(self, run, record, other, tmp_path):
        found = run("migrate", "--to", str(other), "--dry-run")
        assert (found[0], found[2]) == (0, "Dry run: would copy 1\n")
        assert not (tmp_path / "other").exists()
        (tmp_path / "other").mkdir()
        assert run("migrate", "--to", str(other), "--dry-run") == found
        assert list((tmp_path / "other").iterdir()) == []

    @pytest.mark.parametrize("prefix", ["", "a/"])
    def test_dry_run_to_the_same_folder(self, run, record, ini, settings, other, tmp_path, prefix):
        folder = tmp_path / "files" / prefix
        folder.mkdir(exist_ok=True)
        write_ini(ini, {**settings, "kinto.attachment.prefix": prefix})
        (tmp_path / "other").symlink_to(folder)
        status, _, why = run("migrate", "--to", str(other), "--dry-run")
        assert (status, "this is the storage that has the files already" in why) == (2, True)

    def test_no_such_ini(self, run, record):
        status, _, why = run("migrate", "--to", "nowhere.ini")
        assert status == 2
        assert why.startswith("kinto-attachment: --to: there is no nowhere.ini: pass the ini file")

    def test_interrupted(self, run, site, ini, other, tmp_path):
        """Ctrl-C: each copy is whole, and the next run goes on."""
        collection = site.collection()
        for _ in range(40):
            collection.record().upload(secrets.token_bytes(200_000))
        command = [str(BIN / "kinto-attachment"), "migrate", "--ini", str(ini), "--to", str(other)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout.readline().startswith(b"copied  ")
        process.send_signal(signal.SIGINT)
        _, why = process.communicate(timeout=60)
        assert process.returncode == 2
        assert why == b"Interrupted; run it again to go on.\n"
        copied = [path for path in (tmp_path / "other").rglob("*.*") if path.name != "storage.json"]
        assert 0 < len(copied) < 40
        assert all(path.stat().st_size == 200_000 for path in copied)
        assert len(run("migrate", "--to", str(other))[1]) == 40 - len(copied)


class TestRebase:
    def test_rewrites(self, run, record):
        old, new = "https://cdn.example/files/", "https://new.example/"
        assert len(run("rebase", "--from", old, "--to", new, "--dry-run")[1]) == 1
        status, (line,), _ = run("rebase", "--from", old, "--to", new)
        assert status == 0
        location = record.data["attachment"]["location"]
        assert location.startswith(new)
        assert line.startswith("rewritten  ") and f"  {record.uri}  " in line
        assert line.endswith(f" {location}")


class TestLibrary:
    @pytest.fixture
    def ini(self, site, settings, tmp_path):
        return write_ini(
            tmp_path / "library.ini", {**settings, "kinto.attachment.library.bucket": "site"}
        )

    WHO = ("--editors", "system.Authenticated", "--readers", "system.Everyone")

    def test_init(self, ini, settings):
        uri = "/buckets/site/collections/media"
        status, lines, said = shell("library", "init", "--ini", ini, *self.WHO)
        assert (status, lines) == (
            0,
            [
                "created  /buckets/site",
                f"created  {uri}",
                f"allowed  {uri}  write system.Authenticated",
                f"allowed  {uri}  read system.Everyone",
            ],
        )
        assert shell("library", "init", "--ini", ini)[:2] == (0, [])
        site = Site(**settings, **{"kinto.attachment.library.bucket": "site"})
        assert MediaLibrary(site, (), ()).upload()["type"] == "image"
        site.close()

    def test_dry_run(self, ini, settings):
        status, lines, said = shell("library", "init", "--dry-run", "--json", "--ini", ini)
        assert status == 0
        assert [json.loads(line)["kind"] for line in lines] == ["would create", "would create"]
        assert all(json.loads(line)["dry_run"] is True for line in lines)
        assert shell("library", "init", "--ini", ini)[1] == [
            "created  /buckets/site",
            "created  /buckets/site/collections/media",
        ]

    def test_without_setting(self, settings, tmp_path):
        without = write_ini(tmp_path / "without.ini", settings)
        status, lines, said = shell("library", "init", "--ini", without)
        assert status == 2
        assert "library.bucket" in said


class TestImport:
    """The command; tests/legacy tests what is adopted."""

    def make_old(self, site, count: int) -> None:
        """Write records and rows as version 8 left them."""
        collection = site.collection()
        old = {"filename": "a.pdf", "mimetype": "application/pdf", "hash": "0" * 64, "size": 1}

        def write() -> None:
            for number in range(count):
                record, key = f"r{number}", f"{collection.bucket}/fonts/{number}.pdf"
                attachment = {**old, "location": f"https://cdn.example/files/{key}"}
                row = {
                    "location": key,
                    "bucket_uri": f"/buckets/{collection.bucket}",
                    "collection_uri": collection.uri,
                    "record_uri": f"{collection.uri}/records/{record}",
                }
                storage = site.registry.storage
                storage.update("record", collection.uri, record, {"attachment": attachment})
                storage.create("attachments", "__attachments__", row)

        site.in_transaction(write)

    def linked(self, site) -> int:
        return len(site.in_transaction(lambda: list(site.links.all())))

    def is_left(self, site) -> bool:
        return site.in_transaction(site.plugin.legacy.exist)

    def test_once(self, site, ini):
        self.make_old(site, 3)
        dry = shell("import", "--dry-run", "--json", "--ini", ini)
        assert (dry[0], dry[2]) == (0, "")
        assert [json.loads(line)["kind"] for line in dry[1]] == ["would adopt"] * 3
        assert (self.linked(site), self.is_left(site)) == (0, True)
        status, lines, said = shell("import", "--json", "--ini", ini)
        assert [json.loads(line)["kind"] for line in lines] == ["adopted"] * 3
        assert (self.linked(site), self.is_left(site)) == (3, False)
        assert shell("import", "--ini", ini) == (0, [], "nothing to adopt\n")

    def test_interrupted(self, site, ini):
        """All printed files are adopted, and none twice. There are more lines than a pipe holds, so
        that the command has to wait."""
        self.make_old(site, 1500)
        told = interrupted("import", "--ini", ini)
        adopted = self.linked(site)
        assert told <= adopted < 1500
        assert self.is_left(site)
        status, lines, _ = shell("import", "--ini", ini)
        assert (status, len(lines)) == (0, 1500 - adopted)
        assert (self.linked(site), self.is_left(site)) == (1500, False)


class TestCORS:
    """The command; the tests of storages test the rules."""

    def test_a_folder_needs_no_rules(self, run, record):
        status, lines, said = run("cors", "--origin", "https://app.example")
        assert (status, lines) == (2, [])
        assert "kinto.cors_origins" in said

    def test_a_bucket(self, make_database, file_settings, moto, tmp_path):
        settings = {**make_database(), **file_settings("moto")}
        Site(**settings).close()
        ini = write_ini(tmp_path / "s3.ini", {**SETTINGS, **settings})
        bucket = settings["kinto.attachment.aws.bucket_name"]
        origins = ("--origin", "https://app.example", "--origin", "https://b.example")
        status, lines, said = shell("cors", *origins, "--dry-run", "--json", "--ini", ini)
        assert status == 0, said
        (rule,) = (json.loads(json.loads(line)["detail"]) for line in lines)
        assert rule["AllowedOrigins"] == ["https://app.example", "https://b.example"]
        assert rule["ExposeHeaders"] == ["ETag"]
        with pytest.raises(ClientError):
            moto.client().get_bucket_cors(Bucket=bucket)
        status, lines, said = shell("cors", *origins, "--ini", ini)
        assert (status, said) == (0, "1 rule\n")
        (found,) = moto.client().get_bucket_cors(Bucket=bucket)["CORSRules"]
        assert found == rule

    @pytest.mark.parametrize("origin", ["app.example", "https://app.example/", "ftp://a", ""])
    def test_no_origin(self, run, record, capsys, origin):
        with pytest.raises(SystemExit):
            run("cors", "--origin", origin)
        assert "is not an origin" in capsys.readouterr().err
