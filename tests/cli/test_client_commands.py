"""``upload`` and ``download``, as commands."""

import json
import re
import secrets
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from uuid import uuid4

import pytest
import requests

from tests.cli.test_failures import PYTHON
from tests.cli.test_output import on_terminal
from tests.support.command import interrupted, shell
from tests.support.servers.wsgi import Gunicorn


@pytest.fixture(scope="module")
def server(file_settings, tmp_path_factory):
    settings = file_settings("local")
    settings["kinto.attachment.resources.fields.fields"] = "attachment cover pictures[]"
    with Gunicorn(settings, tmp_path_factory.mktemp("server")) as server:
        server.files = Path(settings["kinto.attachment.base_path"])
        yield server


class TestUploadAndDownload:
    """The commands; tests/transfer tests what is transferred."""

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
        assert (status, self.kinds(lines), said) == (0, ["would upload"] * 3, "")
        assert self.kinds(shell("upload", source, "--json", *options)[1]) == ["uploaded"] * 3
        status, lines, said = shell("upload", source, *options)
        assert (status, len(lines), said) == (0, 3, "3 unchanged\n")

        status, lines, said = shell("download", target, "--dry-run", *options)
        assert (status, len(lines), said) == (0, 3, "Dry run: would download 3\n")
        assert not target.exists() or self.contents(target) == {}
        status, lines, _ = shell("download", target, "--json", *options)
        assert (status, self.kinds(lines)) == (0, ["downloaded"] * 3)
        assert self.contents(target) == self.contents(source)

        (target / "1.png").write_bytes(b"another")
        status, lines, said = shell("download", target, *options)
        assert (status, len(lines), said) == (1, 3, "2 unchanged, 1 conflict\n")
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
        assert shell("upload", source, *place, KINTO_AUTH="")[0] == 2
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

    def test_dry_run_asks_the_server(self, options, make_files, server):
        """It says of each file what the upload then does, and stores nothing."""
        source = make_files(3)
        (source / "a.exe").write_bytes(b"MZ")
        (source / "b.EXE").write_bytes(b"MZ")
        (source / "huge.png").write_bytes(b"x" * 300_001)
        before = self.contents(server.files)
        status, lines, said = shell("upload", source, "--dry-run", *options)
        assert (status, said) == (1, "Dry run: would upload 4, 2 would be refused\n")
        assert all("File extension is not allowed" in each for each in lines if "refused" in each)
        assert self.contents(server.files) == before
        assert shell("download", source / "none", *options)[1:] == ([], "no files\n")
        status, lines, said = shell("upload", source, *options)
        assert (status, said) == (1, "4 uploaded, 2 refused\n")

    def test_quiet(self, options, make_files):
        source = make_files(2)
        assert shell("upload", source, "--quiet", *options) == (0, [], "")
        (source / "a.exe").write_bytes(b"MZ")
        status, lines, said = shell("upload", source, "--quiet", *options)
        assert (status, len(lines), said) == (1, 1, "2 unchanged, 1 refused\n")

    def test_total_on_a_terminal(self, options, make_files, tmp_path):
        for number, arguments in enumerate(
            (["upload", str(make_files(5))], ["download", str(tmp_path / "copies")])
        ):
            command = [sys.executable, "-m", "kinto_attachment.cli", *arguments, *options]
            drawn = on_terminal(command, 200)
            assert any("/100k [" in bar and "/5 files, " in bar for bar in drawn), drawn
            assert drawn[-2] == ("5 uploaded", "5 downloaded")[number]

    def test_files_that_cannot_be_read(self, options, make_files, tmp_path):
        """Each has a remedy of its own."""
        make_files(1)
        status, (line,), said = shell("upload", tmp_path / "gone.png", *options)
        assert (status, said) == (1, "1 failed\n")
        assert line.split("  ") == [
            *("failed", "gone.png", "No such file or directory"),
            "check that it exists and is spelt correctly",
        ]


class TestRecords:
    """``upload --records``; tests/transfer tests what is transferred."""

    @pytest.fixture
    def where(self, server):
        alice, collection = ("alice", "secret"), f"c{uuid4().hex}"
        for uri in ("buckets/fields", f"buckets/fields/collections/{collection}"):
            requests.put(f"{server.url}/{uri}", auth=alice, timeout=60).raise_for_status()
        where = ["--server", server.url, "--bucket", "fields", "--collection", collection]
        return [*where, "--auth", "alice:secret"]

    def test_there_and_back(self, where, tmp_path):
        folder = tmp_path / "r1" / "pictures"
        folder.mkdir(parents=True)
        for number in range(1, 13):
            (folder / f"{number:03}-{13 - number}.png").write_bytes(b"%d" % number)
        upload = ("upload", "--records", tmp_path, *where)
        status, lines, said = shell(*upload, "--dry-run")
        assert (status, len(lines), said) == (0, 12, "Dry run: would upload 12\n")
        status, lines, said = shell(*upload, "--json")
        found = [json.loads(line) for line in lines]
        assert (status, said, {each["kind"] for each in found}) == (0, "", {"uploaded"})
        assert [each["key"] for each in found][-1] == "r1/pictures/012-1.png"
        assert found[0]["record"].endswith("/records/r1/attachments/pictures")
        assert shell(*upload)[::2] == (0, "12 unchanged\n")

        (folder / "012-1.png").rename(folder / "000-1.png")
        status, lines, said = shell(*upload, "--dry-run", "--json")
        kinds = [json.loads(line)["kind"] for line in lines]
        assert (status, kinds) == (0, ["unchanged"] * 12 + ["would reorder"])
        (folder / "001-12.png").unlink()
        assert shell(*upload)[::2] == (0, "1 kept, 1 reordered, 11 unchanged\n")
        (folder / "013-a.exe").write_bytes(b"MZ")
        status, lines, said = shell(*upload, "--quiet")
        assert (status, len(lines), said) == (1, 1, "1 kept, 11 unchanged, 1 refused\n")
        assert "File extension is not allowed" in lines[0]

        copies = tmp_path / "copies"
        assert shell("download", copies, *where)[::2] == (0, "12 downloaded\n")
        names = sorted(path.name for path in (copies / "r1" / "pictures").iterdir())
        assert names[0] == "001-1.png" and names[-1] == "012-12.png"


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


class TestWrongServer:
    """What concerns the whole run is said once."""

    @pytest.fixture
    def folder(self, tmp_path):
        for number in range(20):
            (tmp_path / f"{number}.png").write_bytes(b"x")
        return tmp_path

    @pytest.fixture
    def failure(self, server, folder):
        def failure(url=None, auth="alice:secret", bucket="default", collection="c", to=None):
            where = ["--server", url or server.url, "--bucket", bucket, "--collection", collection]
            where += ["--auth", auth] if auth else []
            said = set()
            for first in (["upload", folder], ["download", to or folder / "to"]):
                status, lines, why = shell(*first, *where, KINTO_AUTH="")
                assert (status, lines) == (2, [])
                assert not PYTHON.search(why) and why.count("\n") == 1, why
                said.add(why)
            return " ".join(said)

        return failure

    def test_no_password(self, failure):
        assert "give --auth USER:PASSWORD or --auth 'Bearer TOKEN', or set KINTO_AUTH" in failure(
            auth=None
        )

    def test_malformed_password(self, failure):
        assert "must be USER:PASSWORD" in failure(auth="alice")

    def test_wrong_token(self, failure):
        assert "does not know this user and password: check --auth" in failure(auth="Bearer x")

    def test_wrong_port(self, failure):
        assert "There is no answer from http://127.0.0.1:9/v1/ (Connection refused)" in failure(
            "http://127.0.0.1:9/v1"
        )

    def test_no_such_host(self, failure):
        assert "(there is no host of that name)" in failure("http://nowhere.invalid/v1")

    def test_https(self, failure, server):
        assert "no secure connection" in failure(server.url.replace("http:", "https:"))

    def test_no_such_bucket(self, failure):
        assert "or it does not exist" in failure(bucket="nowhere")

    def test_no_such_version(self, failure, server):
        assert "is not the URL of a Kinto server" in failure(server.url.replace("/v1", "/v0"))

    def test_no_kinto(self, failure, folder):
        """A web server that has pages of the same paths."""
        (folder / "web" / "v1").mkdir(parents=True)
        handler = partial(Silent, directory=folder / "web")
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
            Thread(target=web.serve_forever, daemon=True).start()
            assert "is not a Kinto server" in failure(f"http://127.0.0.1:{web.server_port}/v1")
            web.shutdown()

    def test_no_plugin(self, failure, tmp_path):
        with Gunicorn({"kinto.includes": "kinto.plugins.default_bucket"}, tmp_path) as plain:
            assert "has to add kinto_attachment to kinto.includes" in failure(plain.url)

    def test_without_version(self, server, folder):
        """The server says which one it has."""
        where = ["--bucket", "default", "--collection", "without", "--auth", "alice:secret"]
        where += ["--server", server.url.removesuffix("/v1")]
        assert shell("upload", folder, *where)[::2] == (0, "20 uploaded\n")
        assert shell("download", folder / "to", *where)[::2] == (0, "20 downloaded\n")

    def test_folder_that_cannot_be_written(self, server, folder):
        where = ["--server", server.url, "--bucket", "default", "--collection", "folder"]
        where += ["--auth", "alice:secret"]
        assert shell("upload", folder, *where)[0] == 0
        for target, why in (("/proc/1/x", "cannot be created"), (folder / "1.png", "not a folder")):
            status, lines, said = shell("download", target, *where)
            assert (status, lines) == (2, []) and why in said and said.count("\n") == 1
