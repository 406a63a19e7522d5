"""Many clients at once, on two server processes with one PostgreSQL."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from uuid import uuid4

import pytest
import requests

from tests.support.servers.wsgi import GunicornProcesses
from tests.support.site import Site

AUTH = ("alice", "secret")


@pytest.fixture(scope="module", params=["local", pytest.param("seaweedfs", marks=pytest.mark.slow)])
def server(request, kinto_settings, file_settings, tmp_path_factory):
    settings = {
        **kinto_settings("postgresql", fresh=True),
        **file_settings(request.param),
        # A connection for each thread: with fewer, threads that wait behind a deadlock of Kinto's
        # (a second each) wait longer than the pool lets them, which is a 503.
        "kinto.storage_pool_size": "50",
        "kinto.storage_max_overflow": "10",
    }
    site = Site(**settings)
    with GunicornProcesses(settings, tmp_path_factory.mktemp("processes")) as server:
        server.site = site
        yield server


@pytest.fixture
def collection(server):
    bucket = f"b{uuid4().hex}"
    for parent in (f"buckets/{bucket}", f"buckets/{bucket}/collections/c"):
        requests.put(f"{server.url}/{parent}", auth=AUTH, timeout=60).raise_for_status()
    return f"{server.url}/buckets/{bucket}/collections/c"


def keys_of(server, collection) -> list[str]:
    bucket = collection.split("/")[-3]
    return sorted(stat.key for stat in server.site.storage.list(f"{bucket}/"))


def upload(record, content=None):
    content = uuid4().bytes if content is None else content
    form = {"attachment": ("a.txt", content)}
    return requests.post(f"{record}/attachment", files=form, auth=AUTH, timeout=120)


def delete(url):
    return requests.delete(url, auth=AUTH, timeout=120).status_code


def call_all(call, arguments):
    """Call a function with each argument, in 100 threads."""
    with ThreadPoolExecutor(100) as pool:
        return list(pool.map(call, arguments))


def check_record(server, collection, record) -> None:
    """Check that the file of the record exists, has its hash, and is the only one."""
    attachment = requests.get(record, auth=AUTH, timeout=60).json()["data"]["attachment"]
    key = server.site.key(attachment["location"])
    content = b"".join(server.site.storage.open(key))
    assert sha256(content).hexdigest() == attachment["hash"]
    assert keys_of(server, collection) == [key]


@pytest.mark.parametrize("exists", [False, True])
def test_100_uploads_to_one_record(server, collection, exists):
    record = f"{collection}/records/r"
    if exists:
        upload(record).raise_for_status()
    statuses = Counter(answer.status_code for answer in call_all(upload, [record] * 100))
    assert statuses == ({200: 100} if exists else {201: 1, 200: 99})
    check_record(server, collection, record)


def test_100_uploads_to_100_records(server, collection):
    records = [f"{collection}/records/r{index}" for index in range(100)]
    assert {answer.status_code for answer in call_all(upload, records)} == {201}
    assert len(keys_of(server, collection)) == 100
    assert {answer.status_code for answer in call_all(upload, records)} == {200}
    assert len(keys_of(server, collection)) == 100


def test_100_uploads_to_the_default_bucket(server):
    user = (uuid4().hex, "secret")
    url = f"{server.url}/buckets/default/collections/c/records"

    def post(index):
        form = {"attachment": ("a.txt", b"content")}
        record = f"{url}/r{index}/attachment"
        return requests.post(record, files=form, auth=user, timeout=120).status_code

    assert set(call_all(post, range(100))) == {201}


def test_uploads_and_everything_else(server, collection):
    """Uploads, deletions of each kind, and writes of other attributes, of one record."""
    record = f"{collection}/records/r"

    def act(turn):
        kind = turn % 5
        if kind == 0:
            url = f"{record}/attachment"
            return "ours", requests.delete(url, auth=AUTH, timeout=120).status_code
        if kind == 1:
            return "kinto", requests.delete(record, auth=AUTH, timeout=120).status_code
        if kind == 2:
            body = {"data": {"turn": turn}}
            return "kinto", requests.patch(record, json=body, auth=AUTH, timeout=120).status_code
        return "ours", upload(record).status_code

    # Each deadlock of Kinto's takes a second.
    answers = Counter(call_all(act, range(60)))
    # Kinto's own writes of one record deadlock (503) and collide (409) by themselves.
    ours = {status for whose, status in answers if whose == "ours"}
    assert ours <= {200, 201, 204, 404}, answers
    assert {status for _, status in answers} <= {200, 201, 204, 404, 409, 503}, answers
    upload(record).raise_for_status()
    check_record(server, collection, record)


def test_uploads_and_the_deletion_of_the_collection(server, collection):
    records = [f"{collection}/records/r{index}" for index in range(60)]

    def act(index):
        if index == 30:
            # Kinto's own deletion collides with other writes (409, 503).
            while (status := delete(collection)) not in (200, 404):
                assert status in (409, 503)
            return status
        return upload(records[index]).status_code

    statuses = Counter(call_all(act, range(60)))
    assert set(statuses) <= {200, 201, 404}, statuses
    # Kinto itself does not keep records from being created in a collection that is being
    # deleted; those that were have their bytes, and no other bytes are left.
    requests.put(collection, auth=AUTH, timeout=60).raise_for_status()
    left = requests.get(f"{collection}/records", auth=AUTH, timeout=60).json()["data"]
    keys = sorted(server.site.key(record["attachment"]["location"]) for record in left)
    assert keys_of(server, collection) == keys


def test_patches_and_a_deletion_of_the_attachment(server, collection):
    """None of the patches brings the deleted file back."""
    for turn in range(10):
        record = f"{collection}/records/r{turn}"
        upload(record).raise_for_status()

        def act(index, record=record):
            if index == 3:
                return delete(f"{record}/attachment")
            body = {"data": {"index": index}}
            return requests.patch(record, json=body, auth=AUTH, timeout=60).status_code

        statuses = set(call_all(act, range(8)))
        assert statuses <= {200, 204, 409, 503}, statuses
        left = requests.get(record, auth=AUTH, timeout=60).json()["data"].get("attachment")
        if left:
            assert b"".join(server.site.storage.open(server.site.key(left["location"])))


def test_equal_bytes_keep_the_type_of_the_first_upload(server):
    """Where the storage overwrites, one upload after the other stores them."""
    if server.site.storage.exclusive:
        pytest.skip("a local file has no type")
    storage = server.site.storage.backend

    def post(index):
        headers = {"Content-Type": f"application/x-{index}"}
        answer = requests.post(
            f"{server.url}/media", data=content, auth=AUTH, headers=headers, timeout=120
        )
        key = next(stat.key for stat in storage.list() if digest in stat.key)
        found = storage.client.head_object(Bucket=storage.bucket_name, Key=key)
        return answer.status_code, found["ContentType"]

    for _ in range(5):
        content = uuid4().bytes * 100_000
        digest = sha256(content).hexdigest()
        answers = call_all(post, range(20))
        assert {status for status, _ in answers} <= {200, 201}
        assert len({mimetype for _, mimetype in answers}) == 1
