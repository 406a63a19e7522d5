"""Slow, silent and greedy clients, over real sockets with gunicorn's threads."""

import json
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import requests

from tests.support.selection import mostly
from tests.support.servers.wsgi import Gunicorn
from tests.support.site import Site

AUTH = ("alice", "secret")
BASIC = b"Authorization: Basic YWxpY2U6c2VjcmV0\r\n"
COLLECTION = "/v1/buckets/slow/collections/c"
MIB = 1024 * 1024


@pytest.fixture(scope="module", params=mostly(["memory", "postgresql"], {"postgresql"}))
def server(request, kinto_settings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("slow")
    settings = {
        **kinto_settings(request.param, fresh=True),
        "kinto.attachment.base_path": str(folder / "files"),
        "kinto.attachment.library.bucket": "slow",
        "kinto.attachment.client.silence": "1",
        "kinto.attachment.client.min_rate": "1000",
        "kinto.attachment.client.window": "1.5",
    }
    if request.param == "postgresql":
        Site(**settings).close()  # creates the tables
    with Gunicorn(settings, folder) as server:
        for path in ("/buckets/slow", "/buckets/slow/collections/c"):
            requests.put(f"{server.url}{path}", auth=AUTH, timeout=30).raise_for_status()
        library = f"{server.url}/buckets/slow/collections/media"
        requests.put(library, auth=AUTH, timeout=30).raise_for_status()
        server.files = folder / "files"
        yield server


def ask(server, head: str, *parts: bytes, pause: float = 0.0, auth: bool = False):
    """Send a request in parts, and return its status, and the seconds until it came."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        lines = f"{head}\r\nHost: localhost\r\n".encode() + (BASIC if auth else b"")
        started = time.monotonic()
        client.sendall(lines + b"\r\n")
        client.setblocking(False)
        received, pending = b"", list(parts)
        while b"\r\n\r\n" not in received:
            if time.monotonic() - started > 15:
                return 0, 15.0
            if pending:
                try:
                    client.send(pending.pop(0))
                except OSError:
                    pending = []
                time.sleep(pause)
            try:
                data = client.recv(65536)
                if not data:
                    break
                received += data
            except BlockingIOError:
                time.sleep(0.01)
        status = received.split(b" ", 2)[1] if received else b"0"
        return int(status), time.monotonic() - started


FORM = "Content-Type: multipart/form-data; boundary=x"


@pytest.mark.parametrize(
    "head, status",
    [
        (f"POST {COLLECTION}/records/r/attachment HTTP/1.1\r\n{FORM}", 401),
        (f"DELETE {COLLECTION}/records/r/attachment HTTP/1.1", 401),
        ("POST /v1/media HTTP/1.1", 401),
        ("POST /v1/media/stat HTTP/1.1", 401),
        (f"POST /v1/media HTTP/1.1\r\n{FORM}", 401),
        ("POST /v1/content/_media HTTP/1.1", 401),
        ("PUT /v1/content/_media/r HTTP/1.1", 401),
        ("PATCH /v1/content/_media/r HTTP/1.1", 401),
        (f"GET {COLLECTION}/records/r/attachment HTTP/1.1", 401),
        ("GET /v1/ HTTP/1.1", 200),
    ],
)
@pytest.mark.parametrize("length", ["Content-Length: 1000000", "Transfer-Encoding: chunked"])
def test_the_response_does_not_wait_for_the_body(server, head, status, length):
    first = b"1\r\n{\r\n" if "chunked" in length else b"{"
    answered, seconds = ask(server, f"{head}\r\n{length}", first)
    assert answered == status
    assert seconds < 1


def stored(server) -> list[str]:
    """The files of the storage that have a name."""
    return sorted(str(path) for path in server.files.rglob("*") if path.is_file())


def spools(server) -> list[str]:
    """The files of the storage that the server has open. A spool has no name, but a descriptor."""
    found = []
    for descriptor in Path(f"/proc/{worker_of(server)}/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(str(descriptor.readlink()))
    return [path for path in found if path.startswith(f"{server.files}/")]


def worker_of(server) -> int:
    """The id of the process of gunicorn that handles the requests."""
    (worker,) = psutil.Process(server.pid).children()
    return worker.pid


def eventually(check, seconds: float = 5) -> bool:
    """Return whether something becomes true in that time."""
    end = time.monotonic() + seconds
    while not check():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def test_silence_ends_in_408_and_leaves_nothing(server):
    head = f"POST {COLLECTION}/records/silent/attachment HTTP/1.1\r\n{FORM}"
    head += f"\r\nContent-Length: {100 * MIB}"
    start = b'--x\r\nContent-Disposition: form-data; name="attachment"; filename="a.txt"\r\n\r\nabc'
    # The first upload of all leaves the mark of the storage.
    requests.post(f"{server.url}/media", b"first", auth=AUTH, timeout=30).raise_for_status()
    before = stored(server)
    assert spools(server) == []
    with ThreadPoolExecutor() as pool:
        # The server reads a body in large pieces.
        asked = pool.submit(ask, server, head, start, *[bytes(65536)] * 64, auth=True)
        assert eventually(lambda: spools(server), 0.9), "The upload has not begun."
        status, seconds = asked.result()
    assert status == 408
    assert 0.9 < seconds < 5
    record = f"{server.url}/buckets/slow/collections/c/records/silent"
    assert requests.get(record, auth=AUTH, timeout=30).status_code == 404
    assert eventually(lambda: not spools(server)), spools(server)
    assert stored(server) == before


@pytest.mark.parametrize("path", ["media", "media/stat", "content/_media"])
@pytest.mark.parametrize("length", ["Content-Length: 100000", "Transfer-Encoding: chunked"])
def test_trickling_ends_in_408(server, path, length):
    """One byte again and again: never silent, and far too slow."""
    parts = [b"1\r\n[\r\n" if "chunked" in length else b"["] * 60
    status, seconds = ask(
        server, f"POST /v1/{path} HTTP/1.1\r\n{length}", *parts, pause=0.2, auth=True
    )
    assert status == 408
    assert seconds < 8


@pytest.mark.parametrize("is_reset", [False, True], ids=["silent", "reset"])
@pytest.mark.parametrize("size", [1000, 600_000])
def test_what_arrives_of_a_resumable_upload_is_kept(server, size, is_reset):
    """To the last byte, however the line breaks."""
    uploads = f"{server.url}/buckets/slow/collections/c/records/resumed/attachment/uploads"
    version = {"Tus-Resumable": "1.0.0"}
    metadata = {"Upload-Length": "2000000", "Upload-Metadata": "filename YS5tcDQ="}
    created = requests.post(uploads, headers={**version, **metadata}, auth=AUTH, timeout=30)
    url = created.headers["Location"]
    path = url.partition(str(server.port))[2]
    head = (
        f"PATCH {path} HTTP/1.1\r\nHost: localhost\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\n"
        "Content-Type: application/offset+octet-stream\r\nContent-Length: 2000000\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(head.encode() + BASIC + b"\r\n" + bytes(size))
        if is_reset:
            time.sleep(0.5)  # what has not left this socket is lost
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        else:
            assert client.recv(99).startswith(b"HTTP/1.1 409 ")
    assert eventually(lambda: offset_of(url, version) == size), offset_of(url, version)


def offset_of(url: str, version: dict[str, str]) -> int:
    response = requests.head(url, headers=version, auth=AUTH, timeout=30)
    return int(response.headers["Upload-Offset"])


def test_a_slow_client_above_the_minimum_is_served(server):
    body = b"0123456789" * 30
    status, seconds = ask(
        server,
        "POST /v1/media HTTP/1.1\r\nContent-Length: 6000",
        *[body] * 20,
        pause=0.1,
        auth=True,
    )
    assert status == 201
    assert seconds > 1.5


@pytest.mark.parametrize("size", [2 * MIB, 100 * MIB])
@pytest.mark.parametrize(
    "method, path",
    [("post", "content/_media"), ("patch", "content/_media/r"), ("post", "media/stat")],
)
def test_json_is_bounded(server, method, path, size):
    def body():
        for _ in range(size // MIB):
            yield b" " * MIB

    memory = Path(f"/proc/{worker_of(server)}")
    memory.joinpath("clear_refs").write_text("5")  # the peak begins anew
    before = peak_of(memory)
    for auth, statuses in ((None, (401,)), (AUTH, (413,))):
        for data in (body(), b" " * size if size < 10 * MIB else None):
            if data is None:
                continue
            try:
                response = requests.request(
                    method, f"{server.url}/{path}", data=data, auth=auth, timeout=30
                )
            except requests.ConnectionError:
                continue  # the server closed the connection before the client had sent everything
            assert response.status_code in statuses, response.text
            assert response.json()["message"]
    assert peak_of(memory) - before < 10 * MIB


def peak_of(process: Path) -> int:
    """Return the most memory that the process has had, in bytes."""
    (kib,) = re.findall(r"VmHWM:\s*(\d+) kB", process.joinpath("status").read_text())
    return int(kib) * 1024


def test_a_refusal_reaches_a_client_that_is_still_sending(server):
    """Many clients read the response only after they have sent everything."""
    url = f"{server.url}/buckets/slow/collections/c/records/r/attachment"
    files = {"attachment": ("a.txt", b"x" * (4 * MIB))}
    response = requests.post(url, files=files, timeout=30)
    assert response.status_code == 401
    assert json.loads(response.content)["errno"]
