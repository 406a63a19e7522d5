"""The ``location`` of an attachment: a URL, from which its key is found again."""

import secrets
from urllib.parse import quote

import pytest

from tests.support.maintenance import check, gc
from tests.support.site import ALICE

FOLDER = "my files/100% + ünïcode"


@pytest.fixture
def record(make_server, files):
    site = make_server(files, **{"kinto.attachment.folder": f"{FOLDER}/{{bucket_id}}"})
    return site.collection().record()


def test_is_percent_encoded(record):
    content = secrets.token_bytes(100)
    location = record.upload(content, "a b.txt").json["location"]
    base_url = record.site.settings["kinto.attachment.base_url"]
    encoded = quote(FOLDER, safe="/+")
    assert location.startswith(f"{base_url}{encoded}/{record.collection.bucket}/")
    assert record.site.key(location).startswith(f"{FOLDER}/")
    assert record.site.read(location) == content
    assert record.http.get(record.attachment_uri, headers=ALICE).body == content


def keys(site) -> list[str]:
    return [stat.key for stat in site.storage.list("my files/")]


def test_is_found_again(record):
    """By a write that has it, by commands, and by what follows the record."""
    site = record.site
    first = record.upload(b"first").json
    record.http.put_json(record.uri, {"data": {"attachment": first, "a": 1}}, headers=ALICE)
    assert check(site) == gc(site) == []
    record.upload(b"second")
    assert len(keys(site)) == 1
    record.http.put_json(record.uri, {"data": {"attachment": first, "a": 2}}, headers=ALICE)
    assert record.http.get(record.attachment_uri, headers=ALICE).body == b"second"
    assert check(site) == gc(site) == []
    record.http.delete(record.uri, headers=ALICE)
    assert keys(site) == []


def test_that_is_not_encoded(record):
    """As the existing plugin wrote it."""
    site = record.site
    attachment = record.upload(b"content").json
    base_url = site.settings["kinto.attachment.base_url"]
    attachment["location"] = base_url + site.key(attachment["location"])
    record.write_row({**record.row, record.field: attachment})
    assert record.http.get(record.attachment_uri, headers=ALICE).body == b"content"
    assert check(site) == gc(site) == []
    body = {"data": {"attachment": attachment, "a": 1}}
    record.http.put_json(record.uri, body, headers=ALICE)
    record.upload(b"second")
    assert len(keys(site)) == 1
