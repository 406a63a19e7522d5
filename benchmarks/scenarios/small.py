"""Small uploads: what one costs compared with a record without a file, and their throughput."""

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from statistics import median
from uuid import uuid4

from ..harness.client import Client, Failed
from ..harness.environment import EXISTING, KINTO, OURS, Environment, Kinto, workers_of
from ..harness.process_stats import percentile, seconds_of
from ..report import Table, Target, ratio

CONTENT = os.urandom(10 * 1024)
FLOOR = "floor: read, hash, write"
# As large as the attribute that the plugins write on a record.
FACTS = {
    "filename": "file.pdf",
    "hash": "0" * 64,
    "location": f"https://cdn.example/files/bench/{'0' * 32}/{'0' * 36}.pdf",
    "mimetype": "application/pdf",
    "size": len(CONTENT),
}
THREADS = 8
TABLES = ["user_principals", "access_control_entries", "timestamps", "objects"]


def uploader(server: Kinto, collection: str, client: Client) -> Callable[[], object]:
    """Return a function that creates a record with a file, or without one if the server has no
    plugin."""

    def upload() -> None:
        record = f"{collection}/records/{uuid4().hex}"
        if server.name == KINTO:
            client.json("PUT", record, {"file": FACTS})
        else:
            client.upload(record, CONTENT)

    return upload


def run(environment: Environment) -> Table:
    """Measure uploads one after the other, each to a new record."""
    times = environment.pick(400, 40)
    floor = environment.floor("receive")
    requests = {FLOOR: lambda: floor.client.request("POST", "/", CONTENT)}
    servers: dict = {FLOOR: floor}
    for name, server in environment.servers().items():
        servers[name] = server
        requests[name] = uploader(server, server.client.collection(), server.client)
    for _ in range(5):
        for request in requests.values():
            request()
    workers = {name: workers_of(server) for name, server in servers.items()}
    cpu = {name: each.cpu() for name, each in workers.items()}
    seconds: dict[str, list[float]] = {name: [] for name in requests}
    for _ in range(times):
        for name, request in requests.items():
            seconds[name].append(seconds_of(request))
    logged = environment.servers(role="statements", includes="statements")
    statements = {name: _statements(server) for name, server in logged.items()}
    p50 = {name: median(each) for name, each in seconds.items()}
    lines = {
        name: {
            "p50 ms": p50[name] * 1000,
            "p95 ms": percentile(seconds[name], 95) * 1000,
            "x Kinto": p50[name] / p50[KINTO],
            "x existing": ratio(p50[name], p50.get(EXISTING)),
            "CPU ms": (workers[name].cpu() - cpu[name]) / times * 1000,
            "SQL": len(_queries(statements[name])) if name in statements else None,
            "commits": statements[name].count("COMMIT") if name in statements else None,
        }
        for name in requests
    }
    targets = [
        Target("10 KiB: p50 relative to Kinto's own PUT", lines[OURS]["x Kinto"], 1.25),
        Target("10 KiB: p50 relative to the existing plugin", lines[OURS]["x existing"], 0.8),
    ]
    queries = ", ".join(_shorten(line) for line in _queries(statements[OURS]))
    notes = [f"SQL of {OURS}: {queries}"]
    columns = ["p50 ms", "p95 ms", "x Kinto", "x existing", "CPU ms", "SQL", "commits"]
    title = f"Upload 10 KiB on a new record ({times} each, in turns)"
    return Table(title, columns, lines, targets, notes)


def _statements(server: Kinto) -> list[str]:
    """Return the SQL statements of one upload, with ``COMMIT`` and ``ROLLBACK``."""
    upload = uploader(server, server.client.collection(), server.client)
    for _ in range(3):
        upload()
    time.sleep(0.5)  # some statements follow the response
    before = len(server.statements.read_text().splitlines())
    upload()
    time.sleep(0.5)
    return [line.strip() for line in server.statements.read_text().splitlines()[before:]]


def _queries(statements: list[str]) -> list[str]:
    return [line for line in statements if line not in ("COMMIT", "ROLLBACK")]


def _shorten(statement: str) -> str:
    """Return the verb, the table and the resource name of a statement.

    >>> _shorten("SELECT data FROM objects WHERE id = :id  ['a', '/buckets/b', 'collection']")
    'SELECT objects collection'
    """
    sql, _, values = statement.rpartition("  ")
    verb = next(verb for verb in ("INSERT", "UPDATE", "DELETE", "SELECT") if verb in sql)
    tables = re.findall(rf"\b({'|'.join(TABLES)})\b", sql)
    kinds = re.findall(r"'(bucket|collection|record|attachment-\w+)'", values)
    return " ".join([verb, *tables[:1], *kinds[:1]])


def run_parallel(environment: Environment) -> Table:
    """Measure uploads by eight threads at once, to two processes."""
    times, rounds = environment.pick(400, 80), environment.pick(5, 1)
    servers = environment.servers(workers=2, threads=50)
    collections = {name: server.client.collection() for name, server in servers.items()}
    workers = {}
    for name, server in servers.items():
        _post_all(server, collections[name], 16)  # so that both processes have loaded everything
        workers[name] = workers_of(server)
    rates: dict[str, list[float]] = {name: [] for name in servers}
    errors, cpu = Counter(), Counter()
    for _ in range(rounds):
        for name, server in servers.items():
            before = workers[name].cpu()
            seconds, failed = _post_all(server, collections[name], times)
            rates[name].append((times - failed) / seconds)
            errors[name] += failed
            cpu[name] += workers[name].cpu() - before
    rate = {name: median(each) for name, each in rates.items()}
    lines = {
        name: {
            "uploads/s": rate[name],
            "x Kinto": rate[name] / rate[KINTO],
            "x existing": ratio(rate[name], rate.get(EXISTING)),
            "CPU ms": cpu[name] / times / rounds * 1000,
            "errors": errors[name],
        }
        for name in servers
    }
    targets = [
        Target(
            "8 x 10 KiB: throughput relative to the existing plugin",
            lines[OURS]["x existing"],
            1.5,
            True,
        ),
        Target("8 x 10 KiB: errors", errors[OURS], 0),
    ]
    columns = ["uploads/s", "x Kinto", "x existing", "CPU ms", "errors"]
    title = f"{THREADS} threads x 10 KiB, 2 processes ({rounds} rounds of {times}, in turns)"
    return Table(title, columns, lines, targets)


def _post_all(server: Kinto, collection: str, times: int) -> tuple[float, int]:
    """Run so many uploads; return the seconds that they took, and how many failed."""

    def post(share: int) -> int:
        upload = uploader(server, collection, Client(server.port))
        return sum(_fails(upload) for _ in repeat(None, share))

    started = time.monotonic()
    with ThreadPoolExecutor(THREADS) as pool:
        failed = sum(pool.map(post, _shares(times)))
    return time.monotonic() - started, failed


def _shares(times: int) -> Iterator[int]:
    """Yield how many of the uploads each thread runs."""
    for thread in range(THREADS):
        yield times // THREADS + (thread < times % THREADS)


def _fails(upload: Callable[[], object]) -> bool:
    try:
        upload()
    except Failed:
        return True
    return False
