"""The test suite that every storage passes. Authors of other storages can run it too::

    class TestMine(StorageTest):
        @pytest.fixture
        def storage(self):
            return MyStorage(base_url="https://cdn.example/files/")

Each test checks a sentence of :class:`kinto_attachment.storage.IStorage` or of an interface in
:mod:`kinto_attachment.storage.staged`.
"""

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from hashlib import sha256
from typing import Any
from uuid import uuid4

import pytest
import requests
from zope.interface.verify import verifyObject

from ..errors import BlobExists, BlobNotFound, KeyRefused, StorageUnavailable
from ..files.blob import CHUNK, Label, Source
from . import IStorage
from .staged import (
    IComposingStorage,
    IReceivingStorage,
    ISigningStorage,
    IStreamingStorage,
    IUnfinishedStorage,
    SignedPut,
    compose,
    discard_unfinished,
    sign_put,
)
from .stream import PART_BYTES

LARGE = 17 * 1024 * 1024 + 3
"""A number of bytes: more than two parts of any of our storages, and a multiple of no buffer or
part."""

BAD_KEYS = ["", "/", "/etc/passwd", "../up", "a/../../b", "a//b", "a/./b", "a\\b", "a\nb", "a\0b"]
BAD_KEYS += ["a/", "k" * 1025, "\ud800"]

GOOD_KEYS = ["a", "A.b-c_d", "folder/sub/photo.jpg", "élan/写真 1.png", "k%2Fx?y=1&z#f+ .txt"]
GOOD_KEYS += ["n" * 255, "/".join(["d" * 100] * 9)]

LABEL = Label("whole.txt", "text/plain")


class StorageTest:
    """The tests. A subclass defines a fixture ``storage``.

    The tests may share the storage, and it may contain other blobs. Its ``base_url`` must be
    ``https://cdn.example/files/``.
    """

    @pytest.fixture
    def prefix(self) -> str:
        """A random prefix for the keys of one test."""
        return f"{uuid4().hex}/"

    def put(self, storage, key, content, filename="file.bin", mimetype="application/octet-stream"):
        """Store ``content`` by way of a spooled file, as an upload does."""
        with storage.spool() as file:
            file.write(content)
            file.flush()
            storage.put(key, self.source(file, content, filename, mimetype))

    def source(self, file, content, filename="file.bin", mimetype="application/octet-stream"):
        """Return a :class:`Source` for an open file that contains ``content``."""
        return Source(file, filename, mimetype, len(content), sha256(content).hexdigest())

    def read(self, storage, key, start=0, end=None) -> bytes:
        """Return a range of a blob, and check the ``length`` that the storage announces."""
        chunks = storage.open(key, start, end)
        content = b"".join(chunks)
        assert chunks.length == len(content)
        return content

    def keys(self, storage, prefix) -> list[str]:
        """Return the sorted keys that begin with ``prefix``."""
        return sorted(stat.key for stat in storage.list(prefix))

    def test_provides_the_interface(self, storage):
        assert verifyObject(IStorage, storage)
        for interface in (
            IComposingStorage,
            ISigningStorage,
            IReceivingStorage,
            IStreamingStorage,
            IUnfinishedStorage,
        ):
            assert not interface.providedBy(storage) or verifyObject(interface, storage)

    @pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, LARGE])
    def test_put_keeps_the_bytes(self, storage, prefix, size):
        content = secrets.token_bytes(size)
        self.put(storage, f"{prefix}a.bin", content)
        assert sha256(self.read(storage, f"{prefix}a.bin")).digest() == sha256(content).digest()
        assert storage.stat(f"{prefix}a.bin").size == size

    @pytest.mark.parametrize("key", GOOD_KEYS)
    def test_put_takes_any_key_of_text(self, storage, prefix, key):
        self.put(storage, prefix + key, key.encode())
        assert self.read(storage, prefix + key) == key.encode()
        assert self.keys(storage, prefix) == [prefix + key]

    @pytest.mark.parametrize("key", BAD_KEYS)
    def test_bad_keys_are_refused_everywhere(self, storage, key):
        with pytest.raises(KeyRefused):
            self.put(storage, key, b"x")
        calls = [storage.open, storage.stat, storage.url]
        if ISigningStorage.providedBy(storage):
            calls.append(storage.sign)
        if IStreamingStorage.providedBy(storage):
            calls.append(lambda key: storage.stream(key, LABEL))
        for call in calls:
            with pytest.raises(KeyRefused):
                call(key)
        with pytest.raises(KeyRefused):
            storage.delete([key])
        with pytest.raises(KeyRefused):
            compose(storage, [], key, LABEL)

    def test_put_reads_the_source_from_its_start_and_leaves_it_open(self, storage, prefix):
        with storage.spool() as file:
            file.write(b"content")
            file.seek(3)
            storage.put(f"{prefix}a", self.source(file, b"content"))
            storage.put(f"{prefix}b", self.source(file, b"content"))
        assert self.read(storage, f"{prefix}a") == self.read(storage, f"{prefix}b") == b"content"

    def test_put_takes_any_file(self, storage, prefix, tmp_path):
        (tmp_path / "plain").write_bytes(b"plain")
        with (tmp_path / "plain").open("rb") as file:
            storage.put(f"{prefix}a", self.source(file, b"plain"))
        assert self.read(storage, f"{prefix}a") == b"plain"
        assert (tmp_path / "plain").read_bytes() == b"plain"

    def test_put_of_a_source_that_fails_leaves_nothing(self, storage, prefix):
        class Broken:
            def seek(self, *args):
                return 0

            def read(self, size=-1):
                raise OSError("unreadable")

            def close(self):
                pass

        with pytest.raises(OSError, match="unreadable"):
            storage.put(f"{prefix}a", Source(Broken(), "a", "text/plain", 9, "00"))
        assert self.keys(storage, prefix) == []

    def test_put_of_a_large_source_that_fails_half_way_leaves_nothing(self, storage, prefix):
        class Broken:
            left = LARGE // 2

            def seek(self, *args):
                return 0

            def read(self, size=-1):
                if self.left <= 0:
                    raise OSError("unreadable")
                size = min(size if size > 0 else CHUNK, self.left)
                self.left -= size
                return b"x" * size

            def close(self):
                pass

        with pytest.raises(OSError, match="unreadable"):
            storage.put(f"{prefix}a", Source(Broken(), "a", "text/plain", LARGE, "00"))
        assert self.keys(storage, prefix) == []

    def test_put_of_a_taken_key(self, storage, prefix):
        self.put(storage, f"{prefix}a", b"first")
        if storage.exclusive:
            with pytest.raises(BlobExists):
                self.put(storage, f"{prefix}a", b"second")
            assert self.read(storage, f"{prefix}a") == b"first"
        else:
            self.put(storage, f"{prefix}a", b"second")
            assert self.read(storage, f"{prefix}a") == b"second"

    def test_put_of_one_key_by_many_is_never_a_mixture(self, storage, prefix):
        contents = [bytes([65 + index]) * 100_000 for index in range(8)]

        def put(content):
            try:
                self.put(storage, f"{prefix}a", content)
            except (BlobExists, StorageUnavailable):  # a server may refuse so many at once
                return 0
            return 1

        with ThreadPoolExecutor(8) as pool:
            won = sum(pool.map(put, contents))
        assert self.read(storage, f"{prefix}a") in contents
        assert won == 1 or not storage.exclusive

    @pytest.mark.parametrize(
        "start, end",
        [(0, None), (0, 0), (0, 1), (5, 5), (7, 1000), (999, 1000), (1000, None), (3, 70_000)],
    )
    def test_open_gives_the_range(self, storage, prefix, start, end):
        content = secrets.token_bytes(1000)
        self.put(storage, f"{prefix}a", content)
        assert self.read(storage, f"{prefix}a", start, end) == content[start:end]

    def test_open_gives_a_range_of_a_large_blob(self, storage, prefix):
        content = secrets.token_bytes(LARGE)
        self.put(storage, f"{prefix}a", content)
        start, end = LARGE // 3, LARGE - 7
        assert self.read(storage, f"{prefix}a", start, end) == content[start:end]

    def test_open_gives_chunks_and_can_be_closed_early(self, storage, prefix):
        self.put(storage, f"{prefix}a", bytes(LARGE))
        chunks = storage.open(f"{prefix}a")
        assert isinstance(chunks, Iterator)
        assert 0 < len(next(chunks)) <= 4 * CHUNK
        chunks.close()

    def test_what_is_not_there(self, storage, prefix):
        for call in (storage.open, storage.stat):
            with pytest.raises(BlobNotFound):
                call(f"{prefix}missing")
        storage.delete([f"{prefix}missing"])

    def test_discard_unfinished_spares_blobs(self, storage, prefix):
        self.put(storage, f"{prefix}a", b"whole")
        later = datetime.now(timezone.utc) + timedelta(hours=1)
        for dry_run in (True, False):
            names = discard_unfinished(storage, later, lambda key: True, dry_run)
            assert f"{prefix}a" not in list(names)
        assert self.read(storage, f"{prefix}a") == b"whole"

    def test_stat_says_when(self, storage, prefix):
        self.put(storage, f"{prefix}a", b"x")
        stat = storage.stat(f"{prefix}a")
        age = datetime.now(timezone.utc) - stat.modified
        assert stat.key == f"{prefix}a"
        assert abs(age) < timedelta(minutes=5)

    def test_delete_takes_many(self, storage, prefix):
        keys = [f"{prefix}{index}" for index in range(25)]
        for key in keys:
            self.put(storage, key, b"x")
        storage.delete(iter([*keys[:20], f"{prefix}missing"]))
        assert self.keys(storage, prefix) == sorted(keys[20:])
        storage.delete([])
        storage.delete(keys)
        assert self.keys(storage, prefix) == []

    def test_a_deleted_key_is_free_again(self, storage, prefix):
        self.put(storage, f"{prefix}a/b", b"first")
        storage.delete([f"{prefix}a/b"])
        with pytest.raises(BlobNotFound):
            storage.stat(f"{prefix}a/b")
        self.put(storage, f"{prefix}a/b", b"second")
        assert self.read(storage, f"{prefix}a/b") == b"second"

    def test_list_is_by_prefix_of_text(self, storage, prefix):
        for key in ("a/1", "a/2/3", "ab/4", "b"):
            self.put(storage, prefix + key, key.encode())
        assert self.keys(storage, f"{prefix}a") == [
            f"{prefix}{k}" for k in ("a/1", "a/2/3", "ab/4")
        ]
        assert self.keys(storage, f"{prefix}a/") == [f"{prefix}a/1", f"{prefix}a/2/3"]
        assert {stat.size for stat in storage.list(f"{prefix}b")} == {1}
        assert self.keys(storage, f"{prefix}nothing") == []

    @pytest.mark.parametrize("sizes", [[], [0], [3, 0, 5], [LARGE, 100, 6 * 1024 * 1024]])
    def test_compose_joins_the_parts(self, storage, prefix, sizes):
        contents = [secrets.token_bytes(size) for size in sizes]
        parts = [f"{prefix}part/{index}" for index in range(len(sizes))]
        for part, content in zip(parts, contents, strict=True):
            self.put(storage, part, content)
        compose(storage, parts, f"{prefix}whole", LABEL)
        whole = self.read(storage, f"{prefix}whole")
        assert sha256(whole).digest() == sha256(b"".join(contents)).digest()
        assert self.keys(storage, f"{prefix}part/") == parts

    def test_compose_of_a_missing_part_stores_nothing(self, storage, prefix):
        self.put(storage, f"{prefix}a", b"x")
        with pytest.raises(BlobNotFound):
            compose(storage, [f"{prefix}a", f"{prefix}missing"], f"{prefix}whole", LABEL)
        assert self.keys(storage, prefix) == [f"{prefix}a"]

    def stream(self, storage, key):
        """Return a new stream. Other storages skip the test."""
        if not IStreamingStorage.providedBy(storage):
            pytest.skip("this storage does not provide IStreamingStorage")
        return storage.stream(key, LABEL)

    @pytest.mark.parametrize("piece", [CHUNK - 1, 3 * PART_BYTES])
    @pytest.mark.parametrize(
        "size", [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES, LARGE]
    )
    def test_a_stream_keeps_the_bytes(self, storage, prefix, size, piece):
        stream, content = self.stream(storage, f"{prefix}a"), secrets.token_bytes(size)
        for start in range(0, size, piece):
            stream.write(content[start : start + piece])
        assert self.keys(storage, prefix) == []
        stream.finish()
        assert storage.stat(f"{prefix}a").size == size
        assert sha256(self.read(storage, f"{prefix}a")).digest() == sha256(content).digest()

    @pytest.mark.parametrize("size", [0, 1, PART_BYTES, LARGE])
    def test_an_aborted_stream_leaves_nothing(self, storage, prefix, size):
        stream = self.stream(storage, f"{prefix}a")
        stream.write(bytes(size))
        stream.abort()
        stream.abort()
        assert self.keys(storage, prefix) == []
        later = datetime.now(timezone.utc) + timedelta(hours=1)
        is_ours = lambda key: key.startswith(prefix)  # noqa: E731
        assert list(discard_unfinished(storage, later, is_ours, dry_run=True)) == []

    @pytest.mark.parametrize("size", [5, LARGE])
    def test_a_stream_to_a_taken_key(self, storage, prefix, size):
        stream = self.stream(storage, f"{prefix}a")
        self.put(storage, f"{prefix}a", b"first")
        stream.write(bytes(size))
        if storage.exclusive:
            with pytest.raises(BlobExists):
                stream.finish()
            assert self.read(storage, f"{prefix}a") == b"first"
        else:
            stream.finish()
            assert self.read(storage, f"{prefix}a") == bytes(size)

    def test_several_streams_at_once(self, storage, prefix):
        streams = [self.stream(storage, f"{prefix}{index}") for index in range(3)]
        for _ in range(LARGE // (2 * CHUNK)):
            for index, stream in enumerate(streams):
                stream.write(bytes([index]) * 2 * CHUNK)
        for index, stream in enumerate(streams):
            stream.finish()
            found = self.read(storage, f"{prefix}{index}")
            assert found == bytes([index]) * (LARGE // (2 * CHUNK) * 2 * CHUNK)

    def test_url_joins_the_base_url(self, storage):
        assert storage.url("a/b.txt") == "https://cdn.example/files/a/b.txt"

    @pytest.fixture
    def receiving(self, storage, prefix):
        """The storage, if it receives bytes from clients, and can sign URLs."""
        if sign_put(storage, f"{prefix}a", 5, 60) is None:
            pytest.skip("clients send nothing to this storage")
        return storage

    def send(self, signed: SignedPut, content: bytes, **headers: str) -> Any:
        """Send bytes as a client does, and return the response."""
        sent = {**signed.headers, **headers}
        return requests.put(signed.url, data=content, headers=sent, timeout=30)

    @pytest.mark.parametrize("content", [b"", b"hello"])
    def test_sign_put_lets_clients_store(self, receiving, prefix, content):
        key = f"{prefix}a b+c.txt"
        signed = receiving.sign_put(key, len(content), 60)
        with pytest.raises(BlobNotFound):
            receiving.look(key)
        for _ in range(2):
            response = self.send(signed, content)
            assert response.status_code == 200, response.text
        found = receiving.look(key)
        assert found.size == len(content) and self.read(receiving, key) == content
        etag = response.headers.get("ETag", "").strip('"')
        assert not etag or etag in found.etags

    def test_proved_digests(self, receiving, prefix):
        content, key = b"hello", f"{prefix}a.txt"
        if not receiving.proves_digests(f"{prefix}probe"):
            pytest.skip("this storage proves no SHA-256")
        assert self.keys(receiving, prefix) == []
        digest = sha256(content).hexdigest()
        signed = receiving.sign_put(key, 5, 60, digest)
        assert self.send(signed, b"jello").status_code >= 400
        assert self.send(signed, b"hello, world").status_code >= 400
        for name in signed.headers:
            assert self.send(signed, content, **{name: "x"}).status_code >= 400
        assert self.keys(receiving, prefix) == []
        assert self.send(signed, content).status_code == 200
        assert receiving.look(key).digest == digest

    def test_allow_origins(self, receiving):
        receiving.allow_origins(["https://old.example"])
        rules = receiving.allow_origins(["https://app.example"])
        assert "https://app.example" in str(rules) and "old.example" not in str(rules)
        planned = receiving.allow_origins(["https://new.example"], dry_run=True)
        assert "https://new.example" in str(planned) and len(planned) == len(rules)
        again = receiving.allow_origins(["https://app.example"])
        assert len(again) == len(rules)
