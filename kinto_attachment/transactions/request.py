"""Files joined to Kinto's transaction, and a connection given back while bytes move."""

from collections.abc import Callable
from typing import TypeVar

from pyramid.request import Request

from .files import Files, begin_again

Item = TypeVar("Item")

_BOUND = "attachment.files"


def files_of(request: Request) -> Files:
    """The files of the transaction that the request is part of, joined to it.

    They are settled when the outermost request is finished: a subrequest finishes early.
    """
    files = request.bound_data.get(_BOUND)
    if files is None:
        files = request.registry.attachment_files(request.tm)
        request.bound_data[_BOUND] = files
        outermost(request).add_finished_callback(lambda request: files.settle())
    files.join()
    return files


def outermost(request: Request) -> Request:
    """The request that came in, of which this one may be a part (batch, default bucket)."""
    while getattr(request, "parent", None) is not None:
        request = request.parent
    return request


def is_in_batch(request: Request) -> bool:
    """Whether the request is an operation of a batch, with others before and after it in the
    same transaction."""
    return getattr(outermost(request).matched_route, "name", None) == "batch"


def restart(request: Request, *, carry_hooks: bool = True) -> None:
    """End the transaction without a trace and begin another: the database connection is given
    back to the pool, until it is needed again.

    Legal before anything was written, or to try again what failed. Bytes that came with the
    transaction are carried over.

    :param carry_hooks: take the after-commit hooks along, which were added at the start of the
        request; Kinto's ``AfterResourceChanged`` is one.
    """
    for name in ("resource_events", "buckets", "collections"):
        request.bound_data.pop(name, None)
    begin_again(request.tm, request.bound_data.get(_BOUND), carry_hooks)


def apart(request: Request, call: Callable[[], Item]) -> Item:
    """What it returns, called while the request has no transaction; it may have one of its own.

    Legal before anything was written.
    """
    return begin_again(request.tm, request.bound_data.get(_BOUND), between=call)
