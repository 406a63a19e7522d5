"""Verification of uploads after they were answered: those that came with ``?verify=false``, and
direct uploads that are large.

**How leases work.** Any number of processes may verify, and each may die at any moment. The row of
an upload says what has to be done, and a lease says which process is doing it. Both rows are
described in :mod:`kinto_attachment.rows.uploads`. A verifier commits its lease before it begins to
hash, and skips every upload that another process has leased. While it hashes, it renews the lease
several times within ``LEASE_SECONDS``. If it dies, the lease expires and another process takes
over. If it was only slow, it notices at its next renewal that the lease is lost, and stops hashing.
When it is done or has to stop, it gives the lease back. What it has found is written down only in a
transaction in which the upload, or the lease on it, is still its own.
"""

import atexit
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from threading import Event, Lock, Thread, current_thread
from typing import Any
from uuid import uuid4

import transaction

from ..errors import BlobNotFound, StorageError
from ..finding import NO_PROGRESS, Finding, Progress, restoring
from ..plugin import Plugin
from .verification import LeaseLost, Verification, committed, hash_renewing

logger = logging.getLogger(__name__)

BATCH = 100
"""Number of uploads read at once."""

IDLE_SECONDS = 5
"""Seconds that a verifier waits between two passes."""

IDLE_PASSES = 12
"""Consecutive passes without success after which the thread ends, although uploads are pending:
other processes have leased them, or they cannot be read."""

MAX_FAILURES = 10
"""Consecutive unreadable uploads that end a pass: the storage is at fault, not the uploads."""

LOOK_SECONDS = 60
"""Seconds after which a process looks again for uploads that other processes have left behind."""

STOP_SECONDS = 2
"""Seconds that a process, when it ends, waits for its thread to give back the lease."""

AGAIN = "kinto-attachment verify"
"""The remedy of findings that another run may resolve."""


class Verifier:
    """A verifier, for one thread.

    :param plugin: has the rows, the storage, and the metrics that count what was verified.
    :param kinds: what to verify: ``registry.attachment_verifications``.
    :ivar stopped: an event; once it is set, the verifier stops, even in the middle of an upload.
    """

    def __init__(self, plugin: Plugin, kinds: Sequence[Verification]):
        self._plugin = plugin
        self._kinds = kinds
        self._leases = plugin.rows.leases
        self._metrics = plugin.metrics
        self._holder = uuid4().hex
        self.stopped = Event()

    def verify(self, progress: Progress = NO_PROGRESS) -> Iterator[Finding]:
        """Verify all uploads that wait now, except those that other processes have leased.

        Yield one finding for each upload: ``verified`` if its hash is right, or ``refused`` if it
        is wrong, and then the upload was removed. An upload that cannot be read is a problem, and
        goes on waiting.

        :param progress: is told of the uploads, and of the bytes that are hashed.
        :raises StorageError: if :data:`MAX_FAILURES` uploads in a row cannot be read. Uploads whose
            bytes are missing do not count.
        """
        self._progress = progress
        failures = 0
        progress.begin("uploads")
        if progress.is_shown:
            for _, page in self._pages():
                progress.expect(len(page), sum(upload.size for upload in page))
        for kind, page in self._pages():
            for upload in page:
                progress.add_files()
                try:
                    finding = self._leased(kind, upload)
                    failures = 0
                except StorageError as error:
                    finding = self._problem(kind, upload, error)
                    failures += finding is not None and not isinstance(error, BlobNotFound)
                    if failures == MAX_FAILURES:
                        raise
                if finding:
                    result = "failed" if finding.is_problem else finding.kind
                    self._metrics.count("verifications", result=result)
                    yield finding

    def watch(self, progress: Progress = NO_PROGRESS) -> Iterator[Finding]:
        """Verify again and again until the verifier is stopped, and yield the findings. See
        :meth:`verify`."""
        while not self.stopped.is_set():
            try:
                yield from self.verify(progress)
                self.count()
            except Exception:
                # An error of the storage, or one of SQLAlchemy's at a commit.
                transaction.abort()
                logger.exception("Uploads cannot be verified now. The verifier will try again.")
            self.stopped.wait(IDLE_SECONDS)

    def count(self) -> int:
        """Return how many uploads wait, leased or not, and report the number as a metric."""
        count = sum(len(page) for _, page in self._pages())
        self._metrics.observe("pending_verifications", count)
        return count

    def _pages(self) -> Iterator[tuple[Verification, list[Any]]]:
        for kind in self._kinds:
            uploads = kind.waiting()
            while page := committed(partial(_page, uploads)):
                yield kind, page

    def _leased(self, kind: Verification, upload: Any) -> Finding | None:
        """Verify one upload under a lease. Return None if the lease cannot be taken or is lost, or
        if the verifier has to stop."""
        rows, holder = self._leases, self._holder
        if self.stopped.is_set() or not committed(lambda: rows.take(upload.id, holder)):
            return None
        try:
            return kind.verify(upload, partial(self._hash, upload), holder)
        except LeaseLost:
            return None
        finally:
            committed(lambda: rows.give_back(upload.id, holder))

    def _problem(self, kind: Verification, upload: Any, error: StorageError) -> Finding | None:
        """Return the finding for an upload that cannot be read or copied. Return None if the upload
        does not wait any more: it was deleted, or another process has verified it."""
        if not committed(lambda: kind.is_waiting(upload)):
            return None
        key, uri = kind.name(upload)
        if isinstance(error, BlobNotFound):
            # The upload is kept: the folder may be a wrong one, or may not be mounted.
            return Finding("missing object", key, uri, remedy=restoring(uri))
        return Finding("unreadable object", key, uri, str(error), AGAIN)

    def _hash(self, upload: Any, key: str) -> str:
        """Return the SHA-256 of stored bytes, in hex, and renew the lease meanwhile.

        :raises LeaseLost: if the lease is lost, or if the verifier has to stop.
        """

        def on_bytes(count: int) -> None:
            self._progress.add_bytes(count)
            if self.stopped.is_set():
                raise LeaseLost()

        def renew() -> None:
            if not committed(lambda: self._leases.renew(upload.id, self._holder)):
                raise LeaseLost()

        return hash_renewing(self._plugin.storage, key, renew, on_bytes)


def _page(uploads: Iterator[Any]) -> list[Any]:
    return list(islice(uploads, BATCH))


class Background:
    """A thread that verifies, one in each process of a server.

    The thread exists only while uploads are pending. It is started by a request that stores an
    unchecked upload, and by any other request if the process has not looked for uploads for
    :data:`LOOK_SECONDS`. A server forks before it receives requests, so a fork loses no thread.

    :param make_verifier: returns the verifier of a new thread.
    :param enabled: whether to verify at all; False leaves it to other processes.
    """

    def __init__(self, make_verifier: Callable[[], Verifier], enabled: bool = True):
        self._make_verifier = make_verifier
        self._enabled = enabled
        self._lock = Lock()
        self._thread: Thread | None = None
        self._woken = Event()
        self._looked: tuple[int, float] = (0, 0.0)

    def look(self) -> None:
        """Wake the thread if this process has not looked for pending uploads for a while."""
        process, when = self._looked
        if process != os.getpid() or time.monotonic() - when > LOOK_SECONDS:
            self.wake()

    def wake(self) -> None:
        """Make the thread look for pending uploads, and start it if it is not running."""
        if not self._enabled:
            return
        with self._lock:
            if self._looked[0] != os.getpid():
                self._thread, self._woken = None, Event()
            self._looked = (os.getpid(), time.monotonic())
            self._woken.set()
            if self._thread is not None:
                return
            name = "kinto-attachment verifier"
            thread = Thread(target=self._run, args=(self._woken,), name=name, daemon=True)
            try:
                thread.start()
            except RuntimeError:
                logger.exception("The thread that verifies uploads cannot be started now.")
                return
            self._thread = thread

    def _run(self, woken: Event) -> None:
        verifier, thread = self._make_verifier(), current_thread()

        def stop() -> None:
            verifier.stopped.set()
            woken.set()
            thread.join(STOP_SECONDS)

        atexit.register(stop)
        idle, over = 0, False
        while not (over or verifier.stopped.is_set()):
            woken.clear()
            done, remaining = self._pass(verifier)
            idle = 0 if done else idle + 1
            over = self._is_over(woken, remaining and idle < IDLE_PASSES)
            if not over:
                # Another process may die and leave behind the uploads that it has leased.
                woken.wait(IDLE_SECONDS)
        atexit.unregister(stop)

    def _pass(self, verifier: Verifier) -> tuple[bool, bool]:
        """Verify all pending uploads once. Return whether any upload was confirmed or discarded,
        and whether any is still pending."""
        done = False
        try:
            for finding in verifier.verify():
                done = done or not finding.is_problem
                if finding.is_problem:
                    logger.error("%s", finding)
            return done, verifier.count() > 0
        except Exception:
            # An error of the storage, or one of SQLAlchemy's at a commit. A thread has no caller
            # that could handle it.
            transaction.abort()
            logger.exception("Uploads cannot be verified now. The verifier will try again.")
            return False, True

    def _is_over(self, woken: Event, goes_on: bool) -> bool:
        """Return whether the thread has to end. If so, the next call of :meth:`wake` starts another
        thread."""
        with self._lock:
            over = not goes_on and not woken.is_set()
            if over and self._woken is woken:
                self._thread = None
            return over
