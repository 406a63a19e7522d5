"""Records, as jobs read them: by the page, or those of some links."""

from collections.abc import Iterable, Iterator
from typing import Any

from kinto.core.storage import Filter, Sort
from kinto.core.utils import COMPARISON

from ..blob import RecordRef
from ..guard import ATTRIBUTE
from ..links import Link
from ..rows import PAGE
from . import Server


def records_of(server: Server) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Pages of all records, with the URI of their collection."""
    for buckets in _rows(server, "bucket", ""):
        for bucket in buckets:
            bucket_uri = f"/buckets/{bucket['id']}"
            for collections in _rows(server, "collection", bucket_uri):
                for collection in collections:
                    uri = f"{bucket_uri}/collections/{collection['id']}"
                    for page in _rows(server, "record", uri):
                        yield uri, page


def _rows(server: Server, resource_name: str, parent: str) -> Iterator[list[dict[str, Any]]]:
    """Keyset paging by the id."""
    filters: list[Filter] = []
    order = [Sort("id", 1)]
    while page := server.rows(resource_name, parent, filters=filters, sorting=order, limit=PAGE):
        yield page
        filters = [Filter("id", page[-1]["id"], COMPARISON.GT)]


def rows_of(server: Server, links: Iterable[Link]) -> dict[RecordRef, dict[str, Any]]:
    """The records of these links, those that are there."""
    by_collection: dict[str, dict[str, RecordRef]] = {}
    for link in links:
        by_collection.setdefault(link.ref.collection_uri, {})[link.ref.record] = link.ref
    found = {}
    for uri, refs in by_collection.items():
        only = [Filter("id", list(refs), COMPARISON.IN)]
        for row in server.rows("record", uri, filters=only):
            found[refs[row["id"]]] = row
    return found


def without_record(server: Server, links: list[Link]) -> list[Link]:
    """Those links whose record is gone, or has another attachment."""
    rows = rows_of(server, links)
    return [link for link in links if not link.is_of(rows.get(link.ref, {}).get(ATTRIBUTE))]
