"""Links: which record, media entry or upload owns which key.

* The key is the id of a link, so that ``delete_all`` returns the keys that it took, and so that the
  primary key of Kinto's table finds the owners of a key.
* Each owner has a parent of its own. One comparison with the parent finds or deletes its links, and
  uploads to different owners never collide on the unique timestamps of a parent.
* Links leave tombstones, as records do. A tombstone says that a record had a key and lost it: a
  write that still names that key is out of date. A record without any row is one that this plugin
  knows nothing about.
* Ids of buckets and records are escaped in the parent: PostgreSQL takes ``_`` and ``%`` in a
  pattern for wildcards, and the memory storage takes the whole pattern for a regular expression.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from kinto.core.storage import Filter, Sort
from kinto.core.utils import COMPARISON

from ..files.blob import Attachment, is_digest
from ..files.key import check_key, is_key, key_suffixes, quote_key
from ..files.ref import FieldRef, RecordRef, Ref, read_ref
from .paging import (
    PAGE,
    ListAll,
    Row,
    UnreadableRow,
    check_types,
    delete_rows,
    fetch_size,
    find_rows,
    keyset,
    pages,
    readable,
    scan,
    unreadable,
)

LINK_ROWS = "attachment-link"
LINKS_PARENT = "/attachment-links"
# Neither LIKE nor a regular expression gives these characters a meaning.
_ESCAPED = re.compile(r"[^A-Za-z0-9-]")
# Rows that were written before links had these values leave them out.
_UNKNOWN = {"filename": "", "mimetype": "", "size": None}


@dataclass(frozen=True)
class Link:
    """The fact that an owner has the blob of a key.

    :param digest: SHA-256 of the bytes.
    :param shared: whether other records may have the key too (it is named after its hash).
    :param filename: as it was uploaded; empty if unknown.
    :param mimetype: as the record has it; empty if unknown.
    :param size: bytes; None if unknown.
    :param modified: when it was written, in milliseconds since 1970; 0 before that.
    """

    ref: Ref
    key: str
    digest: str
    shared: bool = False
    filename: str = field(default="", compare=False)
    mimetype: str = field(default="", compare=False)
    size: int | None = field(default=None, compare=False)
    modified: int = field(default=0, compare=False)

    @classmethod
    def of(cls, ref: Ref, key: str, attachment: Attachment, shared: bool) -> "Link":
        """Return the link of an owner to the blob that an attachment describes."""
        return cls(
            ref,
            key,
            attachment.hash,
            shared,
            filename=attachment.filename,
            mimetype=attachment.mimetype,
            size=attachment.size,
        )

    def is_of(self, attachment: Any) -> bool:
        """Return whether this is the blob of that value of its field. Whatever ``base_url`` was,
        the location ends with the key; the location of a private file does not contain it, so
        there the hash decides.

        >>> link = Link(FieldRef(RecordRef("a", "b", "c")), "b/x.png", "e3b0")
        >>> link.is_of({"location": "https://cdn.example/b/x.png"})
        True
        """
        if not isinstance(attachment, dict):
            return False
        location = str(attachment.get("location", ""))
        if FieldRef.served_at(location):
            return self.digest == attachment.get("hash")
        return any(
            location == key or location.endswith(f"/{key}")
            for key in (quote_key(self.key), self.key)
        )

    def may_be_of(self, attachment: Any) -> bool:
        """Return whether this is the blob of that value, or would be if its location was right."""
        is_same = isinstance(attachment, dict) and attachment.get("hash") == self.digest
        return is_same or self.is_of(attachment)

    def is_now(self, attachment: dict[str, Any]) -> bool:
        """Return whether this is the blob of that value, and not of an older one: the same bytes
        may have been uploaded again under another name, or other bytes under the same name."""
        named = (attachment.get("filename"), attachment.get("mimetype"))
        is_same = not self.filename or named == (self.filename, self.mimetype)
        return is_same and attachment.get("hash") == self.digest and self.is_of(attachment)


class Links:
    """The links of all owners.

    :param storage: ``registry.storage``.
    """

    def __init__(self, storage: Any):
        self._storage = storage

    def add(self, link: Link) -> None:
        """Write the link, in one statement. Idempotent."""
        row = {
            "hash": link.digest,
            "record": link.ref.uri,
            "filename": link.filename,
            "mimetype": link.mimetype,
            "size": link.size,
        }
        self._storage.update(LINK_ROWS, parent_of(link.ref), _link_id(link.key, link.shared), row)

    def of(self, ref: Ref) -> list[Link]:
        """Return the links of one owner; there is at most one when all is well."""
        return _links(self._storage.list_all(LINK_ROWS, parent_of(ref)))

    def of_record(self, ref: RecordRef, nested: bool) -> list[Link]:
        """Return the links of the files of a record.

        :param nested: whether to return those of all fields, and not of the default one alone.
        """
        found = self.of(FieldRef(ref))
        if nested:
            found += _links(row for rows in self._pages(parent_of(FieldRef(ref))) for row in rows)
        return found

    def has_lost(self, ref: FieldRef, attachment: dict[str, Any]) -> bool:
        """Return whether a tombstone says that the place had the blob of that value. The cost does
        not grow with the files that it had before."""
        location = str(attachment.get("location", ""))
        if FieldRef.served_at(location):
            # The location of a private file has no key, so any tombstone may be that of its link.
            return self._lost(ref)
        keys = [key for key in key_suffixes(location) if is_key(key)]
        ids = [_link_id(key, shared) for key in keys for shared in (False, True)]
        return self._lost(ref, Filter("id", ids, COMPARISON.IN))

    def is_first(self, ref: FieldRef) -> bool:
        """Return whether the place never had another file, as far as is known."""
        return not self._lost(ref)

    def _lost(self, ref: FieldRef, *filters: Filter) -> bool:
        """Return whether the place has lost a link."""
        only = [*filters, Filter("deleted", True, COMPARISON.EQ)]
        parent = parent_of(ref)
        return bool(
            self._storage.list_all(LINK_ROWS, parent, filters=only, limit=1, include_deleted=True)
        )

    def lost(self, ref: FieldRef) -> list[str]:
        """Return keys that the place has lost, the last ones first."""
        rows = self._storage.list_all(
            LINK_ROWS,
            parent_of(ref),
            filters=[Filter("deleted", True, COMPARISON.EQ)],
            sorting=[Sort("last_modified", -1)],
            limit=PAGE,
            include_deleted=True,
        )
        return [_split(row["id"])[0] for row in rows]

    def having(self, key: str) -> list[Link]:
        """Return the links of all owners of the key."""
        ids = Filter("id", [_link_id(key, shared) for shared in (False, True)], COMPARISON.IN)
        return _links(row for rows in self._pages(LINKS_PARENT, ids) for row in rows)

    def lost_since(self, key: str, since: int) -> bool:
        """Return whether an owner of the key has lost it since then (milliseconds since 1970)."""
        filters = [
            Filter("id", [_link_id(key, shared) for shared in (False, True)], COMPARISON.IN),
            Filter("deleted", True, COMPARISON.EQ),
            Filter("last_modified", since, COMPARISON.GT),
        ]
        where = {"parent_id": f"{LINKS_PARENT}/*", "include_deleted": True}
        return bool(self._storage.list_all(LINK_ROWS, filters=filters, limit=1, **where))

    def first(self, like: Ref, keys: list[str]) -> Link | None:
        """Return the oldest link of one of these keys, among those of the bucket or the media
        store that ``like`` is in."""
        ids = [_link_id(key, shared) for key in keys for shared in (False, True)]
        rows = self._storage.list_all(
            LINK_ROWS,
            f"{parent_of(like, 1)}/*",
            filters=[Filter("id", ids, COMPARISON.IN)],
            sorting=[Sort("last_modified", 1)],
            limit=1,
        )
        found = _links(rows)
        if rows and not found:  # the oldest row cannot be read
            others = self._pages(parent_of(like, 1), _of_ids(ids))
            found = _links(row for page in others for row in page)
        return min(found, key=lambda link: link.modified, default=None)

    def linked(self, keys: Iterable[str], like: Ref | None = None) -> set[str]:
        """Return those of the keys (any number) that have an owner, or one in the bucket or the
        media store that ``like`` is in."""
        return set(self.digests(keys, like))

    def digests(self, keys: Iterable[str], like: Ref | None = None) -> dict[str, str]:
        """Return the keys as :meth:`linked` does, each with the SHA-256 of its bytes. It is empty
        if a row cannot be read: its key has an owner all the same."""
        list_all = self._reader(parent_of(like, 1) if like else LINKS_PARENT)
        ids = (_link_id(key, shared) for key in keys for shared in (False, True))
        found = find_rows(list_all, ids)
        read = {link.key: link.digest for link in _links(found.values())}
        return dict.fromkeys((_split(link_id)[0] for link_id in found), "") | read

    def remove(self, ref: Ref) -> list[tuple[str, bool]]:
        """Delete the links of one owner; return the ``(key, shared)`` that it had."""
        rows = self._storage.delete_all(LINK_ROWS, parent_of(ref))
        return [_split(row["id"]) for row in rows]

    def find(self, pairs: Iterable[tuple[Ref, str]]) -> list[Link]:
        """Return the links among these pairs of an owner and a key.

        :param pairs: all of one collection, or of one owner of media. An empty key stands for any.
        """
        found: list[Link] = []
        for page in pages(pairs):
            parent = parent_of(page[0][0], 2)
            ids = [_link_id(key, shared) for _, key in page if key for shared in (False, True)]
            exact = [_of_ids(ids), _of_owners(ref for ref, key in page if key)]
            others = [_of_owners(ref for ref, key in page if not key)]
            for filters in (exact, others):
                if filters[-1].value:
                    found += _links(row for rows in self._pages(parent, *filters) for row in rows)
        return found

    def below(self, bucket: str, collection: str | None = None) -> Iterator[list[Link]]:
        """Yield pages of the links of a whole bucket or collection. The links of a page may be
        deleted before the next one is read."""
        for rows in self._pages(parent_below(bucket, collection)):
            yield _links(rows)

    def remove_links(self, links: Iterable[Link]) -> list[tuple[str, bool]]:
        """Delete these links, all of one bucket; return the ``(key, shared)`` that they had."""
        removed = []
        for page in pages(links):
            ids = _of_ids([_link_id(link.key, link.shared) for link in page])
            owners = _of_owners(link.ref for link in page)
            parent = f"{parent_of(page[0].ref, 1)}/*"
            how = {"with_deleted": True, "most": len(page)}
            rows = delete_rows(self._storage, LINK_ROWS, parent, ids, owners, **how)
            removed += [_split(row["id"]) for row in rows]
        return removed

    def one_of_each_key(self) -> Iterator[Link]:
        """Yield one link of every key on the server, read a page at a time."""
        yield from readable(scan(self._storage, LINK_ROWS, LINKS_PARENT), _link)

    def all(self) -> Iterator[Link]:
        """Yield every link on the server in the order of the keys, read a page at a time."""
        for rows in self._pages(LINKS_PARENT):
            yield from readable(rows, _link)

    def unreadable(self) -> Iterator[UnreadableRow]:
        """Yield every row that cannot be read."""
        for rows in self._pages(LINKS_PARENT):
            yield from unreadable(LINK_ROWS, rows, _link)

    def forget(self, before: int) -> None:
        """Delete the tombstones from before then (milliseconds since 1970)."""
        self._storage.purge_deleted(LINK_ROWS, f"{LINKS_PARENT}/*", before=before)

    def _reader(self, parent: str) -> ListAll:
        return partial(self._storage.list_all, LINK_ROWS, f"{parent}/*")

    def _pages(self, parent: str, *filters: Filter) -> Iterator[list[Row]]:
        least = fetch_size(self._storage)
        return keyset(self._reader(parent), *filters, by=("id", "record"), least=least)


def _of_ids(ids: list[str]) -> Filter:
    """Return the filter that finds rows by the primary key."""
    return Filter("id", ids, COMPARISON.IN)


def _of_owners(refs: Iterable[Ref]) -> Filter:
    return Filter("record", [ref.uri for ref in refs], COMPARISON.IN)


def parent_of(ref: Ref, depth: int | None = None) -> str:
    """Return the parent of the rows of an owner.

    :param depth: how many names of its path: 1 for the rows of its bucket, 2 for those of its
        collection.
    """
    return _joined(*ref.path[:depth])


def parent_below(bucket: str, collection: str | None) -> str:
    """Return the parent of the rows of a bucket, or of a collection."""
    return _joined(bucket, *([collection] if collection else []))


def _joined(*names: str) -> str:
    return "/".join((LINKS_PARENT, *(_ESCAPED.sub(_escape, name) for name in names)))


def _escape(match: re.Match) -> str:
    return f"~{ord(match[0]):x}~"


def _link_id(key: str, shared: bool) -> str:
    return f"{'shared' if shared else 'own'}:{key}"


def _split(link_id: str) -> tuple[str, bool]:
    kind, _, key = link_id.partition(":")
    return key, kind == "shared"


def _links(rows: Iterable[Row]) -> list[Link]:
    return list(readable(rows, _link))


def _link(row: Row) -> Link:
    row = {**_UNKNOWN, **row}
    check_types(row, hash=str, record=str, filename=str, mimetype=str, size=int | None)
    key, shared = _split(row["id"])
    if row["id"] != _link_id(key, shared):
        raise ValueError("the id is malformed")
    if not is_digest(row["hash"]) or (row["size"] or 0) < 0:
        raise ValueError("hash or size is malformed")
    ref = read_ref(row["record"])
    ref.uri.encode()  # the owner may not be Unicode
    return Link(
        ref,
        check_key(key),
        row["hash"],
        shared,
        filename=row["filename"],
        mimetype=row["mimetype"],
        size=row["size"],
        modified=row["last_modified"],
    )
