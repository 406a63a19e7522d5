"""Many slow and silent clients at once, beside a client that does its work.

`make attack` runs the long form: 60 seconds for each route, alone and behind nginx.
"""

import os
import socket
import statistics
import threading
import time
from collections import Counter
from contextlib import ExitStack

import pytest
import requests

from tests.support.servers.nginx import NGINX, Nginx
from tests.support.servers.wsgi import Gunicorn16
from tests.support.site import Site

SECONDS = float(os.environ.get("ATTACK_SECONDS", "1.0"))
SOCKETS = 120
PAUSE = 10
"""Seconds between two bytes of a silent client."""

ATTACKER = "127.0.0.2"
"""The address of the silent clients; the other one has 127.0.0.1."""

AUTH = ("alice", "secret")
PARENT = "/v1/buckets/attacked/collections/c"

# Each announces a body, sends one byte of it, and falls silent; or it does what its last word says:
#
# * pouring: it goes on sending a body that the server has refused.
# * staying: it does not close the connection, although it has announced that.
# * reading: it requests a large file, and reads nothing of it.
ROUTES = {
    "attachment": f"POST {PARENT}/records/r/attachment",
    "attachment-delete": f"DELETE {PARENT}/records/r/attachment",
    "attachment-get": f"GET {PARENT}/records/r/attachment",
    "media": "POST /v1/media",
    "media-chunked": "POST /v1/media chunked",
    "media-hash": f"PUT /v1/media/{'0' * 64}",
    "media-stat": "POST /v1/media/stat",
    "library": "POST /v1/media multipart",
    "content": "POST /v1/content/_media",
    "content-object": "PATCH /v1/content/_media/r",
    "unsplash": "POST /v1/unsplash/abc",
    "image": "GET /v1/image/100x0/abc.jpg",
    # Kinto reads these bodies before it knows who sends them.
    "batch": "POST /v1/batch",
    "record": f"PATCH {PARENT}/records/r",
    "record-put": f"PUT {PARENT}/records/r chunked",
    "refused": "POST /v1/media pouring",
    "closing": "GET /v1/__lbheartbeat__ staying",
    "download": f"GET {PARENT}/records/large/attachment reading",
}

MISBEHAVIOURS = {"pouring", "staying", "reading"}


def head(route: str, host: str) -> bytes:
    method, path, *how = route.split()
    if MISBEHAVIOURS & {*how} - {"pouring"}:
        connection = "close" if "staying" in how else "keep-alive"
        return (
            f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: {connection}\r\n\r\n".encode()
        )
    length = "Transfer-Encoding: chunked" if "chunked" in how else "Content-Length: 1000000"
    is_form = "multipart" in how or path.endswith("/attachment")
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", length]
    mimetype = "multipart/form-data; boundary=x" if is_form else "application/json"
    lines.append(f"Content-Type: {mimetype}")
    first = b"1\r\n{\r\n" if "chunked" in how else b"{"
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + first


class Attack:
    """Sockets that are opened again as soon as the server closes them.

    :ivar refused: responses that arrived.
    """

    def __init__(self, port: int, route: str):
        self._address = ("127.0.0.1", port)
        self._head = head(route, f"127.0.0.1:{port}")
        self._how = route.split()[-1]
        self._over = threading.Event()
        self.refused = 0
        self.others = Counter()
        self._threads = [threading.Thread(target=self._be_silent) for _ in range(SOCKETS)]

    def __enter__(self) -> "Attack":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _be_silent(self) -> None:
        while not self._over.is_set():
            try:
                with socket.socket() as client:
                    if self._how == "reading":
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                    client.bind((ATTACKER, 0))
                    client.settimeout(5)
                    client.connect(self._address)
                    client.sendall(self._head)
                    client.settimeout(0.5)
                    self._misbehave(client)
            except OSError:
                # What is tried is holding threads, and not a flood of new connections.
                self._over.wait(PAUSE)

    def _misbehave(self, client: socket.socket) -> None:
        if self._how == "pouring":
            while not self._over.wait(0.2):
                client.sendall(bytes(20_000))
        elif self._how in ("staying", "reading"):
            self._over.wait(PAUSE)
        else:
            self._wait(client)

    def _wait(self, client: socket.socket) -> None:
        sent = time.monotonic()
        while not self._over.is_set():
            try:
                data = client.recv(4096)
            except TimeoutError:
                if time.monotonic() - sent > PAUSE:
                    client.sendall(b" ")
                    sent = time.monotonic()
                continue
            if not data:
                break
            self.others[data[:40]] += 1
            self.refused += data.startswith(b"HTTP/1.1 4") or data.startswith(b"HTTP/1.1 3")
        # What is tried is holding threads, and not a flood of new connections.
        self._over.wait(PAUSE)


def p95_of(url: str, seconds: float) -> float:
    """Work for that long, and return the 95th percentile of the seconds that a request takes."""
    took, end = [], time.monotonic() + seconds
    with requests.Session() as session:
        session.auth = AUTH
        while time.monotonic() < end:
            started = time.monotonic()
            form = {"attachment": ("a.txt", b"content")}
            session.post(f"{url}/attachment", files=form, timeout=30).raise_for_status()
            session.get(f"{url}/attachment", timeout=30).raise_for_status()
            took.append(time.monotonic() - started)
    return statistics.quantiles(took, n=20)[-1] if len(took) > 1 else took[0]


@pytest.fixture(scope="module")
def servers(kinto_settings, tmp_path_factory):
    """URLs by name: gunicorn alone, and behind nginx."""
    folder = tmp_path_factory.mktemp("attack")
    settings = {
        **kinto_settings("postgresql", fresh=True),
        "kinto.attachment.base_path": str(folder / "files"),
        "kinto.attachment.library.bucket": "attacked",
        "kinto.attachment.unsplash.access_key": "none",
    }
    Site(**settings).close()  # creates the tables
    with ExitStack() as stack:
        server = stack.enter_context(Gunicorn16(settings, folder))
        readable = {"permissions": {"read": ["system.Everyone"]}}
        for parent in ("/buckets/attacked", "/buckets/attacked/collections/c"):
            url = f"{server.url}{parent}"
            requests.put(url, json=readable, auth=AUTH, timeout=30).raise_for_status()
        large = {"attachment": ("large.txt", bytes(30 << 20))}
        url = f"{server.url}{PARENT.removeprefix('/v1')}/records/large/attachment"
        requests.post(url, files=large, auth=AUTH, timeout=60).raise_for_status()
        media = f"{server.url}/buckets/attacked/collections/media"
        requests.put(media, auth=AUTH, timeout=30).raise_for_status()
        ports = {"gunicorn": server.port}
        if NGINX:
            nginx = stack.enter_context(Nginx(server.port, folder / "files", folder))
            ports["nginx"] = nginx.port
        yield ports


@pytest.fixture(scope="module")
def unloaded(servers):
    """The 95th percentile of a client's requests without an attack, for each server."""
    return {
        name: p95_of(f"http://127.0.0.1:{port}{PARENT}/records/worker", SECONDS)
        for name, port in servers.items()
    }


BEHIND_NGINX = ("attachment", "media-chunked", "content", "batch", "refused", "download")
PROMPT = ("attachment", "attachment-get", "attachment-delete", "media", "media-chunked")
"""nginx passes these on before it has the whole body, so a refusal comes at once."""

CASES = [
    # Without nginx, a client that does not read its response holds a thread for a while.
    *(("gunicorn", route) for route in ROUTES if route != "download"),
    *(
        pytest.param("nginx", route, marks=[pytest.mark.slow] * (route not in BEHIND_NGINX))
        for route in ROUTES
    ),
]


@pytest.mark.parametrize("through, route", CASES)
def test_silent_clients_hold_no_thread(servers, unloaded, through, route, record_property):
    if through not in servers:
        pytest.skip("nginx is not installed")
    port = servers[through]
    with Attack(port, ROUTES[route]) as attack:
        time.sleep(0.5)
        during = p95_of(f"http://127.0.0.1:{port}{PARENT}/records/worker", SECONDS)
    before = unloaded[through]
    record_property("p95", (before, during))
    print(f"\n{through} {route}: p95 {before * 1000:.1f} ms -> {during * 1000:.1f} ms", end=" ")
    waits = not MISBEHAVIOURS & {*ROUTES[route].split()}
    if waits and (through == "gunicorn" or route in PROMPT):
        assert attack.refused >= SOCKETS / 2, attack.others
    # Without the limits, no request at all is answered.
    assert during < 2, attack.refused
