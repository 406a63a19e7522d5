"""Images at other sizes: what they cost, beside Pillow and thumbor.

::

    python -m benchmarks.images [--quick] [--runs N]

Ours is Kinto under gunicorn, gthread, with one process and its one worker; thumbor, where it
installs, is one process too. All get the same bytes. ``BENCHMARK_THUMBOR`` names the python of an
environment that has thumbor already.
"""

import argparse
import os
import re
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import requests
from PIL import Image

from kinto_attachment.library import metadata
from tests import pictures
from tests.servers.postgresql import PostgreSQL
from tests.servers.wsgi import Gunicorn, KintoServer
from tests.shelf import settings as library_settings
from tests.site import Site

from .alternatives import THUMBOR, Pillow, Thumbor, Web, environment, fetch

AUTH = ("alice", "secret")
LARGE, SMALL = 1920, 320
CONNECTIONS, AT_ONCE = 4, 64
OURS = "kinto-attachment"

Measured = dict[str, float]
Runs = dict[str, dict[str, list[Measured]]]
"""By what was done, and who did it."""


class Quiet(Gunicorn):
    """It would put together a line of its access log for each request, though nobody reads it, as
    soon as the ini file says anything of logging. thumbor writes none."""

    def command(self) -> list[str]:
        self.ini.write_text(self.ini.read_text().partition("[loggers]")[0])
        return super().command()


class QuietProcesses(Quiet):
    """Two processes of many threads."""

    workers, threads = 2, 50


class Library(Web):
    """The library of a Kinto, which everybody may see.

    :ivar pid: of gunicorn.
    """

    def __init__(self, server: KintoServer):
        self.port, self.pid, self._url = server.port, server.pid, server.url
        collection = {"data": metadata(), "permissions": {"read": ["system.Everyone"]}}
        self._send("PUT", "/buckets/site", json={})
        self._send("PUT", "/buckets/site/collections/media", json=collection)

    def _send(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        answer = requests.request(method, self._url + path, auth=AUTH, timeout=120, **options)
        answer.raise_for_status()
        return answer.json()

    def add(self, name: str, content: bytes) -> str:
        facts = self._send("POST", "/media", files={"file": (name, content)})
        self._send("POST", "/content/_media", json=facts)
        return f"{facts['id']}.{facts['extension']}"

    def path(self, image: str, width: int) -> str:
        return f"/v1/image/{width}x0/{image}"


class Program:
    """Who makes images, and all its processes, as the operating system sees them.

    :param maker: what has the process, and ``add`` and ``get``.
    :param database: id of a process that works for it; its CPU seconds count, too.
    """

    def __init__(self, maker: Any, database: int | None = None):
        self.maker = maker
        self._root = psutil.Process(maker.pid)
        self._others = [psutil.Process(database)] if database else []

    def measure(self, call: Callable, *args: Any) -> tuple[Measured, Any]:
        """CPU seconds, seconds, and MiB at most of one server process and of one that resizes for
        it; and what was returned."""
        for each in self._with_children(self._root):
            Path(f"/proc/{each.pid}/clear_refs").write_text("5")  # proc(5)
        before, started = self._cpu(), time.monotonic()
        returned = call(*args)
        seconds = time.monotonic() - started
        return {
            "cpu": sum(cpu - before.get(pid, 0) for pid, cpu in self._cpu().items()),
            "seconds": seconds,
            "server": max(map(_peak, [self._root, *self._root.children()])),
            "worker": max(map(_peak, self._workers()), default=0),
        }, returned

    def written(self) -> int:
        """Bytes that those who resize have written into files."""
        return sum(each.io_counters().write_chars for each in self._workers() or [self._root])

    def _workers(self) -> list[psutil.Process]:
        return [worker for server in self._root.children() for worker in server.children()]

    def _cpu(self) -> dict[int, float]:
        seconds = {}
        for each in self._with_children(self._root, *self._others):
            with suppress(OSError):  # it has just ended
                # clock_getcpuclockid(3). The ticks of psutil have 10 ms, and so have some images.
                seconds[each.pid] = time.clock_gettime(~each.pid << 3 | 2)
        return seconds

    def _with_children(self, *processes: psutil.Process) -> list[psutil.Process]:
        children = [each.children(recursive=True) for each in processes]
        return [*processes, *sum(children, [])]


def _peak(process: psutil.Process) -> float:
    """0 of one that has ended: a worker does when it has nothing to do."""
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0


def new(photo: bytes) -> tuple[str, bytes]:
    """A name and bytes that nobody has seen: a comment makes the difference."""
    comment = os.urandom(16).hex()
    return f"{comment}.jpg", pictures.with_segments(photo, 0xFE, comment.encode())


# -- each measurement


def cold(programs: dict[str, Program], photo: bytes, runs: int) -> Runs:
    """A large one, a small one of the same image, and a small one of another image."""
    measured: Runs = {}

    def get(what: str, name: str, image: str, width: int) -> None:
        program = programs[name]
        cost, (status, body) = program.measure(program.maker.get, image, width)
        assert (status, Image.open(BytesIO(body)).width) == (200, width), (name, status)
        measured.setdefault(what, {}).setdefault(name, []).append(cost)

    for run in range(runs + 1):
        if run == 1:
            measured.clear()  # what is loaded at the first is not the cost of others
        for name, program in programs.items():
            image, other = (program.maker.add(*new(photo)) for _ in range(2))
            get(f"{LARGE} px", name, image, LARGE)
            get(f"{SMALL} px, {LARGE} px made before", name, image, SMALL)
            get(f"{SMALL} px", name, other, SMALL)
    return measured


def warm(
    programs: dict[str, Program], photo: bytes, runs: int, seconds: float, client: Executor
) -> Runs:
    """The same image, again and again."""
    measured: Runs = {}

    def ask(web: Web, image: str, width: int) -> int:
        return client.submit(ask_often, web.port, web.path(image, width), seconds).result()

    images = {name: program.maker.add(*new(photo)) for name, program in programs.items()}
    for run in range(runs + 1):
        for width in (LARGE, SMALL):
            rows = measured.setdefault(f"{width} px", {})
            for name, program in programs.items():
                if run == 0:
                    program.maker.get(images[name], width)
                    continue
                cost, requests = program.measure(ask, program.maker, images[name], width)
                rows.setdefault(name, []).append({**cost, "requests": requests})
    return measured


def at_once(programs: dict[str, Program], photo: bytes, client: Executor) -> None:
    """Many ask first: how many images are made."""

    def ask(web: Web, image: str) -> tuple[Counter, int]:
        return client.submit(ask_at_once, web.port, web.path(image, LARGE)).result()

    print(f"\n{AT_ONCE} requests at once for a new {LARGE} px")
    for name, program in programs.items():
        for _ in range(4):  # workers end when they have nothing to do
            program.maker.get(program.maker.add(*new(photo)), SMALL)
        image = program.maker.add(*new(photo))
        before = program.written()
        cost, (statuses, size) = program.measure(ask, program.maker, image)
        made = (program.written() - before) / size
        print(
            f"    {name:30}{dict(statuses)}, made {made:.0f} times, "
            f"{cost['cpu']:.2f} CPU s, {cost['seconds']:.2f} s"
        )


def hostile(programs: dict[str, Program]) -> None:
    """Each of them is added and asked for."""
    print(f"\n{len(pictures.HOSTILE)} hostile images, 100 px of each")
    print(f"{'':34}{'slowest ms':>12}{'to add':>8}{'MiB':>6}{'worker':>8}  answers")
    for name, program in programs.items():
        adding, getting, statuses = [], [], Counter()
        for kind, (make, _) in pictures.HOSTILE.items():
            file = f"{kind}.{_extension(kind)}", make()
            cost, image = program.measure(_added, program.maker, *file)
            adding.append(cost)
            if image is None:
                statuses["refused when added"] += 1
                continue
            cost, (status, _) = program.measure(program.maker.get, image, 100)
            getting.append(cost)
            statuses[status] += 1
        highest = {key: max(cost[key] for cost in [*adding, *getting]) for key in adding[0]}
        slowest = [max(cost["seconds"] for cost in costs) for costs in (getting, adding)]
        print(
            f"    {name:30}{1000 * slowest[0]:12.0f}{1000 * slowest[1]:8.0f}"
            f"{_memory(highest)}  {dict(statuses)}"
        )


def _added(maker: Any, name: str, content: bytes) -> str | None:
    """None if that is refused."""
    try:
        return maker.add(name, content)
    except requests.HTTPError as error:
        if error.response.status_code != 400:
            raise
        return None


def _extension(kind: str) -> str:
    format = kind.partition("-")[0]
    return {"jpeg": "jpg", "apng": "png"}.get(format, format)


# -- the client, in a process of its own


def ask_often(port: int, path: str, seconds: float) -> int:
    """How many answers there are in that time, on a few connections that stay open."""
    until = time.monotonic() + seconds
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        return sum(pool.map(lambda _: _ask_until(port, path, until), range(CONNECTIONS)))


def _ask_until(port: int, path: str, until: float) -> int:
    """Without a library: they take as long as the server."""
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
    buffer, answers = bytearray(1024 * 1024), 0
    with socket.create_connection(("127.0.0.1", port), 60) as sock:
        while time.monotonic() < until:
            sock.sendall(request)
            received = sock.recv_into(buffer)
            while (end := buffer.find(b"\r\n\r\n", 0, received)) < 0:
                received += sock.recv_into(memoryview(buffer)[received:])
            head = bytes(buffer[:end])
            assert head.startswith(b"HTTP/1.1 200 "), head
            left = int(re.search(rb"(?i)content-length: (\d+)", head)[1]) + end + 4 - received
            while left > 0:
                left -= sock.recv_into(buffer, min(left, len(buffer)))
            answers += 1
    return answers


def ask_at_once(port: int, path: str) -> tuple[Counter, int]:
    """The statuses, and the bytes of an answer."""
    start = threading.Barrier(AT_ONCE)

    def ask(number: int) -> tuple[int, bytes]:
        start.wait()
        return fetch(port, path)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(ask, range(AT_ONCE)))
    return Counter(status for status, _ in answers), max(len(body) for _, body in answers)


# -- the tables


def report_cold(measured: Runs) -> None:
    print(f"{'':34}{'CPU ms':>8}{'x ours':>8}{'ms':>8}{'x ours':>8}{'MiB':>6}{'worker':>8}")
    for what, rows in measured.items():
        print(what)
        medians = {name: _medians(costs) for name, costs in rows.items()}
        ours = medians[OURS]
        for name, row in medians.items():
            print(
                f"    {name:30}{1000 * row['cpu']:8.1f}{row['cpu'] / ours['cpu']:8.2f}"
                f"{1000 * row['seconds']:8.1f}{row['seconds'] / ours['seconds']:8.2f}"
                f"{_memory(row)}"
            )


def report_warm(measured: Runs) -> None:
    """Ratios are of the first row."""
    print(f"{'':34}{'req/s':>8}{'ratio':>8}{'per CPU s':>11}{'ratio':>8}{'MiB':>6}{'worker':>8}")
    for what, rows in measured.items():
        print(what)
        medians = {name: _medians(costs) for name, costs in rows.items()}
        first = next(iter(medians.values()))
        for name, row in medians.items():
            print(
                f"    {name:30}{row['rate']:8.0f}{row['rate'] / first['rate']:8.2f}"
                f"{row['per cpu']:11.0f}{row['per cpu'] / first['per cpu']:8.2f}{_memory(row)}"
            )


def _medians(costs: list[Measured]) -> Measured:
    for cost in costs:
        if "requests" in cost:
            cost["rate"] = cost["requests"] / cost["seconds"]
            cost["per cpu"] = cost["requests"] / cost["cpu"]
    return {key: median(cost[key] for cost in costs) for key in costs[0]}


def _memory(row: Measured) -> str:
    return f"{row['server']:6.0f}" + (f"{row['worker']:8.0f}" if row["worker"] else " " * 8)


# -- all of it


def of_library(settings: dict[str, str]) -> dict[str, str]:
    """Of a library that takes every kind of image."""
    return library_settings("site", **settings, **{"kinto.attachment.extensions": "any"})


def start(stack: ExitStack, folder: Path) -> tuple[dict[str, Program], dict[str, Program]]:
    """Those that serve, and Pillow."""
    thumbor = environment("thumbor", *THUMBOR)
    programs = {}
    if thumbor:
        programs["thumbor"] = Program(stack.enter_context(Thumbor(thumbor, folder)))
    url = stack.enter_context(PostgreSQL(folder)).create_database()
    postgresql = {"kinto.attachment.base_path": str(folder / "files")}
    for kind in ("storage", "permission"):
        postgresql[f"kinto.{kind}_backend"] = f"kinto.core.{kind}.postgresql"
        postgresql[f"kinto.{kind}_url"] = url
    database = int((folder / "data" / "postmaster.pid").read_text().split()[0])
    memory = {"kinto.attachment.base_path": str(folder / "memory")}
    Site(**of_library(postgresql)).close()
    cached = {"kinto.attachment.images.cache_seconds": "5"}
    for name, kind, settings, pid in (
        (OURS, Quiet, postgresql, database),
        ("with cache_seconds", Quiet, {**postgresql, **cached}, database),
        ("memory storage", Quiet, memory, None),
        ("memory, with cache_seconds", Quiet, {**memory, **cached}, None),
        ("2 processes of 50 threads", QuietProcesses, postgresql, database),
    ):
        server = stack.enter_context(kind(of_library(settings), folder))
        programs[name] = Program(Library(server), pid)
    pillow = {
        "Pillow": Program(stack.enter_context(Pillow(folder, draft=False))),
        "Pillow, draft": Program(stack.enter_context(Pillow(folder, draft=True))),
    }
    return programs, pillow


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="smaller images, fewer runs")
    parser.add_argument("--runs", type=int, help="of each measurement (9; quick: 2)")
    options = parser.parse_args()
    runs = options.runs or (2 if options.quick else 9)
    width, height = (3000, 2000) if options.quick else (6000, 4000)
    photo = pictures.encode(pictures.photo(width, height), "JPEG", quality=90)
    with ExitStack() as stack:
        folder = stack.enter_context(
            tempfile.TemporaryDirectory(dir=os.environ.get("BENCHMARK_FOLDER"))
        )
        client = stack.enter_context(ProcessPoolExecutor(1, get_context("spawn")))
        client.submit(os.getpid).result()
        web, pillow = start(stack, Path(folder))
        many = web.pop("2 processes of 50 threads")
        alone = {name: web[name] for name in (OURS, "thumbor") if name in web}
        print(f"JPEG of {width} x {height} pixels, {len(photo) / 1e6:.1f} MB; medians of {runs}\n")
        print("For the first time")
        report_cold(cold({**alone, **pillow}, photo, runs))
        print(f"\nAgain and again, {CONNECTIONS} connections")
        report_warm(warm(web, photo, runs, 0.3 if options.quick else 1, client))
        at_once({**alone, "2 processes of 50 threads": many}, photo, client)
        hostile({OURS: alone[OURS]})


if __name__ == "__main__":
    main()
