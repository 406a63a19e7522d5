"""A circuit breaker: stop calling a storage that keeps timing out.

A call to a storage that does not answer holds a thread of the server until all its timeouts and
retries are over. Once every thread is waiting like this, the server cannot even answer requests
that need no storage. The breaker therefore makes such calls fail immediately:
https://martinfowler.com/bliki/CircuitBreaker.html.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

from ..errors import StorageUnavailable

logger = logging.getLogger(__name__)

SLOW_FAILURES = 3
"""Consecutive slow failures after which calls are refused. A single slow failure may be due to the
request rather than to the storage."""


class CircuitBreaker:
    """A count of consecutive slow failures. From :data:`SLOW_FAILURES` on, calls are refused.

    A call that succeeds or fails fast resets the count. A fast failure blocks no thread, and a
    storage that refuses one request may well accept the next.

    :param patience: seconds; a failure that takes at least as long is slow.
    :param pause: seconds. While calls are refused, one call is let through this long after the
        last slow failure, and then one in every ``pause`` seconds, until the count is reset.
    :param clock: a function that returns a monotonic time in seconds.
    :ivar on_event: is called with ``opened`` or ``closed``, and with ``refused`` for each call that
        is refused.

    ::

        with breaker.call(key):
            ...  # a call that may raise StorageUnavailable
    """

    def __init__(
        self, patience: float, pause: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._patience = patience
        self._pause = pause
        self._clock = clock
        self._lock = Lock()
        self._failures = 0
        self._next = 0.0
        self.on_event: Callable[[str], None] = lambda event: None

    @contextmanager
    def call(self, key: str) -> Iterator[None]:
        """Wrap one call to the storage, and count it if it is a slow failure.

        :param key: the key that the error names.
        :raises StorageUnavailable: if calls are refused at the moment. The wrapped code does not
            run then.
        """
        try:
            self._check(key)
        except StorageUnavailable:
            self.on_event("refused")
            raise
        started = self._clock()
        try:
            yield
        except StorageUnavailable:
            self._count(self._clock() - started >= self._patience)
            raise
        except Exception:
            self._count(False)  # the storage answered, for example that the key is taken
            raise
        self._count(False)

    def _check(self, key: str) -> None:
        with self._lock:
            if self._failures < SLOW_FAILURES:
                return
            wait = self._next - self._clock()
            if wait > 0:
                reason = f"{self._failures} calls in a row timed out, retry in {wait:.1f} s"
                raise StorageUnavailable(key, reason)
            self._next = self._clock() + self._pause

    def _count(self, slow_failure: bool) -> None:
        with self._lock:
            before, self._failures = self._failures, self._failures + 1 if slow_failure else 0
            if slow_failure:
                self._next = self._clock() + self._pause
        if self._failures == SLOW_FAILURES > before:
            logger.warning("The storage does not answer. Calls fail immediately until it does.")
            self.on_event("opened")
        elif before >= SLOW_FAILURES and not slow_failure:
            logger.warning("Calls to the storage no longer time out: they are let through again.")
            self.on_event("closed")
