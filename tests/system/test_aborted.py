"""Requests that are aborted half-way, and a mix of good and bad ones: nothing is left of them.

`make attack` runs the long form: 2 times 2000 aborted requests, and 5000 mixed ones.
"""

import os
import random
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psutil
import psycopg2
import pytest
import requests

from tests.support.servers.wsgi import Gunicorn
from tests.support.site import Site

REQUESTS = int(os.environ.get("ATTACK_REQUESTS", "100"))
AUTH = ("alice", "secret")
BASIC = "Authorization: Basic YWxpY2U6c2VjcmV0"
PARENT = "/v1/buckets/abused/collections/c/records"
FORM_START = (
    b'--x\r\nContent-Disposition: form-data; name="attachment"; filename="a.txt"\r\n\r\n'
    + b"a" * 9000
)


@pytest.fixture(scope="module")
def server(kinto_settings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("abused")
    settings = {
        **kinto_settings("postgresql", fresh=True),
        "kinto.attachment.base_path": str(folder / "files"),
    }
    Site(**settings).close()  # creates the tables
    with Gunicorn(settings, folder) as server:
        for path in ("/buckets/abused", "/buckets/abused/collections/c"):
            requests.put(f"{server.url}{path}", auth=AUTH, timeout=30).raise_for_status()
        server.files, server.database = folder / "files", settings["kinto.storage_url"]
        yield server


class Left:
    """What a server holds: files, memory, and descriptors, of which those of its connections to the
    database do not count: it keeps up to ten of them."""

    def __init__(self, server: Gunicorn):
        (worker,) = psutil.Process(server.pid).children()
        self.mebibytes = worker.memory_info().rss >> 20
        self.files = sorted(
            path.name
            for path in server.files.rglob("*")
            if path.is_file() and "__" not in str(path.relative_to(server.files))
        )
        with closing(psycopg2.connect(server.database)) as connection:
            cursor = connection.cursor()
            cursor.execute(
                "SELECT count(*), count(*) FILTER (WHERE state LIKE 'idle in transaction%') "
                "FROM pg_stat_activity WHERE datname = current_database() "
                "AND pid <> pg_backend_pid()"
            )
            connections, self.idle_in_transaction = cursor.fetchone()
        self.descriptors = worker.num_fds() - connections


def abort(server: Gunicorn, number: int) -> None:
    """Begin an upload, and go away at some point of it."""
    heads = {
        0: f"POST {PARENT}/r{number % 50}/attachment HTTP/1.1",
        1: "POST /v1/media HTTP/1.1",
        2: f"POST {PARENT}/r{number % 50}/attachment HTTP/1.1",
    }
    length = "Transfer-Encoding: chunked" if number % 4 == 3 else "Content-Length: 500000"
    lines = [heads[number % 3], "Host: localhost", BASIC, length]
    lines.append("Content-Type: multipart/form-data; boundary=x" * (number % 3 != 1) or "X-A: b")
    body = FORM_START[: random.randrange(len(FORM_START))]
    if number % 4 == 3:
        body = b"%x\r\n%s\r\n" % (len(body), body) if body else b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        if number % 5 == 0:
            time.sleep(0.02)


def settle(server: Gunicorn, before: Left) -> Left:
    """Wait until the server has noticed that its clients are gone."""
    for _ in range(100):
        left = Left(server)
        if left.descriptors <= before.descriptors and not left.idle_in_transaction:
            break
        time.sleep(0.1)
    return left


@pytest.mark.parametrize("run", [1, 2])
def test_aborted_uploads_leave_nothing(server, run):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: abort(server, number), range(16)))  # threads and buffers
        before = settle(server, Left(server))
        list(pool.map(lambda number: abort(server, number), range(REQUESTS)))
    after = settle(server, before)
    print(f"\n{REQUESTS} aborted: {vars(before)} -> {vars(after)}", end=" ")
    assert after.files == before.files == []
    assert after.descriptors <= before.descriptors
    assert after.idle_in_transaction == 0
    assert after.mebibytes <= before.mebibytes + 16


def mixed(server: Gunicorn, number: int, statuses: Counter) -> None:
    """One request of many kinds, most of them wrong in some way."""
    url = f"{server.url}/buckets/abused/collections/c/records/r{number % 20}/attachment"
    file = {"attachment": (f"{number}.txt", b"x" * (number % 5000))}
    kinds = [
        lambda: requests.post(url, files=file, auth=AUTH, timeout=60),
        lambda: requests.post(url, files=file, timeout=60),
        lambda: requests.post(url, files=file, data={"data": "{"}, auth=AUTH, timeout=60),
        lambda: requests.post(url, files={"attachment": ("a.exe", b"x")}, auth=AUTH, timeout=60),
        lambda: requests.post(url, data=b"--x", auth=AUTH, timeout=60),
        lambda: requests.get(url, auth=AUTH, headers={"Range": "bytes=0-9,20-"}, timeout=60),
        lambda: requests.get(f"{url}/10x0", auth=AUTH, timeout=60),
        lambda: requests.delete(url, auth=AUTH, timeout=60),
        lambda: requests.post(f"{server.url}/media/{'0' * 64}", b"x", auth=AUTH, timeout=60),
        lambda: requests.post(f"{server.url}/media/stat", b"[" * 999, auth=AUTH, timeout=60),
        lambda: abort(server, number),
    ]
    response = kinds[number % len(kinds)]()
    statuses[getattr(response, "status_code", "aborted")] += 1


def test_mixed_requests_leave_only_what_they_stored(server):
    statuses: Counter = Counter()
    lock = threading.Lock()

    def run(number: int) -> None:
        mine: Counter = Counter()
        mixed(server, number, mine)
        with lock:
            statuses.update(mine)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(run, range(44)))
        before = settle(server, Left(server))
        list(pool.map(run, range(REQUESTS * 5 // 2)))
    after = settle(server, before)
    print(f"\n{dict(statuses)}: {vars(before)} -> {vars(after)}", end=" ")
    assert not [status for status in statuses if isinstance(status, int) and status >= 500]
    records = requests.get(
        f"{server.url}/buckets/abused/collections/c/records", auth=AUTH, timeout=60
    ).json()["data"]
    attached = [record["attachment"]["location"] for record in records if "attachment" in record]
    assert sorted(location.rpartition("/")[2] for location in attached) == after.files
    assert after.descriptors <= before.descriptors + 1
    assert after.idle_in_transaction == 0
    assert after.mebibytes <= before.mebibytes + 32
