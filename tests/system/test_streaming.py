"""Large uploads on a whole server: they go on to the object store while they arrive, in constant
memory, and nothing is written to the disk of the server."""

import secrets
import signal
import socket
import time
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import psutil
import pytest
import requests
import transaction

from kinto_attachment.maintenance.gc import collect
from kinto_attachment.maintenance.server import Server
from tests.support.servers.wsgi import Gunicorn
from tests.support.site import Site
from tests.support.streaming import SIZES, uploads

AUTH = ("alice", "secret")
MIB = 1024 * 1024
HEAD = b'--XX\r\nContent-Disposition: form-data; name="attachment"; filename="a.pdf"\r\n\r\n'
TAIL = b"\r\n--XX--\r\n"
FORM = {"Content-Type": "multipart/form-data; boundary=XX"}


class Deployment:
    """A server, and a site with the same database and storage.

    :ivar worker: the process that serves.
    """

    def __init__(self, settings: dict[str, str], folder: Path):
        spool = folder / "spool"
        spool.mkdir()
        self.site = Site(**settings)
        self.site.put(uuid4().hex)  # marks the storage
        self.server = Gunicorn({**settings, "kinto.attachment.spool_dir": str(spool)}, folder)
        spool.rmdir()  # from here on, no file can be received on the disk
        (self.worker,) = psutil.Process(self.server.pid).children()
        self.bucket = f"b{uuid4().hex}"
        path = f"{self.server.url}/buckets/{self.bucket}"
        for url in (path, f"{path}/collections/c"):
            requests.put(url, auth=AUTH, timeout=60).raise_for_status()
        self.records = f"{path}/collections/c/records"

    def post(self, body, record: str | None = None) -> requests.Response:
        url = f"{self.records}/{record or uuid4().hex}/attachment"
        return requests.post(url, data=body, headers=FORM, auth=AUTH, timeout=120)

    def begin(self, size: int) -> socket.socket:
        """Send the first bytes of a large upload, and return the connection."""
        connection = socket.create_connection(("127.0.0.1", self.server.port), timeout=60)
        path = self.records.partition(str(self.server.port))[2]
        head = (
            f"POST {path}/{uuid4().hex}/attachment HTTP/1.1\r\nHost: localhost\r\n"
            "Authorization: Basic YWxpY2U6c2VjcmV0\r\n"
            f"Content-Type: {FORM['Content-Type']}\r\nContent-Length: {500 * MIB}\r\n\r\n"
        )
        connection.sendall(head.encode() + HEAD + bytes(size))
        return connection

    @property
    def keys(self) -> list[str]:
        return [stat.key for stat in self.site.storage.list(f"{self.bucket}/")]

    def await_uploads(self, are_there: bool) -> None:
        deadline = time.monotonic() + 60
        while bool(uploads(self.site)) != are_there:
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def peak(self) -> float:
        """Return the peak of the memory in MiB since it was last asked for."""
        status = Path(f"/proc/{self.worker.pid}/status").read_text()
        Path(f"/proc/{self.worker.pid}/clear_refs").write_text("5")  # proc(5)
        return int(status.split("VmHWM:")[1].split()[0]) / 1024


@pytest.fixture(scope="module")
def make_deployment(kinto_settings, file_settings, tmp_path_factory):
    opened = []

    def make() -> Deployment:
        settings = {**kinto_settings("postgresql", fresh=True), **file_settings("seaweedfs")}
        opened.append(Deployment(settings, tmp_path_factory.mktemp("streaming")))
        return opened[-1]

    yield make
    for deployment in opened:
        deployment.server.stop()
        deployment.site.close()


@pytest.fixture(scope="module")
def deployment(make_deployment):
    return make_deployment()


@pytest.mark.parametrize("size", [*SIZES, 50 * MIB])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_the_bytes_are_right(deployment, size, is_chunked):
    content = secrets.token_bytes(size)
    body = HEAD + content + TAIL
    pieces = (body[start : start + 100_003] for start in range(0, len(body), 100_003))
    response = deployment.post(pieces if is_chunked else body, f"r{size}")
    assert response.status_code == (200 if is_chunked else 201), response.text
    assert response.json()["hash"] == sha256(content).hexdigest()
    url = f"{deployment.records}/r{size}/attachment"
    assert requests.get(url, auth=AUTH, timeout=60).content == content
    assert uploads(deployment.site) == []


def test_memory_and_threads(deployment):
    def body(size):
        yield HEAD
        block = secrets.token_bytes(MIB)
        for _ in range(size):
            yield block
        yield TAIL

    deployment.post(body(20)).raise_for_status()
    deployment.peak()
    idle, threads = deployment.worker.memory_info().rss / MIB, deployment.worker.num_threads()
    response = deployment.post(body(200))
    assert response.json()["size"] == 200 * MIB
    assert deployment.peak() - idle < 64
    assert deployment.worker.num_threads() <= threads + 1


def test_a_client_that_breaks_off(deployment):
    before = deployment.keys
    with closing(deployment.begin(20 * MIB)):
        deployment.await_uploads(are_there=True)
    deployment.await_uploads(are_there=False)
    assert deployment.keys == before


def test_a_process_that_is_killed(make_deployment):
    """``gc`` aborts what it leaves."""
    deployment = make_deployment()
    with closing(deployment.begin(20 * MIB)):
        deployment.await_uploads(are_there=True)
        deployment.server.stop(signal.SIGKILL)
    found = list(collect(Server.of(deployment.site.registry, transaction.manager), offline=True))
    assert "unfinished" in {finding.detail for finding in found}
    assert uploads(deployment.site) == deployment.keys == []
