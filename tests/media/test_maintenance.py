"""``fsck``, ``gc``, flush, metrics and labels of the media store."""

from dataclasses import replace
from datetime import timedelta

import pytest
import transaction

from kinto_attachment.maintenance.fsck import fsck
from kinto_attachment.maintenance.gc import collect
from kinto_attachment.maintenance.server import Server
from kinto_attachment.media.store import MediaStore
from kinto_attachment.media.verifier import Verifier
from kinto_attachment.metrics import Metrics
from tests.support.media import PUBLIC, MediaClient, random_content
from tests.support.site import ALICE, BOB


class TestOperations:
    @pytest.fixture
    def media(self, make_server, files):
        return MediaClient(make_server(files))

    def gc(self, media, **options):
        options = {"older_than": timedelta(0), **options}
        return [finding.kind for finding in collect(media.site.server, **options)]

    def test_fsck_finds_missing_media(self, media):
        content, digest = random_content()
        media.post(content)
        media.post(content, headers=BOB)
        media.post(content, digest, query="?verify=false")
        assert list(fsck(media.site.server, deep=True)) == []
        assert self.gc(media, offline=True) == []
        assert media.verify() == ["verified"]
        assert media.get(digest).body == content
        media.site.storage.delete(media.keys(digest))
        kinds = [finding.kind for finding in fsck(media.site.server)]
        assert kinds == ["missing object"] * 2

    def test_gc_deletes_media_without_entries(self, media):
        (content, digest), (kept, other) = random_content(), random_content()
        media.post(content)
        media.post(content, headers=BOB)
        media.post(kept)
        media.delete(digest)
        assert self.gc(media, offline=True) == []
        media.delete(digest, headers=BOB)
        assert self.gc(media, older_than=timedelta(hours=1)) == []
        assert self.gc(media, offline=True) == ["deleted"]
        assert media.keys(digest) == []
        assert media.get(other).body == kept
        media.post(content, status=201)
        assert media.get(digest).body == content

    def test_gc_deletes_what_a_failed_request_left(self, media, monkeypatch):
        content, digest = random_content()

        def keep(*args):
            raise RuntimeError("lost")

        with monkeypatch.context() as patch:
            patch.setattr(MediaStore, "keep", keep)
            media.post(content, status=500)
        assert self.gc(media, offline=True) == ["deleted"]
        assert media.keys(digest) == []

    def test_flush(self, media):
        content, digest = random_content()
        media.post(content)
        media.post(content, digest, query="?verify=false")
        media.http.post("/__flush__", headers=ALICE)
        media.get(digest, status=404)
        assert media.pending() == []
        assert self.gc(media, offline=True) == ["deleted"]

    def test_no_connection_is_held_while_bytes_move(self, media, monkeypatch):
        site = media.site
        pool = site.registry.storage.client.session_factory.session_factory.kw["bind"].pool
        seen = []
        names = ("spool", "put", "open", "compose", "stat", "delete")
        for name in names:
            original = getattr(site.storage, name)

            def watch(*args, name=name, original=original):
                seen.append((name, pool.checkedout()))
                return original(*args)

            monkeypatch.setattr(site.storage, name, watch)
        content, digest = random_content()
        media.post(content)
        media.get(digest)
        for upload in (random_content(), (content, digest)):
            media.post(*upload, query="?verify=false")
        media.verify()
        assert {count for _, count in seen} == {0}
        # Where a key is taken only once, storing tells whether the bytes are there.
        assert set(names) - {name for name, _ in seen} <= {"stat"}

    def test_metrics(self, media, monkeypatch):
        counted = []

        class Service:
            def count(self, key, count=1, unique=None):
                counted.append((unique[0][1], count))

            def observe(self, key, value, labels=()):
                counted.append((key, value))

        (content, digest), (junk, _) = random_content(), random_content()
        media.post(content, digest, query="?verify=false")
        media.post(junk, digest, query="?verify=false")
        plugin = replace(media.site.plugin, metrics=Metrics(Service))
        verifier = Verifier(plugin, media.site.registry.attachment_verifications)
        assert verifier.count() == 2
        list(verifier.verify())
        assert verifier.count() == 0
        pending = "attachments.pending_verifications"
        assert counted[0] == (pending, 2) and counted[-1] == (pending, 0)
        assert sorted(counted[1:-1]) == [("refused", 1), ("verified", 1)]


def test_attachments_by_hash_are_other_entries(make_server):
    """The media store and attachments have folders of their own: neither keeps the bytes of the
    other."""
    by_hash = {"kinto.attachment.randomize": "false", "kinto.attachment.filename_pattern": "{hash}"}
    site = make_server("local", **by_hash)
    media, record = MediaClient(site), site.collection().record()
    content, digest = random_content()
    record.upload(content)
    media.get(digest, status=404)
    media.post(content, status=201)
    record.detach()
    list(collect(Server.of(site.registry, transaction.manager), timedelta(0), offline=True))
    assert media.get(digest).body == content
    assert len(media.keys(digest)) == 1


def test_private_media_are_labelled(make_server, monkeypatch):
    """Private media are labelled as such, for storages that have ACLs."""
    for public in (False, True):
        media = MediaClient(make_server("local", **(PUBLIC if public else {})))
        seen, put, compose = [], media.site.storage.put, media.site.storage.compose

        def watch_put(key, source, seen=seen, put=put):
            seen.append(("put", source.private))
            return put(key, source)

        def watch_compose(parts, key, label, seen=seen, compose=compose):
            seen.append(("compose", label.private))
            return compose(parts, key, label)

        monkeypatch.setattr(media.site.storage, "put", watch_put)
        monkeypatch.setattr(media.site.storage, "compose", watch_compose)
        media.post(random_content()[0])
        content, digest = random_content()
        media.post(content, digest, query="?verify=false")
        media.verify()
        assert seen == [("put", not public), ("put", True), ("compose", not public)]
