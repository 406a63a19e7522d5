"""POST {record}/attachment: uploads that succeed."""

import json
import re
import secrets
from datetime import datetime, timezone
from hashlib import sha256

import pytest

from tests.support.site import ALICE, ATTRIBUTES, BOB, SCHEMA

FIELD_NAMES = {"attachment", "cover"}


def test_creates_the_record(record):
    response = record.upload(b"content", "photo.jpg", status=201)
    assert set(response.json) == ATTRIBUTES
    assert response.json == record.check(b"content")
    assert response.json["filename"] == "photo.jpg"
    assert response.json["mimetype"] == "image/jpeg"


def test_answers_with_the_version_of_the_record(record):
    response = record.upload(status=201)
    got = record.http.get(record.uri, headers=ALICE)
    assert response.headers["Location"] == f"http://localhost/v1{record.uri}"
    assert response.headers["ETag"] == got.headers["ETag"]
    assert response.headers["Last-Modified"] == got.headers["Last-Modified"]


def test_updates_the_record(record):
    record.put(family="sans")
    response = record.upload(b"content", data={"author": "eve"}, status=200)
    assert response.json == record.check(b"content")
    assert record.data["family"] == "sans"
    assert record.data["author"] == "eve"


def test_replaces_the_file(record):
    first = record.upload(b"first").json
    second = record.upload(b"second", status=200).json
    assert second["location"] != first["location"]
    assert second == record.check(b"second")


def test_replaces_the_file_by_the_same_bytes(record):
    first = record.upload(b"same").json
    second = record.upload(b"same", status=200).json
    assert second["location"] != first["location"]
    record.check(b"same")


def test_stores_data_and_permissions(record):
    record.upload(data={"family": "sans"}, permissions={"read": ["system.Everyone"]}, status=201)
    assert record.http.get(record.uri, headers=BOB).json["data"]["family"] == "sans"
    permissions = record.http.get(record.uri, headers=ALICE).json["permissions"]
    assert permissions["read"] == ["system.Everyone"]


def test_replaces_permissions_only_when_sent(record):
    record.upload(permissions={"read": ["system.Everyone"]})
    record.upload(b"second", data={"family": "serif"})
    assert record.http.get(record.uri, headers=BOB).json["data"]["family"] == "serif"


def test_accepts_parts_in_any_order(record):
    part = b'--XX\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
    file = (
        b'--XX\r\nContent-Disposition: form-data; name="attachment"; filename="a.txt"\r\n'
        b"Content-Type: text/plain\r\n\r\nhello\r\n"
    )
    data = part % (b"data", b'{"family": "sans"}')
    permissions = part % (b"permissions", b'{"read": ["system.Everyone"]}')
    for parts in (file + data + permissions, data + file + permissions, permissions + data + file):
        record.post_raw(parts + b"--XX--\r\n")
        assert record.data["family"] == "sans"
        record.check(b"hello")


def test_sends_the_whole_record_as_kinto_admin_does(record):
    record.upload(b"first", data={"family": "sans"})
    got = record.http.get(record.uri, headers=ALICE)
    data = {**got.json["data"], "family": "serif"}
    second = record.upload(b"second", data=data, headers={"If-Match": got.headers["ETag"]}).json
    assert second == record.check(b"second")
    assert record.data["family"] == "serif"


def test_attachment_in_data_never_wins(record):
    forged = {"attachment": {"location": "https://evil.example/", "hash": "00"}}
    response = record.upload(b"real", data=forged, status=201)
    assert response.json == record.check(b"real")


@pytest.mark.parametrize("size", [0, 1, 255 * 1024, 256 * 1024, 3 * 1024 * 1024 + 1])
def test_takes_files_of_any_size(record, size):
    content = secrets.token_bytes(size)
    response = record.upload(content, "font.pdf", status=201)
    assert response.json["size"] == size
    assert response.json["hash"] == sha256(content).hexdigest()
    record.check(content)


def test_takes_a_large_file_on_s3_in_parts(make_site, kinto):
    record = make_site(kinto, "seaweedfs").collection().record()
    content = secrets.token_bytes(20 * 1024 * 1024 + 1)
    record.upload(content, "font.pdf", status=201)
    record.check(content)


@pytest.mark.parametrize(
    "filename",
    ["a.txt", "mon été.txt", "日本語.txt", "a b;c=d'e%20f.txt", 'q"uote.txt', "x" * 251 + ".txt"],
)
def test_keeps_the_filename(record, filename):
    escaped = filename.replace('"', "%22")
    body = (
        f'--XX\r\nContent-Disposition: form-data; name="attachment"; filename="{escaped}"\r\n\r\n'
        "hello\r\n--XX--\r\n"
    ).encode()
    response = record.post_raw(body, status=201)
    assert response.json["filename"] == filename
    assert response.json["location"].endswith(".txt")
    record.check(b"hello")


@pytest.mark.parametrize(
    "header",
    [
        "filename*=UTF-8''%E2%82%AC%20rates.txt",
        "filename=\"EURO rates.txt\"; filename*=utf-8''%e2%82%ac%20rates.txt",
        "filename*=iso-8859-15'en'%A4%20rates.txt",
    ],
)
def test_understands_extended_filenames(make_site, header):
    record = make_site().collection().record()
    body = (
        f'--XX\r\nContent-Disposition: form-data; name="attachment"; {header}\r\n\r\n'
        "hello\r\n--XX--\r\n"
    ).encode()
    assert record.post_raw(body, status=201).json["filename"] == "€ rates.txt"


@pytest.mark.parametrize(
    "filename, declared, stored",
    [
        ("a.jpg", "text/plain", "text/plain"),
        ("a.txt", "application/pdf; version=1.7", "application/pdf"),
        ("a.pdf", None, "application/pdf"),
        ("a.csv", "application/octet-stream", "application/octet-stream"),
        ("a.ini", None, "application/octet-stream"),
        ("a.png", "not a type", "image/png"),
        ("a.png", "image/png\x01", "image/png"),
    ],
)
def test_judges_the_mimetype(make_site, filename, declared, stored):
    record = make_site().collection().record()
    header = f"Content-Type: {declared}\r\n" if declared else ""
    body = (
        f'--XX\r\nContent-Disposition: form-data; name="attachment"; filename="{filename}"\r\n'
        f"{header}\r\nhello\r\n--XX--\r\n"
    ).encode()
    assert record.post_raw(body, status=201).json["mimetype"] == stored


def test_understands_the_charset_of_a_field(make_site):
    record = make_site().collection().record()
    body = (
        b'--XX\r\nContent-Disposition: form-data; name="data"\r\n'
        b'Content-Type: application/json; charset=iso-8859-1\r\n\r\n{"family": "\xe9"}\r\n'
        b'--XX\r\nContent-Disposition: form-data; name="attachment"; filename="a.txt"\r\n\r\n'
        b"hello\r\n--XX--\r\n"
    )
    record.post_raw(body, status=201)
    assert record.data["family"] == "é"


def test_body_that_looks_like_its_boundary(make_site):
    record = make_site().collection().record()
    content = b"\r\n--X\r\n--XY\r\n\r\n--X--\r\n" * 50_000
    body = (
        b'--XX\r\nContent-Disposition: form-data; name="attachment"; filename="a.txt"\r\n\r\n'
        + content
        + b"\r\n--XX--\r\n"
    )
    record.post_raw(body, status=201)
    record.check(content)


def test_validates_against_the_schema_of_the_collection(site):
    record = site.collection(schema=SCHEMA).record()
    record.upload(data={"author": "eve"}, status=201)
    assert record.data["schema"] > 0


def test_writes_one_entry_of_history(site):
    collection = site.collection()
    record = collection.record()
    record.upload(b"first", data={"family": "sans"})
    record.upload(b"second")
    entries = record.http.get(
        f"/buckets/{collection.bucket}/history?uri={record.uri}", headers=ALICE
    ).json["data"]
    assert [entry["action"] for entry in entries] == ["update", "create"]
    assert entries[0]["target"]["data"]["attachment"]["size"] == 6


def test_serves_cross_origin_requests(make_site):
    record = make_site().collection().record()
    origin = {"Origin": "https://admin.example"}
    response = record.upload(headers=origin, status=201)
    assert response.headers["Access-Control-Allow-Origin"] in ("*", origin["Origin"])
    assert "ETag" in response.headers["Access-Control-Expose-Headers"]
    preflight = record.http.options(
        record.attachment_uri,
        headers={
            **origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,if-match,content-type",
        },
        status=200,
    )
    assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
    refused = record.upload(filename="a.exe", headers=origin, status=400)
    assert refused.headers["Access-Control-Allow-Origin"] in ("*", origin["Origin"])


def test_keep_old_files(make_site, kinto, files):
    site = make_site(kinto, files, **{"kinto.attachment.keep_old_files": "true"})
    collection = site.collection()
    record = collection.record()
    first = record.upload(b"first").json
    second = record.upload(b"second").json
    assert site.read(first["location"]) == b"first"
    assert collection.releases == [("keep", site.key(first["location"]))]
    assert collection.links == [site.key(second["location"])]


def test_base_url_may_be_empty(make_site):
    site = make_site(**{"kinto.attachment.base_url": ""})
    location = site.collection().record().upload(b"x").json["location"]
    assert location.startswith("b_")
    assert site.read(location) == b"x"


def test_keys_by_hash_are_shared(make_site, kinto, files):
    site = make_site(
        kinto,
        files,
        **{"kinto.attachment.randomize": "false", "kinto.attachment.filename_pattern": "{hash}"},
    )
    collection = site.collection()
    one, two = collection.record(), collection.record()
    location = one.upload(b"same").json["location"]
    assert two.upload(b"same", "other.png").json["location"] == location
    assert location.endswith(sha256(b"same").hexdigest())
    assert one.upload(b"same", status=200).json["location"] == location
    assert collection.releases == []
    one.detach()
    assert site.read(two.data["attachment"]["location"]) == b"same"
    two.detach()
    key = site.key(location)
    assert collection.keys == [key]  # only gc deletes shared files
    assert set(collection.releases) == {("sweep", key)}


def test_names_that_are_not_random_never_overwrite(make_site, kinto, files):
    site = make_site(kinto, files, **{"kinto.attachment.randomize": "false"})
    collection = site.collection()
    records = [collection.record() for _ in range(5)]
    for index, record in enumerate(records):
        record.upload(b"%d" % index, "same name.txt", status=201)
    locations = [record.data["attachment"]["location"] for record in records]
    assert len(set(locations)) == 5
    for index, location in enumerate(locations):
        assert site.read(location) == b"%d" % index
        assert "same_name" in location and location.endswith(".txt")
    assert locations[0].endswith("/same_name.txt")
    records[0].detach()
    records[1].upload(b"again", "same name.txt")  # as in a folder, the name is free again
    assert records[1].data["attachment"]["location"] == locations[0]
    assert site.read(locations[0]) == b"again"


UUID = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"


@pytest.mark.parametrize(
    ("randomize", "pattern", "expected"),
    [
        ("false", "{datetime}-{rid}-{filename}", r"[0-9]{14}-r1-my_photo\.JPG"),
        ("true", "{datetime}-{rid}-{filename}", rf"[0-9]{{14}}-r1-{UUID}\.jpg"),
        ("true", "{datetime}--{rid}--{filename}", rf"[0-9]{{14}}--r1--{UUID}\.jpg"),
        ("true", "{filename}", rf"{UUID}\.jpg"),
        ("true", "{rid}{extension}", r"r1\.jpg"),
        ("true", "{shard}/{hash}", "[0-9a-f]{2}/[0-9a-f]{64}"),
    ],
)
def test_filename_pattern(make_site, files, randomize, pattern, expected):
    """As version 9.0.1 of the existing plugin understands it."""
    names = {"randomize": randomize, "filename_pattern": pattern, "folder": "{bucket_id}/x"}
    site = make_site(
        "postgresql", files, **{f"kinto.attachment.{name}": value for name, value in names.items()}
    )
    collection = site.collection()
    record = collection.record("r1")
    before = datetime.now(timezone.utc).strftime("%Y%m%d%H%M%S")
    location = record.upload(b"bytes", "my photo.JPG").json["location"]
    key = site.key(location)
    assert re.fullmatch(f"{collection.bucket}/x/{expected}", key)
    if "datetime" in pattern:
        after = datetime.now(timezone.utc).strftime("%Y%m%d%H%M%S")
        assert before <= key.rpartition("/")[2][:14] <= after
    assert site.plugin.settings.makes(key)
    record.check(b"bytes")


def test_response_is_json_whatever_is_accepted(make_site):
    record = make_site().collection().record()
    response = record.upload(headers={"Accept": "text/html"}, status=201)
    assert json.loads(response.body) == record.data["attachment"]
