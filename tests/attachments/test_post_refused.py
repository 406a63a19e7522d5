"""POST {record}/attachment: requests that are refused, and change nothing."""

import encodings
import json
import socket
import time

import pytest

from kinto_attachment.http.forms import MAX_FIELD_BYTES
from tests.support.site import BOB, SCHEMA, call_wsgi
from tests.support.threads import in_thread

FILES = {"local"}

FILE = (
    b'--XX\r\nContent-Disposition: form-data; name="attachment"; filename="a.txt"\r\n'
    b"Content-Type: text/plain\r\n\r\nhello\r\n"
)
END = b"--XX--\r\n"


def field(name: str, value: bytes, extra: bytes = b"") -> bytes:
    name = name.encode()
    head = b'--XX\r\nContent-Disposition: form-data; name="%s"\r\n%s\r\n' % (name, extra)
    return head + value + b"\r\n"


def named(disposition: str | bytes) -> bytes:
    if isinstance(disposition, str):
        disposition = disposition.encode()
    return (
        b'--XX\r\nContent-Disposition: form-data; name="attachment"; %s\r\n\r\nhello\r\n'
        % disposition
    )


REFUSED = {
    "empty body": (b"", "body: Invalid multipart form: "),
    "no boundary in body": (b"hello", "body: Invalid multipart form: "),
    "another boundary": (FILE.replace(b"XX", b"YY") + b"--YY--", "body: Invalid multipart form: "),
    "truncated in the file": (FILE[:-4], "body: Invalid multipart form: "),
    "truncated after the file": (FILE, "body: Invalid multipart form: "),
    "truncated in a header": (FILE[:40], "body: Invalid multipart form: "),
    "header without colon": (
        b"--XX\r\nContent-Disposition\r\n\r\nx\r\n" + END,
        "body: Invalid multipart form: ",
    ),
    "no disposition": (
        b"--XX\r\nContent-Type: text/plain\r\n\r\nx\r\n" + END,
        "body: Invalid multipart form: ",
    ),
    "header that is not UTF-8": (
        named(b'filename="\xff\xfe.txt"') + END,
        "body: Invalid multipart form: ",
    ),
    "too many parts": (FILE + field("data", b"{}") * 70 + END, "body: 'data' is sent twice"),
    "no parts": (END, "Attachment missing."),
    "no attachment": (field("data", b"{}") + END, "Attachment missing."),
    "attachment under another name": (
        FILE.replace(b'"attachment"', b'"fichier"') + END,
        "Attachment missing.",
    ),
    "two attachments": (FILE + FILE + END, "body: Only one attachment is allowed."),
    "no filename": (field("attachment", b"hello") + END, "body: Filename is required."),
    "empty filename": (named('filename=""') + END, "body: Filename is required."),
    "blank filename": (named('filename="  "') + END, "body: Filename is required."),
    "unknown field": (
        FILE + field("other", b"1") + END,
        "body: 'other' not in ('data', 'permissions')",
    ),
    "field without a name": (
        FILE + b"--XX\r\nContent-Disposition: form-data\r\n\r\nx\r\n" + END,
        "body: '' not in ('data', 'permissions')",
    ),
    "data that is no JSON": (
        FILE + field("data", b"{>author: 12}") + END,
        "body: data is not valid JSON (",
    ),
    "permissions that are no JSON": (
        FILE + field("permissions", b'{"read": >}') + END,
        "body: permissions is not valid JSON (",
    ),
    "data with NaN": (
        FILE + field("data", b'{"a": NaN}') + END,
        "body: data is not valid JSON (",
    ),
    "data that is very deep": (
        FILE + field("data", b"[" * 100_000) + END,
        "body: data is not valid JSON (",
    ),
    "data that is deep": (
        FILE + field("data", b'{"a":' * 400 + b"1" + b"}" * 400) + END,
        "body: data is nested too deeply",
    ),
    "data that is a list": (FILE + field("data", b"[]") + END, "body: data is not a JSON object"),
    "data that is null": (FILE + field("data", b"null") + END, "body: data is not a JSON object"),
    "permissions that are a text": (
        FILE + field("permissions", b'"read"') + END,
        "body: permissions is not a JSON object",
    ),
    "data with a null character": (
        FILE + field("data", b'{"a": ["\\u0000"]}') + END,
        "body: data contains a null character",
    ),
    "data twice": (FILE + field("data", b"{}") * 2 + END, "body: 'data' is sent twice"),
    "data as a file": (
        FILE
        + b'--XX\r\nContent-Disposition: form-data; name="data"; filename="data"\r\n\r\n{}\r\n'
        + END,
        "body: 'data' field should be passed as form data, not files",
    ),
    "data over 1 MiB": (
        FILE + field("data", b" " * (MAX_FIELD_BYTES + 1)) + END,
        f"body: 'data' is over {MAX_FIELD_BYTES} bytes",
    ),
    "permissions over 1 MiB, first": (
        field("permissions", b" " * (MAX_FIELD_BYTES + 1)) + FILE + END,
        f"body: 'permissions' is over {MAX_FIELD_BYTES} bytes",
    ),
    "endless unknown field": (
        field("other", b" " * (6 * MAX_FIELD_BYTES)) + FILE + END,
        "body: 'other' not in ('data', 'permissions')",
    ),
    "endless preamble": (
        b"\r\n" * (3 * MAX_FIELD_BYTES) + FILE + END,
        "body: The form has over 4194304 bytes besides its file.",
    ),
    "unknown charset": (
        FILE + field("data", b"{}", b"Content-Type: text/plain; charset=klingon\r\n") + END,
        "body: 'data' has an unknown charset (klingon)",
    ),
    "charset that is no text": (
        FILE + field("data", b"{}", b"Content-Type: text/plain; charset=hex\r\n") + END,
        "body: 'data' has an unknown charset (hex)",
    ),
    "charset that takes long": (
        FILE
        + field("data", b"a" * 400_000, b"Content-Type: text/plain; charset=punycode\r\n")
        + END,
        "body: 'data' has an unknown charset (punycode)",
    ),
    "charset of host names": (
        FILE + field("data", b"a." * 200_000, b"Content-Type: text/plain; charset=idna\r\n") + END,
        "body: 'data' has an unknown charset (idna)",
    ),
    "wrong charset": (
        FILE + field("data", b'{"a": "\xff"}') + END,
        "body: 'data' is not utf-8 text",
    ),
    "refused extension": (
        named('filename="virus.exe"') + END,
        "body: File extension is not allowed.",
    ),
    "no extension": (named('filename="README"') + END, "body: File extension is not allowed."),
    "null in the filename": (
        named(b'filename="a\x00.txt"') + END,
        "body: Filename cannot contain control characters.",
    ),
    "newline in the filename": (
        named('filename="a%0D%0A.txt"') + END,
        "body: Filename cannot contain control characters.",
    ),
    "path": (named('filename="/etc/pass.txt"') + END, "body: Filename cannot be a path."),
    "path that climbs": (named('filename="../a.txt"') + END, "body: Filename cannot be a path."),
    "path of Windows": (named('filename="a\\\\b.txt"') + END, "body: Filename cannot be a path."),
    "dot dot": (named('filename=".."') + END, "body: Filename cannot be a path."),
    "10000 characters": (
        named(f'filename="{"a" * 9996}.txt"') + END,
        "body: Filename is too long (10000 characters, 255 are allowed).",
    ),
    "extended path": (
        named("filename*=UTF-8''..%2Fa.txt") + END,
        "body: Filename cannot be a path.",
    ),
    "extended null": (
        named("filename*=UTF-8''a%00.txt") + END,
        "body: Filename cannot contain control characters.",
    ),
    "extended and badly encoded": (
        named("filename*=UTF-8''%ff.txt") + END,
        "body: Filename cannot be decoded (",
    ),
    "extended in an unknown charset": (
        named("filename*=klingon''a.txt") + END,
        "body: Filename cannot be decoded (",
    ),
    "extended and too long": (
        named(f"filename*=UTF-8''{'a' * 5000}.txt") + END,
        "body: Filename is too long (5004 characters, 255 are allowed).",
    ),
}


def check_error(response, status: int, message: str) -> None:
    error = response.json
    assert response.status_int == error["code"] == status
    assert {"code", "errno", "error"} <= set(error)
    assert error.get("message", "").startswith(message)


@pytest.mark.parametrize("filename", ["virus.exe", "a.b", "README"])
def test_a_refused_extension_is_named(make_site, filename):
    site = make_site("memory", "local", **{"kinto.attachment.extensions": "images+.ftl"})
    response = site.collection().record().upload(filename=filename, status=400)
    assert response.json["message"] == "body: File extension is not allowed."
    (detail,) = response.json["details"]
    assert detail["name"] == "attachment"
    extension = filename.partition(".")[2]
    wrong = f"Extension {extension!r} is not allowed" if extension else "There is none"
    assert detail["description"].startswith(f"{wrong}; accepted are avif, bmp, ftl, gif, ")


@pytest.mark.parametrize("case", REFUSED)
def test_is_refused_and_changes_nothing(site, case):
    body, message = REFUSED[case]
    record = site.collection().record()
    response = record.post_raw(body, status=400)
    check_error(response, 400, message)
    assert response.json["details"][0]["name"]
    assert record.snapshot() == (404, None, None, None, [], [], [])

    record.upload(b"first", data={"family": "sans"}, permissions={"read": ["system.Everyone"]})
    before = record.snapshot()
    check_error(record.post_raw(body, status=400), 400, message)
    assert record.snapshot() == before


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "", "text/plain", "multipart/mixed; boundary=XX", "nonsense"],
)
def test_other_types_are_refused(make_site, content_type):
    record = make_site().collection().record()
    response = record.post(FILE + END, content_type, status=400)
    check_error(response, 400, "Content-Type should be multipart/form-data")
    assert response.json["details"][0]["name"] == "Content-Type"


@pytest.mark.parametrize("boundary", ["", "é", "x" * 300, "a "])
def test_bad_boundaries_are_refused(make_site, boundary):
    record = make_site().collection().record()
    content_type = f'multipart/form-data; boundary="{boundary}"'
    response = record.post(FILE + END, content_type.encode("utf-8").decode("latin-1"), status=400)
    check_error(response, 400, "Invalid boundary in multipart form: '")


def test_no_boundary_is_refused(make_site):
    record = make_site().collection().record()
    response = record.post(FILE + END, "multipart/form-data", status=400)
    check_error(response, 400, "Invalid boundary in multipart form: ''")


def test_schema_violation(site):
    record = site.collection(schema=SCHEMA).record()
    response = record.upload(data={"author": 12}, status=400)
    check_error(response, 400, "author in body: 12 is not of type ")
    assert record.snapshot() == (404, None, None, None, [], [], [])
    record.upload(b"first")
    before = record.snapshot()
    record.upload(b"second", data={"author": 12}, status=400)
    assert record.snapshot() == before


def test_invalid_permissions(site):
    record = site.collection().record()
    record.upload(b"first")
    before = record.snapshot()
    record.upload(b"second", permissions={"fly": ["system.Everyone"]}, status=400)
    record.upload(b"second", permissions={"read": "system.Everyone"}, status=400)
    assert record.snapshot() == before


def test_another_id_in_data(site):
    record = site.collection().record()
    record.upload(b"first")
    before = record.snapshot()
    record.upload(b"second", data={"id": "other"}, status=400)
    assert record.snapshot() == before


class TestMaxSize:
    LIMIT = {"kinto.attachment.max_size": "10"}

    def test_exactly_the_limit_is_accepted(self, make_site, kinto, files):
        record = make_site(kinto, files, **self.LIMIT).collection().record()
        record.upload(b"0123456789", status=201)

    @pytest.mark.parametrize("size", [11, 300_000])
    def test_over_the_limit_is_refused_with_its_size(self, make_site, kinto, files, size):
        record = make_site(kinto, files, **self.LIMIT).collection().record()
        record.upload(b"first")
        before = record.snapshot()
        response = record.upload(b"x" * size, status=400)
        check_error(response, 400, f"body: File size ({size} bytes) exceeds the limit (10 bytes).")
        assert record.snapshot() == before

    def test_declared_length_is_judged_before_the_body(self, make_site):
        record = make_site(**self.LIMIT).collection().record()
        environ = {"CONTENT_LENGTH": str(10**12), "CONTENT_TYPE": "multipart/form-data; boundary=X"}
        read = []

        class Input:
            def read(self, size=-1):
                read.append(size)
                return b""

        environ.update({"wsgi.input": Input(), "REQUEST_METHOD": "POST"})
        response = call_wsgi(record, environ)
        check_error(response, 400, f"body: File size ({10**12} bytes) exceeds the limit")
        assert len(read) <= 1  # the rest of the body is drained, and is empty

    def test_a_chunked_body_is_stopped_at_the_limit(self, make_site):
        record = make_site(**self.LIMIT).collection().record()
        chunks = [FILE[:-2]] + [b"x" * 65536] * 10_000
        read = []

        class Input:
            def read(self, size=-1):
                chunk = chunks[len(read)] if len(read) < len(chunks) else b""
                read.append(len(chunk))
                return chunk

        environ = {
            "wsgi.input": Input(),
            "wsgi.input_terminated": True,
            "CONTENT_TYPE": "multipart/form-data; boundary=XX",
            "REQUEST_METHOD": "POST",
        }
        response = call_wsgi(record, environ)
        assert "exceeds the limit (10 bytes)" in response.json["message"]
        assert sum(read) < 20 * 1024 * 1024  # of 640 MiB
        assert record.snapshot()[0] == 404

    def test_bucket_and_collection_have_their_own(self, make_site):
        site = make_site(
            **self.LIMIT,
            **{
                "kinto.attachment.resources.limited.max_size_bytes": "5",
                "kinto.attachment.resources.limited.free.max_size": "0",
            },
        )
        record = site.collection().record()
        for bucket, collection, size in (("limited", "some", 5), ("limited", "free", 10**6)):
            uri = f"/buckets/{bucket}/collections/{collection}"
            for parent in (f"/buckets/{bucket}", uri):
                record.http.put_json(
                    parent, {}, headers={"Authorization": "Basic YWxpY2U6c2VjcmV0"}
                )
            record.attachment_uri = f"{uri}/records/r/attachment"
            record.upload(b"x" * size)
            if size == 5:
                record.upload(b"x" * 6, status=400)


class TestClientThatDisconnects:
    @pytest.mark.parametrize("error", [OSError("reset"), ValueError("NoMoreData")])
    def test_leaves_nothing(self, site, error):
        record = site.collection().record()
        record.upload(b"first")
        before = record.snapshot()

        class Input:
            chunks = [FILE, b"x" * 100_000]

            def read(self, size=-1):
                if self.chunks:
                    return self.chunks.pop(0)
                raise error

        environ = {
            "wsgi.input": Input(),
            "CONTENT_LENGTH": "1000000",
            "CONTENT_TYPE": "multipart/form-data; boundary=XX",
            "REQUEST_METHOD": "POST",
        }
        response = call_wsgi(record, environ)
        check_error(response, 400, "body: The request body could not be read")
        assert record.snapshot() == before


class TestPermissions:
    def test_anonymous(self, record):
        check_error(record.upload(headers={"Authorization": ""}, status=401), 401, "Please auth")
        assert record.snapshot() == (404, None, None, None, [], [], [])

    def test_another_user(self, record):
        record.upload(b"first")
        before = record.snapshot()
        check_error(record.upload(headers=BOB, status=403), 403, "This user cannot")
        check_error(record.detach(headers=BOB, status=403), 403, "This user cannot")
        assert record.snapshot() == before

    def test_missing_collection(self, site):
        record = site.collection().record()
        record.attachment_uri = record.attachment_uri.replace("/fonts/", "/nope/")
        check_error(record.upload(status=404), 404, "")
        record.attachment_uri = "/buckets/nope/collections/nope/records/nope/attachment"
        check_error(record.upload(status=404), 404, "")

    def test_bad_record_id(self, make_site):
        record = make_site().collection().record("-%20-")
        check_error(record.upload(status=400), 400, "path: Invalid object id")

    @pytest.mark.parametrize("bucket, collection", [("a%00b", "c"), ("b", "c%00"), ("-", "c")])
    def test_bad_bucket_and_collection_ids(self, make_site, kinto, bucket, collection):
        record = make_site(kinto).collection().record()
        uri = f"/buckets/{bucket}/collections/{collection}/records/r/attachment"
        record.attachment_uri = uri
        check_error(record.upload(status=404), 404, "")
        check_error(record.detach(status=404), 404, "")

    def test_bad_collection_id_in_the_default_bucket(self, make_site, kinto):
        """Kinto answers so because it would create the collection."""
        record = make_site(kinto).collection().record()
        record.attachment_uri = "/buckets/default/collections/c%00/records/r/attachment"
        check_error(record.upload(status=400), 400, "path: Invalid collection id")
        check_error(record.detach(status=400), 400, "path: Invalid collection id")

    def test_record_id_that_no_file_can_have(self, make_site):
        site = make_site(
            **{
                "kinto.attachment.randomize": "false",
                "kinto.attachment.filename_pattern": "{record_id}",
            }
        )
        record = site.collection().record("r" * 300)
        check_error(record.upload(status=400), 400, "The file cannot be stored under the name")
        assert record.snapshot()[0] == 404

    @pytest.mark.parametrize("method", ["put_json", "patch_json"])
    def test_other_methods(self, make_site, method):
        record = make_site().collection().record()
        record.upload()
        call = getattr(record.http, method)
        check_error(call(record.attachment_uri, status="*"), 405, "Method not allowed")

    def test_readonly_server(self, make_site):
        record = make_site(**{"kinto.readonly": "true"})
        response = record.http.post("/buckets/a/collections/b/records/c/attachment", status="*")
        assert response.status_int == 405


def test_unknown_charsets_leave_nothing_in_memory(make_site):
    """Python remembers every name of a charset that it was asked for."""
    record = make_site("memory", "local").collection().record()
    known = len(encodings._cache)
    for number in range(3):
        charset = f"{number}{'y' * 20_000}"
        extra = f"Content-Type: text/plain; charset={charset}\r\n".encode()
        record.post_raw(FILE + field("data", b"{}", extra) + END, status=400)
        record.post_raw(named(f"filename*={charset}''a.txt") + END, status=400)
    assert len(encodings._cache) == known


class TestPreconditions:
    def test_a_stale_if_match_is_refused(self, record):
        record.upload(b"first")
        stale = {"If-Match": '"1000000000000"'}
        before = record.snapshot()
        response = record.upload(b"second", headers=stale, status=412)
        check_error(response, 412, "Resource was modified meanwhile")
        assert response.json["details"]["existing"] == before[1]
        check_error(record.detach(headers=stale, status=412), 412, "Resource was modified")
        assert record.snapshot() == before

    def test_if_none_match_on_an_existing_record_is_refused(self, record):
        record.upload(b"first")
        before = record.snapshot()
        never = {"If-None-Match": "*"}
        check_error(record.upload(b"second", headers=never, status=412), 412, "Resource was")
        check_error(record.detach(headers=never, status=412), 412, "Resource was")
        assert record.snapshot() == before

    def test_if_match_without_a_record_is_refused(self, record):
        check_error(record.upload(headers={"If-Match": '"1"'}, status=412), 412, "Resource was")
        assert record.snapshot() == (404, None, None, None, [], [], [])

    def test_malformed_preconditions_are_refused(self, record):
        record.upload(b"first")
        before = record.snapshot()
        for name in ("If-Match", "If-None-Match"):
            for value in ("yesterday", "*,*", "**", "*1*", '"1", "2"', '"1', f'"{"9" * 5000}"'):
                for response in (
                    record.upload(b"second", headers={name: value}, status=400),
                    record.detach(headers={name: value}, status=400),
                ):
                    assert response.json["details"][0]["name"] == name
        assert record.snapshot() == before

    def test_preconditions_that_hold(self, record):
        etag = record.upload(b"first", headers={"If-None-Match": "*"}, status=201).headers["ETag"]
        etag = record.upload(b"second", headers={"If-Match": etag}, status=200).headers["ETag"]
        record.upload(b"third", headers={"If-Match": "*"}, status=200)
        record.check(b"third")
        assert record.detach(headers={"If-Match": "*"}, status=204)

    def test_preconditions_are_checked_again_after_the_body(self, site, monkeypatch):
        """The record changes while the body arrives."""
        record = site.collection().record()
        etag = record.upload(b"first").headers["ETag"]
        body = record.http.encode_multipart([], [("attachment", "a.txt", b"second")])

        class Input:
            data = body[1]

            def read(self, size=-1):
                if self.data:
                    record.http.patch_json(
                        record.uri,
                        {"data": {"family": "serif"}},
                        headers={"Authorization": "Basic YWxpY2U6c2VjcmV0"},
                    )
                chunk, self.data = self.data, b""
                return chunk

        environ = {
            "wsgi.input": Input(),
            "CONTENT_LENGTH": str(len(body[1])),
            "CONTENT_TYPE": body[0],
            "HTTP_IF_MATCH": etag,
            "REQUEST_METHOD": "POST",
        }
        in_thread(lambda: check_error(call_wsgi(record, environ), 412, "Resource was modified"))
        assert record.data["family"] == "serif"
        record.check(b"first")


def test_a_silent_storage(make_site, kinto):
    """The response is a 503 in bounded time, and nothing changes."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(50)
        site = make_site(
            kinto,
            "moto",
            **{
                "kinto.attachment.aws.endpoint_url": f"http://127.0.0.1:{silent.getsockname()[1]}",
                "kinto.attachment.aws.timeout": "0.5",
                "kinto.attachment.aws.num_retries": "1",
            },
        )
        record = site.collection().record()
        record.put(family="sans")
        started = time.monotonic()
        response = record.upload(status=503)
        assert time.monotonic() - started < 10
        check_error(response, 503, "The file storage is unavailable")
        assert response.headers["Retry-After"]
        assert record.data.keys() == {"id", "last_modified", "family"}
        assert record.collection.links == []
        assert json.loads(record.http.get("/").body)
