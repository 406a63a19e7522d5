"""Rows and records that other programs have broken: every command goes on without them."""

from datetime import datetime, timedelta, timezone
from hashlib import sha256
from json import dumps, loads
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from kinto_attachment.errors import ForeignStorage
from kinto_attachment.files.ref import ATTRIBUTE
from kinto_attachment.finding import restoring
from kinto_attachment.legacy.adoption import PARENT
from kinto_attachment.maintenance.adopt_storage import adopt_storage
from kinto_attachment.maintenance.fsck import fsck
from kinto_attachment.maintenance.gc import collect
from kinto_attachment.maintenance.init_library import init_library
from kinto_attachment.maintenance.migrate import copy
from kinto_attachment.maintenance.rebase import rebase
from kinto_attachment.media.verifier import Verifier
from kinto_attachment.rows.deletion import (
    CONDEMNED_PARENT,
    CONDEMNED_ROWS,
    RELEASE_ROWS,
    RELEASES_PARENT,
    RESERVATION_ROWS,
    RESERVATIONS_PARENT,
)
from kinto_attachment.rows.grants import GRANT_ROWS, GRANTS_PARENT
from kinto_attachment.rows.identity import IDENTITY_PARENT, IDENTITY_ROWS
from kinto_attachment.rows.links import LINK_ROWS, LINKS_PARENT
from kinto_attachment.rows.uploads.direct import (
    DIRECT_PARENT,
    DIRECT_ROWS,
    PART_ROWS,
    PARTS_PARENT,
)
from kinto_attachment.rows.uploads.leases import LEASE_ROWS, LEASES_PARENT
from kinto_attachment.rows.uploads.pending import PENDING_PARENT, PENDING_ROWS
from kinto_attachment.rows.uploads.resumable import (
    SEGMENT_ROWS,
    SEGMENTS_PARENT,
    UPLOAD_ROWS,
    UPLOADS_PARENT,
)
from kinto_attachment.rows.uploads.unclaimed import UNCLAIMED_PARENT, UNCLAIMED_ROWS
from kinto_attachment.rows.variants import VARIANT_ROWS, VARIANTS_PARENT, Variant
from kinto_attachment.storage import Stat
from tests.support.legacy import adopt, old_file
from tests.support.library import MediaLibrary
from tests.support.library import settings as library_settings
from tests.support.maintenance import findings, orphan
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

JUNK = [None, [], ["x"], {}, {"x": 1}, 7, -1, 1.5, True, "", "x/../y", "a" * 3000, "/x//y", "/"]
KEY = "private/_media-pending/38e4e0f8-1419-4a38-a3f3-a30f62ecc133"
DIGEST, UPLOAD = "0" * 64, "0" * 32
ATTACHMENT = GOOD | {"location": f"https://cdn.example/files/{KEY}"}
LIBRARY = "/buckets/shelf/collections/media"

# Name, parent, id and content of one row of each kind.
ROWS = [
    (
        LINK_ROWS,
        f"{LINKS_PARENT}/a/b/c",
        f"own:{KEY}",
        {"hash": DIGEST, "record": "/buckets/a/collections/b/records/c", "size": 3},
    ),
    (
        LINK_ROWS,
        f"{LINKS_PARENT}/~7e~media~7e~/o/{DIGEST}",
        f"shared:private/_media/00/{DIGEST}",
        {"hash": DIGEST, "record": f"/media/o/{DIGEST}", "mimetype": "text/plain", "size": 3},
    ),
    (RELEASE_ROWS, f"{RELEASES_PARENT}/r", "r", {"rule": "delete", "keys": [KEY]}),
    (RESERVATION_ROWS, f"{RESERVATIONS_PARENT}/r", KEY, {"x": 1}),
    (CONDEMNED_ROWS, CONDEMNED_PARENT, "m", {"keys": [KEY]}),
    (
        PENDING_ROWS,
        f"{PENDING_PARENT}/pending0",
        "pending0",
        {"owner": "o", "hash": DIGEST, "key": KEY, "mimetype": "text/plain", "size": 3},
    ),
    (LEASE_ROWS, f"{LEASES_PARENT}/pending0", "pending0", {"holder": "h"}),
    (
        UNCLAIMED_ROWS,
        f"{UNCLAIMED_PARENT}/u",
        "u",
        {"owner": "o", "facts": {}, "attachment": ATTACHMENT, "defaults": {}},
    ),
    (
        UPLOAD_ROWS,
        f"{UPLOADS_PARENT}/{UPLOAD}",
        UPLOAD,
        {
            "intent": {"base": "/media", "owner": "o", "filename": "a.txt", "mimetype": ""}
            | {"if_match": "", "if_none_match": "", "target": "store"},
            "length": 5,
            "metadata": None,
            "concat": "",
            "result": None,
        },
    ),
    (
        SEGMENT_ROWS,
        f"{SEGMENTS_PARENT}/{UPLOAD}",
        f"{UPLOAD}-{0:020d}",
        {"key": KEY, "size": 3, "state": ""},
    ),
    (
        DIRECT_ROWS,
        f"{DIRECT_PARENT}/{UPLOAD}",
        UPLOAD,
        {
            "intent": {"base": "/media", "owner": "o", "filename": "a.txt", "mimetype": ""}
            | {"if_match": "", "if_none_match": "", "target": "store"},
            "size": 5,
            "digest": DIGEST,
            "part_size": 5,
            "place": "/buckets/a/collections/b/records/c",
            "mimetype": "text/plain",
            "parts": [KEY],
            "proven": False,
            "secret": "s",
            "state": "verifying",
            "etags": ["e"],
            "whole": "",
            "found": "",
            "refusal": None,
            "result": None,
        },
    ),
    (
        PART_ROWS,
        f"{PARTS_PARENT}/{UPLOAD}/{0:016d}",
        f"{UPLOAD}-00001-{0:016d}",
        {"key": KEY, "size": 3, "digest": DIGEST},
    ),
    (
        VARIANT_ROWS,
        f"{VARIANTS_PARENT}/n-00000000",
        "a/b.png",
        {
            "key": KEY,
            "digest": DIGEST,
            "size": 3,
            "mimetype": "image/png",
            "width": 1,
            "height": 1,
            "name": "n",
            "direct": True,
        },
    ),
    (GRANT_ROWS, f"{GRANTS_PARENT}{LIBRARY}", "library", {"editors": ["x"], "authors": ["x"]}),
]


@st.composite
def broken_rows(draw):
    """Return one row of each kind, in some of which a value is missing or another one."""
    rows = []
    for *where, row in ROWS:
        changed = dict(row)
        name = draw(st.sampled_from(sorted(row)))
        if draw(st.booleans()):
            del changed[name]
        else:
            changed[name] = draw(st.sampled_from(JUNK))
        rows.append((*where, draw(st.sampled_from([row, changed, {}]))))
    return rows


@pytest.fixture
def site(make_server):
    return make_server("local", **library_settings("shelf"))


@pytest.fixture
def target(make_server):
    """Another storage."""
    return make_server("local").storage


def write(site, name, parent, row_id, row):
    storage = site.registry.storage
    site.in_transaction(lambda: storage.update(name, parent, row_id, row))


def verify(site):
    return findings(Verifier(site.server.plugin, site.server.verifications).verify())


def run_all(site, target) -> set[str]:
    """Run every command, and return what ``fsck`` found."""
    registry = site.registry
    principals = {"editors": [], "authors": ["system.Authenticated"], "readers": []}
    found = {kind for kind, _, _ in findings(fsck(site.server, deep=True))}
    verify(site)
    adopt(site)
    findings(rebase(site.server, "https://cdn.example/files/", "https://new.example/"))
    findings(rebase(site.server, "https://new.example/", "https://cdn.example/files/"))
    findings(adopt_storage(site.server, lambda whose: True))
    findings(collect(site.server, timedelta(0), dry_run=True, force=True))
    findings(
        init_library(
            site.server,
            registry.attachment_library,
            registry.permission,
            take_over=True,
            **principals,
        )
    )
    findings(collect(site.server, timedelta(0), offline=True, force=True))
    findings(copy(site.server, target))
    return found


def test_attributes(site, target):
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
    run_all(site, target)
    assert site.read(key) == b"an old file"
    for record in broken:
        record.http.get(record.attachment_uri, headers=ALICE, status=404)
        record.http.get(f"{record.attachment_uri}/10x10", headers=ALICE, status=404)
        assert record.detach(status="*").status_int in (204, 404)
        record.upload(b"new", status=200)
        assert record.data[ATTRIBUTE]["size"] == 3
    good_bytes = good.http.get(good.attachment_uri, headers=ALICE).body
    assert good_bytes == b"content"


def test_links(site, target):
    record = site.collection().record()
    record.upload(b"content")
    for number, (row_id, row) in enumerate(BAD_LINKS):
        write(site, LINK_ROWS, f"{LINKS_PARENT}/a/b/{number}", row_id, row)
    assert run_all(site, target) >= {"unreadable row"}
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
        (CONDEMNED_ROWS, CONDEMNED_PARENT, "m", {"keys": None}),
        (RESERVATION_ROWS, RESERVATIONS_PARENT, "..", {}),
        (LEASE_ROWS, LEASES_PARENT, "pending0", {}),
    ],
)
def test_other_rows(site, target, name, parent, row_id, row):
    record = site.collection().record()
    record.upload(b"content")
    write(site, name, f"{parent}/{uuid4().hex}", row_id, row)
    run_all(site, target)
    record.check(b"content")


@settings(
    max_examples=6,
    deadline=None,
    phases=[Phase.generate],  # a smaller example is not worth minutes of commands
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(rows=broken_rows())
def test_rows_of_every_kind(site, target, rows):
    """Neither a command nor a request fails."""
    content = uuid4().hex.encode()
    for each in rows:
        write(site, *each)
    run_all(site, target)
    for each in rows:
        write(site, *each)
    http = site.http
    digest = http.post("/media", content, headers=ALICE, status=201).text
    assert http.get(f"/media/{digest}", headers=ALICE).body == content
    http.get(f"/media/{DIGEST}", headers=ALICE, status=404)
    http.post_json("/content/_media", {"data": {"id": "u"}}, headers=ALICE, status=400)
    http.get("/original/u.txt", headers=ALICE, status="4*")
    record = site.collection().record()
    record.upload(content, status=201)
    assert http.get(record.attachment_uri, headers=ALICE).body == content


@pytest.mark.parametrize("keys", [None, 7, True, {"x": 1}, "text"])
def test_a_mark_of_gc_stops_no_upload(site, keys):
    """It is one without keys."""
    write(site, CONDEMNED_ROWS, CONDEMNED_PARENT, "m", {"keys": keys})
    site.http.post("/media", uuid4().bytes, headers=ALICE, status=201)
    (found,) = fsck(site.server)
    assert (found.kind, found.detail.split()[0]) == ("unreadable row", CONDEMNED_ROWS)


@pytest.mark.parametrize("row", [{}, {"editors": None, "authors": []}, {"editors": [1]}])
def test_a_grant_grants_nothing(site, row):
    """``library init`` goes on, and mends it."""
    MediaLibrary(site)
    write(site, GRANT_ROWS, f"{GRANTS_PARENT}{LIBRARY}", "library", row)
    assert [kind for kind, _, _ in findings(fsck(site.server))] == ["unreadable row"]
    assert MediaLibrary(site).findings == []
    assert findings(fsck(site.server)) == []


@pytest.mark.parametrize(
    "values",
    [
        *(
            {name: value}
            for name in ("owner", "folders", "nonces")
            for value in (None, 7, {"x": 1})
        ),
        *({name: [value]} for name in ("folders", "nonces") for value in (None, ["x"], [7, 8])),
        {"owner": ""},
    ],
    ids=repr,
)
def test_a_database_without_identity(site, values):
    """Files are stored and served. ``gc`` deletes none until an operator says whose they are."""
    record = site.collection().record()
    record.upload(b"content")
    storage = site.registry.storage
    [row] = site.in_transaction(lambda: storage.list_all(IDENTITY_ROWS, IDENTITY_PARENT))
    write(site, IDENTITY_ROWS, IDENTITY_PARENT, row["id"], {**row, **values})
    record.check(b"content")
    record.upload(b"another", status=200)
    for _ in range(2):
        with pytest.raises(ForeignStorage, match="adopt-storage"):
            list(collect(site.server, timedelta(0), offline=True))
    assert findings(adopt_storage(site.server, lambda whose: True))
    findings(collect(site.server, timedelta(0), offline=True))
    assert findings(fsck(site.server)) == []
    record.check(b"another")


@given(st.text() | st.text().map("/media/{}".format) | st.text().map("/buckets/{}".format))
def test_a_remedy_for_any_owner(uri):
    assert "backup" in restoring(uri)


class TestFiles:
    """What an unreadable row may name stays, and is no orphan."""

    @pytest.mark.parametrize(
        "name, parent, row_id, row",
        [
            (RELEASE_ROWS, RELEASES_PARENT, "r", {"rule": "Keep", "keys": ["KEY"]}),
            (RELEASE_ROWS, RELEASES_PARENT, "r", {"rule": "keep", "keys": "KEY"}),
            (RELEASE_ROWS, RELEASES_PARENT, "r", {"rule": "keep", "keys": [["KEY"]]}),
            (RELEASE_ROWS, RELEASES_PARENT, "r", {"rule": "keep", "keys": {"KEY": 1}}),
            (RELEASE_ROWS, RELEASES_PARENT, "r", {"keys": ["KEY"]}),
            (PENDING_ROWS, PENDING_PARENT, "pending0", {"key": "KEY"}),
            (PENDING_ROWS, PENDING_PARENT, "other", ROWS[5][-1] | {"key": "KEY"}),
            (VARIANT_ROWS, VARIANTS_PARENT, "a/b.png", {"key": "KEY"}),
            (UNCLAIMED_ROWS, UNCLAIMED_PARENT, "u", {"attachment": {"location": "/files/KEY"}}),
            (LINK_ROWS, f"{LINKS_PARENT}/a/b", "own:KEY", {"record": "nonsense"}),
            (LINK_ROWS, f"{LINKS_PARENT}/a/b", "Own:KEY", ROWS[0][-1]),
        ],
    )
    def test_of_any_row(self, site, target, name, parent, row_id, row):
        record = site.collection().record()
        record.upload(b"content")
        key = orphan(record)
        site.put(key, b"kept")
        row = loads(dumps(row).replace("KEY", key))
        write(site, name, f"{parent}/{uuid4().hex}", row_id.replace("KEY", key), row)
        assert [kind for kind, _, _ in findings(fsck(site.server))] == ["unreadable row"]
        run_all(site, target)
        assert site.read(key) == b"kept"
        is_copied = name not in (VARIANT_ROWS, LINK_ROWS)
        assert not is_copied or b"".join(target.open(key)) == b"kept"

    def test_that_are_kept(self, make_server):
        site = make_server("local", **{"kinto.attachment.keep_old_files": "true"})
        record = site.collection().record()
        record.upload(b"old")
        record.upload(b"new")
        storage = site.registry.storage
        (row,) = site.in_transaction(lambda: storage.list_all(RELEASE_ROWS, f"{RELEASES_PARENT}/*"))
        broken = {"rule": "Keep", "keys": row["keys"]}
        write(site, RELEASE_ROWS, f"{RELEASES_PARENT}/{row['id']}", row["id"], broken)
        (found,) = fsck(site.server)
        assert (found.kind, row["id"] in found.detail) == ("unreadable row", True)
        assert findings(collect(site.server, timedelta(0), offline=True)) == []
        assert [site.read(key) for key in row["keys"]] == [b"old"]

    def test_that_no_object_describes(self, site):
        """The upload is not taken for one that has expired."""
        MediaLibrary(site).upload()
        storage = site.registry.storage
        (row,) = site.in_transaction(
            lambda: storage.list_all(UNCLAIMED_ROWS, f"{UNCLAIMED_PARENT}/*")
        )
        broken = {"owner": row["owner"], "facts": None}
        write(site, UNCLAIMED_ROWS, f"{UNCLAIMED_PARENT}/{row['id']}", row["id"], broken)
        assert [kind for kind, _, _ in findings(fsck(site.server))] == ["unreadable row"]
        assert findings(collect(site.server, timedelta(0), offline=True)) == []
        assert len(site.keys) == 1
        site.http.post_json(
            "/content/_media", {"data": {"id": row["id"]}}, headers=ALICE, status=400
        )


class TestPendingUploads:
    @pytest.fixture(autouse=True)
    def no_background(self, site):
        site.server.media.background._enabled = False

    @pytest.mark.parametrize(
        "values",
        [{"owner": 7}, {"owner": None}, {"hash": "x/../y"}, {"size": True}, {"mimetype": []}],
    )
    def test_others_are_verified(self, site, values):
        row = ROWS[5][-1] | values
        write(site, PENDING_ROWS, f"{PENDING_PARENT}/pending0", "pending0", row)
        content = uuid4().bytes
        url = f"/media/{sha256(content).hexdigest()}"
        site.http.post(f"{url}?verify=false", content, headers=ALICE, status=202)
        assert [kind for kind, _, _ in findings(fsck(site.server))] == ["unreadable row"]
        assert [kind for kind, _, _ in verify(site)] == ["verified"]
        assert site.http.get(url, headers=ALICE).body == content


@pytest.mark.parametrize("location", ["x/../v.txt", "/etc/passwd", "", ["a"], {"a": 1}, 7, None])
def test_rows_of_the_existing_plugin(site, target, location):
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
    run_all(site, target)


@pytest.mark.parametrize("record_uri", ["", "nonsense", ["a"], None, 7])
def test_rows_of_the_existing_plugin_without_a_record(site, target, record_uri):
    row = {"location": "a/b.txt", "record_uri": record_uri}
    site.in_transaction(lambda: site.registry.storage.create("", PARENT, row))
    assert [kind for kind, _, _ in findings(adopt(site))] == ["left behind"]
    run_all(site, target)


def test_keys_that_no_upload_makes(site, target):
    """Consoles of S3 make objects such as ``folder/``; here they come from the storage itself."""
    site.collection().record().upload(b"content")
    original = site.storage.list
    now = datetime.now(timezone.utc)
    strange = [Stat(key, 1, now) for key in ("folder/", "a//b", "..", "x/../y", "a\nb")]
    site.storage.list = lambda prefix="": [*original(prefix), *strange]
    found = findings(fsck(site.server))
    assert {kind for kind, _, _ in found} == {"unknown object"}
    assert {key for _, key, _ in found} == {stat.key for stat in strange}
    run_all(site, target)


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
