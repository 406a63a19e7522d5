"""Deleting a collection with many attachments."""

import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

from ..harness.environment import EXISTING, OURS, Environment, Kinto, workers_of
from ..harness.process_stats import measure
from ..harness.seed import CONTENT, copied_keys, copy_rows, write_files
from ..report import Cell, Table, Target, ratio
from .scale import key_of, uuid_of

SINGLE = "S3, floor: one by one"
COLUMNS = ["answer s", "gone s", "CPU s", "MiB over idle", "of 1/10"]


def run(environment: Environment) -> Table:
    """Measure in a folder and on S3. First a tenth of the files is deleted, to see how the memory
    grows."""
    count = environment.pick(10_000, 200)
    lines: dict[str, dict[str, Cell]] = {}
    for name in environment.plugins:
        lines[f"local, {name}"] = _delete_twice(environment.server(name), count)
    server = environment.server(OURS, "s3")
    lines[SINGLE] = _delete_one_by_one(server, count)
    lines[f"S3, {OURS}"] = ours = _delete_twice(server, count)
    single, existing = lines[SINGLE], lines.get(f"local, {EXISTING}", {})
    local = lines[f"local, {OURS}"]
    targets = [
        Target(
            "delete, S3: speed relative to one by one",
            ratio(single["gone s"], ours["gone s"]),
            10,
            True,
        ),
        Target("delete, S3: MiB more than for a tenth of the files", _growth(ours), 5),
        Target("delete, local: MiB more than for a tenth of the files", _growth(local), 5),
    ]
    faster = ratio(existing.get("gone s"), local["gone s"])
    notes = [
        "gone s: until no bytes are left. The existing plugin has no S3 since 8.0.0. It deletes "
        "one file after the other before it answers; on S3, a loop of delete_object stands for it.",
        f"In a folder, the time of the existing plugin is {faster:.2f} x ours."
        if faster
        else "The existing plugin is not installed.",
    ]
    title = f"DELETE of a collection with {count} attachments (one run)"
    return Table(title, COLUMNS, lines, targets, notes)


def _growth(line: dict[str, Cell]) -> float:
    return line["MiB over idle"] - line["of 1/10"]


def _delete_twice(server: Kinto, count: int) -> dict[str, Cell]:
    """Delete a collection with a tenth of the files, then one with all."""
    few = _delete(server, count // 10)
    return {**_delete(server, count), "of 1/10": few["MiB over idle"]}


def _delete(server: Kinto, count: int) -> dict[str, Cell]:
    collection, prefix = _fill(server, count)
    workers = workers_of(server)
    answered = gone = 0.0

    def delete() -> None:
        nonlocal answered, gone
        started = time.monotonic()
        server.client.request("DELETE", collection)
        answered = time.monotonic() - started
        exists = _make_probe(server, prefix)
        while exists():
            time.sleep(0.01)
        gone = time.monotonic() - started

    cost = measure(workers, delete)
    return {
        "answer s": answered,
        "gone s": gone,
        "CPU s": cost["cpu"],
        "MiB over idle": cost["memory"],
    }


def _delete_one_by_one(server: Kinto, count: int) -> dict[str, Cell]:
    client, bucket = _s3(server)
    keys = [f"single/{uuid4()}.pdf" for _ in range(count)]
    _put_all(server, keys)
    started = time.monotonic()
    for key in keys:
        client.delete_object(Bucket=bucket, Key=key)
    return {"gone s": time.monotonic() - started}


def _fill(server: Kinto, count: int) -> tuple[str, str]:
    """Create a collection with ``count`` attachments; return its path, and the prefix of its
    keys."""
    collection = server.client.collection()
    record = uuid4().hex
    key = key_of(server.client.upload(f"{collection}/records/{record}", CONTENT))
    uuid = uuid_of(key)
    copy_rows(server.database, record, uuid, count - 1)
    keys = copied_keys(key, uuid, count - 1)
    if _is_s3(server):
        _put_all(server, keys)
    else:
        write_files(server.files / each for each in keys)
    return collection, key.rpartition("/")[0]


def _make_probe(server: Kinto, prefix: str) -> Callable[[], bool]:
    """Return a function that returns whether there are any objects below a prefix."""
    if not _is_s3(server):
        folder = server.files / prefix
        return lambda: folder.exists() and any(os.scandir(folder))
    client, bucket = _s3(server)
    options = {"Bucket": bucket, "Prefix": f"{prefix}/", "MaxKeys": 1}
    return lambda: bool(client.list_objects_v2(**options).get("Contents"))


def _is_s3(server: Kinto) -> bool:
    return "kinto.attachment.aws.bucket_name" in server.settings


def _s3(server: Kinto):
    bucket = server.settings["kinto.attachment.aws.bucket_name"]
    return server.s3.client(), bucket


def _put_all(server: Kinto, keys: Iterable[str]) -> None:
    client, bucket = _s3(server)
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(
            lambda key: client.put_object(Bucket=bucket, Key=key, Body=CONTENT), keys
        ):
            pass
