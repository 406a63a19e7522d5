"""One large upload in pieces (tus 1.0), compared with the same upload as a form."""

from collections.abc import Callable, Iterator
from uuid import uuid4

from ..harness.environment import OURS, Environment, Kinto, workers_of
from ..harness.process_stats import MIB, Cost, in_turns, measure
from ..report import Table, Target

FORM, CHUNKS, WHOLE = "form", "tus, 16 MiB requests", "tus, one request"
CHUNK = 16  # MiB
STORAGES = {"local": "local", "s3": "S3"}


def run(environment: Environment) -> Iterator[Table]:
    """Measure uploads to a folder and to SeaweedFS."""
    size, runs = environment.pick(1024, 64), environment.pick(3, 1)
    for storage, title in STORAGES.items():
        server = environment.server(OURS, storage)
        requests = {
            FORM: _requests(server, lambda path, size, c=server.client: _form(c, path, size)),
            CHUNKS: _requests(server, _resumable(server, CHUNK)),
            WHOLE: _requests(server, _resumable(server, size)),
        }
        costs = in_turns({name: make(size) for name, make in requests.items()}, runs)
        lines = {
            name: {
                "MB/s": size * MIB / 1e6 / cost["seconds"],
                "CPU s": cost["cpu"],
                "CPU x form": cost["cpu"] / costs[FORM]["cpu"],
                "MiB over idle": cost["memory"],
            }
            for name, cost in costs.items()
        }
        target = f"resumable, {title}: CPU relative to a form"
        targets = [Target(target, lines[CHUNKS]["CPU x form"], 1.3)]
        columns = ["MB/s", "CPU s", "CPU x form", "MiB over idle"]
        yield Table(f"Resumable upload of {size} MiB, {title}", columns, lines, targets)


def _form(client, path: str, size: int) -> None:
    client.send(f"{path}/attachment", size, form=True)


def _resumable(server: Kinto, chunk: int) -> Callable[[str, int], None]:
    def send(path: str, size: int) -> None:
        server.client.send_resumable(f"{path}/attachment/uploads", size, chunk)

    return send


def _requests(
    server: Kinto, send: Callable[[str, int], None]
) -> Callable[[int], Callable[[], Cost]]:
    """Return a function that makes a request of a size in MiB."""
    records = f"{server.client.collection()}/records"

    def make(size: int) -> Callable[[], Cost]:
        send(f"{records}/first", CHUNK)  # this loads modules, which is not part of the cost
        workers = workers_of(server)

        def upload() -> Cost:
            record = f"{records}/{uuid4().hex}"
            cost = measure(workers, lambda: send(record, size))
            server.client.request("DELETE", record)  # otherwise the disk would fill up
            return cost

        return upload

    return make
