"""Failures of every storage call in operations on fields: all files of a form, or none."""

import json

import pytest

from tests.support.site import ALICE, Site
from tests.system.test_faults import BY_HASH, check_all, failing_call

FIELDS = {"kinto.attachment.fields": "attachment cover pictures[]"}


@pytest.fixture(
    params=[
        pytest.param({}, id="random"),
        pytest.param(BY_HASH, id="by hash", marks=pytest.mark.slow),
    ]
)
def site(request, make_database, file_settings, faulty_files):
    site = Site(**make_database(), **file_settings(faulty_files), **FIELDS, **request.param)
    yield site
    site.close()


@pytest.fixture(params=["local", pytest.param("moto", marks=pytest.mark.slow)])
def faulty_files(request):
    return request.param


def send(record, path, *files, method="post", **texts):
    texts = [(name, json.dumps(value)) for name, value in texts.items()]
    mimetype, body = record.http.encode_multipart(texts, files)
    headers = {**ALICE, "Content-Type": mimetype}
    call = getattr(record.http, method)
    return call(f"{record.uri}/attachments{path}", body, headers=headers, status="*")


def form(record):
    files = [("pictures", f"{name}.txt", name.encode()) for name in "xyz"]
    files.insert(1, ("cover", "new.txt", b"new cover"))
    return send(record, "", *files, data={"a": 1})


def create(record):
    return form(record.collection.record("new"))


def append(record):
    return send(record, "/pictures", ("pictures", "x.txt", b"x"))


def replace(record):
    entry = record.data["pictures"][1]["id"]
    return send(record, f"/pictures/{entry}", ("pictures", "x.txt", b"x"), method="put")


def remove(record):
    entry = record.data["pictures"][1]["id"]
    uri = f"{record.uri}/attachments/pictures/{entry}"
    return record.http.delete(uri, headers=ALICE, status="*")


def remove_field(record):
    uri = f"{record.uri}/attachments/pictures"
    return record.http.delete(uri, headers=ALICE, status="*")


def rearrange(record):
    one, two, three = record.data["pictures"]
    body = {"data": {"pictures": [three, one], "cover": None}}
    return record.http.patch_json(record.uri, body, headers=ALICE, status="*")


def delete(record):
    return record.http.delete(record.uri, headers=ALICE, status="*")


OPERATIONS = [
    *(form, append, replace, rearrange),
    *(pytest.param(one, marks=pytest.mark.slow) for one in (create, remove, remove_field, delete)),
]


def state(record) -> dict:
    """Return what a client sees of two records, bytes included."""
    seen = {}
    for one in (record, record.collection.record("new")):
        data = one.http.get(one.uri, headers=ALICE, status="*").json.get("data", {})
        files = data and one.http.get(f"{one.uri}/attachments", headers=ALICE).json
        for field, value in files.items():
            for each in value if isinstance(value, list) else [value]:
                path = f"{field}/{each['id']}" if "id" in each else field
                content = one.http.get(f"{one.uri}/attachments/{path}", headers=ALICE).body
                seen[one.id, path] = content
        seen[one.id] = (data.get("a"), files)
    return seen


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_storage_calls(site, operation, after):
    """Let each call of the operation fail, one after the other."""
    number = 1
    while True:
        record = site.collection().record("there")
        files = [("pictures", f"{name}.txt", name.encode()) for name in "abc"]
        send(record, "", *files, ("cover", "cover.txt", b"cover"))
        before = state(record)
        with failing_call(site.storage, number, after) as seen:
            response = operation(record)
        assert response.status_int < 400 or response.status_int in (500, 503)
        check_all(site, record, response, before, state)
        if len(seen) < number:
            break  # the operation makes no more calls
        number += 1
    assert response.status_int < 400
    if operation in (form, create):
        assert number > 8  # four spools and four files
