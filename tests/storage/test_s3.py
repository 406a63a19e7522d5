"""A bucket of moto, and of SeaweedFS."""

import os
import socket
import time
import tracemalloc
from dataclasses import replace
from hashlib import sha256
from threading import Thread
from uuid import uuid4

import pytest
import requests
from botocore.exceptions import ReadTimeoutError

from kinto_attachment.errors import BlobNotFound, StorageUnavailable
from kinto_attachment.files.blob import Source
from kinto_attachment.files.filename import content_disposition
from kinto_attachment.settings import read_settings
from kinto_attachment.storage import open_storage
from kinto_attachment.storage.s3.multipart import compose_parts
from kinto_attachment.storage.testing import LABEL, LARGE, StorageTest


def make_storage(settings, **more):
    more = {f"attachment.{key}": value for key, value in more.items()}
    base_url = {"attachment.base_url": "https://cdn.example/files"}
    return open_storage(read_settings({**settings, **base_url, **more}))


def sha256_of(content: bytes) -> str:
    return sha256(content).hexdigest()


class Broken:
    """A file that raises ``error`` after ``left`` bytes, or ends there if there is none."""

    def __init__(self, left: int, error: BaseException | None):
        self.left = left
        self.error = error

    def seek(self, *args):
        return 0

    def read(self, size=-1):
        if not self.left and self.error:
            raise self.error
        size = self.left if size < 0 else min(size, self.left)
        self.left -= size
        return bytes(size)


class OnMoto:
    @pytest.fixture(scope="class")
    def server(self, moto):
        return moto


class OnSeaweedFS:
    @pytest.fixture(scope="class")
    def server(self, seaweedfs):
        return seaweedfs


class S3Test(StorageTest):
    @pytest.fixture(scope="class")
    def bucket(self, server):
        return server.bucket()

    @pytest.fixture(scope="class")
    def settings(self, server, bucket):
        return server.settings(bucket)

    @pytest.fixture(scope="class")
    def storage(self, settings):
        return make_storage(settings)

    def head(self, server, bucket, key):
        return server.client().head_object(Bucket=bucket, Key=key)

    @pytest.mark.parametrize("size", [5, LARGE])
    def test_objects_carry_type_and_disposition(self, storage, server, bucket, prefix, size):
        self.put(storage, f"{prefix}a", bytes(size), "写真.png", "image/png")
        head = self.head(server, bucket, f"{prefix}a")
        assert head["ContentType"] == "image/png"
        assert head["ContentDisposition"].startswith("inline; filename=")
        assert "CacheControl" not in head

    def test_html_is_an_attachment(self, storage, server, bucket, prefix):
        self.put(storage, f"{prefix}a", b"<script>", "a.html", "text/html")
        head = self.head(server, bucket, f"{prefix}a")
        assert head["ContentDisposition"].startswith("attachment;")

    def test_public_objects_that_never_change_are_cached(self, settings, server, bucket, prefix):
        storage = make_storage(settings, **{"aws.acl": "public-read"})
        for key, immutable in (("a", True), ("b", False)):
            with storage.spool() as file:
                file.write(b"x")
                source = Source(file, "a.txt", "text/plain", 1, sha256_of(b"x"), immutable)
                storage.put(prefix + key, source)
        assert "immutable" in self.head(server, bucket, f"{prefix}a")["CacheControl"]
        assert "CacheControl" not in self.head(server, bucket, f"{prefix}b")

    def uploads(self, server, bucket, prefix):
        uploads = server.client().list_multipart_uploads(Bucket=bucket).get("Uploads", [])
        return [upload["Key"] for upload in uploads if upload["Key"].startswith(prefix)]

    @pytest.mark.parametrize("error", [OSError("unreadable"), KeyboardInterrupt("unreadable")])
    def test_a_failed_upload_of_parts_is_aborted(self, storage, server, bucket, prefix, error):
        with pytest.raises(type(error), match="unreadable"):
            storage.put(f"{prefix}a", self.source(Broken(LARGE - 5, error), bytes(LARGE)))
        assert self.uploads(server, bucket, prefix) == []

    def test_a_refused_part_aborts_the_upload(self, settings, server, bucket, prefix):
        storage = make_storage(settings)
        began = []

        def refuse(params, **kwargs):
            if params["query_string"]["partNumber"] == 2:
                began.extend(self.uploads(server, bucket, prefix))
                raise ReadTimeoutError(endpoint_url=server.endpoint_url)

        storage.client.meta.events.register("before-call.s3.UploadPart", refuse)
        with pytest.raises(StorageUnavailable):
            self.put(storage, f"{prefix}a", bytes(LARGE))
        assert began == [f"{prefix}a"]
        assert self.uploads(server, bucket, prefix) == []
        assert self.keys(storage, prefix) == []

    @pytest.mark.parametrize("checksums", ["when_supported", "when_required"])
    def test_a_small_spool_that_lost_bytes_is_not_stored(self, settings, prefix, checksums):
        storage = make_storage(settings, **{"aws.request_checksum_calculation": checksums})
        with pytest.raises(StorageUnavailable):
            storage.put(f"{prefix}a", self.source(Broken(3, None), b"12345"))
        assert self.keys(storage, prefix) == []

    @pytest.mark.parametrize("left", [LARGE - 1, LARGE + 1])
    def test_a_large_spool_of_another_size_is_not_stored(
        self, storage, server, bucket, prefix, left
    ):
        with pytest.raises(StorageUnavailable):
            storage.put(f"{prefix}a", self.source(Broken(left, None), bytes(LARGE)))
        assert self.keys(storage, prefix) == []
        assert self.uploads(server, bucket, prefix) == []

    def test_put_takes_little_memory(self, storage, prefix):
        size = 128 * 1024 * 1024
        with storage.spool() as file:
            file.truncate(size)
            source = Source(file, "a.bin", "application/octet-stream", size, "00")
            tracemalloc.start()
            try:
                storage.put(f"{prefix}a", source)
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
        assert storage.stat(f"{prefix}a").size == size
        assert peak < 45 * 1024 * 1024
        storage.delete([f"{prefix}a"])

    def test_without_checksums(self, settings, prefix):
        storage = make_storage(settings, **{"aws.request_checksum_calculation": "when_required"})
        for size in (5, LARGE):
            self.put(storage, f"{prefix}{size}", bytes(size))
            assert self.read(storage, f"{prefix}{size}") == bytes(size)

    def test_delete_takes_thousands(self, storage, prefix):
        keys = [f"{prefix}{index}" for index in range(2500)]
        for key in keys[::100]:
            self.put(storage, key, b"x")
        storage.delete(keys)
        assert self.keys(storage, prefix) == []

    def test_list_reads_page_by_page(self, storage, prefix, monkeypatch):
        for index in range(7):
            self.put(storage, f"{prefix}{index}", b"x")
        paginator = storage.client.get_paginator

        class Small:
            def __init__(self, pages):
                self._pages = pages

            def paginate(self, **options):
                return self._pages.paginate(**options, PaginationConfig={"PageSize": 3})

        monkeypatch.setattr(storage.client, "get_paginator", lambda name: Small(paginator(name)))
        assert len(self.keys(storage, prefix)) == 7

    def test_a_signed_url_can_be_read(self, storage, prefix):
        self.put(storage, f"{prefix}a", b"content", "a.txt", "text/plain")
        disposition = content_disposition("été.png", inline=True)
        url = storage.sign(f"{prefix}a", "GET", 60, disposition, "image/png")
        response = requests.get(url, timeout=10)
        assert response.content == b"content"
        assert response.headers["Content-Type"] == "image/png"
        assert response.headers["Content-Disposition"] == disposition
        assert requests.get(storage.sign(f"{prefix}a"), timeout=10).content == b"content"

    def test_a_signed_url_can_be_written(self, storage, prefix):
        url = storage.sign(f"{prefix}new", method="PUT", expires=60)
        assert requests.put(url, data=b"content", timeout=10).ok
        assert self.read(storage, f"{prefix}new") == b"content"

    def test_host_and_port_instead_of_endpoint(self, settings, server, prefix):
        settings = {**settings, "attachment.aws.endpoint_url": ""}
        more = {"aws.host": "127.0.0.1", "aws.port": str(server.port), "aws.is_secure": "false"}
        storage = make_storage(settings, **more, **{"aws.use_path_style": "true"})
        self.put(storage, f"{prefix}a", b"content")
        assert self.read(storage, f"{prefix}a") == b"content"

    def test_a_process_that_forks(self, storage, prefix):
        self.put(storage, f"{prefix}a", b"x")
        before = storage.client
        pid = os.fork()
        if not pid:
            code = 1
            try:
                code = 0 if storage.client is not before else 2
                code = code or (0 if self.read(storage, f"{prefix}a") == b"x" else 3)
            finally:
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0

    @pytest.mark.parametrize("size", [5, LARGE])
    def test_composed_objects_have_type_and_disposition(self, storage, bucket, prefix, size):
        self.put(storage, f"{prefix}part", bytes(size))
        storage.compose([f"{prefix}part"], f"{prefix}whole", LABEL)
        head = storage.client.head_object(Bucket=bucket, Key=f"{prefix}whole")
        assert head["ContentType"] == LABEL.mimetype
        assert head["ContentDisposition"] == LABEL.disposition

    def test_compose_of_one_small_part_is_one_copy(self, storage, prefix):
        self.put(storage, f"{prefix}part", b"content")
        calls = []
        events = storage.client.meta.events
        remember = lambda model, **_: calls.append(model.name)  # noqa: E731
        events.register("before-call.s3", remember)
        storage.compose([f"{prefix}part"], f"{prefix}whole", LABEL)
        events.unregister("before-call.s3", remember)
        assert calls == ["HeadObject", "CopyObject"]
        assert self.read(storage, f"{prefix}whole") == b"content"

    def test_a_source_whose_digest_is_not_known_yet(self, storage, prefix):
        with storage.spool() as file:
            file.write(b"content")
            storage.put(f"{prefix}a", replace(self.source(file, b"content"), digest=""))
        assert self.read(storage, f"{prefix}a") == b"content"


class TestMoto(OnMoto, S3Test):
    """An imitation: quick, and too tolerant. Unlike SeaweedFS it does not create missing buckets,
    and it knows canned ACLs."""

    def test_composed_objects_have_the_acl(self, settings, server, bucket, prefix):
        storage = make_storage(settings, **{"aws.acl": "public-read"})
        self.put(storage, f"{prefix}part", b"x")
        for name, parts in (("whole", [f"{prefix}part"]), ("empty", [])):
            storage.compose(parts, prefix + name, LABEL)
            url = f"{server.endpoint_url}/{bucket}/{prefix}{name}"
            assert requests.get(url, timeout=10).status_code == 200

    def test_missing_bucket(self, settings, prefix):
        storage = make_storage(settings, **{"aws.bucket_name": f"no-{uuid4().hex}"})
        with pytest.raises(StorageUnavailable):
            self.put(storage, f"{prefix}a", b"x")
        with pytest.raises(StorageUnavailable):
            list(storage.list())


class TestSeaweedFS(OnSeaweedFS, S3Test):
    """A real server."""

    def test_bytes_with_another_digest_are_refused(self, storage, prefix):
        with storage.spool() as file:
            file.write(b"other")
            source = Source(file, "a.txt", "text/plain", 5, sha256_of(b"these"))
            with pytest.raises(StorageUnavailable):
                storage.put(f"{prefix}a", source)
        assert self.keys(storage, prefix) == []

    def test_wrong_secret(self, settings, prefix):
        storage = make_storage(settings, **{"aws.secret_key": "wrong"})
        with pytest.raises(StorageUnavailable):
            self.put(storage, f"{prefix}a", b"x")
        with pytest.raises(StorageUnavailable):
            storage.stat(f"{prefix}a")


def calls_of(storage):
    return {
        "put": lambda: StorageTest().put(storage, "a", b"x"),
        "put large": lambda: StorageTest().put(storage, "a", bytes(LARGE)),
        "open": lambda: list(storage.open("a")),
        "stat": lambda: storage.stat("a"),
        "delete": lambda: storage.delete(["a"]),
        "list": lambda: list(storage.list()),
        "compose": lambda: storage.compose(["a"], "b", LABEL),
    }


@pytest.mark.parametrize("name", calls_of(None))
@pytest.mark.parametrize("kind", ["silent", "refusing"])
def test_an_unreachable_server(name, kind):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if kind == "silent":
            server.listen()
        storage = make_storage(
            {
                "attachment.aws.bucket_name": "files",
                "attachment.aws.endpoint_url": f"http://127.0.0.1:{server.getsockname()[1]}",
                "attachment.aws.access_key": "a",
                "attachment.aws.secret_key": "b",
                "attachment.aws.timeout": "0.5",
                "attachment.aws.num_retries": "1",
            }
        )
        started = time.monotonic()
        with pytest.raises(StorageUnavailable):
            calls_of(storage)[name]()
        assert time.monotonic() - started < 20  # and not for ever


MIB = 1024 * 1024


@pytest.mark.parametrize(
    "sizes",
    [
        [5 * MIB],
        [5 * MIB - 1, 1, 200 * MIB],
        [69 * MIB - 1],
        [69 * MIB],
        [3, 0, 7 * MIB, 4 * MIB, 130 * MIB, 2],
        [3 * 1024 * 1024 * MIB, 5 * MIB],
    ],
)
def test_composed_parts_keep_to_the_limits_of_s3(sizes):
    blobs = [(str(index), size) for index, size in enumerate(sizes)]
    parts = list(compose_parts(lambda key, start, end: iter([bytes(end - start)]), "files", blobs))
    lengths = []
    for part in parts:
        if "Body" in part:
            lengths.append(len(part["Body"]))
        elif "CopySourceRange" in part:
            first, last = part["CopySourceRange"].removeprefix("bytes=").split("-")
            assert sizes[int(part["CopySource"]["Key"])] > 5 * MIB
            lengths.append(int(last) - int(first) + 1)
        else:
            lengths.append(sizes[int(part["CopySource"]["Key"])])
    assert sum(lengths) == sum(sizes)
    assert min(lengths[:-1], default=5 * MIB) >= 5 * MIB
    assert max(lengths) <= max(64 * MIB, sum(sizes) // 5000 + 1) + 5 * MIB
    assert len(lengths) <= 10_000


@pytest.fixture
def answering():
    """A storage whose server gives one answer to every request."""
    sockets = []

    def answer(status: str, *headers: str, body: bytes = b""):
        text = "\r\n".join([f"HTTP/1.1 {status}", *headers, "Connection: close", "", ""])
        server = socket.create_server(("127.0.0.1", 0))
        sockets.append(server)

        def serve():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:  # closed: the test is over
                    return
                with connection:
                    connection.recv(1024 * 1024)
                    connection.sendall(text.encode() + body)
                    connection.shutdown(socket.SHUT_WR)
                    # Closing a socket with unread bytes resets the connection.
                    while connection.recv(1024 * 1024):
                        continue

        Thread(target=serve, daemon=True).start()
        return make_storage(
            {
                "attachment.aws.bucket_name": "files",
                "attachment.aws.endpoint_url": f"http://127.0.0.1:{server.getsockname()[1]}",
                "attachment.aws.access_key": "a",
                "attachment.aws.secret_key": "b",
                "attachment.aws.num_retries": "0",
            }
        )

    yield answer
    for server in sockets:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


@pytest.mark.parametrize("name", ["put", "put large", "delete", "list"])
def test_only_reads_take_a_404_for_a_missing_blob(answering, name):
    storage = answering("404 Not Found", "Content-Length: 9", body=b"not found")
    with pytest.raises(StorageUnavailable):
        calls_of(storage)[name]()
    with pytest.raises(BlobNotFound):
        storage.stat("a")


@pytest.mark.parametrize(
    "headers",
    [
        ["Content-Length: 3"],
        ["Content-Length: 3", "Last-Modified: yesterday"],
        ["Content-Length: 3", "x-amz-missing-meta: many"],
    ],
)
def test_a_response_that_is_not_from_s3(answering, headers):
    with pytest.raises(StorageUnavailable):
        answering("200 OK", *headers).stat("a")


def test_an_upload_without_an_id(answering):
    with pytest.raises(StorageUnavailable):
        calls_of(answering("200 OK", "Content-Length: 0"))["put large"]()


def test_a_body_that_is_cut_off(answering):
    storage = answering("200 OK", "Content-Length: 100000", body=bytes(1000))
    chunks = storage.open("a")
    with pytest.raises(StorageUnavailable):
        list(chunks)
    assert list(chunks) == []


def test_delete_of_many_that_times_out_is_one_failure(monkeypatch):
    """Or else one deletion would open the circuit breaker for all requests."""
    keys = {"aws.access_key": "a", "aws.secret_key": "b"}
    storage = make_storage({}, **keys, **{"aws.bucket_name": "b", "aws.region": "us-east-1"})

    def time_out(**_):
        raise ReadTimeoutError(endpoint_url="http://127.0.0.1")

    monkeypatch.setattr(storage.client, "delete_objects", time_out)
    counted = []
    monkeypatch.setattr(storage.bucket.breaker, "_count", counted.append)
    with pytest.raises(StorageUnavailable):
        storage.delete(f"{number}" for number in range(1000))
    assert len(counted) == 1
    storage.delete([])
    assert len(counted) == 1


def test_delete_of_an_object_that_is_protected(answering):
    body = (
        b'<?xml version="1.0"?><DeleteResult><Error><Key>a</Key><Code>AccessDenied</Code>'
        b"<Message>no</Message></Error></DeleteResult>"
    )
    with pytest.raises(StorageUnavailable, match="a: no"):
        answering("200 OK", f"Content-Length: {len(body)}", body=body).delete(["a"])


def test_delete_of_an_object_that_does_not_exist(answering):
    body = (
        b'<?xml version="1.0"?><DeleteResult><Error><Key>a</Key><Code>NoSuchKey</Code>'
        b"<Message>gone</Message></Error></DeleteResult>"
    )
    answering("200 OK", f"Content-Length: {len(body)}", body=body).delete(["a"])


@pytest.mark.parametrize(
    "settings, expected",
    [
        ({"aws.host": "s3.example"}, "https://s3.example"),
        ({"aws.host": "s3.example", "aws.is_secure": "false"}, "http://s3.example"),
        ({"aws.host": "s3.example", "aws.port": "9000"}, "https://s3.example:9000"),
        ({"aws.endpoint_url": "http://s3.example:1/"}, "http://s3.example:1"),
        ({"aws.region": "eu-west-3"}, "https://s3.eu-west-3.amazonaws.com"),
    ],
)
def test_the_url_of_the_server(settings, expected):
    storage = make_storage({"attachment.aws.bucket_name": "files"}, **settings)
    assert storage.client.meta.endpoint_url == expected


@pytest.mark.parametrize(
    "path_style, expected",
    [
        ("true", "https://s3.eu-west-3.amazonaws.com/files/a?"),
        ("false", "https://files.s3.eu-west-3.amazonaws.com/a?"),
    ],
)
def test_the_url_of_the_bucket(path_style, expected):
    more = {"aws.region": "eu-west-3", "aws.access_key": "a", "aws.secret_key": "b"}
    more["aws.use_path_style"] = path_style
    storage = make_storage({"attachment.aws.bucket_name": "files"}, **more)
    assert storage.sign("a").startswith(expected)


def test_credentials_that_boto3_finds_itself(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "found")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    storage = make_storage({"attachment.aws.bucket_name": "files", "attachment.aws.host": "s3"})
    assert "found" in storage.sign("a")


def test_timeout_and_retries(monkeypatch):
    # Without any, boto3 asks the network of Amazon's machines for credentials.
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "found")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    storage = make_storage(
        {"attachment.aws.bucket_name": "files"}, **{"aws.timeout": "7.5", "aws.num_retries": "3"}
    )
    config = storage.client.meta.config
    assert (config.connect_timeout, config.read_timeout) == (7.5, 7.5)
    assert config.retries["total_max_attempts"] == 4
