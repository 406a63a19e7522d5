"""The files of a server move to another storage and back, while clients work with them."""

import json
import random
import secrets
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest
import requests

from tests.support.servers.wsgi import BIN, Gunicorn, write_ini
from tests.support.site import SETTINGS, Site

ALICE = ("alice", "secret")
CLIENTS = 4
RECORDS = "buckets/b/collections/c/records"


class Client(threading.Thread):
    """A client that works with records of its own, and reads each file that it has uploaded.

    :param files: by record, the SHA-256 of its file; None if it has none.
    :ivar failures: descriptions of wrong responses.
    """

    def __init__(self, url: str, number: int, files: dict[str, str | None]):
        super().__init__(daemon=True)
        self.url, self.number, self.files = f"{url}/{RECORDS}", number, files
        self.random = random.Random(number)
        self.stopped = threading.Event()
        self.done: Counter = Counter()
        self.failures: list[str] = []
        self.session = requests.Session()
        self.session.auth = ALICE

    def run(self) -> None:
        self.add()
        while not self.stopped.wait(0.1):
            self.random.choices([self.add, self.replace, self.detach, self.read], [2, 3, 1, 2])[0]()
        self.session.close()

    def fill(self, count: int) -> None:
        while len(self.files) < count:
            self.add()
        self.session.close()

    def add(self) -> None:
        self.upload(f"r{self.number}-{len(self.files)}")

    def replace(self) -> None:
        self.upload(self.any_record())

    def read(self) -> None:
        self.check(self.any_record())

    def upload(self, record: str) -> None:
        content = secrets.token_bytes(self.random.randrange(5000))
        self.request("POST", record, {200, 201}, files={"attachment": ("photo.jpg", content)})
        self.files[record] = sha256(content).hexdigest()
        self.check(record)

    def detach(self) -> None:
        record = self.any_record()
        self.request("DELETE", record, {204 if self.files[record] else 404})
        self.files[record] = None

    def check(self, record: str) -> None:
        digest = self.files[record]
        content = self.request("GET", record, {200 if digest else 404}).content
        if digest and sha256(content).hexdigest() != digest:
            self.failures.append(f"{record}: other bytes")

    def any_record(self) -> str:
        return self.random.choice(list(self.files))

    def request(self, method: str, record: str, expected: set[int], **options):
        url = f"{self.url}/{record}/attachment"
        response = self.session.request(method, url, timeout=60, **options)
        self.done[method] += 1
        if response.status_code not in expected:
            self.failures.append(f"{method} {record}: {response.status_code} {response.text}")
        return response


class MigratingServer:
    """A server whose files are in one of some storages.

    :param settings: of each storage, by a name for it.
    :ivar files: for each client, the digest of each file by the name of its record.
    """

    def __init__(self, settings: dict[str, dict[str, str]], folder: Path):
        self.settings, self.folder = settings, folder
        for name, these in settings.items():
            write_ini(folder / f"{name}.ini", {**SETTINGS, **these})
        Site(**these).close()  # makes the tables
        self.files: list[dict[str, str | None]] = [{} for _ in range(CLIENTS)]

    @contextmanager
    def served_from(self, name: str) -> Iterator[str]:
        """Start the server with that ini file, and yield its URL; stop it at the end."""
        with Gunicorn(self.settings[name], self.folder) as server:
            for parent in ("buckets/b", "buckets/b/collections/c"):
                requests.put(f"{server.url}/{parent}", auth=ALICE, timeout=60).raise_for_status()
            yield server.url

    @contextmanager
    def at_work(self, url: str) -> Iterator[None]:
        """Let clients work during the block, and check that each got the right responses."""
        clients = [Client(url, number, files) for number, files in enumerate(self.files)]
        for client in clients:
            client.start()
        try:
            yield
        finally:
            for client in clients:
                client.stopped.set()
            for client in clients:
                client.join(60)
        assert [client.failures for client in clients] == [[]] * CLIENTS
        done = sum((client.done for client in clients), Counter())
        assert min(done[method] for method in ("POST", "GET", "DELETE")) > 0, done

    def fill(self, url: str, count: int) -> None:
        clients = [Client(url, number, files) for number, files in enumerate(self.files)]
        threads = [threading.Thread(target=one.fill, args=[count // CLIENTS]) for one in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [client.failures for client in clients] == [[]] * CLIENTS

    def read_all(self, url: str) -> int:
        """Read every file, check its bytes, and return how many there are."""
        for number, files in enumerate(self.files):
            client = Client(url, number, files)
            for record in files:
                client.check(record)
            client.session.close()
            assert client.failures == []
        return sum(digest is not None for files in self.files for digest in files.values())

    def run(self, name: str, *arguments: str) -> tuple[int, dict[str, set[str]]]:
        """Run a command with the ini file of that storage; return its exit status, and the keys of
        its findings by their kind."""
        command = [BIN / "kinto-attachment", *arguments, "--json", "--ini", f"{name}.ini"]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=600)
        assert "Traceback" not in done.stderr, done.stderr
        found: dict[str, set[str]] = {}
        for line in done.stdout.splitlines():
            finding = json.loads(line)
            found.setdefault(finding["kind"], set()).add(finding["key"])
        return done.returncode, found

    @contextmanager
    def moved(self, old: str, new: str, count: int = 0) -> Iterator[str]:
        """Move the server to another storage, and yield its URL. Most files are copied while it
        runs, the rest while it is stopped, so that no file is ever missing.

        :param count: how many files the server gets first.
        """
        with self.served_from(old) as url:
            self.fill(url, count)
            with self.at_work(url):
                status, found = self.run(old, "migrate", "--to", f"{new}.ini")
        assert (status, set(found) - {"deleted"}) == (0, {"copied"})
        status, since = self.run(old, "migrate", "--to", f"{new}.ini")
        assert (status, set(since)) == (0, {"copied"})
        assert since["copied"].isdisjoint(found["copied"])
        with self.served_from(new) as url:
            self.read_all(url)
            yield url


@pytest.fixture
def make_settings(make_database, file_settings):
    """Settings by the names of file storages, of one database."""

    def make(**kinds: str) -> dict[str, dict[str, str]]:
        database = make_database()
        return {name: {**database, **file_settings(kind)} for name, kind in kinds.items()}

    return make


@pytest.mark.timeout(600)
@pytest.mark.parametrize("count", [12, pytest.param(1000, marks=pytest.mark.slow)])
def test_there_and_back(make_settings, tmp_path, count):
    """No client notices; in the end every file is there and ``fsck`` finds nothing."""
    server = MigratingServer(make_settings(first="local", s3="seaweedfs", second="local"), tmp_path)
    with server.moved("first", "s3", count):
        pass
    with server.moved("s3", "second") as url:
        # Only copies of files that were replaced or detached later.
        _, found = server.run("second", "fsck", "--deep")
        assert set(found) <= {"orphan object"}
        # No upload is under way by now, although the server runs.
        assert server.run("second", "gc", "--offline")[0] == 0
        assert server.run("second", "fsck", "--deep") == (0, {})
        assert server.read_all(url) > count / 2


class TestInterrupted:
    COUNT = 40

    @pytest.fixture
    def sites(self, make_settings, tmp_path):
        """Sites on the old and on the new storage, with their ini files."""

        def make(old: str, new: str) -> tuple[Site, Site]:
            settings = make_settings(old=old, new=new)
            for name, these in settings.items():
                write_ini(tmp_path / f"{name}.ini", {**SETTINGS, **these})
            made = [Site(**these) for these in settings.values()]
            sites.extend(made)
            return tuple(made)

        sites: list[Site] = []
        yield make
        for site in sites:
            site.close()

    @pytest.mark.parametrize(
        "old, new, how",
        [
            ("local", "seaweedfs", signal.SIGKILL),
            pytest.param("local", "seaweedfs", signal.SIGINT, marks=pytest.mark.slow),
            pytest.param("seaweedfs", "local", signal.SIGKILL, marks=pytest.mark.slow),
        ],
    )
    def test_goes_on(self, sites, tmp_path, old, new, how):
        """Each copied file is whole, and is not copied again."""
        old, new = sites(old, new)
        collection = old.collection()
        contents = {}
        for _ in range(self.COUNT):
            content = secrets.token_bytes(1000)
            location = collection.record().upload(content).json["location"]
            contents[old.key(location)] = content
        command = [BIN / "kinto-attachment", "migrate", "--to", "new.ini", "--ini", "old.ini"]
        with subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            for _ in range(5):
                assert process.stdout.readline().startswith("copied  ")
            process.send_signal(how)
            process.communicate(timeout=60)
        assert process.returncode == (2 if how == signal.SIGINT else -how)
        before = {stat.key: stat for stat in new.storage.list()}
        assert 5 <= len(before) < self.COUNT
        assert all(b"".join(new.storage.open(key)) == contents[key] for key in before)

        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0
        copied = {line.split()[1] for line in done.stdout.splitlines()}
        assert copied == set(contents) - set(before)
        after = {stat.key: stat for stat in new.storage.list()}
        assert {key: after[key] for key in before} == before  # with their dates
        assert all(b"".join(new.storage.open(key)) == contents[key] for key in contents)
        assert set(after) == set(contents)
