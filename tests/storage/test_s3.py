"""A bucket of moto, and of SeaweedFS."""

import socket
import time
from uuid import uuid4

import pytest
import requests

from kinto_attachment.blob import Source
from kinto_attachment.errors import StorageUnavailable
from kinto_attachment.settings import read_settings
from kinto_attachment.storage import open_storage
from kinto_attachment.storage.testing import LARGE, StorageTest


def make_storage(settings, **more):
    more = {f"attachment.{key}": value for key, value in more.items()}
    base_url = {"attachment.base_url": "https://cdn.example/files"}
    return open_storage(read_settings({**settings, **base_url, **more}))


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

    def test_a_failed_upload_of_parts_is_aborted(self, storage, server, bucket, prefix):
        class Broken:
            left = LARGE - 5

            def seek(self, *args):
                return 0

            def read(self, size=-1):
                if not self.left:
                    raise OSError("unreadable")
                size = min(size, self.left)
                self.left -= size
                return bytes(size)

        with pytest.raises(OSError, match="unreadable"):
            storage.put(f"{prefix}a", self.source(Broken(), bytes(LARGE)))
        uploads = server.client().list_multipart_uploads(Bucket=bucket).get("Uploads", [])
        assert [upload for upload in uploads if upload["Key"].startswith(prefix)] == []

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

    def test_sign_lets_anybody_read(self, storage, prefix):
        self.put(storage, f"{prefix}a", b"content", "a.txt", "text/plain")
        url = storage.sign(f"{prefix}a", expires=60, filename="été.png", mimetype="image/png")
        response = requests.get(url, timeout=10)
        assert response.content == b"content"
        assert response.headers["Content-Type"] == "image/png"
        assert response.headers["Content-Disposition"].startswith('inline; filename="ete.png"')
        assert requests.get(storage.sign(f"{prefix}a"), timeout=10).content == b"content"

    def test_sign_lets_anybody_write(self, storage, prefix):
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
        import os

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


class TestMoto(OnMoto, S3Test):
    """An imitation: quick, and too friendly. SeaweedFS makes missing buckets by itself."""

    def test_missing_bucket(self, settings, prefix):
        storage = make_storage(settings, **{"aws.bucket_name": f"no-{uuid4().hex}"})
        with pytest.raises(StorageUnavailable):
            self.put(storage, f"{prefix}a", b"x")
        with pytest.raises(StorageUnavailable):
            list(storage.list())


class TestSeaweedFS(OnSeaweedFS, S3Test):
    """A real server."""

    def test_bytes_that_are_not_the_digest_are_refused(self, storage, prefix):
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


@pytest.mark.parametrize("name", ["put", "open", "stat", "delete", "list", "compose"])
@pytest.mark.parametrize("kind", ["silent", "refusing"])
def test_a_server_that_is_not_there(name, kind):
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
        calls = {
            "put": lambda: StorageTest().put(storage, "a", b"x"),
            "open": lambda: storage.open("a"),
            "stat": lambda: storage.stat("a"),
            "delete": lambda: storage.delete(["a"]),
            "list": lambda: list(storage.list()),
            "compose": lambda: storage.compose(["a"], "b"),
        }
        started = time.monotonic()
        with pytest.raises(StorageUnavailable):
            calls[name]()
        assert time.monotonic() - started < 5


def sha256_of(content: bytes) -> str:
    from hashlib import sha256

    return sha256(content).hexdigest()
