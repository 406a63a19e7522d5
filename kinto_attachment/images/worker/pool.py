"""The processes that resize, from the side of the server: how many, for how long, and who waits.

What decodes the bytes of strangers can crash, hang and eat memory. In a process of its own it
takes nobody along.
"""

import importlib.util
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, BinaryIO
from weakref import WeakSet, finalize

from ...errors import ImageRefused, ImagingMissing, ResizeBusy, WorkerLost
from ..formats.header import ImageHeader
from ..formats.limits import Limits
from ..plan import Output, Plan
from .process import NotTaken, Process

IDLE_SECONDS = 60
"""Seconds without a job after which a process is ended: it has memory that others may need."""

MEMORY_BYTES = 1536 * 1024 * 1024
"""Bytes of address space of a worker. A JPEG of 50 megapixels takes a tenth of it, a PNG of
16 bits that is interlaced a third."""


class WorkerPool:
    """A few processes that resize, started when they are needed. For all threads of a process, and
    for processes that are forked from it, which start their own.

    :param count: processes.
    :param queue: how many may wait for them.
    :param timeout: seconds one may wait, and then as many that a resize may take.
    :param memory: bytes of address space of a process.
    :param limits: what an image may ask for.

    ::

        workers = WorkerPool()
        with open("photo.jpg", "rb") as file, open("small.webp", "w+b") as into:
            header = read_header(file)
            small = plan(header.width, header.height, Size(320, 0))
            workers.resize(file, header, small, Output("webp"), into)
        workers.close()
    """

    def __init__(
        self,
        count: int = 1,
        queue: int = 16,
        timeout: float = 10.0,
        memory: int = MEMORY_BYTES,
        limits: Limits | None = None,
    ) -> None:
        self._count = count
        self._queue = queue
        self._timeout = timeout
        self._memory = memory
        self.limits = limits or Limits()
        self._pools: dict[int, _Pool] = {}
        # When nobody has it any more, or when Python ends.
        finalize(self, _close, self._pools)
        _all.add(self)

    def resize(
        self, input: BinaryIO, header: ImageHeader, plan: Plan, output: Output, into: BinaryIO
    ) -> None:
        """Make the image that was planned; see :meth:`borrow` and :meth:`BorrowedWorker.resize`."""
        with self.borrow() as worker:
            worker.resize(input, header, plan, output, into)

    @contextmanager
    def borrow(self) -> Iterator["BorrowedWorker"]:
        """Wait for a process that is free, and keep it.

        :raises ResizeBusy: too many wait, or this one waited too long.
        """
        with self._pool().borrow(self._queue, self._timeout) as slot:
            yield BorrowedWorker(self, slot)

    def close(self) -> None:
        """End the processes, also one that is busy; the next resize starts new ones."""
        _close(self._pools)

    def forget_parent(self) -> None:
        """In a child: let go of what belongs to the process it was forked from."""
        for pid in [pid for pid in self._pools if pid != os.getpid()]:
            pool = self._pools.pop(pid, None)
            if pool:
                pool.forget()

    def ask(self, slot: "_Slot", job: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """What the worker answers. One that was found dead had no job, and another gets it."""
        for _ in range(2):
            process = slot.process
            try:
                if process is None:
                    process = slot.process = self._start()
                return process.ask(job, descriptors, self._timeout)
            except NotTaken:
                slot.end()
            except BaseException:
                slot.end()
                raise
        raise WorkerLost("The process that resizes images ends as soon as it is started.")

    def _start(self) -> Process:
        if importlib.util.find_spec("pyvips") is None:
            raise ImagingMissing('pip install "kinto-attachment[images]"')
        return Process(self._memory, self._timeout)

    def _pool(self) -> "_Pool":
        """That of this process: what a parent started is not its children's."""
        pid = os.getpid()
        if pid not in self._pools:
            self.forget_parent()  # who forked without telling Python
        return self._pools.get(pid) or self._pools.setdefault(pid, _Pool(self._count))


class BorrowedWorker:
    """A process that is one's own for a while."""

    def __init__(self, workers: WorkerPool, slot: "_Slot") -> None:
        self._workers = workers
        self._slot = slot

    def resize(
        self, input: BinaryIO, header: ImageHeader, plan: Plan, output: Output, into: BinaryIO
    ) -> None:
        """Make the image that was planned.

        :param input: a file with a descriptor; all of it is read, wherever it is now.
        :param into: likewise, open for writing; what it held is replaced, and it is left at its
            start.
        :raises ImageRefused: it cannot be made of these bytes.
        :raises WorkerLost: the process ended or took too long; it may go better next time.
        :raises ImagingMissing: what resizes images is not installed.
        :raises OSError: there is no room for it.
        """
        job = {
            "header": asdict(header),
            "plan": asdict(plan),
            "output": asdict(output),
            "limits": asdict(self._workers.limits),
        }
        input.flush()
        into.flush()
        answer = self._workers.ask(self._slot, job, [input.fileno(), into.fileno()])
        if "refused" in answer:
            raise ImageRefused(answer["refused"])
        if "failed" in answer:
            raise OSError(answer["failed"])
        into.seek(0)


class _Slot:
    """Room for one process."""

    process: Process | None = None
    used = 0.0

    def is_over(self) -> bool:
        """Whether its process had nothing to do for long, or has ended."""
        is_idle = time.monotonic() > self.used + IDLE_SECONDS
        return self.process is not None and (is_idle or self.process.has_ended())

    def end(self) -> None:
        if self.process:
            self.process.end()
        self.process = None


class _Pool:
    """The processes of one server process, and who waits for them."""

    def __init__(self, count: int) -> None:
        self._slots = [_Slot() for _ in range(count)]
        self._free = list(self._slots)
        self._waiting = 0
        self._tended = False
        self._changed = threading.Condition()

    @contextmanager
    def borrow(self, queue: int, timeout: float) -> Iterator[_Slot]:
        """
        :raises ResizeBusy: there is none.
        """
        slot = self._take(queue, timeout)
        try:
            yield slot
        finally:
            with self._changed:
                slot.used = time.monotonic()
                self._free.append(slot)
                self._changed.notify()
                self._tend()

    def _take(self, queue: int, timeout: float) -> _Slot:
        with self._changed:
            if not self._free:
                if self._waiting >= queue:
                    raise ResizeBusy(f"{queue} others wait for an image to be resized.")
                self._waiting += 1
                try:
                    self._changed.wait_for(lambda: self._free, timeout)
                finally:
                    self._waiting -= 1
                if not self._free:
                    raise ResizeBusy(f"No image could be resized within {timeout:g} seconds.")
            # The one that worked last: others may sleep.
            return self._free.pop()

    def _tend(self) -> None:
        """See to it that processes end that are not needed, as long as there are any."""
        if not self._tended:
            self._tended = True
            threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while self._tended:
            time.sleep(IDLE_SECONDS / 4)
            with self._changed:
                for slot in self._free:
                    if slot.is_over():
                        slot.end()
                self._tended = any(slot.process for slot in self._slots)

    def close(self) -> None:
        for slot in self._slots:
            process = slot.process
            if process:
                process.end()

    def forget(self) -> None:
        """In a child: its copies of the parent's sockets would keep the workers alive."""
        for slot in self._slots:
            if slot.process:
                slot.process.forget()


def _close(pools: dict[int, _Pool]) -> None:
    pool = pools.get(os.getpid())
    if pool:
        pool.close()


_all: "WeakSet[WorkerPool]" = WeakSet()


def _after_fork() -> None:
    for workers in _all:
        workers.forget_parent()


os.register_at_fork(after_in_child=_after_fork)
