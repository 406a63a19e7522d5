"""``kinto_attachment.transfer``: real servers, and one that misbehaves as it is told."""

import fcntl
import ipaddress
import json
import os
import re
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath

import psutil
import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import example, given
from hypothesis import strategies as st

from kinto_attachment.transfer import client as client_module
from kinto_attachment.transfer.client import Client
from kinto_attachment.transfer.download import download
from kinto_attachment.transfer.paths import MAX_NAME, PART, PathAllocator
from kinto_attachment.transfer.upload import record_id, upload
from tests.attachments.test_get import ALICE, Attached
from tests.support.servers.wsgi import Gunicorn

CONTENT = secrets.token_bytes(3_000_003)
AUTH = ":".join(ALICE)


@pytest.fixture(scope="module")
def server(file_settings, tmp_path_factory):
    settings = {
        **file_settings("local"),
        "kinto.attachment.extensions": "any",
        "kinto.attachment.resources.picky.extensions": "images",
        "kinto.attachment.resources.small.max_size": "1000",
    }
    with Gunicorn(settings, tmp_path_factory.mktemp("transfer")) as server:
        yield server


@pytest.fixture
def record(server):
    """In a collection of its own, with nothing in it yet."""
    return Attached(server)


@contextmanager
def client_of(record, auth=AUTH, url=None, **options):
    yield from _clients(record, auth, url, options)


def _clients(record, auth, url, options):
    match = re.search("/buckets/([^/]+)/collections/([^/]+)", record.record)
    with Client(url or record.server.url, *match.groups(), auth, **options) as client:
        yield client
        assert not [t for t in threading.enumerate() if t.name.startswith("transfer")]


@pytest.fixture
def client(record):
    yield from _clients(record, AUTH, None, {})


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(client_module, "FIRST_WAIT", 0.01)


def kinds(findings) -> dict[str, int]:
    found: dict[str, int] = {}
    for finding in findings:
        found[finding.kind] = found.get(finding.kind, 0) + 1
        assert finding.is_problem == (
            finding.kind not in ("uploaded", "downloaded", "unchanged", "skipped")
        )
    return found


def one(findings):
    (finding,) = list(findings)
    return finding


def files_in(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def make_files(folder: Path, count: int) -> dict[str, bytes]:
    for number in range(count):
        path = folder / f"f{number % 7}" / f"{number} été 写真.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(secrets.token_bytes(number * 331))
    return files_in(folder)


class TestBothWays:
    def test_many(self, client, record, tmp_path):
        files = make_files(tmp_path / "from", 300)
        told = []
        assert kinds(upload(client, [tmp_path / "from"], on_bytes=told.append)) == {"uploaded": 300}
        assert sum(told) == sum(map(len, files.values()))
        assert kinds(upload(client, [tmp_path / "from"])) == {"unchanged": 300}
        told.clear()
        to = tmp_path / "to"
        assert kinds(download(client, to, on_bytes=told.append)) == {"downloaded": 300}
        assert sum(told) == sum(map(len, files.values()))
        assert files_in(to) == files
        assert kinds(download(client, to)) == {"unchanged": 300}
        stored = requests.get(f"{record.collection}/records?_limit=999", auth=ALICE, timeout=60)
        records = stored.json()["data"]
        assert {r["path"]: r["attachment"]["hash"] for r in records} == {
            name: sha256(content).hexdigest() for name, content in files.items()
        }
        assert all(r["id"] == record_id(r["path"]) for r in records)

    def test_dry_run(self, client, record, tmp_path):
        files = make_files(tmp_path / "from", 3)
        assert kinds(upload(client, [tmp_path / "from"], dry_run=True)) == {"uploaded": 3}
        assert kinds(download(client, tmp_path / "to")) == {}
        kinds(upload(client, [tmp_path / "from"]))
        assert kinds(download(client, tmp_path / "to", dry_run=True)) == {"downloaded": 3}
        assert not (tmp_path / "to").exists()
        assert len(files) == 3

    @pytest.mark.parametrize("made", [[], ["default"], ["default", "default/collections/c"]])
    def test_dry_run_makes_no_default_bucket(self, file_settings, tmp_path, made):
        """Kinto makes it, and its collections, for whoever looks there."""
        files = make_files(tmp_path / "from", 2)
        settings = {**file_settings("local"), "kinto.attachment.extensions": "any"}
        with Gunicorn(settings, tmp_path) as server:
            for uri in made:
                requests.put(f"{server.url}/buckets/{uri}", auth=ALICE, timeout=60)
            own = requests.get(f"{server.url}/", auth=ALICE, timeout=60).json()["user"]["bucket"]

            def there():
                uris = (f"buckets/{own}", f"buckets/{own}/collections/c")
                answers = [requests.get(f"{server.url}/{u}", auth=ALICE, timeout=60) for u in uris]
                return [answer.ok for answer in answers]

            before = there()
            assert before == ([True] * len(made) + [False] * 2)[:2]
            with Client(server.url, "default", "c", AUTH) as client:
                assert kinds(download(client, tmp_path / "to", dry_run=True)) == {}
                assert kinds(upload(client, [tmp_path / "from"], dry_run=True)) == {"uploaded": 2}
                assert there() == before
                assert kinds(upload(client, [tmp_path / "from"])) == {"uploaded": 2}
                assert kinds(upload(client, [tmp_path / "from"], dry_run=True)) == {"unchanged": 2}
                job = download(client, tmp_path / "to", dry_run=True)
                assert kinds(job) == {"downloaded": len(files)}

    def test_redirected(self, file_settings, tmp_path):
        settings = {
            **file_settings("seaweedfs"),
            "kinto.attachment.extensions": "any",
            "kinto.attachment.download": "redirect",
        }
        with Gunicorn(settings, tmp_path) as server, client_of(Attached(server)) as client:
            files = make_files(tmp_path / "from", 20)
            assert kinds(upload(client, [tmp_path / "from"])) == {"uploaded": 20}
            name = max(files, key=lambda name: len(files[name]))
            part = tmp_path / "to" / (name + PART)
            part.parent.mkdir(parents=True)
            part.write_bytes(files[name][:1000])
            told = []
            found = download(client, tmp_path / "to", on_bytes=told.append)
            assert kinds(found) == {"downloaded": 20}
            assert files_in(tmp_path / "to") == files
            assert sum(told) == sum(map(len, files.values())) - 1000

    @pytest.mark.slow
    def test_memory(self, client, tmp_path):
        """Of this process, while 512 MiB pass through it."""
        big = tmp_path / "from" / "big.bin"
        big.parent.mkdir()
        with big.open("wb") as file:
            for _ in range(512):
                file.write(secrets.token_bytes(1024 * 1024))
        process, most = psutil.Process(), []

        def look(size):
            most.append(process.memory_info().rss)

        before = process.memory_info().rss
        for way in (
            lambda: upload(client, [big], on_bytes=look),
            lambda: download(client, tmp_path / "to", on_bytes=look),
        ):
            start = time.monotonic()
            most.clear()
            one(way())
            seconds = time.monotonic() - start
            print(f"{(max(most) - before) / 2**20:.1f} MiB more, {512 / seconds:.0f} MiB/s")
            assert max(most) - before < 16 * 1024 * 1024
        assert (tmp_path / "to" / "big.bin").stat().st_size == 512 * 1024 * 1024


class TestUpload:
    def test_replaces(self, client, record, tmp_path):
        path = tmp_path / "a.bin"
        for content in (b"one", b"two", b""):
            path.write_bytes(content)
            assert one(upload(client, [path])).kind == "uploaded"
            record.url = f"{record.collection}/records/{record_id('a.bin')}/attachment"
            assert record.get().content == content

    def test_large_and_refused(self, server, tmp_path):
        """The server does not read to the end what it does not want; its reason arrives."""
        path = tmp_path / "a.exe"
        with path.open("wb") as file:
            file.truncate(100 * 1024 * 1024)
        for bucket, reason in (("picky", "extension is not allowed"), ("small", "exceeds")):
            for uri in (f"/buckets/{bucket}", f"/buckets/{bucket}/collections/c"):
                requests.put(server.url + uri, auth=ALICE, timeout=60).raise_for_status()
            with Client(server.url, bucket, "c", AUTH) as client:
                told = []
                finding = one(upload(client, [path], on_bytes=told.append))
            assert finding.kind == "refused" and reason in finding.detail, finding
            assert sum(told) < 50 * 1024 * 1024

    @pytest.mark.parametrize("auth, status", [(None, 401), ("bob:secret", 403)])
    def test_not_allowed(self, record, tmp_path, auth, status):
        (tmp_path / "a").write_bytes(b"a")
        with client_of(record, auth) as client:
            for found in (upload(client, [tmp_path]), download(client, tmp_path / "to")):
                finding = one(found)
                assert finding.kind == "refused"
                assert finding.detail.startswith(str(status)) and finding.remedy

    def test_no_collection(self, server, record, tmp_path):
        (tmp_path / "a").write_bytes(b"a")
        record.record = record.record.replace("/c/", "/other/")
        with client_of(record) as client:
            assert one(upload(client, [tmp_path])).detail.startswith("404")

    def test_nobody_is_overwritten(self, client, record, tmp_path, monkeypatch):
        """A change between our look at the record and our file."""
        path = tmp_path / "a.bin"
        original = client.find
        uri = f"{record.collection}/records/{record_id('a.bin')}"
        for content in (b"new", b"changed"):
            path.write_bytes(content)
            left = [None]

            def find(ref, left=left):
                found = original(ref)
                if left:
                    left.pop()
                    body = {"data": {"theirs": secrets.token_hex()}}
                    requests.put(uri, json=body, auth=ALICE, timeout=60).raise_for_status()
                return found

            monkeypatch.setattr(client, "find", find)
            finding = one(upload(client, [path]))
            assert finding.kind == "conflict" and finding.remedy
            data = requests.get(uri, auth=ALICE, timeout=60).json()["data"]
            assert "theirs" in data and "attachment" not in data
            assert one(upload(client, [path])).kind == "uploaded"

    @pytest.mark.parametrize("change", ["append", "truncate", "write"])
    def test_a_file_that_changes(self, client, record, tmp_path, change):
        path = tmp_path / "a.bin"
        path.write_bytes(CONTENT)
        changed = []

        def on_bytes(size):
            if not changed and size:
                changed.append(size)
                with path.open("r+b") as file:
                    if change == "truncate":
                        file.truncate(1_000_000)
                    else:
                        file.seek(0, 2 if change == "append" else 0)
                        file.write(b"x")

        assert one(upload(client, [path], on_bytes=on_bytes)).kind == "changed"
        records = requests.get(f"{record.collection}/records", auth=ALICE, timeout=60)
        assert records.json()["data"] == []
        assert one(upload(client, [path])).kind == "uploaded"

    def test_what_is_no_file(self, client, tmp_path):
        os.mkfifo(tmp_path / "fifo")
        (tmp_path / "link").symlink_to("/etc/passwd")
        (tmp_path / "loop").symlink_to(tmp_path)
        (tmp_path / "file").write_bytes(b"a")
        os.close(os.open(os.fsencode(tmp_path) + b"/\xff", os.O_CREAT))
        found = {
            finding.key: finding.kind for finding in upload(client, [tmp_path, tmp_path / "gone"])
        }
        assert found == {
            "fifo": "skipped",
            "link": "skipped",
            "loop": "skipped",
            "file": "uploaded",
            "\\udcff": "refused",
            "gone": "failed",
        }

    def test_two_of_one_name(self, client, tmp_path):
        for folder in ("a", "b"):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "x").write_text(folder)
        for paths in (["a", "b"], ["a/x", "b/x"], ["a", "b/x"]):
            found = list(upload(client, [tmp_path / path for path in paths]))
            assert sorted(finding.kind for finding in found)[0] == "conflict"
            assert {finding.key for finding in found} == {"x"}


class TestDownload:
    def test_what_is_there(self, client, record, tmp_path):
        record.upload(filename="a.bin")
        place = tmp_path / "a.bin"
        place.write_bytes(b"mine")
        finding = one(download(client, tmp_path))
        assert (finding.kind, place.read_bytes()) == ("conflict", b"mine")
        assert one(download(client, tmp_path, dry_run=True)).kind == "conflict"
        assert one(download(client, tmp_path, overwrite=True)).kind == "downloaded"
        assert files_in(tmp_path)["a.bin"] == record.get().content
        assert os.listdir(tmp_path) == ["a.bin"]

    def test_links_lead_nowhere(self, client, record, tmp_path):
        (tmp_path / "outside").mkdir()
        (tmp_path / "to").mkdir()
        for name in ("file", "file" + PART, "folder"):
            (tmp_path / "to" / name).symlink_to(tmp_path / "outside" / name)
        for path in ("file", "folder/file"):
            record.upload()
            body = {"data": {"path": path}}
            requests.patch(record.record, json=body, auth=ALICE, timeout=60)
            found = one(download(client, tmp_path / "to", overwrite=True))
            assert found.kind == "conflict" and "symbolic link" in found.detail
        assert os.listdir(tmp_path / "outside") == []

    @pytest.mark.parametrize(
        "path", ["../evil", "/tmp/evil", "a/../../evil", "a\\b", 5, "", "a//b"]
    )
    def test_never_outside(self, client, record, tmp_path, path):
        record.upload(filename="good.bin")
        requests.patch(record.record, json={"data": {"path": path}}, auth=ALICE, timeout=60)
        assert one(download(client, tmp_path / "x" / "to")).kind == "downloaded"
        assert list(files_in(tmp_path)) == ["x/to/good.bin"]

    def test_one_name(self, client, record, tmp_path):
        contents = set()
        for name in ("r1", "r2", "r3"):
            record.url = f"{record.collection}/records/{name}/attachment"
            contents.add(secrets.token_bytes(10))
            record.upload(sorted(contents)[0] + name.encode(), filename="a.bin")
        for kind in ("downloaded", "unchanged"):
            assert kinds(download(client, tmp_path)) == {kind: 3}
            assert sorted(os.listdir(tmp_path)) == ["a-r2.bin", "a-r3.bin", "a.bin"]

    def test_files_and_folders_of_one_name(self, client, record, tmp_path):
        paths = {"r1": "a", "r2": "a/b.txt", "r3": "x.part/y", "r4": "x", "r5": "c/d", "r6": "c"}
        for name, path in paths.items():
            record.url = f"{record.collection}/records/{name}/attachment"
            record.upload(name.encode())
            body = {"data": {"path": path}}
            uri = f"{record.collection}/records/{name}"
            requests.patch(uri, json=body, auth=ALICE, timeout=60).raise_for_status()
        for kind in ("downloaded", "unchanged"):
            assert kinds(download(client, tmp_path)) == {kind: 6}
        assert files_in(tmp_path) == {
            "a": b"r1",
            "a-r2/b.txt": b"r2",
            "x.part/y": b"r3",
            "x-r4": b"r4",
            "c/d": b"r5",
            "c-r6": b"r6",
        }

    def test_lost(self, client, record, tmp_path, server):
        """One that is lost does not keep the others."""
        location = record.upload(filename="lost")["location"]
        record.url = f"{record.collection}/records/r2/attachment"
        record.upload(b"there", filename="there")
        settings = dict(
            line.split(" = ", 1) for line in server.ini.read_text().splitlines() if " = " in line
        )
        base = settings["kinto.attachment.base_url"]
        Path(settings["kinto.attachment.base_path"], location.removeprefix(base)).unlink()
        found = {finding.key: finding for finding in download(client, tmp_path)}
        assert found["lost"].kind == "missing" and "fsck" in found["lost"].remedy
        assert found["there"].kind == "downloaded"
        assert (tmp_path / "there").read_bytes() == b"there"

    def test_two_runs(self, client, record, tmp_path):
        record.upload(filename="a")
        with open(tmp_path / ("a" + PART), "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            assert "another run" in one(download(client, tmp_path)).detail
        assert one(download(client, tmp_path)).kind == "downloaded"


class Proxy:
    """Between client and server: passes everything on, but what ``misbehave`` takes over.

    :param certificate: makes it HTTPS.
    :param misbehave: is given the handler and the whole answer of the server (None before it was
        asked); true if it answered itself.
    """

    def __init__(self, target: str, misbehave, certificate: Path | None = None):
        outer = self
        self.requests: list[tuple[str, dict]] = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def pass_on(self):
                outer.requests.append((f"{self.command} {self.path}", dict(self.headers)))
                if outer.misbehave(self, None):
                    self.close_connection = True
                    return
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {k: v for k, v in self.headers.items() if k != "Connection"}
                url = outer.target + self.path
                with requests.Session() as session:
                    session.trust_env = False  # the credentials are the client's own
                    answer = session.request(
                        self.command,
                        url,
                        headers=headers,
                        data=body,
                        timeout=60,
                        allow_redirects=False,
                    )
                if outer.misbehave(self, answer):
                    self.close_connection = True
                    return
                self.answer(answer.status_code, answer.headers, answer.content)

            do_GET = do_POST = pass_on

            def answer(self, status, headers, content, length=None):
                self.send_response(status)
                length = len(content) if length is None else length
                hidden = ("content-length", "connection", "date", "server")
                for name, value in headers.items():
                    if name.lower() not in hidden:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(content)
                self.wfile.flush()

            def reset(self):
                self.connection.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0"
                )
                self.rfile.close()
                self.connection.close()

            def log_message(self, *args):
                pass

        self.target, self.misbehave = target.removesuffix("/v1"), misbehave
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *args: None
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            self.url = self.url.replace("http:", "https:")

    def __enter__(self):
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *exc_info):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def asked(self, method="GET", end="/attachment"):
        return [
            headers
            for line, headers in self.requests
            if line.startswith(method) and line.endswith(end)
        ]


def is_file(handler, method="GET"):
    return handler.command == method and handler.path.endswith("/attachment")


@pytest.fixture
def hostile(record):
    """A client behind a proxy that misbehaves."""

    @contextmanager
    def start(misbehave, certificate=None):
        with (
            Proxy(record.server.url, misbehave, certificate) as proxy,
            client_of(record, url=proxy.url) as client,
        ):
            yield proxy, client

    return start


class TestHostileDownload:
    @pytest.mark.parametrize("how", ["cut", "reset"])
    def test_broken_off(self, hostile, record, tmp_path, how):
        """It goes on where it was, within one run."""
        record.upload(CONTENT, "a.bin")
        left = [1, 1, 1]

        def misbehave(handler, answer):
            if answer is not None and is_file(handler) and left:
                left.pop()
                half = answer.content[: len(answer.content) // 2]
                handler.answer(answer.status_code, answer.headers, half, len(answer.content))
                if how == "reset":
                    time.sleep(0.2)
                    handler.reset()
                return True

        told = []
        with hostile(misbehave) as (proxy, client):
            assert one(download(client, tmp_path, on_bytes=told.append)).kind == "downloaded"
            assert files_in(tmp_path) == {"a.bin": CONTENT}
            first, *others = proxy.asked()
            assert "Range" not in first
            starts = [int(asked["Range"][len("bytes=") : -1]) for asked in others]
            assert len(starts) == 3 and starts == sorted(starts) and starts[0] > 0
            etag = f'"{sha256(CONTENT).hexdigest()}"'
            assert {asked["If-Range"] for asked in others} == {etag}
            assert sum(told) == len(CONTENT)

    @pytest.mark.parametrize("whole", [True, False])
    def test_in_chunks(self, hostile, record, tmp_path, whole):
        """No ``Content-Length``: the end of what was broken off looks like any other."""
        record.upload(CONTENT, "a.bin")
        left = [1]

        def misbehave(handler, answer):
            if answer is not None and is_file(handler) and left:
                left.pop()
                handler.send_response(200)
                handler.send_header("Transfer-Encoding", "chunked")
                handler.end_headers()
                for start in range(0, len(CONTENT) if whole else 1_000_000, 1_000_000):
                    chunk = CONTENT[start : start + 1_000_000]
                    handler.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                handler.wfile.write(b"0\r\n\r\n")
                return True

        with hostile(misbehave) as (proxy, client):
            assert one(download(client, tmp_path)).kind == "downloaded"
            assert files_in(tmp_path) == {"a.bin": CONTENT}
            assert [asked.get("Range") for asked in proxy.asked()] == (
                [None] if whole else [None, "bytes=1000000-"]
            )

    def test_always_broken_off(self, hostile, record, tmp_path):
        record.upload(CONTENT, "a.bin")

        def misbehave(handler, answer):
            if answer is not None and is_file(handler):
                size = len(answer.content)
                handler.answer(answer.status_code, answer.headers, answer.content[:1000], size)
                return True

        with hostile(misbehave) as (proxy, client):
            found = one(download(client, tmp_path))
            assert found.kind == "unavailable" and found.remedy
            assert len(proxy.asked()) == client_module.ATTEMPTS
            part = (tmp_path / ("a.bin" + PART)).read_bytes()
            assert part and CONTENT.startswith(part)
            proxy.misbehave = lambda handler, answer: False
            assert one(download(client, tmp_path)).kind == "downloaded"
            assert proxy.asked()[-1]["Range"] == f"bytes={len(part)}-"
            assert files_in(tmp_path) == {"a.bin": CONTENT}

    @pytest.mark.parametrize("wrong", [b"x", CONTENT[:-1] + b"x", CONTENT + b"x"])
    @pytest.mark.parametrize("times", [1, 99])
    def test_wrong_bytes(self, hostile, record, tmp_path, wrong, times):
        record.upload(CONTENT, "a.bin")
        left = [1] * times

        def misbehave(handler, answer):
            if answer is not None and is_file(handler) and left:
                left.pop()
                handler.answer(200, answer.headers, wrong)
                return True

        with hostile(misbehave) as (proxy, client):
            found = one(download(client, tmp_path))
            if times == 1:
                assert found.kind == "downloaded"
                assert files_in(tmp_path) == {"a.bin": CONTENT}
            else:
                assert found.kind in ("damaged", "unavailable") and found.remedy
                assert "a.bin" not in files_in(tmp_path)

    @pytest.mark.parametrize(
        "part", [b"rotten", CONTENT[:1000] + b"x", CONTENT, CONTENT + b"x", CONTENT[:500]]
    )
    def test_whatever_the_part_is(self, client, record, tmp_path, part):
        record.upload(CONTENT, "a.bin")
        (tmp_path / ("a.bin" + PART)).write_bytes(part)
        told = []
        assert one(download(client, tmp_path, on_bytes=told.append)).kind == "downloaded"
        assert files_in(tmp_path) == {"a.bin": CONTENT}
        if CONTENT.startswith(part):
            assert sum(told) == len(CONTENT) - len(part)

    def test_replaced_meanwhile(self, hostile, record, tmp_path):
        record.upload(CONTENT, "a.bin")
        other = CONTENT[::-1][:1_500_000]
        left = [1]

        def misbehave(handler, answer):
            if answer is not None and is_file(handler) and left:
                left.pop()
                handler.answer(200, answer.headers, answer.content[:2_000_000], len(CONTENT))
                record.upload(other, "b.bin")
                return True

        with hostile(misbehave) as (_, client):
            assert one(download(client, tmp_path)).kind == "downloaded"
        assert files_in(tmp_path) == {"a.bin": other}

    def test_retry_after(self, hostile, record, tmp_path):
        record.upload(CONTENT, "a.bin")
        times = []

        def misbehave(handler, answer):
            if answer is None and is_file(handler):
                times.append(time.monotonic())
                if len(times) < 3:
                    handler.answer(503, {"Retry-After": "1"}, b'{"message": "busy"}')
                    return True

        with hostile(misbehave) as (_, client):
            assert one(download(client, tmp_path)).kind == "downloaded"
        assert times[1] - times[0] >= 1 and times[2] - times[1] >= 1

    def test_come_back_tomorrow(self, hostile, record, tmp_path):
        record.upload(CONTENT, "a.bin")

        def misbehave(handler, answer):
            if answer is None and is_file(handler):
                handler.answer(503, {"Retry-After": "86400"}, b'{"message": "busy"}')
                return True

        with hostile(misbehave) as (proxy, client):
            found = one(download(client, tmp_path))
            assert (found.kind, found.detail) == ("unavailable", "503 busy")
            assert len(proxy.asked()) == 1

    @pytest.mark.parametrize("status, kind", [(403, "refused"), (404, "missing"), (500, "failed")])
    def test_one_of_three(self, hostile, record, tmp_path, status, kind):
        for name in ("r1", "r2", "r3"):
            record.url = f"{record.collection}/records/{name}/attachment"
            record.upload(name.encode(), filename=name)

        def misbehave(handler, answer):
            if is_file(handler) and "/r2/" in handler.path:
                handler.answer(status, {}, b'{"message": "no"}')
                return True

        with hostile(misbehave) as (_, client):
            found = {finding.key: finding.kind for finding in download(client, tmp_path)}
        assert found == {"r1": "downloaded", "r2": kind, "r3": "downloaded"}

    def test_pages(self, hostile, record, tmp_path, monkeypatch):
        """The server calls itself by another name in Next-Page: it is asked where it was."""
        monkeypatch.setattr(client_module, "PAGE", 2)
        for number in range(7):
            record.url = f"{record.collection}/records/r{number}/attachment"
            record.upload(b"%d" % number, filename=str(number))

        def misbehave(handler, answer):
            if answer is not None and "Next-Page" in answer.headers:
                query = answer.headers["Next-Page"].partition("?")[2]
                answer.headers["Next-Page"] = f"http://192.0.2.1/elsewhere?{query}"

        with hostile(misbehave) as (_, client):
            assert kinds(download(client, tmp_path)) == {"downloaded": 7}
        assert files_in(tmp_path) == {str(number): b"%d" % number for number in range(7)}

    def test_redirections(self, hostile, record, tmp_path, monkeypatch):
        """No credentials for another host, not even those of ~/.netrc; a URL that has ended is
        asked for again."""
        netrc = tmp_path / "netrc"
        netrc.write_text("default login bob password secret\n")
        monkeypatch.setenv("NETRC", str(netrc))
        record.upload(CONTENT, "a.bin")
        (tmp_path / "to").mkdir()
        (tmp_path / "to" / ("a.bin" + PART)).write_bytes(CONTENT[:1000])
        ended = [1, 1]

        def storage(handler, answer):
            if ended:
                ended.pop()
                handler.answer(403, {}, b"<Error>Request has expired</Error>")
            else:
                handler.answer(200, {}, CONTENT)
            return True

        def misbehave(handler, answer):
            if is_file(handler):
                handler.answer(307, {"Location": f"{other.url}/signed"}, b"")
                return True

        with Proxy("http://nowhere/v1", storage) as other, hostile(misbehave) as (proxy, client):
            found = one(download(client, tmp_path / "to"))
            assert found.kind == "downloaded", found
            # It knows no ranges, and none of our entity tags.
            for _, headers in other.requests:
                assert headers["Range"] == "bytes=1000-" and "If-Range" not in headers
            assert len(proxy.asked()) == len(other.requests) == 3
            assert all("Authorization" in headers for headers in proxy.asked())
            assert not any("Authorization" in headers for _, headers in other.requests)
            ended[:] = [1] * 99
            found = one(download(client, tmp_path / "again"))
            assert found.kind == "refused" and "403" in found.detail

    def test_not_kinto(self, hostile, tmp_path):
        def misbehave(handler, answer):
            handler.answer(200, {}, b"<html>")
            return True

        with hostile(misbehave) as (_, client):
            (tmp_path / "a").write_bytes(b"a")
            assert one(download(client, tmp_path / "to")).kind == "failed"
            assert one(upload(client, [tmp_path / "a"])).kind == "failed"


class TestHostileUpload:
    @pytest.mark.parametrize("how", ["reset", "lost answer", "busy", "conflict"])
    def test_again(self, hostile, record, tmp_path, how):
        (tmp_path / "a.bin").write_bytes(CONTENT)
        left = [1, 1]

        def misbehave(handler, answer):
            if not is_file(handler, "POST") or not left:
                return False
            if how == "lost answer" and answer is None:
                return False
            left.pop()
            if how == "reset":
                handler.rfile.read(100_000)
            if how in ("reset", "lost answer"):
                handler.reset()
            else:
                handler.rfile.read(int(handler.headers["Content-Length"]))
                handler.answer(503 if how == "busy" else 409, {}, b"{}")
            return True

        with hostile(misbehave) as (proxy, client):
            assert one(upload(client, [tmp_path / "a.bin"])).kind == "uploaded"
            # What arrived is not sent again.
            assert len(proxy.asked("POST")) == (1 if how == "lost answer" else 3)
        record.url = f"{record.collection}/records/{record_id('a.bin')}/attachment"
        assert record.get().content == CONTENT

    def test_somebody_else_between_two_attempts(self, hostile, record, tmp_path):
        (tmp_path / "a.bin").write_bytes(CONTENT)
        record.url = f"{record.collection}/records/{record_id('a.bin')}/attachment"

        def misbehave(handler, answer):
            if is_file(handler, "POST"):
                record.upload(b"theirs")
                handler.reset()
                return True

        with hostile(misbehave) as (_, client):
            assert one(upload(client, [tmp_path / "a.bin"])).kind == "conflict"
        assert record.get().content == b"theirs"

    def test_other_bytes_stored(self, hostile, tmp_path):
        (tmp_path / "a.bin").write_bytes(CONTENT)

        def misbehave(handler, answer):
            if answer is not None and is_file(handler, "POST"):
                content = json.dumps({**answer.json(), "hash": "0" * 64}).encode()
                handler.answer(201, answer.headers, content)
                return True

        with hostile(misbehave) as (_, client):
            found = one(upload(client, [tmp_path / "a.bin"]))
            assert found.kind == "damaged" and sha256(CONTENT).hexdigest() in found.detail

    def test_a_server_that_is_gone(self, record, tmp_path, monkeypatch):
        """Not every one of many files waits for it."""
        monkeypatch.setattr(client_module, "FIRST_WAIT", 0.05)
        files = make_files(tmp_path, 100)
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{sock.getsockname()[1]}/v1"
            with client_of(record, url=url) as client:
                start = time.monotonic()
                assert kinds(upload(client, [tmp_path])) == {"unavailable": len(files)}
                assert time.monotonic() - start < 10


class TestStopping:
    @pytest.mark.parametrize("how", ["close", "interrupt"])
    def test_download(self, hostile, record, tmp_path, how):
        """A server that falls silent holds nobody; the next run goes on."""
        for name in ("r1", "r2", "r3", "r4"):
            record.url = f"{record.collection}/records/{name}/attachment"
            record.upload(name.encode() if name == "r1" else CONTENT, filename=name)
        silent, over = threading.Event(), threading.Event()

        def misbehave(handler, answer):
            if answer is not None and is_file(handler) and "/r1/" not in handler.path:
                handler.answer(200, answer.headers, answer.content[:1_000_000], len(CONTENT))
                silent.set()
                over.wait(30)
                return True

        with hostile(misbehave) as (proxy, client):
            found = download(client, tmp_path)
            assert next(found).key == "r1"
            assert silent.wait(10)
            time.sleep(0.5)
            start = time.monotonic()
            if how == "close":
                found.close()
            else:
                with pytest.raises(KeyboardInterrupt):
                    found.throw(KeyboardInterrupt())
            assert time.monotonic() - start < 2
            assert not [t for t in threading.enumerate() if t.name.startswith("transfer")]
            over.set()
            proxy.misbehave = lambda handler, answer: False
            names = sorted(os.listdir(tmp_path))
            assert names == ["r1"] + [name + PART for name in ("r2", "r3", "r4")]
            told = []
            assert kinds(download(client, tmp_path, on_bytes=told.append)) == {
                "unchanged": 1,
                "downloaded": 3,
            }
            assert sum(told) <= 3 * (len(CONTENT) - 1_000_000)
            assert {name: files_in(tmp_path)[name] for name in ("r2", "r3", "r4")} == dict.fromkeys(
                ("r2", "r3", "r4"), CONTENT
            )

    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_upload(self, record, hostile, tmp_path, request, monkeypatch, scheme):
        """Ctrl-C. One waits for an answer, others for room to send."""
        for name in "abcd":
            (tmp_path / name).write_bytes(CONTENT * 5 if name > "a" else b"a")
        certificate = request.getfixturevalue("certificate") if scheme == "https" else None
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate or ""))
        silent, over = threading.Event(), threading.Event()

        def misbehave(handler, answer):
            if answer is None and is_file(handler, "POST") and not over.is_set():
                silent.set()
                over.wait(30)
                return True

        paths = [str(tmp_path / name) for name in "abcd"]
        with hostile(misbehave, certificate) as (proxy, client):
            _, _, bucket, _, collection = client.collection_uri.split("/")
            arguments = json.dumps([[proxy.url, bucket, collection, AUTH], paths])
            process = subprocess.Popen(
                [sys.executable, "-c", SCRIPT, arguments], stderr=subprocess.PIPE
            )
            try:
                assert silent.wait(20)
                time.sleep(1)
                start = time.monotonic()
                process.send_signal(signal.SIGINT)
                _, errors = process.communicate(timeout=5)
                assert time.monotonic() - start < 2
                assert errors.decode().endswith("KeyboardInterrupt\n")
            finally:
                process.kill()
                over.set()
            assert kinds(upload(client, paths)) == {"uploaded": 4}
            assert kinds(download(client, tmp_path / "to")) == {"downloaded": 4}


SCRIPT = """
import json, sys
from kinto_attachment.transfer.client import Client
from kinto_attachment.transfer.upload import upload
client, paths = json.loads(sys.argv[1])
list(upload(Client(*client), paths))
"""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Key and certificate of 127.0.0.1, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    today = datetime.now(timezone.utc)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("certificate") / "both.pem"
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(
        encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + certificate.public_bytes(encoding))
    return path


class TestPlaces:
    texts = st.text(max_size=300) | st.text("./\\a:\0\n", max_size=30)
    anything = texts | st.none() | st.integers() | st.lists(st.text())

    @given(st.lists(st.tuples(anything, texts), max_size=30), st.booleans(), st.booleans())
    @example([("../a", "a")] * 3, False, False)
    @example([("a" * 300, "b/" * 300)] * 3, False, True)
    @example([("x", "x"), ("x.part", ""), ("x-id1.part", "")], False, False)
    @example([("a", ""), ("a/b", ""), ("a/b/c", ""), ("a/b", ""), ("a-id1", "")], False, False)
    @example([("a.part/b", ""), ("a", ""), ("a" * 251, ""), ("a" * 251 + "/b", "")], False, False)
    @example([("a" * 246 + "-id1", ""), ("a" * 251, ""), ("a" * 251, "")], False, False)
    @example([("CON", "nul.txt"), ("a:b", "a."), ("é", "e\u0301")], True, True)
    def test_any(self, wanted, windows, fold):
        places = PathAllocator(windows, fold)
        given_paths = [places.give(f"id{number}", *names) for number, names in enumerate(wanted)]
        places.close()
        assert len(set(given_paths)) == len(given_paths)
        folders = {str(parent) for path in given_paths for parent in PurePosixPath(path).parents}
        assert folders.isdisjoint({*given_paths, *(path + PART for path in given_paths)})
        for path in given_paths:
            names = path.split("/")
            assert not set(names) & {"", ".", ".."}
            assert not PurePosixPath(path).is_absolute()
            assert all(len(os.fsencode(name)) <= 255 for name in names)
            assert len(os.fsencode(names[-1])) <= MAX_NAME
            assert "\0" not in path and "\\" not in path and "\n" not in path
            assert path + PART not in given_paths
            if windows:
                assert not set(path) & set('<>:"|?*')

    @given(st.text(st.characters(codec="utf-8", exclude_characters="/\\"), min_size=1, max_size=80))
    def test_they_can_be_made(self, tmp_path_factory, name):
        folder = tmp_path_factory.mktemp("places")
        places = PathAllocator()
        for number in range(2):
            path = folder / places.give(f"id{number}", name)
            assert path.parent == folder
            path.with_name(path.name + PART).write_bytes(b"")
            os.rename(path.with_name(path.name + PART), path)
        places.close()
        assert len(os.listdir(folder)) == 2

    def test_good_names_stay(self):
        places = PathAllocator(windows=False)
        for name in ("a/b c/写真 été.tar.gz", ".profile", "-rf", "a:b?", "x" * MAX_NAME):
            assert places.give("id", name) == name
        places.close()

    @pytest.mark.parametrize("record", ["", "..", "a/b", "../x", "a" * 300, "é"])
    def test_no_id(self, record):
        places = PathAllocator()
        with pytest.raises(ValueError):
            places.give(record, None)
        places.close()


@pytest.mark.parametrize(
    "url", ["kinto.example/v1", "ftp://a/v1", "http:///v1", "https://a:b@c/v1"]
)
def test_no_url(url):
    with pytest.raises(ValueError):
        Client(url, "b", "c")


def test_no_authorization():
    with pytest.raises(ValueError):
        Client("https://kinto.example/v1", "b", "c", "alice")
