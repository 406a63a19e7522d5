"""Running one command: its exit status, and one sentence if it fails."""

import argparse
import logging
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..finding import Finding, Progress
from .failures import explain
from .output import Output, showing, with_ini
from .parser import parse

CLEAN, PROBLEMS, FAILED = 0, 1, 2
"""Exit statuses."""

Job = Callable[[argparse.Namespace, Progress], Iterator[Finding]]


def main(arguments: list[str] | None = None) -> int:
    """Run a command, and print what it finds.

    :param arguments: the arguments; those of the command line by default.
    :returns: the exit status: 0 if all is well, 1 if there are problems, 2 if the command failed.
    """
    options = parse(arguments)
    _prepare()
    try:
        return _run(options)
    except KeyboardInterrupt:
        print("Interrupted; run it again to go on.", file=sys.stderr)
    except BrokenPipeError:
        # The reader of our output has ended. Python would fail again when it flushes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:  # Python itself would exit with status 1, which means problems
        reason = explain(error, options)
        if reason:
            print(f"kinto-attachment: {with_ini(reason, options)}", file=sys.stderr)
        else:
            traceback.print_exc()
    return FAILED


def _prepare() -> None:
    """Set up what concerns the whole process."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    # It logs a traceback of each error of the database, and then raises the error.
    logging.getLogger("kinto.core.storage.postgresql.client").setLevel(logging.CRITICAL)
    # Kinto's plugin says that it counts the requests of one process only, and a command has none.
    # The plugin also empties the folder of this variable, which belongs to a running server.
    logging.getLogger("kinto.plugins.prometheus").setLevel(logging.ERROR)
    for name in ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"):
        os.environ.pop(name, None)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Pyramid imports it, which no operator can change.
    warnings.filterwarnings("ignore", "pkg_resources is deprecated", UserWarning)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # names of files may not fit the encoding of the locale
            stream.reconfigure(errors="backslashreplace")


def _run(options: argparse.Namespace) -> int:
    """Print each finding as soon as it is known, and their counts at the end. Return the exit
    status."""
    job, output = _job(options.command), Output(options)
    try:
        with showing(output) as progress:
            for finding in job(options, progress):
                with _uninterrupted():
                    output.add(finding)
    except BrokenPipeError:
        raise
    except Exception:
        output.end_early()
        raise
    output.end()
    return PROBLEMS if output.has_problems else CLEAN


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait until the block has ended: the threads that draw the bar share a lock with
    it, and would wait forever if the block was left without releasing it. A second Ctrl-C does not
    wait, as printing may."""
    late = False

    def interrupt(*args: Any) -> None:
        nonlocal late
        if late:
            raise KeyboardInterrupt
        late = True

    signals = signal.SIGINT, signal.SIGTERM
    before = [signal.signal(each, interrupt) for each in signals]
    try:
        yield
    finally:
        for each, handler in zip(signals, before, strict=True):
            signal.signal(each, handler)
    if late:
        raise KeyboardInterrupt


def _job(command: str) -> Job:
    """Return the function that does the work of a command. Those that only send HTTP requests start
    faster, because they need no Kinto."""
    if command in ("upload", "download"):
        from .client_commands import COMMANDS
    else:
        from .server_commands import COMMANDS
    return COMMANDS[command]
