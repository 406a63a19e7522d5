"""The ``kinto-attachment`` command, on the ini file of a server."""

import fcntl
import io
import json
import os
import pty
import re
import secrets
import signal
import struct
import subprocess
import termios
import time
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from unittest.mock import patch
from uuid import uuid4

import pytest
import requests

from kinto_attachment.cli import main
from kinto_attachment.maintenance import fsck
from tests.support.library import MediaLibrary
from tests.support.servers.wsgi import BIN, Gunicorn, write_ini
from tests.support.site import SETTINGS, Site


def shell(*arguments, **env: str) -> tuple[int, list[str], str]:
    """Run the command; return its exit status, its output lines and its messages."""
    printed, said = io.StringIO(), io.StringIO()
    with patch.dict(os.environ, env), redirect_stdout(printed), redirect_stderr(said):
        try:
            status = main([*map(str, arguments)])
        except SystemExit as stopped:
            status = stopped.code
    assert "Traceback" not in said.getvalue(), said.getvalue()
    return status, printed.getvalue().splitlines(), said.getvalue()


def interrupted(*arguments) -> int:
    """Run the command in a process, and interrupt it after its first line; return how many lines
    it printed."""
    with subprocess.Popen(
        [BIN / "kinto-attachment", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        printed, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (2, "Interrupted; run it again to go on.\n")
    return 1 + len(printed.splitlines())


@pytest.fixture
def settings(make_database, tmp_path):
    return {
        **SETTINGS,
        **make_database(),
        "kinto.attachment.base_path": str(tmp_path / "files"),
    }


@pytest.fixture
def ini(settings, tmp_path):
    return write_ini(tmp_path / "kinto.ini", settings)


@pytest.fixture
def site(settings):
    site = Site(**settings)
    yield site
    site.close()


@pytest.fixture
def record(site):
    record = site.collection().record()
    record.upload(b"content")
    return record


@pytest.fixture
def run(ini, capsys, monkeypatch):
    """Run a command; return its exit status, its output lines and its messages."""

    # No upload is under way, so fsck need not wait for any.
    monkeypatch.setattr(fsck, "PAUSE_SECONDS", 0)

    def run(*arguments):
        capsys.readouterr()
        status = main([arguments[0], "--ini", str(ini), *arguments[1:]])
        printed = capsys.readouterr()
        return status, printed.out.splitlines(), printed.err

    return run


def leave_orphan(record, settings) -> Path:
    folder = Path(settings["kinto.attachment.base_path"]) / record.collection.bucket / "fonts"
    path = folder / f"{uuid4()}.txt"
    path.write_bytes(b"orphan")
    return path


class TestFsck:
    def test_nothing_to_report(self, run, record):
        assert run("fsck") == (0, [], "nothing to report\n")
        assert run("fsck", "--deep", "--json") == (0, [], "")

    def test_problems(self, run, record, settings):
        path = leave_orphan(record, settings)
        key = f"{record.collection.bucket}/fonts/{path.name}"
        status, lines, summary = run("fsck")
        assert (status, lines) == (1, [f"orphan object: {key} (kinto-attachment gc)"])
        assert summary == "1 orphan object\n"

    def test_json(self, run, record, settings):
        path = leave_orphan(record, settings)
        status, (line,), _ = run("fsck", "--json")
        assert status == 1
        assert json.loads(line) == {
            "kind": "orphan object",
            "key": f"{record.collection.bucket}/fonts/{path.name}",
            "remedy": "kinto-attachment gc",
        }


class TestGC:
    def test_dry_run(self, run, record, settings):
        path = leave_orphan(record, settings)
        status, lines, summary = run("gc", "--offline", "--dry-run")
        assert (status, len(lines), summary) == (0, 1, "Dry run: 1 deleted\n")
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
        assert run("migrate", "--to", str(other)) == (0, [], "nothing to report\n")

    def test_no_such_ini(self, run, record):
        status, _, why = run("migrate", "--to", "nowhere.ini")
        assert (status, why) == (2, "kinto-attachment: --to: there is no nowhere.ini\n")

    def test_interrupted(self, run, site, ini, other, tmp_path):
        """Ctrl-C: each copy is whole, and the next run goes on."""
        collection = site.collection()
        for _ in range(40):
            collection.record().upload(secrets.token_bytes(200_000))
        command = [str(BIN / "kinto-attachment"), "migrate", "--ini", str(ini), "--to", str(other)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout.readline().startswith(b"copied: ")
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
        assert line.startswith(f"rewritten: {record.uri} ")
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
                "created: /buckets/site",
                f"created: {uri}",
                f"allowed: {uri} write system.Authenticated",
                f"allowed: {uri} read system.Everyone",
            ],
        )
        assert shell("library", "init", "--ini", ini)[:2] == (0, [])
        site = Site(**settings, **{"kinto.attachment.library.bucket": "site"})
        assert MediaLibrary(site, (), ()).upload()["type"] == "image"
        site.close()

    def test_dry_run(self, ini, settings):
        status, lines, said = shell("library", "init", "--dry-run", "--json", "--ini", ini)
        assert status == 0
        assert [json.loads(line)["kind"] for line in lines] == ["created", "created"]
        assert shell("library", "init", "--ini", ini)[1] == [
            "created: /buckets/site",
            "created: /buckets/site/collections/media",
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
        assert [json.loads(line)["kind"] for line in dry[1]] == ["adopted"] * 3
        assert (self.linked(site), self.is_left(site)) == (0, True)
        assert shell("import", "--json", "--ini", ini) == dry
        assert (self.linked(site), self.is_left(site)) == (3, False)
        assert shell("import", "--ini", ini) == (0, [], "nothing to report\n")

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


class TestUploadAndDownload:
    """The commands; tests/transfer tests what is transferred."""

    @pytest.fixture(scope="class")
    def server(self, file_settings, tmp_path_factory):
        settings = file_settings("local")
        with Gunicorn(settings, tmp_path_factory.mktemp("server")) as server:
            server.files = Path(settings["kinto.attachment.base_path"])
            yield server

    @pytest.fixture
    def options(self, server):
        """Arguments for a collection of its own."""
        bucket, alice = f"b{uuid4().hex}", ("alice", "secret")
        for uri in (f"buckets/{bucket}", f"buckets/{bucket}/collections/c"):
            requests.put(f"{server.url}/{uri}", auth=alice, timeout=60).raise_for_status()
        where = ["--server", server.url, "--bucket", bucket, "--collection", "c"]
        return [*where, "--auth", "alice:secret", "--parallel", "1"]

    @pytest.fixture
    def make_files(self, tmp_path):
        def make(count: int, suffix: str = ".png") -> Path:
            folder = tmp_path / "files"
            folder.mkdir()
            for number in range(count):
                (folder / f"{number}{suffix}").write_bytes(secrets.token_bytes(20_000))
            return folder

        return make

    def kinds(self, lines: list[str]) -> list[str]:
        return [json.loads(line)["kind"] for line in lines]

    def contents(self, folder: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def test_there_and_back(self, options, make_files, tmp_path):
        source, target = make_files(3), tmp_path / "copies"

        status, lines, said = shell("upload", source, "--dry-run", "--json", *options)
        assert (status, self.kinds(lines), said) == (0, ["uploaded"] * 3, "")
        assert self.kinds(shell("upload", source, "--json", *options)[1]) == ["uploaded"] * 3
        status, lines, said = shell("upload", source, *options)
        assert (status, len(lines), said) == (0, 3, "3 unchanged\n")

        status, lines, said = shell("download", target, "--dry-run", *options)
        assert (status, len(lines), said) == (0, 3, "Dry run: 3 downloaded\n")
        assert not target.exists() or self.contents(target) == {}
        status, lines, _ = shell("download", target, "--json", *options)
        assert (status, self.kinds(lines)) == (0, ["downloaded"] * 3)
        assert self.contents(target) == self.contents(source)

        (target / "1.png").write_bytes(b"another")
        status, lines, said = shell("download", target, *options)
        assert (status, len(lines), said) == (1, 3, "1 conflict, 2 unchanged\n")
        assert (target / "1.png").read_bytes() == b"another"

    def test_one_is_refused(self, options, make_files):
        source = make_files(1)
        (source / "a.exe").write_bytes(b"MZ")
        status, lines, _ = shell("upload", source, "--json", *options)
        assert status == 1
        assert sorted(self.kinds(lines)) == ["refused", "uploaded"]
        (refused,) = (found for found in map(json.loads, lines) if found["kind"] == "refused")
        assert (refused["key"], bool(refused["remedy"])) == ("a.exe", True)

    def test_authorization(self, options, make_files):
        source, place = make_files(1), options[: options.index("--auth")]
        assert shell("upload", source, *place, KINTO_AUTH="")[0] == 1
        assert shell("upload", source, *place, KINTO_AUTH="alice:secret")[0] == 0
        assert shell("upload", source, *place, KINTO_AUTH="nobody")[0] == 2

    def test_upload_interrupted(self, options, make_files, tmp_path, server):
        source = make_files(100)
        before = len(self.contents(server.files))
        told = interrupted("upload", source, *options)
        status, lines, said = shell("upload", source, *options)
        assert (status, len(lines)) == (0, 100)
        unchanged = int(re.search(r"(\d+) unchanged", said)[1])
        assert told <= unchanged < 100
        assert len(self.contents(server.files)) == before + 100
        assert shell("download", tmp_path / "copies", *options)[0] == 0
        assert self.contents(tmp_path / "copies") == self.contents(source)

    def test_download_interrupted(self, options, make_files, tmp_path):
        source, target = make_files(100), tmp_path / "copies"
        assert shell("upload", source, *options)[0] == 0
        told = interrupted("download", target, *options)
        whole, all_of_them = self.contents(target), self.contents(source)
        parts = [name for name in whole if name.endswith(".part")]
        assert len(parts) <= 1
        whole = {name: whole[name] for name in whole if name not in parts}
        assert told <= len(whole) < 100
        assert whole.items() <= all_of_them.items()
        assert shell("download", target, *options)[0] == 0
        assert self.contents(target) == all_of_them


class TestUse:
    def test_help(self, capsys):
        with pytest.raises(SystemExit) as stopped:
            main(["--help"])
        assert stopped.value.code == 0
        printed = capsys.readouterr().out
        for command in ("fsck", "gc", "migrate", "rebase"):
            assert f"\n    {command} " in printed

    @pytest.mark.parametrize("arguments", [[], ["unknown"], ["gc", "--unknown"]])
    def test_wrong_arguments(self, arguments, capsys):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2

    @pytest.mark.parametrize(
        "arguments, why",
        [
            ("fsck --dry-run", "unrecognized arguments: --dry-run"),
            ("import --older-than 1h", "unrecognized arguments: --older-than 1h"),
            ("upload --server http://127.0.0.1/v1 --bucket b --collection c", "required: FILE"),
            ("download", "required: DIR, --server, --bucket, --collection"),
            (
                "download d --server s --bucket b --collection c --parallel x",
                "argument --parallel: invalid int value: 'x'",
            ),
            ("download d --server nowhere --bucket b --collection c", "nowhere"),
            (
                "download d --server http://127.0.0.1:9/v1 --bucket b --collection c --parallel 0",
                "parallel must be at least 1, not 0",
            ),
        ],
    )
    def test_refused_with_a_reason(self, arguments, why, tmp_path):
        status, lines, said = shell(*arguments.split())
        assert (status, lines) == (2, [])
        assert why in said

    def test_no_ini(self, capsys):
        assert main(["fsck", "--ini", "nowhere.ini"]) == 2
        assert "there is no nowhere.ini" in capsys.readouterr().err

    def test_a_server_without_the_plugin(self, settings, tmp_path, capsys):
        ini = write_ini(tmp_path / "plain.ini", {**settings, "kinto.includes": ""})
        assert main(["fsck", "--ini", str(ini)]) == 2
        assert "kinto_attachment is not included" in capsys.readouterr().err

    def test_a_setting_that_is_wrong(self, settings, tmp_path, capsys):
        ini = write_ini(tmp_path / "wrong.ini", {**settings, "kinto.attachment.unknown": "1"})
        assert main(["fsck", "--ini", str(ini)]) == 2
        assert "attachment.unknown" in capsys.readouterr().err

    def test_a_storage_that_is_gone(self, settings, tmp_path, capsys, record):
        changed = {
            "kinto.attachment.storage": "s3",
            "kinto.attachment.aws.bucket_name": "files",
            "kinto.attachment.aws.endpoint_url": "http://127.0.0.1:9",
            "kinto.attachment.aws.access_key": "a",
            "kinto.attachment.aws.secret_key": "b",
            "kinto.attachment.aws.timeout": "1",
        }
        ini = write_ini(tmp_path / "gone.ini", {**settings, **changed})
        assert main(["fsck", "--ini", str(ini)]) == 2
        assert "Could not connect" in capsys.readouterr().err

    def test_a_closed_pipe(self, ini, record, settings):
        for _ in range(200):
            leave_orphan(record, settings)
        command = f"{BIN}/kinto-attachment fsck --ini {ini} | head -1"
        done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
        assert done.stdout.startswith("orphan object: ")
        assert "Traceback" not in done.stderr and "Exception" not in done.stderr

    def test_progress_is_for_terminals(self, ini, record):
        """With a pseudo terminal as stderr the bar is shown there, and lines go to stdout."""
        reader, writer = pty.openpty()
        command = [str(BIN / "kinto-attachment"), "fsck", "--deep", "--ini", str(ini)]
        size = struct.pack("HHHH", 24, 80, 0, 0)
        fcntl.ioctl(writer, termios.TIOCSWINSZ, size)
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=writer, timeout=60)
        os.close(writer)
        shown = b""
        with suppress(OSError):  # EIO marks its end
            while chunk := os.read(reader, 65536):
                shown += chunk
        os.close(reader)
        assert (done.returncode, done.stdout) == (0, b"")
        assert b"B/s" in shown
