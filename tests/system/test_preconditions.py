"""Of many requests that expect the same version of a record, one wins: on PostgreSQL over two
processes, with a transaction per request and without, and on memory."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from uuid import uuid4

import pytest
import requests

from tests.support.servers.wsgi import Gunicorn, GunicornProcesses
from tests.support.site import Site

AUTH = ("alice", "secret")
TURNS = 3
"""Each race is run as often: it need not be lost every time."""


class GunicornThreads(Gunicorn):
    """One process, as the memory storage needs it."""

    threads = 50


@pytest.fixture(
    scope="module",
    params=[
        ("postgresql", "local", "true"),
        pytest.param(("postgresql", "seaweedfs", "true"), marks=pytest.mark.slow),
        ("postgresql", "local", "false"),
        ("memory", "local", "true"),
    ],
    ids="-".join,
)
def server(request, kinto_settings, file_settings, tmp_path_factory):
    kinto, files, transactions = request.param
    settings = {**kinto_settings(kinto, fresh=True), **file_settings(files)}
    settings["kinto.transaction_per_request"] = transactions
    if kinto == "postgresql":
        settings |= {"kinto.storage_pool_size": "50", "kinto.storage_max_overflow": "10"}
    site = Site(**settings)
    kind = GunicornProcesses if kinto == "postgresql" else GunicornThreads
    with kind(settings, tmp_path_factory.mktemp("preconditions")) as server:
        server.site = site
        yield server


@pytest.fixture
def bucket(request):
    """One of the test's own, or the user's."""
    return "default" if getattr(request, "param", "") == "default" else f"b{uuid4().hex}"


@pytest.fixture
def collection(server, bucket):
    collection = f"{server.url}/buckets/{bucket}/collections/c{uuid4().hex}"
    for parent in (collection.rpartition("/collections")[0], collection):
        requests.put(parent, auth=AUTH, timeout=60).raise_for_status()
    return collection


@pytest.fixture
def record(collection):
    """The URL of a record that is not there yet."""
    return f"{collection}/records/r"


def upload(record, **headers):
    content = uuid4().bytes
    form = {"attachment": ("a.txt", content)}
    url = f"{record}/attachment"
    answer = requests.post(url, files=form, auth=AUTH, headers=headers, timeout=120)
    return answer.status_code, sha256(content).hexdigest()


def delete(record, **headers):
    url = f"{record}/attachment"
    return requests.delete(url, auth=AUTH, headers=headers, timeout=120).status_code


def version(record) -> str:
    answer = requests.get(record, auth=AUTH, timeout=60)
    answer.raise_for_status()
    return answer.headers["ETag"]


def attachment(record) -> dict | None:
    return requests.get(record, auth=AUTH, timeout=60).json()["data"].get("attachment")


def at_once(count, call) -> list:
    with ThreadPoolExecutor(count) as pool:
        return [future.result() for future in [pool.submit(call) for _ in range(count)]]


def files(server, record) -> list[str]:
    parts = record.split("/")
    bucket, collection = parts[-5], parts[-3]
    if bucket == "default":
        answer = requests.get(f"{server.url}/", auth=AUTH, timeout=60).json()
        bucket = answer["user"]["bucket"]
    return [stat.key for stat in server.site.storage.list(f"{bucket}/{collection}/")]


def check(server, record, digest) -> None:
    """The record has the file of the upload that won, and no other file is left."""
    assert attachment(record)["hash"] == digest
    assert files(server, record) == [server.site.key(attachment(record)["location"])]


@pytest.mark.parametrize(
    "bucket, has_file", [("some", False), ("some", True), ("default", True)], indirect=["bucket"]
)
def test_one_of_20_uploads_replaces_a_version(server, record, has_file):
    for _ in range(TURNS):
        if has_file:
            upload(record)
        else:
            body = {"data": {"family": "sans"}}
            requests.put(record, json=body, auth=AUTH, timeout=60).raise_for_status()
        expected = {"If-Match": version(record)}
        answers = at_once(20, lambda expected=expected: upload(record, **expected))
        assert Counter(status for status, _ in answers) == {200: 1, 412: 19}
        check(server, record, next(digest for status, digest in answers if status == 200))


@pytest.mark.parametrize("was_there", [False, True])
def test_one_of_20_uploads_creates_a_record(server, collection, was_there):
    for turn in range(TURNS):
        record = f"{collection}/records/r{turn}"
        if was_there:
            upload(record)
            requests.delete(record, auth=AUTH, timeout=60).raise_for_status()
        answers = at_once(20, lambda record=record: upload(record, **{"If-None-Match": "*"}))
        assert Counter(status for status, _ in answers) == {201: 1, 412: 19}
        digest = next(digest for status, digest in answers if status == 201)
        assert attachment(record)["hash"] == digest
    assert len(files(server, record)) == TURNS


@pytest.mark.parametrize("expects", [None, "*", "version"])
def test_one_of_8_deletions_finds_the_attachment(server, record, expects):
    for _ in range(TURNS):
        upload(record)
        value = version(record) if expects == "version" else expects
        headers = {"If-Match": value} if value else {}
        answers = at_once(8, lambda headers=headers: delete(record, **headers))
        refused = 412 if expects == "version" else 404
        assert Counter(answers) == {204: 1, refused: 7}
        assert attachment(record) is None
        assert files(server, record) == []


def test_one_of_uploads_and_deletions(server, record):
    for _ in range(TURNS):
        upload(record)
        expected = {"If-Match": version(record)}
        kinds = iter([upload, delete] * 8)

        def act(kinds=kinds, expected=expected):
            kind = next(kinds)
            answer = kind(record, **expected)
            return answer[0] if kind is upload else answer

        answers = Counter(at_once(16, act))
        assert answers in ({200: 1, 412: 15}, {204: 1, 412: 15})


def test_an_upload_that_expects_a_version_and_others_that_do_not(server, record):
    """It wins only if it comes first; the others all do."""
    for _ in range(TURNS):
        upload(record)
        expected = {"If-Match": version(record)}
        headers = iter([expected, {}] * 8)
        answers = at_once(16, lambda headers=headers: upload(record, **next(headers)))
        statuses = Counter(status for status, _ in answers)
        assert statuses in ({200: 8, 412: 8}, {200: 9, 412: 7})
        digest = attachment(record)["hash"]
        assert digest in [digest for status, digest in answers if status == 200]
        check(server, record, digest)
