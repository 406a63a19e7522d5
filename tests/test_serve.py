"""``make serve``: what it prints, writes and serves."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from hashlib import sha256
from importlib.metadata import version
from urllib.parse import urlsplit

import pytest
import requests

from tests.support import images
from tests.support.servers.serving import ROOT, Serving

ALICE = ("alice", "secret")
RECORD = "/v1/buckets/default/collections/docs/records/lake"


@pytest.fixture(scope="module")
def server():
    with Serving() as server:
        yield server


def get(url: str, **options) -> requests.Response:
    return requests.get(url, auth=ALICE, timeout=60, **options)


def base_url(server: Serving) -> str:
    return get(f"{server.url}/v1/").json()["capabilities"]["attachments"]["base_url"]


def run(server: Serving, *command: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command, cwd=server.folder, capture_output=True, text=True, timeout=120, check=False
    )


def fsck(server: Serving) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "kinto_attachment.cli", "fsck", "--json"]
    return run(server, *command, "--ini", "var/kinto.ini")


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_welcome_has_a_line_for_each_door(server):
    printed = server.process.log.read_text()
    lines = re.findall(r"^ *(curl .*)$", printed, re.MULTILINE)
    record, media, library = [run(server, "bash", "-c", f"{line} -sSf") for line in lines]
    content = (ROOT / "docs" / "0x0.jpg").read_bytes()

    attachment = json.loads(record.stdout)
    assert get(base_url(server) + attachment["location"]).content == content

    assert media.stdout == sha256(content).hexdigest()
    assert get(f"{server.url}/v1/media/{media.stdout}").content == content

    small = re.search(r"http\S+ID\.jpg", printed)[0].replace("ID", json.loads(library.stdout)["id"])
    assert images.decode(get(small).content).size == (320, 240)


def test_ini_file_is_what_runs(server):
    """The commands see the files of the running server."""
    form = {"attachment": ("a.txt", b"text")}
    uploaded = requests.post(
        f"{server.url}{RECORD}/attachment", files=form, auth=ALICE, timeout=60
    ).json()
    found = fsck(server)
    assert (found.returncode, found.stdout) == (0, ""), found
    (server.folder / "var" / "files" / uploaded["location"]).unlink()
    found = fsck(server)
    assert found.returncode == 1
    assert json.loads(found.stdout)["kind"] == "missing object"
    requests.delete(f"{server.url}{RECORD}/attachment", auth=ALICE, timeout=60)
    assert fsck(server).returncode == 0


def test_locations_survive_another_port():
    with Serving() as server:
        form = {"attachment": ("a.txt", b"text")}
        url = f"{server.url}{RECORD}/attachment"
        assert requests.post(url, files=form, auth=ALICE, timeout=60).status_code == 201
        first = server.url
        server.process.stop()
        server.start()
        assert server.url != first
        attachment = get(f"{server.url}{RECORD}").json()["data"]["attachment"]
        assert get(base_url(server) + attachment["location"]).content == b"text"


def test_pages_of_other_origins_can_read_files(server):
    form = {"attachment": ("a.txt", b"text")}
    url = f"{server.url}{RECORD}/attachment"
    answer = requests.post(url, files=form, auth=ALICE, timeout=60)
    location = base_url(server) + answer.json()["location"]
    origin = {"Origin": "https://example.com"}
    preflight = requests.options(
        location,
        headers={**origin, "Access-Control-Request-Method": "GET"},
        timeout=60,
    )
    assert preflight.status_code == 204
    assert "Range" in preflight.headers["Access-Control-Allow-Headers"]
    for url in (location, f"{location}x"):
        assert get(url, headers=origin).headers["Access-Control-Allow-Origin"] == "*"


def test_version_and_metrics(server):
    assert get(f"{server.url}/v1/__version__").json()["version"] == version("kinto-attachment")
    metrics = get(f"{server.url}/v1/__metrics__")
    assert metrics.ok and "request_duration" in metrics.text


@pytest.mark.parametrize("port", ["x", "0", "65536", "-1", "²", "used"])
def test_wrong_port_is_refused(server, port):
    port = str(urlsplit(server.url).port) if port == "used" else port
    command = [sys.executable, "scripts/serve.py"]
    done = subprocess.run(
        command,
        cwd=server.folder,
        env={**os.environ, "PORT": port},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert port in done.stderr and "Traceback" not in done.stderr


def ask(server, line: str) -> bytes:
    """Send a request line as it is, and return the whole answer."""
    with socket.create_connection(("127.0.0.1", urlsplit(server.url).port), timeout=30) as sock:
        sock.sendall(f"{line} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode("latin-1"))
        return b"".join(iter(lambda: sock.recv(65536), b""))


SPELLINGS = [
    "/files/private/{key}",
    "/files/./private/{key}",
    "/files/././private/{key}",
    "/files/x/../private/{key}",
    "/files/default/../private/{key}",
    "/files/%2e/private/{key}",
    "/files/x/%2e%2e/private/{key}",
    "/files/%2E%2Fprivate/{key}",
    "/files//private/{key}",
    "/files/%2fprivate/{key}",
    "/files/private%2f{key}",
    "/files/%70rivate/{key}",
    "/files/private/./{key}",
    "/files/private//{key}",
    "//files/private/{key}",
    "/files/../files/private/{key}",
    "/./files/private/{key}",
    "/files/.\\private\\{key}",
    "/files/%5cprivate/{key}",
    "/files/%c0%ae/private/{key}",
    "/files/\xff/../private/{key}",
    "/files/%00/../private/{key}",
    "/files/PRIVATE/{key}",
    "/files/link/{key}",
    "http://a/files/./private/{key}",
]


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_hides_private_files(server, spelling, method):
    content = os.urandom(1000)
    digest = requests.post(f"{server.url}/v1/media", content, auth=ALICE, timeout=60).text
    files = server.folder / "var" / "files"
    (path,) = files.rglob(digest)
    link = files / "link"
    if not link.is_symlink():
        link.symlink_to("private")
    answer = ask(server, f"{method} {spelling.format(key=path.relative_to(files / 'private'))}")
    # Kinto redirects what does not begin with the version of its API.
    assert re.match(rb"HTTP/1.1 (307|400|404) ", answer), answer[:500]
    assert content not in answer


def test_serves_public_files(server):
    record = f"{server.url}/v1/buckets/default/collections/assets/records/public"
    form = {"attachment": ("a b.svg", b"<svg/>", "image/svg+xml")}
    answer = requests.post(f"{record}/attachment", files=form, auth=ALICE, timeout=60)
    location = base_url(server) + answer.json()["location"]
    answer = requests.get(location, headers={"Range": "bytes=1-3"}, timeout=60)
    assert (answer.status_code, answer.content) == (206, b"svg")
    assert answer.headers["Content-Disposition"].startswith("attachment")
    assert answer.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert requests.post(location, timeout=60).status_code == 405
    for key in ("", "missing", "%ff", "%00", "x" * 2000, "__kinto-attachment__", ".."):
        assert ask(server, f"GET /files/{key}").startswith(b"HTTP/1.1 404 "), key
