"""Repeating a request that ran into a conflict, once its bytes are safe.

Kinto's timestamps are unique in a collection and are taken without a lock: of two records, or two
history entries, that are written in the same millisecond, one fails
(https://github.com/mozilla-services/cliquet/issues/25). Concurrent writes of one record may
deadlock. Kinto answers 409 and 503, and leaves it to the client to send everything again.

Every request, a batch too, is repeated if it stored a record with an attachment that was replaced
since Kinto read the record.
"""

import logging
import random
import time
from collections.abc import Callable
from contextvars import ContextVar

from kinto.core.storage.exceptions import BackendError, IntegrityError
from pyramid.registry import Registry
from pyramid.request import Request
from pyramid.response import Response

from ..errors import ReplacedMeanwhile, SourceReplaced
from .request import is_in_batch, start_over
from .restart import ATTEMPTS

logger = logging.getLogger(__name__)

_REPEATABLE = "attachment.repeatable"
_CHECKS = "attachment.checks"

# https://www.postgresql.org/docs/current/errcodes-appendix.html: serialization failure, deadlock
_TRY_AGAIN = {"40001", "40P01"}
_INTEGRITY = "23"  # the class of the codes that Kinto's IntegrityError stands for

_current: ContextVar[Request | None] = ContextVar("attachment_current", default=None)
"""The request that this thread handles, if another attempt is left after this one."""


def allow_retry(request: Request) -> None:
    """Declare that from here on everything the request does may be undone and repeated.

    A batch is not, because a conflict may concern operations that are not ours.
    """
    if not is_in_batch(request):
        request.bound_data[_REPEATABLE] = True


def tween_factory(handler: Callable, registry: Registry) -> Callable[[Request], Response]:
    """Return the tween. It runs within the transaction, around the views and the listeners of
    Kinto's events."""
    logging.getLogger("kinto.core.storage.postgresql.client").addFilter(is_worth_logging)

    def tween(request: Request) -> Response:
        unlinked = ""
        for attempt in range(1, ATTEMPTS):
            token = _current.set(request)
            try:
                return _handle(handler, request)
            except (BackendError, ReplacedMeanwhile) as error:
                if not _will_be_repeated(request, error):
                    raise
                if isinstance(error, ReplacedMeanwhile):
                    if unlinked and error.unlinked == unlinked:
                        raise  # twice the same: its file is lost, and not by a race
                    unlinked = error.unlinked
                logger.info("Conflict, attempt %d: %s", attempt, error)
            finally:
                _current.reset(token)
            start_over(request)
            time.sleep(random.uniform(0, 0.01 * attempt))
        return _handle(handler, request)

    return tween


def check_at_end(request: Request, check: Callable[[], None]) -> None:
    """Call a check when everything else is done, but still within the transaction. If it raises a
    conflict, the request is repeated."""
    request.bound_data.setdefault(_CHECKS, []).append(check)


def _handle(handler: Callable, request: Request) -> Response:
    request.bound_data.pop(_CHECKS, None)
    response = handler(request)
    for check in request.bound_data.pop(_CHECKS, ()):
        check()
    return response


def is_worth_logging(record: logging.LogRecord) -> bool:
    """Return whether an operator has to know of an error that Kinto's client of PostgreSQL logs.
    It logs every error with a traceback, also those of a request that is repeated and succeeds."""
    request, error = _current.get(), record.exc_info and record.exc_info[1]
    return not (request and error and _will_be_repeated(request, error))


def _will_be_repeated(request: Request, error: BaseException) -> bool:
    if isinstance(error, ReplacedMeanwhile) and not isinstance(error, SourceReplaced):
        return request.registry.attachment_plugin.rows.rolls_back
    return bool(request.bound_data.get(_REPEATABLE)) and _is_conflict(error)


def _is_conflict(error: BaseException) -> bool:
    """Return whether another request was in the way.

    :param error: ours, Kinto's, or SQLAlchemy's, which Kinto's is made from.
    """
    cause = getattr(getattr(error, "original", error), "orig", None)
    code = getattr(cause, "pgcode", None) or ""
    return isinstance(error, IntegrityError) or code in _TRY_AGAIN or code.startswith(_INTEGRITY)
