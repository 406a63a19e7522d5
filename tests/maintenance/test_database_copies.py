"""A copy of a database deletes no file that the original may need."""

from datetime import timedelta
from threading import Thread

import pytest

from kinto_attachment.errors import ForeignStorage, StorageUnavailable, SweepRefused
from kinto_attachment.files.key import MARKER
from kinto_attachment.maintenance.fsck import fsck
from kinto_attachment.maintenance.gc import collect
from kinto_attachment.maintenance.migrate import copy
from kinto_attachment.rows import identity
from kinto_attachment.rows.identity import Identities, Identity
from kinto_attachment.transactions import ownership
from kinto_attachment.transactions.ownership import OwnedStorage
from tests.maintenance.test_ownership import adopt, copy_database, kinds
from tests.support.maintenance import findings
from tests.support.site import ALICE, Collection

OFFLINE = {"older_than": timedelta(0), "offline": True}


@pytest.fixture(params=["local", "seaweedfs", pytest.param("gcs", marks=pytest.mark.slow)])
def files(request):
    return request.param


@pytest.fixture
def production(make_server, files):
    """A server with five files."""
    site = make_server(files)
    collection = site.collection()
    for number in range(5):
        collection.record(f"r{number}").upload(b"%d" % number)
    site.records = collection
    return site


@pytest.fixture
def copied(make_server, production, files):
    """Another server with a copy of the database and the same storage."""
    production.close()
    url = copy_database(production.settings["kinto.storage_url"])
    urls = {"kinto.storage_url": url, "kinto.permission_url": url}
    site = make_server(files, **{**production.settings, **urls})
    site.records = Collection(site, production.records.bucket, "fonts")
    return site


def check_unharmed(site):
    """All files of the server can be downloaded."""
    for record in site.http.get(f"{site.records.uri}/records", headers=ALICE).json["data"]:
        site.http.get(site.records.record(record["id"]).attachment_uri, headers=ALICE)


class TestPhysicalCopy:
    """A snapshot of the disk of the server: PostgreSQL calls both databases the same."""

    @pytest.fixture
    def copied(self, production, copied, monkeypatch):
        name = production.in_transaction(production.rows.identities._row_id)
        monkeypatch.setattr(copied.rows.identities, "_row_id", lambda: name)
        return copied

    def test_is_told_apart_once_gc_has_run_in_the_original(self, production, copied, monkeypatch):
        for number in range(3):  # the process of the copy has written before
            copied.records.record(f"copy{number}").upload(b"copy")
        assert list(collect(production.server)) == []
        production.records.record("new").upload(b"new")
        assert kinds(fsck(production.server)) == ["orphan object"] * 3
        assert kinds(fsck(copied.server)) == ["foreign storage"]
        for options in ({}, {"force": True}):
            with pytest.raises(ForeignStorage, match="copy"):
                list(collect(copied.server, **OFFLINE, **options))
        monkeypatch.setattr(ownership, "TRUST_SECONDS", 0)
        copied.records.record("r0").detach()
        check_unharmed(production)

    def test_adopts_the_storage(self, production, copied):
        assert list(collect(production.server)) == []
        assert adopt(copied)[0] == ["adopted"]
        assert kinds(fsck(copied.server)) == []
        assert kinds(fsck(production.server)) == ["foreign storage"]

    def test_a_dry_run_changes_no_mark(self, production, copied):
        assert list(collect(production.server, dry_run=True)) == []
        assert kinds(fsck(copied.server)) == []


class TestNonce:
    def test_gc_dies_before_it_is_in_the_mark(self, production, monkeypatch):
        list(collect(production.server))

        def fail(storage, *args, **options):
            raise StorageUnavailable(MARKER)

        for _ in range(3):
            with monkeypatch.context() as patch:
                patch.setattr(OwnedStorage, "_write_mark", fail)
                with pytest.raises(StorageUnavailable):
                    list(collect(production.server))
            assert kinds(fsck(production.server)) == []
        for _ in range(3):
            assert list(collect(production.server)) == []
        assert kinds(fsck(production.server)) == []

    @pytest.mark.parametrize("files", ["local", "seaweedfs", "memory"])
    def test_the_storage_is_never_without_a_mark(self, production, monkeypatch):
        inner, seen = production.storage.inner, []
        for name in ("put", "delete"):
            call = getattr(inner, name)

            def watched(*args, call=call):
                call(*args)
                seen.append(production.storage.claim())

            monkeypatch.setattr(inner, name, watched)
        for _ in range(2):
            assert list(collect(production.server)) == []
        assert seen and not [claim for claim in seen if claim.mark is None or claim.is_foreign]
        assert [stat.key for stat in inner.list() if MARKER in stat.key] == [MARKER]

    def test_of_a_storage_that_files_are_moved_to(self, production, make_server):
        """``gc`` runs every night while it is filled."""
        other = make_server("local").storage.inner
        for _ in range(2):
            list(copy(production.server, other))
            for _ in range(3):
                assert list(collect(production.server)) == []
        moved = OwnedStorage(other, production.rows.identities)
        assert not moved.claim().is_foreign

    def test_two_runs_at_once(self):
        """Whichever writes the mark last, the database knows it."""
        first = Identity("a").renewed("", "1")
        second = first.renewed("1", "2").renewed("1", "3")
        assert all(second.has_made("a", nonce) for nonce in ("1", "2", "3"))
        third = second.renewed("2", "4")
        assert all(third.has_made("a", nonce) for nonce in ("2", "3", "4"))

    def test_few_are_kept(self, production):
        for _ in range(5):
            list(collect(production.server))
        assert len(production.in_transaction(production.rows.identities.find).nonces) == 1

    def test_folders_and_nonces_that_are_written_at_once(self, production):
        """Nothing of what two processes write is lost."""
        identities = production.rows.identities
        before = production.in_transaction(identities.get).folders

        other = Identities(production.registry.storage)
        thread = Thread(
            target=production.in_transaction,
            args=(lambda: other.change(lambda own: own.with_folder("/srv")),),
        )

        def renew(own):
            thread.start()
            thread.join(0.5)
            return own.renewed("", "1")

        production.in_transaction(lambda: identities.change(renew))
        thread.join()
        found = production.in_transaction(identities.find)
        assert found.folders == (*before, "/srv")
        assert ("1", "") in found.nonces


class TestUpgrade:
    """A staging server is upgraded before the production server, which makes no marks yet. Their
    storage has none."""

    @pytest.fixture
    def copied(self, production, copied):
        for site in (production, copied):
            site.in_transaction(
                lambda site=site: site.registry.storage.delete_all(
                    identity.IDENTITY_ROWS, identity.IDENTITY_PARENT
                )
            )
        for number in range(3):
            production.records.record(f"new{number}").upload(b"new")
        production.storage.inner.delete([MARKER])
        return copied

    @pytest.mark.parametrize("has_written", [False, True])
    def test_gc_deletes_no_file_that_it_does_not_know(self, production, copied, has_written):
        if has_written:
            copied.records.record("copy").upload(b"copy")
        for options in ({"dry_run": True}, {}, {}, {"force": True}):
            with pytest.raises(SweepRefused, match="kinto-attachment adopt-storage"):
                list(collect(copied.server, **OFFLINE, **options))
        check_unharmed(production)

    def test_gc_works_without_orphans(self, production, copied):
        production.storage.delete(set(production.keys) - set(copied.records.links))
        assert list(collect(copied.server, **OFFLINE)) == []

    def test_adopt_storage_asks(self, production, copied):
        copied.records.record("copy").upload(b"copy")
        found, asked = adopt(copied)
        assert found == ["adopted"] and "had files before" in asked[0]
        assert findings(collect(copied.server, **OFFLINE, dry_run=True)) != []
        assert adopt(copied) == ([], [])


def test_two_clusters_whose_identifier_may_not_be_read(make_server, monkeypatch):
    """Their first databases have the same number."""
    monkeypatch.setattr(identity, "_MAY_ASK", "SELECT false")
    monkeypatch.setattr(identity, "_DATABASE", "SELECT 16384")
    sites = [make_server("local") for _ in range(2)]
    for site in sites:
        site.collection()
    names = {site.in_transaction(site.rows.identities._row_id) for site in sites}
    assert len(names) == 2
