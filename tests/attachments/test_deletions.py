"""Files are deleted with their record, collection or bucket, and with everything."""

from hashlib import sha256

import pytest
from kinto.core.storage.exceptions import IntegrityError

from kinto_attachment.attachments.writes import listeners
from kinto_attachment.files.blob import Source
from kinto_attachment.rows import paging
from tests.support.site import ALICE, Collection, Site

FIELD_NAMES = {"attachment", "cover"}


@pytest.fixture
def neighbour(site, collection):
    """A collection whose ids would match those of ``collection``, were ``_`` a wildcard."""
    bucket = collection.bucket.replace("_", "x", 1)
    site.http.put_json(f"/buckets/{bucket}", {}, headers=ALICE)
    neighbour = Collection(site, bucket, "fonts")
    site.http.put_json(neighbour.uri, {}, headers=ALICE)
    record = neighbour.record()
    record.upload(b"neighbour")
    return record


def test_record(record):
    record.upload(b"content")
    record.http.delete(record.uri, headers=ALICE)
    assert record.snapshot()[3:] == (None, [], [], [])


def test_record_that_is_created_again(record):
    for content in (b"first", b"second"):
        record.upload(content, status=201)
        record.check(content)
        record.http.delete(record.uri, headers=ALICE)
    assert record.collection.keys == []


def test_all_records(collection):
    records = [collection.record() for _ in range(3)]
    for record in records:
        record.upload(b"content")
    collection.record().put(family="sans")
    collection.http.delete(f"{collection.uri}/records", headers=ALICE)
    assert collection.keys == collection.links == collection.releases == []


@pytest.mark.parametrize("count", [3, 30])
def test_some_records(make_site, kinto, count):
    collection = make_site(kinto, "local").collection()
    for index in range(count + 2):
        collection.record(f"r{index}").upload(b"content", data={"keep": index < 2})
    collection.http.delete(f"{collection.uri}/records?keep=false", headers=ALICE)
    left = collection.http.get(f"{collection.uri}/records", headers=ALICE).json["data"]
    assert {record["id"] for record in left} == {"r0", "r1"}
    keys = sorted(collection.site.key(record["attachment"]["location"]) for record in left)
    assert collection.keys == collection.links == keys
    assert collection.releases == []


def test_page_of_records(make_site, kinto):
    collection = make_site(kinto, "local").collection()
    for _ in range(5):
        collection.record().upload(b"content")
    collection.http.delete(f"{collection.uri}/records?_limit=2", headers=ALICE)
    left = collection.http.get(f"{collection.uri}/records", headers=ALICE).json["data"]
    assert len(left) == len(collection.keys) == len(collection.links) == 3


def test_collection(collection, neighbour):
    for _ in range(3):
        collection.record().upload(b"content")
    collection.http.delete(collection.uri, headers=ALICE)
    assert collection.keys == collection.links == collection.releases == []
    neighbour.check(b"neighbour")


def test_collections(site, collection, neighbour):
    other = Collection(site, collection.bucket, "images")
    site.http.put_json(other.uri, {}, headers=ALICE)
    for parent in (collection, other):
        parent.record().upload(b"content")
    site.http.delete(f"/buckets/{collection.bucket}/collections", headers=ALICE)
    assert collection.keys == collection.links == collection.releases == []
    neighbour.check(b"neighbour")


def test_collection_whose_name_has_the_same_beginning(site, collection):
    other = Collection(site, collection.bucket, "fonts2")
    site.http.put_json(other.uri, {}, headers=ALICE)
    record = other.record()
    record.upload(b"other")
    collection.record().upload(b"content")
    collection.http.delete(collection.uri, headers=ALICE)
    record.check(b"other")


def test_bucket(collection, neighbour):
    collection.record().upload(b"content")
    collection.http.delete(f"/buckets/{collection.bucket}", headers=ALICE)
    assert collection.keys == collection.links == collection.releases == []
    # Kinto itself takes "_" for a wildcard here, so the neighbour's record may be gone.
    assert len(neighbour.collection.keys) == len(neighbour.collection.links) == 1
    assert neighbour.collection.releases == []


def test_buckets(make_site, kinto, files):
    site = make_site(kinto, files, **{"kinto.userid_hmac_secret": f"only {kinto} {files}"})
    collections = [site.collection() for _ in range(2)]
    for collection in collections:
        collection.record().upload(b"content")
    site.http.delete("/buckets", headers=ALICE)
    for collection in collections:
        assert collection.keys == collection.links == collection.releases == []


def test_a_collection_of_many_pages(make_site, kinto, monkeypatch):
    monkeypatch.setattr(paging, "PAGE", 7)
    monkeypatch.setattr(listeners, "PAGE", 7)
    collection = make_site(kinto, "local").collection()
    for _ in range(20):
        collection.record().upload(b"content")
    collection.http.delete(collection.uri, headers=ALICE)
    assert collection.keys == collection.links == collection.releases == []


@pytest.mark.parametrize("what", ["collection", "bucket"])
def test_records_that_kinto_leaves(make_site, what):
    """PostgreSQL deletes at most ``storage_max_fetch_size`` records of a collection. The others
    would be there again with a new collection of that name, and their files never deleted."""
    site = make_site("postgresql", "local", **{"kinto.storage_max_fetch_size": "7"})
    collection = site.collection()
    for _ in range(20):
        collection.record().upload(b"content")
    bucket = f"/buckets/{collection.bucket}"
    site.http.delete(bucket if what == "bucket" else collection.uri, headers=ALICE)
    assert collection.keys == collection.links == collection.releases == []
    site.http.put_json(bucket, {}, headers=ALICE)
    site.http.put_json(collection.uri, {}, headers=ALICE)
    left = site.http.get(f"{collection.uri}/records?_limit=100", headers=ALICE).json["data"]
    assert left == []


def test_in_a_batch(collection):
    records = [collection.record() for _ in range(3)]
    for record in records:
        record.upload(b"content")
    requests = [{"method": "DELETE", "path": record.uri} for record in records[:2]]
    collection.http.post_json("/batch", {"requests": requests}, headers=ALICE)
    key = collection.site.key(records[2].data["attachment"]["location"])
    assert collection.keys == collection.links == [key]
    assert collection.releases == []


def test_in_a_batch_that_writes_it_again(collection):
    one, two, three = (collection.record() for _ in range(3))
    for record in (one, two, three):
        record.upload(b"content")
    requests = []
    for record in (one, two, three):
        loss = {
            one: {"method": "PATCH", "path": one.uri, "body": {"data": {"attachment": None}}},
            two: {"method": "DELETE", "path": two.attachment_uri},
            three: {"method": "DELETE", "path": three.uri},
        }[record]
        again = {"method": "PUT", "path": record.uri, "body": {"data": {"family": "sans"}}}
        patch = {"method": "PATCH", "path": record.uri, "body": {"data": {"family": "serif"}}}
        requests += [loss, again, patch]
    answers = collection.http.post_json("/batch", {"requests": requests}, headers=ALICE)
    statuses = [answer["status"] for answer in answers.json["responses"]]
    assert statuses == [200, 200, 200, 204, 200, 200, 200, 201, 200]
    assert collection.keys == collection.links == collection.releases == []


@pytest.mark.parametrize("target", ["collection", "bucket"])
def test_in_a_batch_that_creates_it_again(collection, target):
    collection.record().upload(b"content")
    uri = collection.uri if target == "collection" else f"/buckets/{collection.bucket}"
    requests = [{"method": method, "path": uri} for method in ("DELETE", "PUT")]
    collection.http.post_json("/batch", {"requests": requests}, headers=ALICE)
    assert collection.keys == collection.links == collection.releases == []


def test_in_a_batch_that_is_rolled_back(make_site, files, monkeypatch):
    """Kinto may send events of operations that a 5xx has undone; the files stay."""
    site = make_site("postgresql", files)
    collection = site.collection()
    record = collection.record()
    record.upload(b"content")
    get = site.registry.storage.list_all

    def fail(resource_name, parent_id, *args, **kwargs):
        if resource_name == "collection":
            raise RuntimeError("broken")
        return get(resource_name, parent_id, *args, **kwargs)

    monkeypatch.setattr(site.registry.storage, "list_all", fail)
    requests = [
        {"method": "DELETE", "path": record.uri},
        {"method": "GET", "path": f"/buckets/{collection.bucket}/collections"},
    ]
    site.http.post_json("/batch", {"requests": requests}, headers=ALICE, status=500)
    monkeypatch.undo()
    record.check(b"content")


def test_in_a_batch_that_meets_a_conflict(make_site, files, monkeypatch):
    """Kinto aborts in the middle: earlier operations are undone, but their events were sent."""
    site = make_site("postgresql", files)
    collection = site.collection()
    gone, stays = collection.record(), collection.record()
    gone.upload(b"gone")
    stays.upload(b"stays")
    update = site.registry.storage.update

    def fail(resource_name, *args, **kwargs):
        if resource_name == "collection":
            raise IntegrityError(message="conflict")
        return update(resource_name, *args, **kwargs)

    monkeypatch.setattr(site.registry.storage, "update", fail)
    requests = [
        {"method": "DELETE", "path": gone.uri},
        {"method": "PUT", "path": stays.uri, "body": {"data": {"family": "serif"}}},
        {"method": "PATCH", "path": collection.uri, "body": {"data": {"a": 1}}},
    ]
    site.http.post_json("/batch", {"requests": requests}, headers=ALICE)
    monkeypatch.undo()
    assert site.read(gone.data["attachment"]["location"]) == b"gone"
    assert site.read(stays.data["attachment"]["location"]) == b"stays"
    assert len(collection.keys) == len(collection.links) == 2


@pytest.mark.parametrize("target", ["record", "collection", "bucket"])
def test_keep_old_files(make_site, kinto, files, target):
    site = make_site(kinto, files, **{"kinto.attachment.keep_old_files": "true"})
    collection = site.collection()
    record = collection.record()
    location = record.upload(b"content").json["location"]
    bucket = f"/buckets/{collection.bucket}"
    site.http.delete(
        {"record": record.uri, "collection": collection.uri, "bucket": bucket}[target],
        headers=ALICE,
    )
    assert site.read(location) == b"content"
    assert collection.links == []
    assert collection.releases == [("keep", site.key(location))]


@pytest.mark.parametrize("keep", ["false", "true"])
def test_flush(kinto_settings, file_settings, kinto, files, field_name, keep):
    settings = {"field": field_name, **kinto_settings(kinto, fresh=True), **file_settings(files)}
    site = Site(**settings, **{"kinto.attachment.resources.kept.keep_old_files": keep})
    collection = site.collection()
    for _ in range(3):
        collection.record().upload(b"content")
    site.http.put_json("/buckets/kept", {}, headers=ALICE)
    kept = Collection(site, "kept", "fonts")
    site.http.put_json(kept.uri, {}, headers=ALICE)
    location = kept.record().upload(b"content").json["location"]

    site.http.post("/__flush__", headers=ALICE, status=202)
    assert collection.keys == collection.links == collection.releases == []
    assert kept.links == []
    if keep == "true":
        assert site.read(location) == b"content"
        assert kept.releases == [("keep", site.key(location))]
    else:
        assert kept.keys == kept.releases == []


def test_files_of_others_stay(make_site, kinto, files):
    """Files that the application itself keeps in the same storage stay."""
    site = make_site(kinto, files)
    collection = site.collection()
    collection.record().upload(b"content")
    own = f"{collection.bucket}/own.txt"
    with site.storage.spool() as file:
        file.write(b"own")
        digest = sha256(b"own").hexdigest()
        site.storage.put(own, Source(file, "own.txt", "text/plain", 3, digest))
    site.http.delete(f"/buckets/{collection.bucket}", headers=ALICE)
    assert collection.keys == [own]
