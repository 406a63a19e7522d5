"""Who makes images of another size: Kinto's library, and what it is measured beside.

All get the same bytes, and write JPEG of the same quality.
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

from .competitors import THUMBOR, Pillow, Thumbor, Web, environment
from .environment import OURS, start_postgresql, stop_all

AUTH = ("alice", "secret")
CACHED, MANY = "with cache_seconds", "2 processes of 50 threads"
THUMBORS, PILLOW, DRAFT = "thumbor", "Pillow", "Pillow, draft"


class Quiet(Gunicorn):
    """It would put together a line of its access log for each request, though nobody reads it, as
    soon as the ini file says anything of logging. thumbor writes none."""

    def command(self) -> list[str]:
        self.ini.write_text(self.ini.read_text().partition("[loggers]")[0])
        return super().command()


class QuietProcesses(Quiet, GunicornProcesses):
    pass


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


Measured = dict[str, float]


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


def start(stack: ExitStack, folder: Path) -> dict[str, Program]:
    """All of them, by their names; thumbor where it installs."""
    programs = {}
    if thumbor := environment("thumbor", *THUMBOR):
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
        OURS: (Quiet, postgresql, database.pid),
        CACHED: (Quiet, {**postgresql, **cached}, database.pid),
        "memory storage": (Quiet, memory, None),
        "memory, with cache_seconds": (Quiet, {**memory, **cached}, None),
        MANY: (QuietProcesses, postgresql, database.pid),
    }

    servers: list[Quiet] = []
    stack.callback(stop_all, servers)

    def start_one(kind: type[Quiet], settings: dict[str, str], pid: int | None) -> Program:
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
    """Of a library that takes every kind of image."""
    return library_settings("site", **settings, **{"kinto.attachment.extensions": "any"})
