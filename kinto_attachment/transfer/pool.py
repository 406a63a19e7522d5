"""Several transfers at once, all of which end when the caller stops."""

import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import closing

from ..finding import Finding
from .client import Client
from .responses import LATER, TransferFailed

Job = Callable[[], Finding]
"""The transfer of one file."""
OnBytes = Callable[[int], None]
"""A callback that is told how many bytes were transferred since the last call."""


def work(
    client: Client, jobs: Generator[Job, None, None], parallel: int
) -> Generator[Finding, None, None]:
    """Run jobs in threads, and yield the finding of each when it ends. At most ``2 * parallel``
    jobs are taken from the generator before one of them has ended.

    If the generator is closed or interrupted, the client is stopped and all threads end.

    :param parallel: jobs that run at the same time.
    :raises ValueError: if ``parallel`` is less than 1.
    """
    if parallel < 1:
        raise ValueError(f"parallel must be at least 1, not {parallel}")
    client.start()
    pool = ThreadPoolExecutor(parallel, thread_name_prefix="transfer")
    running = set()
    try:
        with closing(jobs):
            for job in jobs:
                running.add(pool.submit(job))
                if len(running) >= 2 * parallel:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    except BaseException:
        client.stop()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def attempt(call: Job, path: str, record: str) -> Finding:
    """Return what ``call`` returns, or a finding that says why it failed."""
    try:
        return call()
    except TransferFailed as error:
        return Finding(error.kind, path, record, error.detail, error.remedy)
    except OSError as error:
        # Connection errors have become TryAgain, so this is about a file or the disk.
        return Finding("failed", path, record, str(error), LATER)


def one_at_a_time(on_bytes: OnBytes | None) -> OnBytes:
    """Return a callback that many threads may call, and that calls ``on_bytes`` under a lock."""
    lock = threading.Lock()

    def count(size: int) -> None:
        if on_bytes:
            with lock:
                on_bytes(size)

    return count


def failing(call: Callable[[], Iterator[Job]], record: str) -> Iterator[Job]:
    """Yield the jobs that ``call`` returns. If it fails, yield a last job that reports why."""
    try:
        yield from call()
    except TransferFailed as error:
        finding = Finding(error.kind, "", record, error.detail, error.remedy)
        yield lambda: finding
