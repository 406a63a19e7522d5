"""One large download: what it costs, compared with a bare program that sends the same file."""

import json
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from uuid import uuid4

from ..harness.client import BLOCK, fetch
from ..harness.environment import OURS, Environment, Floor, Kinto, workers_of
from ..harness.process_stats import MIB, Cost, in_turns, measure
from ..report import Table, Target
from .scale import key_of

FLOOR = "floor: file_wrapper"
FLOOR_S3 = "floor: get_object"
RANGE = f"{OURS}, bytes=1-"
COLUMNS = ["MB/s", "x floor", "CPU s", "CPU x floor", "MiB over idle"]
S3_ENV = {
    "AWS_ENDPOINT_URL_S3": "endpoint_url",
    "AWS_ACCESS_KEY_ID": "access_key",
    "AWS_SECRET_ACCESS_KEY": "secret_key",
    "AWS_DEFAULT_REGION": "region",
    "FLOOR_BUCKET": "bucket_name",
}


def run(environment: Environment) -> Table:
    """Measure downloads from a folder."""
    table = _run(environment, "local", FLOOR)
    table.notes = ["The existing plugin does not serve files; it needs a web server for that."]
    return table


def run_s3(environment: Environment) -> Table:
    """Measure downloads from SeaweedFS, streamed by the server."""
    return _run(environment, "s3", FLOOR_S3)


def _run(environment: Environment, storage: str, floor: str) -> Table:
    size, runs = environment.pick(1024, 64), environment.pick(15, 2)
    server = environment.server(OURS, storage)
    collection = server.client.collection()
    small, large = (_upload(server, collection, each) for each in (1, size))
    if storage == "local":
        bare = environment.floor("send_file", server.files)
    else:
        aws = "kinto.attachment.aws."
        env = {name: server.settings[aws + option] for name, option in S3_ENV.items()}
        bare = environment.floor("send_object", **env)
    requests = {
        floor: _requests(bare, *(f"/{key}" for _, key in (small, large)), size),
        OURS: _requests(server, *(path for path, _ in (small, large)), size),
        RANGE: _requests(server, *(path for path, _ in (small, large)), size, start=1),
    }
    costs = in_turns(requests, runs)
    server.client.request("DELETE", large[0].removesuffix("/attachment"))
    lines = {
        name: {
            "MB/s": size * MIB / 1e6 / cost["seconds"],
            "x floor": costs[floor]["seconds"] / cost["seconds"],
            "CPU s": cost["cpu"],
            "CPU x floor": cost["cpu"] / costs[floor]["cpu"] if costs[floor]["cpu"] else None,
            "MiB over idle": cost["memory"],
        }
        for name, cost in costs.items()
    }
    ours = lines[OURS]
    targets = [
        Target(f"download, {storage}: MiB over idle", ours["MiB over idle"], 20),
        Target(f"download, {storage}: MB/s relative to the floor", ours["x floor"], 0.8, True),
    ]
    title = f"Download {size} MiB, {'S3' if storage == 's3' else storage} (medians of {runs})"
    return Table(title, COLUMNS, lines, targets)


def _requests(
    server: Kinto | Floor, small: str, large: str, size: int, start: int = 0
) -> Callable[[], Cost]:
    """Return a function that downloads once, and returns the cost. The SHA-256 of a first download
    is checked here."""
    # The first request loads modules, which is not part of the cost.
    fetch(server.port, small, MIB, start)
    workers = workers_of(server)
    digest, expected = sha256(), sha256(BLOCK[start:])
    for _ in range(size - 1):
        expected.update(BLOCK)
    fetch(server.port, large, size * MIB, start, digest.update)
    assert digest.hexdigest() == expected.hexdigest()
    return lambda: measure(workers, partial(fetch, server.port, large, size * MIB, start))


def _upload(server: Kinto, collection: str, size: int) -> tuple[str, str]:
    """Upload ``size`` MiB to a new record; return the path of the attachment, and its key."""
    path = f"{collection}/records/{uuid4().hex}/attachment"
    return path, key_of(json.loads(server.client.send(path, size, form=True)))
