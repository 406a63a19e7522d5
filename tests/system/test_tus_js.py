"""tus-js-client, the JavaScript client of tus, in Node."""

import json
import random
import secrets
import threading
from hashlib import sha256

import pytest
import requests

from tests.support import tus_js
from tests.support.http_record import ALICE, BOB, HTTPRecord
from tests.support.node import NODE, NPM
from tests.support.servers.outage import FaultyProxy
from tests.support.servers.wsgi import Gunicorn
from tests.support.tus import basic

pytestmark = pytest.mark.skipif(not (NODE and NPM), reason="Node is not installed")

MIB = 1024 * 1024
SIZE = 4 * MIB + 17


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tus_js.install(tmp_path_factory.mktemp("tus-js"))


@pytest.fixture(scope="module")
def client(folder):
    with tus_js.client(folder) as script:
        yield script


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("films") / "film.mp4"
    path.write_bytes(secrets.token_bytes(SIZE))
    return path


@pytest.fixture
def record(two_processes):
    return HTTPRecord(two_processes)


def options_of(url: str, user: tuple[str, str] = ALICE, **more) -> dict:
    return {
        "endpoint": f"{url}/uploads",
        "headers": basic(user),
        "metadata": {"filename": "film.mp4", "filetype": "video/mp4"},
        "chunkSize": MIB,
        "retryDelays": [],
        **more,
    }


def methods(outcome: dict) -> list[str]:
    return [method for method, _, _ in outcome["requests"]]


def check(record: HTTPRecord, film) -> dict:
    """Check that the record has the file, and return the attributes of the record."""
    content = film.read_bytes()
    data = requests.get(record.record, auth=ALICE, timeout=30).json()["data"]
    attachment = data["attachment"]
    assert attachment["hash"] == sha256(content).hexdigest()
    assert (attachment["size"], attachment["filename"]) == (len(content), film.name)
    assert attachment["mimetype"] == "video/mp4"
    assert record.get().content == content
    return data


CASES = {
    "chunks": ({}, "POST PATCH PATCH PATCH PATCH PATCH"),
    "whole": ({"chunkSize": 10 * SIZE}, "POST PATCH"),
    "with creation": ({"uploadDataDuringCreation": True}, "POST PATCH PATCH PATCH PATCH"),
    "only creation": ({"uploadDataDuringCreation": True, "chunkSize": 10 * SIZE}, "POST"),
    "overridden": ({"overridePatchMethod": True}, "POST POST POST POST POST POST"),
    "request ids": ({"addRequestId": True}, "POST PATCH PATCH PATCH PATCH PATCH"),
}


@pytest.mark.parametrize("more, expected", CASES.values(), ids=CASES)
def test_upload(client, record, film, more, expected):
    outcome = client.do("upload", path=str(film), options=options_of(record.url, **more))
    assert "error" not in outcome, outcome
    assert " ".join(methods(outcome)) == expected
    data = check(record, film)
    assert outcome["headers"]["Content-Location"] == record.url
    assert outcome["headers"]["ETag"] == f'"{data["last_modified"]}"'


@pytest.mark.parametrize("is_early", [False, True], ids=["after", "with-creation"])
@pytest.mark.parametrize("chunk", [MIB, 10 * SIZE])
def test_size_is_unknown_until_the_end(client, record, film, chunk, is_early):
    more = {"uploadLengthDeferred": True, "chunkSize": chunk, "uploadDataDuringCreation": is_early}
    options = options_of(record.url, **more)
    outcome = client.do("upload", path=str(film), asStream=True, options=options)
    assert "error" not in outcome, outcome
    check(record, film)


@pytest.mark.parametrize("parts", [2, 5])
def test_parallel_parts(client, record, film, parts):
    """Each part has an upload of its own, and the last request joins them."""
    options = options_of(record.url, parallelUploads=parts, chunkSize=MIB // 2)
    outcome = client.do("upload", path=str(film), options=options)
    assert "error" not in outcome, outcome
    assert methods(outcome).count("POST") == parts + 1
    check(record, film)


def test_attributes_and_permissions_of_the_record(client, record, film):
    options = options_of(record.url, parallelUploads=2)
    options["metadata"] |= {
        "data": json.dumps({"title": "Ein schöner Film"}),
        "permissions": json.dumps({"read": ["system.Everyone"]}),
    }
    outcome = client.do("upload", path=str(film), options=options)
    assert "error" not in outcome, outcome
    assert check(record, film)["title"] == "Ein schöner Film"
    assert record.get(auth=None).status_code == 200


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"chunkSize": 10 * SIZE},
        {"uploadDataDuringCreation": True},
        {"overridePatchMethod": True},
        {"parallelUploads": 3},
    ],
    ids=lambda more: "-".join(more) or "plain",
)
def test_line_breaks_at_random_bytes(client, record, film, more, two_processes):
    with FaultyProxy(two_processes.port) as line:
        line.cut_at(*(random.randrange(MIB) for _ in range(6)))
        url = record.url.replace(str(two_processes.port), str(line.port))
        options = options_of(url, retryDelays=[10] * 40, **more)
        outcome = client.do("upload", path=str(film), options=options)
    assert "error" not in outcome, outcome
    check(record, film)


@pytest.mark.parametrize("more", [{}, {"parallelUploads": 2}], ids=["plain", "parallel"])
def test_another_process_resumes(folder, client, record, film, tmp_path, more):
    """The first one is killed. Another one finds the URL of the upload in a file."""
    options = options_of(record.url, chunkSize=MIB // 2, retryDelays=[10] * 30, **more)
    urls = str(tmp_path / "urls.json")
    with tus_js.client(folder) as killed:
        killed.send("upload", path=str(film), urls=urls, dieAt=MIB, options=options)
        assert killed.wait() == -9
    outcome = client.do("upload", path=str(film), urls=urls, resume=True, options=options)
    assert "error" not in outcome, outcome
    if not more:
        assert outcome["requests"][0][:2] == ["HEAD", 200]
        assert outcome["requests"][1] == ["PATCH", 204, str(MIB)]
    check(record, film)


def test_abort_and_terminate(client, record, film):
    options = options_of(record.url)
    outcome = client.do("upload", path=str(film), options=options, stopAt=MIB)
    assert outcome["stopped"] == MIB
    client.do("terminate", url=outcome["url"], options={"headers": basic(ALICE)})
    # The client begins another upload, because the first one is gone.
    options["uploadUrl"] = outcome["url"]
    again = client.do("upload", path=str(film), options=options)
    assert "error" not in again, again
    assert again["requests"][0][:2] == ["HEAD", 404]
    assert again["url"] != outcome["url"]
    check(record, film)


def test_finished_upload_is_not_sent_again(client, record, film):
    options = options_of(record.url)
    outcome = client.do("upload", path=str(film), options=options)
    again = client.do("upload", path=str(film), options={**options, "uploadUrl": outcome["url"]})
    assert "error" not in again, again
    assert methods(again) == ["HEAD"]
    assert again["headers"]["ETag"] == outcome["headers"]["ETag"]


def test_other_users(client, record, film):
    outcome = client.do("upload", path=str(film), options=options_of(record.url), stopAt=MIB)
    refused = client.do("upload", path=str(film), options=options_of(record.url, BOB))
    assert refused["status"] == 403
    # A user with write permission can send files, but not continue another user's upload.
    record.share("system.Authenticated", uri=record.bucket, permission="write")
    options = options_of(record.url, BOB, uploadUrl=outcome["url"], endpoint=None)
    refused = client.do("upload", path=str(film), options=options)
    assert refused["requests"] == [["HEAD", 404, None]]
    options = options_of(record.url, uploadUrl=outcome["url"])
    outcome = client.do("upload", path=str(film), options=options)
    assert "error" not in outcome, outcome
    check(record, film)


def test_refusals_are_explained(client, record, film):
    """The response to the first request says why, in words for the user."""
    options = options_of(record.url, metadata={"filename": "film.exe"})
    refused = client.do("upload", path=str(film), options=options)
    assert (refused["status"], methods(refused)) == (400, ["POST"])
    assert json.loads(refused["body"])["message"] == "header: File extension is not allowed."


def test_expired(client, film, two_processes, tmp_path):
    settings = {**two_processes.settings, "kinto.attachment.uploads.ttl": "1"}
    with Gunicorn(settings, tmp_path) as server:
        record = HTTPRecord(server)
        options = options_of(record.url)
        outcome = client.do("upload", path=str(film), options=options, stopAt=MIB)
        headers = {**basic(ALICE), "Tus-Resumable": "1.0.0"}
        while requests.head(outcome["url"], headers=headers, timeout=30).status_code != 410:
            pass
        # The client begins another upload.
        options["uploadUrl"] = outcome["url"]
        again = client.do("upload", path=str(film), options=options)
        assert "error" not in again, again
        assert [status for _, status, _ in again["requests"][:2]] == [410, 201]
        check(record, film)


def test_line_stalls(client, film, two_processes, tmp_path):
    """The server gives up waiting for the client, which goes on when the line is back."""
    settings = {**two_processes.settings, "kinto.attachment.client.silence": "1"}
    with Gunicorn(settings, tmp_path) as server, FaultyProxy(server.port) as line:
        record = HTTPRecord(server)
        url = record.url.replace(str(server.port), str(line.port))
        line.silence(after=2 * MIB)
        timer = threading.Timer(3, line.recover)
        timer.start()
        options = options_of(url, retryDelays=[10] * 30, chunkSize=10 * SIZE)
        outcome = client.do("upload", path=str(film), options=options)
        timer.join()
        assert "error" not in outcome, outcome
        assert int(outcome["requests"][-1][2]) > MIB
        check(record, film)


@pytest.mark.slow
@pytest.mark.parametrize("parts", [1, 4])
def test_many_breaks(client, record, two_processes, tmp_path, parts):
    """The file is whole after a hundred of them."""
    film = tmp_path / "film.mp4"
    film.write_bytes(secrets.token_bytes(64 * MIB))
    with FaultyProxy(two_processes.port) as line:
        line.cut_at(*(random.randrange(2 * MIB) for _ in range(100)))
        url = record.url.replace(str(two_processes.port), str(line.port))
        options = options_of(url, retryDelays=[10] * 200, chunkSize=3 * MIB, parallelUploads=parts)
        outcome = client.do("upload", path=str(film), options=options)
    assert "error" not in outcome, outcome
    check(record, film)
