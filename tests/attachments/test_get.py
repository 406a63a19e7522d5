"""``GET`` and ``HEAD {record}/attachment``: a real client, real servers, every file storage."""

import re
import secrets
import socket
from base64 import b64encode
from hashlib import sha256
from urllib.parse import unquote, urlsplit

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.http_record import ALICE, BOB, CONTENT, HTTPRecord, parts_of
from tests.support.servers.wsgi import UWSGI, Gunicorn, GunicornSync, Waitress
from tests.support.site import Site

FILES = {"local", "seaweedfs"}

SERVERS = [
    (Gunicorn, "postgresql", "local"),
    pytest.param((Gunicorn, "memory", "local"), marks=pytest.mark.slow),
    (Gunicorn, "postgresql", "seaweedfs"),
    (Gunicorn, "memory", "gcs"),
    (GunicornSync, "memory", "local"),
    (Waitress, "memory", "local"),
    (Waitress, "memory", "seaweedfs"),
    (UWSGI, "memory", "local"),
]


@pytest.fixture(
    scope="module", params=SERVERS, ids=lambda param: f"{param[0].__name__}-{param[1]}-{param[2]}"
)
def server(request, field_name, kinto_settings, file_settings, tmp_path_factory):
    kind, kinto, files = request.param
    options = {"fresh": True} if kinto == "postgresql" else {}
    settings = {
        **kinto_settings(kinto, **options),
        **file_settings(files),
        "kinto.attachment.extensions": "any",
        "kinto.attachment.fields": field_name,
    }
    if kinto == "postgresql":
        Site(**settings).close()  # creates the tables
    with kind(settings, tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def record(server, field_name):
    return HTTPRecord(server, field_name)


@pytest.fixture(scope="module")
def attached(server, field_name):
    """A record with a file, which no test changes."""
    attached = HTTPRecord(server, field_name)
    attached.upload()
    return attached


class TestHeaders:
    def test_the_whole_file(self, attached):
        response = attached.get()
        assert response.status_code == 200
        assert response.content == CONTENT
        assert response.headers["Content-Length"] == str(len(CONTENT))
        assert response.headers["Accept-Ranges"] == "bytes"
        assert "Transfer-Encoding" not in response.headers

    def test_validators(self, attached):
        digest = sha256(CONTENT)
        headers = attached.get().headers
        assert headers["ETag"] == f'"{digest.hexdigest()}"'
        assert headers["Repr-Digest"] == f"sha-256=:{b64encode(digest.digest()).decode()}:"
        assert headers["Last-Modified"].endswith("GMT")

    def test_last_modified_is_of_the_file(self, record):
        record.upload()
        before = record.get().headers["Last-Modified"]
        written = requests.get(record.record, auth=ALICE, timeout=60).headers["Last-Modified"]
        assert before == written
        # As if the record was written two seconds later.
        later = requests.get(record.record, auth=ALICE, timeout=60).json()["data"]
        body = {"data": {"last_modified": later["last_modified"] + 2000}}
        requests.patch(record.record, json=body, auth=ALICE, timeout=60).raise_for_status()
        written = requests.get(record.record, auth=ALICE, timeout=60).headers["Last-Modified"]
        assert written != before
        assert record.get().headers["Last-Modified"] == before

    def test_every_response_is_sandboxed(self, attached):
        for response in (
            attached.get(),
            attached.get(Range="bytes=0-1"),
            attached.get(method="HEAD"),
        ):
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            policy = response.headers["Content-Security-Policy"]
            assert "sandbox" in policy.split("; ") and "default-src 'none'" in policy.split("; ")

    def test_caching(self, record):
        record.upload()
        assert record.get().headers["Cache-Control"] == "private, no-cache"
        record.share("system.Everyone")
        assert record.get(auth=None).headers["Cache-Control"] == "no-cache"

    def test_head(self, attached):
        whole, head = attached.get(), attached.get(method="HEAD")
        assert head.status_code == 200
        assert head.content == b""
        for name in {*whole.headers, *head.headers} - {"Date", "Connection", "Keep-Alive"}:
            assert head.headers.get(name) == whole.headers.get(name), name

    def test_head_knows_no_ranges(self, attached):
        head = attached.get(method="HEAD", Range="bytes=0-9")
        assert (head.status_code, head.headers["Content-Length"]) == (200, str(len(CONTENT)))

    def test_head_sends_nothing_after_the_headers(self, attached):
        url = urlsplit(attached.url)
        ask = f"HEAD {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\nConnection: close\r\n"
        ask += "Authorization: Basic YWxpY2U6c2VjcmV0\r\n\r\n"
        with socket.create_connection((url.hostname, url.port), timeout=60) as connection:
            connection.sendall(ask.encode())
            answer = b""
            while chunk := connection.recv(65536):
                answer += chunk
        assert answer.startswith(b"HTTP/1.1 200")
        assert answer.endswith(b"\r\n\r\n") and answer.count(b"\r\n\r\n") == 1

    def test_empty_file(self, record):
        record.upload(b"", "empty.txt", "text/plain")
        for method in ("GET", "HEAD"):
            response = record.get(method=method)
            assert (response.status_code, response.content) == (200, b"")
            assert response.headers["Content-Length"] == "0"
            assert response.headers["ETag"] == f'"{sha256(b"").hexdigest()}"'

    def test_connection_is_kept(self, attached):
        """Each response has the declared length, so the next one can follow on the connection."""
        with requests.Session() as session:
            # uWSGI closes the connection without announcing it.
            ask = requests if isinstance(attached.server, UWSGI) else session
            options = {"auth": ALICE, "timeout": 60}
            for ranges in ("bytes=0-9", "bytes=0-1,5-6", "bytes=9-"):
                assert ask.get(attached.url, **options).content == CONTENT
                assert ask.head(attached.url, **options).status_code == 200
                assert ask.get(attached.url, headers={"Range": ranges}, **options).ok


class TestTypes:
    @pytest.mark.parametrize(
        "mimetype, content, disposition",
        [
            ("image/png", b"\x89PNG\r\n\x1a\n", "inline"),
            ("audio/ogg", b"OggS", "inline"),
            ("video/mp4", b"\0\0\0\x18ftypmp42", "inline"),
            ("application/pdf", b"%PDF-1.4", "inline"),
            ("text/plain", b"text", "inline"),
            ("text/html", b"<html>", "attachment"),
            ("image/svg+xml", b"<svg/>", "attachment"),
            ("application/json", b"{}", "attachment"),
            ("text/css", b"*{}", "attachment"),
            ("application/octet-stream", b"x", "attachment"),
        ],
    )
    def test_disposition(self, record, mimetype, content, disposition):
        record.upload(content, "file.txt", mimetype)
        headers = record.get().headers
        assert headers["Content-Type"] == mimetype
        assert headers["Content-Disposition"] == f'{disposition}; filename="file.txt"'

    @pytest.mark.parametrize("query", ["?download", "?download=1", "?download=true"])
    def test_download(self, record, query):
        record.upload(b"text", "file.txt", "text/plain")
        headers = record.get(query=query).headers
        assert headers["Content-Disposition"] == 'attachment; filename="file.txt"'

    @pytest.mark.parametrize("query", ["?download=0", "?download=false", "?other"])
    def test_no_download(self, record, query):
        record.upload(b"text", "file.txt", "text/plain")
        headers = record.get(query=query).headers
        assert headers["Content-Disposition"] == 'inline; filename="file.txt"'

    @pytest.mark.parametrize(
        "filename", ["façade.txt", "写真 1.txt", "مرحبا.txt", "q'u\"o%te;.txt"]
    )
    def test_filenames_in_any_script(self, record, filename):
        assert record.upload(b"text", filename, "text/plain")["filename"] == filename
        disposition = record.get().headers["Content-Disposition"]
        assert disposition.isascii()
        extended = re.fullmatch(
            r"inline; filename=\"[\w.-]+\"; filename\*=UTF-8''(\S+)", disposition
        )
        assert unquote(extended[1]) == filename

    def test_scripts_are_served_as_text(self, record):
        """With ``nosniff`` no page of the same origin can run it."""
        assert record.upload(b"alert(1)", "a.txt", "text/javascript")["mimetype"] == (
            "text/javascript"
        )
        headers = record.get().headers
        assert headers["Content-Type"] == "text/plain"
        assert headers["Content-Disposition"].startswith("attachment")

    @pytest.mark.parametrize("mimetype", ["image/png", "application/pdf", "video/mp4"])
    def test_markup_in_disguise_has_no_type(self, record, mimetype):
        html = b"\n <html><script>alert(1)</script>"
        assert record.upload(html, "a.png", mimetype)["mimetype"] == "application/octet-stream"
        headers = record.get().headers
        assert headers["Content-Type"] == "application/octet-stream"
        assert headers["Content-Disposition"].startswith("attachment")


class TestRanges:
    @pytest.mark.parametrize(
        "ranges, start, end",
        [
            ("bytes=0-0", 0, 1),
            ("bytes=0-99", 0, 100),
            ("bytes=500-", 500, len(CONTENT)),
            ("bytes=-7", len(CONTENT) - 7, len(CONTENT)),
            ("bytes=-9999999", 0, len(CONTENT)),
            ("bytes=262143-262145", 262143, 262146),
            ("bytes=1-99999999", 1, len(CONTENT)),
            (f"bytes={len(CONTENT) - 1}-", len(CONTENT) - 1, len(CONTENT)),
            ("BYTES=3-4", 3, 5),
            ("bytes=, 3-4 ,", 3, 5),
            (f"bytes=3-4,{len(CONTENT)}-", 3, 5),
            ("bytes=5-99999999999999999999999", 5, len(CONTENT)),
        ],
    )
    def test_a_range(self, attached, ranges, start, end):
        response = attached.get(Range=ranges)
        assert response.status_code == 206
        assert response.content == CONTENT[start:end]
        assert response.headers["Content-Range"] == f"bytes {start}-{end - 1}/{len(CONTENT)}"
        assert response.headers["Content-Length"] == str(end - start)
        assert response.headers["ETag"] == attached.get(method="HEAD").headers["ETag"]

    @pytest.mark.parametrize(
        "ranges, expected",
        [
            ("bytes=0-0,-1", [(0, 1), (len(CONTENT) - 1, len(CONTENT))]),
            ("bytes=100-199, 0-99", [(100, 200), (0, 100)]),
            (
                "bytes=0-299999,400000-700000,900000-",
                [(0, 300000), (400000, 700001), (900000, None)],
            ),
            (",".join(["bytes=0-1", *(f"{n}-{n + 1}" for n in range(10, 25))]), None),
        ],
    )
    def test_several_ranges(self, attached, ranges, expected):
        expected = expected or [(0, 2), *((n, n + 2) for n in range(10, 25))]
        response = attached.get(Range=ranges)
        assert response.status_code == 206
        assert "Content-Range" not in response.headers
        assert response.headers["Content-Length"] == str(len(response.content))
        found = parts_of(response)
        assert len(found) == len(expected)
        for (mimetype, content_range, content), (start, end) in zip(found, expected, strict=True):
            end = end or len(CONTENT)
            assert mimetype == "application/octet-stream"
            assert content_range == f"bytes {start}-{end - 1}/{len(CONTENT)}"
            assert content == CONTENT[start:end]

    @pytest.mark.parametrize(
        "ranges",
        [
            "bytes",
            "bytes=",
            "bytes=a-b",
            "bytes=5-2",
            "bytes=--5",
            "bytes=1-2-3",
            "bytes=0x1-2",
            "lines=0-1",
            "bytes=0-,0-",
            "bytes=٣-٤".encode().decode("latin-1"),
            "bytes=99999999999999999999999-5",
            "bytes=99999999999999999999999-99999999999999999999998",
            "bytes=" + ",".join(f"{n * 10}-{n * 10}" for n in range(17)),
        ],
    )
    def test_the_whole_file_instead_of_ranges(self, attached, ranges):
        """Malformed ranges, and ranges that are larger than the whole file, get the whole file."""
        response = attached.get(Range=ranges)
        assert (response.status_code, response.content) == (200, CONTENT)

    @pytest.mark.parametrize(
        "ranges",
        [
            f"bytes={len(CONTENT)}-",
            "bytes=99999999-,-0",
            "bytes=-0",
            "bytes=99999999999999999999999-",
            "bytes=99999999999999999999998-99999999999999999999999",
        ],
    )
    def test_not_satisfiable(self, attached, ranges):
        response = attached.get(Range=ranges)
        assert response.status_code == 416
        assert response.headers["Content-Range"] == f"bytes */{len(CONTENT)}"
        assert response.json()["code"] == 416
        assert response.json()["details"][0]["name"] == "Range"

    def test_of_an_empty_file(self, record):
        record.upload(b"", "empty.txt", "text/plain")
        assert record.get(Range="bytes=0-").status_code == 416
        assert record.get(Range="bytes=-5").status_code == 200

    @settings(
        deadline=None,
        max_examples=25,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(st.data())
    def test_any_ranges(self, attached, data):
        size = len(CONTENT)
        offsets = st.integers(0, size + 5)
        piece = st.one_of(
            st.tuples(offsets, offsets).map(sorted).map(lambda ends: f"{ends[0]}-{ends[1]}"),
            offsets.map(lambda start: f"{start}-"),
            offsets.map(lambda length: f"-{length}"),
        )
        specs = data.draw(st.lists(piece, min_size=1, max_size=5))
        expected = []
        for spec in specs:
            first, _, last = spec.partition("-")
            if first:
                expected.append(CONTENT[int(first) : int(last) + 1 if last else None])
            elif int(last):
                expected.append(CONTENT[-int(last) :])
        expected = [content for content in expected if content]
        response = attached.get(Range=f"bytes={','.join(specs)}")
        if not expected:
            assert response.status_code == 416
        elif sum(map(len, expected)) > size:
            assert (response.status_code, response.content) == (200, CONTENT)
        elif len(expected) == 1:
            assert (response.status_code, response.content) == (206, expected[0])
        else:
            assert [part[2] for part in parts_of(response)] == expected

    def test_a_file_put_together(self, attached):
        """A client may download parts by several connections."""
        step = 300_000
        pieces = [
            attached.get(Range=f"bytes={start}-{start + step - 1}").content
            for start in range(0, len(CONTENT), step)
        ]
        assert b"".join(pieces) == CONTENT


class TestConditions:
    @pytest.fixture
    def etag(self, attached):
        return attached.get(method="HEAD").headers["ETag"]

    @pytest.fixture
    def date(self, attached):
        return attached.get(method="HEAD").headers["Last-Modified"]

    OLD, LATE = "Sat, 01 Jan 2000 00:00:00 GMT", "Fri, 01 Jan 2100 00:00:00 GMT"

    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    @pytest.mark.parametrize("form", ["{}", "W/{}", '"other", {}', "*"])
    def test_if_none_match(self, attached, etag, method, form):
        response = attached.get(method=method, If_None_Match=form.format(etag))
        assert (response.status_code, response.content) == (304, b"")
        assert response.headers["ETag"] == etag
        assert response.headers["Cache-Control"] == "private, no-cache"
        assert "Content-Type" not in response.headers

    def test_if_none_match_of_another(self, attached):
        assert attached.get(If_None_Match='"other"').content == CONTENT

    def test_if_none_match_comes_before_ranges(self, attached, etag):
        assert attached.get(If_None_Match=etag, Range="bytes=99999999-").status_code == 304

    def test_if_modified_since(self, attached, date):
        assert attached.get(If_Modified_Since=date).status_code == 304
        assert attached.get(If_Modified_Since=self.LATE).status_code == 304
        assert attached.get(If_Modified_Since=self.OLD).content == CONTENT
        assert attached.get(If_Modified_Since="nonsense").content == CONTENT
        for year in ("99999999", "9999 23:59:59 -9999"):
            date = f"Fri, 31 Dec {year}"
            for name in ("If_Modified_Since", "If_Unmodified_Since", "If_Range"):
                assert attached.get(**{name: date}, Range="bytes=0-").status_code < 500

    def test_if_none_match_overrules_if_modified_since(self, attached, date):
        response = attached.get(If_None_Match='"other"', If_Modified_Since=date)
        assert response.status_code == 200

    def test_if_match(self, attached, etag):
        assert attached.get(If_Match=etag).content == CONTENT
        assert attached.get(If_Match="*").content == CONTENT
        response = attached.get(If_Match='"other"')
        assert (response.status_code, response.json()["code"]) == (412, 412)
        assert attached.get(If_Match=f"W/{etag}").status_code == 412

    def test_if_unmodified_since(self, attached, date):
        assert attached.get(If_Unmodified_Since=date).status_code == 200
        assert attached.get(If_Unmodified_Since=self.OLD).status_code == 412

    def test_if_range(self, attached, etag, date):
        ranged = {"Range": "bytes=0-9"}
        for same in (etag, date):
            assert attached.get(**ranged, If_Range=same).content == CONTENT[:10]
        for other in ('"other"', f"W/{etag}", self.OLD, self.LATE, "nonsense", etag.strip('"')):
            response = attached.get(**ranged, If_Range=other)
            assert (response.status_code, response.content) == (200, CONTENT), other

    def test_if_range_with_an_unsatisfiable_range(self, attached, etag):
        ranged = {"Range": "bytes=99999999-"}
        assert attached.get(**ranged, If_Range=etag).status_code == 416
        assert attached.get(**ranged, If_Range='"other"').status_code == 200

    def test_the_date_of_a_recently_replaced_file_is_not_strong(self, record):
        """Two files that are stored within a second have the same date."""
        record.upload(b"first", "a.txt", "text/plain")
        record.upload(b"other", "a.txt", "text/plain")
        date = record.get().headers["Last-Modified"]
        assert record.get(If_Range=date, Range="bytes=0-1").content == b"other"

    def test_a_replaced_file_has_another_etag(self, record):
        record.upload(b"first", "a.txt", "text/plain")
        etag = record.get().headers["ETag"]
        record.upload(b"other", "a.txt", "text/plain")
        assert record.get(If_None_Match=etag).content == b"other"
        assert record.get(If_Range=etag, Range="bytes=0-1").content == b"other"
        assert record.get(If_Match=etag).status_code == 412


class TestPermissions:
    """The permissions of the record apply to its file, and both are refused alike."""

    def both(self, record, auth):
        """Return the responses to a request for the attachment and to one for the record."""
        return record.get(auth=auth), requests.get(record.record, auth=auth, timeout=60)

    @pytest.mark.parametrize("auth", [None, ALICE, BOB])
    def test_a_record_that_is_not_shared(self, record, auth):
        record.upload()
        file, plain = self.both(record, auth)
        assert file.status_code == plain.status_code == {None: 401, ALICE: 200, BOB: 403}[auth]
        if auth != ALICE:
            assert file.json() == plain.json()
            assert file.headers.get("WWW-Authenticate") == plain.headers.get("WWW-Authenticate")

    @pytest.mark.parametrize("level", ["record", "collection", "bucket"])
    @pytest.mark.parametrize("permission", ["read", "write"])
    def test_shared(self, record, level, permission):
        record.upload()
        record.share(self.user(record), uri=getattr(record, level), permission=permission)
        assert record.get(auth=BOB).content == CONTENT
        assert record.get(auth=None).status_code == 401

    def user(self, record):
        root = requests.get(f"{record.server.url}/", auth=BOB, timeout=60).json()
        return root["user"]["id"]

    def test_public(self, record):
        record.upload()
        record.share("system.Everyone", uri=record.bucket)
        assert record.get(auth=None).content == CONTENT

    def test_withdrawn(self, record):
        record.upload()
        record.share("system.Everyone")
        etag = record.get(auth=None).headers["ETag"]
        body = {"permissions": {"read": []}}
        requests.put(record.record, json={**body, "data": {}}, auth=ALICE, timeout=60)
        assert record.get(auth=None, If_None_Match=etag).status_code == 401

    @pytest.mark.parametrize("auth", [None, ALICE, BOB])
    @pytest.mark.parametrize("missing", ["record", "collection", "bucket"])
    def test_missing_parents(self, record, auth, missing):
        other = f"{record.server.url}/buckets/b{secrets.token_hex(8)}"
        record.record = {
            "record": record.record,
            "collection": f"{record.bucket}/collections/other/records/r",
            "bucket": f"{other}/collections/c/records/r",
        }[missing]
        record.url = f"{record.record}/{record.path}"
        file, plain = self.both(record, auth)
        assert file.status_code == plain.status_code
        assert file.status_code in (401, 403, 404)
        assert file.json()["errno"] == plain.json()["errno"]

    @pytest.mark.parametrize("record_id", ["with space", "a.b", "é"])
    def test_impossible_record_ids(self, record, record_id):
        record.record = f"{record.collection}/records/{record_id}"
        record.url = f"{record.record}/{record.path}"
        for auth in (None, ALICE, BOB):
            file, plain = self.both(record, auth)
            assert file.status_code == plain.status_code

    def test_no_attachment(self, record):
        requests.put(record.record, json={"data": {"a": 1}}, auth=ALICE, timeout=60)
        for method in ("GET", "HEAD"):
            assert record.get(method=method).status_code == 404
        assert record.get().json()["message"] == f"No {record.field} on this record."
        assert record.get(auth=BOB).status_code == 403

    def test_detached(self, record):
        record.upload()
        requests.delete(record.url, auth=ALICE, timeout=60).raise_for_status()
        assert record.get().status_code == 404


class TestDefaultBucket:
    @pytest.fixture
    def record(self, record):
        record.bucket = f"{record.server.url}/buckets/default"
        record.collection = f"{record.bucket}/collections/c{secrets.token_hex(4)}"
        record.record = f"{record.collection}/records/r"
        record.url = f"{record.record}/{record.path}"
        return record

    def test_get(self, record):
        record.upload()
        assert record.get().content == CONTENT
        assert record.get(method="HEAD").headers["Content-Length"] == str(len(CONTENT))
        assert record.get(Range="bytes=5-9").content == CONTENT[5:10]
        etag = record.get(method="HEAD").headers["ETag"]
        assert record.get(If_None_Match=etag).status_code == 304

    def test_refused(self, record):
        assert record.get().status_code == 404
        record.upload()
        assert record.get(auth=None).status_code == 401
        assert record.get(auth=BOB).status_code == 404

    def test_creates_nothing(self, record):
        carol = (f"carol{secrets.token_hex(4)}", "secret")
        assert record.get(auth=carol).status_code == 404
        own = requests.get(f"{record.server.url}/", auth=carol, timeout=60).json()["user"]["bucket"]
        buckets = requests.get(f"{record.server.url}/buckets", auth=carol, timeout=60)
        assert own not in [bucket["id"] for bucket in buckets.json()["data"]]


class TestBrowsers:
    def test_headers_are_exposed(self, attached):
        headers = attached.get(Origin="https://a.example").headers
        assert headers["Access-Control-Allow-Origin"] in ("*", "https://a.example")
        exposed = set(re.split(r",\s*", headers["Access-Control-Expose-Headers"]))
        assert exposed >= {
            "Accept-Ranges", "Content-Disposition", "Content-Length", "Content-Range",
            "Content-Type", "ETag", "Last-Modified", "Repr-Digest",
        }  # fmt: skip

    def test_preflight(self, attached):
        headers = {
            "Origin": "https://a.example",
            "Access-Control-Request-Method": "GET",
            "Access-Control-Request-Headers": "authorization,range,if-range",
        }
        response = requests.options(attached.url, headers=headers, timeout=60)
        assert response.status_code == 200
        assert "GET" in response.headers["Access-Control-Allow-Methods"]
        allowed = response.headers["Access-Control-Allow-Headers"].lower()
        assert {"authorization", "range", "if-range"} <= set(re.split(r",\s*", allowed))


def test_in_a_batch(attached):
    path = urlsplit(attached.url).path
    body = {"requests": [{"method": "GET", "path": path}, {"method": "GET", "path": "/"}]}
    response = requests.post(f"{attached.server.url}/batch", json=body, auth=ALICE, timeout=60)
    file, root = response.json()["responses"]
    assert (file["status"], root["status"]) == (400, 200)
    assert "batch" in file["body"]["message"]


def test_clients_that_disconnect(record):
    """The server closes the files of clients that disconnect, however many they are."""
    record.upload(secrets.token_bytes(20_000_000))
    for ranges in ("bytes=0-", "bytes=0-9999999,10000000-"):
        for _ in range(30):
            with requests.get(
                record.url, auth=ALICE, headers={"Range": ranges}, stream=True, timeout=60
            ) as response:
                assert len(response.raw.read(1000)) == 1000
    assert record.get(Range="bytes=-10").status_code == 206
