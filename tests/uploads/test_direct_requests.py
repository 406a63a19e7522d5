"""Which direct uploads are refused, and which permissions they need."""

import time
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from tests.support.direct import DirectUploads, digest, path_of
from tests.support.site import ALICE, BOB
from tests.support.threads import in_thread

FILES = {"local"}

CONTENT = b"hello world"


@pytest.fixture
def direct(record):
    return DirectUploads(record.http, f"{record.attachment_uri}/uploads")


class TestJSON:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("size", None),
            ("size", -1),
            ("size", "11"),
            ("size", True),
            ("size", 1.5),
            ("filename", None),
            ("filename", 5),
            ("filename", ""),
            ("mimetype", 5),
            ("hash", "abc"),
            ("hash", 5),
            ("data", []),
            ("permissions", "x"),
            ("target", "store"),
            ("sha256", "x"),
        ],
    )
    def test_wrong_values(self, direct, name, value):
        body = {"filename": "a.txt", "size": 11, name: value}
        body = {key: each for key, each in body.items() if each is not None}
        refused = direct.http.post_json(direct.base, body, headers=ALICE, status=400)
        assert refused.json["details"][0]["name"] == name

    @pytest.mark.parametrize("body", [b"[]", b"{", b'"x"', b"\xff", b'{"a": 1}'])
    def test_no_announcement(self, direct, body):
        headers = {**ALICE, "Content-Type": "application/json"}
        direct.http.post(direct.base, body, headers=headers, status=400)

    def test_a_large_body(self, direct):
        direct.create(11, status=413, data={"x": "y" * 2_000_000})

    @pytest.mark.parametrize(
        "parts",
        [
            5,
            [5],
            [{}],
            [{"number": 1}],
            [{"number": 2, "etag": "x"}],
            [{"number": 0, "etag": "x"}],
            [{"number": True, "etag": "x"}],
            [{"number": 1, "etag": 5}],
            [{"number": 1, "etag": "x", "size": 5}],
            [{"number": 1, "etag": "x"}] * 2,
        ],
    )
    def test_wrong_parts(self, record, direct, parts):
        described = direct.send(CONTENT)
        refused = direct.complete(described, status=400, parts=parts)
        assert refused.json["details"][0]["name"] == "parts"
        direct.complete(described)
        record.check(CONTENT)

    def test_complete_with_something_else(self, direct):
        described = direct.send(CONTENT)
        path = path_of(described["complete"])
        direct.http.post_json(path, {"etags": []}, headers=ALICE, status=400)
        direct.http.post_json(path, [], headers=ALICE, status=400)

    def test_over_the_limit(self, make_site, kinto, files):
        site = make_site(kinto, files, **{"kinto.attachment.max_size": "10"})
        record = site.collection().record()
        direct = DirectUploads(site.http, f"{record.attachment_uri}/uploads")
        refused = direct.create(11, status=400)
        message = "body: File size (11 bytes) exceeds the limit (10 bytes)."
        assert refused.json["message"] == message
        assert refused.json["details"][0]["name"] == "size"
        direct.create(6 * 1024**4, status=400)

    def test_more_than_any_storage_takes(self, direct):
        direct.create(6 * 1024**4, status=400)

    def test_an_extension(self, make_site, kinto, files):
        site = make_site(kinto, files, **{"kinto.attachment.extensions": "png"})
        record = site.collection().record()
        direct = DirectUploads(site.http, f"{record.attachment_uri}/uploads")
        refused = direct.create(11, status=400)
        assert "not allowed" in refused.json["message"]

    def test_in_a_batch(self, record, direct):
        described = direct.send(CONTENT)
        requests = [
            {"method": "POST", "path": f"/v1{direct.base}", "body": {"filename": "a", "size": 1}},
            {"method": "POST", "path": f"/v1{path_of(described['complete'])}"},
            {"method": "PUT", "path": f"/v1{record.uri}", "body": {"data": {"family": "x"}}},
            {"method": "GET", "path": f"/v1{direct.url(described)}"},
        ]
        batch = direct.http.post_json("/batch", {"requests": requests}, headers=ALICE)
        assert [each["status"] for each in batch.json["responses"]] == [400, 400, 201, 400]
        assert record.data["family"] == "x"


class TestPermissions:
    def test_strangers(self, record, direct):
        described = direct.send(CONTENT)
        for headers, status in ((BOB, 403), ({}, 401)):
            other = DirectUploads(direct.http, direct.base, headers)
            other.create(11, status=status)
            other.get(described, status=status)
            other.complete(described, status=status)
            other.delete(described, status=status)
        direct.complete(described)
        record.check(CONTENT)

    def test_another_user_with_permission(self, record, direct):
        described = direct.send(CONTENT)
        permissions = {"permissions": {"write": ["system.Everyone"]}}
        direct.http.patch_json(record.collection.uri, permissions, headers=ALICE)
        other = DirectUploads(direct.http, direct.base, BOB)
        other.get(described, status=404)
        other.complete(described, status=404)
        other.delete(described, status=404)
        direct.complete(described)

    def test_another_record(self, record, direct):
        described = direct.send(CONTENT)
        base = f"{record.collection.record().attachment_uri}/uploads"
        other = DirectUploads(direct.http, base)
        other.get(described, status=404)
        direct.http.post(f"{base}/{described['id']}/complete", headers=ALICE, status=404)

    def test_a_permission_that_is_withdrawn(self, record, direct):
        uri = record.collection.uri
        direct.http.patch_json(uri, {"permissions": {"write": ["system.Everyone"]}}, headers=ALICE)
        bobs = DirectUploads(direct.http, direct.base, BOB)
        described = bobs.send(CONTENT)
        direct.http.patch_json(uri, {"permissions": {"write": []}}, headers=ALICE)
        bobs.complete(described, status=403)
        record.http.get(record.uri, headers=ALICE, status=404)
        direct.http.patch_json(uri, {"permissions": {"write": ["system.Everyone"]}}, headers=ALICE)
        bobs.complete(described)
        record.check(CONTENT)


class TestConditions:
    def test_a_record_that_has_changed(self, record, direct):
        etag = record.put(family="sans").headers["ETag"]
        direct.create(11, status=412, headers={"If-Match": '"1"'})
        direct.create(11, status=412, headers={"If-None-Match": "*"})
        described = direct.send(CONTENT, headers={"If-Match": etag})
        record.put(family="serif")
        direct.complete(described, status=412)
        assert direct.get(described).json["state"] == "open"
        assert "attachment" not in record.data

    def test_conditions_of_complete(self, record, direct):
        etag = record.put(family="sans").headers["ETag"]
        described = direct.send(CONTENT)
        direct.complete(described, status=412, headers={"If-Match": '"1"'})
        direct.complete(described, status=200, headers={"If-Match": etag})
        direct.complete(described, status=200, headers={"If-Match": etag})
        record.check(CONTENT)

    def test_a_record_that_is_deleted(self, record, direct):
        etag = record.put().headers["ETag"]
        strict, lenient = direct.send(CONTENT, headers={"If-Match": etag}), direct.send(CONTENT)
        record.http.delete(record.uri, headers=ALICE)
        direct.complete(strict, status=412)
        direct.complete(lenient)
        record.http.get(record.attachment_uri, headers=ALICE)

    def test_a_schema_that_has_changed(self, record, direct):
        described = direct.send(CONTENT, data={"family": 5})
        schema = {"type": "object", "properties": {"family": {"type": "string"}}}
        uri = record.collection.uri
        direct.http.patch_json(uri, {"data": {"schema": schema}}, headers=ALICE)
        direct.complete(described, status=400)
        record.http.get(record.uri, headers=ALICE, status=404)
        assert direct.get(described).json["state"] == "open"
        direct.http.patch_json(uri, {"data": {"schema": {}}}, headers=ALICE)
        direct.complete(described)
        assert record.data["family"] == 5

    def test_permissions_of_the_record(self, record, direct):
        described = direct.send(CONTENT, permissions={"read": ["system.Everyone"]})
        direct.complete(described)
        record.http.get(record.uri)


class TestOwnURL:
    """Where the storage cannot sign URLs, the bytes come to this server."""

    @pytest.fixture
    def site(self, make_site, kinto):
        return make_site(kinto, "local")

    @pytest.fixture(autouse=True)
    def files(self):
        return "local"

    @pytest.fixture
    def described(self, direct):
        return direct.create(len(CONTENT)).json

    def test_needs_no_credentials(self, site, record, direct, described):
        path = path_of(described["url"])
        put = site.http.put(path, CONTENT)
        assert put.headers["ETag"] == f'"{digest(CONTENT)}"'
        direct.complete(described)
        record.check(CONTENT)

    def test_cannot_be_changed(self, direct, described):
        parts = urlsplit(described["url"])
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        for name, value in (
            ("expires", str(int(query["expires"]) + 1)),
            ("expires", "x"),
            ("expires", "9" * 30),
            ("signature", "x"),
            ("signature", "é"),
            ("signature", ""),
        ):
            changed = parts._replace(query=urlencode({**query, name: value})).geturl()
            direct.put({"url": changed, "headers": {}}, CONTENT, status=403)
        for path in (parts.path[:-1] + "2", parts.path.replace(described["id"], "0" * 32)):
            changed = parts._replace(path=path).geturl()
            direct.put({"url": changed, "headers": {}}, CONTENT, status=403)
        direct.put({"url": described["url"].partition("?")[0], "headers": {}}, b"", status=403)

    def test_expires(self, direct, described, monkeypatch):
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + 3601)
        refused = direct.put(described, CONTENT, status=403)
        assert "expired" in refused.json["message"]
        (part,) = direct.get(described).json["parts"]
        direct.put(part, CONTENT)

    @pytest.mark.parametrize("content", [b"", CONTENT[:-1], CONTENT + b"!"])
    def test_takes_exactly_that_many_bytes(self, direct, described, content):
        refused = direct.put(described, content, status=400)
        assert refused.json["details"][0]["name"] == "Content-Length"
        direct.complete(described, status=409)

    def test_takes_no_more_after_the_end(self, record, direct, described):
        direct.put(described, CONTENT)
        direct.complete(described)
        direct.put(described, CONTENT, status=403)
        record.check(CONTENT)

    def test_arrives_after_the_upload_was_deleted(self, site, record, direct, described, staged):
        """Nothing is left of a part that no upload takes any more."""
        original = site.storage.put

        def put(*args):
            original(*args)
            in_thread(lambda: direct.delete(described))

        site.storage.put = put
        try:
            direct.put(described, CONTENT, status=403)
        finally:
            del site.storage.put
        assert staged() == [] == record.collection.keys

    def test_is_not_sent_for_ever(self, record, direct, described, staged):
        for _ in range(20):
            direct.put(described, CONTENT)
        direct.put(described, CONTENT, status=403)
        direct.complete(described)
        record.check(CONTENT)
        assert staged() == []

    def test_scripts_of_other_origins(self, site, described):
        path, origin = path_of(described["url"]), {"Origin": "https://app.example"}
        asked = {**origin, "Access-Control-Request-Method": "PUT"}
        allowed = site.http.options(path, headers=asked)
        assert "PUT" in allowed.headers["Access-Control-Allow-Methods"]
        put = site.http.put(path, CONTENT, headers=origin)
        assert put.headers["Access-Control-Allow-Origin"]
        assert "ETag" in put.headers["Access-Control-Expose-Headers"]
        refused = site.http.put(path, b"", headers=origin, status=400)
        assert refused.headers["Access-Control-Allow-Origin"]


@pytest.mark.parametrize("name", ["x", "%00", "*", "%2a", "..%2fx", "0" * 32, "a" * 300])
def test_unknown_uploads(direct, name):
    for method, path in (("GET", name), ("DELETE", name), ("POST", f"{name}/complete")):
        direct.http.request(
            f"{direct.base}/{path}", method=method, headers=ALICE, status=(404, 405)
        )
