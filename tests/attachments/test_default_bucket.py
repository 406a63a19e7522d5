"""The ``default`` bucket, in any order of ``includes``."""

import pytest
from kinto.core.storage.exceptions import IntegrityError

from tests.support.site import ALICE, BOB, SETTINGS, Record, call_wsgi

FILES = {"local"}

ORDERS = [
    "kinto.plugins.default_bucket kinto_attachment",
    "kinto_attachment kinto.plugins.default_bucket",
]


@pytest.fixture(params=ORDERS, ids=["bucket first", "bucket last"])
def site(request, make_site, kinto, files):
    others = SETTINGS["kinto.includes"].replace(ORDERS[0], "")
    return make_site(
        kinto,
        files,
        **{
            "kinto.includes": f"{request.param} {others}",
            # The ids of default buckets are made of it; those of the sites must differ.
            "kinto.default_bucket_hmac_secret": f"{request.param} {kinto} {files}",
        },
    )


@pytest.fixture
def record(site):
    """A record of alice's default bucket, which is emptied first."""
    for user in (ALICE, BOB):
        site.http.delete("/buckets/default", headers=user, status="*")
    bucket = site.http.get("/", headers=ALICE).json["user"]["bucket"]
    collection = site.collection()
    collection.bucket, collection.uri = bucket, f"/buckets/{bucket}/collections/pix"
    record = Record(collection, "first")
    record.attachment_uri = "/buckets/default/collections/pix/records/first/attachment"
    return record


def test_creates_bucket_and_collection(record):
    response = record.upload(b"content", status=201)
    assert response.headers["Location"] == f"http://localhost/v1{record.uri}"
    assert response.json == record.check(b"content")


def test_twice(record):
    record.upload(b"first", status=201)
    record.upload(b"second", status=200)
    record.check(b"second")


def test_other_urls_of_the_bucket_still_work(record):
    record.upload(b"content")
    uri = "/buckets/default/collections/pix/records/first"
    assert record.http.get(uri, headers=ALICE).json["data"] == record.data
    record.http.patch_json(uri, {"data": {"a": 1}}, headers=ALICE)
    record.check(b"content")


def test_delete(record):
    record.upload(b"content")
    record.detach(status=204)
    record.detach(status=404)
    assert record.collection.keys == []


def test_deletion_of_the_alias(record):
    record.upload(b"content")
    record.http.delete("/buckets/default", headers=ALICE)
    assert record.collection.keys == record.collection.links == []


def test_a_refused_upload_creates_nothing(record):
    record.upload(filename="a.exe", status=400)
    record.upload(headers={"If-Match": '"12"'}, status=412)
    record.http.get(record.uri, headers=ALICE, status=403)
    record.http.get(f"/buckets/{record.collection.bucket}", headers=ALICE, status=403)


def test_each_user_has_a_bucket_of_their_own(record):
    record.upload(b"alice's", status=201)
    other = record.upload(b"bob's", headers=BOB, status=201)
    assert record.collection.bucket not in other.headers["Location"]
    record.check(b"alice's")


def test_anonymous_requests_are_refused(record):
    record.upload(headers={"Authorization": ""}, status=401)


def test_preflight(record):
    headers = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    response = record.http.options(record.attachment_uri, headers=headers, status=200)
    assert "POST" in response.headers["Access-Control-Allow-Methods"]


def test_other_methods(record):
    record.upload()
    record.http.put_json(record.attachment_uri, {}, headers=ALICE, status=405)


def test_a_conflict_is_tried_again_without_its_body(site, record, monkeypatch):
    """The body has been read by then, and must not be read past its end."""
    left, past_end, create = [2], [], site.registry.storage.create

    def fail(resource_name, *args, **kwargs):
        if resource_name == "record" and left[0]:
            left[0] -= 1
            raise IntegrityError(message="duplicate key")
        return create(resource_name, *args, **kwargs)

    monkeypatch.setattr(site.registry.storage, "create", fail)
    mimetype, body = record.http.encode_multipart([], [("attachment", "a.txt", b"content")])

    class Input:
        data, at_end = body, False

        def read(self, size=-1):
            past_end.extend([size] if self.at_end else [])
            chunk, self.data = self.data[:size], self.data[size:]
            self.at_end = not self.data
            return chunk

    environ = {
        "wsgi.input": Input(),
        "CONTENT_LENGTH": str(len(body)),
        "CONTENT_TYPE": mimetype,
        "REQUEST_METHOD": "POST",
    }
    assert call_wsgi(record, environ).status_int == 201
    assert (left, past_end) == ([0], [])
    record.check(b"content")


def test_in_a_batch(record):
    record.upload(b"content")
    body = {"requests": [{"method": "DELETE", "path": record.attachment_uri}]}
    answers = record.http.post_json("/batch", body, headers=ALICE).json["responses"]
    assert [answer["status"] for answer in answers] == [204]
    assert record.collection.keys == []


def test_a_bucket_of_that_name_without_the_plugin(make_site, kinto):
    site = make_site(kinto, "local", **{"kinto.includes": "kinto_attachment"})
    site.http.put_json("/buckets/default", {}, headers=ALICE)
    site.http.put_json("/buckets/default/collections/pix", {}, headers=ALICE)
    uri = "/buckets/default/collections/pix/records/first/attachment"
    mimetype, body = site.http.encode_multipart([], [("attachment", "a.txt", b"x")])
    headers = {**ALICE, "Content-Type": mimetype}
    location = site.http.post(uri, body, headers=headers, status=201).json["location"]
    assert site.read(location) == b"x"
