"""Which record a blob belongs to.

This is the only module that knows the rows. They are objects of Kinto's own storage, outside
``/buckets/`` so that deleting a bucket does not take them along:

==================  ============================================  ==============  ==============
resource_name       parent_id                                     id              data
==================  ============================================  ==============  ==============
attachment-link     /attachment-links/{bucket}/{coll.}/{record}   ``own:{key}``,  ``hash``,
                                                                  ``shared:...``  ``record``,
                                                                                  ``filename``,
                                                                                  ``mimetype``,
                                                                                  ``size``
==================  ============================================  ==============  ==============

* The key is in the id of a link, so that ``delete_all`` gives back the keys it took, and so that
  the primary key, which begins with the id, finds who links a key.
* One parent a record: its links are found and deleted by one equality, and two uploads never
  meet on Kinto's unique index over ``(parent_id, resource_name, last_modified)``.
* Links are deleted as Kinto deletes records: a tombstone stays, and says that a record had a key
  and lost it. A write that still has it is out of date. A record without any row is one that this
  plugin knows nothing of.
* Ids of buckets and records are escaped: PostgreSQL takes ``_`` and ``%`` in a ``parent_id`` with
  a ``*`` for wildcards, the memory storage takes the whole of it for a regular expression.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from kinto.core.storage import Filter, Sort
from kinto.core.utils import COMPARISON

from ..files.ref import RecordRef, Ref, read_ref
from .paging import PAGE, pages, scan

LINK = "attachment-link"
LINKS_PARENT = "/attachment-links"
# What neither LIKE nor a regular expression gives a meaning to.
_ESCAPED = re.compile(r"[^A-Za-z0-9-]")


@dataclass(frozen=True)
class Link:
    """A record, or an entry of the media store, has the blob of this key.

    :param digest: SHA-256 of the bytes.
    :param shared: whether other records may have it too (a key named by its hash).
    :param filename: as it was uploaded; empty if that is not known.
    :param mimetype: as the record has it; empty if that is not known.
    :param size: bytes; None if that is not known.
    :param modified: since when, in milliseconds since 1970; 0 before it is written.
    """

    ref: Ref
    key: str
    digest: str
    shared: bool = False
    filename: str = field(default="", compare=False)
    mimetype: str = field(default="", compare=False)
    size: int | None = field(default=None, compare=False)
    modified: int = field(default=0, compare=False)

    def is_of(self, attachment: Any) -> bool:
        """Whether this is the blob of that value of the attribute. However ``base_url`` was, the
        key is at the end of the location; that of a private file does not tell, but its hash.

        >>> link = Link(RecordRef("a", "b", "c"), "b/x.png", "e3b0")
        >>> link.is_of({"location": "https://cdn.example/b/x.png"})
        True
        """
        if not isinstance(attachment, dict):
            return False
        location = str(attachment.get("location", ""))
        if RecordRef.attached_at(location):
            return self.digest == attachment.get("hash")
        return _is_at(self.key, location)

    def may_be_of(self, attachment: Any) -> bool:
        """Whether it is of that value, or would be if its location was not wrong."""
        is_same = isinstance(attachment, dict) and attachment.get("hash") == self.digest
        return is_same or self.is_of(attachment)

    def is_now(self, attachment: dict[str, Any]) -> bool:
        """Whether it is of that value, and not of an older one: the same bytes may have been
        uploaded again, under another name."""
        named = (attachment.get("filename"), attachment.get("mimetype"))
        is_same = not self.filename or named == (self.filename, self.mimetype)
        return is_same and self.is_of(attachment)


class Links:
    """The rows, in Kinto's storage. Every method works within the caller's transaction.

    :param storage: ``registry.storage``.
    """

    def __init__(self, storage: Any):
        self._storage = storage

    @property
    def rolls_back(self) -> bool:
        """Whether an aborted transaction undoes what was written. Kinto's memory storage
        does not, nor does PostgreSQL with ``transaction_per_request = false``."""
        client = getattr(self._storage, "client", None)
        return client is not None and not client.commit_manually

    def add(self, link: Link) -> None:
        """Write the link, in one statement. Again changes nothing."""
        row = {
            "hash": link.digest,
            "record": link.ref.uri,
            "filename": link.filename,
            "mimetype": link.mimetype,
            "size": link.size,
        }
        self._storage.update(LINK, _parent(link.ref), _link_id(link.key, link.shared), row)

    def of(self, ref: Ref) -> list[Link]:
        """The links of one record; one, when all is well."""
        return [_link(row) for row in self._storage.list_all(LINK, _parent(ref))]

    def allows(self, ref: RecordRef, attachment: dict[str, Any]) -> bool:
        """Whether the record may have that attachment: it is linked to it, or nothing is known of
        either."""
        rows = self._storage.list_all(LINK, _parent(ref), include_deleted=True)
        linked = [_link(row) for row in rows if not row.get("deleted")]
        if any(link.is_now(attachment) for link in linked):
            return True
        location = str(attachment.get("location", ""))
        # Of what was lost only the key is known, which the location of a private file is not.
        lost = RecordRef.attached_at(location) and rows
        return not (linked or lost or any(_is_at(_split(row["id"])[0], location) for row in rows))

    def is_first(self, ref: RecordRef) -> bool:
        """Whether the record never had another file, as far as is known."""
        rows = self._storage.list_all(LINK, _parent(ref), include_deleted=True)
        return not any(row.get("deleted") for row in rows)

    def having(self, key: str) -> list[Link]:
        """The links of all records that have the key."""
        ids = [_link_id(key, shared) for shared in (False, True)]
        filters = [Filter("id", ids, COMPARISON.IN)]
        rows = self._storage.list_all(LINK, f"{LINKS_PARENT}/*", filters=filters)
        return [_link(row) for row in rows]

    def first(self, like: Ref, keys: list[str]) -> Link | None:
        """The oldest link of one of these keys, of the bucket or the media store that ``like``
        is in."""
        ids = [_link_id(key, shared) for key in keys for shared in (False, True)]
        rows = self._storage.list_all(
            LINK,
            f"{_parent(like, 1)}/*",
            filters=[Filter("id", ids, COMPARISON.IN)],
            sorting=[Sort("last_modified", 1)],
            limit=1,
        )
        return _link(rows[0]) if rows else None

    def linked(self, keys: Iterable[str], like: Ref | None = None) -> set[str]:
        """Those of the keys (any number) that anybody has, or anybody in the bucket or the media
        store that ``like`` is in."""
        return set(self.digests(keys, like))

    def digests(self, keys: Iterable[str], like: Ref | None = None) -> dict[str, str]:
        """The same, each with the SHA-256 of its bytes."""
        parent = _parent(like, 1) if like else LINKS_PARENT
        found: dict[str, str] = {}
        for page in pages(keys):
            left = set(page)
            while left:
                ids = [_link_id(key, shared) for key in left for shared in (False, True)]
                filters = [Filter("id", ids, COMPARISON.IN)]
                rows = self._storage.list_all(LINK, f"{parent}/*", filters=filters, limit=len(ids))
                # Many may have the same one: of the others there was none among so few rows.
                seen = {_split(row["id"])[0]: row["hash"] for row in rows}
                found |= seen
                left = left - seen.keys() if seen else set()
        return found

    def remove(self, ref: Ref) -> list[tuple[str, bool]]:
        """Delete the links of one record; the ``(key, shared)`` they had."""
        return self._delete_all(_parent(ref))

    def find(self, pairs: Iterable[tuple[Ref, str]]) -> list[Link]:
        """The links among these pairs of a record and a key, all of one collection, or owner. An
        empty key stands for any."""
        found = []
        for page in pages(pairs):
            ids = [_link_id(key, shared) for _, key in page if key for shared in (False, True)]
            exact = _among(ids, [ref for ref, key in page if key])
            others = [_of_records([ref for ref, key in page if not key])]
            for filters in (exact, others):
                if filters[-1].value:
                    rows = self._storage.list_all(
                        LINK, f"{_parent(page[0][0], 2)}/*", filters=filters
                    )
                    found += [_link(row) for row in rows]
        return found

    def below(
        self, bucket: str, collection: str | None = None, after: Link | None = None
    ) -> list[Link]:
        """The next page of the links of a whole collection or bucket, in an order of their own;
        empty at the end."""
        parent = _parent(RecordRef(bucket, collection or "", ""), 2 if collection else 1)
        return self._after(after, f"{parent}/*")

    def remove_links(self, links: Iterable[Link]) -> list[tuple[str, bool]]:
        """Delete these links, all of one bucket; the ``(key, shared)`` they had."""
        removed = []
        for page in pages(links):
            ids = [_link_id(link.key, link.shared) for link in page]
            filters = _among(ids, [link.ref for link in page])
            left = len(page)
            # Kinto does not delete more than so many rows at once.
            while left > 0 and (gone := self._delete_all(f"{_parent(page[0].ref, 1)}/*", filters)):
                removed += gone
                left -= len(gone)
        return removed

    def all(self) -> Iterator[Link]:
        """One link of every key on the server, read a page at a time."""
        for row in scan(self._storage, LINK, LINKS_PARENT):
            yield _link(row)

    def every(self) -> Iterator[Link]:
        """Every link on the server, read a page at a time."""
        last: Link | None = None
        while page := self._after(last, f"{LINKS_PARENT}/*"):
            yield from page
            last = page[-1]

    def forget(self, before: int) -> None:
        """Delete the tombstones from before then (milliseconds since 1970)."""
        self._storage.purge_deleted(LINK, f"{LINKS_PARENT}/*", before=before)

    def _delete_all(self, parent: str, filters: list | None = None) -> list[tuple[str, bool]]:
        rows = self._storage.delete_all(LINK, parent, filters=filters)
        return [_split(row["id"]) for row in rows]

    def _after(self, after: Link | None, parent: str) -> list[Link]:
        """Keyset paging, by what no two links have both."""
        rules, start = [], []
        if after:
            last = _link_id(after.key, after.shared)
            uri = after.ref.uri
            # Says nothing new, but PostgreSQL does not see that the rules begin there.
            start = [Filter("id", last, COMPARISON.MIN)]
            rules = [
                [Filter("id", last, COMPARISON.EQ), Filter("record", uri, COMPARISON.GT)],
                [Filter("id", last, COMPARISON.GT)],
            ]
        order = [Sort("id", 1), Sort("record", 1)]
        rows = self._storage.list_all(
            LINK, parent, filters=start, sorting=order, pagination_rules=rules, limit=PAGE
        )
        return [_link(row) for row in rows]


def _among(ids: list[str], refs: list[Ref]) -> list[Filter]:
    """The ids find the rows, by the primary key; of those that share a key, only some are meant."""
    return [Filter("id", ids, COMPARISON.IN), _of_records(refs)]


def _of_records(refs: list[Ref]) -> Filter:
    return Filter("record", [ref.uri for ref in refs], COMPARISON.IN)


def _parent(ref: Ref, depth: int = 3) -> str:
    return "/".join((LINKS_PARENT, *(_ESCAPED.sub(_escape, part) for part in ref.path[:depth])))


def _escape(match: re.Match) -> str:
    return f"~{ord(match[0]):x}~"


def _link_id(key: str, shared: bool) -> str:
    return f"{'shared' if shared else 'own'}:{key}"


def _split(link_id: str) -> tuple[str, bool]:
    kind, _, key = link_id.partition(":")
    return key, kind == "shared"


def _is_at(key: str, location: str) -> bool:
    return location == key or location.endswith(f"/{key}")


def _link(row: dict[str, Any]) -> Link:
    key, shared = _split(row["id"])
    named = (row.get(name, "") for name in ("filename", "mimetype"))
    size, modified = row.get("size"), row["last_modified"]
    return Link(read_ref(row["record"]), key, row["hash"], shared, *named, size, modified)
