"""``attachment.download = accel``: Kinto checks the request, and a real nginx sends the file."""

import hashlib
import os
import secrets
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import SimpleNamespace
from urllib.parse import quote

import pytest
import requests

from kinto_attachment.rows.links import Link
from tests.support.http_record import ALICE, BOB, CONTENT, HTTPRecord, parts_of
from tests.support.servers.nginx import NGINX, Nginx
from tests.support.servers.wsgi import Gunicorn, Waitress
from tests.support.site import Site

pytestmark = pytest.mark.skipif(not NGINX, reason="nginx is not installed")

SHARED_HEADERS = [
    "Accept-Ranges", "Cache-Control", "Content-Disposition", "Content-Length",
    "Content-Security-Policy", "Content-Type", "ETag", "Last-Modified", "Repr-Digest",
    "X-Content-Type-Options", "Backoff", "Alert", "Access-Control-Allow-Origin",
]  # fmt: skip


@pytest.fixture(scope="module", params=[Gunicorn, Waitress])
def server(request, field_name, tmp_path_factory):
    folder = tmp_path_factory.mktemp("accel")
    files = folder / "files"
    settings = {
        "kinto.attachment.base_path": str(files),
        "kinto.attachment.extensions": "any",
        "kinto.attachment.fields": field_name,
        "kinto.attachment.download": "accel",
        "kinto.backoff": "10",
        "kinto.eos": "2100-01-01",
        "kinto.eos_message": "Until then.",
    }
    with request.param(settings, folder) as kinto, Nginx(kinto.port, files, folder) as nginx:
        yield SimpleNamespace(url=nginx.url, kinto=kinto, nginx=nginx, files=files)


@pytest.fixture
def record(server, field_name):
    return HTTPRecord(server, field_name)


@pytest.fixture(scope="module")
def attached(server, field_name):
    attached = HTTPRecord(server, field_name)
    attached.upload(CONTENT, "写真.pdf", "application/pdf")
    return attached


@pytest.fixture
def etag(attached):
    return attached.get(method="HEAD").headers["ETag"]


def test_nginx_sends_the_file(server, attached):
    response = attached.get()
    assert response.status_code == 200
    assert response.content == CONTENT
    assert response.headers["Server"].startswith("nginx")
    assert "X-Accel-Redirect" not in response.headers
    asked = requests.get(
        attached.url.replace(str(server.nginx.port), str(server.kinto.port)),
        auth=ALICE,
        timeout=60,
    )
    assert asked.content == b""
    assert asked.headers["X-Accel-Redirect"].startswith("/attachment-files/")


def test_a_large_file(record):
    content = secrets.token_bytes(20_000_000)
    record.upload(content)
    assert hashlib.sha256(record.get().content).digest() == hashlib.sha256(content).digest()


@pytest.mark.parametrize("query", ["", "?download"])
def test_headers_are_those_of_kinto(attached, query):
    """Kinto itself answers ``HEAD``."""
    origin = {"Origin": "https://a.example"}
    sent = attached.get(query=query, **origin)
    expected = attached.get(query=query, method="HEAD", **origin)
    for name in SHARED_HEADERS:
        assert sent.headers[name] == expected.headers[name], name
    assert sent.headers["Content-Disposition"].startswith("attachment" if query else "inline")
    assert sent.headers["ETag"] == f'"{hashlib.sha256(CONTENT).hexdigest()}"'


def repeated(response) -> set[str]:
    """Return the names of the headers that are sent more than once."""
    counts = Counter(name.lower() for name, _ in response.raw.headers.items())
    return {name for name, count in counts.items() if count > 1}


@pytest.mark.parametrize("ranges", ["0-1", "0-1,4-5"])
def test_headers_of_a_part(attached, ranges):
    """Every header is sent once: browsers refuse two ``Access-Control-Allow-Origin``."""
    origin = {"Origin": "https://a.example"}
    sent = attached.get(Range=f"bytes={ranges}", **origin)
    expected = attached.get(method="HEAD", **origin)
    assert sent.status_code == 206
    for name in {*SHARED_HEADERS} - {"Accept-Ranges", "Content-Length", "Content-Type"}:
        assert sent.headers[name] == expected.headers[name], name
    assert repeated(sent) == set()


def test_cors(attached):
    origin = {"Origin": "https://a.example"}
    sent, expected = attached.get(**origin), attached.get(method="HEAD", **origin)
    assert sent.headers["Access-Control-Allow-Origin"] in ("*", "https://a.example")
    exposed = [
        {name.strip() for name in answer.headers["Access-Control-Expose-Headers"].split(",")}
        for answer in (sent, expected)
    ]
    assert exposed[0] == exposed[1] >= {"ETag", "Content-Range", "Repr-Digest"}


@pytest.mark.parametrize(
    "ranges, start, end",
    [
        ("bytes=0-0", 0, 1),
        ("bytes=500-", 500, len(CONTENT)),
        ("bytes=-7", len(CONTENT) - 7, len(CONTENT)),
        ("bytes=262143-262145", 262143, 262146),
    ],
)
def test_one_range(attached, etag, ranges, start, end):
    response = attached.get(Range=ranges)
    assert (response.status_code, response.content) == (206, CONTENT[start:end])
    assert response.headers["Content-Range"] == f"bytes {start}-{end - 1}/{len(CONTENT)}"
    assert response.headers["ETag"] == etag


def test_several_ranges(attached):
    response = attached.get(Range="bytes=0-9,500-599,-5")
    assert response.status_code == 206
    size = len(CONTENT)
    assert parts_of(response) == [
        ("application/pdf", f"bytes 0-9/{size}", CONTENT[:10]),
        ("application/pdf", f"bytes 500-599/{size}", CONTENT[500:600]),
        ("application/pdf", f"bytes {size - 5}-{size - 1}/{size}", CONTENT[-5:]),
    ]


@pytest.mark.parametrize("count, status", [(16, 206), (17, 200)])
def test_nginx_allows_as_many_ranges_as_kinto(attached, count, status):
    ranges = ",".join(f"{start}-{start}" for start in range(0, 10 * count, 10))
    # Kinto itself answers requests with an If-Match.
    for condition in ({}, {"If_Match": "*"}):
        assert attached.get(Range=f"bytes={ranges}", **condition).status_code == status


def test_range_not_satisfiable(attached):
    response = attached.get(Range=f"bytes={len(CONTENT)}-")
    assert response.status_code == 416
    assert response.headers["Content-Range"] == f"bytes */{len(CONTENT)}"


@pytest.mark.parametrize(
    ("ranges", "status"),
    [
        (f"{len(CONTENT)}-", 416),
        ("-0", 416),
        ("99999999999999999999999-", 416),
        ("5-99999999999999999999999", 206),
        ("0-1,,4-5", 206),
        ("0-1,\t4-5", 206),
        ("nonsense", 200),
    ],
)
def test_ranges_that_nginx_would_refuse(attached, ranges, status):
    """nginx would send its refusal with the ``Cache-Control`` of the file."""
    response = attached.get(Range=f"bytes={ranges}")
    assert response.status_code == status
    assert ("no-store" in response.headers["Cache-Control"]) == (status == 416)
    assert repeated(response) == set()


def test_if_range(attached, etag):
    date = attached.get(method="HEAD").headers["Last-Modified"]
    for same in (etag, date):
        assert attached.get(Range="bytes=0-9", If_Range=same).content == CONTENT[:10]
    for other in ('"other"', f"W/{etag}", "Sat, 01 Jan 2000 00:00:00 GMT"):
        response = attached.get(Range="bytes=0-9", If_Range=other)
        assert (response.status_code, response.content) == (200, CONTENT)


def test_conditions(attached, etag):
    date = attached.get(method="HEAD").headers["Last-Modified"]
    assert attached.get(If_None_Match=etag).status_code == 304
    assert attached.get(If_None_Match='"other"').content == CONTENT
    assert attached.get(If_Modified_Since=date).status_code == 304
    assert attached.get(If_Modified_Since="Sat, 01 Jan 2000 00:00:00 GMT").content == CONTENT
    assert attached.get(If_Match=etag).content == CONTENT
    assert attached.get(If_Match='"other"').status_code == 412
    assert attached.get(If_Unmodified_Since=date).content == CONTENT


def test_the_date_on_the_disk_does_not_matter(server, record):
    """The date of the file on the disk may be that of a backup."""
    before = {path for path in server.files.rglob("*") if path.is_file()}
    record.upload()
    (path,) = {path for path in server.files.rglob("*") if path.is_file()} - before
    date = record.get(method="HEAD").headers["Last-Modified"]
    os.utime(path, (2**31, 2**31))
    assert record.get(If_Unmodified_Since=date).content == CONTENT
    assert record.get(If_Modified_Since=date).status_code == 304
    assert record.get().headers["Last-Modified"] == date


def test_permissions(record):
    record.upload()
    assert record.get(auth=None).status_code == 401
    assert record.get(auth=BOB).status_code == 403
    record.share("system.Everyone")
    assert record.get(auth=None).content == CONTENT
    record.url = record.url.replace("/r/", "/other/")
    assert record.get().status_code == 404


def test_default_bucket(server, record):
    record.url = f"{server.url}/buckets/default/collections/c/records/r/{record.path}"
    record.upload()
    assert record.get().content == CONTENT


def test_empty_file(record):
    record.upload(b"", "empty.txt", "text/plain")
    response = record.get()
    assert (response.status_code, response.content) == (200, b"")


def test_the_internal_location_is_not_public(server, attached):
    path = next(path for path in server.files.rglob("*") if path.is_file())
    url = f"http://127.0.0.1:{server.nginx.port}/attachment-files"
    for key in (path.relative_to(server.files), "nothing", ""):
        response = requests.get(f"{url}/{key}", timeout=60, auth=ALICE, allow_redirects=False)
        assert response.status_code == 404


def test_public_files_are_served(server, attached):
    """The configuration serves public files too, until that location is removed."""
    path = next(path for path in server.files.rglob("*.pdf") if path.read_bytes() == CONTENT)
    key = path.relative_to(server.files)
    response = requests.get(f"http://127.0.0.1:{server.nginx.port}/files/{key}", timeout=60)
    assert (response.status_code, response.content) == (200, CONTENT)
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in response.headers["Content-Security-Policy"]
    assert response.headers["Content-Disposition"] == "attachment"


def test_private_files_are_served_by_kinto_only(server, attached, tmp_path):
    path = next(path for path in server.files.rglob("*.pdf") if path.read_bytes() == CONTENT)
    key = path.relative_to(server.files)
    with Nginx(server.kinto.port, server.files, tmp_path, private=True) as nginx:
        public = requests.get(f"http://127.0.0.1:{nginx.port}/files/{key}", timeout=60, auth=ALICE)
        assert public.status_code == 404
        url = attached.url.replace(str(server.nginx.port), str(nginx.port))
        assert requests.get(url, auth=ALICE, timeout=60).content == CONTENT


def test_a_folder_behind_a_symbolic_link(field_name, tmp_path):
    """``base_path`` may be a symbolic link, as for Kinto."""
    (tmp_path / "disk").mkdir()
    files = tmp_path / "files"
    files.symlink_to("disk")
    settings = {
        "kinto.attachment.base_path": str(files),
        "kinto.attachment.extensions": "any",
        "kinto.attachment.fields": field_name,
        "kinto.attachment.download": "accel",
    }
    with Gunicorn(settings, tmp_path) as kinto, Nginx(kinto.port, files, tmp_path) as nginx:
        record = HTTPRecord(SimpleNamespace(url=nginx.url), field_name)
        record.upload()
        assert record.get().content == CONTENT


def test_a_lost_file(server, record):
    before = {path for path in server.files.rglob("*") if path.is_file()}
    record.upload()
    (path,) = {path for path in server.files.rglob("*") if path.is_file()} - before
    path.unlink()
    response = record.get()
    assert response.status_code == 404
    assert response.json()["message"].startswith("The bytes of this attachment are not in")


ODD_KEYS = ["100% of it?.txt", "a+b #1;c.txt", "été/写真.png", "x'y\"z.txt", "%2e%2e/..%41.txt"]


def test_odd_keys(make_database, field_name, tmp_path):
    """Keys that older settings may have made."""
    files = tmp_path / "files"
    settings = {
        **make_database(),
        "kinto.attachment.base_path": str(files),
        "kinto.attachment.fields": field_name,
        "kinto.attachment.download": "accel",
    }
    site = Site(field=field_name, **settings)
    collection, served = site.collection(), {}
    for name in ODD_KEYS:
        record, content = collection.record(), name.encode()
        record.upload(content)
        links = site.in_transaction(lambda: list(site.links.all()))
        (link,) = [each for each in links if each.ref.record.record == record.id]
        path = files / name
        path.parent.mkdir(exist_ok=True)
        os.rename(files / link.key, path)
        data = record.row
        data[record.field]["location"] = f"https://cdn.example/files/{name}"

        def rename(record=record, link=link, name=name, data=data):
            site.links.remove(link.ref)
            site.links.add(Link(link.ref, name, link.digest))
            site.registry.storage.update("record", record.collection.uri, record.id, data)

        site.in_transaction(rename)
        served[quote(link.ref.url_path)] = content
    with Gunicorn(settings, tmp_path) as kinto, Nginx(kinto.port, files, tmp_path) as nginx:
        for path, content in served.items():
            response = requests.get(f"{nginx.url}{path}", auth=ALICE, timeout=60)
            assert (response.status_code, response.content) == (200, content), path


class PausingProxy(ThreadingHTTPServer):
    """A proxy to a Kinto that calls a function before it passes a response on.

    :ivar before_answer: is called each time that nginx is told to send a file.
    :ivar extra: headers to add to the answers.
    """

    def __init__(self, kinto_port):
        super().__init__(("127.0.0.1", 0), self.Handler)
        self.kinto, self.before_answer, self.extra = f"http://127.0.0.1:{kinto_port}", None, {}
        Thread(target=self.serve_forever, daemon=True).start()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            between, headers = self.server, dict(self.headers)
            answer = requests.get(f"{between.kinto}{self.path}", headers=headers, timeout=60)
            if between.before_answer and "X-Accel-Redirect" in answer.headers:
                between.before_answer()
            self.send_response_only(answer.status_code)
            hops = ("Connection", "Transfer-Encoding", "Content-Length")
            kept = {name: value for name, value in answer.headers.items() if name not in hops}
            for name, value in {**kept, **between.extra}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, *args):
            """Log nothing."""


class TestReplacedMeanwhile:
    """The file is replaced after Kinto's response, before nginx opens it."""

    @pytest.fixture
    def between(self, server, tmp_path):
        with PausingProxy(server.kinto.port) as between:
            with Nginx(between.server_port, server.files, tmp_path) as nginx:
                between.url = nginx.url
                yield between
            between.shutdown()

    @pytest.fixture
    def record(self, server, between, field_name):
        """A record that is written past nginx, and read through it."""
        url = f"http://127.0.0.1:{server.kinto.port}/v1"
        record = HTTPRecord(SimpleNamespace(url=url), field_name)
        record.upload()
        return record

    def get(self, between, record, **headers):
        url = record.url.replace(record.server.url, between.url)
        return requests.get(f"{url}?download", auth=ALICE, headers=headers, timeout=60)

    @pytest.mark.parametrize("times", [1, 4])
    def test_by_another_file(self, between, record, times):
        newer = [b"version %d" % number for number in range(1, times + 1)]
        left = enumerate(newer, start=1)

        def replace():
            if version := next(left, None):
                number, content = version
                record.upload(content, f"version{number}.txt", "text/plain")

        between.before_answer = replace
        response = self.get(between, record)
        assert (response.status_code, response.content) == (200, newer[-1])
        assert response.headers["ETag"] == f'"{hashlib.sha256(newer[-1]).hexdigest()}"'
        assert next(left, None) is None
        # nginx keeps these two headers of earlier responses, before those of the last one.
        assert repeated(response) <= {"cache-control", "content-disposition"}
        dispositions = response.raw.headers.getlist("Content-Disposition")
        assert dispositions[-1] == f'attachment; filename="version{times}.txt"'

    def test_by_nothing(self, between, record):
        between.before_answer = lambda: requests.delete(record.url, auth=ALICE, timeout=60)
        response = self.get(between, record)
        assert response.status_code == 404
        assert response.json()["message"] == f"No {record.field} on this record."
        assert "no-store" in response.headers["Cache-Control"]
        assert repeated(response) <= {"cache-control"}

    def test_all_the_time(self, between, record):
        """The repetitions end."""
        versions = []

        def replace():
            versions.append(b"version %d" % len(versions))
            record.upload(versions[-1])

        between.before_answer = replace
        assert self.get(between, record).status_code == 500
        # Five files are tried; nginx asks for a sixth, and gives up.
        assert len(versions) == 6

    def test_headers_of_a_proxy_in_between(self, between, record):
        """Kinto itself sends no ``Retry-After`` with a file."""
        between.extra = {"Retry-After": "7", "Access-Control-Allow-Credentials": "true"}
        response = self.get(between, record)
        assert response.content == CONTENT
        for name, value in between.extra.items():
            assert response.headers[name] == value
