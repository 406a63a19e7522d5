"""``upload``: with a real server, and behind a proxy that misbehaves."""

import json
import os
import secrets
import socket
import time
from hashlib import sha256

import pytest
import requests

from kinto_attachment.errors import CommandFailed
from kinto_attachment.transfer import client as client_module
from kinto_attachment.transfer.client import Client
from kinto_attachment.transfer.download import download
from kinto_attachment.transfer.upload import record_id, upload
from tests.support.http_record import ALICE
from tests.support.servers.proxy import is_file
from tests.support.transfers import AUTH, CONTENT, Told, client_of, kinds, make_files, one


class TestUpload:
    def test_replaces(self, client, record, tmp_path):
        path = tmp_path / "a.bin"
        for content in (b"one", b"two", b""):
            path.write_bytes(content)
            assert one(upload(client, [path])).kind == "uploaded"
            record.url = f"{record.collection}/records/{record_id('a.bin')}/attachment"
            assert record.get().content == content

    def test_a_large_file_that_is_refused(self, server, tmp_path):
        """The server refuses the file before it has read all of it; the client tells its reason."""
        path = tmp_path / "a.exe"
        with path.open("wb") as file:
            file.truncate(100 * 1024 * 1024)
        for bucket, reason in (("picky", "extension is not allowed"), ("small", "exceeds")):
            for uri in (f"/buckets/{bucket}", f"/buckets/{bucket}/collections/c"):
                requests.put(server.url + uri, auth=ALICE, timeout=60).raise_for_status()
            with Client(server.url, bucket, "c", AUTH) as client:
                told = Told()
                finding = one(upload(client, [path], progress=told))
            assert finding.kind == "refused" and reason in finding.detail, finding
            assert sum(told.bytes) < 50 * 1024 * 1024

    @pytest.mark.parametrize(
        "auth, why", [(None, "give --auth USER:PASSWORD"), ("bob:secret", "may neither read")]
    )
    def test_not_allowed(self, record, tmp_path, auth, why):
        """It is said once, and not for each of several files."""
        make_files(tmp_path, 20)
        with client_of(record, auth) as client:
            for job in (upload(client, [tmp_path]), download(client, tmp_path / "to")):
                with pytest.raises(CommandFailed, match=why):
                    list(job)

    def test_may_only_read(self, record, tmp_path):
        make_files(tmp_path, 20)
        body = {"permissions": {"read": ["system.Everyone"]}}
        requests.patch(record.collection, json=body, auth=ALICE, timeout=60).raise_for_status()
        with client_of(record, "bob:secret") as client:
            for dry_run in (True, False):
                with pytest.raises(CommandFailed, match="may not create records"):
                    list(upload(client, [tmp_path], dry_run=dry_run))

    def test_no_collection(self, server, record, tmp_path):
        (tmp_path / "a").write_bytes(b"a")
        record.record = record.record.replace("/c/", "/other/")
        with client_of(record) as client:
            for job in (upload(client, [tmp_path]), download(client, tmp_path / "to")):
                with pytest.raises(CommandFailed, match="There is no /buckets/.*/other "):
                    list(job)

    def test_a_record_that_changed_meanwhile_is_not_overwritten(
        self, client, record, tmp_path, monkeypatch
    ):
        """The record changes between the look of the client at it and the upload."""
        path = tmp_path / "a.bin"
        original = client.find
        uri = f"{record.collection}/records/{record_id('a.bin')}"
        for content in (b"new", b"changed"):
            path.write_bytes(content)
            left = [None]

            def find(ref, left=left):
                found = original(ref)
                if left:
                    left.pop()
                    body = {"data": {"theirs": secrets.token_hex()}}
                    requests.put(uri, json=body, auth=ALICE, timeout=60).raise_for_status()
                return found

            monkeypatch.setattr(client, "find", find)
            finding = one(upload(client, [path]))
            assert finding.kind == "conflict" and finding.remedy
            data = requests.get(uri, auth=ALICE, timeout=60).json()["data"]
            assert "theirs" in data and "attachment" not in data
            assert one(upload(client, [path])).kind == "uploaded"

    @pytest.mark.parametrize("change", ["append", "truncate", "write"])
    @pytest.mark.parametrize("size", ["small", "large"])
    def test_a_file_that_changes(self, client, record, tmp_path, change, size):
        path = tmp_path / "a.bin"
        path.write_bytes(CONTENT * (4 if size == "large" else 1))
        changed = []

        def on_bytes(size):
            if not changed and size:
                changed.append(size)
                with path.open("r+b") as file:
                    if change == "truncate":
                        file.truncate(1_000_000)
                    else:
                        file.seek(0, 2 if change == "append" else 0)
                        file.write(b"x")

        assert one(upload(client, [path], progress=Told(on_bytes))).kind == "changed"
        records = requests.get(f"{record.collection}/records", auth=ALICE, timeout=60)
        assert records.json()["data"] == []
        assert one(upload(client, [path])).kind == "uploaded"

    def test_only_regular_files_are_uploaded(self, client, tmp_path):
        os.mkfifo(tmp_path / "fifo")
        (tmp_path / "link").symlink_to("/etc/passwd")
        (tmp_path / "loop").symlink_to(tmp_path)
        (tmp_path / "file").write_bytes(b"a")
        os.close(os.open(os.fsencode(tmp_path) + b"/\xff", os.O_CREAT))
        found = {
            finding.key: finding.kind for finding in upload(client, [tmp_path, tmp_path / "gone"])
        }
        assert found == {
            "fifo": "skipped",
            "link": "skipped",
            "loop": "skipped",
            "file": "uploaded",
            "\\udcff": "refused",
            "gone": "failed",
        }

    def test_two_files_of_one_name(self, client, tmp_path):
        for folder in ("a", "b"):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "x").write_text(folder)
        for paths in (["a", "b"], ["a/x", "b/x"], ["a", "b/x"]):
            found = list(upload(client, [tmp_path / path for path in paths]))
            assert sorted(finding.kind for finding in found)[0] == "conflict"
            assert {finding.key for finding in found} == {"x"}


class TestHostileUpload:
    @pytest.mark.parametrize("how", ["reset", "lost answer", "busy", "conflict"])
    def test_is_tried_again(self, hostile, record, tmp_path, how):
        (tmp_path / "a.bin").write_bytes(CONTENT)
        left = [1, 1]

        def misbehave(handler, answer):
            if not is_file(handler, "POST") or not left:
                return False
            if how == "lost answer" and answer is None:
                return False
            left.pop()
            if how == "reset":
                handler.rfile.read(100_000)
            if how in ("reset", "lost answer"):
                handler.reset()
            else:
                handler.rfile.read(int(handler.headers["Content-Length"]))
                handler.answer(503 if how == "busy" else 409, {}, b"{}")
            return True

        with hostile(misbehave) as (proxy, client):
            assert one(upload(client, [tmp_path / "a.bin"])).kind == "uploaded"
            # A file that has arrived is not sent again.
            assert len(proxy.asked("POST")) == (1 if how == "lost answer" else 3)
        record.url = f"{record.collection}/records/{record_id('a.bin')}/attachment"
        assert record.get().content == CONTENT

    def test_a_change_between_two_attempts_is_a_conflict(self, hostile, record, tmp_path):
        (tmp_path / "a.bin").write_bytes(CONTENT)
        record.url = f"{record.collection}/records/{record_id('a.bin')}/attachment"

        def misbehave(handler, answer):
            if is_file(handler, "POST"):
                record.upload(b"theirs")
                handler.reset()
                return True

        with hostile(misbehave) as (_, client):
            assert one(upload(client, [tmp_path / "a.bin"])).kind == "conflict"
        assert record.get().content == b"theirs"

    def test_a_wrong_hash_in_the_answer(self, hostile, tmp_path):
        (tmp_path / "a.bin").write_bytes(CONTENT)

        def misbehave(handler, answer):
            if answer is not None and is_file(handler, "POST"):
                content = json.dumps({**answer.json(), "hash": "0" * 64}).encode()
                handler.answer(201, answer.headers, content)
                return True

        with hostile(misbehave) as (_, client):
            found = one(upload(client, [tmp_path / "a.bin"]))
            assert found.kind == "damaged" and sha256(CONTENT).hexdigest() in found.detail

    def test_a_server_that_is_down(self, record, tmp_path):
        """It is said once, and nothing is tried again."""
        make_files(tmp_path, 100)
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{sock.getsockname()[1]}/v1"
            with client_of(record, url=url) as client:
                for job in (upload(client, [tmp_path]), download(client, tmp_path / "to")):
                    start = time.monotonic()
                    with pytest.raises(CommandFailed, match=r"\(Connection refused\): check"):
                        list(job)
                    assert time.monotonic() - start < 0.5

    def test_a_server_that_goes_down(self, hostile, tmp_path, monkeypatch):
        """Only the first of many files are tried again."""
        monkeypatch.setattr(client_module, "FIRST_WAIT", 0.05)
        files = make_files(tmp_path, 100)

        def misbehave(handler, answer):
            if answer is None and "/records/" in handler.path:
                handler.reset()
                return True

        with hostile(misbehave) as (_, client):
            start = time.monotonic()
            assert kinds(upload(client, [tmp_path])) == {"unavailable": len(files)}
            assert time.monotonic() - start < 20
