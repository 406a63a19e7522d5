"""Many writers of the fields of one record, on two server processes with one PostgreSQL."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from uuid import uuid4

import pytest
import requests

from tests.support.servers.wsgi import GunicornProcesses
from tests.support.site import Site

AUTH = ("alice", "secret")
FIELDS = {"kinto.attachment.fields": "attachment cover pictures[]"}


@pytest.fixture(scope="module", params=["local", pytest.param("seaweedfs", marks=pytest.mark.slow)])
def server(request, kinto_settings, file_settings, tmp_path_factory):
    settings = {
        **kinto_settings("postgresql", fresh=True),
        **file_settings(request.param),
        **FIELDS,
        "kinto.storage_pool_size": "50",
        "kinto.storage_max_overflow": "10",
    }
    site = Site(**settings)
    with GunicornProcesses(settings, tmp_path_factory.mktemp("processes")) as server:
        server.site = site
        yield server


@pytest.fixture
def record(server):
    bucket = f"b{uuid4().hex}"
    for parent in (f"buckets/{bucket}", f"buckets/{bucket}/collections/c"):
        requests.put(f"{server.url}/{parent}", auth=AUTH, timeout=60).raise_for_status()
    return f"{server.url}/buckets/{bucket}/collections/c/records/r"


def send(url, content, method="post", **headers):
    files = {"attachment": (f"{content.decode()}.txt", content)}
    return requests.request(method, url, files=files, auth=AUTH, headers=headers, timeout=120)


def append(record, content):
    return send(f"{record}/attachments/pictures", content)


def data_of(record):
    return requests.get(record, auth=AUTH, timeout=60).json()["data"]


def names(record):
    return [entry["filename"] for entry in data_of(record)["pictures"]]


def at_once(*calls):
    """Run the calls in threads; return what they return."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


def check(server, record):
    """Check that every entry has its bytes, and that there are no other files."""
    entries = data_of(record).get("pictures", [])
    for entry in entries:
        url = f"{record}/attachments/pictures/{entry['id']}"
        content = requests.get(url, auth=AUTH, timeout=60).content
        assert sha256(content).hexdigest() == entry["hash"]
    assert len({entry["id"] for entry in entries}) == len(entries)
    bucket = record.split("/")[-5]
    keys = sorted(stat.key for stat in server.site.storage.list(f"{bucket}/"))
    assert keys == sorted(server.site.key(entry["location"]) for entry in entries)


@pytest.mark.parametrize("exists", [False, True])
def test_50_appends(server, record, exists):
    if exists:
        append(record, b"first").raise_for_status()
    calls = [lambda index=index: append(record, b"%d" % index) for index in range(50)]
    assert Counter(answer.status_code for answer in at_once(*calls)) == {201: 50}
    assert len(data_of(record)["pictures"]) == 50 + exists
    check(server, record)


def test_forms_beside_appends(server, record):
    def form(index):
        files = [("pictures", (f"{index}{end}.txt", b"%d" % index)) for end in "abc"]
        files.append(("cover", ("cover.txt", b"cover")))
        answer = requests.post(f"{record}/attachments", files=files, auth=AUTH, timeout=120)
        return answer.status_code

    def one(index):
        return append(record, b"one%d" % index).status_code

    calls = [lambda i=i, call=call: call(i) for i in range(10) for call in (form, one)]
    assert {*at_once(*calls)} <= {200, 201}
    assert len(data_of(record)["pictures"]) == 40
    requests.delete(f"{record}/attachments/cover", auth=AUTH, timeout=60).raise_for_status()
    check(server, record)


def test_appends_beside_reorderings_with_if_match(server, record):
    """Both survive, or the reordering is refused."""
    for index in range(5):
        append(record, b"%d" % index).raise_for_status()
    done = threading.Event()
    reordered = Counter()

    def reorder():
        while not done.is_set():
            data = data_of(record)
            turned = [*data["pictures"][1:], data["pictures"][0]]
            answer = requests.patch(
                record,
                json={"data": {"pictures": turned}},
                auth=AUTH,
                headers={"If-Match": f'"{data["last_modified"]}"'},
                timeout=60,
            )
            reordered[answer.status_code] += 1

    with ThreadPoolExecutor(2) as pool:
        for _ in range(2):
            pool.submit(reorder)
        calls = [lambda i=i: append(record, b"new%d" % i).status_code for i in range(20)]
        try:
            assert {*at_once(*calls)} == {201}
        finally:
            done.set()
    # On a slow machine, an append may come before each of them.
    assert {*reordered} <= {200, 412}
    assert len(data_of(record)["pictures"]) == 25
    check(server, record)


def test_appends_beside_reorderings_without_if_match(server, record):
    """What was appended before the reordering was written, and is not in it, goes."""
    for index in range(5):
        append(record, b"%d" % index).raise_for_status()
    entries = data_of(record)["pictures"]

    def reorder():
        body = {"data": {"pictures": entries[::-1]}}
        return requests.patch(record, json=body, auth=AUTH, timeout=60).status_code

    calls = [lambda i=i: append(record, b"new%d" % i).status_code for i in range(20)]
    statuses = at_once(*calls[:10], reorder, *calls[10:])
    assert statuses[10] == 200
    assert {*statuses[:10], *statuses[11:]} == {201}
    assert {f"{index}.txt" for index in range(5)} <= {*names(record)}
    check(server, record)


def test_appends_beside_other_changes(server, record):
    """A write of another attribute that has read the record before an append does not undo it."""
    append(record, b"first").raise_for_status()

    def change(index):
        body = {"data": {f"a{index}": index}}
        return requests.patch(record, json=body, auth=AUTH, timeout=120).status_code

    calls = [lambda i=i: append(record, b"new%d" % i).status_code for i in range(20)]
    changes = [lambda i=i: change(i) for i in range(20)]
    statuses = at_once(*(call for pair in zip(calls, changes, strict=True) for call in pair))
    assert {*statuses[::2]} == {201}
    assert {*statuses[1::2]} <= {200, 409, 503}
    assert len(data_of(record)["pictures"]) == 21
    check(server, record)


def test_removals_beside_appends(server, record):
    entries = [append(record, b"%d" % index).json() for index in range(15)]

    def remove(entry):
        url = f"{record}/attachments/pictures/{entry['id']}"
        return requests.delete(url, auth=AUTH, timeout=120).status_code

    calls = [lambda i=i: append(record, b"new%d" % i).status_code for i in range(15)]
    removals = [lambda entry=entry: remove(entry) for entry in entries]
    statuses = at_once(*(call for pair in zip(calls, removals, strict=True) for call in pair))
    assert {*statuses[::2]} == {201}
    assert {*statuses[1::2]} == {204}
    assert sorted(names(record)) == sorted(f"new{index}.txt" for index in range(15))
    check(server, record)


def test_20_replacements_with_one_if_match(server, record):
    entry = append(record, b"first").json()
    etag = requests.get(f"{record}/attachments/pictures", auth=AUTH, timeout=60).headers["ETag"]
    url = f"{record}/attachments/pictures/{entry['id']}"
    calls = [lambda i=i: send(url, b"new%d" % i, "put", **{"If-Match": etag}) for i in range(20)]
    answers = at_once(*calls)
    assert Counter(answer.status_code for answer in answers) == {200: 1, 412: 19}
    [winner] = [answer.json() for answer in answers if answer.ok]
    assert data_of(record)["pictures"] == [winner]
    check(server, record)


def test_replacements_without_if_match(server, record):
    entries = [append(record, b"%d" % index).json() for index in range(5)]
    urls = [f"{record}/attachments/pictures/{entry['id']}" for entry in entries]
    same = [lambda i=i: send(urls[0], b"same%d" % i, "put") for i in range(10)]
    others = [lambda i=i: send(urls[i], b"new%d" % i, "put") for i in range(1, 5)]
    answers = at_once(*same, *others)
    assert {answer.status_code for answer in answers[:10]} <= {200, 409}
    assert {answer.status_code for answer in answers[10:]} == {200}
    values = data_of(record)["pictures"]
    assert [value["id"] for value in values] == [entry["id"] for entry in entries]
    assert values[0] in [answer.json() for answer in answers[:10] if answer.ok]
    assert values[1:] == [answer.json() for answer in answers[10:]]
    check(server, record)
