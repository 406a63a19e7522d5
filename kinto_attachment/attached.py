"""Records as Kinto's storage has them: by the page, or some of them."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from kinto.core.storage import Filter
from kinto.core.utils import COMPARISON

from .blob import RecordRef, Ref
from .rows import Row, keyset

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
