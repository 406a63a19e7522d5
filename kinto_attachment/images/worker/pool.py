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
from ..formats.header import Picture
from ..formats.limits import Limits
from ..plan import Output, Plan
from .process import NotTaken, Process

IDLE = 60
"""Seconds without a job after which a process is ended: it has memory that others may need."""

MEMORY = 1536 * 1024 * 1024
"""Bytes of address space of a worker. A JPEG of 50 megapixels takes a tenth of it, a PNG of
16 bits that is interlaced a third."""


class Workers:
    """A few processes that resize, started when they are needed. For all threads of a process, and
    for processes that are forked from it, which start their own.

    :param count: processes.
    :param queue: how many may wait for them.
    :param timeout: seconds one may wait, and then as many that a resize may take.
    :param memory: bytes of address space of a process.
    :param limits: what an image may ask for.

    ::

        workers = Workers()
        with open("photo.jpg", "rb") as file, open("small.webp", "w+b") as into:
            picture = read_picture(file)
            small = plan(picture.width, picture.height, Size(320, 0))
            workers.resize(file, picture, small, Output("webp"), into)
        workers.close()
    """

    def __init__(
        self,
        count: int = 1,
        queue: int = 16,
        timeout: float = 10.0,
        memory: int = MEMORY,
        limits: Limits | None = None,
    ) -> None:
        self._count = count
        self._queue = queue
        self._timeout = timeout
        self._memory = memory
        self.limits = limits or Limits()
        self._crews: dict[int, _Crew] = {}
        # When nobody has it any more, or when Python ends.
        finalize(self, _close, self._crews)
        _all.add(self)

    def resize(
        self, input: BinaryIO, picture: Picture, plan: Plan, output: Output, into: BinaryIO
    ) -> None:
        """Make the image that was planned; see :meth:`turn` and :meth:`Turn.resize`."""
        with self.turn() as turn:
            turn.resize(input, picture, plan, output, into)

    @contextmanager
    def turn(self) -> Iterator["Turn"]:
        """Wait for a process that is free, and keep it.

        :raises ResizeBusy: too many wait, or this one waited too long.
        """
        with self._crew().turn(self._queue, self._timeout) as seat:
            yield Turn(self, seat)

    def close(self) -> None:
        """End the processes, also one that is busy; the next resize starts new ones."""
        _close(self._crews)

    def forget_parent(self) -> None:
        """In a child: let go of what belongs to the process it was forked from."""
        for pid in [pid for pid in self._crews if pid != os.getpid()]:
            crew = self._crews.pop(pid, None)
            if crew:
                crew.forget()

    def ask(self, seat: "_Seat", job: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """What the worker answers. One that was found dead had no job, and another gets it."""
        for _ in range(2):
            process = seat.process
            try:
                if process is None:
                    process = seat.process = self._start()
                return process.ask(job, descriptors, self._timeout)
            except NotTaken:
                seat.end()
            except BaseException:
                seat.end()
                raise
        raise WorkerLost("The process that resizes images ends as soon as it is started.")

    def _start(self) -> Process:
        if importlib.util.find_spec("pyvips") is None:
            raise ImagingMissing('pip install "kinto-attachment[images]"')
        return Process(self._memory, self._timeout)

    def _crew(self) -> "_Crew":
        """That of this process: what a parent started is not its children's."""
        pid = os.getpid()
        if pid not in self._crews:
            self.forget_parent()  # who forked without telling Python
        return self._crews.get(pid) or self._crews.setdefault(pid, _Crew(self._count))


class Turn:
    """A process that is one's own for a while."""

    def __init__(self, workers: Workers, seat: "_Seat") -> None:
        self._workers = workers
        self._seat = seat

    def resize(
        self, input: BinaryIO, picture: Picture, plan: Plan, output: Output, into: BinaryIO
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
            "picture": asdict(picture),
            "plan": asdict(plan),
            "output": asdict(output),
            "limits": asdict(self._workers.limits),
        }
        input.flush()
        into.flush()
        answer = self._workers.ask(self._seat, job, [input.fileno(), into.fileno()])
        if "refused" in answer:
            raise ImageRefused(answer["refused"])
        if "failed" in answer:
            raise OSError(answer["failed"])
        into.seek(0)


class _Seat:
    """Room for one process."""

    process: Process | None = None
    used = 0.0

    def is_over(self) -> bool:
        """Whether its process had nothing to do for long, or has ended."""
        is_idle = time.monotonic() > self.used + IDLE
        return self.process is not None and (is_idle or self.process.has_ended())

    def end(self) -> None:
        if self.process:
            self.process.end()
        self.process = None


class _Crew:
    """The processes of one server process, and who waits for them."""

    def __init__(self, count: int) -> None:
        self._seats = [_Seat() for _ in range(count)]
        self._free = list(self._seats)
        self._waiting = 0
        self._tended = False
        self._changed = threading.Condition()

    @contextmanager
    def turn(self, queue: int, timeout: float) -> Iterator[_Seat]:
        """
        :raises ResizeBusy: there is none.
        """
        seat = self._take(queue, timeout)
        try:
            yield seat
        finally:
            with self._changed:
                seat.used = time.monotonic()
                self._free.append(seat)
                self._changed.notify()
                self._tend()

    def _take(self, queue: int, timeout: float) -> _Seat:
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
            time.sleep(IDLE / 4)
            with self._changed:
                for seat in self._free:
                    if seat.is_over():
                        seat.end()
                self._tended = any(seat.process for seat in self._seats)

    def close(self) -> None:
        for seat in self._seats:
            process = seat.process
            if process:
                process.end()

    def forget(self) -> None:
        """In a child: its copies of the parent's sockets would keep the workers alive."""
        for seat in self._seats:
            if seat.process:
                seat.process.forget()


def _close(crews: dict[int, _Crew]) -> None:
    crew = crews.get(os.getpid())
    if crew:
        crew.close()


_all: "WeakSet[Workers]" = WeakSet()


def _after_fork() -> None:
    for workers in _all:
        workers.forget_parent()


os.register_at_fork(after_in_child=_after_fork)
