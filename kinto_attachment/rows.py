"""Rows of Kinto's own storage, any number of them, a page at a time."""

from collections.abc import Iterable, Iterator
from itertools import islice, pairwise
from typing import Any, TypeVar

from kinto.core.storage import Filter, Sort
from kinto.core.utils import COMPARISON

Item = TypeVar("Item")

PAGE = 1000
"""Keys in one row or one filter, and in one DeleteObjects of S3."""


def pages(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Lists of at most :data:`PAGE` of them.

    >>> [len(page) for page in pages(range(2500))]
    [1000, 1000, 500]
    """
    items = iter(items)
    while page := list(islice(items, PAGE)):
        yield page


def scan(storage: Any, resource_name: str, parent: str) -> Iterator[dict[str, Any]]:
    """Rows below a parent, one of each id, in the order of their ids: keyset paging over the
    primary key."""
    filters: list[Filter] = []
    while rows := storage.list_all(
        resource_name, f"{parent}/*", filters=filters, sorting=[Sort("id", 1)], limit=PAGE
    ):
        for last, row in pairwise([None, *rows]):
            if last is None or last["id"] != row["id"]:
                yield row
        filters = [Filter("id", rows[-1]["id"], COMPARISON.GT)]
