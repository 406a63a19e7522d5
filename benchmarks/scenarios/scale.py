"""Small uploads to a server that already has many attachments."""

import os
from statistics import median
from uuid import uuid4

from ..harness.client import Client
from ..harness.environment import KINTO, OURS, Environment, Kinto
from ..harness.process_stats import seconds_of
from ..harness.seed import copied_keys, copy_rows, write_files
from ..report import Table, Target
from .small import CONTENT

VERBS = ["upload", "replace", "delete"]


def run(environment: Environment) -> Table:
    """Measure on an empty server, and in a collection with many attachments."""
    others, times = environment.pick(100_000, 2000), environment.pick(150, 10)
    servers, collections = {}, {}
    for role in ("", "full"):
        for name, server in environment.servers(role=role).items():
            servers[name, role] = server
            collection = collections[name, role] = server.client.collection()
            if role:
                _fill(server, collection, others)
    seconds: dict[tuple, list[float]] = {}
    for number in range(times + 3):
        for (name, role), server in servers.items():
            for verb, each in _verbs(name, server.client, collections[name, role]).items():
                if number > 2:  # the first rounds find empty caches
                    seconds.setdefault((name, verb, role), []).append(each)
    p50 = {key: median(each) * 1000 for key, each in seconds.items()}
    lines = {
        f"{verb}, {name}": {
            "empty": p50[name, verb, ""],
            "full": p50[name, verb, "full"],
            "x empty": p50[name, verb, "full"] / p50[name, verb, ""],
        }
        for verb in VERBS
        for name in environment.kintos
    }
    targets = [
        Target(
            f"{others} others: p50 of {verb} relative to empty",
            lines[f"{verb}, {OURS}"]["x empty"],
            1.1,
        )
        for verb in VERBS
    ]
    title = f"p50 in ms with {others} other attachments ({times} each, in turns)"
    notes = [f"{KINTO}: PUT, PUT again and DELETE of records."]
    return Table(title, ["empty", "full", "x empty"], lines, targets, notes)


def _verbs(name: str, client: Client, collection: str) -> dict[str, float]:
    """Upload, replace and delete the file of a new record; return the seconds of each."""
    record = f"{collection}/records/{uuid4().hex}"
    content = CONTENT, os.urandom(len(CONTENT))
    if name == KINTO:
        requests = {
            "upload": lambda: client.json("PUT", record, {"n": 1}),
            "replace": lambda: client.json("PUT", record, {"n": 2}),
            "delete": lambda: client.request("DELETE", record),
        }
    else:
        requests = {
            "upload": lambda: client.upload(record, content[0]),
            "replace": lambda: client.upload(record, content[1]),
            "delete": lambda: client.request("DELETE", f"{record}/attachment"),
        }
    return {verb: seconds_of(request) for verb, request in requests.items()}


def _fill(server: Kinto, collection: str, others: int) -> None:
    record = f"{collection}/records/{uuid4().hex}"
    if server.name == KINTO:
        server.client.json("PUT", record, {"key": "no key"})
        copy_rows(server.database, record.rpartition("/")[2], "no key", others)
        return
    key = key_of(server.client.upload(record, CONTENT))
    uuid = uuid_of(key)
    copy_rows(server.database, record.rpartition("/")[2], uuid, others)
    write_files(server.files / other for other in copied_keys(key, uuid, others))


def key_of(attachment: dict) -> str:
    """Return the key of an attachment."""
    return "bench/" + attachment["location"].partition("/bench/")[2]


def uuid_of(key: str) -> str:
    """Return the UUID in a key."""
    return key.rpartition("/")[2].partition(".")[0]
