"""Clients that make gunicorn wait, before their permission is known or while they read."""

import socket
import time
from contextlib import suppress

import psutil
import pytest
import requests

from tests.support.servers.wsgi import Gunicorn
from tests.support.site import Site
from tests.support.threads import at_once

AUTH = ("alice", "secret")
COLLECTION = "/v1/buckets/strange/collections/c"
QUEUE = 2
SIZE = 16 * 1024 * 1024


@pytest.fixture(scope="module")
def server(kinto_settings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("strangers")
    settings = {
        **kinto_settings("postgresql", fresh=True),
        "kinto.attachment.base_path": str(folder / "files"),
        "kinto.attachment.client.silence": "1",
        "kinto.attachment.client.queue": str(QUEUE),
    }
    Site(**settings).close()  # creates the tables
    with Gunicorn(settings, folder) as server:
        everyone = {"permissions": {"read": ["system.Everyone"]}}
        for path in ("/buckets/strange", "/buckets/strange/collections/c"):
            url = f"{server.url}{path}"
            requests.put(url, json=everyone, auth=AUTH, timeout=30).raise_for_status()
        url = f"{server.url}{COLLECTION.removeprefix('/v1')}/records/large/attachment"
        files = {"attachment": ("large.txt", bytes(SIZE))}
        requests.post(url, files=files, auth=AUTH, timeout=60).raise_for_status()
        yield server


def connect(server, head: str, body: bytes = b"", buffer: int = 0) -> socket.socket:
    """Return a connection over which the request was sent.

    :param buffer: bytes that the connection receives before the client reads them; 0 for many.
    """
    client = socket.socket()
    if buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    client.settimeout(20)
    client.connect(("127.0.0.1", server.port))
    client.sendall(f"{head}\r\nHost: localhost\r\n\r\n".encode() + body)
    return client


def cpu_seconds(server) -> float:
    """Return the CPU time that the processes of the server have used so far."""
    process = psutil.Process(server.pid)
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def status_of(client: socket.socket) -> int:
    return int(client.recv(65536).split(b" ", 2)[1])


JSON = "Content-Type: application/json\r\nContent-Length: 1000000"
PATHS = ["POST /v1/batch", f"PATCH {COLLECTION}/records/r", f"PUT {COLLECTION}/records/r"]


@pytest.mark.parametrize("path", PATHS)
def test_few_wait_for_bodies_of_kinto(server, path):
    """All others are refused at once, so that threads are left for other clients."""
    seconds = []

    def be_silent():
        started = time.monotonic()
        with connect(server, f"{path} HTTP/1.1\r\n{JSON}", b"{") as client:
            assert status_of(client) == 408
            seconds.append(time.monotonic() - started)

    at_once(6, be_silent)
    assert sum(each > 0.9 for each in seconds) == QUEUE
    # The places are free again.
    at_once(1, be_silent)
    assert seconds[-1] > 0.9


def test_no_transaction_waits_for_a_body_of_kinto(server):
    """Kinto locks a row of each new collection before it reads the body."""
    url = f"{server.url}/buckets/strange/collections/fresh"
    everyone = {"permissions": {"read": ["system.Everyone"]}}
    requests.put(url, json=everyone, auth=AUTH, timeout=30).raise_for_status()
    head = "PATCH /v1/buckets/strange/collections/fresh/records/r HTTP/1.1"
    with connect(server, f"{head}\r\n{JSON}", b"{"):
        started = time.monotonic()
        requests.put(f"{url}/records/s", json={}, auth=AUTH, timeout=30).raise_for_status()
        assert time.monotonic() - started < 0.9


@pytest.mark.parametrize("length", ["Content-Length: 24", "Transfer-Encoding: chunked"])
def test_a_body_in_pieces_is_complete(server, length):
    body = b'{"data": {"name": "ab"}}'
    pieces = [body[:5], body[5:]]
    if "chunked" in length:
        pieces = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces] + [b"0\r\n\r\n"]
    basic = "Authorization: Basic YWxpY2U6c2VjcmV0\r\nContent-Type: application/json"
    head = f"PUT {COLLECTION}/records/pieces HTTP/1.1\r\n{basic}\r\n{length}"
    with connect(server, head, pieces[0]) as client:
        for piece in pieces[1:]:
            time.sleep(0.4)
            client.sendall(piece)
        assert status_of(client) in (200, 201)
    url = f"{server.url}{COLLECTION.removeprefix('/v1')}/records/pieces"
    assert requests.get(url, auth=AUTH, timeout=30).json()["data"]["name"] == "ab"


RANGES = ["", "Range: bytes=1-"]
"""gunicorn sends a whole file by ``sendfile``, and our code sends the chunks of a part."""


@pytest.mark.parametrize("headers", RANGES, ids=["file", "chunks"])
def test_a_client_that_reads_nothing_is_cut_off(server, headers):
    head = f"GET {COLLECTION}/records/large/attachment HTTP/1.1"
    with connect(server, f"{head}\r\n{headers}".rstrip(), buffer=4096) as client:
        time.sleep(7)
        received = 0
        with suppress(ConnectionError):
            while data := client.recv(1 << 20):
                received += len(data)
        assert received < SIZE


@pytest.mark.parametrize("headers", RANGES, ids=["file", "chunks"])
def test_a_client_that_reads_slowly_is_served(server, headers):
    head = f"GET {COLLECTION}/records/large/attachment HTTP/1.1\r\nConnection: close"
    received = 0
    with connect(server, f"{head}\r\n{headers}".rstrip(), buffer=1 << 20) as client:
        for _ in range(12):
            received += len(client.recv(1 << 18))
            time.sleep(0.5)
        while data := client.recv(1 << 20):
            received += len(data)
    assert received > SIZE


@pytest.mark.parametrize("path", PATHS)
def test_no_thread_is_left_with_a_client_that_goes_away(server, path):
    for _ in range(3):
        connect(server, f"{path} HTTP/1.1\r\n{JSON}", b"{").close()
    time.sleep(1)
    before = cpu_seconds(server)
    time.sleep(1)
    assert cpu_seconds(server) - before < 0.5
