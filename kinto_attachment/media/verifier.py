"""Verification of uploads that came with ``?verify=false``.

**How leases work.** Any number of processes may verify, and each may die at any moment. The row of
a pending upload says what has to be done, and a lease says which process is doing it. Both rows are
described in :mod:`kinto_attachment.rows.uploads`. A verifier commits its lease before it begins to
hash, and skips every upload that another process has leased. While it hashes, it renews the lease
several times within ``LEASE_SECONDS``. If it dies, the lease expires and another process takes
over. If it was only slow, it notices at its next renewal that the lease is lost, and stops hashing.
When it is done or has to stop, it gives the lease back. Leases only keep two processes from doing
the same work. Safety does not depend on them: to confirm or discard an upload, a process has to
take the row of the upload, and only one process can.
"""

import atexit
import logging
import os
import time
from collections.abc import Callable, Iterator
from itertools import islice
from threading import Event, Lock, Thread, current_thread
from typing import Any
from uuid import uuid4

import transaction

from ..errors import BlobNotFound, StorageError
from ..files.blob import Digest
from ..finding import NO_PROGRESS, Finding, Progress, restoring
from ..metrics import Metrics
from ..rows.uploads import LEASE_SECONDS, Pending
from ..transactions.restart import in_transaction, repeated
from .store import MediaStore

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


class _Lost(Exception):
    """The upload or its lease belongs to another process by now, or the verifier has to stop."""


class Verifier:
    """A verifier of pending uploads, for one thread.

    :param media: the media store.
    :param metrics: counts what was verified.
    :ivar stopped: an event; once it is set, the verifier stops, even in the middle of an upload.
    """

    def __init__(self, media: MediaStore, metrics: Metrics):
        self._media = media
        self._plugin = media.plugin
        self._pending = media.plugin.rows.pending
        self._metrics = metrics
        self._holder = uuid4().hex
        self.stopped = Event()

    def verify(self, progress: Progress = NO_PROGRESS) -> Iterator[Finding]:
        """Verify all uploads that are pending now, except those that other processes have leased.

        Yield one finding for each upload: ``verified`` if its hash is right, or ``refused`` if it
        is wrong, and then the upload was removed. An upload that cannot be read is a problem, and
        stays pending.

        :param progress: is told of the uploads, and of the bytes that are hashed.
        :raises StorageError: if :data:`MAX_FAILURES` uploads in a row cannot be read. Uploads whose
            bytes are missing do not count.
        """
        self._progress = progress
        failures = 0
        progress.begin("uploads")
        if progress.is_shown:
            for page in self._pages():
                progress.expect(len(page), sum(upload.size for upload in page))
        for page in self._pages():
            for upload in page:
                progress.add_files()
                try:
                    finding = self._leased(upload)
                    failures = 0
                except StorageError as error:
                    finding = self._problem(upload, error)
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
        """Return how many uploads are pending, leased or not, and report the number as a metric."""
        count = sum(len(page) for page in self._pages())
        self._metrics.observe("pending_verifications", count)
        return count

    def _pages(self) -> Iterator[list[Pending]]:
        uploads = self._pending.all()
        while page := _committed(lambda: list(islice(uploads, BATCH))):
            yield page

    def _leased(self, upload: Pending) -> Finding | None:
        """Verify one upload under a lease. Return None if the lease cannot be taken or is lost, or
        if the verifier has to stop."""
        pending = self._pending
        if self.stopped.is_set() or not _committed(lambda: pending.lease(upload, self._holder)):
            return None
        try:
            return self._verify(upload)
        except _Lost:
            return None
        finally:
            _committed(lambda: pending.give_back(upload, self._holder))

    def _problem(self, upload: Pending, error: StorageError) -> Finding | None:
        """Return the finding for an upload that cannot be read or copied. Return None if the upload
        is no longer pending: it was deleted, or another process has verified it."""
        if not _committed(lambda: self._pending.has(upload)):
            return None
        if isinstance(error, BlobNotFound):
            # The upload is kept: the folder may be a wrong one, or may not be mounted.
            remedy = restoring(upload.ref.uri)
            return Finding("missing object", upload.key, upload.ref.uri, remedy=remedy)
        return Finding("unreadable object", upload.key, upload.ref.uri, str(error), AGAIN)

    def _verify(self, upload: Pending) -> Finding:
        """Hash the bytes, and confirm or discard the upload.

        :raises _Lost: if another process has done so, or if the verifier has to stop.
        """
        found = self._hash(upload)
        is_right = found == upload.ref.digest
        settle = self._media.confirm if is_right else self._media.discard

        def settled() -> None:
            files = self._plugin.begin(transaction.manager)
            with files.transaction():
                if not settle(files, upload):
                    raise _Lost()

        repeated(settled)
        if is_right:
            return Finding("verified", upload.key, upload.ref.uri)
        logger.warning("An upload to %s was removed: its SHA-256 is %s", upload.ref.uri, found)
        return Finding("refused", upload.key, upload.ref.uri, f"SHA-256 is {found}")

    def _hash(self, upload: Pending) -> str:
        """Return the SHA-256 of the stored bytes, in hex, and renew the lease meanwhile.

        :raises _Lost: if the lease is lost, or if the verifier has to stop.
        """
        renewed = time.monotonic()

        def on_bytes(count: int) -> None:
            nonlocal renewed
            self._progress.add_bytes(count)
            if self.stopped.is_set():
                raise _Lost()
            if time.monotonic() - renewed > LEASE_SECONDS / 3:
                renewed = time.monotonic()
                if not _committed(lambda: self._pending.renew(upload, self._holder)):
                    raise _Lost()

        return Digest.of(self._plugin.storage.open(upload.key), on_bytes).hexdigest()


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


def _committed(call: Callable[[], Any]) -> Any:
    """Return what the function returns, run in a transaction of its own. It is repeated after a
    conflict, such as when another verifier takes the lease of an upload in the same millisecond."""
    return in_transaction(transaction.manager, call)
