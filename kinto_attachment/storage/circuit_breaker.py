"""A storage that lets everybody wait in vain is left alone for a while.

See https://martinfowler.com/bliki/CircuitBreaker.html. A call that is given up has held a thread of
the server for all its time-outs and repetitions; where every thread waits so, nobody is left to
answer what needs no storage.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

from ..errors import StorageUnavailable

logger = logging.getLogger(__name__)

SLOW_FAILURES = 3
"""Calls in a row that failed slowly: one may be the fault of what was asked."""


class CircuitBreaker:
    """Counts the calls that were given up, and forbids others while there were only such.

    Those that fail fast are not counted: they hold nobody, and a storage that refuses one request
    may well do the next.

    :param patience: seconds after which a failure is a slow one.
    :param pause: seconds from a slow failure to the next attempt; then one call in as many
        seconds is let through, until one is answered.

    ::

        with breaker.call(key):
            ...  # what raises StorageUnavailable
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

    @contextmanager
    def call(self, key: str) -> Iterator[None]:
        """
        :raises StorageUnavailable: at once, without a call, while the storage is left alone.
        """
        self._check(key)
        started = self._clock()
        try:
            yield
        except StorageUnavailable:
            self._count(self._clock() - started >= self._patience)
            raise
        except Exception:
            self._count(False)  # an answer too: it is not there, or it is taken
            raise
        self._count(False)

    def _check(self, key: str) -> None:
        with self._lock:
            if self._failures < SLOW_FAILURES:
                return
            left = self._next - self._clock()
            if left > 0:
                reason = f"{self._failures} calls were given up, the next is in {left:.1f} s"
                raise StorageUnavailable(key, reason)
            self._next = self._clock() + self._pause

    def _count(self, slow_failure: bool) -> None:
        with self._lock:
            before, self._failures = self._failures, self._failures + 1 if slow_failure else 0
            if slow_failure:
                self._next = self._clock() + self._pause
        if self._failures == SLOW_FAILURES > before:
            logger.warning("The storage does not answer: calls fail at once until it does.")
        elif before >= SLOW_FAILURES and not slow_failure:
            logger.warning("The storage does not let callers wait any more.")
