"""Several transfers at once, and none of them left when nobody waits any more."""

import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import closing

from ..finding import Finding
from .client import Client
from .responses import LATER, TransferFailed

Job = Callable[[], Finding]
OnBytes = Callable[[int], None]


def work(
    client: Client, jobs: Generator[Job, None, None], parallel: int
) -> Generator[Finding, None, None]:
    """What the jobs find, as they come to an end; so many run at a time, and not many more are
    made before they can. When it is closed or interrupted those that run are broken off."""
    if parallel < 1:
        raise ValueError("At least one transfer has to be under way.")
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
    """What it finds, or why it failed."""
    try:
        return call()
    except TransferFailed as error:
        return Finding(error.kind, path, record, error.detail, error.remedy)
    except OSError as error:
        # No error of a connection: a file, or the disk.
        return Finding("failed", path, record, str(error), LATER)


def one_at_a_time(on_bytes: OnBytes | None) -> OnBytes:
    """The same, for many threads."""
    lock = threading.Lock()

    def count(size: int) -> None:
        if on_bytes:
            with lock:
                on_bytes(size)

    return count


def failing(call: Callable[[], Iterator[Job]], record: str) -> Iterator[Job]:
    """The jobs; when no more can be found, why."""
    try:
        yield from call()
    except TransferFailed as error:
        finding = Finding(error.kind, "", record, error.detail, error.remedy)
        yield lambda: finding
