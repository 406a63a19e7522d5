"""Repeating a request that ran into a conflict, once its bytes are safe.

Kinto's timestamps are unique in a collection and are taken without a lock: of two records, or two
history entries, that are written in the same millisecond, one fails
(https://github.com/mozilla-services/cliquet/issues/25). Concurrent writes of one record may
deadlock. Kinto answers 409 and 503, and leaves it to the client to send everything again.
"""

import logging
import random
import time
from collections.abc import Callable

from kinto.core.storage.exceptions import BackendError, IntegrityError
from pyramid.registry import Registry
from pyramid.request import Request
from pyramid.response import Response

from ..errors import ReplacedMeanwhile
from .request import is_in_batch, start_over

logger = logging.getLogger(__name__)

ATTEMPTS = 15
"""Each attempt that fails means that another request has succeeded."""

_REPEATABLE = "attachment.repeatable"

# https://www.postgresql.org/docs/current/errcodes-appendix.html: serialization failure, deadlock
_TRY_AGAIN = {"40001", "40P01"}


def allow_retry(request: Request) -> None:
    """Declare that from here on everything the request does may be undone and repeated.

    A batch is never repeated, because its other operations are not ours.
    """
    if not is_in_batch(request):
        request.bound_data[_REPEATABLE] = True


def tween_factory(handler: Callable, registry: Registry) -> Callable[[Request], Response]:
    """Return the tween. It runs within the transaction, around the views and the listeners of
    Kinto's events."""

    def tween(request: Request) -> Response:
        for attempt in range(1, ATTEMPTS):
            try:
                return handler(request)
            except (BackendError, ReplacedMeanwhile) as error:
                if not request.bound_data.get(_REPEATABLE) or not _is_conflict(error):
                    raise
                logger.info("Conflict, attempt %d: %s", attempt, error)
            start_over(request)
            time.sleep(random.uniform(0, 0.01 * attempt))
        return handler(request)

    return tween


def _is_conflict(error: Exception) -> bool:
    cause = getattr(getattr(error, "original", None), "orig", None)
    return (
        isinstance(error, IntegrityError | ReplacedMeanwhile)
        or getattr(cause, "pgcode", None) in _TRY_AGAIN
    )
