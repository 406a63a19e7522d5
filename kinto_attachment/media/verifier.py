"""Verifying later what came with ``?verify=false``.

Any number of processes may do it, and any of them may die at any moment: a row says what is to be
done, and a lease who is doing it (see :mod:`kinto_attachment.rows.uploads`).
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
from ..finding import Finding
from ..rows.uploads import LEASE_SECONDS, Pending
from .store import MediaStore

logger = logging.getLogger(__name__)

BATCH = 100
"""Rows read at once."""

IDLE_SECONDS = 5
"""Between two looks of a process that does nothing else."""

IDLE_PASSES = 12
"""Passes in which nothing was done, while others are at work, or nothing works."""

MAX_FAILURES = 10
"""Uploads in a row that cannot be read: then it is not they."""

LOOK_SECONDS = 60
"""How often a process looks for what others left behind."""

STOP_SECONDS = 2
"""How long a process that ends waits for it to give back its lease."""

RESTORE = "bring it back, or DELETE /media/{hash}"
AGAIN = "kinto-attachment verify"


class _Lost(Exception):
    """Somebody else does it, or it is time to stop."""


class Verifier:
    """Hashes what is pending.

    :param metrics: gives Kinto's metrics service, which is not there before the server is.
    """

    def __init__(self, media: MediaStore, metrics: Callable[[], Any]):
        self._media = media
        self._plugin = media.plugin
        self._pending = media.plugin.rows.pending
        self._metrics = metrics
        self._holder = uuid4().hex
        self.stopped = Event()

    def verify(self, on_bytes: Callable[[int], None] = lambda count: None) -> Iterator[Finding]:
        """All that is pending now and that nobody else is at: a finding for each that is
        ``verified``, or ``refused`` and removed; a problem for each that cannot be read, which
        stays.

        :param on_bytes: is told how many bytes were hashed.
        :raises StorageUnavailable: nothing can be read.
        """
        self._on_bytes = on_bytes
        failures = 0
        for page in self._pages():
            for upload in page:
                try:
                    finding = self._leased(upload)
                    failures = 0
                except StorageError as error:
                    finding = self._problem(upload, error)
                    failures += finding is not None and not isinstance(error, BlobNotFound)
                    if failures == MAX_FAILURES:
                        raise
                if finding:
                    if not finding.is_problem:
                        self._metrics().count(f"attachments.media.{finding.kind}")
                    yield finding

    def watch(self, on_bytes: Callable[[int], None] = lambda count: None) -> Iterator[Finding]:
        """All that is pending, and all that will be, until it is stopped."""
        while not self.stopped.is_set():
            try:
                yield from self.verify(on_bytes)
                self.count()
            except Exception:
                # Of the storage, or SQLAlchemy's own at a commit.
                transaction.abort()
                logger.exception("Uploads are not verified for now.")
            self.stopped.wait(IDLE_SECONDS)

    def count(self) -> int:
        """How many are pending, whoever is at them."""
        count = sum(len(page) for page in self._pages())
        self._metrics().observe("attachments.media.pending", count)
        return count

    def _pages(self) -> Iterator[list[Pending]]:
        uploads = self._pending.all()
        while page := _committed(lambda: list(islice(uploads, BATCH))):
            yield page

    def _leased(self, upload: Pending) -> Finding | None:
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
        """What is to be said of an upload that cannot be read or moved; nothing, if it was deleted
        meanwhile, or verified by somebody else."""
        if not _committed(lambda: self._pending.has(upload)):
            return None
        if isinstance(error, BlobNotFound):
            # No mismatch: it may be the wrong folder, or one that is not mounted.
            return Finding("missing object", upload.key, upload.ref.uri, remedy=RESTORE)
        return Finding("unreadable object", upload.key, upload.ref.uri, str(error), AGAIN)

    def _verify(self, upload: Pending) -> Finding:
        found = self._hash(upload)
        is_right = found == upload.ref.digest
        settle = self._media.confirm if is_right else self._media.discard
        files = self._plugin.begin(transaction.manager)
        with files.transaction():
            if not settle(files, upload):
                raise _Lost()
        if is_right:
            return Finding("verified", upload.key, upload.ref.uri)
        logger.warning("An upload to %s is refused: SHA-256 is %s", upload.ref.uri, found)
        return Finding("refused", upload.key, upload.ref.uri, f"SHA-256 is {found}")

    def _hash(self, upload: Pending) -> str:
        """Return the hash of the stored bytes; renew the lease meanwhile.

        :raises _Lost: if the lease is lost, or if the process ends.
        """
        renewed = time.monotonic()

        def on_bytes(count: int) -> None:
            nonlocal renewed
            self._on_bytes(count)
            if self.stopped.is_set():
                raise _Lost()
            if time.monotonic() - renewed > LEASE_SECONDS / 3:
                renewed = time.monotonic()
                if not _committed(lambda: self._pending.renew(upload, self._holder)):
                    raise _Lost()

        return Digest.of(self._plugin.storage.open(upload.key), on_bytes).hexdigest()


class Background:
    """A thread that verifies, in each process of a server. It is there while there is something to
    do, and is started by the request that brings it, or by any request after a while: never
    before a server forks.

    :param enabled: False to leave it to others.
    """

    def __init__(self, make_verifier: Callable[[], Verifier], enabled: bool = True):
        self._make_verifier = make_verifier
        self._enabled = enabled
        self._lock = Lock()
        self._thread: Thread | None = None
        self._woken = Event()
        self._looked: tuple[int, float] = (0, 0.0)

    def look(self) -> None:
        """Look for what others left behind, if nobody did so for a while."""
        process, when = self._looked
        if process != os.getpid() or time.monotonic() - when > LOOK_SECONDS:
            self.wake()

    def wake(self) -> None:
        """There is something to do."""
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
                logger.exception("No thread can be started: nothing is verified for now.")
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
            done, left = self._pass(verifier)
            idle = 0 if done else idle + 1
            over = self._is_over(woken, left and idle < IDLE_PASSES)
            if not over:
                # What somebody else is at may be left behind by him.
                woken.wait(IDLE_SECONDS)
        atexit.unregister(stop)

    def _pass(self, verifier: Verifier) -> tuple[bool, bool]:
        """Verify what there is; whether anything was done, and whether anything is left."""
        done = False
        try:
            for finding in verifier.verify():
                done = done or not finding.is_problem
                if finding.is_problem:
                    logger.error("%s", finding)
            return done, verifier.count() > 0
        except Exception:
            # Of the storage, or SQLAlchemy's own at a commit. Nobody is there to be told.
            transaction.abort()
            logger.exception("Uploads are not verified for now.")
            return False, True

    def _is_over(self, woken: Event, goes_on: bool) -> bool:
        """Whether the thread is to end; whoever wakes it from now on starts another."""
        with self._lock:
            over = not goes_on and not woken.is_set()
            if over and self._woken is woken:
                self._thread = None
            return over


def _committed(call: Callable[[], Any]) -> Any:
    with transaction.manager:
        return call()
