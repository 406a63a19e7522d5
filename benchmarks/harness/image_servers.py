"""The programs that resize images: Kinto with the media library, and its alternatives.

All of them get the same images, and write JPEG of the same quality.
"""

import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil
import requests

from kinto_attachment.library.schema import metadata
from tests.support.library import settings as library_settings
from tests.support.servers.wsgi import Gunicorn, GunicornProcesses, KintoServer
from tests.support.site import Site

from .competitors import THUMBOR, ImageServer, Pillow, Thumbor, make_virtualenv
from .environment import OURS, start_postgresql, stop_all

AUTH = ("alice", "secret")
CACHED, MANY = "with cache_seconds", "2 processes of 50 threads"
THUMBORS, PILLOW, DRAFT = "thumbor", "Pillow", "Pillow, draft"


class WithoutAccessLog(Gunicorn):
    """gunicorn without logging. If the ini file configures logging, gunicorn composes a line of its
    access log for each request, even if no handler writes it. thumbor has no access log."""

    def command(self) -> list[str]:
        self.ini.write_text(self.ini.read_text().partition("[loggers]")[0])
        return super().command()


class ProcessesWithoutAccessLog(WithoutAccessLog, GunicornProcesses):
    """The same with several processes."""


class Library(ImageServer):
    """The media library of a Kinto server, readable for everyone.

    :ivar pid: the process id of gunicorn.
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


Measured = dict[str, float]
"""Measurements by name; see :meth:`Program.measure`."""


class Program:
    """A program that resizes images, and its processes.

    :param resizer: the server or process, with ``pid``, ``add`` and ``get``.
    :param database: the process id of its database server, whose CPU seconds count too; None if it
        has none.
    """

    def __init__(self, resizer: Any, database: int | None = None):
        self.resizer = resizer
        self._root = psutil.Process(resizer.pid)
        self._others = [psutil.Process(database)] if database else []

    def measure(self, call: Callable, *args: Any) -> tuple[Measured, Any]:
        """Call a function, and return what it cost and what it returned. The cost is ``cpu`` in
        seconds, ``seconds`` on the clock, and the peak memory in MiB of one server process
        (``server``) and of one worker that resizes for it (``worker``)."""
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
        """Return how many bytes the resizing processes have written to files."""
        return sum(each.io_counters().write_chars for each in self._workers() or [self._root])

    def _workers(self) -> list[psutil.Process]:
        return [worker for server in self._root.children() for worker in server.children()]

    def _cpu(self) -> dict[int, float]:
        seconds = {}
        for each in self._with_children(self._root, *self._others):
            with suppress(OSError):  # the process has just ended
                # clock_getcpuclockid(3). The resolution of psutil is 10 ms, as long as some images
                # take.
                seconds[each.pid] = time.clock_gettime(~each.pid << 3 | 2)
        return seconds

    def _with_children(self, *processes: psutil.Process) -> list[psutil.Process]:
        children = [each.children(recursive=True) for each in processes]
        return [*processes, *sum(children, [])]


def _peak(process: psutil.Process) -> float:
    """Return the peak memory in MiB. It is 0 for a process that has ended; workers end when they
    are idle."""
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0


def start(stack: ExitStack, folder: Path) -> dict[str, Program]:
    """Start all programs, and return them by their names. thumbor is missing if it cannot be
    installed."""
    programs = {}
    if thumbor := make_virtualenv("thumbor", *THUMBOR):
        programs[THUMBORS] = Program(stack.enter_context(Thumbor(thumbor, folder)))
    database = start_postgresql(stack, folder)
    url = database.create_database()
    postgresql = {"kinto.attachment.base_path": str(folder / "files")}
    for kind in ("storage", "permission"):
        postgresql[f"kinto.{kind}_backend"] = f"kinto.core.{kind}.postgresql"
        postgresql[f"kinto.{kind}_url"] = url
    memory = {"kinto.attachment.base_path": str(folder / "memory")}
    Site(**_of_library(postgresql)).close()
    cached = {"kinto.attachment.images.cache_seconds": "5"}
    kintos = {
        OURS: (WithoutAccessLog, postgresql, database.pid),
        CACHED: (WithoutAccessLog, {**postgresql, **cached}, database.pid),
        "memory storage": (WithoutAccessLog, memory, None),
        "memory, with cache_seconds": (WithoutAccessLog, {**memory, **cached}, None),
        MANY: (ProcessesWithoutAccessLog, postgresql, database.pid),
    }

    servers: list[WithoutAccessLog] = []
    stack.callback(stop_all, servers)

    def start_one(
        kind: type[WithoutAccessLog], settings: dict[str, str], pid: int | None
    ) -> Program:
        server = kind(_of_library(settings), folder)
        servers.append(server)
        return Program(Library(server), pid)

    with ThreadPoolExecutor() as pool:
        started = {name: pool.submit(start_one, *options) for name, options in kintos.items()}
        programs |= {name: future.result() for name, future in started.items()}
    for name, draft in ((PILLOW, False), (DRAFT, True)):
        programs[name] = Program(stack.enter_context(Pillow(folder, draft=draft)))
    return programs


def _of_library(settings: dict[str, str]) -> dict[str, str]:
    """Return settings with a library that accepts every kind of image."""
    return library_settings("site", **settings, **{"kinto.attachment.extensions": "any"})
