"""The machine: the servers, and what a request costs the process that answers it."""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import psutil

from tests.servers import Process, is_listening
from tests.servers.postgresql import PostgreSQL
from tests.servers.s3 import SeaweedFS
from tests.servers.wsgi import BIN

ROOT = Path(__file__).resolve().parent.parent
MIB = 1024 * 1024

Runs = dict[str, list[dict[str, float]]]
"""What :func:`measure` said of each row, run by run. The first row is the floor of the others."""


class Worker:
    """The process of gunicorn that serves, idle by now, but with all loaded that a request needs.

    :param pid: of the one that started it.
    :ivar idle: MiB that it has.
    """

    def __init__(self, pid: int):
        (self._process,) = psutil.Process(pid).children()
        self.idle = self._process.memory_info().rss / MIB

    def cpu(self) -> float:
        times = self._process.cpu_times()
        return times.user + times.system

    def peak(self) -> float:
        """MiB at most, since the last :meth:`forget_peak`."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024

    def forget_peak(self) -> None:
        Path(f"/proc/{self._process.pid}/clear_refs").write_text("5")  # proc(5)


def measure(worker: Worker, request: Callable[[], object]) -> dict[str, float]:
    cpu = worker.cpu()
    worker.forget_peak()
    started = time.monotonic()
    request()
    seconds = time.monotonic() - started
    return {"cpu": worker.cpu() - cpu, "memory": worker.peak() - worker.idle, "seconds": seconds}


def measure_in_turns(rows: dict[str, tuple[Worker, Callable[[], object]]], runs: int) -> Runs:
    """Each row once, as many times."""
    measured: Runs = {name: [] for name in rows}
    for _ in range(runs):
        for name, (worker, request) in rows.items():
            measured[name].append(measure(worker, request))
    return measured


def floor_server(program: str, folder: Path, port: int, env: dict[str, str]) -> Process:
    """A program of :mod:`benchmarks.floor`, served as Kinto is."""
    options = "--workers 1 --worker-class gthread --threads 8 --timeout 120 --no-control-socket"
    bind = ["--bind", f"127.0.0.1:{port}"]
    command = [str(BIN / "gunicorn"), f"benchmarks.floor:{program}", *bind, *options.split()]
    return Process(command, folder, lambda: is_listening(port), {"PYTHONPATH": str(ROOT), **env})


def kinto_settings(stack: ExitStack, folder: Path, storage: str) -> dict[str, str]:
    """Settings of a Kinto on a PostgreSQL of its own, with its files where asked for."""
    url = stack.enter_context(PostgreSQL(folder)).create_database()
    settings = {
        "kinto.storage_backend": "kinto.core.storage.postgresql",
        "kinto.storage_url": url,
        "kinto.permission_backend": "kinto.core.permission.postgresql",
        "kinto.permission_url": url,
        "kinto.attachment.base_path": str(folder / "files"),
    }
    if storage == "s3":
        server = stack.enter_context(SeaweedFS(folder))
        s3 = server.settings(server.bucket())
        settings.update({f"kinto.{key}": value for key, value in s3.items()})
    return settings


def report(title: str, runs: Runs, size: int) -> None:
    rows = {name: _medians(measured) for name, measured in runs.items()}
    (_, first), *_ = runs.items()
    (_, floor), *_ = rows.items()
    print(f"\n{title} of {size} MiB, gunicorn gthread; medians of {len(first)}\n")
    print(f"{'':24}{'CPU s':>8}{'x floor':>9}{'MiB over idle':>15}{'MiB/s':>8}{'of floor':>10}")
    for name, row in rows.items():
        print(
            f"{name:24}{row['cpu']:8.2f}{row['cpu'] / floor['cpu']:9.2f}{row['memory']:15.1f}"
            f"{size / row['seconds']:8.0f}{floor['seconds'] / row['seconds']:10.2f}"
        )


def _medians(measured: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(run[key] for run in measured) for key in measured[0]}


def main(title: str, run: Callable[[Path, int, int, str], Runs], runs: int) -> None:
    """
    :param run: takes a folder, MiB, how many runs, and the storage.
    :param runs: if nobody says how many.
    """
    parser = argparse.ArgumentParser(description=f"{title} of one file, measured")
    parser.add_argument("--size", type=int, default=1024, help="MiB of the file")
    parser.add_argument("--runs", type=int, default=runs)
    parser.add_argument("--storage", choices=["local", "s3"], default="local")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCHMARK_FOLDER")) as folder:
        measured = run(Path(folder), options.size, options.runs, options.storage)
    report(f"{title}, {options.storage},", measured, options.size)
