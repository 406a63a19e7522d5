"""Reading and deleting more rows than Kinto returns or deletes in one call, and creating one."""

from functools import partial
from hashlib import sha256
from uuid import uuid4

import pytest
from kinto.core.storage import Filter
from kinto.core.utils import COMPARISON

from kinto_attachment.files.ref import FieldRef, MediaRef, RecordRef, UploadRef
from kinto_attachment.rows import paging
from kinto_attachment.rows.links import Link
from kinto_attachment.rows.paging import (
    create_row,
    delete_rows,
    fetch_size,
    find_owners,
    find_records,
    find_rows,
    keyset,
    scan,
)
from kinto_attachment.rows.uploads import Pending
from kinto_attachment.rows.variants import Variant
from tests.support.site import ALICE

FETCH_SIZE = 10
COUNT = 35
"""More rows than three calls return."""

NAME = "paging-test"
DIGEST = "0" * 64


@pytest.fixture
def site(make_site, kinto):
    return make_site(kinto, "local", **{"kinto.storage_max_fetch_size": str(FETCH_SIZE)})


@pytest.fixture
def run(site):
    return site.in_transaction


@pytest.fixture
def storage(site):
    return site.registry.storage


@pytest.fixture
def parent():
    return f"/paging/{uuid4().hex}"


@pytest.fixture
def bucket():
    return f"b_{uuid4().hex}"


def ids(count: int = COUNT) -> list[str]:
    return [f"id{number:03}" for number in range(count)]


@pytest.fixture
def write(run, storage, parent):
    """Write a row of each id, as often as asked, each below a parent of its own."""

    def write(times: int = 1, count: int = COUNT) -> None:
        def write_all():
            for time in range(times):
                for row_id in ids(count):
                    row = {"time": str(time)}
                    storage.update(NAME, f"{parent}/{time}-{row_id}", row_id, row)

        run(write_all)

    return write


@pytest.fixture
def list_all(storage, parent):
    return partial(storage.list_all, NAME, f"{parent}/*")


def test_kinto_returns_fewer_rows(run, kinto, write, list_all):
    """The other tests read more than one page."""
    write()
    assert len(run(lambda: list_all(limit=1000))) == (FETCH_SIZE + 1 if kinto != "memory" else 35)


class TestKeyset:
    def test_yields_all_rows_in_order(self, run, write, list_all):
        write()
        pages = run(lambda: list(keyset(list_all)))
        assert [row["id"] for rows in pages for row in rows] == ids()

    @pytest.mark.parametrize("page", [1, 4, FETCH_SIZE, FETCH_SIZE + 1, 1000])
    def test_pages_of_any_size(self, run, write, list_all, monkeypatch, page):
        monkeypatch.setattr(paging, "PAGE", page)
        write()
        assert [row["id"] for rows in run(lambda: list(keyset(list_all))) for row in rows] == ids()

    def test_rows_that_share_an_id(self, run, write, list_all):
        write(times=3)
        pages = run(lambda: list(keyset(list_all, by=("id", "time"))))
        found = [(row["id"], row["time"]) for rows in pages for row in rows]
        assert found == [(row_id, time) for row_id in ids() for time in "012"]

    def test_filters(self, run, write, list_all):
        write(times=2)
        only = Filter("time", "1", COMPARISON.EQ)
        pages = run(lambda: list(keyset(list_all, only)))
        assert [(row["id"], row["time"]) for rows in pages for row in rows] == [
            (row_id, "1") for row_id in ids()
        ]

    def test_rows_of_a_page_may_be_deleted_before_the_next_page(
        self, run, storage, parent, write, list_all
    ):
        write()

        def delete_each():
            for rows in keyset(list_all):
                for row in rows:
                    storage.delete_all(NAME, f"{parent}/0-{row['id']}", with_deleted=False)
                    yield row["id"]

        assert run(lambda: list(delete_each())) == ids()
        assert run(list_all) == []

    def test_no_rows(self, run, list_all):
        assert run(lambda: list(keyset(list_all))) == []

    @pytest.mark.parametrize("count", [1, FETCH_SIZE - 1, FETCH_SIZE, FETCH_SIZE + 1, COUNT])
    def test_ends_with_a_page_that_is_not_full(self, run, storage, write, list_all, count):
        write(count=count)
        calls = []

        def counted(**options):
            calls.append(options)
            return list_all(**options)

        pages = run(lambda: list(keyset(counted, least=fetch_size(storage))))
        assert [row["id"] for rows in pages for row in rows] == ids(count)
        is_known = fetch_size(storage) > 0  # the memory storage does not say
        assert len(calls) == len(pages) + (not is_known or len(pages[-1]) >= FETCH_SIZE)


def test_a_row_is_created_once(run, storage, parent):
    for is_new in (True, False):
        row = {"id": "one", "new": is_new}
        assert run(lambda row=row: create_row(storage, NAME, parent, row)) is is_new
        assert row["id"] == "one"
    assert run(lambda: storage.get(NAME, parent, "one"))["new"] is True


def test_scan_yields_one_row_of_each_id(run, storage, parent, write):
    write(times=3)
    assert [row["id"] for row in run(lambda: list(scan(storage, NAME, parent)))] == ids()


class TestFindRows:
    @pytest.mark.parametrize("times", [1, 3])
    def test_finds_all_ids(self, run, write, list_all, times):
        write(times)
        unknown = [f"unknown{number}" for number in range(COUNT)]
        found = run(lambda: find_rows(list_all, [*ids(), *unknown]))
        assert sorted(found) == ids()
        assert all(row["id"] == row_id for row_id, row in found.items())

    @pytest.mark.parametrize("page", [1, 4, FETCH_SIZE + 1])
    def test_pages_of_any_size(self, run, write, list_all, monkeypatch, page):
        monkeypatch.setattr(paging, "PAGE", page)
        write(times=2)
        assert sorted(run(lambda: find_rows(list_all, ids()))) == ids()

    def test_filters(self, run, write, list_all):
        write(times=2)
        only = Filter("time", "1", COMPARISON.EQ)
        found = run(lambda: find_rows(list_all, ids(), only))
        assert {row["time"] for row in found.values()} == {"1"}
        assert sorted(found) == ids()


class TestDeleteRows:
    @pytest.mark.parametrize("with_deleted", [False, True])
    def test_deletes_and_returns_all(self, run, storage, parent, write, list_all, with_deleted):
        write()
        deleted = run(lambda: delete_rows(storage, NAME, f"{parent}/*", with_deleted=with_deleted))
        assert sorted(row["id"] for row in deleted) == ids()
        assert run(list_all) == []
        tombstones = run(lambda: list(keyset(partial(list_all, include_deleted=True))))
        assert sum(map(len, tombstones)) == (COUNT if with_deleted else 0)

    def test_leaves_other_rows(self, run, storage, parent, write, list_all):
        write(times=2)
        only = Filter("time", "1", COMPARISON.EQ)
        deleted = run(lambda: delete_rows(storage, NAME, f"{parent}/*", only))
        assert sorted(row["id"] for row in deleted) == ids()
        left = [row for rows in run(lambda: list(keyset(list_all))) for row in rows]
        assert [(row["id"], row["time"]) for row in left] == [(row_id, "0") for row_id in ids()]

    @pytest.mark.parametrize("most", [COUNT, 1000])
    def test_at_most(self, run, storage, parent, write, most):
        write()
        assert len(run(lambda: delete_rows(storage, NAME, f"{parent}/*", most=most))) == COUNT


def test_find_records(site, run, storage, bucket):
    refs = [RecordRef(bucket, collection, name) for collection in "ab" for name in ids()]

    def write():
        for ref in refs:
            storage.create("record", ref.collection_uri, {"id": ref.record, "uri": ref.uri})

    run(write)
    others = [RecordRef(bucket, "a", "unknown"), RecordRef(bucket, "c", "id001")]
    found = run(lambda: find_records(storage.list_all, [*refs, *others]))
    assert {ref: row["uri"] for ref, row in found.items()} == {ref: ref.uri for ref in refs}
    owners = [UploadRef("u"), FieldRef(others[0]), FieldRef(refs[0], "cover")]
    assert [*run(lambda: find_owners(storage.list_all, owners))] == refs[:1]


def place(bucket, collection, record):
    return FieldRef(RecordRef(bucket, collection, record))


class TestLinks:
    @pytest.fixture
    def links(self, site):
        return site.links

    @pytest.fixture
    def add(self, run, links):
        def add(*added: Link) -> None:
            run(lambda: [links.add(link) for link in added])

        return add

    def of_one_key(self, bucket) -> list[Link]:
        refs = [place(bucket, "c", name) for name in ids()]
        return [Link(ref, f"{bucket}/same", DIGEST, shared=True) for ref in refs]

    def of_many_keys(self, bucket) -> list[Link]:
        return [
            Link(place(bucket, "c", name), f"{bucket}/{name}", f"{number:064}")
            for number, name in enumerate(ids())
        ]

    def test_having(self, run, links, add, bucket):
        added = self.of_one_key(bucket)
        add(*added, Link(place(bucket, "c", "other"), f"{bucket}/other", DIGEST))
        found = run(lambda: links.having(f"{bucket}/same"))
        assert sorted(found, key=lambda link: link.ref.uri) == added

    @pytest.mark.parametrize("with_key", [True, False])
    @pytest.mark.parametrize("shared", [True, False])
    def test_find(self, run, links, add, bucket, with_key, shared):
        added = self.of_one_key(bucket) if shared else self.of_many_keys(bucket)
        add(*added, Link(place(bucket, "c", "other"), f"{bucket}/other", DIGEST))
        pairs = [(link.ref, link.key if with_key else "") for link in added]
        found = run(lambda: links.find(pairs))
        assert sorted(found, key=lambda link: link.ref.uri) == added

    def test_digests(self, run, links, add, bucket):
        added = self.of_many_keys(bucket)
        add(*added, *self.of_one_key(bucket))
        expected = {link.key: link.digest for link in added} | {f"{bucket}/same": DIGEST}
        keys = [*expected, f"{bucket}/unknown"]
        assert run(lambda: links.digests(keys)) == expected
        assert run(lambda: links.digests(keys, like=added[0].ref)) == expected
        assert run(lambda: links.linked(keys)) == set(expected)

    def test_below(self, run, links, add, bucket):
        added = self.of_many_keys(bucket)
        add(*added)
        for where in ((bucket,), (bucket, "c")):
            pages = run(lambda where=where: list(links.below(*where)))
            assert [link for page in pages for link in page] == added

    @pytest.mark.parametrize("shared", [True, False])
    def test_remove_links(self, run, links, add, bucket, shared):
        added = self.of_one_key(bucket) if shared else self.of_many_keys(bucket)
        other = Link(place(bucket, "c", "other"), f"{bucket}/other", DIGEST)
        add(*added, other)
        removed = run(lambda: links.remove_links(added))
        assert sorted(removed) == sorted((link.key, link.shared) for link in added)
        assert run(lambda: list(links.below(bucket))) == [[other]]

    def test_all(self, run, links, add, bucket):
        one, many = self.of_one_key(bucket), self.of_many_keys(bucket)
        add(*one, *many)
        found = run(lambda: [link for link in links.all() if link.ref.path[0] == bucket])
        assert sorted(found, key=lambda link: (link.key, link.ref.uri)) == [*many, *one]
        found = run(lambda: [link.key for link in links.one_of_each_key()])
        keys = sorted(key for key in found if key.startswith(f"{bucket}/"))
        assert keys == [*(link.key for link in many), f"{bucket}/same"]


@pytest.mark.parametrize("times", [1, 3])
def test_reserved_keys(site, run, bucket, times):
    reservations = site.rows.reservations
    keys = [f"{bucket}/{name}" for name in ids()]
    run(lambda: [reservations.reserve(key) for key in keys * times])
    unknown = [f"{bucket}/unknown{number}" for number in range(COUNT)]
    assert run(lambda: reservations.reserved([*keys, *unknown], 0)) == set(keys)


class TestVariants:
    def variant(self, original: str, name: str) -> Variant:
        digest = sha256(f"{original} {name}".encode()).hexdigest()
        return Variant(original, name, f"private/{digest}", digest, 1, "image/png", 1, 1)

    @pytest.mark.parametrize("originals, names", [(COUNT, 1), (1, COUNT), (5, 7)])
    def test_of_originals(self, site, run, bucket, originals, names):
        variants = site.rows.variants
        keys = [f"{bucket}/{name}" for name in ids(originals)]
        added = [self.variant(key, name) for key in keys for name in ids(names)]
        run(lambda: [variants.add(variant) for variant in added])
        found = run(lambda: variants.of([*keys, f"{bucket}/unknown"]))
        assert sorted(found, key=lambda each: (each.original, each.name)) == added
        run(lambda: variants.drop(added))
        assert run(lambda: variants.of(keys)) == []


def test_pending_uploads_of_an_entry(site, run):
    pending = site.rows.pending
    ref, other = (MediaRef("alice", sha256(uuid4().bytes).hexdigest()) for _ in range(2))
    uploads = [Pending(each, "private/a", "text/plain", 1) for each in [ref] * COUNT + [other]]
    run(lambda: [pending.add(upload) for upload in uploads])
    found = run(lambda: pending.of(ref))
    assert sorted(each.id for each in found) == sorted(each.id for each in uploads[:-1])
    run(lambda: [pending.take(upload) for upload in uploads])


class TestDeletion:
    """Kinto deletes only so many records with a collection; the plugin deletes the others."""

    @pytest.fixture
    def collection(self, site):
        collection = site.collection()
        for number in range(COUNT):
            record = collection.record(f"r{number:02}")
            record.upload(b"content %d" % number)
        return collection

    def check_all_is_deleted(self, collection):
        assert collection.keys == collection.links == collection.releases == []
        for uri in (f"/buckets/{collection.bucket}", collection.uri):
            collection.http.put_json(uri, {}, headers=ALICE)
        records = collection.http.get(f"{collection.uri}/records", headers=ALICE)
        assert records.json["data"] == []

    def test_of_the_collection(self, collection):
        collection.http.delete(collection.uri, headers=ALICE)
        self.check_all_is_deleted(collection)

    def test_of_the_bucket(self, collection):
        collection.http.delete(f"/buckets/{collection.bucket}", headers=ALICE)
        self.check_all_is_deleted(collection)


def test_deletion_of_a_bucket_whose_collection_kinto_leaves(make_site, monkeypatch):
    """Of the objects of a bucket, Kinto may delete entries of the history only."""
    site = make_site("postgresql", "local")
    collection = site.collection()
    collection.record().upload(b"content")
    storage = site.registry.storage
    delete_all = storage.delete_all

    def delete_history(resource_name, parent_id, **options):
        return delete_all(resource_name or "history", parent_id, **options)

    monkeypatch.setattr(storage, "delete_all", delete_history)
    site.http.delete(f"/buckets/{collection.bucket}", headers=ALICE)
    assert collection.keys == collection.links == collection.releases == []
