"""What a request costs the processes that answer it: the operating system's word."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import psutil

MIB = 1024 * 1024

Request = Callable[[], object]
Cost = dict[str, float]
"""``cpu`` in seconds, ``memory`` in MiB over idle at the peak, ``seconds`` on the clock."""


class WorkerPool:
    """The processes of gunicorn that serve, idle by now, but with all loaded that a request needs.

    :param pid: of the one that started them.
    :ivar idle: MiB that they have.
    """

    def __init__(self, pid: int):
        self._processes = psutil.Process(pid).children()
        self.idle = sum(process.memory_info().rss for process in self._processes) / MIB

    def cpu(self) -> float:
        times = [process.cpu_times() for process in self._processes]
        return sum(each.user + each.system for each in times)

    def peak(self) -> float:
        """MiB at most, since the last :meth:`forget_peak`."""
        return sum(peak_of(process.pid) for process in self._processes)

    def forget_peak(self) -> None:
        for process in self._processes:
            Path(f"/proc/{process.pid}/clear_refs").write_text("5")  # proc(5)


def peak_of(pid: int | str) -> float:
    """MiB that a process had at most."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def measure(workers: WorkerPool, request: Request) -> Cost:
    cpu = workers.cpu()
    workers.forget_peak()
    started = time.monotonic()
    request()
    seconds = time.monotonic() - started
    memory = workers.peak() - workers.idle
    return {"cpu": workers.cpu() - cpu, "memory": memory, "seconds": seconds}


def in_turns(requests: dict[str, Callable[[], Cost]], runs: int) -> dict[str, Cost]:
    """Each once, as many times; the medians."""
    measured: dict[str, list[Cost]] = {name: [] for name in requests}
    for _ in range(runs):
        for name, request in requests.items():
            measured[name].append(request())
    return {name: medians(costs) for name, costs in measured.items()}


def medians(costs: list[Cost]) -> Cost:
    return {key: statistics.median(cost[key] for cost in costs) for key in costs[0]}


def seconds_of(request: Request) -> float:
    started = time.monotonic()
    request()
    return time.monotonic() - started


def percentile(values: list[float], percent: int) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]
