"""What a request costs the processes that serve it, as measured by the operating system."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import psutil

MIB = 1024 * 1024

Request = Callable[[], object]
Cost = dict[str, float]
"""``cpu`` in seconds, ``memory`` at the peak in MiB above idle, ``seconds`` on the clock, and the
MiB ``written`` to disks."""


class WorkerPool:
    """The worker processes of gunicorn. They must be idle, and must have served a request before,
    so that everything is loaded.

    :param pid: the process id of gunicorn.
    :ivar idle: their memory in MiB.
    """

    def __init__(self, pid: int):
        self._processes = psutil.Process(pid).children()
        self.idle = sum(process.memory_info().rss for process in self._processes) / MIB

    def cpu(self) -> float:
        """Return their CPU seconds so far."""
        times = [process.cpu_times() for process in self._processes]
        return sum(each.user + each.system for each in times)

    def written(self) -> float:
        """Return the MiB that they have written to disks so far."""
        return sum(process.io_counters().write_bytes for process in self._processes) / MIB

    def peak(self) -> float:
        """Return their peak memory in MiB since the last :meth:`forget_peak`."""
        return sum(peak_of(process.pid) for process in self._processes)

    def forget_peak(self) -> None:
        """Start to measure the peak memory from here on."""
        for process in self._processes:
            Path(f"/proc/{process.pid}/clear_refs").write_text("5")  # proc(5)


def peak_of(pid: int | str) -> float:
    """Return the peak memory of a process in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def measure(workers: WorkerPool, request: Request) -> Cost:
    """Run a request, and return what it cost the workers."""
    cpu, written = workers.cpu(), workers.written()
    workers.forget_peak()
    started = time.monotonic()
    request()
    seconds = time.monotonic() - started
    memory = workers.peak() - workers.idle
    return {
        "cpu": workers.cpu() - cpu,
        "memory": memory,
        "seconds": seconds,
        "written": workers.written() - written,
    }


def in_turns(requests: dict[str, Callable[[], Cost]], runs: int) -> dict[str, Cost]:
    """Run all requests once, then all again, ``runs`` times. Return the median costs."""
    measured: dict[str, list[Cost]] = {name: [] for name in requests}
    for _ in range(runs):
        for name, request in requests.items():
            measured[name].append(request())
    return {name: medians(costs) for name, costs in measured.items()}


def medians(costs: list[Cost]) -> Cost:
    """Return the median of each measurement."""
    return {key: statistics.median(cost[key] for cost in costs) for key in costs[0]}


def seconds_of(request: Request) -> float:
    """Return the seconds that a request takes."""
    started = time.monotonic()
    request()
    return time.monotonic() - started


def percentile(values: list[float], percent: int) -> float:
    """Return the value below which ``percent`` of the values are."""
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]
