"""Resumable uploads to two server processes without sticky sessions: random cuts, and two writers
of one offset. ``make tests-all`` runs a thousand uploads."""

import random
import secrets
import socket
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import requests
import transaction

from kinto_attachment.maintenance.fsck import fsck
from kinto_attachment.maintenance.gc import collect
from kinto_attachment.maintenance.server import Server
from tests.support.servers.wsgi import GunicornProcesses
from tests.support.site import ALICE, Site
from tests.support.tus import STREAM, VERSION, encode

SEGMENT = 256 * 1024
HEADERS = {**ALICE, **VERSION}


@pytest.fixture(scope="module", params=["local", pytest.param("seaweedfs", marks=pytest.mark.slow)])
def server(request, kinto_settings, file_settings, tmp_path_factory):
    settings = {
        **kinto_settings("postgresql", fresh=True),
        **file_settings(request.param),
        "kinto.attachment.uploads.segment_size": "256KiB",
        "kinto.storage_pool_size": "50",
        "kinto.storage_max_overflow": "10",
    }
    site = Site(**settings)
    with GunicornProcesses(settings, tmp_path_factory.mktemp("processes")) as server:
        server.site = site
        yield server


@pytest.fixture
def collection(server):
    bucket = f"{server.url}/buckets/b{uuid4().hex}"
    for url in (bucket, f"{bucket}/collections/c"):
        requests.put(url, headers=ALICE, timeout=60).raise_for_status()
    return f"{bucket}/collections/c"


def create(record: str, length: int) -> str:
    """Return the URL of a new upload."""
    headers = {
        **HEADERS,
        "Upload-Length": str(length),
        "Upload-Metadata": encode({"filename": "a.txt"}),
    }
    answer = requests.post(f"{record}/attachment/uploads", headers=headers, timeout=60)
    assert answer.status_code == 201, answer.text
    return answer.headers["Location"]


def offset_of(url: str) -> int:
    answer = requests.head(url, headers=HEADERS, timeout=60)
    assert answer.status_code == 200
    return int(answer.headers["Upload-Offset"])


def send(url: str, offset: int, content: bytes) -> requests.Response:
    headers = {**HEADERS, "Upload-Offset": str(offset), "Content-Type": STREAM}
    return requests.patch(url, data=content, headers=headers, timeout=120)


def send_part(url: str, offset: int, content: bytes, sent: int) -> None:
    """Announce all of the content, send some of it, and break off."""
    split = urlsplit(url)
    lines = [
        f"PATCH {split.path} HTTP/1.1",
        f"Host: {split.netloc}",
        f"Content-Length: {len(content)}",
        f"Content-Type: {STREAM}",
        f"Upload-Offset: {offset}",
        *(f"{name}: {value}" for name, value in HEADERS.items()),
    ]
    head = "\r\n".join([*lines, "", ""]).encode()
    with socket.create_connection((split.hostname, split.port), timeout=60) as connection:
        connection.sendall(head + content[:sent])
        if random.random() < 0.5:  # without this, the server gets a reset and not an end
            connection.shutdown(socket.SHUT_WR)
            connection.recv(65536)


def upload_with_cuts(record: str, seed: int) -> tuple[str, bytes]:
    """Upload a file that breaks off now and then. Nothing is sent twice but what a cut has lost."""
    chance = random.Random(seed)
    content = secrets.token_bytes(chance.choice([1, 1000, SEGMENT, SEGMENT + 1, 5 * SEGMENT // 2]))
    url = create(record, len(content))
    known = most = 0
    for _ in range(chance.randrange(4)):
        rest = content[known:]
        sent = chance.randrange(len(rest) + 1)
        send_part(url, known, rest, sent)
        most = max(most, known + sent)
        offset = offset_of(url)  # perhaps before the server has stored what was sent
        assert known <= offset <= most
        known = offset
    answer = send(url, known, content[known:])
    while answer.status_code == 409:  # the server is still reading what was cut off
        offset = offset_of(url)
        assert offset >= known
        known = offset
        if known == len(content):
            break
        answer = send(url, known, content[known:])
    assert answer.status_code in (204, 403, 409), answer.text
    return record, content


@pytest.mark.parametrize("count", [40, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.timeout(1200)
def test_random_cuts(server, collection, count):
    seed = random.randrange(10**9)
    records = [f"{collection}/records/r{number}" for number in range(count)]
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(upload_with_cuts, records, range(seed, seed + count)))
    for record, content in done:
        answer = requests.get(record, headers=ALICE, timeout=60)
        assert answer.status_code == 200, f"seed {seed}: {answer.text}"
        attachment = answer.json()["data"]["attachment"]
        assert attachment["hash"] == sha256(content).hexdigest(), f"seed {seed}"
        stored = requests.get(f"{record}/attachment", headers=ALICE, timeout=60)
        assert stored.content == content
    check_nothing_is_left(server)


@pytest.mark.parametrize("rounds", [10, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.timeout(600)
def test_two_writers_of_one_offset(server, collection, rounds):
    """Exactly one of them wins each time, and the file consists of what the winners have sent."""
    with ThreadPoolExecutor(8) as pool:
        for number in range(rounds):
            record = f"{collection}/records/w{number}"
            length = 3000
            url = create(record, length)
            expected = b""
            for offset in range(0, length, 1000):
                pieces = [bytes([writer]) * 1000 for writer in range(4)]
                answers = [pool.submit(send, url, offset, piece) for piece in pieces]
                codes = [answer.result().status_code for answer in answers]
                assert sorted(codes)[0] == 204, codes
                assert set(codes[:]) <= {204, 409, 403}, codes
                assert codes.count(204) == 1, codes
                expected += pieces[codes.index(204)]
            stored = requests.get(f"{record}/attachment", headers=ALICE, timeout=60)
            assert stored.content == expected
    check_nothing_is_left(server)


def check_nothing_is_left(server) -> None:
    site = server.site
    job = Server.of(site.registry, transaction.manager)
    list(collect(job, offline=True, force=True))
    assert list(fsck(job)) == []
    linked = site.in_transaction(lambda: {link.key for link in site.links.all()})
    marker = {key for key in site.keys if key.startswith("__kinto")}
    assert set(site.keys) - marker == linked
