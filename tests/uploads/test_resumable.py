"""Resumable uploads to records: what arrives, and what becomes of it."""

import pytest

from tests.support.tus import Uploads


@pytest.fixture
def record(site):
    return site.collection().record()


@pytest.fixture
def uploads(record):
    return Uploads(record.http, f"{record.attachment_uri}/uploads")


def staged(site) -> list[str]:
    return [stat.key for stat in site.storage.list("private/_uploads/")]


class TestSend:
    def test_two_pieces(self, site, record, uploads):
        created = uploads.create(11)
        url = created.headers["Location"]
        assert created.headers["Upload-Expires"].endswith("GMT")
        assert uploads.offset(url) == 0
        first = uploads.patch(url, 0, b"hello ")
        assert first.headers["Upload-Offset"] == "6"
        assert uploads.offset(url) == 6
        last = uploads.patch(url, 6, b"world")
        assert last.headers["Upload-Offset"] == "11"
        attachment = record.check(b"hello world")
        assert attachment["filename"] == "a.txt"
        assert attachment["mimetype"] == "text/plain"
        assert last.headers["ETag"] == f'"{record.data["last_modified"]}"'
        assert last.headers["Content-Location"].endswith(record.attachment_uri)
        assert uploads.offset(url) == 11
        assert staged(site) == []

    def test_with_creation(self, record, uploads):
        created = uploads.create(5, b"hello")
        assert created.headers["Upload-Offset"] == "5"
        record.check(b"hello")
