"""Which Python the worker runs on. Under uWSGI, and in other programs that embed Python,
``sys.executable`` is that program."""

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
# What a worker needs to know of the environment, and no password of a database.
_PASSED = ("LANG", "LC_ALL", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PATH", "PYTHONHOME", "TMPDIR")


def find_interpreter() -> str:
    """The path of a Python of this version and, if it can be, of this environment.

    :raises ImagingMissing: there is none.
    """
    for path in _candidates():
        if path and os.access(path, os.X_OK) and _PYTHON.fullmatch(Path(path).name):
            return path
    raise ImagingMissing("No Python interpreter was found that could resize images.")


def _candidates() -> Iterator[str | None]:
    names = (f"python{sys.version_info[0]}.{sys.version_info[1]}", "python3", "python")
    yield sys.executable
    for prefix in (sys.prefix, sys.exec_prefix, sys.base_prefix):
        yield from (os.path.join(prefix, "bin", name) for name in names)
    yield shutil.which(names[0])


def environment() -> dict[str, str]:
    """For the worker: the modules of this process, one thread, and memory that is given back."""
    return {
        **{name: os.environ[name] for name in _PASSED if name in os.environ},
        "PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path if path),
        "MALLOC_ARENA_MAX": "2",
        "VIPS_CONCURRENCY": "1",
        "VIPS_WARNING": "0",
    }


_LINE = 64 * 1024
# As ``python -m kinto_attachment.images.worker.main``, without what the package itself imports:
# Kinto takes half a second and 45 MB, and each server process has a worker.
_PACKAGE = Path(__file__).parents[2]
_START = f"""
import sys, types
package = sys.modules["{_PACKAGE.name}"] = types.ModuleType("{_PACKAGE.name}")
package.__path__ = [{str(_PACKAGE)!r}]
from {_PACKAGE.name}.images.worker.main import main
main()
"""


class NotTaken(Exception):
    """The process had ended before it was given anything to do."""


class Ended(WorkerLost):
    """It ended by itself, or somebody else ended it."""


class Process:
    """
    :param memory: bytes of address space it may have.
    :param timeout: seconds it may take to start.
    :raises WorkerLost: it did not start.
    :raises ImagingMissing: it cannot.
    """

    def __init__(self, memory: int, timeout: float) -> None:
        self._channel, theirs = socket.socketpair()
        self._received = b""
        arguments = [str(theirs.fileno()), str(os.getpid()), str(memory)]
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [find_interpreter(), "-c", _START, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
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
        return self._process.pid

    def has_ended(self) -> bool:
        """By itself, or by somebody else."""
        return self._process.poll() is not None

    def ask(self, job: dict[str, Any], descriptors: list[int], timeout: float) -> dict[str, Any]:
        """Its answer to a job.

        :param descriptors: of open files it gets with the job.
        :param timeout: seconds it may take.
        :raises NotTaken: it is dead.
        :raises WorkerLost: it died over it, or the time is up; it is of no use then.
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
            self._answer(deadline)  # it has the job
        except Ended as error:
            raise NotTaken from error
        return self._answer(deadline)

    def _answer(self, deadline: float) -> dict[str, Any]:
        while b"\n" not in self._received:
            left = deadline - time.monotonic()
            try:
                self._channel.settimeout(max(left, 0.001))
                received = self._channel.recv(_LINE)
            except TimeoutError as error:
                raise WorkerLost("The image took too long to resize.") from error
            except OSError:
                received = b""  # closed, from either side
            if not received:
                raise Ended("The process that resized the image ended.")
            self._received += received
        self._channel.settimeout(None)
        line, _, self._received = self._received.partition(b"\n")
        return json.loads(line)

    def end(self) -> None:
        """Kill it, and leave nothing of it behind."""
        self._process.kill()
        self._process.wait()
        self._channel.close()

    def forget(self) -> None:
        """It belongs to the process that this one was forked from."""
        self._channel.close()
        self._process.returncode = 0  # so that nobody waits for it
