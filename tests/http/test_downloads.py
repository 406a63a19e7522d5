"""Downloads of files that are replaced meanwhile, lost, damaged or out of reach."""

import io
import secrets
from hashlib import sha256

import pytest
from kinto.core.storage.exceptions import BackendError
from webob import Request

from kinto_attachment.errors import BlobNotFound, StorageUnavailable
from kinto_attachment.files.blob import Source
from kinto_attachment.files.ref import RecordRef
from kinto_attachment.http.downloads import FileResponse
from tests.support.site import ALICE, Site
from tests.support.threads import in_thread

CONTENT = secrets.token_bytes(700_000)


def get(record, status=200, method="GET", **headers):
    headers = {**ALICE, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return record.http.request(record.attachment_uri, method=method, headers=headers, status=status)


def replace_bytes(record, content):
    """Replace or delete the bytes of the file without the plugin."""
    storage = record.site.storage
    (key,) = record.collection.keys
    storage.delete([key])
    if content is not None:
        with storage.spool() as file:
            file.write(content)
            file.flush()
            digest = sha256(content).hexdigest()
            storage.put(key, Source(file, "a.txt", "text/plain", len(content), digest))


@pytest.fixture
def attached(record):
    record.upload(CONTENT, "a.txt")
    return record


class TestPdf:
    """In a sandbox, the viewer of Safari shows an empty window."""

    @pytest.fixture
    def record(self, make_site):
        site = make_site(**{"kinto.attachment.extensions": "any"})
        return site.collection().record()

    def test_can_be_shown_and_runs_nothing(self, record):
        record.upload(b"%PDF-1.4", "file.pdf")
        for response in (
            get(record),
            get(record, 206, Range="bytes=0-1"),
            get(record, 200, "HEAD"),
        ):
            assert response.headers["Content-Disposition"].startswith("inline")
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            parts = response.headers["Content-Security-Policy"].split("; ")
            policy = dict(part.split(" ", 1) for part in parts)  # "sandbox" has no value
            assert "script-src" not in policy
            assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == "'none'"
            assert policy["object-src"] == policy["connect-src"] == "'self'"

    def test_must_be_one(self, record):
        record.upload(b"<html><script>alert(1)</script>", "file.pdf")
        response = get(record)
        assert response.content_type != "application/pdf"
        assert response.headers["Content-Disposition"].startswith("attachment")
        assert "sandbox" in response.headers["Content-Security-Policy"].split("; ")


class TestReplacedMeanwhile:
    """The file is replaced after the record was read, before the file is opened."""

    def before_opening(self, monkeypatch, storage, call, times=1):
        original, left = storage.open, [call] * times

        def open_after(*args):
            if left:
                in_thread(left.pop())
            return original(*args)

        monkeypatch.setattr(storage, "open", open_after)

    @pytest.mark.parametrize("ranges", [None, "bytes=0-1", "bytes=0-1,3-4"])
    def test_by_another_file(self, site, attached, monkeypatch, ranges):
        self.before_opening(monkeypatch, site.storage, lambda: attached.upload(b"newer"))
        headers = {"Range": ranges} if ranges else {}
        response = get(attached, status="*", **headers)
        assert response.headers["ETag"] == f'"{sha256(b"newer").hexdigest()}"'
        assert response.status_int == (206 if ranges else 200)
        if ranges is None:
            assert response.body == b"newer"

    def test_by_nothing(self, site, attached, monkeypatch):
        self.before_opening(monkeypatch, site.storage, attached.detach)
        assert get(attached, status=404).json["message"] == "No attachment on this record."

    def test_the_record_is_deleted(self, site, attached, monkeypatch):
        def delete():
            attached.http.delete(attached.uri, headers=ALICE)

        self.before_opening(monkeypatch, site.storage, delete)
        assert get(attached, status=404).json["errno"] == 110

    def test_all_the_time(self, site, attached, monkeypatch):
        versions = iter(range(100))

        def replace():
            attached.upload(b"version %d" % next(versions))

        self.before_opening(monkeypatch, site.storage, replace, times=100)
        assert "Retry-After" in get(attached, status=503).headers

    def test_while_it_is_read(self, make_site, kinto):
        """An open file is read to its end even if it is deleted."""
        record = make_site(kinto, "local").collection().record()
        record.upload(CONTENT, "a.txt")
        response = record.http.get(record.attachment_uri, headers=ALICE)
        environ = Request.blank(f"/v1{record.attachment_uri}", headers=ALICE).environ
        for ranges, expected in ((None, CONTENT), ("bytes=0-9,600000-699999", None)):
            environ.pop("HTTP_RANGE", None)
            if ranges:
                environ["HTTP_RANGE"] = ranges
            body = record.site.wsgi({**environ}, lambda status, headers: None)
            before = next(iter(body))
            record.upload(b"newer")
            rest = b"".join(body)
            body.close()
            if expected:
                assert before + rest == expected
            else:
                assert CONTENT[600000:] in rest
            record.upload(CONTENT, "a.txt")
        assert response.body == CONTENT


class TestLost:
    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    def test_bytes_that_are_lost(self, attached, method, caplog):
        replace_bytes(attached, None)
        response = get(attached, status=404, method=method)
        if method == "GET":
            assert response.json["message"].startswith("The bytes of this attachment are not in")
        assert f"The attachment of {attached.uri} is lost" in caplog.text

    @pytest.mark.parametrize("content", [b"", CONTENT[:-1], CONTENT + b"x"])
    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    def test_bytes_of_another_size(self, attached, method, content, caplog):
        """No bytes are sent that contradict the headers."""
        replace_bytes(attached, content)
        response = get(attached, status=500, method=method)
        if method == "GET":
            assert response.json["message"].startswith("The bytes of this attachment are damaged")
        assert "is lost" in caplog.text

    def test_a_range_of_damaged_bytes(self, attached):
        replace_bytes(attached, CONTENT[:1000])
        get(attached, status=500, Range="bytes=999-1000")
        get(attached, status=500, Range="bytes=500000-")
        get(attached, status=500, Range="bytes=0-1,5000-5001")

    def test_an_answer_without_bytes_needs_none(self, attached):
        etag = get(attached).headers["ETag"]
        replace_bytes(attached, None)
        get(attached, status=304, If_None_Match=etag)
        get(attached, status=412, If_Match='"other"')
        get(attached, status=416, Range="bytes=700000-")


@pytest.mark.parametrize(
    ("ranges", "status"),
    [
        ("5-{nines}", 206),
        ("-{nines}", 206),
        ("{zeros}5-{zeros}6", 206),
        ("{nines}-", 416),
        ("{nines}-{nines}", 416),
        ("-{zeros}", 416),
        ("{nines}-5", 200),
    ],
)
def test_offsets_of_any_length(make_site, ranges, status):
    """Python itself refuses to read numbers of more than 4300 digits."""
    record = make_site().collection().record()
    record.upload(CONTENT, "a.txt")
    digits = {"nines": "9" * 20_000, "zeros": "0" * 20_000}
    get(record, status=status, Range=f"bytes={ranges.format(**digits)}")


class TestOutOfReach:
    @pytest.mark.parametrize("method, call", [("GET", "open"), ("HEAD", "stat")])
    def test_is_a_503(self, site, attached, monkeypatch, method, call):
        def fail(*args):
            raise StorageUnavailable("a", "no route to host")

        monkeypatch.setattr(site.storage, call, fail)
        response = get(attached, status=503, method=method)
        assert response.headers["Retry-After"]

    def test_a_failure_in_the_middle(self, site, attached, monkeypatch, caplog):
        """After the status is sent, the server can only break off and close everything."""
        opened = []

        class Broken:
            def __init__(self, chunks):
                self.chunks, self.length, self.closed = chunks, chunks.length, False
                opened.append(self)

            def __iter__(self):
                yield next(self.chunks)
                raise StorageUnavailable("a", "connection reset")

            def close(self):
                self.closed = True
                self.chunks.close()

        original = site.storage.open
        monkeypatch.setattr(site.storage, "open", lambda *args: Broken(original(*args)))
        environ = Request.blank(f"/v1{attached.attachment_uri}", headers=ALICE).environ
        started = []
        body = site.wsgi(environ, lambda status, headers: started.append(status))
        with pytest.raises(StorageUnavailable):
            list(body)
        body.close()
        assert started == ["200 OK"]
        assert [chunks.closed for chunks in opened] == [True]
        assert "A download was broken off" in caplog.text

    def test_an_early_end_is_an_error(self, site, attached, monkeypatch):
        class Short:
            def __init__(self, chunks):
                self.chunks, self.length = chunks, chunks.length

            def __iter__(self):
                yield next(self.chunks)

            def close(self):
                self.chunks.close()

        original = site.storage.open
        monkeypatch.setattr(site.storage, "open", lambda *args: Short(original(*args)))
        environ = Request.blank(f"/v1{attached.attachment_uri}", headers=ALICE).environ
        body = site.wsgi(environ, lambda status, headers: None)
        with pytest.raises(StorageUnavailable, match="bytes are missing"):
            list(body)
        body.close()

    def test_one_of_several_ranges(self, site, attached, monkeypatch):
        """Files that are already open are closed."""
        original, opened = site.storage.open, []

        def fail_at_the_third(*args):
            if len(opened) == 2:
                raise BlobNotFound("a")
            opened.append(original(*args))
            return opened[-1]

        monkeypatch.setattr(site.storage, "open", fail_at_the_third)
        get(attached, status=404, Range="bytes=0-300000,300001-600000,600001-")
        for chunks in opened:
            assert list(chunks) == []


class TestResources:
    def test_no_connection_is_held_while_bytes_move(self, make_site, files, monkeypatch):
        site = make_site("postgresql", files)
        record = site.collection().record()
        record.upload(CONTENT, "a.txt")
        pool = site.registry.storage.client.session_factory.session_factory.kw["bind"].pool
        seen = []
        for name in ("open", "stat"):
            original = getattr(site.storage, name)

            def watch(*args, name=name, original=original):
                seen.append((name, pool.checkedout()))
                return original(*args)

            monkeypatch.setattr(site.storage, name, watch)
        environ = Request.blank(f"/v1{record.attachment_uri}", headers=ALICE).environ
        body = site.wsgi(environ, lambda status, headers: None)
        assert len(next(iter(body))) > 0
        assert pool.checkedout() == 0
        body.close()
        get(record, method="HEAD")
        assert seen == [("open", 0), ("stat", 0)]

    def test_kinto_does_not_read_the_body(self, site, attached, monkeypatch):
        """Its metrics ask every response for the length of its body."""
        read = []
        original = site.storage.open

        class Watched:
            def __init__(self, chunks):
                self.chunks, self.length = chunks, chunks.length

            def __iter__(self):
                for chunk in self.chunks:
                    read.append(len(chunk))
                    yield chunk

            def close(self):
                self.chunks.close()

        monkeypatch.setattr(site.storage, "open", lambda *args: Watched(original(*args)))
        environ = Request.blank(f"/v1{attached.attachment_uri}", headers=ALICE).environ
        body = site.wsgi(environ, lambda status, headers: None)
        assert read == []
        assert sum(map(len, body)) == sum(read) == len(CONTENT)
        body.close()

    def test_the_body_of_a_file_response_is_empty(self):
        response = FileResponse(200, {"Content-Length": 3}, iter([b"abc"]))
        assert response.body == b""
        assert b"".join(response.app_iter) == b"abc"

    def test_the_server_may_send_files_itself(self, make_site, kinto):
        record = make_site(kinto, "local").collection().record()
        record.upload(CONTENT, "a.txt")

        class Wrapper:
            def __init__(self, file, size):
                self.file, self.size = file, size

        for headers, wrapped in (({}, True), ({"Range": "bytes=1-"}, False)):
            request = Request.blank(f"/v1{record.attachment_uri}", headers={**ALICE, **headers})
            request.environ["wsgi.file_wrapper"] = Wrapper
            body = record.site.wsgi(request.environ, lambda status, headers: None)
            assert isinstance(body, Wrapper) is wrapped
            if wrapped:
                assert isinstance(body.file, io.RawIOBase) and body.size >= 65536
                assert body.file.read() == CONTENT
                body.file.close()
            else:
                body.close()


class TestUnlinkedRecords:
    """Records whose file is not linked."""

    def unlink(self, record):
        ref = next(
            link.ref
            for link in record.site.in_transaction(lambda: list(record.site.links.all()))
            if getattr(link.ref, "record", None) == RecordRef.from_uri(record.uri)
        )
        record.site.in_transaction(lambda: record.site.links.remove(ref))

    def write(self, record, attachment):
        data = {**record.data, "attachment": attachment}
        storage = record.site.registry.storage
        record.site.in_transaction(
            lambda: storage.update("record", record.collection.uri, record.id, data)
        )

    def test_the_location_finds_the_file(self, attached):
        self.unlink(attached)
        assert get(attached).body == CONTENT

    def test_a_location_of_another_record(self, attached):
        """A record from before any plugin may have any location."""
        other = attached.collection.record()
        other.put(family="sans")
        self.write(other, attached.data["attachment"])
        get(other, status=404)
        for key in ("__heartbeat__/a.txt", "backups/monday.tar"):
            location = f"https://cdn.example/files/{key}"
            self.write(other, {**attached.data["attachment"], "location": location})
            get(other, status=404)

    def test_a_location_on_another_host(self, attached):
        self.unlink(attached)
        self.write(attached, {**attached.data["attachment"], "location": "https://a.example/b.png"})
        get(attached, status=404)

    def test_a_location_that_leaves_the_root(self, attached):
        self.unlink(attached)
        for key in ("../../etc/passwd", "/etc/passwd", "a/../b"):
            location = f"https://cdn.example/files/{key}"
            self.write(attached, {**attached.data["attachment"], "location": location})
            get(attached, status=404)

    @pytest.mark.parametrize(
        "change",
        [{"hash": "none"}, {"hash": None}, {"hash": "A" * 64}, {"size": -1}, {"size": "x"}],
    )
    def test_a_malformed_attachment(self, attached, change):
        self.write(attached, {**attached.data["attachment"], **change})
        assert get(attached, status=404).json["message"] == "No attachment on this record."

    @pytest.mark.parametrize("value", ["see page 3", 3, ["a"], {}, {"location": None}])
    def test_an_attribute_of_another_kind(self, record, value):
        record.put(family="sans")
        self.write(record, value)
        get(record, status=404)

    def test_types_and_names_cannot_inject_headers(self, attached):
        change = {"mimetype": "text/html\r\nX-Evil: 1", "filename": "a\r\nX-Evil: 1.txt"}
        self.write(attached, {**attached.data["attachment"], **change})
        headers = get(attached).headers
        assert "X-Evil" not in headers
        assert headers["Content-Type"] == "application/octet-stream"
        assert headers["Content-Disposition"].isprintable()


def test_a_database_that_is_gone(make_site, files, monkeypatch):
    record = make_site("postgresql", files).collection().record()
    record.upload(CONTENT, "a.txt")

    def fail(*args, **kwargs):
        raise BackendError(message="gone")

    monkeypatch.setattr(record.site.registry.storage, "get", fail)
    get(record, status=503)
    monkeypatch.undo()
    assert get(record).body == CONTENT


def test_a_readonly_server(make_database, file_settings, files):
    """A cluster may have read-only servers."""
    settings = {**make_database(), **file_settings(files)}
    record = Site(**settings).collection().record()
    record.upload(CONTENT, "a.txt")
    record.http = Site(**settings, **{"kinto.readonly": "true"}).http
    assert get(record).body == CONTENT
    assert get(record, method="HEAD").headers["Content-Length"] == str(len(CONTENT))
    record.http.delete(record.attachment_uri, headers=ALICE, status=405)
