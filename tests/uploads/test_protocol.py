"""The headers of tus, the text of refusals, and permissions."""

import pytest

from tests.support.site import ALICE, BOB
from tests.support.tus import STREAM, VERSION, Uploads, encode

FILES = {"local"}

UNKNOWN = "0" * 32

SETTINGS = {
    "kinto.attachment.resources.limited_bucket.max_size": "10",
    "kinto.attachment.extensions": "default",
    "kinto.cors_origins": "*",
}


@pytest.fixture
def site(make_site, kinto, files):
    return make_site(kinto, files, **SETTINGS)


def check_refusal(answer, name, location="header"):
    assert answer.headers["Tus-Resumable"] == "1.0.0"
    (detail,) = answer.json["details"]
    assert (detail["location"], detail["name"]) == (location, name)
    assert detail["description"]


class TestVersion:
    @pytest.mark.parametrize("version", [None, "0.2.2", "1", ""])
    def test_is_needed(self, uploads, version):
        url = uploads.create(5).headers["Location"].partition("/v1")[2]
        headers = {**ALICE, "Upload-Offset": "0", "Upload-Length": "5", "Content-Type": STREAM}
        headers |= {"Tus-Resumable": version} if version is not None else {}
        for method, path in (
            ("POST", uploads.base),
            ("GET", uploads.base),
            *((method, url) for method in ("HEAD", "GET", "PATCH", "DELETE")),
        ):
            body = b"hello" if method in ("POST", "PATCH") else b""
            answer = uploads.http.request(
                path, method=method, headers=headers, body=body, status=412
            )
            assert answer.headers["Tus-Version"] == answer.headers["Tus-Resumable"] == "1.0.0"
        assert uploads.offset(url) == 0

    def test_is_on_errors(self, uploads):
        unknown = f"{uploads.base}/{UNKNOWN}"
        assert uploads.head(unknown, status=404).headers["Tus-Resumable"] == "1.0.0"
        answer = uploads.http.get(uploads.base, status=401)
        assert answer.headers["Tus-Resumable"] == "1.0.0"
        answer = uploads.http.put(unknown, headers=ALICE, status=405)
        assert answer.headers["Tus-Resumable"] == "1.0.0"


class TestOptions:
    def test_of_anyone(self, uploads):
        for path in (uploads.base, f"{uploads.base}/{UNKNOWN}"):
            answer = uploads.http.options(path, status=204)
            assert answer.headers["Tus-Version"] == "1.0.0"
            assert answer.headers["Tus-Checksum-Algorithm"] == "sha1,sha256,md5"
            extensions = set(answer.headers["Tus-Extension"].split(","))
            assert extensions == {
                "creation",
                "creation-with-upload",
                "creation-defer-length",
                "expiration",
                "checksum",
                "termination",
                "concatenation",
            }
            assert "Tus-Max-Size" not in answer.headers

    def test_limit(self, site):
        path = "/buckets/limited_bucket/collections/c/records/r/attachment/uploads"
        assert site.http.options(path).headers["Tus-Max-Size"] == "10"

    @pytest.mark.parametrize("method", ["POST", "GET"])
    def test_preflight(self, uploads, method):
        names = (
            "Authorization,Content-Type,If-Match,If-None-Match,Tus-Resumable,Upload-Length,"
            "Upload-Offset,Upload-Metadata,Upload-Defer-Length,Upload-Concat,Upload-Checksum,"
            "X-HTTP-Method-Override,X-Request-ID"
        )
        headers = {
            "Origin": "https://app.example",
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": names,
        }
        answer = uploads.http.options(uploads.base, headers=headers, status=200)
        allowed = {
            name.strip().lower()
            for name in answer.headers["Access-Control-Allow-Headers"].split(",")
        }
        assert {name.lower() for name in names.split(",")} <= allowed

    @pytest.mark.parametrize("method", ["PATCH", "HEAD", "DELETE", "POST"])
    def test_preflight_of_an_upload(self, uploads, method):
        headers = {"Origin": "https://app.example", "Access-Control-Request-Method": method}
        answer = uploads.http.options(f"{uploads.base}/{UNKNOWN}", headers=headers, status=200)
        assert method in answer.headers["Access-Control-Allow-Methods"]

    def test_exposed(self, uploads):
        origin = {"Origin": "https://app.example"}
        url = uploads.create(5, headers=origin).headers["Location"]
        conflict = uploads.patch(url, 3, b"lo", headers=origin, status=409)
        for answer in (uploads.head(url, headers=origin), conflict):
            exposed = answer.headers["Access-Control-Expose-Headers"]
            names = {name.strip() for name in exposed.split(",")}
            assert answer.headers["Access-Control-Allow-Origin"] == "*"
            assert {
                "Location",
                "Upload-Offset",
                "Upload-Length",
                "Upload-Metadata",
                "Upload-Expires",
                "Upload-Concat",
                "Upload-Defer-Length",
                "Tus-Resumable",
                "Tus-Version",
                "Tus-Extension",
                "Tus-Max-Size",
                "ETag",
                "Content-Location",
            } <= names


class TestCreation:
    @pytest.mark.parametrize(
        "headers",
        [
            {"Upload-Length": None},
            {"Upload-Length": "-1"},
            {"Upload-Length": "5.0"},
            {"Upload-Length": "\xb2"},
            {"Upload-Length": "9" * 30},
            {"Upload-Length": "five"},
            {"Upload-Defer-Length": "1"},
            {"Upload-Length": None, "Upload-Defer-Length": "0"},
            {"Upload-Length": None, "Upload-Defer-Length": "true"},
        ],
    )
    def test_wrong_length(self, uploads, headers):
        answer = uploads.create(5, headers=headers, status=400)
        name = "Upload-Defer-Length" if headers.get("Upload-Defer-Length", "1") != "1" else None
        check_refusal(answer, name or "Upload-Length")

    @pytest.mark.parametrize(
        "metadata",
        [
            "filename",  # without a value there is no name
            "filename YS50eHQ",
            "filename YS50eHQ=,filename YS50eHQ=",
            "filename YS50eHQ= YS50eHQ=",
            "filename YS50eHQ=,,",
            "filename /w==",
            "filename YS9iLnR4dA==",  # a/b.txt
            "filename YS50eHQ=,data W10=",  # a list
            "filename YS50eHQ=,data eyI=",  # not JSON
            "filename YS50eHQ=,permissions MQ==",
            "filename YS5leGU=",  # a.exe
            "",
        ],
    )
    def test_wrong_metadata(self, uploads, metadata):
        uploads.create(5, headers={"Upload-Metadata": metadata or None}, status=400)

    def test_metadata_are_echoed(self, uploads):
        text = f"{encode({'filename': 'façade.txt'})} , is_confidential,note"
        url = uploads.create(5, headers={"Upload-Metadata": text}).headers["Location"]
        assert uploads.head(url).headers["Upload-Metadata"] == text
        uploads.patch(url, 0, b"hello")
        assert uploads.head(url).headers["Upload-Metadata"] == text

    def test_names_of_the_type(self, record, uploads):
        for key in ("filetype", "type"):
            uploads.create(2, b"{}", filename="a.json", **{key: "application/problem+json"})
            assert record.data["attachment"]["mimetype"] == "application/problem+json"

    def test_too_large(self, site):
        site.http.put_json("/buckets/limited_bucket", {}, headers=ALICE)
        collection = "/buckets/limited_bucket/collections/c"
        site.http.put_json(collection, {}, headers=ALICE)
        uploads = Uploads(site.http, f"{collection}/records/r/attachment/uploads")
        answer = uploads.create(11, status=413)
        check_refusal(answer, "Upload-Length")
        assert answer.json["message"] == "File size (11 bytes) exceeds the limit (10 bytes)."
        uploads.create(10)
        url = uploads.create(None).headers["Location"]
        uploads.patch(url, 0, b"0123456")
        uploads.patch(url, 7, b"0123456", status=413)
        uploads.patch(url, 7, b"", headers={"Upload-Length": "11"}, status=413)
        assert uploads.offset(url) == 7
        parts = [
            uploads.create(6, b"6 byte", {"Upload-Concat": "partial"}).headers["Location"]
            for _ in range(2)
        ]
        final = {"Upload-Concat": f"final;{' '.join(parts)}", "Upload-Length": None}
        uploads.create(0, headers=final, status=413)
        uploads.create(11, headers={"Upload-Concat": "partial"}, status=413)

    def test_in_a_batch(self, uploads):
        request = {"method": "POST", "path": f"/v1{uploads.base}", "headers": VERSION}
        body = {"requests": [{**request, "body": {}}]}
        answer = uploads.http.post_json("/batch", body, headers=ALICE)
        assert answer.json["responses"][0]["status"] == 400


class TestSend:
    def test_wrong_offset(self, uploads):
        url = uploads.create(5, b"hel").headers["Location"]
        for offset in ("0", "2", "4", "5", "100"):
            answer = uploads.patch(url, 0, b"lo", {"Upload-Offset": offset}, status=409)
            check_refusal(answer, "Upload-Offset")
            assert "must be 3" in answer.json["message"]
        for offset in ("-1", "x", "", "3.0"):
            uploads.http.patch(
                url.partition("/v1")[2],
                b"lo",
                headers={**ALICE, **VERSION, "Upload-Offset": offset, "Content-Type": STREAM},
                status=400,
            )
        answer = uploads.patch(url, 0, b"lo", {"Upload-Offset": None}, status=400)
        check_refusal(answer, "Upload-Offset")
        assert uploads.offset(url) == 3

    @pytest.mark.parametrize("mimetype", [None, "application/octet-stream", "text/plain"])
    def test_wrong_type(self, uploads, mimetype):
        url = uploads.create(5).headers["Location"]
        answer = uploads.patch(url, 0, b"hello", {"Content-Type": mimetype}, status=415)
        check_refusal(answer, "Content-Type")
        assert uploads.offset(url) == 0

    def test_past_the_length(self, uploads):
        url = uploads.create(5, b"hel").headers["Location"]
        uploads.patch(url, 3, b"lo!", status=413)
        assert uploads.offset(url) == 3

    def test_to_a_finished_one(self, record, uploads):
        url = uploads.create(5, b"hello").headers["Location"]
        uploads.patch(url, 5, b"!", status=403)
        uploads.patch(url, 5, b"", status=403)
        record.check(b"hello")

    def test_compressed(self, uploads):
        url = uploads.create(5).headers["Location"]
        uploads.patch(url, 0, b"hello", {"Content-Encoding": "gzip"}, status=415)
        assert uploads.offset(url) == 0


class TestOverride:
    def test_each_method(self, record, uploads):
        url = uploads.create(5).headers["Location"].partition("/v1")[2]

        def post(method, body=b"", status=200, **headers):
            sent = {**ALICE, **VERSION, "X-HTTP-Method-Override": method, **headers}
            return uploads.http.post(url, body, headers=sent, status=status)

        sent = {"Content-Type": STREAM, "Upload-Offset": "0"}
        assert post("PATCH", b"hel", 204, **sent).headers["Upload-Offset"] == "3"
        assert post("HEAD").headers["Upload-Offset"] == "3"
        post("patch", b"lo", 204, **{**sent, "Upload-Offset": "3"})
        record.check(b"hello")
        post("DELETE", status=204)
        uploads.head(url, status=404)

    @pytest.mark.parametrize("method", [None, "PUT", "GET", ""])
    def test_another_method(self, uploads, method):
        url = uploads.create(5).headers["Location"].partition("/v1")[2]
        headers = {**ALICE, **VERSION}
        headers |= {"X-HTTP-Method-Override": method} if method is not None else {}
        uploads.http.post(url, headers=headers, status=405)


class TestOwner:
    def test_another_writer_does_not_see_it(self, record, uploads):
        record.put()
        writers = {"permissions": {"write": ["system.Authenticated"]}}
        record.http.patch_json(record.uri, writers, headers=ALICE)
        url = uploads.create(5, b"hel").headers["Location"]
        bobs = Uploads(record.http, uploads.base, BOB)
        for call in (bobs.head, bobs.get, bobs.delete):
            call(url, status=404)
        bobs.patch(url, 3, b"lo", status=404)
        assert bobs.get(bobs.base).json == []
        assert uploads.offset(url) == 3

    def test_without_permission(self, uploads):
        url = uploads.create(5, b"hel").headers["Location"]
        bobs = Uploads(uploads.http, uploads.base, BOB)
        bobs.create(5, status=403)
        for call in (bobs.head, bobs.get, bobs.delete):
            call(url, status=403)
        bobs.patch(url, 3, b"lo", status=403)
        anonymous = Uploads(uploads.http, uploads.base, {})
        anonymous.create(5, status=401)
        anonymous.patch(url, 3, b"lo", status=401)

    def test_below_another_record(self, site, uploads):
        upload_id = uploads.create(5, b"hel").headers["Location"].rpartition("/")[2]
        other = site.collection().record()
        others = Uploads(other.http, f"{other.attachment_uri}/uploads")
        others.head(f"{others.base}/{upload_id}", status=404)
        others.patch(f"{others.base}/{upload_id}", 3, b"lo", status=404)

    def test_unknown(self, uploads):
        for name in (UNKNOWN, "x", "%00", "*", "%2a", "..%2fx", "a" * 300):
            uploads.head(f"{uploads.base}/{name}", status=404)

    def test_creator_of_records_only(self, site):
        collection = site.collection()
        may_create = {"permissions": {"record:create": ["system.Authenticated"]}}
        site.http.patch_json(collection.uri, may_create, headers=ALICE)
        record = collection.record()
        bobs = Uploads(site.http, f"{record.attachment_uri}/uploads", BOB)
        url = bobs.create(5).headers["Location"]
        assert bobs.offset(url) == 0
        bobs.patch(url, 0, b"hel")
        bobs.patch(url, 3, b"lo")
        assert site.http.get(record.uri, headers=BOB).json["data"]["attachment"]["size"] == 5
        again = bobs.create(5).headers["Location"]
        bobs.delete(again)
