"""Files that are sent on to the storage while they arrive."""

import secrets
from collections.abc import Callable
from contextlib import contextmanager

from kinto_attachment.errors import StorageUnavailable
from kinto_attachment.storage.stream import PART_BYTES

STREAMING = {"moto", "seaweedfs", "gcs"}
"""The storages that take bytes while they arrive."""

SIZES = [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES + 1]
LARGE = 2 * PART_BYTES + 77

BY_NAME = {"kinto.attachment.randomize": "false"}
BY_HASH = {**BY_NAME, "kinto.attachment.filename_pattern": "{hash}{extension}"}


def content_of(size: int) -> bytes:
    """Random bytes that look like a PDF."""
    return (b"%PDF-1.7\n" + secrets.token_bytes(size))[:size]


def uploads(site) -> list[str]:
    """The keys of the multipart uploads that were neither completed nor aborted."""
    client = getattr(site.storage, "client", None)
    if client is None:
        return []
    found = client.list_multipart_uploads(Bucket=site.storage.bucket_name)
    return [each["Key"] for each in found.get("Uploads", ())]


def reservations(site) -> list[str]:
    """The keys that are reserved."""
    rows = site.in_transaction(
        lambda: site.registry.storage.list_all("attachment-claim", "/attachment-claims/*")
    )
    return [row["id"] for row in rows]


def check_nothing_is_left(record) -> None:
    """Check that a bucket has the files of its records only, and nothing unfinished."""
    collection, site = record.collection, record.site
    assert collection.keys == collection.links
    assert [key for key in uploads(site) if collection.bucket in key] == []
    assert [key for key in reservations(site) if collection.bucket in key] == []


@contextmanager
def watched(storage, on_stream: Callable = lambda key: None, on_call: Callable = lambda name: None):
    """Call functions whenever a stream is opened, and before and after each of its calls. Yield a
    list of the names of all calls."""
    seen, original = [], storage.stream

    def stream(key, label):
        seen.append("stream")
        on_stream(key)
        opened = original(key, label)
        for name in ("write", "finish", "abort"):
            setattr(opened, name, watch(name, getattr(opened, name)))
        return opened

    def watch(name, call):
        def watching(*args):
            seen.append(name)
            on_call(name)
            return call(*args)

        return watching

    storage.stream = stream
    try:
        yield seen
    finally:
        del storage.stream


def failing(wanted: str, number: int = 1) -> Callable[[str], None]:
    """Return a function that fails at the call of that name and number."""
    left = [number]

    def on_call(name):
        left[0] -= name == wanted
        if name == wanted and left[0] == 0:
            raise StorageUnavailable("fault", f"{name} fails")

    return on_call
