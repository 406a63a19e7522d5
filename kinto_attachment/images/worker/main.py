"""The process that resizes: ``python -m kinto_attachment.images.worker.main SOCKET PARENT MEMORY``.

It is told of its jobs through a socket, one line of JSON each, with the descriptors of the file it
reads and of the one it writes; it answers each with a line when it takes it, and with another when
it is done. It ends when its parent does, and when a job has left it too large: the parent starts
another one.
"""

import json
import os
import resource
import select
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

from ...errors import ImageRefused
from ..formats import check_image
from ..formats.header import ImageHeader
from ..formats.limits import Limits
from ..formats.reader import SharedFile
from ..plan import Output, Plan

JOB_BYTES = 64 * 1024
"""Bytes of a job."""

LARGE_BYTES = 400 * 1024 * 1024
"""Bytes of memory that it may keep after a job; with more it ends."""

_LOOK_SECONDS = 0.25
_NICE = 5


def main() -> None:
    """Arguments are the number of the socket, the parent's id, and bytes of memory."""
    number, parent, memory = (int(argument) for argument in sys.argv[1:4])
    _limit(memory)
    with socket.socket(fileno=number) as channel:
        threading.Thread(target=_end_with, args=(channel, parent), daemon=True).start()
        try:
            from . import engine

            engine.prepare()
        except (ImportError, OSError) as error:
            _answer(channel, {"missing": str(error)})
            return
        _answer(channel, {"ready": True})
        while job := _next_job(channel):
            _answer(channel, {"taken": True})
            _answer(channel, _do(engine.resize, *job))
            if _resident() > LARGE_BYTES:
                return


def _limit(memory: int) -> None:
    # Ctrl-C, and the signal that stops a server, are for the parent: it may still be answering.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    os.nice(_NICE)


def _end_with(channel: socket.socket, parent: int) -> None:
    """End this process as soon as its parent is gone, whatever it is doing. A sibling that was
    forked may hold the other end of the socket, so the parent's id is looked at too."""
    ended = select.poll()
    ended.register(channel, select.POLLHUP)
    while not ended.poll(1000 * _LOOK_SECONDS) and os.getppid() == parent:
        pass
    os._exit(0)


def _next_job(channel: socket.socket) -> tuple[dict[str, Any], int, int] | None:
    """None when there will be none any more."""
    line, descriptors = b"", []
    while not line.endswith(b"\n"):
        received, more, _, _ = socket.recv_fds(channel, JOB_BYTES, 2)
        if not received:
            return None
        line += received
        descriptors += more
    source, target = descriptors
    return json.loads(line), source, target


def _resident() -> int:
    """Bytes of memory that it has now, where the system tells (proc_pid_statm(5))."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _do(resize: Any, job: dict[str, Any], source: int, target: int) -> dict[str, Any]:
    """Make one image; what is answered."""
    try:
        made = _resize(resize, job, source)
        os.ftruncate(target, 0)
        written = 0
        while written < len(made):
            written += os.pwrite(target, made[written:], written)
    except ImageRefused as refused:
        return {"refused": refused.reason}
    except MemoryError:
        return {"refused": "The image needs more memory than it may use."}
    except (TypeError, ValueError) as error:
        return {"refused": f"The image cannot be resized ({type(error).__name__})."}
    except OSError as error:
        return {"failed": error.strerror or "the file cannot be written"}
    finally:
        os.close(source)
        os.close(target)
    return {"size": len(made)}


def _resize(resize: Any, job: dict[str, Any], source: int) -> bytes:
    header, limits = ImageHeader(**job["header"]), Limits(**job["limits"])
    file = SharedFile(source)
    checked = check_image(file, header, limits)
    data = checked.read(file)
    return resize(data, header, Plan(**job["plan"]), Output(**job["output"]), checked.frames)


def _answer(channel: socket.socket, answer: dict[str, Any]) -> None:
    channel.sendall(json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    main()
