"""The worker process, which decodes and resizes images.

Usage: ``python -m kinto_attachment.images.worker.main SOCKET PARENT MEMORY``. The arguments are the
number of a socket that the process inherits, the id of the parent process, and the bytes of address
space that the worker may use.

Parent and worker exchange lines over the socket, each of them one JSON object::

    parent                                     worker
    ------                                     ------
    start the process
                                               {"ready": true}, or
                                               {"missing": REASON}, and exit

    {"header": ..., "plan": ...,
     "output": ..., "limits": ...}
      + descriptors of two open files:
        source, target
                                               {"taken": true}
                                               read the source, write the target
                                               {"size": BYTES},
                                               {"refused": REASON}, or
                                               {"failed": REASON}

* ``missing`` means that libvips or its Python binding cannot be loaded.
* A *job* is one line with the fields of the ``ImageHeader``, ``Plan``, ``Output`` and ``Limits``
  that belong to the image. The two descriptors come with its first bytes (``SCM_RIGHTS``,
  unix(7)). The parent sends the next job only after the result of the last one.
* ``taken`` tells the parent that the worker has the job. If the socket closes before this line,
  the worker ended before it looked at the job, and the parent can give the job to another worker.
  If the socket closes later, the image may be the cause, and the parent does not try again.
* ``size`` is the length of the variant, which replaces all that the target held.
* ``refused`` means that the variant cannot be made from this image; REASON is shown to the client.
* ``failed`` means that the source cannot be read or the target cannot be written.

The worker ends when its parent ends, and after a job that left it with more than
:data:`LARGE_BYTES` of memory. The parent then starts another worker for the next job.
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
"""Bytes that are received at once. A job is usually shorter."""

LARGE_BYTES = 400 * 1024 * 1024
"""Resident memory in bytes above which the worker ends after a job."""

# How often the worker checks whether its parent still exists.
_POLL_SECONDS = 0.25
# Requests come before resizing when the processors are busy (nice(2)).
_NICE = 5


def main() -> None:
    """Resize images until the parent ends or sends no more jobs; see the module."""
    number, parent, memory = (int(argument) for argument in sys.argv[1:4])
    _restrict(memory)
    with socket.socket(fileno=number) as channel:
        threading.Thread(target=_exit_with_parent, args=(channel, parent), daemon=True).start()
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


def _restrict(memory: int) -> None:
    """Ignore signals, write no core dumps, and limit memory and priority.

    :param memory: bytes of address space.
    """
    # Ctrl-C, and the signal that stops a server, also reach this process. Only the parent acts on
    # them: it may still be answering a request that needs this image.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    os.nice(_NICE)


def _exit_with_parent(channel: socket.socket, parent: int) -> None:
    """Wait until the parent is gone, then end this process, even in the middle of a job."""
    hangup = select.poll()
    hangup.register(channel, select.POLLHUP)
    # A process that was forked from the parent may keep the other end of the socket open. The id of
    # the parent changes all the same.
    while not hangup.poll(1000 * _POLL_SECONDS) and os.getppid() == parent:
        pass
    os._exit(0)


def _next_job(channel: socket.socket) -> tuple[dict[str, Any], int, int] | None:
    """Return the next job with the descriptors of its source and its target, or None if the parent
    has closed the socket."""
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
    """Return the resident memory of this process in bytes; 0 on systems that do not tell
    (proc_pid_statm(5))."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _do(resize: Any, job: dict[str, Any], source: int, target: int) -> dict[str, Any]:
    """Do one job, close its files, and return the result to send.

    :param resize: :func:`kinto_attachment.images.worker.engine.resize`.
    """
    try:
        made = _resize(resize, job, source)
        os.ftruncate(target, 0)
        written = 0
        while written < len(made):
            written += os.pwrite(target, made[written:], written)
    except ImageRefused as refused:
        return {"refused": refused.reason}
    except MemoryError:
        return {"refused": "Resizing the image needs too much memory. Upload a smaller image."}
    except (TypeError, ValueError) as error:
        reason = f"The image cannot be resized ({type(error).__name__})."
        return {"refused": f"{reason} Save it again with an image editor."}
    except OSError as error:
        return {"failed": error.strerror or "a file cannot be read or written"}
    finally:
        os.close(source)
        os.close(target)
    return {"size": len(made)}


def _resize(resize: Any, job: dict[str, Any], source: int) -> bytes:
    header, limits = ImageHeader(**job["header"]), Limits(**job["limits"])
    file = SharedFile(source)
    checked = check_image(file, header, limits)
    # Decoding a JPEG at a fraction of its size costs so little that a copy would be noticed.
    is_mapped = header.format == "jpeg" and not checked.parts
    data = file.map() if is_mapped else checked.read(file)
    plan, output = Plan(**job["plan"]), Output(**job["output"])
    return resize(data, header, plan, output, checked.frames, checked.skipped)


def _answer(channel: socket.socket, answer: dict[str, Any]) -> None:
    channel.sendall(json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    main()
