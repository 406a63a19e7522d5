"""What the operator's jobs do with resumable uploads."""

import pytest

from kinto_attachment.maintenance.migrate import copy
from kinto_attachment.settings import read_settings
from kinto_attachment.storage import open_storage
from tests.support.maintenance import check, findings, gc
from tests.support.site import ALICE
from tests.support.tus import Uploads

STAGED = "private/_uploads/"


@pytest.fixture
def field_name():
    """The rows of uploads do not depend on the field."""
    return "attachment"


@pytest.fixture
def record(site):
    return site.collection().record()


@pytest.fixture
def uploads(record):
    return Uploads(record.http, f"{record.attachment_uri}/uploads")


def staged(site):
    return [key for key in site.keys if key.startswith(STAGED)]


def age(site, upload_url, monkeypatch, seconds=86400 + 60):
    """Let the clock of the database be ahead."""
    from kinto_attachment.maintenance import expiry
    from kinto_attachment.uploads import resumable

    real = expiry.database_time
    for module in (expiry, resumable):
        monkeypatch.setattr(module, "database_time", lambda storage: real(storage) + seconds * 1000)


class TestUnfinished:
    def test_is_kept(self, site, record, uploads):
        url = uploads.create(5, b"hel").headers["Location"]
        assert check(site) == []
        assert gc(site) == []
        assert gc(site, offline=True) == []
        uploads.patch(url, 3, b"lo")
        record.check(b"hello")
        assert gc(site) == check(site) == []

    def test_expires(self, site, record, uploads, monkeypatch):
        url = uploads.create(5, b"hel").headers["Location"]
        age(site, url, monkeypatch)
        found = ("expired", "", record.attachment_uri)
        assert found in gc(site, dry_run=True)
        assert len(staged(site)) == 1
        assert found in gc(site)
        assert staged(site) == []
        uploads.head(url, status=404)
        assert gc(site) == []

    def test_that_has_expired_is_gone(self, site, uploads, monkeypatch):
        import kinto_attachment.uploads.resumable as resumable

        url = uploads.create(5, b"hel").headers["Location"]
        age(site, url, monkeypatch)
        # The clock of the server alone proves nothing, and neither does that of the database.
        assert uploads.offset(url) == 3
        real = resumable.time.time
        monkeypatch.setattr(resumable.time, "time", lambda: real() + 2 * 86400)
        for call in (uploads.head, uploads.get, uploads.delete):
            call(url, status=410)
        uploads.patch(url, 3, b"lo", status=410)

    def test_a_clock_that_jumps(self, uploads, monkeypatch):
        import kinto_attachment.uploads.resumable as resumable

        url = uploads.create(5, b"hel").headers["Location"]
        real = resumable.time.time
        monkeypatch.setattr(resumable.time, "time", lambda: real() + 30 * 86400)
        assert uploads.offset(url) == 3

    def test_segments_without_an_upload(self, site, uploads):
        upload_id = uploads.create(5, b"hel").headers["Location"].rpartition("/")[2]
        rows = site.rows.resumable
        site.in_transaction(lambda: rows.take(rows.get(upload_id)))
        gc(site)
        assert staged(site) == []
        assert gc(site) == check(site) == []

    def test_lost_bytes(self, site, record, uploads):
        url = uploads.create(5, b"hel").headers["Location"]
        (key,) = staged(site)
        site.storage.delete([key])
        where = f"{record.attachment_uri}/uploads/{url.rpartition('/')[2]}"
        assert check(site) == [("missing object", key, where)]
        uploads.patch(url, 3, b"lo", status=404)
        assert uploads.offset(url) == 3

    def test_orphans(self, site, record):
        record.upload(b"content")
        key = f"{STAGED}38e4e0f8-1419-4a38-a3f3-a30f62ecc133"
        site.put(key)
        assert check(site) == [("orphan object", key, "")]
        assert gc(site) == [("deleted", key, "")]

    def test_is_migrated(self, site, uploads, tmp_path):
        uploads.create(5, b"hel")
        (key,) = staged(site)
        target = open_storage(read_settings({"attachment.base_path": str(tmp_path / "new")}))
        findings(copy(site.server, target))
        assert b"".join(target.open(key)) == b"hel"

    def test_flush(self, site, record, uploads):
        record.upload(b"content")
        uploads.create(5, b"hel")
        site.http.post("/__flush__", headers=ALICE)
        assert staged(site) == []
        assert gc(site, force=True) == []


class TestFinished:
    def test_is_forgotten(self, site, record, uploads, monkeypatch):
        url = uploads.create(5, b"hello").headers["Location"]
        assert uploads.offset(url) == 5
        age(site, url, monkeypatch)
        assert gc(site) == []
        uploads.head(url, status=404)
        record.check(b"hello")
