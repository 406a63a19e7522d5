"""``attachment.download = accel``: Kinto judges, and a real nginx sends the file."""

import hashlib
import os
import secrets
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import SimpleNamespace
from urllib.parse import quote

import pytest
import requests

from kinto_attachment.links import Link

from .servers.nginx import NGINX, Nginx
from .servers.wsgi import Gunicorn, Waitress
from .site import Site
from .test_get import ALICE, BOB, CONTENT, Attached, parts_of

pytestmark = pytest.mark.skipif(not NGINX, reason="nginx is not installed")

SHARED_HEADERS = [
    "Accept-Ranges", "Cache-Control", "Content-Disposition", "Content-Length",
    "Content-Security-Policy", "Content-Type", "ETag", "Last-Modified", "Repr-Digest",
    "X-Content-Type-Options",
]  # fmt: skip


@pytest.fixture(scope="module", params=[Gunicorn, Waitress])
def server(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("accel")
    files = folder / "files"
    settings = {
        "kinto.attachment.base_path": str(files),
        "kinto.attachment.extensions": "any",
        "kinto.attachment.download": "accel",
    }
    with request.param(settings, folder) as kinto, Nginx(kinto.port, files, folder) as nginx:
        yield SimpleNamespace(url=nginx.url, kinto=kinto, nginx=nginx, files=files)


@pytest.fixture
def record(server):
    return Attached(server)


@pytest.fixture(scope="module")
def attached(server):
    attached = Attached(server)
    attached.upload(CONTENT, "写真.pdf", "application/pdf")
    return attached


@pytest.fixture
def etag(attached):
    return attached.get(method="HEAD").headers["ETag"]


def test_nginx_sends_it(server, attached):
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


def test_a_large_one(record):
    content = secrets.token_bytes(20_000_000)
    record.upload(content)
    assert hashlib.sha256(record.get().content).digest() == hashlib.sha256(content).digest()


@pytest.mark.parametrize("query", ["", "?download"])
def test_headers_are_those_of_kinto(attached, query):
    """Which answers ``HEAD`` itself."""
    sent, expected = attached.get(query=query), attached.get(query=query, method="HEAD")
    for name in SHARED_HEADERS:
        assert sent.headers.get(name) == expected.headers.get(name), name
    assert sent.headers["ETag"] == f'"{hashlib.sha256(CONTENT).hexdigest()}"'


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
    contents = [content for _, _, content in parts_of(response)]
    assert contents == [CONTENT[:10], CONTENT[500:600], CONTENT[-5:]]


def test_range_not_satisfiable(attached):
    response = attached.get(Range=f"bytes={len(CONTENT)}-")
    assert response.status_code == 416
    assert response.headers["Content-Range"] == f"bytes */{len(CONTENT)}"


def test_if_range(attached, etag):
    date = attached.get(method="HEAD").headers["Last-Modified"]
    for same in (etag, date):
        assert attached.get(Range="bytes=0-9", If_Range=same).content == CONTENT[:10]
    for other in ('"other"', "Sat, 01 Jan 2000 00:00:00 GMT"):
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


def test_permissions(record):
    record.upload()
    assert record.get(auth=None).status_code == 401
    assert record.get(auth=BOB).status_code == 403
    record.share("system.Everyone")
    assert record.get(auth=None).content == CONTENT
    record.url = record.url.replace("/r/", "/other/")
    assert record.get().status_code == 404


def test_default_bucket(server, record):
    record.url = f"{server.url}/buckets/default/collections/c/records/r/attachment"
    record.upload()
    assert record.get().content == CONTENT


def test_empty_file(record):
    record.upload(b"", "empty.txt", "text/plain")
    response = record.get()
    assert (response.status_code, response.content) == (200, b"")


def test_nobody_gets_in_from_outside(server, attached):
    path = next(path for path in server.files.rglob("*") if path.is_file())
    url = f"http://127.0.0.1:{server.nginx.port}/attachment-files"
    assert requests.get(f"{url}/{path.relative_to(server.files)}", timeout=60).status_code == 404


def test_a_file_that_is_lost(server, record):
    before = {path for path in server.files.rglob("*") if path.is_file()}
    record.upload()
    (path,) = {path for path in server.files.rglob("*") if path.is_file()} - before
    path.unlink()
    response = record.get()
    assert response.status_code == 404
    assert response.json()["message"].startswith("The bytes of this attachment are not in")


@pytest.mark.parametrize("name", ["100% of it?.txt", "a+b #1;c.txt", "été/写真.png", "x'y\"z.txt"])
def test_odd_keys(kinto_settings, tmp_path, name):
    """As older settings may have made them."""
    files = tmp_path / "files"
    settings = {
        **kinto_settings("postgresql", fresh=True),
        "kinto.attachment.base_path": str(files),
        "kinto.attachment.download": "accel",
    }
    site = Site(**settings)
    record = site.collection().record()
    record.upload(b"content")
    (link,) = site.in_transaction(lambda: list(site.links.all()))
    path = files / name
    path.parent.mkdir(exist_ok=True)
    os.rename(files / link.key, path)
    data = record.data
    data["attachment"]["location"] = f"https://cdn.example/files/{name}"

    def rename():
        site.links.remove(link.ref)
        site.links.add(Link(link.ref, name, link.digest))
        site.registry.storage.update("record", record.collection.uri, record.id, data)

    site.in_transaction(rename)
    with Gunicorn(settings, tmp_path) as kinto, Nginx(kinto.port, files, tmp_path) as nginx:
        url = f"{nginx.url}{quote(record.attachment_uri)}"
        response = requests.get(url, auth=ALICE, timeout=60)
        assert (response.status_code, response.content) == (200, b"content")


def test_a_file_replaced_meanwhile(tmp_path):
    """Between Kinto's answer and nginx: a Kinto that answers with an older key first."""
    files, keys = tmp_path / "files", ["gone.txt", "there.txt"]
    files.mkdir()
    (files / "there.txt").write_bytes(b"newer")

    class Kinto(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("X-Accel-Redirect", f"/attachment-files/{keys.pop(0)}")
            self.send_header("ETag", f'"{len(keys)}"')
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args):
            pass

    kinto = ThreadingHTTPServer(("127.0.0.1", 0), Kinto)
    Thread(target=kinto.serve_forever, daemon=True).start()
    with Nginx(kinto.server_port, files, tmp_path) as nginx:
        response = requests.get(f"{nginx.url}/some/record/attachment?a=b", timeout=60)
        assert (response.status_code, response.content) == (200, b"newer")
        assert response.headers["ETag"] == '"0"'
    kinto.shutdown()
