"""One large upload: what it costs, compared with a program that does only the I/O."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

from ..harness.client import BLOCK
from ..harness.environment import EXISTING, OURS, ROOT, Environment, Floor, Kinto, workers_of
from ..harness.process_stats import MIB, Cost, in_turns, measure
from ..report import Table, Target, ratio

FLOOR = "floor: read, hash, write"
UPLOAD_FILE = "floor: hash, upload_file"
FIRST = 9  # MiB
CLIENT_RATE = 50
"""MB/s of a slow client."""
COLUMNS = ["MB/s", "x floor", "x existing", "CPU s", "CPU x floor", "MiB over idle"]


def run(environment: Environment) -> Table:
    """Measure uploads to a folder."""
    size, runs = environment.pick(1024, 64), environment.pick(3, 1)
    folder = environment.make_folder()
    floor = environment.floor("receive", folder)
    requests = {FLOOR: _requests(floor, "/", size)}
    for name in environment.plugins:
        server = environment.server(name)
        requests[name] = _requests(server, f"{server.client.collection()}/records", size)
    lines = _lines(in_turns(requests, runs), size, FLOOR)
    ours = lines[OURS]
    targets = [
        Target("upload, local: MiB over idle", ours["MiB over idle"], 30),
        Target(
            "upload, local: MB/s relative to the existing plugin", ours["x existing"], 2.5, True
        ),
        Target("upload, local: CPU relative to the floor", ours["CPU x floor"], 1.25),
    ]
    return Table(f"Upload {size} MiB, local ({_medians(runs)})", COLUMNS, lines, targets)


def run_s3(environment: Environment) -> Table:
    """Measure uploads to SeaweedFS."""
    size, runs = environment.pick(1024, 64), environment.pick(3, 1)
    server = environment.server(OURS, "s3")
    path = environment.make_folder() / "file.pdf"
    with path.open("wb") as file:
        file.writelines(BLOCK for _ in range(size))
    requests = {
        UPLOAD_FILE: partial(_upload_file, path, server.settings),
        OURS: _requests(server, f"{server.client.collection()}/records", size),
    }
    if EXISTING in environment.plugins:
        other = environment.server(EXISTING)
        name = f"{EXISTING}, local"
        requests[name] = _requests(other, f"{other.client.collection()}/records", size)
    lines = _lines(in_turns(requests, runs), size, UPLOAD_FILE)
    path.unlink()
    ours = lines[OURS]
    targets = [
        Target("upload, S3: MiB over idle", ours["MiB over idle"], 60),
        Target("upload, S3: MB/s relative to hashing and upload_file", ours["x floor"], 1.0, True),
    ]
    notes = [
        "The floor is a program on the machine of the object store, with the file on its disk.",
        "The existing plugin has no S3 since 8.0.0; its line is an upload to a folder.",
    ]
    title = f"Upload {size} MiB, S3 ({_medians(runs)})"
    return Table(title, COLUMNS, lines, targets, notes)


def run_slow_client(environment: Environment) -> Table:
    """Measure uploads to SeaweedFS by a client that is slower than the server."""
    size, runs = environment.pick(1024, 64), environment.pick(3, 1)
    server = environment.server(OURS, "s3")
    path = f"{server.client.collection()}/records"
    answers: list[float] = []

    def send(target: str, size: int) -> bytes:
        answer = server.client.send(target, size, form=True, rate=CLIENT_RATE)
        answers.append(time.monotonic() - server.client.sent)
        return answer

    cost = in_turns({OURS: _requests(server, path, size, send)}, runs)[OURS]
    line = {
        "MB/s": size * MIB / 1e6 / cost["seconds"],
        "s after the last byte": statistics.median(answers[1:]),
        "MiB over idle": cost["memory"],
        "MiB written to disk": cost["written"],
    }
    targets = [
        Target("upload, S3: s after the last byte", line["s after the last byte"], 0.5),
        Target("upload, S3, slow client: MiB over idle", line["MiB over idle"], 60),
        Target("upload, S3: MiB written to the server's disk", line["MiB written to disk"], 0.1),
    ]
    title = f"Upload {size} MiB, S3, client at {CLIENT_RATE} MB/s ({_medians(runs)})"
    notes = ["The server writes nothing but its log to its own disk."]
    return Table(title, list(line), {OURS: line}, targets, notes)


def _requests(
    server: Kinto | Floor, path: str, size: int, send: Callable[[str, int], bytes] | None = None
) -> Callable[[], Cost]:
    """Return a function that uploads ``size`` MiB once, and returns the cost.

    :param send: sends so many MiB to a path; by default, as fast as possible.
    """
    is_kinto = isinstance(server, Kinto)
    send = send or partial(server.client.send, form=is_kinto)
    digest = sha256()
    for _ in range(FIRST):
        digest.update(BLOCK)

    def upload() -> Cost:
        record = f"{path}/{uuid4().hex}" if is_kinto else path
        target = f"{record}/attachment" if is_kinto else path
        cost = measure(workers, lambda: send(target, size))
        if is_kinto:
            server.client.request("DELETE", record)  # otherwise the disk would fill up
        return cost

    # The first request loads modules, which is not part of the cost.
    first = f"{path}/first/attachment" if is_kinto else path
    assert digest.hexdigest() in send(first, FIRST).decode()
    workers = workers_of(server)
    return upload


def _upload_file(path: Path, settings: dict[str, str]) -> Cost:
    aws = "kinto.attachment.aws."
    env = {
        **os.environ,
        "AWS_ENDPOINT_URL_S3": settings[f"{aws}endpoint_url"],
        "AWS_ACCESS_KEY_ID": settings[f"{aws}access_key"],
        "AWS_SECRET_ACCESS_KEY": settings[f"{aws}secret_key"],
        "AWS_DEFAULT_REGION": settings[f"{aws}region"],
    }
    module = [sys.executable, "-m", "benchmarks.harness.upload_file"]
    ran = subprocess.run(
        [*module, str(path), settings[f"{aws}bucket_name"]],
        check=True,
        capture_output=True,
        cwd=ROOT,
        env=env,
    )
    return json.loads(ran.stdout)


def _lines(costs: dict[str, Cost], size: int, floor: str) -> dict[str, dict]:
    existing = next((cost for name, cost in costs.items() if name.startswith(EXISTING)), None)
    return {
        name: {
            "MB/s": size * MIB / 1e6 / cost["seconds"],
            "x floor": costs[floor]["seconds"] / cost["seconds"],
            "x existing": ratio(existing and existing["seconds"], cost["seconds"]),
            "CPU s": cost["cpu"],
            "CPU x floor": cost["cpu"] / costs[floor]["cpu"],
            "MiB over idle": cost["memory"],
        }
        for name, cost in costs.items()
    }


def _medians(runs: int) -> str:
    return f"medians of {runs}" if runs > 1 else "one run"
