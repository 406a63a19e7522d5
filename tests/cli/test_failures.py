"""Whatever can happen to users is one sentence, and the exit status 2."""

import re
import subprocess
import sys

import pytest

from kinto_attachment.cli.failures import clean, explain
from kinto_attachment.cli.parser import parse
from tests.support.command import shell
from tests.support.servers.wsgi import MEMORY, write_ini
from tests.support.site import SETTINGS

PYTHON = re.compile(r"Traceback|\b[A-Z]\w*(Error|Exception)\b|\w\(\w+=| object at 0x|\[Errno|codec")

COMMANDS = {
    "fsck": [],
    "gc": [],
    "verify": ["--once"],
    "adopt-storage": [],
    "rebase": ["--from", "http://a/", "--to", "http://b/"],
    "import": [],
    "library": ["init"],
}


def failure(*arguments, **env) -> str:
    """Run a command that fails; return what it says."""
    status, lines, said = shell(*arguments, **env)
    assert (status, lines) == (2, [])
    (sentence,) = said.splitlines()
    assert sentence.startswith("kinto-attachment: ") and not PYTHON.search(sentence), sentence
    return sentence.removeprefix("kinto-attachment: ")


class TestIni:
    def test_is_missing(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert failure("fsck") == (
            "--ini: there is no config/kinto.ini: pass the ini file of your server with --ini "
            "FILE, or in the environment variable KINTO_INI"
        )
        assert "there is no other.ini" in failure("gc", KINTO_INI="other.ini")

    @pytest.mark.parametrize(
        "content, why",
        [
            (b"[app:main\nuse = egg:kinto\n", "no section headers"),
            (b"[app:main]\nuse = egg:kinto\nx = %(y)s\n", "Bad value substitution"),
            (b"[DEFAULT]\na = 1\n", "No section 'main'"),
            (b"\xff\xfe\x00", "is not text in UTF-8"),
            (b"[app:main]\nuse = egg:nowhere\n", "nowhere"),
            (b"[app:main]\nuse = egg:kinto\nkinto.includes = nowhere\n", "nowhere"),
            (b"[app:main]\nuse = egg:kinto\nkinto.storage_backend = no.where\n", "'no'"),
        ],
    )
    def test_is_broken(self, tmp_path, content, why):
        path = tmp_path / "broken.ini"
        path.write_bytes(content)
        said = failure("fsck", "--ini", path)
        assert str(path) in said and why in said

    def test_is_a_folder(self, tmp_path):
        assert failure("fsck", "--ini", tmp_path) == f"--ini: {tmp_path}: Is a directory"


@pytest.mark.parametrize(
    "command, kind", [*((command, "storage") for command in COMMANDS), ("library", "permission")]
)
def test_memory_is_refused(command, kind, make_database, tmp_path):
    """No command says anything about a storage that only the process of the server can see."""
    changed = {
        **SETTINGS,
        **make_database(),
        f"kinto.{kind}_backend": MEMORY[f"kinto.{kind}_backend"],
        "kinto.attachment.base_path": str(tmp_path / "files"),
        "kinto.attachment.library.bucket": "site",
    }
    ini = write_ini(tmp_path / "kinto.ini", changed)
    said = failure(command, "--ini", ini, *COMMANDS[command])
    assert said.startswith(f"{ini} sets kinto.{kind}_backend to memory")
    assert f"kinto.{kind}_backend = kinto.core.{kind}.postgresql" in said
    assert "kinto-attachment gc" not in said


def test_migrate_with_memory(tmp_path):
    settings = {**SETTINGS, **MEMORY, "kinto.attachment.base_path": str(tmp_path / "files")}
    ini = write_ini(tmp_path / "kinto.ini", settings)
    assert "storage_backend to memory" in failure("migrate", "--ini", ini, "--to", ini)


MEMORY_FILES = {"kinto.attachment.storage": "memory"}


@pytest.mark.parametrize("command", [each for each in COMMANDS if each != "library"])
def test_files_in_memory_are_refused(command, settings, tmp_path):
    ini = write_ini(tmp_path / "memory.ini", {**settings, **MEMORY_FILES})
    said = failure(command, "--ini", ini, *COMMANDS[command])
    assert said.startswith(f"{ini} sets kinto.attachment.storage to memory")
    assert "kinto.attachment.base_path" in said


def test_migrate_to_files_in_memory(settings, ini, record, tmp_path):
    memory = write_ini(tmp_path / "memory.ini", {**settings, **MEMORY_FILES})
    for dry_run in ([], ["--dry-run"]):
        for one, other in ((ini, memory), (memory, ini)):
            said = failure("migrate", "--ini", one, "--to", other, *dry_run)
            assert said.startswith(f"{memory} sets kinto.attachment.storage to memory")


class TestStorage:
    S3 = {
        "kinto.attachment.storage": "s3",
        "kinto.attachment.aws.bucket_name": "files",
        "kinto.attachment.aws.endpoint_url": "http://127.0.0.1:9",
        "kinto.attachment.aws.access_key": "a",
        "kinto.attachment.aws.secret_key": "b",
        "kinto.attachment.aws.timeout": "1",
        "kinto.attachment.aws.num_retries": "0",
    }

    def test_does_not_answer(self, settings, ini, tmp_path):
        """It is named after its ini file, as ``migrate`` has two."""
        gone = write_ini(tmp_path / "s3.ini", {**settings, **self.S3})
        expected = f"The storage of {gone} does not answer (http://127.0.0.1:9/files)"
        assert failure("fsck", "--ini", gone) == expected
        assert failure("migrate", "--ini", ini, "--to", gone) == expected

    def test_is_not_a_folder(self, settings, tmp_path):
        (tmp_path / "file").touch()
        changed = {**settings, "kinto.attachment.base_path": str(tmp_path / "file")}
        said = failure("fsck", "--ini", write_ini(tmp_path / "file.ini", changed))
        assert f"{tmp_path}/file exists but is not a folder" in said

    def test_cannot_be_written(self, settings, ini, tmp_path, record):
        changed = {**settings, "kinto.attachment.base_path": "/proc/1/nowhere"}
        said = failure("migrate", "--ini", ini, "--to", write_ini(tmp_path / "p.ini", changed))
        assert said.endswith("/proc/1/nowhere: No such file or directory")


class TestDatabase:
    def test_does_not_answer(self, settings, tmp_path):
        url = "postgresql://a:b@127.0.0.1:9/c"
        changed = {**settings, "kinto.storage_url": url, "kinto.permission_url": url}
        ini = write_ini(tmp_path / "gone.ini", changed)
        said = failure("fsck", "--ini", ini)
        assert said.startswith(f"The database of {ini} does not work: ")
        assert "Connection refused" in said

    @pytest.mark.parametrize("kind", ["storage", "permission"])
    @pytest.mark.parametrize(
        "url",
        [
            "postgresql://u:hunter2@127.0.0.1:port/x",
            "postgres//u:hunter2@127.0.0.1/x",
            "postgres://u:hunter2@127.0.0.1/x",
            "",
        ],
    )
    def test_url_is_malformed(self, settings, tmp_path, kind, url):
        """The setting is named, and the password is not."""
        ini = write_ini(tmp_path / "url.ini", {**settings, f"kinto.{kind}_url": url})
        said = failure("fsck", "--ini", ini)
        assert said.startswith(f"kinto.{kind}_url: in {ini}, it is not the URL of a PostgreSQL")
        assert "hunter2" not in said

    def test_number_is_malformed(self, settings, tmp_path):
        """Kinto says only that it is not a number."""
        changed = {**settings, "kinto.version_prefix_redirect_ttl_seconds": "soon"}
        ini = write_ini(tmp_path / "number.ini", changed)
        said = failure("fsck", "--ini", ini)
        assert said.startswith(f"--ini: {ini} has a setting that Kinto cannot read: ")
        assert "soon" in said

    def test_has_no_tables(self, settings, tmp_path):
        """Kinto itself logs a traceback."""
        empty = settings["kinto.storage_url"]
        options = "&" if "?" in empty else "?"
        schema = f"{empty}{options}options=-csearch_path%3Dnowhere"
        changed = {**settings, "kinto.storage_url": schema, "kinto.permission_url": schema}
        ini = write_ini(tmp_path / "empty.ini", changed)
        command = [sys.executable, "-m", "kinto_attachment.cli", "gc", "--ini", str(ini)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == (
            f"kinto-attachment: The database of {ini} has no tables yet: run kinto migrate --ini "
            f"{ini}\n"
        )


class TestExplain:
    def test_a_fault_of_ours_is_not_explained(self):
        assert explain(ZeroDivisionError("x"), parse(["fsck"])) == ""

    @pytest.mark.parametrize(
        "error, text",
        [
            (OSError(28, "No space left on device"), "No space left on device"),
            (OSError(2, "No such file", b"/a/\xc3\xa9"), "/a/é: No such file"),
            (ValueError("a\nb"), "a b"),
            (ValueError("botocore.exceptions.SomeError: it broke"), "it broke"),
        ],
    )
    def test_clean(self, error, text):
        assert clean(error) == text
