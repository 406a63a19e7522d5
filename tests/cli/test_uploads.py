"""``upload`` and its dry run where files, names or permissions are unusual."""

import json
import os

import pytest
import requests

from kinto_attachment.transfer.upload import record_id
from tests.support.command import shell
from tests.support.http_record import ALICE, BOB, HTTPRecord
from tests.support.servers.proxy import Proxy
from tests.support.servers.wsgi import Gunicorn


@pytest.fixture(scope="module")
def server(file_settings, tmp_path_factory):
    settings = {**file_settings("local"), "kinto.attachment.library.bucket": "site"}
    with Gunicorn(settings, tmp_path_factory.mktemp("uploads")) as server:
        for uri in ("buckets/site", "buckets/site/collections/media"):
            requests.put(f"{server.url}/{uri}", auth=ALICE, timeout=60).raise_for_status()
        yield server


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Make files by their paths in the working folder."""
    monkeypatch.chdir(tmp_path)

    def make(files: dict[str, str]) -> None:
        for path, content in files.items():
            os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
            with open(path, "w", encoding="utf-8") as file:
                file.write(content)

    return make


class TestDryRun:
    """It says of each file what the upload then does."""

    @pytest.fixture
    def collection(self, server):
        return HTTPRecord(server)

    @pytest.fixture
    def kinds(self, collection):
        def kinds(*arguments, auth="alice:secret") -> dict[str, str]:
            *_, bucket, _, name = collection.collection.split("/")
            where = ["--server", collection.server.url, "--bucket", bucket, "--collection", name]
            said = []
            for dry_run in (["--dry-run"], []):
                options = ["--auth", auth, "--parallel", "1", "--json", *dry_run]
                _, lines, _ = shell("upload", *arguments, *where, *options)
                found = map(json.loads, lines)
                said.append({each["key"]: each["kind"].removeprefix("would ") for each in found})
            would, does = said
            words = {"upload": "uploaded", "be refused": "refused"}
            assert {key: words[kind] for key, kind in would.items()} == does
            return does

        return kinds

    def test_a_name_that_is_refused(self, kinds, make):
        """It says nothing about the other files with its extension."""
        make({"b\tb.zip": "b", "a.zip": "a", "c.zip": "c", ".profile": "p"})
        expected = {"b\tb.zip": "refused", "a.zip": "uploaded", "c.zip": "uploaded"}
        assert kinds("b\tb.zip", "a.zip", "c.zip") == expected
        assert kinds(".profile") == {".profile": "refused"}

    def test_a_record_of_somebody_else(self, kinds, make, collection):
        """The user may create records, but not replace the file of this one."""
        user = requests.get(f"{collection.server.url}/", auth=BOB, timeout=60).json()["user"]["id"]
        for permission in ("record:create", "read"):
            collection.share(user, uri=collection.collection, permission=permission)
        collection.url = f"{collection.collection}/records/{record_id('b.txt')}/attachment"
        collection.upload(b"hers", "b.txt")
        make({"a.txt": "a", "b.txt": "b", "c.txt": "c"})
        expected = {"a.txt": "uploaded", "b.txt": "refused", "c.txt": "uploaded"}
        assert kinds("a.txt", "b.txt", "c.txt", auth="bob:secret") == expected


class TestFailureInBetween:
    """What was done until then is printed, and counted."""

    def test_is_told(self, server, make, tmp_path):
        make({f"{number}.txt": str(number) for number in range(6)})
        record = HTTPRecord(server)
        *_, bucket, _, name = record.collection.split("/")
        left = [None] * 3

        def misbehave(handler, answer):
            if answer is None and handler.command == "POST":
                if not left:
                    handler.answer(401, {}, b"{}")
                    return True
                left.pop()

        with Proxy(server.url, misbehave) as proxy:
            where = ["--server", proxy.url, "--bucket", bucket, "--collection", name]
            options = ["--auth", "alice:secret", "--parallel", "1"]
            status, lines, said = shell("upload", tmp_path, *where, *options)
        assert (status, len(lines)) == (2, 3)
        assert said.splitlines()[0] == "3 uploaded, then it failed:"
        assert "wants to know who you are" in said.splitlines()[1]
