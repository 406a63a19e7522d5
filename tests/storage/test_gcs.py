"""A bucket of fake-gcs-server, whose answers are corrected where Google's are others."""

import json
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import google_crc32c
import pytest
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from requests.adapters import HTTPAdapter

from kinto_attachment.errors import BlobExists, BlobNotFound, SettingError, StorageUnavailable
from kinto_attachment.files.blob import Source
from kinto_attachment.files.filename import content_disposition
from kinto_attachment.settings import read_settings
from kinto_attachment.storage import open_storage
from kinto_attachment.storage.gcs import COMPOSING, PART_BYTES
from kinto_attachment.storage.testing import LABEL, LARGE, StorageTest
from tests.support.servers.gcs import as_the_real_one

TIMEOUT = 0.4  # seconds, where nobody answers
BOUND = 8 * TIMEOUT  # for any call: some ask twice, machines are busy


def make_storage(settings, **more):
    more = {f"attachment.{key}": value for key, value in more.items()}
    return open_storage(
        read_settings({**settings, "attachment.base_url": "https://cdn.example/files/", **more})
    )


@pytest.fixture
def emulator(fake_gcs, monkeypatch):
    for name, value in fake_gcs.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(HTTPAdapter, "send", as_the_real_one(HTTPAdapter.send))
    return fake_gcs


@pytest.fixture(scope="module")
def bucket(fake_gcs):
    return fake_gcs.bucket()


@pytest.fixture
def settings(emulator, bucket):
    return emulator.settings(bucket)


@pytest.fixture
def storage(settings):
    return make_storage(settings)


@pytest.fixture
def on_send(monkeypatch):
    """Have ``function(send, request)`` answer requests, with ``send`` to pass them on."""

    def install(function):
        original = HTTPAdapter.send

        def send(adapter, request, **kwargs):
            return function(lambda sent: original(adapter, sent, **kwargs), request)

        monkeypatch.setattr(HTTPAdapter, "send", send)

    return install


@pytest.fixture
def sent(on_send):
    """All requests from now on, with the status of their answers."""
    requests_sent = []

    def record(send, request):
        response = send(request)
        requests_sent.append((request.method, request.url, response.status_code))
        return response

    on_send(record)
    return requests_sent


def lose_answers(on_send, times, wanted):
    """The first ``times`` answers to requests that ``wanted`` likes never arrive."""
    left = [times]

    def lose(send, request):
        response = send(request)
        if wanted(request) and response.ok and left[0]:
            left[0] -= 1
            raise requests.ConnectionError("the answer is lost")
        return response

    on_send(lose)
    return left


def is_last(request):
    """Whether the request ends an upload of several."""
    end, _, size = request.headers.get("Content-Range", "").rpartition("-")[2].partition("/")
    return request.method == "PUT" and int(end) + 1 == int(size)


class Keys(StorageTest):
    """What the tests below need of the suite, without its tests."""

    __test__ = False


@pytest.fixture
def keys():
    return Keys()


@pytest.fixture
def prefix():
    return f"{secrets.token_hex(8)}/"


class TestGoogleCloudStorage(StorageTest):
    @pytest.fixture
    def storage(self, storage):
        return storage


class TestObjects:
    """What the objects carry."""

    def resource(self, emulator, bucket, key):
        url = f"{emulator.url}/storage/v1/b/{bucket}/o/{requests.utils.quote(key, safe='')}"
        return requests.get(url, params={"projection": "full"}, timeout=10).json()

    def put(self, storage, key, size=5, immutable=True):
        content = bytes(size)
        with storage.spool() as file:
            file.write(content)
            digest = sha256(content).hexdigest()
            storage.put(key, Source(file, "写真.png", "image/png", size, digest, immutable))
        return digest

    @pytest.mark.parametrize("size", [5, LARGE])
    def test_type_disposition_and_hash(self, storage, emulator, bucket, prefix, size):
        digest = self.put(storage, f"{prefix}a", size)
        found = self.resource(emulator, bucket, f"{prefix}a")
        assert found["contentType"] == "image/png"
        assert found["contentDisposition"].startswith('inline; filename="file.png"; filename*=')
        assert found["metadata"]["sha256"] == digest
        assert "cacheControl" not in found

    @pytest.mark.parametrize("acl", ["publicRead", "public-read"])
    @pytest.mark.parametrize("size", [5, LARGE])
    def test_public(self, settings, emulator, bucket, prefix, size, acl):
        storage = make_storage(settings, **{"gcloud.acl": acl})
        self.put(storage, f"{prefix}a", size)
        self.put(storage, f"{prefix}b", 5, immutable=False)
        found = self.resource(emulator, bucket, f"{prefix}a")
        assert found["acl"][0]["entity"] == "allUsers"
        assert found["cacheControl"] == "public, max-age=31536000, immutable"
        assert "cacheControl" not in self.resource(emulator, bucket, f"{prefix}b")

    def test_cache_control_of_the_settings(self, settings, emulator, bucket, prefix):
        storage = make_storage(settings, **{"gcloud.cache_control": "private, max-age=60"})
        self.put(storage, f"{prefix}a")
        found = self.resource(emulator, bucket, f"{prefix}a")
        assert found["cacheControl"] == "private, max-age=60"

    @pytest.mark.parametrize("uniform, sends", [("false", True), ("true", False)])
    def test_no_acl_with_uniform_access(self, settings, prefix, sent, uniform, sends):
        more = {"gcloud.acl": "publicRead", "gcloud.uniform_bucket_level_access": uniform}
        storage = make_storage(settings, **more)
        self.put(storage, f"{prefix}a")
        self.put(storage, f"{prefix}b", LARGE)
        storage.compose([f"{prefix}a", f"{prefix}b"], f"{prefix}c", LABEL)
        posts = [url for method, url, _ in sent if method == "POST"]
        assert len(posts) == 3
        assert ["redefinedAcl=publicRead" in url for url in posts] == [sends] * 3


class TestClaims:
    """Whose object is it, when the answer says that there is one?"""

    @pytest.mark.parametrize("size", [5, LARGE])
    def test_put_knows_its_own(self, storage, on_send, keys, prefix, size):
        content = secrets.token_bytes(size)
        left = lose_answers(
            on_send, 1, lambda request: "multipart" in request.url or is_last(request)
        )
        keys.put(storage, f"{prefix}a", content)
        assert left == [0]
        assert keys.read(storage, f"{prefix}a") == content

    def test_compose_knows_its_own(self, storage, on_send, keys, prefix):
        keys.put(storage, f"{prefix}a", b"x")
        left = lose_answers(on_send, 1, lambda request: "/compose" in request.url)
        storage.compose([f"{prefix}a"], f"{prefix}b", LABEL)
        assert left == [0]
        assert keys.read(storage, f"{prefix}b") == b"x"

    @pytest.mark.parametrize("parts", [0, 1])
    def test_compose_of_a_taken_key(self, storage, keys, prefix, parts):
        keys.put(storage, f"{prefix}a", b"x")
        keys.put(storage, f"{prefix}b", b"first")
        with pytest.raises(BlobExists):
            storage.compose([f"{prefix}a"][:parts], f"{prefix}b", LABEL)
        assert keys.read(storage, f"{prefix}b") == b"first"

    def test_put_of_a_large_source_to_a_taken_key(self, storage, keys, prefix):
        keys.put(storage, f"{prefix}a", b"first")
        with pytest.raises(BlobExists):
            keys.put(storage, f"{prefix}a", bytes(LARGE))
        assert keys.read(storage, f"{prefix}a") == b"first"

    def test_a_key_taken_by_something_else(self, storage, emulator, bucket, keys, prefix):
        url = f"{emulator.url}/upload/storage/v1/b/{bucket}/o"
        parameters = {"uploadType": "media", "name": f"{prefix}a"}
        requests.post(url, b"theirs", params=parameters, timeout=10).raise_for_status()
        with pytest.raises(BlobExists):
            keys.put(storage, f"{prefix}a", b"ours")
        assert keys.read(storage, f"{prefix}a") == b"theirs"


class TestLargeUploads:
    def test_what_was_not_kept_is_sent_again(self, storage, on_send, keys, prefix):
        kept = 1024 * 1024
        cut = []

        def keep_less(send, request):
            if request.headers.get("Content-Range") == f"bytes 0-{PART_BYTES - 1}/{LARGE}":
                request.headers["Content-Range"] = f"bytes 0-{kept - 1}/{LARGE}"
                request.headers["Content-Length"] = str(kept)
                request.body = request.body[:kept]
                cut.append(request)
            return send(request)

        on_send(keep_less)
        content = secrets.token_bytes(LARGE)
        keys.put(storage, f"{prefix}a", content)
        assert len(cut) == 1
        assert sha256(keys.read(storage, f"{prefix}a")).digest() == sha256(content).digest()

    def test_other_bytes_than_were_sent_are_not_kept(self, storage, on_send, keys, prefix):
        def corrupt(send, request):
            if is_last(request):
                request.body = bytes(len(request.body))
            return send(request)

        on_send(corrupt)
        with pytest.raises(StorageUnavailable):
            keys.put(storage, f"{prefix}a", secrets.token_bytes(LARGE))
        assert keys.keys(storage, prefix) == []

    def test_the_session_of_a_failed_source_is_cancelled(self, storage, sent, prefix, tmp_path):
        (tmp_path / "short").write_bytes(bytes(PART_BYTES + 1))
        with (tmp_path / "short").open("rb") as file, pytest.raises(StorageUnavailable):
            storage.put(f"{prefix}a", Source(file, "a", "text/plain", LARGE, "00"))
        assert sent[-1][0] == "DELETE" and "upload_id=" in sent[-1][1] and sent[-1][2] == 499

    def test_an_error_that_passes_is_tried_again(self, storage, on_send, keys, prefix):
        failed = []

        def fail_once(send, request):
            if request.method == "PUT" and not failed:
                failed.append(request)
                response = requests.Response()
                response.status_code, response.request = 503, request
                response.raw, response._content = None, b""
                return response
            return send(request)

        on_send(fail_once)
        keys.put(storage, f"{prefix}a", bytes(LARGE))
        assert failed and storage.stat(f"{prefix}a").size == LARGE


class TestMany:
    @pytest.mark.parametrize("count", [32, 33, 70])
    def test_compose_of_many_parts(self, storage, keys, prefix, count):
        parts = [f"{prefix}part/{index}" for index in range(count)]
        for index, part in enumerate(parts):
            keys.put(storage, part, b"%d," % index)
        storage.compose(iter(parts), f"{prefix}whole", LABEL)
        whole = b"".join(b"%d," % index for index in range(count))
        assert keys.read(storage, f"{prefix}whole") == whole
        assert keys.keys(storage, prefix) == sorted([*parts, f"{prefix}whole"])
        assert keys.keys(storage, COMPOSING) == []

    def test_compose_of_many_parts_that_fails(self, storage, sent, keys, prefix):
        parts = [f"{prefix}part/{index}" for index in range(40)]
        for part in parts[:-1]:
            keys.put(storage, part, b"x")
        with pytest.raises(BlobNotFound):
            storage.compose(parts, f"{prefix}whole", LABEL)
        made = [url for method, url, status in sent if "/compose" in url and status == 200]
        assert len(made) == 1
        assert keys.keys(storage, prefix) == sorted(parts[:-1])
        assert keys.keys(storage, COMPOSING) == []

    def test_delete_of_several_hundred(self, storage, keys, prefix):
        names = [f"{prefix}{index}" for index in range(300)]
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda key: keys.put(storage, key, b"x"), names))
        assert len(keys.keys(storage, prefix)) == 300
        storage.delete(names)
        assert keys.keys(storage, prefix) == []

    def test_list_is_by_pages(self, storage, on_send, keys, prefix):
        for index in range(5):
            keys.put(storage, f"{prefix}{index}", b"x")
        pages = []

        def small_pages(send, request):
            request.url += "&maxResults=2"
            pages.append(request.url)
            return send(request)

        on_send(small_pages)
        found = storage.list(prefix)
        first = next(found)
        assert first.key == f"{prefix}0" and len(pages) == 1
        assert len(list(found)) == 4 and len(pages) == 3


class TestOpen:
    def test_all_bytes_are_of_one_generation(self, storage, keys, prefix):
        content = secrets.token_bytes(LARGE)
        keys.put(storage, f"{prefix}a", content)
        chunks = storage.open(f"{prefix}a")
        first = next(chunks)
        storage.delete([f"{prefix}a"])
        keys.put(storage, f"{prefix}a", bytes(LARGE))
        assert sha256(first + b"".join(chunks)).digest() == sha256(content).digest()

    @pytest.mark.parametrize("start, end", [(0, None), (0, 9), (5, None), (3, 3)])
    def test_an_empty_blob(self, storage, keys, prefix, start, end):
        keys.put(storage, f"{prefix}a", b"")
        assert keys.read(storage, f"{prefix}a", start, end) == b""

    @pytest.mark.parametrize("start, end", [(0, None), (4, 9), (5, 5), (9, None)])
    def test_a_range_of_what_is_not_there(self, storage, prefix, start, end):
        with pytest.raises(BlobNotFound):
            storage.open(f"{prefix}missing", start, end)


class TestBuckets:
    def calls(self, storage, prefix):
        with storage.spool() as file:
            file.write(b"x")
            source = Source(file, "a", "text/plain", 1, "00")
            yield lambda: storage.put(f"{prefix}a", source)
            yield lambda: storage.open(f"{prefix}a")
            yield lambda: storage.stat(f"{prefix}a")
            yield lambda: storage.delete([f"{prefix}a"])
            yield lambda: list(storage.list())
            yield lambda: storage.compose([], f"{prefix}a", LABEL)
            yield lambda: storage.compose([f"{prefix}a"], f"{prefix}b", LABEL)

    @pytest.mark.parametrize("index", range(7))
    def test_a_missing_bucket_is_not_a_missing_blob(self, emulator, prefix, index):
        storage = make_storage(emulator.settings("nowhere"))
        for number, call in enumerate(self.calls(storage, prefix)):
            if number == index:
                with pytest.raises(StorageUnavailable):
                    call()

    @pytest.mark.parametrize("uniform", ["false", "true"])
    def test_a_missing_bucket_is_created(self, emulator, sent, keys, prefix, uniform):
        name = f"made-{secrets.token_hex(8)}"
        more = {"gcloud.auto_create_bucket": "true", "gcloud.auto_create_acl": "publicRead"}
        more["gcloud.uniform_bucket_level_access"] = uniform
        for key in ("a", "b"):
            storage = make_storage(emulator.settings(name), **more)
            keys.put(storage, prefix + key, b"x")
        assert keys.keys(storage, prefix) == [f"{prefix}a", f"{prefix}b"]
        created = [url for method, url, _ in sent if urlsplit(url).path.endswith("/v1/b")]
        assert len(created) == 1
        assert ("predefinedAcl=publicRead" in created[0]) == (uniform == "false")


@contextmanager
def server_that(answers):
    """Accepts connections, reads a bit of each, and does what ``answers(connection)`` does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        def answer(connection):
            with connection:
                connection.recv(65536)
                answers(connection)

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


class TestFaults:
    """``StorageUnavailable`` within a bounded time."""

    SETTINGS = {
        "attachment.storage": "gcs",
        "attachment.gcloud.bucket_name": "files",
        "attachment.gcloud.timeout": str(TIMEOUT),
    }

    CALLS = {
        "put": lambda storage, file: storage.put("a", Source(file, "a", "text/plain", 9, "00")),
        "large": lambda storage, file: storage.put("a", Source(file, "a", "text/plain", LARGE, "")),
        "open": lambda storage, file: storage.open("a"),
        "stat": lambda storage, file: storage.stat("a"),
        "delete": lambda storage, file: storage.delete(f"{index}" for index in range(100)),
        "list": lambda storage, file: list(storage.list()),
        "compose": lambda storage, file: storage.compose(
            [f"{index}" for index in range(40)], "a", LABEL
        ),
    }

    @pytest.fixture
    def source(self, tmp_path):
        (tmp_path / "source").write_bytes(bytes(LARGE))
        with (tmp_path / "source").open("rb") as file:
            yield file

    def fails(self, call, storage, source):
        started = time.monotonic()
        with pytest.raises(StorageUnavailable):
            self.CALLS[call](storage, source)
        return time.monotonic() - started

    @pytest.mark.parametrize("call", CALLS)
    def test_nobody_answers(self, monkeypatch, source, call):
        with server_that(lambda connection: time.sleep(5)) as url:
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
            assert self.fails(call, make_storage(self.SETTINGS), source) < BOUND

    @pytest.mark.parametrize("call", CALLS)
    def test_nobody_is_there(self, monkeypatch, source, call):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{unused.getsockname()[1]}"
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
            assert self.fails(call, make_storage(self.SETTINGS), source) < BOUND

    @pytest.mark.parametrize("call", CALLS)
    def test_it_is_no_storage(self, monkeypatch, source, call):
        page = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n<html"
        if call == "open":  # which would be as good an object as any
            page = page.replace(b"200 OK", b"403 Forbidden")
        with server_that(lambda connection: connection.sendall(page)) as url:
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
            assert self.fails(call, make_storage(self.SETTINGS), source) < BOUND

    @pytest.mark.parametrize("then", [lambda connection: None, lambda connection: time.sleep(5)])
    def test_the_bytes_end_too_early(self, monkeypatch, then):
        def half(connection):
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n" + bytes(500_000)
            )
            then(connection)

        with server_that(half) as url:
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
            chunks = make_storage(self.SETTINGS).open("a")
            assert len(next(chunks)) > 0
            with pytest.raises(StorageUnavailable):
                list(chunks)
            assert list(chunks) == []

    @pytest.mark.parametrize("call", ["put", "stat"])
    def test_no_token(self, monkeypatch, source, service_account, call):
        monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
        with server_that(lambda connection: time.sleep(5)) as url:
            path = service_account(token_uri=f"{url}/token")
            storage = make_storage(self.SETTINGS, **{"gcloud.credentials": str(path)})
            assert self.fails(call, storage, source) < BOUND

    def test_no_credentials(self, monkeypatch, tmp_path):
        monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "missing.json"))
        with pytest.raises(StorageUnavailable):
            make_storage(self.SETTINGS).stat("a")


@pytest.fixture(scope="session")
def private_key():
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


@pytest.fixture
def service_account(private_key, tmp_path):
    """Makes the file of an account, and gives its path."""

    def make(**more):
        account = {
            "type": "service_account",
            "project_id": "tests",
            "private_key_id": "1",
            "private_key": private_key,
            "client_email": "kinto@tests.iam.gserviceaccount.com",
            "token_uri": "http://127.0.0.1:9/token",
            **more,
        }
        path = tmp_path / "account.json"
        path.write_text(json.dumps(account))
        return path

    return make


class TestSign:
    @pytest.fixture
    def storage(self, monkeypatch, service_account):
        monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
        credentials = {"gcloud.credentials": str(service_account())}
        return make_storage(TestFaults.SETTINGS, **credentials)

    def query(self, url):
        return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}

    def test_the_url_carries_how_to_answer(self, storage):
        disposition = content_disposition("été.png", inline=True)
        url = storage.sign("a/写真.png", "GET", 600, disposition, "image/png")
        query = self.query(url)
        assert urlsplit(url)[:3] == (
            "https",
            "storage.googleapis.com",
            "/files/a/%E5%86%99%E7%9C%9F.png",
        )
        assert query["X-Goog-Algorithm"] == "GOOG4-RSA-SHA256"
        assert query["X-Goog-Expires"] == "600"
        assert query["response-content-type"] == "image/png"
        assert query["response-content-disposition"] == disposition

    def test_nothing_but_what_is_asked(self, storage):
        assert not any(name.startswith("response-") for name in self.query(storage.sign("a")))
        url = storage.sign("a", method="PUT", disposition="inline", mimetype="image/png")
        assert not any(name.startswith("response-") for name in self.query(url))

    def test_the_method_is_signed(self, storage):
        signatures = {
            self.query(storage.sign("a", method=method))["X-Goog-Signature"]
            for method in ("GET", "PUT")
        }
        assert len(signatures) == 2

    def test_longer_than_the_service_allows(self, storage):
        query = self.query(storage.sign("a", expires=30 * 24 * 3600))
        assert query["X-Goog-Expires"] == str(7 * 24 * 3600)

    def test_nobody_cannot_sign(self, settings):
        assert make_storage(settings).sign("a") is None


class TestSettings:
    @pytest.mark.parametrize(
        "name, value",
        [
            ("gcloud.credentials", "/nowhere/account.json"),
            ("gcloud.credentials", __file__),
            ("gcloud.bucket_name", "no bucket"),
            ("gcloud.acl", "everybody"),
            ("gcloud.auto_create_acl", "everybody"),
            ("spool_dir", "/nowhere"),
        ],
    )
    def test_what_cannot_work_stops_the_server(self, name, value):
        with pytest.raises(SettingError) as caught:
            make_storage(TestFaults.SETTINGS, **{name: value})
        assert caught.value.key == f"attachment.{name}"

    def test_the_spool_is_where_they_say(self, tmp_path):
        storage = make_storage(TestFaults.SETTINGS, spool_dir=str(tmp_path))
        with storage.spool() as file:
            assert os.fstat(file.fileno()).st_dev == tmp_path.stat().st_dev
        tmp_path.rename(tmp_path.with_name("moved"))
        with pytest.raises(StorageUnavailable):
            storage.spool()


class TestProcesses:
    def test_threads_share_one_client(self, storage, monkeypatch):
        barrier = threading.Barrier(16)
        original = storage._bucket._open_connection

        def slowly():
            time.sleep(0.05)
            return original()

        monkeypatch.setattr(storage._bucket, "_open_connection", slowly)

        def connect(_):
            barrier.wait()
            return storage._bucket.connect()

        with ThreadPoolExecutor(16) as pool:
            assert len({id(connection) for connection in pool.map(connect, range(16))}) == 1

    def test_a_child_shares_none(self, storage, keys, prefix):
        keys.put(storage, f"{prefix}a", b"x")
        ours = storage._bucket.connect()
        child = os.fork()
        if not child:
            theirs = storage._bucket.connect()
            apart = theirs.client is not ours.client and theirs.session is not ours.session
            os._exit(0 if apart and storage.stat(f"{prefix}a").size == 1 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert storage._bucket.connect() is ours

    def test_a_connection_is_used_again(self, storage, keys, prefix, monkeypatch):
        connected = []
        original = socket.socket.connect

        def connect(sock, address):
            connected.append(address)
            return original(sock, address)

        monkeypatch.setattr(socket.socket, "connect", connect)
        for index in range(5):
            keys.put(storage, f"{prefix}{index}", bytes(1_000_000))
            assert len(keys.read(storage, f"{prefix}{index}")) == 1_000_000
            assert keys.read(storage, f"{prefix}{index}", 5, 7) == b"\0\0"
        assert len(connected) == 1

    def test_a_closed_download_keeps_no_connection(self, storage, keys, prefix):
        keys.put(storage, f"{prefix}a", bytes(LARGE))
        chunks = storage.open(f"{prefix}a")
        raw = chunks._response.raw
        next(chunks)
        assert not raw.closed
        chunks.close()
        assert raw.closed and list(chunks) == []


class Sink(BaseHTTPRequestHandler):
    """Google's side of one large object of zeros, which it does not keep. (fake-gcs-server
    hashes all of it again with every part.)"""

    protocol_version = "HTTP/1.1"
    size = 256 * 1024 * 1024

    def do_POST(self):
        type(self).checksum = google_crc32c.Checksum()
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(200, b"{}", Location=f"http://{self.headers['Host']}/upload")

    def do_PUT(self):
        left = int(self.headers["Content-Length"])
        while left:
            content = self.rfile.read(min(left, 1024 * 1024))
            self.checksum.update(content)
            left -= len(content)
        end = int(self.headers["Content-Range"].partition("-")[2].partition("/")[0])
        if end + 1 < self.size:
            self.answer(308, b"", Range=f"bytes=0-{end}")
        else:
            digest = b64encode(self.checksum.digest()).decode()
            self.answer(200, json.dumps({"crc32c": digest}).encode())

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(self.size))
        self.end_headers()
        for _ in range(self.size // PART_BYTES):
            self.wfile.write(bytes(PART_BYTES))

    def answer(self, status, body, **headers):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        """Nobody reads it."""


MEMORY = """
from kinto_attachment.blob import Source
from kinto_attachment.settings import read_settings
from kinto_attachment.storage import open_storage

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) // 1024

SIZE = 256 * 1024 * 1024
storage = open_storage(read_settings({
    "attachment.storage": "gcs", "attachment.gcloud.bucket_name": "files",
}))
with storage.spool() as file:
    storage.sign("a")  # connects
    file.truncate(SIZE)
    before = peak()
    storage.put("a", Source(file, "a", "text/plain", SIZE, "00"))
    stored = peak()
    size = sum(map(len, storage.open("a")))
print(size, stored - before, peak() - stored)
"""


def test_memory_is_constant():
    with ThreadingHTTPServer(("127.0.0.1", 0), Sink) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        done = subprocess.run(
            [sys.executable, "-c", MEMORY],
            env={**os.environ, "STORAGE_EMULATOR_HOST": url},
            capture_output=True,
            text=True,
            timeout=60,
        )
        server.shutdown()
    assert done.returncode == 0, done.stderr
    size, put, read = map(int, done.stdout.split())
    assert size == Sink.size
    assert put < 30 and read < 30, f"{put} MiB to put, {read} MiB to read"
