"""Real servers for the tests: started on free ports of 127.0.0.1, stopped by process id."""

import os
import random
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

# Below the ports that connections get, and different ones for each process of a test run.
_SLICE = 4000
_WORKER = int(re.sub(r"\D", "", os.environ.get("PYTEST_XDIST_WORKER", "")) or 0)
_FIRST = 12000 + _SLICE * (_WORKER % 5)
_given: set[int] = set()


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that is free, and that no other call returns."""
    while True:
        port = _FIRST + random.randrange(_SLICE)
        try:
            with socket.socket() as sock:
                sock.bind(("127.0.0.1", port))
        except OSError:
            continue
        if port not in _given:
            _given.add(port)
            return port


def is_listening(port: int) -> bool:
    with socket.socket() as sock:
        sock.settimeout(1)
        return sock.connect_ex(("127.0.0.1", port)) == 0


class Process:
    """A command that serves, in a session of its own, with its output in a file.

    ::

        with Process(["python", "-m", "http.server", str(port)], folder, lambda: True):
            ...
    """

    def __init__(
        self,
        command: list[str],
        folder: Path,
        ready: Callable[[], bool],
        env: dict[str, str] | None = None,
        timeout: float = 60,
    ):
        self.log = Path(folder) / f"{Path(command[0]).name}-{free_port()}.log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )
        self.pid = self._process.pid
        self._wait(ready, timeout)

    def _wait(self, ready: Callable[[], bool], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(
                    f"did not start:\n{self.log.read_text(errors='replace')[-4000:]}"
                )
            time.sleep(0.05)

    def stop(self, signum: int = signal.SIGTERM) -> None:
        """End the process and all that it started. Idempotent."""
        for attempt in (signum, signal.SIGKILL):
            try:
                os.killpg(self.pid, attempt)
            except ProcessLookupError:
                break
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                continue
        self._process.wait(10)

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *exc_info) -> None:
        self.stop()
