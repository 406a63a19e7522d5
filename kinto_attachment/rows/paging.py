"""Rows of Kinto's own storage, any number of them, a page at a time."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice, pairwise
from typing import Any, TypeVar

from kinto.core.storage import Filter, Sort
from kinto.core.utils import COMPARISON

from ..files.ref import RecordRef, Ref

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


ListAll = Callable[..., list[Row]]
"""Kinto's own ``list_all``, or one that is a transaction of its own."""


def records_of(
    list_all: ListAll,
    *filters: Filter,
    bucket: str | None = None,
    collection: str | None = None,
    record: str | None = None,
) -> Iterator[tuple[str, list[Row]]]:
    """Pages of all records, or of those of one bucket, collection or record, with the URI of
    their collection."""
    for uri in _collections(list_all, bucket, collection):
        for rows in keyset(partial(list_all, "record", uri), *filters, *_only(record)):
            yield uri, rows


def _collections(list_all: ListAll, bucket: str | None, collection: str | None) -> Iterator[str]:
    if bucket is not None and collection is not None:
        yield f"/buckets/{bucket}/collections/{collection}"
        return
    for buckets in keyset(partial(list_all, "bucket", ""), *_only(bucket)):
        for uri in (f"/buckets/{row['id']}" for row in buckets):
            for rows in keyset(partial(list_all, "collection", uri)):
                yield from (f"{uri}/collections/{row['id']}" for row in rows)


def _only(object_id: str | None) -> list[Filter]:
    return [] if object_id is None else [Filter("id", object_id, COMPARISON.EQ)]


def rows_of(list_all: ListAll, refs: Iterable[Ref]) -> dict[Ref, Row]:
    """Those of these records that are there, now. What is no record has no row."""
    by_collection: dict[str, dict[str, Ref]] = {}
    for ref in refs:
        if not isinstance(ref, RecordRef):
            continue
        by_collection.setdefault(ref.collection_uri, {})[ref.record] = ref
    found = {}
    for uri, by_id in by_collection.items():
        among = [Filter("id", list(by_id), COMPARISON.IN)]
        for row in list_all("record", uri, filters=among):
            found[by_id[row["id"]]] = row
    return found
