"""A part of a storage passes as a storage, and leaves the rest alone."""

from datetime import datetime, timedelta, timezone

import pytest

from kinto_attachment.storage.local import LocalFileStorage
from kinto_attachment.storage.memory import MemoryFileStorage
from kinto_attachment.storage.prefixed import PrefixedStorage
from kinto_attachment.storage.staged import discard_unfinished
from kinto_attachment.storage.testing import StorageTest

BASE_URL = "https://cdn.example/files/"


class TestInMemory(StorageTest):
    @pytest.fixture
    def whole(self):
        return MemoryFileStorage(BASE_URL)

    @pytest.fixture
    def storage(self, whole):
        return PrefixedStorage(whole, "two/deep/")

    def test_sees_what_is_below_the_prefix(self, whole, storage, prefix):
        self.put(whole, f"{prefix}a", b"of another")
        self.put(whole, "two/b", b"of another")
        self.put(storage, f"{prefix}a", b"own")
        assert self.read(storage, f"{prefix}a") == b"own"
        assert self.read(whole, f"two/deep/{prefix}a") == b"own"
        assert self.keys(storage, "") == [f"{prefix}a"]
        storage.delete([f"{prefix}a", "b"])
        assert self.keys(whole, "") == sorted([f"{prefix}a", "two/b"])


class TestInAFolder(TestInMemory):
    @pytest.fixture
    def whole(self, tmp_path):
        return LocalFileStorage(str(tmp_path / "root"), BASE_URL)

    def test_path(self, storage):
        assert storage.path("a/b").endswith("/root/two/deep/a/b")

    def test_spares_the_unfinished_uploads_of_others(self, whole, storage, tmp_path):
        """No one can tell whose a file without a key is."""
        whole.spool().close()
        unfinished = tmp_path / "root" / ".kinto-attachment-spool-x"
        unfinished.write_bytes(b"x")
        soon = datetime.now(timezone.utc) + timedelta(seconds=1)
        assert list(discard_unfinished(storage, soon, lambda key: True)) == []
        assert list(discard_unfinished(whole, soon, lambda key: True)) == [unfinished.name]
