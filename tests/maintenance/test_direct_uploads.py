"""What the operator's jobs do with direct uploads."""

import pytest

from kinto_attachment.maintenance import expiry
from kinto_attachment.uploads.direct import urls
from tests.support.direct import DirectUploads, digest
from tests.support.maintenance import check, gc

STAGED = "private/_uploads/"

CONTENT = b"hello world"


@pytest.fixture
def field_name():
    """The rows of uploads do not depend on the field."""
    return "attachment"


@pytest.fixture
def record(site):
    return site.collection().record()


@pytest.fixture
def direct(record):
    return DirectUploads(record.http, f"{record.attachment_uri}/uploads")


@pytest.fixture(params=["", "hash"])
def known(request):
    return {"hash": digest(CONTENT)} if request.param else {}


def age(monkeypatch, seconds=86400 + 60):
    """Let the clocks of the database and of the server be ahead."""
    from kinto_attachment.uploads import progress  # not before Kinto is set up

    real, now = expiry.database_time, urls.time.time
    for module in (expiry, progress):
        monkeypatch.setattr(module, "database_time", lambda storage: real(storage) + seconds * 1000)
    monkeypatch.setattr(urls.time, "time", lambda: now() + seconds)


class TestUnfinished:
    def test_is_kept(self, site, record, direct, known):
        described = direct.send(CONTENT, **known)
        assert check(site) == gc(site) == gc(site, offline=True) == []
        direct.complete(described)
        record.check(CONTENT)
        assert check(site) == gc(site) == []

    def test_expires(self, site, record, direct, known, monkeypatch):
        described = direct.send(CONTENT, **known)
        empty = direct.create(len(CONTENT), **known).json
        age(monkeypatch)
        for each in (described, empty):
            direct.get(each, status=410)
            direct.complete(each, status=410)
            direct.delete(each, status=410)
        found = ("expired", "", record.attachment_uri)
        assert gc(site, dry_run=True).count(found) == 2
        assert len([key for key in site.keys if not key.startswith("__")]) == 1
        assert gc(site).count(found) == 2
        assert [key for key in site.keys if not key.startswith("__")] == []
        direct.get(described, status=404)
        assert gc(site) == check(site) == []

    def test_that_was_attached(self, site, record, direct, known, monkeypatch):
        """Bytes that a URL has stored after that are deleted, and the file stays."""
        described = direct.send(CONTENT, **known)
        direct.complete(described)
        direct.put(described, CONTENT, status=None)
        age(monkeypatch)
        gc(site)
        assert [key for key in site.keys if key.startswith(STAGED)] == []
        record.check(CONTENT)
        direct.complete(described, status=404)
        assert gc(site) == check(site) == []

    def test_that_was_refused(self, site, record, direct, monkeypatch):
        described = direct.create(len(CONTENT), hash=digest(b"jello world")).json
        direct.put(described, CONTENT, status=None)
        direct.complete(described, status="*")
        direct.put(described, CONTENT, status=None)
        age(monkeypatch)
        gc(site)
        assert [key for key in site.keys if not key.startswith("__")] == []
        assert gc(site) == check(site) == []

    def test_parts_without_an_upload(self, site, direct):
        described = direct.send(CONTENT)
        rows = site.rows.direct
        upload = site.in_transaction(lambda: rows.get(described["id"]))
        site.in_transaction(lambda: rows.take(upload))
        gc(site, force=True)
        assert [key for key in site.keys if not key.startswith("__")] == []

    def test_verified_bytes_that_are_gone(self, make_server, files):
        site = make_server(files, **{"kinto.attachment.direct.inline": "4"})
        if site.plugin.settings.storage != "s3":
            pytest.skip("this server has hashed the bytes on their way")
        from tests.uploads.test_direct_verifying import verify

        record = site.collection().record()
        direct = DirectUploads(site.http, f"{record.attachment_uri}/uploads")
        described = direct.send(CONTENT)
        direct.complete(described, status=202)
        assert verify(site) == ["verified"]
        assert check(site) == []
        upload = site.in_transaction(lambda: site.rows.direct.get(described["id"]))
        site.storage.delete([upload.whole])
        assert [found[0] for found in check(site)] == ["missing object"]
        direct.complete(described, status=409)
        direct.delete(described)
        assert check(site) == []


class TestUnreadableRows:
    def test_bytes_stay(self, site, direct, monkeypatch):
        described = direct.send(CONTENT)
        rows, storage = site.rows.direct, site.registry.storage
        upload = site.in_transaction(lambda: rows.get(described["id"]))
        parent = f"/attachment-direct/{upload.id}"

        def spoil():
            (row,) = storage.list_all("attachment-direct", parent)
            storage.update("attachment-direct", parent, upload.id, {**row, "size": "x"})

        site.in_transaction(spoil)
        keys = site.keys
        direct.get(described, status=404)
        assert "unreadable row" in {kind for kind, *_ in check(site)}
        gc(site, offline=True)
        if upload.parts:
            assert site.keys == keys
