"""The ``kinto-attachment`` command, on the ini file of a server."""

import fcntl
import json
import os
import pty
import secrets
import signal
import struct
import subprocess
import termios
import time
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest

from kinto_attachment.cli import main

from .servers.wsgi import BIN, INI
from .site import SETTINGS, Site


def write_ini(path: Path, settings: dict[str, str]) -> Path:
    lines = "\n".join(f"{key} = {value}" for key, value in settings.items())
    path.write_text(INI.format(settings=lines.replace("%", "%%"), port=0))
    return path


@pytest.fixture
def settings(kinto_settings, tmp_path):
    return {
        **SETTINGS,
        **kinto_settings("postgresql", fresh=True),
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
def run(ini, capsys):
    """Run a command; its exit status, the lines it prints, and what it says besides."""

    def run(*arguments):
        capsys.readouterr()
        status = main([arguments[0], "--ini", str(ini), *arguments[1:]])
        printed = capsys.readouterr()
        return status, printed.out.splitlines(), printed.err

    return run


def leave_orphan(record, settings) -> Path:
    folder = Path(settings["kinto.attachment.base_path"]) / record.collection.bucket / "fonts"
    path = folder / f"{uuid4()}.txt"
    path.write_bytes(b"nobody's")
    return path


class TestFsck:
    def test_clean(self, run, record):
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
        status, lines, summary = run("gc", "--older-than", "0", "--dry-run")
        assert (status, len(lines), summary) == (0, 1, "Dry run: 1 deleted\n")
        assert path.exists()

    def test_ages(self, run, record, settings):
        path = leave_orphan(record, settings)
        assert run("gc")[:2] == run("gc", "--older-than", "90s")[:2] == (0, [])
        os.utime(path, (time.time() - 100, time.time() - 100))
        assert run("gc", "--older-than", "5m")[1] == []
        assert len(run("gc", "--older-than", "90s")[1]) == 1
        assert not path.exists()
        assert run("fsck")[0] == 0

    @pytest.mark.parametrize("age", ["", "x", "24", "-1h", "1w"])
    def test_what_is_no_age(self, run, age, capsys):
        with pytest.raises(SystemExit) as stopped:
            run("gc", f"--older-than={age}")
        assert stopped.value.code == 2
        assert "is no age" in capsys.readouterr().err

    def test_refusal(self, run, site, settings):
        path = leave_orphan_of_nobody(settings)
        status, lines, why = run("gc", "--older-than", "0")
        assert (status, lines) == (2, [])
        assert "No record has a file, but the storage has." in why
        assert path.exists()
        assert run("gc", "--older-than", "0", "--force")[0] == 0
        assert not path.exists()


def leave_orphan_of_nobody(settings) -> Path:
    folder = Path(settings["kinto.attachment.base_path"]) / "some" / "thing"
    folder.mkdir(parents=True)
    path = folder / f"{uuid4()}.txt"
    path.write_bytes(b"nobody's")
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
        (copy,) = (path for path in (tmp_path / "other").rglob("*") if path.is_file())
        assert copy.read_bytes() == b"content"
        assert run("migrate", "--to", str(other)) == (0, [], "nothing to report\n")

    def test_no_such_ini(self, run, record):
        status, _, why = run("migrate", "--to", "nowhere.ini")
        assert (status, why) == (2, "kinto-attachment: --to: there is no nowhere.ini\n")

    def test_interrupted(self, run, site, ini, other, tmp_path):
        """Ctrl-C: what is copied is whole, and the next run goes on."""
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
        copied = [path for path in (tmp_path / "other").rglob("*") if path.is_file()]
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
        assert line == f"rewritten: {record.uri} {location}"


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

    def test_who_reads_along_may_go(self, ini, record, settings):
        for _ in range(200):
            leave_orphan(record, settings)
        command = f"{BIN}/kinto-attachment fsck --ini {ini} | head -1"
        done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
        assert done.stdout.startswith("orphan object: ")
        assert "Traceback" not in done.stderr and "Exception" not in done.stderr

    def test_progress_is_for_terminals(self, ini, record):
        """A pseudo terminal on stderr: a bar there, lines on stdout."""
        reader, writer = pty.openpty()
        command = [str(BIN / "kinto-attachment"), "fsck", "--deep", "--ini", str(ini)]
        size = struct.pack("HHHH", 24, 80, 0, 0)
        fcntl.ioctl(writer, termios.TIOCSWINSZ, size)
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=writer, timeout=60)
        os.close(writer)
        shown = b""
        with suppress(OSError):  # EIO is its end
            while chunk := os.read(reader, 65536):
                shown += chunk
        os.close(reader)
        assert (done.returncode, done.stdout) == (0, b"")
        assert b"B/s" in shown
