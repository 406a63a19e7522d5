"""The command line: arguments and processes."""

import os
import subprocess
import sys
from importlib.metadata import version

import pytest

from kinto_attachment.cli import main
from tests.support.command import leave_orphan, shell
from tests.support.servers.wsgi import BIN, write_ini


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
            ("upload f --server http://a", "required: --bucket, --collection (or --library)"),
            ("upload f --server http://a --library --records", "exclude each other"),
            ("upload f g --records --server http://a --bucket b --collection c", "one folder"),
            ("upload f --server http://a --library --bucket b", "--library is instead of --bucket"),
            (
                "upload f --server http://a --bucket b --collection c --title t --tag u",
                "--title, --tag: only media have it",
            ),
            (
                "download d --server s --bucket b --collection c --parallel x",
                "argument --parallel: invalid int value: 'x'",
            ),
            ("rebase --from http://a/ --to cdn.example.com", "'cdn.example.com' does not begin"),
            ("library init --authors system.authenticated", "'system.authenticated' is not a prin"),
            ("library init --readers alice", "use system.Everyone, system.Authenticated, a user"),
            ("fsck --ini README.rst", "README.rst is not an ini file: its name must end with .ini"),
            ("migrate --to nope.ini --ini nope.ini", "pass the ini file with the settings of the"),
            ("download d --server nowhere --bucket b --collection c", "nowhere"),
            ("download d --server http://a:x --bucket b --collection c", "is not the URL of a"),
            ("download d --server http://[a --bucket b --collection c", "is not the URL of a"),
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

    @pytest.mark.parametrize(
        "url",
        [
            "http://alice:hunter2@127.0.0.1:9/v1",
            "http://:hunter2@127.0.0.1:9/v1",
            "http://alice:hunter2@127.0.0.1:port/v1",
            "http://alice:hun/ter2@127.0.0.1/v1",
            "alice:hunter2@127.0.0.1:9/v1",
        ],
    )
    def test_a_password_in_the_url_is_not_repeated(self, url, tmp_path):
        where = ["--server", url, "--bucket", "b", "--collection", "c"]
        for command in (["upload", tmp_path], ["download", tmp_path]):
            status, lines, said = shell(*command, *where)
            assert (status, lines, said.count("\n")) == (2, [], 1)
            assert "--auth" in said and "KINTO_AUTH" in said and "ter2" not in said

    def test_a_server_without_the_plugin(self, settings, tmp_path, capsys):
        ini = write_ini(tmp_path / "plain.ini", {**settings, "kinto.includes": ""})
        assert main(["fsck", "--ini", str(ini)]) == 2
        assert "kinto_attachment is not included" in capsys.readouterr().err

    def test_a_setting_that_is_wrong(self, settings, tmp_path, capsys):
        ini = write_ini(tmp_path / "wrong.ini", {**settings, "kinto.attachment.unknown": "1"})
        assert main(["fsck", "--ini", str(ini)]) == 2
        assert "attachment.unknown" in capsys.readouterr().err

    def test_a_closed_pipe(self, ini, record, settings):
        for _ in range(200):
            leave_orphan(record, settings)
        gc = f"{BIN}/kinto-attachment gc --offline --force --dry-run --ini {ini}"
        command = f"{gc} | head -1"
        done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
        assert done.stdout.startswith("would delete  ")
        assert "Traceback" not in done.stderr and "Exception" not in done.stderr

    def test_version(self):
        assert shell("--version")[1] == [f"kinto-attachment {version('kinto-attachment')}"]

    def test_a_full_disk(self, ini, record):
        record.site.storage.delete(record.collection.links)
        command = [sys.executable, "-m", "kinto_attachment.cli", "fsck", "--ini", str(ini)]
        with open("/dev/full", "w") as full:
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=60)
        assert done.returncode == 2
        assert done.stderr == b"kinto-attachment: No space left on device\n"

    def test_no_warning_of_a_package_that_pyramid_imports(self, ini, record, tmp_path):
        """Newer versions of setuptools warn of it in each process that imports Pyramid."""
        (tmp_path / "early").mkdir()
        (tmp_path / "early" / "pkg_resources.py").write_text(DEPRECATED)
        paths = [str(tmp_path / "early"), *filter(None, [os.environ.get("PYTHONPATH")])]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        command = [sys.executable, "-m", "kinto_attachment.cli", "fsck", "--ini", str(ini)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "no problems\n")
        pyramid = [sys.executable, "-c", "import pyramid.path"]
        done = subprocess.run(pyramid, env=env, capture_output=True, text=True, timeout=60)
        assert "pkg_resources is deprecated as an API" in done.stderr

    def test_metrics_of_the_server_are_left_alone(self, settings, record, tmp_path):
        """Kinto's plugin would warn of a single process, and empty the folder of the server."""
        (tmp_path / "metrics").mkdir()
        (tmp_path / "metrics" / "counter_1.db").write_bytes(b"x")
        includes = f"{settings['kinto.includes']} kinto.plugins.prometheus"
        ini = write_ini(tmp_path / "metrics.ini", {**settings, "kinto.includes": includes})
        command = [sys.executable, "-m", "kinto_attachment.cli", "fsck", "--ini", str(ini)]
        for given in ({}, {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics")}):
            env = {**os.environ, **given}
            done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
            assert (done.returncode, done.stderr) == (0, "no problems\n")
        assert [each.name for each in (tmp_path / "metrics").iterdir()] == ["counter_1.db"]

    def test_help_needs_neither_kinto_nor_pyramid(self):
        """A shell asks for it with each key."""
        code = "import sys, kinto_attachment.cli.parser as p; p.make_parser(); print(*sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert not {"kinto", "pyramid", "requests"} & set(done.stdout.split())


DEPRECATED = """
import sys, warnings
sys.path.pop(sys.path.index(__file__.rpartition("/")[0]))
warnings.warn("pkg_resources is deprecated as an API.", UserWarning, stacklevel=2)
del sys.modules["pkg_resources"]
import pkg_resources
"""
