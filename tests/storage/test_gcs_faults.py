"""A Google Cloud Storage that fails, URLs that are signed for it, and its settings."""

import os
import socket
import threading
import time
from contextlib import contextmanager
from urllib.parse import parse_qs, urlsplit

import pytest

from kinto_attachment.errors import SettingError, StorageUnavailable
from kinto_attachment.files.blob import Source
from kinto_attachment.files.filename import content_disposition
from kinto_attachment.storage.testing import LABEL, LARGE
from tests.support.gcs_storage import make_storage

TIMEOUT = 0.4  # seconds, where the server does not answer
BOUND = 8 * TIMEOUT  # for any call: some ask twice, machines are busy


@contextmanager
def server_that(answers):
    """A server that reads a bit of each connection and then calls ``answers(connection)``."""
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
    def test_a_silent_server(self, monkeypatch, source, call):
        with server_that(lambda connection: time.sleep(5)) as url:
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
            assert self.fails(call, make_storage(self.SETTINGS), source) < BOUND

    @pytest.mark.parametrize("call", CALLS)
    def test_a_refused_connection(self, monkeypatch, source, call):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{unused.getsockname()[1]}"
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
            assert self.fails(call, make_storage(self.SETTINGS), source) < BOUND

    @pytest.mark.parametrize("call", CALLS)
    def test_a_server_that_is_no_storage(self, monkeypatch, source, call):
        page = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n<html"
        if call == "open":  # any 200 is an object
            page = page.replace(b"200 OK", b"403 Forbidden")
        with server_that(lambda connection: connection.sendall(page)) as url:
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
            assert self.fails(call, make_storage(self.SETTINGS), source) < BOUND

    @pytest.mark.parametrize("then", [lambda connection: None, lambda connection: time.sleep(5)])
    def test_a_body_that_ends_too_early(self, monkeypatch, then):
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
    def test_a_token_server_that_is_silent(self, monkeypatch, source, service_account, call):
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


class TestSign:
    @pytest.fixture
    def storage(self, monkeypatch, service_account):
        monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
        credentials = {"gcloud.credentials": str(service_account())}
        return make_storage(TestFaults.SETTINGS, **credentials)

    def query(self, url):
        return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}

    def test_the_url_carries_the_headers_of_the_response(self, storage):
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

    def test_no_headers_are_signed_that_were_not_asked_for(self, storage):
        assert not any(name.startswith("response-") for name in self.query(storage.sign("a")))
        url = storage.sign("a", method="PUT", disposition="inline", mimetype="image/png")
        assert not any(name.startswith("response-") for name in self.query(url))

    def test_the_method_is_signed(self, storage):
        signatures = {
            self.query(storage.sign("a", method=method))["X-Goog-Signature"]
            for method in ("GET", "PUT")
        }
        assert len(signatures) == 2

    def test_an_expiry_longer_than_the_service_allows(self, storage):
        query = self.query(storage.sign("a", expires=30 * 24 * 3600))
        assert query["X-Goog-Expires"] == str(7 * 24 * 3600)

    def test_without_credentials_nothing_is_signed(self, emulator):
        settings = emulator.settings(emulator.bucket())
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
    def test_wrong_settings_stop_the_server(self, name, value):
        with pytest.raises(SettingError) as caught:
            make_storage(TestFaults.SETTINGS, **{name: value})
        assert caught.value.key == f"kinto.attachment.{name}"

    def test_the_spool_is_in_its_folder(self, tmp_path):
        storage = make_storage(TestFaults.SETTINGS, spool_dir=str(tmp_path))
        with storage.spool() as file:
            assert os.fstat(file.fileno()).st_dev == tmp_path.stat().st_dev
        tmp_path.rename(tmp_path.with_name("moved"))
        with pytest.raises(StorageUnavailable):
            storage.spool()
