"""``download``: with a real server, and behind a proxy that misbehaves."""

import fcntl
import os
import secrets
import time
from hashlib import sha256
from pathlib import Path

import pytest
import requests

from kinto_attachment.errors import CommandFailed
from kinto_attachment.transfer import client as client_module
from kinto_attachment.transfer.download import download
from kinto_attachment.transfer.paths import PART
from kinto_attachment.transfer.upload import upload
from tests.support.http_record import ALICE
from tests.support.servers.proxy import Proxy, is_file
from tests.support.transfers import CONTENT, Told, files_in, kinds, one


class TestDownload:
    def test_existing_files_are_kept_unless_overwrite_is_asked_for(self, client, record, tmp_path):
        record.upload(filename="a.bin")
        place = tmp_path / "a.bin"
        place.write_bytes(b"mine")
        finding = one(download(client, tmp_path))
        assert (finding.kind, place.read_bytes()) == ("conflict", b"mine")
        assert one(download(client, tmp_path, dry_run=True)).kind == "conflict"
        assert one(download(client, tmp_path, overwrite=True)).kind == "downloaded"
        assert files_in(tmp_path)["a.bin"] == record.get().content
        assert os.listdir(tmp_path) == ["a.bin"]

    def test_symbolic_links_are_not_followed(self, client, record, tmp_path):
        (tmp_path / "outside").mkdir()
        (tmp_path / "to").mkdir()
        for name in ("file", "file" + PART, "folder"):
            (tmp_path / "to" / name).symlink_to(tmp_path / "outside" / name)
        for path in ("file", "folder/file"):
            record.upload()
            body = {"data": {"path": path}}
            requests.patch(record.record, json=body, auth=ALICE, timeout=60)
            found = one(download(client, tmp_path / "to", overwrite=True))
            assert found.kind == "conflict" and "symbolic link" in found.detail
        assert os.listdir(tmp_path / "outside") == []

    @pytest.mark.parametrize(
        "path", ["../evil", "/tmp/evil", "a/../../evil", "a\\b", 5, "", "a//b"]
    )
    def test_paths_never_leave_the_folder(self, client, record, tmp_path, path):
        record.upload(filename="good.bin")
        requests.patch(record.record, json={"data": {"path": path}}, auth=ALICE, timeout=60)
        assert one(download(client, tmp_path / "x" / "to")).kind == "downloaded"
        assert list(files_in(tmp_path)) == ["x/to/good.bin"]

    def test_records_with_one_filename(self, client, record, tmp_path):
        contents = set()
        for name in ("r1", "r2", "r3"):
            record.url = f"{record.collection}/records/{name}/attachment"
            contents.add(secrets.token_bytes(10))
            record.upload(sorted(contents)[0] + name.encode(), filename="a.bin")
        for kind in ("downloaded", "unchanged"):
            assert kinds(download(client, tmp_path)) == {kind: 3}
            assert sorted(os.listdir(tmp_path)) == ["a-r2.bin", "a-r3.bin", "a.bin"]

    def test_files_and_folders_of_one_name(self, client, record, tmp_path):
        paths = {"r1": "a", "r2": "a/b.txt", "r3": "x.part/y", "r4": "x", "r5": "c/d", "r6": "c"}
        for name, path in paths.items():
            record.url = f"{record.collection}/records/{name}/attachment"
            record.upload(name.encode())
            body = {"data": {"path": path}}
            uri = f"{record.collection}/records/{name}"
            requests.patch(uri, json=body, auth=ALICE, timeout=60).raise_for_status()
        for kind in ("downloaded", "unchanged"):
            assert kinds(download(client, tmp_path)) == {kind: 6}
        assert files_in(tmp_path) == {
            "a": b"r1",
            "a-r2/b.txt": b"r2",
            "x.part/y": b"r3",
            "x-r4": b"r4",
            "c/d": b"r5",
            "c-r6": b"r6",
        }

    def test_a_lost_file(self, client, record, tmp_path, server):
        """A lost file does not stop the others."""
        location = record.upload(filename="lost")["location"]
        record.url = f"{record.collection}/records/r2/attachment"
        record.upload(b"there", filename="there")
        settings = dict(
            line.split(" = ", 1) for line in server.ini.read_text().splitlines() if " = " in line
        )
        base = settings["kinto.attachment.base_url"]
        Path(settings["kinto.attachment.base_path"], location.removeprefix(base)).unlink()
        found = {finding.key: finding for finding in download(client, tmp_path)}
        assert found["lost"].kind == "missing" and "fsck" in found["lost"].remedy
        assert found["there"].kind == "downloaded"
        assert (tmp_path / "there").read_bytes() == b"there"

    def test_two_runs_at_once(self, client, record, tmp_path):
        record.upload(filename="a")
        with open(tmp_path / ("a" + PART), "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            assert "another run" in one(download(client, tmp_path)).detail
        assert one(download(client, tmp_path)).kind == "downloaded"


class TestHostileDownload:
    @pytest.mark.parametrize("how", ["cut", "reset"])
    def test_a_response_that_is_cut_off(self, hostile, record, tmp_path, how):
        """The client goes on where it was, within one run."""
        record.upload(CONTENT, "a.bin")
        left = [1, 1, 1]

        def misbehave(handler, answer):
            if answer is not None and is_file(handler) and left:
                left.pop()
                half = answer.content[: len(answer.content) // 2]
                handler.answer(answer.status_code, answer.headers, half, len(answer.content))
                if how == "reset":
                    time.sleep(0.2)
                    handler.reset()
                return True

        told = Told()
        with hostile(misbehave) as (proxy, client):
            assert one(download(client, tmp_path, progress=told)).kind == "downloaded"
            assert files_in(tmp_path) == {"a.bin": CONTENT}
            first, *others = proxy.asked()
            assert "Range" not in first
            starts = [int(asked["Range"][len("bytes=") : -1]) for asked in others]
            assert len(starts) == 3 and starts == sorted(starts) and starts[0] > 0
            etag = f'"{sha256(CONTENT).hexdigest()}"'
            assert {asked["If-Range"] for asked in others} == {etag}
            assert sum(told.bytes) == len(CONTENT)

    @pytest.mark.parametrize("whole", [True, False])
    def test_a_chunked_response(self, hostile, record, tmp_path, whole):
        """Without ``Content-Length``, a response that is cut off looks complete."""
        record.upload(CONTENT, "a.bin")
        left = [1]

        def misbehave(handler, answer):
            if answer is not None and is_file(handler) and left:
                left.pop()
                handler.send_response(200)
                handler.send_header("Transfer-Encoding", "chunked")
                handler.end_headers()
                for start in range(0, len(CONTENT) if whole else 1_000_000, 1_000_000):
                    chunk = CONTENT[start : start + 1_000_000]
                    handler.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                handler.wfile.write(b"0\r\n\r\n")
                return True

        with hostile(misbehave) as (proxy, client):
            assert one(download(client, tmp_path)).kind == "downloaded"
            assert files_in(tmp_path) == {"a.bin": CONTENT}
            assert [asked.get("Range") for asked in proxy.asked()] == (
                [None] if whole else [None, "bytes=1000000-"]
            )

    def test_responses_that_are_always_cut_off(self, hostile, record, tmp_path):
        record.upload(CONTENT, "a.bin")

        def misbehave(handler, answer):
            if answer is not None and is_file(handler):
                size = len(answer.content)
                handler.answer(answer.status_code, answer.headers, answer.content[:1000], size)
                return True

        with hostile(misbehave) as (proxy, client):
            found = one(download(client, tmp_path))
            assert found.kind == "unavailable" and found.remedy
            assert len(proxy.asked()) == client_module.ATTEMPTS
            part = (tmp_path / ("a.bin" + PART)).read_bytes()
            assert part and CONTENT.startswith(part)
            proxy.misbehave = lambda handler, answer: False
            assert one(download(client, tmp_path)).kind == "downloaded"
            assert proxy.asked()[-1]["Range"] == f"bytes={len(part)}-"
            assert files_in(tmp_path) == {"a.bin": CONTENT}

    @pytest.mark.parametrize("wrong", [b"x", CONTENT[:-1] + b"x", CONTENT + b"x"])
    @pytest.mark.parametrize("times", [1, 99])
    def test_wrong_bytes(self, hostile, record, tmp_path, wrong, times):
        record.upload(CONTENT, "a.bin")
        left = [1] * times

        def misbehave(handler, answer):
            if answer is not None and is_file(handler) and left:
                left.pop()
                handler.answer(200, answer.headers, wrong)
                return True

        with hostile(misbehave) as (proxy, client):
            found = one(download(client, tmp_path))
            if times == 1:
                assert found.kind == "downloaded"
                assert files_in(tmp_path) == {"a.bin": CONTENT}
            else:
                assert found.kind in ("damaged", "unavailable") and found.remedy
                assert "a.bin" not in files_in(tmp_path)

    @pytest.mark.parametrize(
        "part", [b"rotten", CONTENT[:1000] + b"x", CONTENT, CONTENT + b"x", CONTENT[:500]]
    )
    def test_any_partial_file_is_completed(self, client, record, tmp_path, part):
        record.upload(CONTENT, "a.bin")
        (tmp_path / ("a.bin" + PART)).write_bytes(part)
        told = Told()
        assert one(download(client, tmp_path, progress=told)).kind == "downloaded"
        assert files_in(tmp_path) == {"a.bin": CONTENT}
        if CONTENT.startswith(part):
            assert sum(told.bytes) == len(CONTENT) - len(part)

    def test_a_file_that_is_replaced_meanwhile(self, hostile, record, tmp_path):
        record.upload(CONTENT, "a.bin")
        other = CONTENT[::-1][:1_500_000]
        left = [1]

        def misbehave(handler, answer):
            if answer is not None and is_file(handler) and left:
                left.pop()
                handler.answer(200, answer.headers, answer.content[:2_000_000], len(CONTENT))
                record.upload(other, "b.bin")
                return True

        with hostile(misbehave) as (_, client):
            assert one(download(client, tmp_path)).kind == "downloaded"
        assert files_in(tmp_path) == {"a.bin": other}

    def test_retry_after(self, hostile, record, tmp_path):
        record.upload(CONTENT, "a.bin")
        times = []

        def misbehave(handler, answer):
            if answer is None and is_file(handler):
                times.append(time.monotonic())
                if len(times) < 3:
                    handler.answer(503, {"Retry-After": "1"}, b'{"message": "busy"}')
                    return True

        with hostile(misbehave) as (_, client):
            assert one(download(client, tmp_path)).kind == "downloaded"
        assert times[1] - times[0] >= 1 and times[2] - times[1] >= 1

    def test_a_long_retry_after(self, hostile, record, tmp_path):
        record.upload(CONTENT, "a.bin")

        def misbehave(handler, answer):
            if answer is None and is_file(handler):
                handler.answer(503, {"Retry-After": "86400"}, b'{"message": "busy"}')
                return True

        with hostile(misbehave) as (proxy, client):
            found = one(download(client, tmp_path))
            assert (found.kind, found.detail) == ("unavailable", "503 busy")
            assert len(proxy.asked()) == 1

    @pytest.mark.parametrize("status, kind", [(403, "refused"), (404, "missing"), (500, "failed")])
    def test_one_failure_among_three(self, hostile, record, tmp_path, status, kind):
        for name in ("r1", "r2", "r3"):
            record.url = f"{record.collection}/records/{name}/attachment"
            record.upload(name.encode(), filename=name)

        def misbehave(handler, answer):
            if is_file(handler) and "/r2/" in handler.path:
                handler.answer(status, {}, b'{"message": "no"}')
                return True

        with hostile(misbehave) as (_, client):
            found = {finding.key: finding.kind for finding in download(client, tmp_path)}
        assert found == {"r1": "downloaded", "r2": kind, "r3": "downloaded"}

    def test_many_pages(self, hostile, record, tmp_path, monkeypatch):
        """``Next-Page`` names another host; the client goes on asking its server."""
        monkeypatch.setattr(client_module, "PAGE", 2)
        for number in range(7):
            record.url = f"{record.collection}/records/r{number}/attachment"
            record.upload(b"%d" % number, filename=str(number))

        def misbehave(handler, answer):
            if answer is not None and "Next-Page" in answer.headers:
                query = answer.headers["Next-Page"].partition("?")[2]
                answer.headers["Next-Page"] = f"http://192.0.2.1/elsewhere?{query}"

        with hostile(misbehave) as (_, client):
            assert kinds(download(client, tmp_path)) == {"downloaded": 7}
        assert files_in(tmp_path) == {str(number): b"%d" % number for number in range(7)}

    def test_redirects(self, hostile, record, tmp_path, monkeypatch):
        """Another host gets no credentials, not even those of ~/.netrc. The client asks for a new
        URL when one has expired."""
        netrc = tmp_path / "netrc"
        netrc.write_text("default login bob password secret\n")
        monkeypatch.setenv("NETRC", str(netrc))
        record.upload(CONTENT, "a.bin")
        (tmp_path / "to").mkdir()
        (tmp_path / "to" / ("a.bin" + PART)).write_bytes(CONTENT[:1000])
        ended = [1, 1]

        def storage(handler, answer):
            if ended:
                ended.pop()
                handler.answer(403, {}, b"<Error>Request has expired</Error>")
            else:
                handler.answer(200, {}, CONTENT)
            return True

        def misbehave(handler, answer):
            if is_file(handler):
                handler.answer(307, {"Location": f"{other.url}/signed"}, b"")
                return True

        with Proxy("http://nowhere/v1", storage) as other, hostile(misbehave) as (proxy, client):
            found = one(download(client, tmp_path / "to"))
            assert found.kind == "downloaded", found
            # The storage may know no ranges, and it knows none of our entity tags.
            for _, headers in other.requests:
                assert headers["Range"] == "bytes=1000-" and "If-Range" not in headers
            assert len(proxy.asked()) == len(other.requests) == 3
            assert all("Authorization" in headers for headers in proxy.asked())
            assert not any("Authorization" in headers for _, headers in other.requests)
            ended[:] = [1] * 99
            found = one(download(client, tmp_path / "again"))
            assert found.kind == "refused" and "403" in found.detail

    def test_a_server_that_is_no_kinto(self, hostile, tmp_path):
        def misbehave(handler, answer):
            handler.answer(200, {}, b"<html>")
            return True

        with hostile(misbehave) as (_, client):
            (tmp_path / "a").write_bytes(b"a")
            for job in (download(client, tmp_path / "to"), upload(client, [tmp_path / "a"])):
                with pytest.raises(CommandFailed, match="is not a Kinto server: give another"):
                    list(job)
