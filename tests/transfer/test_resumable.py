"""Large files: uploads that go on where they were cut off."""

import json
import logging
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pytest
import requests

from kinto_attachment.transfer import client as client_module
from kinto_attachment.transfer.client import Client
from kinto_attachment.transfer.library import Description, upload_media
from kinto_attachment.transfer.records.upload import upload_records
from kinto_attachment.transfer.sending import journal, resumable
from kinto_attachment.transfer.sending.sender import RESUMABLE_ABOVE
from kinto_attachment.transfer.upload import record_id, upload
from tests.support.command import shell
from tests.support.http_record import ALICE, HTTPRecord
from tests.support.servers.cutting import CuttingProxy
from tests.support.servers.outage import FaultyProxy
from tests.support.servers.wsgi import BIN, Gunicorn
from tests.support.site import Site
from tests.support.transfers import AUTH, Told, client_of, one

MIB = 1024 * 1024
SEGMENT = MIB
"""As the server of these tests has it."""
IN_FLIGHT = 4 * MIB
"""What may be in the buffers of the sockets when a connection breaks."""

CONTENT = secrets.token_bytes(16 * MIB + 7)
TUS = {"Tus-Resumable": "1.0.0"}


@pytest.fixture(autouse=True)
def pieces(monkeypatch):
    """Send pieces that are small enough for several of them."""
    monkeypatch.setattr(resumable, "PIECE", 6 * MIB)


@pytest.fixture(autouse=True)
def state(monkeypatch, tmp_path):
    """The folder of the journal, of this test alone."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "kinto-attachment"


@pytest.fixture
def film(tmp_path):
    path = tmp_path / "films" / "r1" / "pictures" / "001-film.bin"
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    return path


def send_plain(client, film, progress=None):
    return one(upload(client, [film], progress=progress or Told()))


def send_record(client, film, progress=None):
    return one(upload_records(client, film.parents[2], progress=progress or Told()))


def send_media(client, film, progress=None):
    job = upload_media(client, [film], Description("Film"), {}, progress=progress or Told())
    return one(job)


WAYS = [send_plain, send_record, send_media]


class Place:
    """Where the film goes in one of the ways.

    :ivar uploads: the URL of its resumable uploads.
    """

    def __init__(self, record: HTTPRecord, send):
        root, records = record.server.url, f"{record.collection}/records"
        self._send = send
        if send is send_media:
            self.url = f"{root}/content/_media"
            self.uploads = f"{root}/media/uploads"
        else:
            name, field = "r1", "attachments/pictures"
            if send is send_plain:
                name, field = record_id("001-film.bin"), "attachment"
            self.url = f"{records}/{name}"
            self.uploads = f"{self.url}/{field}/uploads"
        self._before: list[str] = []
        self._before = [each["id"] for each in self.open_uploads()]

    def hashes(self) -> list[str]:
        """The hashes of all files that are there."""
        data = requests.get(self.url, auth=ALICE, timeout=60).json().get("data", {})
        if self._send is send_media:
            data = [row["attachment"] for row in data]
        else:
            data = data.get("attachment") or data.get("pictures", [])
        return [each["hash"] for each in (data if isinstance(data, list) else [data])]

    def open_uploads(self) -> list[dict]:
        """The uploads of Alice that this test has not finished."""
        found = requests.get(self.uploads, auth=ALICE, headers=TUS, timeout=60).json()
        is_open = [each for each in found if each["state"] == "open"]
        return [each for each in is_open if each["id"] not in self._before]


@pytest.fixture(params=WAYS)
def send(request):
    return request.param


@pytest.fixture
def place(server, record, send):
    for uri in ("buckets/site", "buckets/site/collections/media"):
        requests.put(f"{server.url}/{uri}", auth=ALICE, timeout=60).raise_for_status()
    yield Place(record, send)
    records = f"{server.url}/buckets/site/collections/media/records"
    requests.delete(records, auth=ALICE, timeout=60).raise_for_status()


def hash_of(content: bytes) -> str:
    return sha256(content).hexdigest()


class TestRuns:
    """A run is interrupted, and another one goes on."""

    def test_goes_on(self, record, film, send, place, state):
        with FaultyProxy(record.server.port) as line:
            line.cut(6 * MIB)
            with client_of(record, url=f"{line.url}/v1") as client:
                assert send(client, film).kind == "unavailable"
                (left,) = place.open_uploads()
                assert 6 * MIB - IN_FLIGHT <= left["offset"] <= 6 * MIB
                assert len(list(state.iterdir())) == 1
                line.recover()
                told = Told()
                assert send(client, film, told).kind == "uploaded"
                assert line.up <= len(CONTENT) - left["offset"] + 100_000
        assert told.bytes[0] == left["offset"] and sum(told.bytes) == len(CONTENT)
        assert told.expected_bytes == len(CONTENT)
        assert place.hashes() == [hash_of(CONTENT)]
        assert list(state.iterdir()) == [] and place.open_uploads() == []

    @pytest.mark.parametrize("send", [send_plain])
    def test_a_file_that_changes_in_between(self, record, film, send, place):
        """It is not mixed with its former version, even if its size and time are the same."""
        before = film.stat()
        with FaultyProxy(record.server.port) as line:
            line.cut(6 * MIB)
            with client_of(record, url=f"{line.url}/v1") as client:
                assert send(client, film).kind == "unavailable"
                content = b"x" + CONTENT[1:]
                film.write_bytes(content)
                os.utime(film, ns=(before.st_atime_ns, before.st_mtime_ns))
                line.recover()
                assert send(client, film).kind == "uploaded"
        assert place.hashes() == [hash_of(content)]

    def test_a_client_that_is_killed(self, record, film, send, place, state):
        """With ``kill -9``, while it sends; the same command goes on."""
        with FaultyProxy(record.server.port) as line:
            where, path = ["--server", f"{line.url}/v1", "--auth", AUTH], film
            if send is send_media:
                where.append("--library")
            else:
                _, bucket, collection, _ = client_arguments(record)
                where += ["--bucket", bucket, "--collection", collection]
            if send is send_record:
                where, path = [*where, "--records"], film.parents[2]
            command = ["upload", str(path), "--json", *where]
            line.slow(16 * MIB)
            with subprocess.Popen([BIN / "kinto-attachment", *command]) as process:
                while line.up < 6 * MIB:
                    assert process.poll() is None
                    time.sleep(0.01)
                process.kill()
            line.recover()
            status, lines, _ = shell(*command)
            assert (status, json.loads(lines[0])["kind"]) == (0, "uploaded")
            assert line.up <= len(CONTENT) - 6 * MIB + SEGMENT + IN_FLIGHT
        assert place.hashes() == [hash_of(CONTENT)]
        assert list(state.iterdir()) == [] and place.open_uploads() == []

    @pytest.mark.parametrize("send", [send_plain])
    def test_an_upload_that_the_server_has_lost(self, record, film, send, place, state):
        with FaultyProxy(record.server.port) as line:
            line.cut(6 * MIB)
            with client_of(record, url=f"{line.url}/v1") as client:
                send(client, film)
                url = f"{place.uploads}/{place.open_uploads()[0]['id']}"
                requests.delete(url, headers=TUS, auth=ALICE, timeout=60).raise_for_status()
                line.recover()
                assert send(client, film).kind == "uploaded"
        assert place.hashes() == [hash_of(CONTENT)]
        assert list(state.iterdir()) == []

    @pytest.mark.parametrize("send", [send_plain])
    def test_an_upload_that_has_expired(self, file_settings, film, send, tmp_path, state):
        settings = {"kinto.attachment.uploads.ttl": "1", "kinto.attachment.extensions": "any"}
        with Killed({**file_settings("local"), **settings}, tmp_path) as server:
            record = HTTPRecord(server)
            place = Place(record, send)
            with FaultyProxy(server.port) as line:
                line.cut(6 * MIB)
                with client_of(record, url=f"{line.url}/v1") as client:
                    send(client, film)
                    (left,) = place.open_uploads()
                    url = f"{place.uploads}/{left['id']}"
                    while requests.get(url, headers=TUS, auth=ALICE, timeout=60).ok:
                        time.sleep(0.1)
                    line.recover()
                    assert send(client, film).kind == "uploaded"
            assert place.hashes() == [hash_of(CONTENT)]
            assert list(state.iterdir()) == []

    @pytest.mark.parametrize("send", [send_plain])
    def test_of_another_user(self, record, film, send, place):
        """Bob neither sees nor continues what Alice has begun."""
        record.share("system.Authenticated", uri=record.bucket, permission="write")
        with FaultyProxy(record.server.port) as line:
            line.cut(6 * MIB)
            with client_of(record, url=f"{line.url}/v1") as client:
                send(client, film)
            line.recover()
            with client_of(record, "bob:secret", url=f"{line.url}/v1") as client:
                assert send(client, film).kind == "uploaded"
            assert line.up >= len(CONTENT)
        assert len(place.open_uploads()) == 1
        assert place.hashes() == [hash_of(CONTENT)]

    @pytest.mark.parametrize("send", [send_plain])
    def test_a_record_that_changes_in_between(self, record, film, send, place):
        """The second run replaces the file under the condition that holds now."""
        with FaultyProxy(record.server.port) as line:
            line.cut(6 * MIB)
            with client_of(record, url=f"{line.url}/v1") as client:
                send(client, film)
                requests.put(place.url, json={}, auth=ALICE, timeout=60).raise_for_status()
                line.recover()
                assert send(client, film).kind == "uploaded"
        assert place.hashes() == [hash_of(CONTENT)]


class TestCuts:
    """Connections break again and again, and the run goes on."""

    def test_at_random_bytes(self, record, film, send, place, monkeypatch):
        # The server needs a moment to store what has arrived.
        monkeypatch.setattr(client_module, "FIRST_WAIT", 0.2)
        told = Told()
        with (
            CuttingProxy(record.server.port, 100_000, 5 * MIB) as line,
            client_of(record, url=f"{line.url}/v1") as client,
        ):
            assert send(client, film, told).kind == "uploaded"
            assert line.cuts > 3
            # What has arrived was not sent again.
            assert line.up <= len(CONTENT) + line.cuts * (SEGMENT + 100_000)
        assert place.hashes() == [hash_of(CONTENT)]
        assert sum(told.bytes) == len(CONTENT)

    def test_a_lost_answer(self, hostile, film, send, place):
        """The last bytes have arrived, and the client does not know: it asks."""

        def misbehave(handler, answer):
            is_last = answer is not None and (answer.headers.get("ETag") or answer.content)
            if handler.command == "PATCH" and is_last:
                handler.reset()
                return True

        with hostile(misbehave) as (proxy, client):
            assert send(client, film).kind == "uploaded"
            patches = [line for line, _ in proxy.requests if line.startswith("PATCH")]
        assert len(patches) == 3
        assert place.hashes() == [hash_of(CONTENT)]

    @pytest.mark.parametrize("send", [send_plain])
    @pytest.mark.parametrize("status", [409, 503])
    def test_is_tried_again(self, hostile, film, send, place, status):
        left = [1, 1]

        def misbehave(handler, answer):
            if handler.command == "PATCH" and answer is None and left:
                handler.rfile.read(int(handler.headers["Content-Length"]))
                left.pop()
                handler.answer(status, {}, b"{}")
                return True

        with hostile(misbehave) as (_, client):
            assert send(client, film).kind == "uploaded"
        assert place.hashes() == [hash_of(CONTENT)]

    @pytest.mark.parametrize("send", [send_plain])
    def test_an_upload_that_is_lost_during_the_run(self, hostile, film, send, place):
        """Another one begins."""
        left = [1]

        def misbehave(handler, answer):
            if handler.command == "PATCH" and answer is not None and left:
                left.pop()
                headers = {**TUS, "Authorization": handler.headers["Authorization"]}
                url = f"{place.uploads}/{handler.path.rpartition('/')[2]}"
                requests.delete(url, headers=headers, timeout=60).raise_for_status()

        with hostile(misbehave) as (_, client):
            assert send(client, film).kind == "uploaded"
        assert place.hashes() == [hash_of(CONTENT)]
        assert place.open_uploads() == []

    @pytest.mark.parametrize("send", [send_plain])
    def test_a_restart_of_the_server(
        self, make_database, file_settings, film, send, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(client_module, "FIRST_WAIT", 0.3)
        settings = {
            **make_database(),
            **file_settings("local"),
            "kinto.attachment.extensions": "any",
            "kinto.attachment.uploads.segment_size": str(SEGMENT),
        }
        Site(**settings).close()  # this creates the tables
        reached = threading.Event()
        told = Told(lambda count: reached.set() if sum(told.bytes) > 4 * MIB else None)
        with (
            Killed(settings, tmp_path) as first,
            FaultyProxy(first.port) as line,
            client_of(record := HTTPRecord(first), url=f"{line.url}/v1") as client,
            ThreadPoolExecutor() as pool,
        ):
            place = Place(record, send)
            line.slow(8 * MIB)
            job = pool.submit(send, client, film, told)
            assert reached.wait(30)
            first.stop()
            with Killed(settings, tmp_path) as second:
                line.move(second.port)
                assert job.result().kind == "uploaded"
                assert line.up <= len(CONTENT) + SEGMENT + IN_FLIGHT
                place.url = place.url.replace(str(first.port), str(second.port))
                assert place.hashes() == [hash_of(CONTENT)]


class Killed(Gunicorn):
    """A server that has no time to finish its requests."""

    def stop(self, *args) -> None:
        super().stop(signal.SIGKILL)


class TestRefusals:
    @pytest.mark.parametrize("send", [send_plain])
    def test_a_record_that_another_client_writes(self, hostile, film, send, place, state):
        def misbehave(handler, answer):
            if handler.command == "PATCH" and answer is None:
                requests.put(place.url, json={}, auth=ALICE, timeout=60)

        with hostile(misbehave) as (_, client):
            found = send(client, film)
        assert (found.kind, found.detail) == ("conflict", "another client has changed the record")
        assert place.hashes() == []
        assert place.open_uploads() == [] and list(state.iterdir()) == []

    @pytest.mark.parametrize("send", [send_record])
    def test_a_list_that_another_client_writes(self, hostile, film, send, place):
        """The record is read again, and the file sent under the new condition."""
        left = [1]

        def misbehave(handler, answer):
            if handler.command == "PATCH" and answer is None and left:
                left.pop()
                requests.put(place.url, json={}, auth=ALICE, timeout=60)

        with hostile(misbehave) as (_, client):
            assert send(client, film).kind == "uploaded"
        assert place.hashes() == [hash_of(CONTENT)]
        assert place.open_uploads() == []

    def test_two_clients_at_once(self, record, film, send, place, state):
        def run(_):
            with Client(*client_arguments(record)) as client:
                return send(client, film).kind

        with ThreadPoolExecutor() as pool:
            assert list(pool.map(run, range(2))) == ["uploaded"] * 2
        # To the library, both are new objects, as with forms.
        assert set(place.hashes()) == {hash_of(CONTENT)}
        assert list(state.iterdir()) == [] and place.open_uploads() == []

    @pytest.mark.parametrize("send", [send_plain])
    def test_two_clients_of_one_upload(self, record, film, send, place, monkeypatch):
        """As on Windows, where the journal is not locked: each sends what the other has not."""
        break_off_at(record, send, film)
        monkeypatch.setattr(journal, "fcntl", None)

        def run(_):
            with Client(*client_arguments(record)) as client:
                return send(client, film).kind

        with ThreadPoolExecutor() as pool:
            assert list(pool.map(run, range(2))) == ["uploaded"] * 2
        assert place.hashes() == [hash_of(CONTENT)]


def client_arguments(record) -> list:
    _, _, bucket, _, collection = record.collection.removeprefix(record.server.url).split("/")
    return [record.server.url, bucket, collection, AUTH]


def break_off_at(record, send, film):
    """Begin an upload, and leave it as a client does that is killed."""
    stopped = threading.Event()

    def look(count):
        if sum(told.bytes) > 5 * MIB:
            stopped.set()
            client.stop()

    told = Told(look)
    with Client(*client_arguments(record)) as client, pytest.raises(Exception):  # noqa: B017
        send(client, film, told)
    assert stopped.is_set()


class TestForms:
    """What is sent in a form, as before."""

    @pytest.mark.parametrize("send", [send_plain])
    @pytest.mark.parametrize(
        "size, is_form", [(RESUMABLE_ABOVE, True), (RESUMABLE_ABOVE + 1, False)]
    )
    def test_small_files(self, hostile, film, send, place, size, is_form):
        film.write_bytes(CONTENT[:size])
        with hostile(lambda handler, answer: False) as (proxy, client):
            assert send(client, film).kind == "uploaded"
            assert any(line.startswith("PATCH") for line, _ in proxy.requests) is not is_form
        assert place.hashes() == [hash_of(CONTENT[:size])]

    @pytest.mark.parametrize("send", [send_plain])
    def test_servers_that_take_nothing_else(self, hostile, film, send, place, state):
        def misbehave(handler, answer):
            if answer is not None and handler.path == "/v1/":
                root = answer.json()
                del root["capabilities"]["attachments"]["resumable"]
                handler.answer(200, {}, json.dumps(root).encode())
                return True

        with hostile(misbehave) as (proxy, client):
            assert send(client, film).kind == "uploaded"
            assert not any("/uploads" in line for line, _ in proxy.requests)
        assert place.hashes() == [hash_of(CONTENT)]
        assert not state.exists()

    @pytest.mark.parametrize("send", [send_plain])
    def test_dry_run(self, client, film, send, place, state):
        assert one(upload(client, [film], dry_run=True)).kind == "uploaded"
        assert place.hashes() == [] and not state.exists()


@pytest.mark.parametrize("send", [send_plain])
class TestJournal:
    def test_a_folder_that_cannot_be_written(self, client, film, send, place, state, caplog):
        """Uploads work, and one warning says that they cannot be resumed."""
        state.parent.write_bytes(b"not a folder")
        other = film.with_name("other.bin")
        other.write_bytes(CONTENT[::-1])
        with caplog.at_level(logging.WARNING):
            found = list(upload(client, [film, other]))
        assert [each.kind for each in found] == ["uploaded"] * 2
        assert place.hashes() == [hash_of(CONTENT)]
        (record,) = caplog.records
        assert "the next one cannot resume its uploads" in record.message
        assert str(state) in record.message

    @pytest.mark.parametrize("content", [b"", b"[", b'{"upload": "../../x"}', b'{"upload": 1}'])
    def test_a_malformed_entry(self, record, film, send, place, state, content):
        break_off_at(record, send, film)
        (entry,) = state.iterdir()
        entry.write_bytes(content)
        with Client(*client_arguments(record)) as client:
            assert send(client, film).kind == "uploaded"
        assert place.hashes() == [hash_of(CONTENT)]
        assert list(state.iterdir()) == []

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
    def test_an_entry_of_another_user_of_the_computer(self, record, film, send, place, state):
        break_off_at(record, send, film)
        (entry,) = state.iterdir()
        os.chown(entry, 12345, 12345)
        told = Told()
        with Client(*client_arguments(record)) as client:
            assert send(client, film, told).kind == "uploaded"
        assert told.bytes[0] < MIB
        assert entry.exists() and len(place.open_uploads()) == 1

    def test_is_private_and_cleaned(self, record, film, send, place, state: Path):
        state.mkdir(parents=True)
        old, other = state / "old.json", state / "other.json"
        for path in (old, other):
            path.write_bytes(b"")
        os.utime(old, (1, 1))
        break_off_at(record, send, film)
        assert not old.exists() and other.exists()
        (entry,) = set(state.iterdir()) - {other}
        assert entry.stat().st_mode & 0o777 == 0o600
        assert b"alice" not in entry.read_bytes() and b"secret" not in entry.read_bytes()


SCRIPT = """
import json, resource, sys
from kinto_attachment.transfer.client import Client
from kinto_attachment.transfer.upload import upload
client, path = json.loads(sys.argv[1])
(found,) = upload(Client(*client), [path])
print(found.kind, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory(record, tmp_path):
    """It does not grow with the file."""
    path, used = tmp_path / "a.bin", []
    for size in (10 * MIB, 500 * MIB):
        with path.open("wb") as file:
            file.truncate(size)
        arguments = json.dumps([client_arguments(record), str(path)])
        printed = subprocess.check_output([sys.executable, "-c", SCRIPT, arguments], text=True)
        kind, peak = printed.split()
        assert kind == "uploaded"
        used.append(int(peak))
    assert used[1] - used[0] < 10 * 1024
