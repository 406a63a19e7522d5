"""Fields of records, for tests."""

import json
from hashlib import sha256

from tests.support.site import ALICE

FIELDS = {"kinto.attachment.fields": "attachment cover pictures[] notes[]"}
PRIVATE = {**FIELDS, "kinto.attachment.private": "true"}
NAMES = ("one.txt", "two.txt", "three.txt")


def form(record, *files, headers=None, status=None, **data):
    """Post ``(field, filename, content)`` to all fields of a record; return the response."""
    texts = [(name, json.dumps(value)) for name, value in data.items()]
    mimetype, body = record.http.encode_multipart(texts, files)
    headers = {**ALICE, **(headers or {}), "Content-Type": mimetype}
    return record.http.post(f"{record.uri}/attachments", body, headers=headers, status=status)


def send(record, field, content=b"bytes", filename="a.txt", method="post", **options):
    """Send one file to a field or an entry; return the response."""
    part = options.pop("part", "attachment")
    mimetype, body = record.http.encode_multipart((), [(part, filename, content)])
    headers = {**ALICE, **options.pop("headers", {}), "Content-Type": mimetype}
    url = f"{record.uri}/attachments/{field}"
    return getattr(record.http, method)(url, body, headers=headers, **options)


def get(record, path="", **options):
    return record.http.get(f"{record.uri}/attachments{path}", headers=ALICE, **options)


def pictures(record, *names):
    """Append these files to the field ``pictures``; return the entries."""
    return [send(record, "pictures", name.encode(), name).json for name in names]


def filenames(record, field="pictures"):
    return [entry["filename"] for entry in record.data[field]]


def check_whole(record):
    """Check that the record has exactly its files, and the bucket no others."""
    files = []
    for value in get(record).json.values():
        files += value if isinstance(value, list) else [value]
    served = [(each, _path_of(record, each)) for each in files]
    for each, path in served:
        content = get(record, path).body
        assert each["hash"] == sha256(content).hexdigest()
        assert each["size"] == len(content)
    keys = record.collection.links
    assert len(keys) == len(files)
    assert record.collection.keys == sorted({*keys})
    assert record.collection.releases == []


def _path_of(record, each):
    for field, value in get(record).json.items():
        if value == each:
            return f"/{field}"
        if isinstance(value, list) and each in value:
            return f"/{field}/{each['id']}"
    raise AssertionError(each)


def put(record, status=None, headers=None, **data):
    headers = {**ALICE, **(headers or {})}
    return record.http.put_json(record.uri, {"data": data}, headers=headers, status=status)
