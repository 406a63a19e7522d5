"""``attachment.private``: the location of a file is below its record, with its permissions."""

from hashlib import sha256
from urllib.parse import urlsplit

import kinto_http
import pytest
import requests

from kinto_attachment.files.ref import FieldRef, RecordRef
from tests.support.servers.wsgi import Gunicorn
from tests.support.site import ALICE, BOB, Site

FIELD_NAMES = {"attachment", "cover"}

PRIVATE = {"kinto.attachment.private": "true"}
HASHED = {
    "kinto.attachment.randomize": "false",
    "kinto.attachment.filename_pattern": "{hash}{extension}",
}


@pytest.fixture
def site(make_site, kinto, files):
    return make_site(kinto, files, **PRIVATE)


def follow(record, headers=ALICE, status=200):
    path = urlsplit(record.data["attachment"]["location"]).path.removeprefix("/v1")
    return record.http.get(path, headers=headers, status=status)


def check(record, content):
    """Check that the record has this file, and that storage and links have no other."""
    attachment = record.data["attachment"]
    assert attachment["location"] == f"http://localhost/v1{record.uri}/attachment"
    assert attachment["hash"] == sha256(content).hexdigest()
    assert follow(record).body == content
    assert record.collection.keys == record.collection.links
    assert len(record.collection.keys) == 1
    assert record.collection.releases == []


def test_location_is_the_attachment_of_the_record(record):
    answer = record.upload(b"secret", status=201)
    assert answer.json["location"] == f"http://localhost/v1{record.uri}/attachment"
    check(record, b"secret")
    follow(record, headers=BOB, status=403)
    follow(record, headers={}, status=401)


def test_replace_and_detach(record):
    for content in (b"first", b"second", b"second", b"third"):
        record.upload(content)
        check(record, content)
    record.detach(status=204)
    assert record.collection.keys == record.collection.links == []
    record.http.get(record.attachment_uri, headers=ALICE, status=404)


def test_the_record_can_be_written_with_its_attachment(record):
    record.upload(b"secret")
    record.http.put_json(record.uri, {"data": record.data}, headers=ALICE)
    record.http.patch_json(record.uri, {"data": {"family": "sans"}}, headers=ALICE)
    check(record, b"secret")


@pytest.mark.parametrize("change", [{"hash": "0" * 64}, {"location": "http://a.example/"}])
def test_the_attachment_cannot_be_forged(record, change):
    record.upload(b"secret")
    forged = {**record.data["attachment"], **change}
    body = {"data": {"attachment": forged}}
    record.http.patch_json(record.uri, body, headers=ALICE, status=400)
    other = record.collection.record()
    attachment = record.data["attachment"]
    body = {"data": {"attachment": attachment}}
    record.http.put_json(other.uri, body, headers=ALICE, status=400)
    check(record, b"secret")


@pytest.mark.parametrize("how", ["replace", "detach"])
def test_a_stale_write_is_repeated(make_site, files, between_read_and_write, how):
    """All locations are the same here; the hash of the link tells the files apart."""
    record = make_site("postgresql", files, **PRIVATE).collection().record()
    record.upload(b"first")
    between_read_and_write(record.detach if how == "detach" else lambda: record.upload(b"second"))
    body = {"data": {"family": "sans"}}
    record.http.patch_json(record.uri, body, headers=ALICE, status=200)
    if how == "detach":
        assert "attachment" not in record.data
        assert record.collection.keys == record.collection.links == []
    else:
        check(record, b"second")


@pytest.mark.parametrize(
    "target, count",
    [
        *((target, 2) for target in ("records", "some", "collection", "bucket")),
        ("some", 25),
        ("bucket", 25),
        pytest.param("records", 25, marks=pytest.mark.slow),
        pytest.param("collection", 25, marks=pytest.mark.slow),
    ],
)
def test_deletions(collection, target, count):
    records = [collection.record() for _ in range(count)]
    for record in records:
        record.upload(b"secret", data={"family": "sans"})
    bucket = f"/buckets/{collection.bucket}"
    uri = {
        "records": f"{collection.uri}/records",
        "some": f"{collection.uri}/records?family=sans",
        "collection": collection.uri,
        "bucket": bucket,
    }[target]
    assert len(collection.keys) == count
    collection.http.delete(uri, headers=ALICE)
    assert collection.keys == collection.links == collection.releases == []


def test_names_by_hash(make_site, kinto, files):
    names = {"kinto.attachment.randomize": "false", "kinto.attachment.filename_pattern": "{hash}"}
    collection = make_site(kinto, files, **PRIVATE, **names).collection()
    first, second = collection.record(), collection.record()
    for record in (first, second):
        record.upload(b"same")
    assert len(list(collection.site.storage.list(f"private/{collection.bucket}/"))) == 1
    first.detach()
    assert follow(second).body == b"same"


def test_one_private_collection(make_site, kinto, files):
    """Private in one, public in the other."""
    settings = {"kinto.attachment.resources.hidden.fonts.private": "true"}
    site = make_site(kinto, files, **settings)
    public = site.collection().record()
    assert public.upload(b"public").json["location"].startswith("https://cdn.example/files/")
    public.check(b"public")
    site.http.put_json("/buckets/hidden", {}, headers=ALICE)
    site.http.put_json("/buckets/hidden/collections/fonts", {}, headers=ALICE)
    uri = "/buckets/hidden/collections/fonts/records/a"
    form = public.http.encode_multipart([], [("attachment", "a.txt", b"secret")])
    headers = {**ALICE, "Content-Type": form[0]}
    answer = site.http.post(f"{uri}/attachment", form[1], headers=headers)
    assert answer.json["location"] == f"http://localhost/v1{uri}/attachment"
    assert site.http.get(f"{uri}/attachment", headers=ALICE).body == b"secret"


def test_turned_on_and_off_again(make_database, file_settings, files, field_name):
    """Records keep the location that they have until their file is replaced."""
    settings = {"field": field_name, **make_database(), **file_settings(files)}
    record = Site(**settings).collection().record()
    record.upload(b"public")
    later = Site(**settings, **PRIVATE)
    assert later.http.get(record.attachment_uri, headers=ALICE).body == b"public"
    later.http.patch_json(record.uri, {"data": {"family": "sans"}}, headers=ALICE)
    record.check(b"public")
    record.http = later.http
    record.upload(b"private")
    check(record, b"private")
    record.http = record.site.http
    assert record.http.get(record.attachment_uri, headers=ALICE).body == b"private"
    record.upload(b"public again")
    record.check(b"public again")


def test_a_trusted_copy(site, copying):
    """kinto-signer copies the record: the location stays that of the source."""
    source, copy = site.collection().record(), site.collection().record()
    source.upload(b"signed")
    copy.put(headers=copying, attachment=source.data["attachment"])
    assert copy.http.get(copy.attachment_uri, headers=ALICE).body == b"signed"
    source.upload(b"newer")
    assert copy.http.get(copy.attachment_uri, headers=ALICE).body == b"signed"
    site.http.delete(copy.uri, headers=ALICE)
    check(source, b"newer")


def test_no_acl_is_sent(make_site, kinto):
    """``aws.acl`` applies to public files only."""
    acl = {"kinto.attachment.aws.acl": "public-read"}
    seen = {}
    for private in ("true", "false"):
        site = make_site(kinto, "moto", **{**acl, "kinto.attachment.private": private})
        record = site.collection().record()
        record.upload(b"content", "a.png")
        (key,) = record.collection.keys
        where = {"Bucket": site.storage.bucket_name, "Key": key}
        grants = site.storage.client.get_object_acl(**where)["Grants"]
        everybody = any("AllUsers" in grant["Grantee"].get("URI", "") for grant in grants)
        seen[private] = everybody, site.storage.client.head_object(**where).get("CacheControl")
    assert seen["true"] == (False, None)
    assert seen["false"] == (True, "public, max-age=31536000, immutable")


def test_clients_that_follow_the_location(file_settings, tmp_path):
    settings = {**file_settings("local"), **PRIVATE, "kinto.attachment.base_url": ""}
    picture, copy = tmp_path / "picture.jpg", tmp_path / "copy.jpg"
    picture.write_bytes(b"picture")
    auth = ("alice", "secret")
    with Gunicorn(settings, tmp_path) as server:
        options = {"server_url": server.url, "bucket": "blog", "collection": "articles"}
        client = kinto_http.Client(auth=auth, **options)
        client.create_bucket()
        client.create_collection()
        client.add_attachment(id="r", filepath=str(picture))
        record = client.get_record(id="r")["data"]
        location = record["attachment"]["location"]
        assert location == f"{server.url}/buckets/blog/collections/articles/records/r/attachment"
        assert requests.get(location, auth=auth, timeout=60).content == b"picture"
        assert requests.get(location, timeout=60).status_code == 401
        # kinto-http sends no credentials for a file.
        with pytest.raises(requests.HTTPError, match="401"):
            client.download_attachment(record, filepath=str(copy))
        client.patch_record(id="r", data={}, permissions={"read": ["system.Everyone"]})
        client.download_attachment(record, filepath=str(copy), overwrite=True)
        assert copy.read_bytes() == b"picture"


def test_ref_of_a_location():
    ref = RecordRef("blog", "articles", "a-b_c")
    entry = "38e4e0f8-1419-4a38-a3f3-a30f62ecc133"
    places = (FieldRef(ref), FieldRef(ref, "cover"), FieldRef(ref, "pictures", entry))
    for base in ("https://kinto.example/v1", "http://127.0.0.1:8888/prefix/v1", "/v2"):
        for place in places:
            assert FieldRef.served_at(f"{base}{place.url_path}") == place
    for end in ("", "/attachment/x", "/attachment?a", "/attachments", "/attachments/cover/x"):
        assert FieldRef.served_at(f"/v1{ref.uri}{end}") is None
    assert FieldRef.served_at("") is None


@pytest.mark.parametrize("settings", [PRIVATE, HASHED], ids=["private", "hashed"])
def test_a_stale_write_over_the_same_bytes_is_repeated(
    make_site, files, between_read_and_write, settings
):
    """The location is the same as before; the filename differs."""
    record = make_site("postgresql", files, **settings).collection().record()
    record.upload(b"bytes", "old.txt")
    between_read_and_write(lambda: record.upload(b"bytes", "new.txt"))
    body = {"data": {"family": "sans"}}
    record.http.patch_json(record.uri, body, headers=ALICE, status=200)
    assert record.data["attachment"]["filename"] == "new.txt"
    record.http.patch_json(record.uri, body, headers=ALICE)
    assert record.data["attachment"]["filename"] == "new.txt"
