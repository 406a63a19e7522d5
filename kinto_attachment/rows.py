"""Rows of Kinto's own storage, any number of them, a page at a time."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice, pairwise
from typing import Any, TypeVar

from kinto.core.storage import Filter, Sort
from kinto.core.utils import COMPARISON

Item = TypeVar("Item")
Row = dict[str, Any]

PAGE = 1000
"""Keys in one row or one filter."""


def pages(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Lists of at most :data:`PAGE` of them.

    >>> [len(page) for page in pages(range(2500))]
    [1000, 1000, 500]
    """
    items = iter(items)
    while page := list(islice(items, PAGE)):
        yield page


def scan(storage: Any, resource_name: str, parent: str) -> Iterator[dict[str, Any]]:
    """Rows below a parent, one of each id, in the order of their ids."""
    for rows in keyset(partial(storage.list_all, resource_name, f"{parent}/*")):
        for last, row in pairwise([None, *rows]):
            if last is None or last["id"] != row["id"]:
                yield row


def keyset(list_all: Callable[..., list[Row]], *filters: Filter) -> Iterator[list[Row]]:
    """Pages of rows in the order of their ids: keyset paging over the primary key. Of rows that
    share an id, those beyond a page are not seen.

    :param list_all: Kinto's own, with its resource name and parent; each call is one page.
    :param filters: which rows.
    """
    after: list[Filter] = []
    order = [Sort("id", 1)]
    while rows := list_all(filters=[*filters, *after], sorting=order, limit=PAGE):
        yield rows
        after = [Filter("id", rows[-1]["id"], COMPARISON.GT)]
