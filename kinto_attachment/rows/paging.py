"""Reading, creating and deleting rows of Kinto's storage.

Kinto returns and deletes at most ``storage_max_fetch_size`` rows a call, and one row more when it
is given a limit. Every function here therefore repeats a call until nothing is left, and takes a
short answer for a complete one only if it is told how many rows a call returns at least.
"""

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from types import UnionType
from typing import Any, TypeVar, get_args
from uuid import uuid4

from kinto.core.storage import MISSING, Filter, Sort
from kinto.core.storage.exceptions import UnicityError
from kinto.core.utils import COMPARISON

from ..errors import KeyRefused
from ..files.key import is_key, key_suffixes
from ..files.ref import FieldRef, RecordRef, Ref

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Row = dict[str, Any]

ListAll = Callable[..., list[Row]]
"""Kinto's own ``list_all``, or one that runs each call in a transaction of its own."""

UNREADABLE = (AttributeError, KeyError, TypeError, ValueError, KeyRefused)
"""What reading a row raises if it is not as this plugin writes it."""

PAGE = 1000
"""The most keys in a row or a filter, and the most rows in a page."""


def pages(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Yield lists of at most :data:`PAGE` items.

    >>> [len(page) for page in pages(range(2500))]
    [1000, 1000, 500]
    """
    items = iter(items)
    while page := list(islice(items, PAGE)):
        yield page


def create_row(storage: Any, resource_name: str, parent: str, row: Row) -> bool:
    """Write a new row; return False if there is one of its id below that parent already.

    Before Kinto writes a row that has an id, it looks for one of that id. PostgreSQL refuses a
    second one anyway, so there Kinto gets the id in another way.
    """
    row_id = row["id"]
    if hasattr(storage, "client"):
        row = {name: value for name, value in row.items() if name != "id"}
    try:
        storage.create(resource_name, parent, row, id_generator=lambda: row_id)
    except UnicityError:
        return False
    return True


def database_time(storage: Any) -> int:
    """Return milliseconds since 1970 by the clock of the database, which dates all rows."""
    name, row_id = "attachment-time", uuid4().hex
    parent = f"/attachment-times/{row_id}"
    row = storage.update(name, parent, row_id, {})
    storage.delete_all(name, parent, with_deleted=False)
    return row["last_modified"]


def fetch_size(storage: Any) -> int:
    """Return how many rows the storage returns at least, if there are as many; 0 if it does not
    say."""
    return getattr(storage, "_max_fetch_size", 0)


def keyset(
    list_all: ListAll, *filters: Filter, by: tuple[str, ...] = ("id",), least: int = 0
) -> Iterator[list[Row]]:
    """Yield pages of rows in the order of some of their fields: keyset paging.

    :param list_all: with its resource name and parent bound; each call reads one page.
    :param filters: which rows.
    :param by: fields that together identify a row. Where rows share all of them, those beyond the
        end of a page are skipped.
    :param least: how many rows each call returns at least, if there are as many: a call that
        returns fewer is the last one.
    """
    order = [Sort(name, 1) for name in by]
    start: list[Filter] = []
    rules: list[list[Filter]] = []
    while rows := list_all(
        filters=[*filters, *start], sorting=order, pagination_rules=rules, limit=PAGE
    ):
        yield rows
        if len(rows) < min(least, PAGE):
            return
        last = rows[-1]
        # Redundant, but PostgreSQL does not see in the rules where its index scan can begin.
        start = [Filter(by[0], last[by[0]], COMPARISON.MIN)]
        rules = [
            [
                *(Filter(name, last.get(name, MISSING), COMPARISON.EQ) for name in by[:depth]),
                Filter(by[depth], last.get(by[depth], MISSING), COMPARISON.GT),
            ]
            for depth in reversed(range(len(by)))
        ]


@dataclass(frozen=True)
class UnreadableRow:
    """A row that cannot be read, because another program has written or changed it.

    :param name: the resource name of the row.
    :param row: what is in it.
    :param reason: why it cannot be read.
    """

    name: str
    row: Row
    reason: str

    @property
    def owner(self) -> str:
        """The URI of the owner that it names; empty if it names none."""
        return str(self.row.get("record") or "")

    def __str__(self) -> str:
        return f"{self.name} {self.row['id']}: {self.reason}"

    @property
    def keys(self) -> set[str]:
        """All keys that the row may name: each of its texts, wherever it is, and the ends of a
        text that may be a location."""
        return {key for text in _texts(self.row) for key in key_suffixes(text) if is_key(key)}


def readable(rows: Iterable[Row], read: Callable[[Row], Item]) -> Iterator[Item]:
    """Yield what the rows say. A row that cannot be read is logged and left out.

    :param read: returns what a row says, or raises one of :data:`UNREADABLE`.
    """
    for row in rows:
        try:
            yield read(row)
        except UNREADABLE as error:
            logger.warning("A row is ignored, because it cannot be read: %r: %s", row, error)


def unreadable(
    name: str, rows: Iterable[Row], read: Callable[[Row], Any]
) -> Iterator[UnreadableRow]:
    """Yield the rows that :func:`readable` leaves out.

    :param name: the resource name of the rows.
    """
    for row in rows:
        try:
            read(row)
        except UNREADABLE as error:
            yield UnreadableRow(name, row, str(error))


def check_types(row: Row, **kinds: type | UnionType) -> None:
    """Check the types of some values of a row.

    :param kinds: the type of each value, or several, as in ``int | None``. A value that is missing
        counts as None.
    :raises TypeError: if a value is of another type.

    >>> check_types({"size": True}, size=int)
    Traceback (most recent call last):
    TypeError: size is not of the type int
    """
    for name, kind in kinds.items():
        if type(row.get(name)) not in (get_args(kind) or (kind,)):
            raise TypeError(f"{name} is not of the type {getattr(kind, '__name__', kind)}")


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in a JSON value, and every text that follows a colon in one: the ids of
    links begin with a word and a colon."""
    values = [value]
    while values:
        match values.pop():
            case str(text):
                yield text
                yield text.partition(":")[2]
            case list(items):
                values += items
            case dict(members):
                values += [*members, *members.values()]


def scan(storage: Any, resource_name: str, parent: str) -> Iterator[Row]:
    """Yield one row of each id below a parent, in the order of the ids."""
    last = None
    for rows in keyset(partial(storage.list_all, resource_name, f"{parent}/*")):
        for row in rows:
            if row["id"] != last:
                yield row
            last = row["id"]


def find_rows(list_all: ListAll, ids: Iterable[str], *filters: Filter) -> dict[str, Row]:
    """Return rows by their ids, one of each id.

    :param list_all: with its resource name and parent bound.
    :param ids: any number of them.
    :param filters: further conditions.
    """
    found: dict[str, Row] = {}
    for page in pages(ids):
        missing = set(page)
        while missing:
            among = Filter("id", sorted(missing), COMPARISON.IN)
            rows = list_all(filters=[*filters, among], limit=len(missing))
            if not rows:
                break
            found |= {row["id"]: row for row in rows}
            missing -= found.keys()
    return found


def delete_rows(
    storage: Any,
    resource_name: str,
    parent: str,
    *filters: Filter,
    with_deleted: bool = False,
    most: float = math.inf,
) -> list[Row]:
    """Delete all rows below a parent that pass the filters, and return them.

    :param with_deleted: leave tombstones.
    :param most: how many such rows there are at most: no further call is made once as many are
        deleted.
    """
    gone: list[Row] = []
    while len(gone) < most and (
        rows := storage.delete_all(
            resource_name, parent, filters=list(filters), with_deleted=with_deleted
        )
    ):
        gone += rows
    return gone


def records_of(
    list_all: ListAll,
    *filters: Filter,
    bucket: str | None = None,
    collection: str | None = None,
    record: str | None = None,
) -> Iterator[dict[RecordRef, Row]]:
    """Yield pages of all records, or of those of one bucket, collection or record. All records of
    a page are of one collection."""
    for bucket_id, collection_id in _collections(list_all, bucket, collection):
        uri = RecordRef(bucket_id, collection_id, "").collection_uri
        for rows in keyset(partial(list_all, "record", uri), *filters, *_only(record)):
            yield {RecordRef(bucket_id, collection_id, row["id"]): row for row in rows}


def _collections(
    list_all: ListAll, bucket: str | None, collection: str | None
) -> Iterator[tuple[str, str]]:
    if bucket is not None and collection is not None:
        yield bucket, collection
        return
    for buckets in keyset(partial(list_all, "bucket", ""), *_only(bucket)):
        for bucket_id in (row["id"] for row in buckets):
            for rows in keyset(partial(list_all, "collection", f"/buckets/{bucket_id}")):
                yield from ((bucket_id, row["id"]) for row in rows)


def _only(object_id: str | None) -> list[Filter]:
    return [] if object_id is None else [Filter("id", object_id, COMPARISON.EQ)]


def find_records(list_all: ListAll, refs: Iterable[RecordRef]) -> dict[RecordRef, Row]:
    """Return those of these records that exist now."""
    by_collection: dict[str, dict[str, RecordRef]] = {}
    for ref in refs:
        by_collection.setdefault(ref.collection_uri, {})[ref.record] = ref
    found: dict[RecordRef, Row] = {}
    for uri, by_id in by_collection.items():
        rows = find_rows(partial(list_all, "record", uri), by_id)
        found.update((by_id[object_id], row) for object_id, row in rows.items())
    return found


def find_owners(list_all: ListAll, refs: Iterable[Ref]) -> dict[RecordRef, Row]:
    """Return those records that exist now and are owners of these blobs. Owners other than records
    are ignored."""
    return find_records(list_all, (ref.record for ref in refs if isinstance(ref, FieldRef)))
