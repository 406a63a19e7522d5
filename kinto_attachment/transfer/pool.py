"""Several transfers at once, all of which end when the caller stops."""

import errno
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager

from ..errors import CommandFailed
from ..finding import Finding, Progress
from .client import Client
from .responses import LATER, TransferFailed

Job = Callable[[], Finding | list[Finding]]
"""The transfer of one file, or of the files of one record."""
FATAL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
"""Errors of the file system that every other file would meet too."""


def work(
    client: Client, jobs: Generator[Job, None, None], parallel: int
) -> Generator[Finding, None, None]:
    """Run jobs in threads, and yield the findings of each when it ends. At most ``2 * parallel``
    jobs are taken from the generator before one of them has ended.

    If the generator is closed or interrupted, the client is stopped and all threads end. So they do
    if a job raises an error, which is raised again after the findings of all jobs that have ended.

    :param parallel: jobs that run at the same time.
    :raises ValueError: if ``parallel`` is less than 1.
    """
    if parallel < 1:
        raise ValueError(f"parallel must be at least 1, not {parallel}")
    client.start()
    pool = ThreadPoolExecutor(parallel, thread_name_prefix="transfer")
    running: set[Future] = set()
    try:
        with closing(jobs):
            for job in jobs:
                running.add(pool.submit(job))
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
    except BaseException:
        client.stop()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


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
