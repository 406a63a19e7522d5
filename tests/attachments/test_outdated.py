"""Clients that were offline send an attachment that the record does not have any more."""

import pytest

from kinto_attachment.attachments.writes.guard import FEW
from tests.support.site import ALICE, batch

FILES = {"local"}

MERGE = {**ALICE, "Content-Type": "application/merge-patch+json"}
FORGED = "Attachment metadata cannot be modified."
JSON_PATCH = {**ALICE, "Content-Type": "application/json-patch+json"}


@pytest.fixture(params=["memory", "postgresql"])
def record(request, make_site, files):
    return make_site(request.param, files).collection().record()


def put(record, data):
    return record.http.put_json(record.uri, {"data": data}, headers=ALICE, status="*")


def patch(record, data):
    return record.http.patch_json(record.uri, {"data": data}, headers=ALICE, status="*")


def merge_patch(record, data):
    return record.http.patch_json(record.uri, {"data": data}, headers=MERGE, status="*")


def json_patch(record, data):
    operations = [
        {"op": "add", "path": f"/data/{name}", "value": value} for name, value in data.items()
    ]
    return record.http.patch_json(record.uri, operations, headers=JSON_PATCH, status="*")


def plural_post(record, data):
    plural = record.uri.rpartition("/")[0]
    body = {"data": {**data, "id": record.id}}
    return record.http.post_json(plural, body, headers=ALICE, status="*")


class Answer:
    """That of one operation of a batch."""

    def __init__(self, response):
        (answer,) = response.json["responses"]
        self.status_int, self.json = answer["status"], answer["body"]


def batch_put(record, data):
    return Answer(batch(record, ("PUT", record.uri, {"data": data})))


def batch_patch(record, data):
    return Answer(batch(record, ("PATCH", record.uri, {"data": data})))


CREATORS = [put, batch_put, plural_post]
WRITERS = [put, patch, merge_patch, json_patch, batch_put, batch_patch]


def lose(record, how: str) -> bytes | None:
    """Replace or remove the attachment, and return the bytes that the record has then."""
    if how == "replaced":
        record.upload(b"second")
        return b"second"
    if how == "removed":
        record.detach()
    elif how == "dropped":
        record.put(family="mono")
    else:
        delete(record, how)
        record.put(family="mono")
    return None


def delete(record, how: str) -> None:
    """Delete the record itself, all records of its collection, or the collection or bucket."""
    plural = record.uri.rpartition("/")[0]
    bucket = f"/buckets/{record.collection.bucket}"
    if how == "deleted with many":
        for _ in range(FEW + 1):
            record.collection.record().upload(b"other")
    where = {"deleted": record.uri, "deleted with one": plural, "deleted with many": plural}
    where |= {"collection": record.collection.uri, "bucket": bucket}
    record.http.delete(where[how], headers=ALICE)
    for uri in (bucket, record.collection.uri):
        record.http.put_json(uri, {}, headers=ALICE)


def check(record, content: bytes | None) -> None:
    """Check that the record has that content, and that there is no other file."""
    if content is None:
        assert record.snapshot()[3:] == (None, [], [], [])
    else:
        record.check(content)


DELETIONS = ["deleted", "deleted with one", "deleted with many", "collection", "bucket"]
LOSSES = ["replaced", "removed", "dropped", *DELETIONS]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("how", LOSSES)
def test_means_as_it_is(record, how, write):
    outdated = record.upload(b"first").json
    content = lose(record, how)
    present = record.data.get("attachment")
    response = write(record, {"attachment": outdated, "family": "serif"})
    assert response.status_int == 200
    assert response.json["data"].get("attachment") == present
    assert record.data.get("attachment") == present
    assert record.data["family"] == "serif"
    check(record, content)


@pytest.mark.parametrize("write", CREATORS)
@pytest.mark.parametrize("how", DELETIONS)
def test_of_a_deleted_record_is_left_out(record, how, write):
    outdated = record.upload(b"first").json
    delete(record, how)
    response = write(record, {"attachment": outdated, "family": "serif"})
    assert response.status_int == 201
    assert "attachment" not in response.json["data"]
    assert record.data["family"] == "serif"
    check(record, None)


def test_of_any_age(record):
    former = [record.upload(content).json for content in (b"first", b"second", b"third")]
    record.detach()
    former.append(record.upload(b"fourth").json)
    for attachment in former:
        assert put(record, {"attachment": attachment}).status_int == 200
        record.check(b"fourth")


def test_of_private_files(make_site, files):
    site = make_site("postgresql", files, **{"kinto.attachment.private": "true"})
    record = site.collection().record()
    outdated = record.upload(b"first").json
    present = record.upload(b"second").json
    assert put(record, {"attachment": outdated}).json["data"]["attachment"] == present
    assert record.http.get(record.attachment_uri, headers=ALICE).body == b"second"
    assert len(record.collection.keys) == 1


def test_with_keys_in_another_order(record):
    outdated = record.upload(b"first").json
    present = record.upload(b"second").json
    reversed_keys = dict(reversed(outdated.items()))
    reversed_keys["size"] = float(reversed_keys["size"])
    assert put(record, {"attachment": reversed_keys}).json["data"]["attachment"] == present
    check(record, b"second")


@pytest.mark.parametrize("write", WRITERS)
def test_the_present_one_in_another_spelling(record, write):
    """It is stored as the server writes it: a size of 5.0 would not be one."""
    present = record.upload(b"12345").json
    spelled = {**dict(reversed(present.items())), "size": 5.0}
    response = write(record, {"attachment": spelled})
    assert response.status_int == 200
    assert type(record.data["attachment"]["size"]) is int
    assert record.http.get(record.attachment_uri, headers=ALICE).body == b"12345"
    record.check(b"12345")


@pytest.mark.parametrize(
    "change", [{"location": "a\0b"}, {"size": "5"}, {"hash": "00"}, {"hash": None}, {"filename": 1}]
)
def test_nonsense_after_a_collection_was_deleted(record, change):
    """Only the links' tombstones tell what its records had."""
    outdated = record.upload(b"first").json
    delete(record, "collection")
    for write in CREATORS:
        response = write(record, {"attachment": {**outdated, **change}})
        assert response.status_int == 400, response.json


def test_the_file_of_another_private_record(make_site, files):
    site = make_site("postgresql", "local", **{"kinto.attachment.private": "true"})
    record, other = site.collection().record(), site.collection().record()
    record.upload(b"first")
    attachment = other.upload(b"other").json
    delete(record, "collection")
    assert put(record, {"attachment": attachment}).status_int == 400


@pytest.mark.parametrize("behavior", ["light", "diff"])
def test_patch_that_tells_the_changes_only(make_site, behavior):
    """Kinto's own history cannot do that."""
    includes = {"kinto.includes": "kinto.plugins.default_bucket kinto_attachment"}
    record = make_site("postgresql", "local", **includes).collection().record()
    record.upload(b"first")
    headers = {**ALICE, "Response-Behavior": behavior}
    body = {"data": {"family": "serif"}}
    record.http.patch_json(record.uri, body, headers=headers, status=200)
    assert record.data["family"] == "serif"
    record.check(b"first")


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("change", [{"size": 7}, {"hash": "00"}, {"extra": 1}, {"filename": "b"}])
def test_a_value_that_the_record_never_had_is_forged(record, write, change):
    outdated = record.upload(b"first").json
    record.upload(b"second")
    before = record.snapshot()
    response = write(record, {"attachment": {**outdated, **change}})
    assert response.status_int == 400
    assert response.json["message"] == FORGED
    assert record.snapshot() == before


def test_of_another_record_is_forged(record):
    other = record.collection.record()
    attachment = other.upload(b"first").json
    other.detach()
    response = put(record, {"attachment": attachment})
    assert response.status_int == 400
    assert response.json["message"] == FORGED


class TestSentTwice:
    """kinto.js sends its resolution of a conflict twice, and keeps it if the second is refused."""

    @pytest.fixture
    def sent(self, record):
        """A PUT with an outdated attachment, and the headers that a second one has."""
        data = {"attachment": record.upload(b"first").json, "family": "serif"}
        record.detach()
        headers = {**ALICE, "If-Match": f'"{record.data["last_modified"]}"'}
        record.http.put_json(record.uri, {"data": data}, headers=headers)
        return data, headers

    def test_succeeds_again(self, record, sent):
        data, headers = sent
        before = record.snapshot()
        response = record.http.put_json(record.uri, {"data": data}, headers=headers, status=200)
        assert response.json["data"] == record.data
        assert response.headers["ETag"] == f'"{record.data["last_modified"]}"'
        assert record.snapshot() == before

    def test_succeeds_again_in_a_collection_with_a_schema(self, record):
        collection = record.collection
        schema = {"type": "object", "properties": {"family": {"type": "string"}}}
        for title in ("one", "two"):
            body = {"data": {"schema": {**schema, "title": title}}}
            record.http.patch_json(collection.uri, body, headers=ALICE)
            if title == "one":
                record.upload(b"first", data={"family": "serif"})
                data = record.data
        record.detach()
        headers = {**ALICE, "If-Match": f'"{record.data["last_modified"]}"'}
        for _ in range(2):
            record.http.put_json(record.uri, {"data": data}, headers=headers, status=200)

    @pytest.mark.parametrize(
        "change",
        [
            {"data": {"family": "mono"}},
            {"data": {"more": 1}},
            {"permissions": {"read": ["system.Everyone"]}},
            {"data": {"attachment": None}},
        ],
    )
    def test_is_refused_if_it_would_change_something(self, record, sent, change):
        data, headers = sent
        before = record.snapshot()
        body = {**change, "data": {**data, **change.get("data", {})}}
        record.http.put_json(record.uri, body, headers=headers, status=412)
        assert record.snapshot() == before

    def test_is_refused_with_a_forged_attachment(self, record, sent):
        data, headers = sent
        data = {**data, "attachment": {**data["attachment"], "size": 6}}
        record.http.put_json(record.uri, {"data": data}, headers=headers, status=412)
