"""A bucket of fake-gcs-server, whose responses are corrected where those of Google differ."""

import io
import json
import os
import secrets
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from requests.adapters import HTTPAdapter

from kinto_attachment.errors import BlobExists, BlobNotFound, StorageUnavailable
from kinto_attachment.files.blob import Source
from kinto_attachment.storage.gcs.storage import COMPOSING, PART_BYTES
from kinto_attachment.storage.testing import LABEL, LARGE, StorageTest
from tests.support.gcs_storage import make_storage
from tests.support.google_account import make_private_key, write_account


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
    """All requests from now on, with the status of their responses."""
    requests_sent = []

    def record(send, request):
        response = send(request)
        requests_sent.append((request.method, request.url, response.status_code))
        return response

    on_send(record)
    return requests_sent


def lose_answers(on_send, times, wanted):
    """Lose the first ``times`` responses to requests for which ``wanted`` is true."""
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
    """Return whether the request carries the last part of an upload."""
    end, _, size = request.headers.get("Content-Range", "").rpartition("-")[2].partition("/")
    return request.method == "PUT" and int(end) + 1 == int(size)


class Suite(StorageTest):
    """The helpers of the suite, without its tests."""

    __test__ = False


@pytest.fixture
def suite():
    return Suite()


@pytest.fixture
def prefix():
    return f"{secrets.token_hex(8)}/"


class TestGoogleCloudStorage(StorageTest):
    @pytest.fixture(scope="class")
    def account(self, tmp_path_factory):
        """The key file of an account, which signs URLs."""
        folder = tmp_path_factory.mktemp("account")
        return write_account(folder / "account.json", make_private_key())

    @pytest.fixture
    def storage(self, settings, account):
        return make_storage(settings, **{"gcloud.credentials": str(account)})


class TestObjects:
    """The metadata of the objects."""

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
    def test_type_disposition_and_hash(self, settings, emulator, bucket, prefix, size):
        storage = make_storage(settings, **{"gcloud.acl": ""})
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


class TestExistingObjects:
    """A response says that the object exists: it may be our own, after a lost response."""

    @pytest.mark.parametrize("size", [5, LARGE])
    def test_put_recognises_its_own_object(self, storage, on_send, suite, prefix, size):
        content = secrets.token_bytes(size)
        left = lose_answers(
            on_send, 1, lambda request: "multipart" in request.url or is_last(request)
        )
        suite.put(storage, f"{prefix}a", content)
        assert left == [0]
        assert suite.read(storage, f"{prefix}a") == content

    def test_compose_recognises_its_own_object(self, storage, on_send, suite, prefix):
        suite.put(storage, f"{prefix}a", b"x")
        left = lose_answers(on_send, 1, lambda request: "/compose" in request.url)
        storage.compose([f"{prefix}a"], f"{prefix}b", LABEL)
        assert left == [0]
        assert suite.read(storage, f"{prefix}b") == b"x"

    @pytest.mark.parametrize("parts", [0, 1])
    def test_compose_of_a_taken_key(self, storage, suite, prefix, parts):
        suite.put(storage, f"{prefix}a", b"x")
        suite.put(storage, f"{prefix}b", b"first")
        with pytest.raises(BlobExists):
            storage.compose([f"{prefix}a"][:parts], f"{prefix}b", LABEL)
        assert suite.read(storage, f"{prefix}b") == b"first"

    def test_put_of_a_large_source_to_a_taken_key(self, storage, suite, prefix):
        suite.put(storage, f"{prefix}a", b"first")
        with pytest.raises(BlobExists):
            suite.put(storage, f"{prefix}a", bytes(LARGE))
        assert suite.read(storage, f"{prefix}a") == b"first"

    def test_a_key_taken_by_another_application(self, storage, emulator, bucket, suite, prefix):
        url = f"{emulator.url}/upload/storage/v1/b/{bucket}/o"
        parameters = {"uploadType": "media", "name": f"{prefix}a"}
        requests.post(url, b"theirs", params=parameters, timeout=10).raise_for_status()
        with pytest.raises(BlobExists):
            suite.put(storage, f"{prefix}a", b"ours")
        assert suite.read(storage, f"{prefix}a") == b"theirs"


class TestLargeUploads:
    def test_bytes_that_were_not_kept_are_sent_again(self, storage, on_send, suite, prefix):
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
        suite.put(storage, f"{prefix}a", content)
        assert len(cut) == 1
        assert sha256(suite.read(storage, f"{prefix}a")).digest() == sha256(content).digest()

    def test_corrupted_bytes_are_not_kept(self, storage, on_send, suite, prefix):
        def corrupt(send, request):
            if is_last(request):
                request.body = bytes(len(request.body))
            return send(request)

        on_send(corrupt)
        with pytest.raises(StorageUnavailable):
            suite.put(storage, f"{prefix}a", secrets.token_bytes(LARGE))
        assert suite.keys(storage, prefix) == []

    def test_the_session_of_a_failed_source_is_cancelled(self, storage, sent, prefix, tmp_path):
        (tmp_path / "short").write_bytes(bytes(PART_BYTES + 1))
        with (tmp_path / "short").open("rb") as file, pytest.raises(StorageUnavailable):
            storage.put(f"{prefix}a", Source(file, "a", "text/plain", LARGE, "00"))
        assert sent[-1][0] == "DELETE" and "upload_id=" in sent[-1][1] and sent[-1][2] == 499

    def test_a_temporary_error_is_tried_again(self, storage, on_send, suite, prefix):
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
        suite.put(storage, f"{prefix}a", bytes(LARGE))
        assert failed and storage.stat(f"{prefix}a").size == LARGE


class TestMany:
    @pytest.mark.parametrize("count", [32, 33, 70])
    def test_compose_of_many_parts(self, storage, suite, prefix, count):
        parts = [f"{prefix}part/{index}" for index in range(count)]
        for index, part in enumerate(parts):
            suite.put(storage, part, b"%d," % index)
        storage.compose(iter(parts), f"{prefix}whole", LABEL)
        whole = b"".join(b"%d," % index for index in range(count))
        assert suite.read(storage, f"{prefix}whole") == whole
        assert suite.keys(storage, prefix) == sorted([*parts, f"{prefix}whole"])
        assert suite.keys(storage, COMPOSING) == []

    def test_compose_of_many_parts_that_fails(self, storage, sent, suite, prefix):
        parts = [f"{prefix}part/{index}" for index in range(40)]
        for part in parts[:-1]:
            suite.put(storage, part, b"x")
        with pytest.raises(BlobNotFound):
            storage.compose(parts, f"{prefix}whole", LABEL)
        made = [url for method, url, status in sent if "/compose" in url and status == 200]
        assert len(made) == 1
        assert suite.keys(storage, prefix) == sorted(parts[:-1])
        assert suite.keys(storage, COMPOSING) == []

    def test_delete_of_several_hundred(self, storage, suite, prefix):
        names = [f"{prefix}{index}" for index in range(300)]
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda key: suite.put(storage, key, b"x"), names))
        assert len(suite.keys(storage, prefix)) == 300
        storage.delete(names)
        assert suite.keys(storage, prefix) == []

    def test_list_is_by_pages(self, storage, on_send, suite, prefix):
        for index in range(5):
            suite.put(storage, f"{prefix}{index}", b"x")
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
    def test_all_bytes_are_of_one_generation(self, storage, suite, prefix):
        content = secrets.token_bytes(LARGE)
        suite.put(storage, f"{prefix}a", content)
        chunks = storage.open(f"{prefix}a")
        first = next(chunks)
        storage.delete([f"{prefix}a"])
        suite.put(storage, f"{prefix}a", bytes(LARGE))
        assert sha256(first + b"".join(chunks)).digest() == sha256(content).digest()

    @pytest.mark.parametrize("start, end", [(0, None), (0, 9), (5, None), (3, 3)])
    def test_an_empty_blob(self, storage, suite, prefix, start, end):
        suite.put(storage, f"{prefix}a", b"")
        assert suite.read(storage, f"{prefix}a", start, end) == b""

    @pytest.mark.parametrize("start, end", [(0, None), (4, 9), (5, 5), (9, None)])
    def test_a_range_of_a_missing_blob(self, storage, prefix, start, end):
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
    def test_a_missing_bucket_is_created(self, emulator, sent, suite, prefix, uniform):
        name = f"made-{secrets.token_hex(8)}"
        more = {"gcloud.auto_create_bucket": "true", "gcloud.auto_create_acl": "publicRead"}
        more["gcloud.uniform_bucket_level_access"] = uniform
        for key in ("a", "b"):
            storage = make_storage(emulator.settings(name), **more)
            suite.put(storage, prefix + key, b"x")
        assert suite.keys(storage, prefix) == [f"{prefix}a", f"{prefix}b"]
        created = [url for method, url, _ in sent if urlsplit(url).path.endswith("/v1/b")]
        assert len(created) == 1
        assert ("predefinedAcl=publicRead" in created[0]) == (uniform == "false")


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

    def test_a_child_process_has_a_client_of_its_own(self, storage, suite, prefix):
        suite.put(storage, f"{prefix}a", b"x")
        ours = storage._bucket.connect()
        child = os.fork()
        if not child:
            theirs = storage._bucket.connect()
            apart = theirs.client is not ours.client and theirs.session is not ours.session
            os._exit(0 if apart and storage.stat(f"{prefix}a").size == 1 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert storage._bucket.connect() is ours

    def test_a_connection_is_used_again(self, storage, suite, prefix, monkeypatch):
        connected = []
        original = socket.socket.connect

        def connect(sock, address):
            connected.append(address)
            return original(sock, address)

        monkeypatch.setattr(socket.socket, "connect", connect)
        for index in range(5):
            suite.put(storage, f"{prefix}{index}", bytes(1_000_000))
            assert len(suite.read(storage, f"{prefix}{index}")) == 1_000_000
            assert suite.read(storage, f"{prefix}{index}", 5, 7) == b"\0\0"
        assert len(connected) == 1

    def test_a_closed_download_keeps_no_connection(self, storage, suite, prefix):
        suite.put(storage, f"{prefix}a", bytes(LARGE))
        chunks = storage.open(f"{prefix}a")
        raw = chunks._response.raw
        next(chunks)
        assert not raw.closed
        chunks.close()
        assert raw.closed and list(chunks) == []


def source(content: bytes, private: bool = False) -> Source:
    digest = sha256(content).hexdigest()
    file = io.BytesIO(content)
    return Source(file, "a.txt", "text/plain", len(content), digest, private=private)


class TestACL:
    """A bucket that refuses ACLs, as Google answers for uniform access and for private buckets."""

    @pytest.fixture(
        params=[
            (400, "Cannot insert legacy ACL when uniform bucket-level access is enabled"),
            (412, "allUsers are not allowed since public access prevention is enforced."),
        ],
        ids=["uniform", "prevented"],
    )
    def refused(self, request, on_send):
        """The URLs of the requests that were refused."""
        status, message = request.param
        urls = []

        def refuse(send, sent):
            if "redefinedAcl=" not in sent.url:
                return send(sent)
            urls.append(sent.url)
            response = requests.Response()
            response.status_code, response.request, response.url = status, sent, sent.url
            response.headers["Content-Type"] = "application/json"
            response._content = json.dumps({"error": {"code": status, "message": message}}).encode()
            return response

        on_send(refuse)
        return urls

    def test_is_sent_for_files_that_are_not_private(self, storage, sent, prefix):
        storage.put(f"{prefix}public", source(b"content"))
        storage.put(f"{prefix}private", source(b"content", private=True))
        storage.put(f"{prefix}large", source(bytes(PART_BYTES + 1)))
        storage.compose([f"{prefix}public", f"{prefix}private"], f"{prefix}composed", LABEL)
        acls = [parse_qs(urlsplit(url).query) for _, url, _ in sent]
        found = [query for query in acls if query.get("predefinedAcl") == ["publicRead"]]
        composed = [each for each in acls if each.get("destinationPredefinedAcl") == ["publicRead"]]
        assert len(found) == 2
        assert len(composed) == 1

    @pytest.mark.parametrize("size", [100, PART_BYTES + 1])
    def test_a_bucket_that_refuses_it(self, storage, refused, size, caplog, prefix):
        for name in ("a", "b"):
            storage.put(prefix + name, source(bytes(size)))
            assert storage.stat(prefix + name).size == size
        storage.compose([f"{prefix}a", f"{prefix}b"], f"{prefix}c", LABEL)
        assert storage.stat(f"{prefix}c").size == 2 * size
        assert len(refused) == 1
        assert len([each for each in caplog.records if "without the ACL" in each.message]) == 1

    def test_a_key_that_is_taken(self, storage, refused, prefix):
        storage.put(f"{prefix}taken", source(b"first"))
        with pytest.raises(BlobExists):
            storage.put(f"{prefix}taken", source(b"second"))
