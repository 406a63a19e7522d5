"""What the operator's jobs do with resumable uploads."""

import time

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


DAY = 86400


def turn_clocks(monkeypatch, database=0, server=0):
    """Turn the clocks of the database and of the server forward by so many seconds."""
    from kinto_attachment.maintenance import expiry
    from kinto_attachment.uploads import progress

    now, server_now = expiry.database_time, time.time
    for module in (expiry, progress):
        monkeypatch.setattr(module, "database_time", lambda storage: now(storage) + database * 1000)
    monkeypatch.setattr(time, "time", lambda: server_now() + server)


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
        turn_clocks(monkeypatch, 2 * DAY, 2 * DAY)
        found = ("expired", "", record.attachment_uri)
        assert found in gc(site, dry_run=True)
        assert len(staged(site)) == 1
        assert found in gc(site)
        assert staged(site) == []
        uploads.head(url, status=404)
        assert gc(site) == []

    def test_that_has_expired_is_gone(self, uploads, monkeypatch):
        url = uploads.create(5, b"hel").headers["Location"]
        turn_clocks(monkeypatch, 2 * DAY, 2 * DAY)
        for call in (uploads.head, uploads.get, uploads.delete):
            call(url, status=410)
        uploads.patch(url, 3, b"lo", status=410)
        assert uploads.get(uploads.base).json == []

    @pytest.mark.parametrize("clocks", [(2 * DAY, 0), (0, 30 * DAY)], ids=["database", "server"])
    def test_a_clock_that_jumps(self, site, uploads, monkeypatch, clocks):
        url = uploads.create(5, b"hel").headers["Location"]
        turn_clocks(monkeypatch, *clocks)
        assert uploads.offset(url) == 3
        assert gc(site) == []
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
        uploads.patch(url, 3, b"lo", status=410)

    def test_damaged_bytes(self, site, record, uploads):
        url = uploads.create(5, b"hel").headers["Location"]
        (key,) = staged(site)
        site.storage.delete([key])
        site.put(key, b"he")
        where = f"{record.attachment_uri}/uploads/{url.rpartition('/')[2]}"
        assert check(site) == [("wrong size", key, where)]
        uploads.patch(url, 3, b"lo", status=410)
        record.http.get(record.uri, headers=ALICE, status=404)
        uploads.delete(url)
        assert check(site) == []

    def test_a_lost_row(self, site, record, uploads):
        url = uploads.create(9, b"abc").headers["Location"]
        uploads.patch(url, 3, b"def")
        rows = site.rows.resumable
        first = rows.segments(url.rpartition("/")[2])[0]
        site.in_transaction(lambda: rows.drop(first))
        uploads.patch(url, 6, b"ghi", status=410)
        record.http.get(record.uri, headers=ALICE, status=404)

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
        turn_clocks(monkeypatch, 2 * DAY, 2 * DAY)
        assert gc(site) == []
        uploads.head(url, status=404)
        record.check(b"hello")
