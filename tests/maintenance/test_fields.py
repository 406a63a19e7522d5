"""What an operator runs, where records have files in several fields."""

import pytest
import transaction

from kinto_attachment.files.ref import FieldRef
from kinto_attachment.maintenance.fsck import fsck
from kinto_attachment.maintenance.gc import collect
from kinto_attachment.maintenance.migrate import copy
from kinto_attachment.maintenance.rebase import rebase
from kinto_attachment.maintenance.server import Server
from kinto_attachment.storage import open_storage
from tests.attachments.test_signer import BUCKETS, SIGNER, Signed
from tests.support.fields import FIELDS, PRIVATE, form, get, pictures, put, send
from tests.support.maintenance import check, gc
from tests.support.site import ALICE, BOB, Site

BY_HASH = {**FIELDS, "kinto.attachment.filename_pattern": "{hash}{extension}"}


@pytest.fixture(params=[FIELDS, PRIVATE, BY_HASH], ids=["public", "private", "by hash"])
def server(request, make_server):
    return make_server("local", **request.param)


@pytest.fixture
def record(server):
    record = server.collection().record()
    files = [("pictures", f"{name}.txt", name.encode()) for name in ("one", "two", "three")]
    form(record, *files, ("cover", "c.txt", b"cover"), ("attachment", "a.txt", b"attached"))
    return record


def findings(server, **options):
    return [(each.kind, each.record) for each in fsck(server.server, **options)]


def key_of(server, record, index):
    """The key of an entry of ``pictures``."""
    entry = record.data["pictures"][index]["id"]
    place = FieldRef.from_uri(f"{record.uri}/attachments/pictures/{entry}")
    [link] = server.in_transaction(lambda: server.links.of(place))
    return link.key, place


def test_all_is_well(server, record):
    assert findings(server, deep=True) == []
    assert list(collect(server.server, offline=True)) == []
    assert len(server.keys) == 5 + 0


def test_a_missing_entry_and_its_remedy(server, record):
    key, place = key_of(server, record, 1)
    server.storage.delete([key])
    [finding] = fsck(server.server)
    assert (finding.kind, finding.key, finding.record) == ("missing object", key, place.uri)
    assert finding.remedy.endswith(f"or DELETE {place.url_path}")
    record.http.delete(place.url_path, headers=ALICE, status=204)
    list(collect(server.server, offline=True))
    assert findings(server, deep=True) == []
    assert [each["filename"] for each in record.data["pictures"]] == ["one.txt", "three.txt"]


def test_wrong_bytes_of_an_entry(server, record):
    key, place = key_of(server, record, 1)
    server.storage.delete([key])
    server.put(key, b"owt")
    assert findings(server) == []
    assert findings(server, deep=True) == [("wrong bytes", place.uri)]


def test_an_entry_that_another_program_has_removed(server, record):
    """gc releases its link, and no other."""
    key, place = key_of(server, record, 1)
    storage = server.registry.storage
    data = {name: value for name, value in record.data.items() if name != "last_modified"}
    data["pictures"] = [each for each in data["pictures"] if each["id"] != place.entry]
    uri = record.collection.uri
    server.in_transaction(lambda: storage.update("record", uri, record.id, data))
    assert findings(server) == [("link without record", place.uri)]
    list(collect(server.server, offline=True))
    assert findings(server, deep=True) == []
    assert len(server.keys) == 4


def test_links_that_are_lost(server, record):
    """gc spares the bytes that an entry names, and import links them again."""
    is_private = "kinto.attachment.private" in server.settings
    for place in (
        key_of(server, record, 0)[1],
        FieldRef(key_of(server, record, 0)[1].record, "cover"),
    ):
        server.in_transaction(lambda place=place: server.links.remove(place))
    lost = [finding for finding in fsck(server.server) if finding.kind == "record without link"]
    assert len(lost) == 2
    if is_private:
        return  # their locations do not say which keys they have
    list(collect(server.server, offline=True, force=True))
    assert len(server.keys) == 5
    adopted = server.in_transaction(lambda: list(server.plugin.legacy.adopt()))
    assert {finding.kind for finding in adopted} == {"adopted"}
    assert len(adopted) == 2
    assert findings(server, deep=True) == []
    assert len(server.keys) == 5


def test_rebase(server, record):
    if "kinto.attachment.private" in server.settings:
        pytest.skip("private locations are not below base_url")
    before = record.data
    old, new = server.settings["kinto.attachment.base_url"], "https://new.example/"
    rewritten = list(rebase(server.server, old, new))
    assert [finding.kind for finding in rewritten] == ["rewritten"] * 5
    after = record.data
    for one, other in zip(before["pictures"], after["pictures"], strict=True):
        assert other == {**one, "location": one["location"].replace(old, new)}
    assert after["cover"]["location"].startswith(new)
    put(record, pictures=before["pictures"], cover=before["cover"], attachment=before["attachment"])
    assert record.data["pictures"] == after["pictures"]


def test_migrate(server, record, file_settings):
    target = Site(**{**server.settings, **file_settings("local")})
    target.server = Server.of(target.registry, transaction.manager)
    copied = list(copy(server.server, open_storage(target.plugin.settings)))
    assert {finding.kind for finding in copied} == {"copied"}
    assert target.keys == server.keys
    assert list(fsck(target.server, deep=True)) == []
    target.close()


def test_flush(server, record):
    record.http.post("/__flush__", headers=ALICE, status=202)
    list(collect(server.server, offline=True))
    assert server.keys == []


def test_keep_old_files_of_one_field(make_server):
    settings = {"kinto.attachment.resources.kept.c.cover.keep_old_files": "true"}
    server = make_server("local", **FIELDS, **settings)
    server.http.put_json("/buckets/kept", headers=ALICE)
    server.http.put_json("/buckets/kept/collections/c", headers=ALICE)
    collection = type(server.collection())(server, "kept", "c")
    record = collection.record()
    for content in (b"first", b"second"):
        send(record, "cover", content)
        send(record, "attachment", content)
    pictures(record, "one.txt")
    record.http.delete(f"{record.uri}/attachments/pictures", headers=ALICE)
    assert len(server.keys) == 3
    record.http.delete("/buckets/kept", headers=ALICE)
    list(collect(server.server, offline=True))
    assert len(server.keys) == 2
    assert list(fsck(server.server, deep=True)) == []


def test_equal_private_files(make_server):
    """Their locations do not contain their keys: each entry goes with its own."""
    server = make_server("local", **PRIVATE)
    record = server.collection().record()
    one, two = (send(record, "pictures", b"same").json for _ in range(2))
    assert len(server.keys) == 2
    put(record, pictures=[two])
    assert len(server.keys) == 1
    assert get(record, f"/pictures/{two['id']}").body == b"same"
    assert list(fsck(server.server, deep=True)) == []


def test_copies_of_kinto_signer(make_server):
    """The copies keep theirs, also where the collection does not declare their fields."""
    fields = "kinto.attachment.resources.{}.c.fields"
    declared = {fields.format(name): "cover pictures[]" for name in ("workspace", "preview")}
    signed = Signed(make_server("local", **SIGNER, **declared))
    for record in ("a", "b"):
        names = ("cover", "pictures", "pictures")
        files = [(name, f"{n}.txt", f"{record}{n}".encode()) for n, name in enumerate(names)]
        url = f"{signed.uri(record)}/attachments"
        signed.http.post(url, headers=ALICE, upload_files=files, status=201)

    def check_files(bucket, record, count):
        files = signed.http.get(f"{signed.uri(record, bucket)}/attachments", headers=ALICE).json
        assert len(files["pictures"]) == count
        paths = ["cover", *(f"pictures/{each['id']}" for each in files["pictures"])]
        found = [
            signed.http.get(f"{signed.uri(record, bucket)}/attachments/{path}", headers=ALICE).body
            for path in paths
        ]
        assert {each[:1] for each in found} == {record.encode()}

    signed.ask("to-sign")
    for bucket in BUCKETS:
        check_files(bucket, "a", 2)
    [_, second] = signed.http.get(signed.uri("a"), headers=ALICE).json["data"]["pictures"]
    url = f"{signed.uri('a')}/attachments/pictures/{second['id']}"
    signed.http.delete(url, headers=ALICE, status=204)
    signed.http.delete(signed.uri("b"), headers=ALICE)
    check_files("workspace", "a", 1)
    for bucket in BUCKETS[1:]:
        check_files(bucket, "a", 2)
        check_files(bucket, "b", 2)
    signed.ask("to-sign")
    for bucket in BUCKETS:
        check_files(bucket, "a", 1)
    gc(signed.site)
    assert check(signed.site, deep=True) == []
    keys = [stat.key for stat in signed.site.storage.list() if "__" not in stat.key]
    assert len(keys) == 2


def test_attributes_that_kinto_signer_copies(make_server):
    """They get no file that the source did not have in a field of that name."""
    settings = {
        "kinto.attachment.resources.secret.private": "true",
        "kinto.attachment.resources.workspace.c.fields": "cover",
        "kinto.attachment.randomize": "false",
        "kinto.attachment.folder": "{bucket_id}",
    }
    signed = Signed(make_server("local", **SIGNER, **settings))
    signed.http.put_json("/buckets/secret", {}, headers=BOB)
    signed.http.put_json("/buckets/secret/collections/c", {}, headers=BOB)
    secret = "/buckets/secret/collections/c/records/r/attachment"
    files = [("attachment", "salaries.txt", b"top secret")]
    signed.http.post(secret, headers=BOB, upload_files=files)
    forged = {"filename": "a.txt", "hash": "0" * 64, "mimetype": "text/plain", "size": 10}
    forged["location"] = "https://cdn.example/files/secret/salaries.txt"
    for value in (forged, {**forged, "location": "https://elsewhere.example/a.txt"}, forged):
        signed.http.put_json(signed.uri("a"), {"data": {"foo": value}}, headers=ALICE)
        signed.ask("to-sign")
        for bucket in BUCKETS:
            url = f"{signed.uri('a', bucket)}/attachments"
            assert signed.http.get(url, headers=ALICE).json == {}
            signed.http.get(f"{url}/foo", headers=ALICE, status=404)
    assert check(signed.site, deep=True) == []
