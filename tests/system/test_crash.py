"""Servers that are killed at any moment, under load: no acknowledged write is lost, and no file is
left over.

``make crash-test`` kills 50 times for each storage, ``make tests`` a few times.
"""

import json
import os
import random
import secrets
import signal
import socket
import threading
import time
from collections import Counter
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
import transaction

from kinto_attachment.maintenance import expiry
from kinto_attachment.maintenance import fsck as fsck_module
from kinto_attachment.maintenance.fsck import fsck
from kinto_attachment.maintenance.gc import collect
from kinto_attachment.maintenance.server import Server
from tests.support.servers.wsgi import GunicornProcesses
from tests.support.site import SETTINGS, Site
from tests.support.tus import STREAM

ALICE = ("alice", "secret")
TUS = {"Tus-Resumable": "1.0.0", "Upload-Metadata": "filename YS5wZGY="}
CLIENTS = 6
RECORDS = 5
WELL_KNOWN = [b"%d" % number * 1000 for number in range(4)]
KILLS = int(os.environ.get("CRASH_TEST_KILLS", "3"))


class Client(threading.Thread):
    """A client that works in a collection of its own, and remembers the responses.

    :ivar allowed: by record, the SHA-256 that its file may have; None is no file. More than one
        while the last request got no response.
    """

    def __init__(self, number: int, seed: int):
        super().__init__(daemon=True)
        self.collection = f"buckets/crash{number}/collections/c"
        self.allowed: dict[str, set[str | None]] = {f"r{n}": {None} for n in range(RECORDS)}
        self.random = random.Random(seed)
        self.done: Counter = Counter()
        self.failures: list[str] = []
        self.unfinished: tuple[str, str, bytes] | None = None
        self.direct: tuple[str, str, bytes] | None = None

    def begin(self, url: str) -> None:
        """Go on with a new server: with the same collection and the same memory."""
        other = Client.__new__(Client)
        other.__dict__.update(self.__dict__)
        threading.Thread.__init__(other, daemon=True)
        other.url, other.stopped = url, threading.Event()
        self.running = other
        other.start()

    def run(self) -> None:
        with requests.Session() as session:
            session.auth = ALICE
            self.session = session
            while not self.stopped.is_set():
                operation = self.random.choices(*zip(*self.OPERATIONS, strict=True))[0]
                try:
                    operation(self)
                except (requests.RequestException, OSError):
                    return  # killed

    def change(self, method: str, path: str, after: dict[str, str | None], **options) -> None:
        """Send a request that leaves these records with these files, if it succeeds."""
        before = {record: set(self.allowed[record]) for record in after}
        for record, digest in after.items():
            self.allowed[record] = before[record] | {digest}
        response = self.session.request(method, f"{self.url}/{path}", timeout=60, **options)
        self.done[f"{method} {response.status_code}"] += 1
        if response.status_code == 202:
            return  # it will, or not, when the client asks again
        if response.ok:
            for record, digest in after.items():
                self.allowed[record] = {digest}
        else:
            # A request that is refused changes nothing.
            self.allowed.update(before)
            if response.status_code >= 500 and response.status_code != 503:
                self.failures.append(f"{method} {path}: {response.status_code} {response.text}")

    def any_record(self) -> str:
        return self.random.choice(list(self.allowed))

    def upload(self) -> None:
        record = self.any_record()
        size = self.random.choice([0, 10, 5000, 300_000, 2_000_000, 9_000_000])
        content = secrets.token_bytes(16) * (size // 16) + secrets.token_bytes(8)
        if self.random.random() < 0.5:  # content that other clients upload too
            content = self.random.choice(WELL_KNOWN)
        self.change(
            "POST",
            f"{self.collection}/records/{record}/attachment",
            {record: sha256(content).hexdigest()},
            files={"attachment": ("file.pdf", content)},
            data={"data": json.dumps({"size": size})},
        )

    def resume(self) -> None:
        """Begin an upload that arrives in pieces, or send the next piece of the one that is
        open."""
        if self.unfinished is None:
            record, content = self.any_record(), secrets.token_bytes(self.random.randrange(900_000))
            response = self.session.post(
                f"{self.url}/{self.collection}/records/{record}/attachment/uploads",
                headers={**TUS, "Upload-Length": str(len(content) + 1)},
                timeout=60,
            )
            if response.status_code == 201:
                path = response.headers["Location"].partition("/v1/")[2]
                self.unfinished = (record, path, content + b"!")
            return
        record, path, content = self.unfinished
        head = self.session.head(f"{self.url}/{path}", headers=TUS, timeout=60)
        offset = int(head.headers.get("Upload-Offset", len(content)))
        rest = content[offset:]
        piece = self.random.choice([rest, rest[: self.random.randrange(400_000)]])
        headers = {**TUS, "Upload-Offset": str(offset), "Content-Type": STREAM}
        if not rest:  # finished, or gone with its collection
            self.unfinished = None
        elif piece == rest:
            after = {record: sha256(content).hexdigest()}
            self.change("PATCH", path, after, data=piece, headers=headers)
        else:
            self.session.patch(f"{self.url}/{path}", data=piece, headers=headers, timeout=60)

    def send_directly(self) -> None:
        """Begin a direct upload, or go on with the one that is open: send what is missing, or have
        it attached."""
        if self.direct is None:
            record, content = self.any_record(), secrets.token_bytes(self.random.randrange(900_000))
            response = self.session.post(
                f"{self.url}/{self.collection}/records/{record}/attachment/uploads",
                json={"filename": "a.pdf", "size": len(content)},
                timeout=60,
            )
            if response.status_code == 201:
                path = response.headers["Location"].partition("/v1/")[2]
                self.direct = (record, path, content)
            return
        record, path, content = self.direct
        state = self.session.get(f"{self.url}/{path}", timeout=60)
        if state.status_code != 200 or state.json()["state"] != "open":
            self.direct = None  # attached, or gone with its collection
            return
        missing = [part for part in state.json()["parts"] if "url" in part]
        for part in missing:
            piece = content[part["offset"] : part["offset"] + part["size"]]
            requests.put(part["url"], data=piece, headers=part["headers"], timeout=60)
        if not missing:
            after = {record: sha256(content).hexdigest()}
            before = self.done["POST 200"] + self.done["POST 201"]
            self.change("POST", f"{path}/complete", after)
            self.done["completed"] += self.done["POST 200"] + self.done["POST 201"] - before

    def upload_what_is_refused(self) -> None:
        record = self.any_record()
        url = f"{self.url}/{self.collection}/records/{record}/attachment"
        form = {"attachment": ("file.exe", secrets.token_bytes(100_000))}
        self.session.post(url, files=form, timeout=60)

    def break_off(self) -> None:
        url = urlsplit(self.url)
        path = f"{url.path}/{self.collection}/records/{self.any_record()}/attachment"
        head = (
            f"POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Basic YWxpY2U6c2VjcmV0\r\n"
            "Content-Type: multipart/form-data; boundary=XX\r\nContent-Length: 5000000\r\n\r\n"
            '--XX\r\nContent-Disposition: form-data; name="attachment"; filename="a.pdf"\r\n\r\n'
        )
        with socket.create_connection((url.hostname, url.port), timeout=60) as connection:
            connection.sendall(head.encode() + bytes(self.random.randrange(1_000_000)))

    def detach(self) -> None:
        record = self.any_record()
        self.change("DELETE", f"{self.collection}/records/{record}/attachment", {record: None})

    def delete(self) -> None:
        record = self.any_record()
        self.change("DELETE", f"{self.collection}/records/{record}", {record: None})

    def put(self) -> None:
        record = self.any_record()
        path = f"{self.collection}/records/{record}"
        self.change("PUT", path, {record: None}, json={"data": {"a": 1}})

    def patch(self) -> None:
        record = self.any_record()
        url = f"{self.url}/{self.collection}/records/{record}"
        self.session.patch(url, json={"data": {"a": secrets.token_hex(4)}}, timeout=60)

    def delete_all(self) -> None:
        self.change("DELETE", f"{self.collection}/records", dict.fromkeys(self.allowed))

    def delete_collection(self) -> None:
        parent = self.random.choice([self.collection, self.collection.partition("/coll")[0]])
        self.change("DELETE", parent, dict.fromkeys(self.allowed))
        self.create()

    def create(self) -> None:
        for path in (self.collection.partition("/coll")[0], self.collection):
            self.session.put(f"{self.url}/{path}", timeout=60)

    OPERATIONS = [
        (upload, 12),
        (resume, 12),
        (send_directly, 8),
        (upload_what_is_refused, 1),
        (break_off, 1),
        (detach, 2),
        (delete, 2),
        (put, 1),
        (patch, 2),
        (delete_all, 1),
        (delete_collection, 1),
        (create, 1),
    ]

    def check(self, url: str) -> None:
        """Check that the server has kept its word; what was open is settled by now."""
        for record, allowed in self.allowed.items():
            path = f"{url}/{self.collection}/records/{record}"
            response = requests.get(path, auth=ALICE, timeout=60)
            assert response.status_code in (200, 403, 404), response.text
            attachment = response.json().get("data", {}).get("attachment")
            digest = attachment and attachment["hash"]
            assert digest in allowed, f"{path}: {digest} is none of {allowed}"
            if digest:
                file = requests.get(f"{path}/attachment", auth=ALICE, timeout=60)
                assert file.status_code == 200, file.text
                assert sha256(file.content).hexdigest() == digest
            self.allowed[record] = {digest}


@pytest.mark.parametrize(
    "names", ["random", pytest.param("by hash", marks=pytest.mark.slow if KILLS < 10 else ())]
)
@pytest.mark.parametrize(
    "files", ["local", pytest.param("seaweedfs", marks=pytest.mark.slow if KILLS < 10 else ())]
)
@pytest.mark.timeout(60 + 30 * KILLS)
def test_killed_at_any_moment(kinto_settings, file_settings, tmp_path, monkeypatch, files, names):
    settings = {**kinto_settings("postgresql", fresh=True), **file_settings(files)}
    settings["kinto.attachment.uploads.segment_size"] = "256KiB"
    if names == "by hash":
        settings["kinto.attachment.randomize"] = "false"
        settings["kinto.attachment.filename_pattern"] = "{hash}{extension}"
    monkeypatch.setattr(fsck_module, "PAUSE_SECONDS", 0)
    site = Site(**settings)
    settings["kinto.includes"] = f"{SETTINGS['kinto.includes']} tests.support.servers.pauses"
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    seed = random.randrange(10**9)
    chance = random.Random(seed)
    clients = [Client(number, seed + number) for number in range(CLIENTS)]
    for kill in range(KILLS):
        with GunicornProcesses(settings, tmp_path) as server:
            for client in clients:
                client.check(server.url)
                client.begin(server.url)
            time.sleep(chance.uniform(0.2, 1.5))
            os.killpg(server.pid, signal.SIGKILL)
            for client in clients:
                client.running.stopped.set()
            for client in clients:
                client.running.join(60)
                assert not client.running.is_alive()
        problems = {finding.kind for finding in fsck(_parts(site), deep=kill == KILLS - 1)}
        # gc deletes what a killed process has left; no record ever loses its bytes.
        assert problems <= {"orphan object"}, f"seed {seed}"
    with GunicornProcesses(settings, tmp_path) as server:
        for client in clients:
            client.check(server.url)
            assert client.failures == [], f"seed {seed}"
    later = time.time() + 2 * 86400
    monkeypatch.setattr(expiry, "database_time", lambda storage: int(later * 1000))
    monkeypatch.setattr(time, "time", lambda: later)
    deleted = list(collect(_parts(site), offline=True, force=True))
    assert {finding.kind for finding in deleted} <= {"deleted", "expired"}
    assert list(fsck(_parts(site), deep=True)) == []
    linked = site.in_transaction(lambda: {link.key for link in site.links.all()})
    assert {stat.key for stat in site.storage.list()} == linked
    site.close()
    done = sum((client.done for client in clients), Counter())
    assert done["POST 201"] + done["POST 200"] >= KILLS, done
    if KILLS >= 10:
        assert done["PATCH 204"] and done["completed"], done


def _parts(site: Site) -> Server:
    return Server.of(site.registry, transaction.manager)
