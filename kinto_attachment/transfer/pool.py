"""Several transfers at once, all of which end when the caller stops.

The thread of the caller takes no part in them, and shares no lock with them. Python raises
``KeyboardInterrupt`` in the main thread, between any two steps: also where ``threading`` has just
acquired a lock and has not yet noted that it must release it. Transfers that need such a lock would
never end.
"""

import errno
from _thread import start_new_thread
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from queue import SimpleQueue

from ..errors import CommandFailed
from ..finding import Finding, Progress
from .client import Client
from .responses import LATER, TransferFailed

Job = Callable[[], Finding | list[Finding]]
"""The transfer of one file, or of the files of one record."""
FATAL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
"""Errors of the file system that every other file would meet too."""
AHEAD = 1000
"""Findings that the caller has not taken yet, before the transfers wait for the caller."""


def work(
    client: Client, jobs: Generator[Job, None, None], parallel: int
) -> Generator[Finding, None, None]:
    """Run jobs in threads, and yield the findings of each when it ends. At most ``2 * parallel``
    jobs are taken from the generator before one of them has ended. The generator runs in a thread,
    too.

    If the generator is closed or interrupted, the client is stopped and all threads end. So they do
    if a job raises an error, which is raised again after the findings of all jobs that have ended.

    :param parallel: jobs that run at the same time.
    :raises ValueError: if ``parallel`` is less than 1.
    """
    if parallel < 1:
        raise ValueError(f"parallel must be at least 1, not {parallel}")
    client.start()
    shared = _Shared()
    end: Exception | None = None
    try:
        # A Thread would need a lock to start.
        start_new_thread(shared.run, (client, jobs, parallel))
        while isinstance(end := shared.take(), Finding):
            yield end
    except BaseException:
        client.stop()
        # A thread that starts only now finds the client stopped.
        while shared.is_running and isinstance(shared.take(), Finding):
            pass
        raise
    if end:
        raise end


class _Shared:
    """What the thread of the caller has in common with the thread that manages the jobs. A
    ``SimpleQueue`` is written in C, and an interrupt does not break it."""

    def __init__(self) -> None:
        self._found: SimpleQueue[Finding | Exception | None] = SimpleQueue()
        self._taken: SimpleQueue[None] = SimpleQueue()
        self.is_running = False

    def take(self) -> Finding | Exception | None:
        """Return the next finding; in the end, None or the error that ended the jobs."""
        self._taken.put(None)
        return self._found.get()

    def run(self, client: Client, jobs: Generator[Job, None, None], parallel: int) -> None:
        """Run the jobs."""
        self.is_running, end = True, None
        try:
            client.go_on()
            for number, finding in enumerate(_findings_of(client, jobs, parallel)):
                self._found.put(finding)
                if number >= AHEAD:
                    self._taken.get()
        except Exception as error:
            end = error
        # Twice, because the caller may be interrupted when it has just got the first one.
        self._found.put(end)
        self._found.put(end)


def _findings_of(
    client: Client, jobs: Generator[Job, None, None], parallel: int
) -> Iterator[Finding]:
    """Yield the findings of the jobs."""
    pool = ThreadPoolExecutor(parallel, thread_name_prefix="transfer")
    running: set[Future] = set()
    try:
        with closing(jobs):
            for job in jobs:
                client.go_on()
                running.add(pool.submit(_run, client, job))
                if len(running) >= 2 * parallel:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    yield from _results(done)
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from _results(done)
    except Exception:
        client.stop()
        pool.shutdown(cancel_futures=True)
        yield from _findings(running)
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _run(client: Client, job: Job) -> Finding | list[Finding]:
    """Run a job, unless the client was stopped before it begins.

    :raises Stopped: if the client was stopped.
    """
    client.go_on()
    return job()


def _results(done: set[Future]) -> Iterator[Finding]:
    """Yield the findings of jobs that have ended, and then raise the error of one that failed."""
    yield from _findings(done)
    for failed in done:
        failed.result()


def _findings(jobs: set[Future]) -> Iterator[Finding]:
    """Yield the findings of the jobs that have ended without an error."""
    for job in filter(_has_result, jobs):
        result = job.result()
        yield from [result] if isinstance(result, Finding) else result


def _has_result(job: Future) -> bool:
    return not job.cancelled() and job.exception() is None


def known(finding: Finding) -> Job:
    """Return a job with nothing left to do: its finding is known already."""
    return lambda: finding


def attempt(call: Callable[[], Finding], path: str, record: str) -> Finding:
    """Return what ``call`` returns, or a finding that says why it failed.

    :raises CommandFailed: if every other file would fail for the same reason.
    """
    try:
        return call()
    except TransferFailed as error:
        return Finding(error.kind, path, record, error.detail, error.remedy)
    except OSError as error:
        # Connection errors have become TryAgain, so this is about a file or the disk.
        if error.errno in FATAL:
            raise CommandFailed(f"{path}: {error.strerror}") from error
        return Finding("failed", path, record, error.strerror or str(error), remedy_for(error))


def remedy_for(error: OSError) -> str:
    """Return what the user can do about an error of the file system."""
    if isinstance(error, FileNotFoundError):
        return "check that it exists and is spelt correctly"
    if isinstance(error, PermissionError):
        return "get the permission to read and write it, then run it again"
    return LATER


class FileProgress:
    """The progress of one file."""

    def __init__(self, progress: Progress):
        self._progress = progress
        self._moved = 0

    def add_bytes(self, count: int) -> None:
        """Report bytes of the file that were transferred. Bytes that are sent again count again."""
        self._moved += count
        self._progress.add_bytes(count)

    def reach(self, position: int) -> None:
        """Report that the file was transferred up to a position. Bytes that are sent again do not
        count again."""
        if position > self._moved:
            self.add_bytes(position - self._moved)

    @contextmanager
    def of(self, size: int) -> Iterator[None]:
        """Report in the end that the file is done.

        :param size: the bytes that were expected of it.
        """
        try:
            yield
        finally:
            self._progress.add_files(1, size, self._moved)


def to_the_end(jobs: Iterator[Job]) -> Generator[Job, None, None]:
    """Yield the jobs.

    :raises CommandFailed: if the server fails before all jobs are known.
    """
    try:
        yield from jobs
    except TransferFailed as error:
        raise CommandFailed(f"{error.detail}: {error.remedy}") from error
