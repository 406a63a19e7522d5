"""One worker process, seen from its parent.

What parent and worker send each other is described in :mod:`kinto_attachment.images.worker.main`.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import ImagingMissing, WorkerLost

_PYTHON = re.compile(r"(python|pypy)[0-9.]*(\.exe)?")
# The worker gets only the environment variables that it needs, and no passwords or keys.
_PASSED = ("LANG", "LC_ALL", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PATH", "PYTHONHOME", "TMPDIR")


def find_interpreter() -> str:
    """Return the path of a Python interpreter, if possible of this version and environment.

    ``sys.executable`` is not enough: under uWSGI, and in other programs that embed Python, it is
    the path of that program.

    :raises ImagingMissing: if there is no interpreter.
    """
    for path in _candidates():
        if path and os.access(path, os.X_OK) and _PYTHON.fullmatch(Path(path).name):
            return path
    raise ImagingMissing(
        "Images cannot be resized, as no Python interpreter was found. Put python"
        f"{sys.version_info[0]}.{sys.version_info[1]} on the PATH."
    )


def _candidates() -> Iterator[str | None]:
    names = (f"python{sys.version_info[0]}.{sys.version_info[1]}", "python3", "python")
    yield sys.executable
    for prefix in (sys.prefix, sys.exec_prefix, sys.base_prefix):
        yield from (os.path.join(prefix, "bin", name) for name in names)
    yield shutil.which(names[0])


def environment() -> dict[str, str]:
    """Return the environment of the worker: it finds the same modules as this process, computes in
    one thread, and gives memory back to the system."""
    return {
        **{name: os.environ[name] for name in _PASSED if name in os.environ},
        "PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path if path),
        "MALLOC_ARENA_MAX": "2",
        "VIPS_CONCURRENCY": "1",
        "VIPS_WARNING": "0",
    }


_RECEIVE_BYTES = 64 * 1024
# Does what ``python -m kinto_attachment.images.worker.main`` does, but does not run the __init__ of
# the package. That would import Kinto, at the cost of half a second and 45 MB for each worker.
_PACKAGE = Path(__file__).parents[2]
_START = f"""
import sys, types
package = sys.modules["{_PACKAGE.name}"] = types.ModuleType("{_PACKAGE.name}")
package.__path__ = [{str(_PACKAGE)!r}]
from {_PACKAGE.name}.images.worker.main import main
main()
"""


class NotTaken(Exception):
    """The worker ended before it took the job, so the job can be given to another worker."""


class Ended(WorkerLost):
    """The worker has ended, by itself or because another thread or process ended it."""


class Process:
    """A running worker. It does one job at a time, and any thread may end it.

    :param memory: bytes of address space that the worker may use.
    :param timeout: seconds that it may take to start.
    :raises WorkerLost: if the worker ended before it was ready, or was not ready in time.
    :raises ImagingMissing: if no interpreter was found, or libvips cannot be loaded.
    """

    def __init__(self, memory: int, timeout: float) -> None:
        self._channel, inherited = socket.socketpair()
        self._received = b""
        arguments = [str(inherited.fileno()), str(os.getpid()), str(memory)]
        try:
            with inherited:
                self._process = subprocess.Popen(
                    [find_interpreter(), "-c", _START, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[inherited.fileno()],
                    env=environment(),
                    cwd="/",
                )
        except BaseException:
            self._channel.close()
            raise
        try:
            answer = self._answer(time.monotonic() + timeout)
            if "missing" in answer:
                raise ImagingMissing(answer["missing"])
        except BaseException:
            self.end()
            raise

    @property
    def pid(self) -> int:
        """The process id of the worker."""
        return self._process.pid

    def has_ended(self) -> bool:
        """Return whether the process has ended, for whatever reason."""
        return self._process.poll() is not None

    def ask(self, job: dict[str, Any], descriptors: list[int], timeout: float) -> dict[str, Any]:
        """Send a job and return its result.

        :param job: the JSON object of the job.
        :param descriptors: those of the source and the target.
        :param timeout: seconds that the worker may take.
        :raises NotTaken: if the worker ended before it took the job.
        :raises WorkerLost: if the worker ended during the job, or the time is up. Call :meth:`end`
            then: the worker cannot be used again.
        """
        if self.has_ended():
            raise NotTaken
        deadline = time.monotonic() + timeout
        line = json.dumps(job).encode() + b"\n"
        try:
            socket.send_fds(self._channel, [line], descriptors)
        except OSError as error:
            raise NotTaken from error
        try:
            self._answer(deadline)  # {"taken": true}
        except Ended as error:
            raise NotTaken from error
        return self._answer(deadline)

    def _answer(self, deadline: float) -> dict[str, Any]:
        """Return the next line that the worker sends.

        :param deadline: on the clock of ``time.monotonic()``.
        :raises Ended: if the socket was closed.
        :raises WorkerLost: if the deadline has passed.
        """
        while b"\n" not in self._received:
            remaining = deadline - time.monotonic()
            try:
                self._channel.settimeout(max(remaining, 0.001))
                received = self._channel.recv(_RECEIVE_BYTES)
            except TimeoutError as error:
                raise WorkerLost("The worker process took too long.") from error
            except OSError:
                received = b""  # the socket was closed, by this process or by the worker
            if not received:
                raise Ended("The worker process ended before it was done.")
            self._received += received
        self._channel.settimeout(None)
        line, _, self._received = self._received.partition(b"\n")
        return json.loads(line)

    def end(self) -> None:
        """Kill the worker, wait until it has ended, and close the socket. Idempotent."""
        self._process.kill()
        self._process.wait()
        self._channel.close()

    def forget(self) -> None:
        """Close the socket in this process only. Call this after a fork, in the child: the worker
        belongs to the parent."""
        self._channel.close()
        self._process.returncode = 0  # or Popen would wait for a process that is not our child
