"""A pool of worker processes: how many there are, how long they live, and how callers wait.

A decoder of untrusted bytes may crash, hang, or use up the memory. In a process of its own it does
not harm the server.
"""

import importlib.util
import os
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO
from weakref import WeakSet, finalize

from ...errors import ImageRefused, ImagingMissing, ResizeBusy, WorkerLost
from ..admission import Admission, Applicant
from ..formats.header import ImageHeader
from ..formats.limits import Limits
from ..plan import Output, Plan
from .process import NotTaken, Process

ANYONE = Applicant()
"""A caller that is not distinguished from others."""

IDLE_SECONDS = 60
"""Seconds without a job after which a worker is ended, to free its memory."""

MEMORY_BYTES = 1536 * 1024 * 1024
"""Bytes of address space of a worker. A JPEG of 50 megapixels takes a tenth of it; an interlaced
PNG of that size with 16 bits per channel takes a third."""


class WorkerPool:
    """A pool of worker processes, which are started when they are needed.

    All threads of a process may share a pool. Processes that are forked from it may use it too;
    each of them starts workers of its own.

    :param count: how many workers there are at most.
    :param queue: how many callers may wait; see :meth:`admit`.
    :param timeout: seconds that a caller may wait for a worker; also the seconds that one resize
        may take.
    :param memory: bytes of address space of a worker.
    :param limits: what an image may demand of the decoder.

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
        queue: int = 6,
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
        # Ends the workers when the pool is garbage-collected, or when Python exits.
        finalize(self, _close, self._pools)
        _all.add(self)

    def resize(
        self, input: BinaryIO, header: ImageHeader, plan: Plan, output: Output, into: BinaryIO
    ) -> None:
        """Borrow a worker for one image; see :meth:`admit`, :meth:`borrow` and
        :meth:`BorrowedWorker.resize`."""
        with self.admit(ANYONE), self.borrow() as worker:
            worker.resize(input, header, plan, output, into)

    def admit(self, applicant: Applicant) -> AbstractContextManager[None]:
        """Reserve a place for a request that will wait, for a worker or for another request.

        :raises ResizeBusy: if no place is left; see
            :class:`~kinto_attachment.images.admission.Admission`.
        """
        return self._pool().admission.admit(applicant)

    @property
    def load(self) -> int:
        """How many requests of this process make an image or wait for one."""
        return self._pool().admission.count

    @contextmanager
    def borrow(self, applicant: Applicant = ANYONE) -> Iterator["BorrowedWorker"]:
        """Wait for a free worker, and reserve it until the end of the block.

        Of several callers that wait, the next is one with another client or another image than the
        one before.

        :raises ResizeBusy: if no worker became free in time.
        """
        with self._pool().borrow(applicant, self._timeout) as slot:
            yield BorrowedWorker(self, slot)

    def close(self) -> None:
        """End all workers, even busy ones. The next resize starts new ones. Idempotent."""
        _close(self._pools)

    def forget_parent(self) -> None:
        """Let go of the workers of the parent process. Call this after a fork, in the child."""
        for pid in [pid for pid in self._pools if pid != os.getpid()]:
            pool = self._pools.pop(pid, None)
            if pool:
                pool.forget()

    def ask(self, slot: "_Slot", job: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """Return the result of a job. If the worker ended before it took the job, start another
        worker and ask that one.

        :raises WorkerLost: if the worker ended during the job, took too long, or cannot be started.
        :raises ImagingMissing: if what resizes images is not installed.
        """
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
        raise WorkerLost("The worker process ends as soon as it is started.")

    @staticmethod
    def is_installed() -> bool:
        """Whether what resizes images is installed."""
        return importlib.util.find_spec("pyvips") is not None

    def _start(self) -> Process:
        if not self.is_installed():
            raise ImagingMissing("the extra [images] of kinto-attachment is not installed")
        return Process(self._memory, self._timeout)

    def _pool(self) -> "_Pool":
        """Return the pool of this process. A child never uses the workers of its parent."""
        pid = os.getpid()
        if pid not in self._pools:
            # C code may have forked without calling _after_fork().
            self.forget_parent()
        return self._pools.get(pid) or self._pools.setdefault(pid, _Pool(self._count, self._queue))


class BorrowedWorker:
    """A worker that is reserved for one caller; see :meth:`WorkerPool.borrow`."""

    def __init__(self, workers: WorkerPool, slot: "_Slot") -> None:
        self._workers = workers
        self._slot = slot

    def resize(
        self, input: BinaryIO, header: ImageHeader, plan: Plan, output: Output, into: BinaryIO
    ) -> None:
        """Resize an image as planned.

        :param input: an open file with a descriptor. All of it is read, whatever its position is,
            and the position stays.
        :param header: what :func:`~kinto_attachment.images.formats.header.read_header` returned
            for this file.
        :param plan: the part of the image to use, and the size of the result.
        :param output: the format of the result.
        :param into: a file with a descriptor, open for writing. The result replaces all that it
            held, and its position is at the start afterwards.
        :raises ImageRefused: if the image is broken or exceeds the limits.
        :raises WorkerLost: if the worker ended or took too long. Another attempt may succeed.
        :raises ImagingMissing: if what resizes images is not installed.
        :raises OSError: if the result cannot be written, for example because the disk is full.
        """
        job = {
            "header": vars(header),
            "plan": vars(plan),
            "output": vars(output),
            "limits": vars(self._workers.limits),
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
    """A place for one worker.

    :ivar process: the worker; None if there is none now.
    :ivar used: when it finished its last job, on the clock of ``time.monotonic()``.
    """

    process: Process | None = None
    used = 0.0

    def is_over(self) -> bool:
        """Return whether the worker has been idle for too long, or has ended."""
        is_idle = time.monotonic() > self.used + IDLE_SECONDS
        return self.process is not None and (is_idle or self.process.has_ended())

    def end(self) -> None:
        """End the worker, if there is one."""
        if self.process:
            self.process.end()
        self.process = None


@dataclass(eq=False)
class _Caller:
    """A thread that waits for a slot. No two callers are equal."""

    applicant: Applicant


class _Pool:
    """The workers of one server process, and the callers that wait for them."""

    def __init__(self, count: int, queue: int) -> None:
        self.admission = Admission(count, queue)
        self._slots = [_Slot() for _ in range(count)]
        self._free = list(self._slots)
        self._waiting: list[_Caller] = []
        self._latest = ANYONE
        self._reaping = False
        self._changed = threading.Condition()

    @contextmanager
    def borrow(self, applicant: Applicant, timeout: float) -> Iterator[_Slot]:
        """Reserve a slot, with or without a worker in it, until the end of the block.

        :param timeout: seconds to wait.
        :raises ResizeBusy: if no slot became free in time.
        """
        slot = self._take(_Caller(applicant), timeout)
        try:
            yield slot
        finally:
            with self._changed:
                slot.used = time.monotonic()
                self._free.append(slot)
                self._changed.notify_all()
                self._start_reaper()

    def _take(self, caller: _Caller, timeout: float) -> _Slot:
        with self._changed:
            self._waiting.append(caller)
            try:
                is_next = self._changed.wait_for(
                    lambda: self._free and self._next() is caller, timeout
                )
            finally:
                self._waiting.remove(caller)
            if not is_next:
                raise ResizeBusy(f"No worker became free within {timeout:g} seconds.")
            self._latest = caller.applicant
            # The slot that was used last, so that idle workers stay idle and are ended.
            slot = self._free.pop()
            if self._free:
                self._changed.notify_all()
            return slot

    def _next(self) -> _Caller:
        """Return the caller whose turn it is: the first with another client than the latest one,
        or else the first with another image."""
        latest = self._latest

        def differs(caller: _Caller) -> tuple[bool, bool]:
            applicant = caller.applicant
            return applicant.client != latest.client, applicant.image != latest.image

        return max(self._waiting, key=differs)  # the first of equals

    def _start_reaper(self) -> None:
        """Start the thread that ends idle workers, unless it is running already."""
        if not self._reaping:
            self._reaping = True
            threading.Thread(target=self._reap, daemon=True).start()

    def _reap(self) -> None:
        """End idle workers from time to time, as long as there are any workers."""
        while self._reaping:
            time.sleep(IDLE_SECONDS / 4)
            with self._changed:
                for slot in self._free:
                    if slot.is_over():
                        slot.end()
                self._reaping = any(slot.process for slot in self._slots)

    def close(self) -> None:
        """End all workers, even busy ones."""
        for slot in self._slots:
            process = slot.process
            if process:
                process.end()

    def forget(self) -> None:
        """Close the child's copies of the sockets. As long as a copy is open, a worker does not see
        that the parent has closed its own."""
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
