"""The rows of the existing plugin, and how they become links.

It kept one object a file in Kinto's storage, and none for a copy of a record: below the parent
``__attachments__``, of a ``resource_name`` that is empty (8.0.0) or ``attachments`` (later), with
``location`` (the key), ``bucket_uri``, ``collection_uri`` and ``record_uri``.

This is the only module that knows them. Neither files nor records are touched, only rows.

Records come first: each that has an attachment without a link gets one, copies too. Rows are
deleted after that, so that as long as there are any, there may be files that no link knows.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import chain
from typing import Any

from kinto.core.storage import Filter, Sort
from kinto.core.utils import COMPARISON

from .blob import Attachment, RecordRef
from .errors import KeyRefused
from .finding import Finding
from .keys import check_key
from .links import Link, Links
from .rows import PAGE

logger = logging.getLogger(__name__)

PARENT = "__attachments__"
RESOURCE_NAMES = ("", "attachments")

ADOPTED = "adopted"
LEFT_BEHIND = "left behind"

Attachments = dict[RecordRef, Any]
"""Records that are there, with the value of their attribute."""

_FIRST = [Sort("id", 1)]
_ATTACHED = [Filter("attachment.location", True, COMPARISON.HAS)]


class LegacyRows:
    """
    :param storage: ``registry.storage``.
    :param base_url: what locations begin with today. It finds the files of which there is no row:
        copies whose original is gone, kept by ``keep_old_files``.
    """

    def __init__(self, storage: Any, links: Links, base_url: str = ""):
        self._storage = storage
        self._links = links
        self._base_url = base_url
        self._may_exist = True
        self._told = False

    def pending(self) -> bool:
        """Whether there are any still: what was answered with no is not asked again."""
        if self._may_exist:
            self._may_exist = self.exist()
            if self._may_exist and not self._told:
                self._told = True
                logger.warning("There are files of the existing plugin: kinto-attachment import")
        return self._may_exist

    def exist(self) -> bool:
        """Whether there are any: a look at the index, within the caller's transaction."""
        return any(self._storage.list_all(name, PARENT, limit=1) for name in RESOURCE_NAMES)

    def adopt(
        self,
        bucket: str | None = None,
        collection: str | None = None,
        record: str | None = None,
        *,
        transaction_manager: AbstractContextManager | None = None,
    ) -> Iterator[Finding]:
        """Give links to the files of all records, or of one bucket, collection or record; then
        delete their rows.

        A file that more than one record has gets shared links, so that only ``gc`` deletes it.
        Again does nothing; what was interrupted is finished by the next call. It may run while
        the server does.

        :param transaction_manager: each ``with`` is one transaction, for one page. Without it all
            is done within the caller's transaction.
        :returns: ``adopted`` for every new link; ``left behind`` for every row whose record is
            gone or has another attachment, and whose file nobody else has: now an orphan.
        """
        page = transaction_manager or nullcontext()
        for attachments in self._records(page, bucket, collection, record):
            with page:
                findings = self._link(attachments)
            yield from findings
        for name in RESOURCE_NAMES:
            for rows in self._pages(page, name, PARENT, _of(bucket, collection, record)):
                with page:
                    findings = self._settle(name, rows)
                yield from findings

    def _records(
        self,
        page: AbstractContextManager,
        bucket: str | None,
        collection: str | None,
        record: str | None,
    ) -> Iterator[Attachments]:
        """Records with an attachment and without a link, a page at a time."""
        found: Attachments = {}
        for parent in self._collections(page, bucket, collection):
            for rows in self._pages(page, "record", parent.collection_uri, _ATTACHED, record):
                refs = {replace(parent, record=row["id"]): row["attachment"] for row in rows}
                with page:
                    linked = {link.ref for link in self._links.find((ref, "") for ref in refs)}
                found.update((ref, value) for ref, value in refs.items() if ref not in linked)
                # Collections may be many and small.
                if len(found) >= PAGE:
                    yield found
                    found = {}
        if found:
            yield found

    def _collections(
        self, page: AbstractContextManager, bucket: str | None, collection: str | None
    ) -> Iterator[RecordRef]:
        """Each as the reference of a record without an id."""
        if bucket is not None and collection is not None:
            yield RecordRef(bucket, collection, "")
            return
        for buckets in self._pages(page, "bucket", "", only=bucket):
            for uri in (f"/buckets/{row['id']}" for row in buckets):
                for rows in self._pages(page, "collection", uri):
                    yield from (RecordRef(uri.split("/")[2], row["id"], "") for row in rows)

    def _pages(
        self,
        page: AbstractContextManager,
        name: str,
        parent: str,
        filters: Sequence[Filter] = (),
        only: str | None = None,
    ) -> Iterator[list[dict[str, Any]]]:
        """Keyset paging by the id, in as many transactions."""
        filters = [*filters, *([Filter("id", only, COMPARISON.EQ)] if only is not None else [])]
        after: list[Filter] = []
        while True:
            with page:
                rows = self._storage.list_all(
                    name, parent, filters=filters + after, sorting=_FIRST, limit=PAGE
                )
            if not rows:
                return
            yield rows
            after = [Filter("id", rows[-1]["id"], COMPARISON.GT)]

    def _settle(self, name: str, rows: list[dict[str, Any]]) -> list[Finding]:
        """Delete the rows, of which most are known by links already."""
        keys = [key for row in rows if isinstance(key := row.get("location"), str)]
        linked = self._links.linked(keys)
        lost = [row for row in rows if row.get("location") not in linked]
        refs = {row["id"]: _ref(row.get("record_uri")) for row in lost}
        now = self._attachments(ref for ref in refs.values() if ref)
        # Attached by the existing plugin while this one read the records.
        late = {
            ref: now[ref]
            for row in lost
            if (ref := refs[row["id"]]) in now
            and Link(ref, str(row.get("location")), "").is_of(now[ref])
        }
        findings = self._link(late)
        linked = {finding.key for finding in findings}
        for row in lost:
            if row.get("location") not in linked:
                why = _why(refs[row["id"]], now)
                uri, key = row.get("record_uri"), row.get("location")
                findings.append(Finding(LEFT_BEHIND, str(key or ""), str(uri or ""), why))
        done = [Filter("id", [row["id"] for row in rows], COMPARISON.IN)]
        self._storage.delete_all(name, PARENT, filters=done, with_deleted=False)
        return findings

    def _link(self, attachments: Attachments) -> list[Finding]:
        """Give links to these records, which have none."""
        found = self._keys(attachments)
        shared = self._shared(found, {attachments[ref]["location"] for ref in found})
        links = []
        for ref, key in found.items():
            known = Attachment.from_json(attachments[ref])
            named = (known.filename, known.mimetype)
            links.append(Link(ref, key, known.hash, key in shared, *named))
        for key in self._links.linked(shared):
            for other in self._links.having(key):
                if not other.shared:
                    self._links.remove_links([other])
                    self._links.add(replace(other, shared=True))
        for link in links:
            self._links.add(link)
        # Written, and so locked: who replaces the file of such a record waits for us from now on,
        # and who just did has written the record.
        now = self._attachments(link.ref for link in links)
        findings = []
        for link in links:
            if link.is_of(now.get(link.ref)):
                detail = "shared" if link.shared else ""
                findings.append(Finding(ADOPTED, link.key, link.ref.uri, detail))
            else:
                self._links.remove_links([link])
        return findings

    def _keys(self, attachments: Attachments) -> dict[RecordRef, str]:
        """The keys of these files, those that can be told."""
        found: dict[RecordRef, str] = {}
        ends: dict[RecordRef, list[str]] = {}
        for ref, value in attachments.items():
            try:
                location = Attachment.from_json(value).location
            except ValueError:
                continue  # somebody else's attribute
            if RecordRef.attached_at(location):
                continue  # a private file, and none of the existing plugin's
            key = location.removeprefix(self._base_url)
            if "://" not in key:
                found[ref] = key
            else:
                ends[ref] = _ends(location)
        # Below another base_url: the longest end that a row has.
        known = self._locations(set(chain(*ends.values())))
        for ref, keys in ends.items():
            found[ref] = next((key for key in keys if key in known), "")
        return {ref: key for ref, key in found.items() if _is_key(key)}

    def _locations(self, keys: set[str]) -> set[str]:
        """Those of the keys that are in a row."""
        if not keys:
            return set()
        among = [Filter("location", list(keys), COMPARISON.IN)]
        rows = (self._storage.list_all(n, PARENT, filters=among) for n in RESOURCE_NAMES)
        return {row["location"] for row in chain(*rows)}

    def _shared(self, keys: dict[RecordRef, str], locations: set[str]) -> set[str]:
        """Those of the keys, which are at these locations, that more than one record has."""
        held = Counter(keys.values())
        if not held:
            return set()
        linked = self._links.linked(held)
        twice = {key for key, count in held.items() if count > 1 or key in linked}
        # A look at all records of the server: nothing else knows of copies.
        everywhere = ("record", "/buckets/*")
        among = [Filter("attachment.location", list(locations), COMPARISON.IN)]
        count = self._storage.count_all(*everywhere, filters=among)
        if count == len(locations):
            return twice
        rows = self._storage.list_all(*everywhere, filters=among, limit=count)
        if len(rows) < count:
            return set(held)  # more copies than Kinto gives at once
        times = Counter(row["attachment"]["location"] for row in rows)
        copied = [location for location, times in times.items() if times > 1]
        ends = {end for location in copied for end in _ends(location)}
        return twice | (ends & set(held))

    def _attachments(self, refs: Iterable[RecordRef]) -> Attachments:
        """Those of these records that are there, now."""
        by_collection: dict[str, dict[str, RecordRef]] = {}
        for ref in refs:
            by_collection.setdefault(ref.collection_uri, {})[ref.record] = ref
        found: Attachments = {}
        for uri, by_id in by_collection.items():
            among = [Filter("id", list(by_id), COMPARISON.IN)]
            for row in self._storage.list_all("record", uri, filters=among):
                found[by_id[row["id"]]] = row.get("attachment")
        return found


def _of(bucket: str | None, collection: str | None, record: str | None) -> list[Filter]:
    """The rows of a record, collection or bucket."""
    if bucket is None:
        return []
    ref = RecordRef(bucket, collection or "", record or "")
    if record is not None:
        return [Filter("record_uri", ref.uri, COMPARISON.EQ)]
    if collection is not None:
        return [Filter("collection_uri", ref.collection_uri, COMPARISON.EQ)]
    return [Filter("bucket_uri", f"/buckets/{bucket}", COMPARISON.EQ)]


def _ref(uri: Any) -> RecordRef | None:
    parts = str(uri).split("/")
    return RecordRef(parts[2], parts[4], parts[6]) if len(parts) == 7 else None


def _ends(location: str) -> list[str]:
    """What can be a key, the longest first.

    >>> _ends("blog/articles/a.png")
    ['blog/articles/a.png', 'articles/a.png', 'a.png']
    """
    parts = location.split("/")
    return ["/".join(parts[start:]) for start in range(len(parts))]


def _is_key(key: str) -> bool:
    try:
        return bool(check_key(key))
    except KeyRefused:
        return False


def _why(ref: RecordRef | None, now: Attachments) -> str:
    if ref not in now:
        return "the record is gone"
    return "it has no attachment" if now[ref] is None else "it has another attachment"
