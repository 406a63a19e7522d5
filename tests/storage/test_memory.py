"""Bytes in a dict."""

import pytest

from kinto_attachment.storage.memory import MemoryFileStorage
from kinto_attachment.storage.testing import StorageTest


class TestMemory(StorageTest):
    @pytest.fixture
    def storage(self):
        return MemoryFileStorage("https://cdn.example/files/")
