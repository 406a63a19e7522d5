"""Clients that upload slowly, and how they affect a client that reads records."""

import socket
import threading
import time
from contextlib import closing, suppress
from uuid import uuid4

import psycopg2

from ..harness.client import AUTHORIZATION, FORM, HEAD, TAIL, Client, Failed
from ..harness.environment import KINTO, OURS, Environment, Kinto
from ..harness.process_stats import percentile
from ..report import Table, Target

CLIENTS, PAUSE = 30, 0.02
PIECE = bytes(4096)

# Every transaction is idle for a moment between two statements; these are idle for longer.
IDLE = """
    SELECT count(*) FROM pg_stat_activity
     WHERE datname = current_database() AND state LIKE 'idle in transaction%'
       AND state_change < clock_timestamp() - INTERVAL '0.5 seconds'
"""


def run(environment: Environment) -> Table:
    """Measure servers with one process of 40 threads."""
    length = environment.pick(20, 1)
    servers = environment.servers(threads=40)
    lines = {name: _measure(server, length) for name, server in servers.items()}
    ours = lines[OURS]
    targets = [
        Target("slow clients: p95 of GET relative to unloaded", ours["x unloaded"], 1.5),
        Target("slow clients: connections idle in transaction", ours["idle"], 0),
        Target("slow clients: failures", ours["GETs failed"] + ours["uploads failed"], 0),
    ]
    notes = [
        f"{KINTO}: there are no uploads, so both times are without load.",
        "idle: the most connections that were idle in a transaction for half a second.",
        "GETs fail after 10 seconds, and then count towards the p95.",
    ]
    columns = [
        "unloaded ms",
        "p95 ms",
        "x unloaded",
        "max ms",
        "idle",
        "GETs failed",
        "uploads failed",
    ]
    title = f"p95 of GET while {CLIENTS} clients send for {length} s each"
    return Table(title, columns, lines, targets, notes)


def _measure(server: Kinto, length: float) -> dict:
    collection = server.client.collection()
    record = f"{collection}/records/{uuid4().hex}"
    server.client.json("PUT", record, {"n": 1})
    _get_for(server, record, 1)  # the first requests load modules
    unloaded, _ = _get_for(server, record, length / 4)
    clients = []
    failed: list[str] = []
    if server.name != KINTO:
        for _ in range(CLIENTS):
            path = f"{collection}/records/{uuid4().hex}/attachment"
            clients.append(threading.Thread(target=_send, args=(server, path, length, failed)))
    with _IdleConnections(server.database) as watch:
        for client in clients:
            client.start()
        loaded, errors = _get_for(server, record, length)
    for client in clients:
        client.join()
    more, _ = _get_for(server, record, length / 4)
    before = percentile(unloaded + more, 95) * 1000
    during = percentile(loaded, 95) * 1000
    return {
        "unloaded ms": before,
        "p95 ms": during,
        "x unloaded": during / before,
        "max ms": max(loaded) * 1000,
        "idle": watch.most,
        "GETs failed": errors,
        "uploads failed": len(failed),
    }


def _get_for(server: Kinto, record: str, length: float) -> tuple[list[float], int]:
    """Send a GET every :data:`PAUSE` seconds for so long; return the seconds of each, and how many
    failed."""
    client, times, failed = Client(server.port, timeout=10), [], 0
    deadline = time.monotonic() + length
    while time.monotonic() < deadline:
        started = time.monotonic()
        try:
            client.request("GET", record)
        except Failed:
            failed += 1
        times.append(time.monotonic() - started)
        time.sleep(PAUSE)
    return times, failed


def _send(server: Kinto, path: str, length: float, failed: list[str]) -> None:
    """Upload slowly, a piece at a time.

    :param failed: is appended to if the upload fails.
    """
    pieces = int(length * 2)
    headers = {
        "Host": "127.0.0.1",
        "Connection": "close",
        "Content-Length": str(len(HEAD) + pieces * len(PIECE) + len(TAIL)),
        **AUTHORIZATION,
        **FORM,
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    answer = b""
    with (
        suppress(OSError),
        closing(socket.create_connection(("127.0.0.1", server.port), 60)) as sock,
    ):
        sock.sendall(f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + HEAD)
        for _ in range(pieces):
            time.sleep(length / pieces)
            sock.sendall(PIECE)
        sock.sendall(TAIL)
        answer = sock.recv(4096)
    if b" 201 " not in answer[:20]:
        failed.append(answer[:100].decode(errors="replace"))


class _IdleConnections(threading.Thread):
    """A thread that counts the connections that are idle in a transaction.

    :ivar most: the highest count so far.
    """

    def __init__(self, url: str):
        super().__init__()
        self.most = 0
        self._url = url
        self._done = threading.Event()

    def run(self) -> None:
        with closing(psycopg2.connect(self._url)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                while not self._done.wait(0.2):
                    cursor.execute(IDLE)
                    self.most = max(self.most, cursor.fetchone()[0])

    def __enter__(self) -> "_IdleConnections":
        self.start()
        return self

    def __exit__(self, *exc_info) -> None:
        self._done.set()
        self.join()
