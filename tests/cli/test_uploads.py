"""``upload`` and its dry run where files, names or permissions are unusual."""

import os

import pytest
import requests

from tests.support.command import shell
from tests.support.http_record import ALICE, HTTPRecord
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
