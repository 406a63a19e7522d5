"""Direct uploads that are hashed in the background, because they are large."""

import time

import pytest

from kinto_attachment.errors import StorageUnavailable
from kinto_attachment.media import verifier
from kinto_attachment.media.verifier import Background, Verifier
from kinto_attachment.rows.uploads import leases
from kinto_attachment.storage.staged import IComposingStorage
from tests.support.direct import DirectUploads, digest
from tests.support.site import ALICE

CONTENT = b"hello world, in several parts"

SETTINGS = {"kinto.attachment.direct.inline": "4", "kinto.attachment.direct.part_size": "10"}


@pytest.fixture
def site(make_site, kinto, files):
    return make_site(kinto, files, **SETTINGS)


@pytest.fixture
def direct(record):
    return DirectUploads(record.http, f"{record.attachment_uri}/uploads")


def verify(site) -> list[str]:
    """Verify all uploads that wait, as the background thread does; return the finding kinds."""
    job = Verifier(site.plugin, site.registry.attachment_verifications)
    return [finding.kind for finding in job.verify()]


class TestVerifying:
    def test_attaches(self, site, record, direct, staged):
        described = direct.send(CONTENT, hash=digest(CONTENT))
        for _ in range(2):
            pending = direct.complete(described, status=202)
            assert int(pending.headers["Retry-After"]) > 0
            assert pending.json["state"] == "verifying"
        found = direct.get(described).json
        assert found["state"] == "verifying" and found["parts"] == []
        record.http.get(record.uri, headers=ALICE, status=404)
        assert verify(site) == ["verified"]
        assert verify(site) == []
        assert direct.get(described).json["state"] == "verifying"
        record.http.get(record.uri, headers=ALICE, status=404)
        direct.complete(described)
        record.check(CONTENT)
        direct.complete(described)
        assert staged() == []

    def test_another_hash(self, site, record, direct, staged):
        described = direct.send(CONTENT, hash=digest(b"other bytes"))
        direct.complete(described, status=202)
        assert verify(site) == ["refused"]
        assert direct.get(described).json["state"] == "refused"
        assert staged() == [] == record.collection.keys
        refused = direct.complete(described, status=400)
        assert refused.json["details"][0]["name"] == "hash"
        assert verify(site) == []

    def test_swapped_bytes(self, site, record, direct, staged):
        described = direct.send(CONTENT)
        direct.complete(described, status=202)
        put = direct.put(described["parts"][0], b"#" * 10, status=None)
        expected = ["verified"] if put.status_int == 403 else ["refused"]
        assert verify(site) == expected
        if expected == ["verified"]:
            direct.complete(described)
            record.check(CONTENT)
        else:
            direct.complete(described, status=400)
            assert staged() == [] == record.collection.keys

    def test_swapped_bytes_after_they_were_verified(self, site, record, direct):
        described = direct.send(CONTENT)
        direct.complete(described, status=202)
        assert verify(site) == ["verified"]
        direct.put(described["parts"][0], b"#" * 10, status=None)
        direct.complete(described)
        record.check(CONTENT)

    def test_deleted_meanwhile(self, site, direct, staged):
        described = direct.send(CONTENT)
        direct.complete(described, status=202)
        direct.delete(described)
        assert verify(site) == [] == staged()
        direct.complete(described, status=404)

    def test_deleted_while_it_is_hashed(self, site, record, direct, staged, monkeypatch):
        described = direct.send(CONTENT)
        direct.complete(described, status=202)
        original = site.storage.open

        def read(*args):
            direct.delete(described, status="*")
            return original(*args)

        monkeypatch.setattr(site.storage, "open", read)
        assert verify(site) in ([], ["missing object"])
        assert staged() == []
        assert site.in_transaction(lambda: list(site.rows.direct.verifying())) == []
        direct.get(described, status=404)

    def test_conditions_are_judged_in_the_end(self, site, record, direct):
        etag = record.put(family="sans").headers["ETag"]
        described = direct.send(CONTENT, headers={"If-Match": etag})
        direct.complete(described, status=202)
        assert verify(site) == ["verified"]
        changed = record.put(family="serif")
        direct.complete(described, status=412)
        assert "attachment" not in record.data
        assert changed.json["data"]["family"] == "serif"
        direct.delete(described)
        assert record.collection.keys == []

    def test_a_lease_of_another_process(self, site, record, direct, monkeypatch):
        described = direct.send(CONTENT)
        direct.complete(described, status=202)
        rows = site.rows.leases
        assert site.in_transaction(lambda: rows.take(described["id"], "other"))
        assert verify(site) == []
        monkeypatch.setattr(leases, "LEASE_SECONDS", -1)
        time.sleep(0.01)
        assert verify(site) == ["verified"]
        assert not site.in_transaction(lambda: rows.renew(described["id"], "other"))
        direct.complete(described)
        record.check(CONTENT)

    def test_a_lease_that_is_lost(self, site, direct, monkeypatch):
        """The verifier was too slow, and another one has taken over."""
        described = direct.send(CONTENT)
        direct.complete(described, status=202)
        rows, original = site.rows.leases, site.storage.open

        def read(*args):
            site.in_transaction(lambda: rows.drop(described["id"]))
            assert site.in_transaction(lambda: rows.take(described["id"], "other"))
            return original(*args)

        with monkeypatch.context() as patch:
            patch.setattr(site.storage, "open", read)
            assert verify(site) == []
        upload = site.in_transaction(lambda: site.rows.direct.get(described["id"]))
        assert upload.found == ""
        site.in_transaction(lambda: rows.drop(described["id"]))
        assert verify(site) == ["verified"]

    def test_a_storage_that_is_down(self, site, record, direct, monkeypatch):
        described = direct.send(CONTENT)
        direct.complete(described, status=202)

        def fail(*args, **options):
            raise StorageUnavailable("down")

        calls = ["open", "stat"]
        if IComposingStorage.providedBy(site.storage):
            calls.append("compose")
        for call in calls:
            with monkeypatch.context() as patch:
                patch.setattr(site.storage, call, fail)
                assert verify(site) == ["unreadable object"]
        assert verify(site) == ["verified"]
        direct.complete(described)
        record.check(CONTENT)


class TestBackground:
    FILES = {"local"}

    def test_thread(self, site, record, direct, monkeypatch):
        monkeypatch.setattr(verifier, "IDLE_SECONDS", 0.05)
        kinds = site.registry.attachment_verifications
        background = Background(lambda: Verifier(site.plugin, kinds))
        monkeypatch.setattr(site.registry.attachment_media, "background", background)
        described = direct.send(CONTENT)
        direct.complete(described, status=202)
        deadline = time.monotonic() + 20
        while direct.complete(described, status="*").status_int == 202:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        record.check(CONTENT)
        while background._thread is not None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
