"""Rows and records that other programs have broken: every command goes on without them."""

from datetime import datetime, timedelta, timezone
from hashlib import sha256
from uuid import uuid4

import pytest

from kinto_attachment.files.blob import ATTRIBUTE
from kinto_attachment.legacy.adoption import PARENT
from kinto_attachment.maintenance.fsck import fsck
from kinto_attachment.maintenance.gc import collect
from kinto_attachment.maintenance.migrate import copy
from kinto_attachment.maintenance.rebase import rebase
from kinto_attachment.rows.deletion import RELEASE_ROWS, RELEASES_PARENT
from kinto_attachment.rows.links import LINK_ROWS, LINKS_PARENT
from kinto_attachment.rows.uploads import (
    PENDING_PARENT,
    PENDING_ROWS,
    UNCLAIMED_PARENT,
    UNCLAIMED_ROWS,
)
from kinto_attachment.rows.variants import VARIANT_ROWS, VARIANTS_PARENT, Variant
from kinto_attachment.storage import Stat
from tests.support.legacy import adopt, old_file
from tests.support.maintenance import findings
from tests.support.site import ALICE

GOOD = {
    "filename": "a.txt",
    "hash": "0" * 64,
    "location": "https://cdn.example/files/b/fonts/a.txt",
    "mimetype": "text/plain",
    "size": 3,
}
VALUES = [
    *(GOOD | {name: value} for name in GOOD for value in ([], ["x"], {}, 1.5, True, None)),
    *(GOOD | {"location": value} for value in (7, "", "/", "x/../v.txt", "a" * 2000)),
    {},
    [],
    "text",
    0,
]

BAD_LINKS = [
    ("own:a/b.txt", {"hash": "0" * 64, "record": "nonsense"}),
    ("own:a/b.txt", {"hash": "0" * 64, "record": ["x"]}),
    ("own:a/b.txt", {"hash": "0" * 64}),
    ("own:a/b.txt", {"record": "/buckets/a/collections/b/records/c"}),
    ("own:a/b.txt", {"hash": [1], "record": "/buckets/a/collections/b/records/c"}),
    ("own:x/../v.txt", {"hash": "0" * 64, "record": "/buckets/a/collections/b/records/c"}),
    ("own:", {"hash": "0" * 64, "record": "/buckets/a/collections/b/records/c"}),
    ("nonsense", {}),
]


@pytest.fixture
def site(make_server):
    return make_server("local")


def write(site, name, parent, row_id, row):
    storage = site.registry.storage
    site.in_transaction(lambda: storage.update(name, parent, row_id, row))


def run_all(site, make_server) -> set[str]:
    """Run every command, and return what ``fsck`` found."""
    found = {kind for kind, _, _ in findings(fsck(site.server, deep=True))}
    adopt(site)
    findings(rebase(site.server, "https://cdn.example/files/", "https://new.example/"))
    findings(rebase(site.server, "https://new.example/", "https://cdn.example/files/"))
    findings(collect(site.server, timedelta(0), dry_run=True, force=True))
    findings(collect(site.server, timedelta(0), offline=True, force=True))
    findings(copy(site.server, make_server("local").storage))
    return found


def test_attributes(site, make_server):
    """Attributes that were written before the plugin was there."""
    collection = site.collection()
    good = collection.record()
    good.upload(b"content")
    broken = [collection.record() for _ in VALUES]
    for record, value in zip(broken, VALUES, strict=True):
        row = {ATTRIBUTE: value}
        write(site, "record", collection.uri, record.id, row)
    _, key = old_file(site)
    assert adopt(site)
    run_all(site, make_server)
    assert site.read(key) == b"an old file"
    for record in broken:
        record.http.get(record.attachment_uri, headers=ALICE, status=404)
        record.http.get(f"{record.attachment_uri}/10x10", headers=ALICE, status=404)
        assert record.detach(status="*").status_int in (204, 404)
        record.upload(b"new", status=200)
        assert record.data[ATTRIBUTE]["size"] == 3
    good_bytes = good.http.get(good.attachment_uri, headers=ALICE).body
    assert good_bytes == b"content"


def test_links(site, make_server):
    record = site.collection().record()
    record.upload(b"content")
    for number, (row_id, row) in enumerate(BAD_LINKS):
        write(site, LINK_ROWS, f"{LINKS_PARENT}/a/b/{number}", row_id, row)
    assert run_all(site, make_server) >= {"unreadable row"}
    record.check(b"content")
    site.http.post("/__flush__", headers=ALICE)


def test_a_link_of_the_record_itself(site):
    record = site.collection().record()
    record.upload(b"content")
    (link,) = site.in_transaction(lambda: list(site.links.all()))
    parent = "/".join([LINKS_PARENT, record.collection.bucket.replace("_", "~5f~"), "fonts"])
    write(site, LINK_ROWS, f"{parent}/{record.id}", "own:x/../v.txt", {"hash": 1, "record": 2})
    assert record.http.get(record.attachment_uri, headers=ALICE).body == b"content"
    record.upload(b"new", status=200)
    record.detach(status=204)
    findings(collect(site.server, timedelta(0), offline=True, force=True))
    assert site.keys == []


@pytest.mark.parametrize(
    "name, parent, row_id, row",
    [
        (RELEASE_ROWS, RELEASES_PARENT, "r", {"rule": "sweep", "keys": ["x/../v.txt", 1, None]}),
        (RELEASE_ROWS, RELEASES_PARENT, "r", {"rule": "delete", "keys": ["x/../v.txt", ["a"]]}),
        (RELEASE_ROWS, RELEASES_PARENT, "r", {"rule": "nonsense", "keys": []}),
        (RELEASE_ROWS, RELEASES_PARENT, "r", {"rule": "keep", "keys": 1}),
        (RELEASE_ROWS, RELEASES_PARENT, "r", {}),
        (PENDING_ROWS, PENDING_PARENT, "pending0", {"key": "../x"}),
        (PENDING_ROWS, PENDING_PARENT, "pending0", {}),
        (UNCLAIMED_ROWS, UNCLAIMED_PARENT, "u", {"owner": 1, "facts": []}),
        (UNCLAIMED_ROWS, UNCLAIMED_PARENT, "u", {}),
        (VARIANT_ROWS, VARIANTS_PARENT, "a", {"key": "../x"}),
        (VARIANT_ROWS, VARIANTS_PARENT, "a", {}),
    ],
)
def test_other_rows(site, make_server, name, parent, row_id, row):
    record = site.collection().record()
    record.upload(b"content")
    write(site, name, f"{parent}/{uuid4().hex}", row_id, row)
    run_all(site, make_server)
    record.check(b"content")


@pytest.mark.parametrize("location", ["x/../v.txt", "/etc/passwd", "", ["a"], {"a": 1}, 7, None])
def test_rows_of_the_existing_plugin(site, make_server, location):
    """Their record is deleted, and gc still ends well."""
    record = site.collection().record()
    record.put()
    row = {
        "location": location,
        "bucket_uri": f"/buckets/{record.collection.bucket}",
        "collection_uri": record.collection.uri,
        "record_uri": record.uri,
    }
    site.in_transaction(lambda: site.registry.storage.create("", PARENT, row))
    record.http.delete(record.uri, headers=ALICE)
    adopt(site)
    findings(collect(site.server, timedelta(0), offline=True, force=True))
    run_all(site, make_server)


@pytest.mark.parametrize("record_uri", ["", "nonsense", ["a"], None, 7])
def test_rows_of_the_existing_plugin_without_a_record(site, make_server, record_uri):
    row = {"location": "a/b.txt", "record_uri": record_uri}
    site.in_transaction(lambda: site.registry.storage.create("", PARENT, row))
    assert [kind for kind, _, _ in findings(adopt(site))] == ["left behind"]
    run_all(site, make_server)


def test_keys_that_no_upload_makes(site, make_server):
    """Consoles of S3 make objects such as ``folder/``; here they come from the storage itself."""
    site.collection().record().upload(b"content")
    original = site.storage.list
    now = datetime.now(timezone.utc)
    strange = [Stat(key, 1, now) for key in ("folder/", "a//b", "..", "x/../y", "a\nb")]
    site.storage.list = lambda prefix="": [*original(prefix), *strange]
    found = findings(fsck(site.server))
    assert {kind for kind, _, _ in found} == {"unknown object"}
    assert {key for _, key, _ in found} == {stat.key for stat in strange}
    run_all(site, make_server)


class TestDeep:
    def test_resized_images(self, site):
        """fsck --deep reads them too."""
        site.collection().record().upload(b"content")
        (original,) = site.keys
        rows = {}
        for name, content in (("1-right", b"right"), ("1-wrong", b"wrong")):
            digest, key = sha256(b"right").hexdigest(), f"private/_variants/00/00/{uuid4()}"
            rows[name] = Variant(original, name, key, digest, 5, "image/png", 1, 1)
            site.in_transaction(lambda name=name: site.rows.variants.add(rows[name]))
            site.put(key, content)
        assert findings(fsck(site.server)) == []
        (finding,) = fsck(site.server, deep=True)
        assert (finding.kind, finding.key) == ("wrong bytes", rows["1-wrong"].key)
        assert "resized again" in finding.remedy
