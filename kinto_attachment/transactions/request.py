"""The transaction of a request: its files, and its database connection."""

from collections.abc import Callable
from typing import TypeVar

from pyramid.request import Request

from .files import FileTransaction
from .restart import restart_transaction

Item = TypeVar("Item")

_BOUND = "attachment.files"


def file_transaction(request: Request) -> FileTransaction:
    """Return the data manager of the request's transaction, joined to it.

    It is settled when the outermost request is finished, because a subrequest finishes early.
    """
    files = request.bound_data.get(_BOUND)
    if files is None:
        files = request.registry.attachment_plugin.begin(request.tm)
        request.bound_data[_BOUND] = files
        outermost(request).add_finished_callback(lambda request: files.settle())
    files.join()
    return files


def outermost(request: Request) -> Request:
    """Return the request that the server received, of which this one may be a part (a batch, the
    default bucket)."""
    while getattr(request, "parent", None) is not None:
        request = request.parent
    return request


def is_in_batch(request: Request) -> bool:
    """Return whether the request is an operation of a batch: other operations share its
    transaction."""
    return getattr(outermost(request).matched_route, "name", None) == "batch"


def release_connection(request: Request) -> None:
    """Give the database connection back to the pool until it is needed again, so that none is held
    while bytes move.

    The transaction is aborted and another one begun: call this only before the request has written
    anything. Stored bytes are carried over, and so are the after-commit hooks that were added at
    the start of the request; Kinto's ``AfterResourceChanged`` is one.
    """
    _forget_reads(request)
    restart_transaction(request.tm, request.bound_data.get(_BOUND))


def start_over(request: Request) -> None:
    """Undo what the request did in its transaction, to run it again after a conflict. Stored bytes
    are carried over; hooks are not, because they are added again."""
    _forget_reads(request)
    restart_transaction(request.tm, request.bound_data.get(_BOUND), carry_hooks=False)


def outside_transaction(request: Request, call: Callable[[], Item]) -> Item:
    """Return what ``call`` returns, called while the request has no transaction; ``call`` may have
    transactions of its own.

    Call this only before the request has written anything.
    """
    return restart_transaction(request.tm, request.bound_data.get(_BOUND), between=call)


def _forget_reads(request: Request) -> None:
    """Drop what Kinto remembers of objects that it read or changed in this transaction."""
    for name in ("resource_events", "buckets", "collections"):
        request.bound_data.pop(name, None)
