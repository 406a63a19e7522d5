"""The rows of the existing plugin, and how they become links.

It kept one object a file in Kinto's storage, and none for a copy of a record: below the parent
``__attachments__``, of a ``resource_name`` that is empty (8.0.0) or ``attachments`` (later), with
``location`` (the key), ``bucket_uri``, ``collection_uri`` and ``record_uri``.

This is the only module that knows them. Neither files nor records are touched, only rows.

Records come first: each that has an attachment without a link gets one, copies too. Rows are
deleted after that, so that as long as there are any, there may be files that no link knows; what
it kept of old files is written down in between.
"""

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

from kinto.core.storage import Filter
from kinto.core.utils import COMPARISON

from ..errors import KeyRefused
from ..files.blob import Attachment
from ..files.key import check_key, ends_of
from ..files.ref import RecordRef
from ..finding import Finding
from ..rows.links import Link, Links
from ..rows.paging import PAGE, ListAll, Row, keyset, pages, records_of, rows_of
from .kept_files import KEPT, KeptFiles

logger = logging.getLogger(__name__)

PARENT = "__attachments__"
RESOURCE_NAMES = ("", "attachments")

ADOPTED = "adopted"
LEFT_BEHIND = "left behind"

Attachments = dict[RecordRef, Any]
"""Records that are there, with the value of their attribute."""

_ATTACHED = Filter("attachment.location", True, COMPARISON.HAS)


class LegacyRows:
    """
    :param storage: ``registry.storage``.
    :param base_url: what locations begin with today. It finds the files of which there is no row:
        copies whose original is gone.
    :param kept: old files that stay; None if there are none.
    """

    def __init__(
        self, storage: Any, links: Links, base_url: str = "", kept: KeptFiles | None = None
    ):
        self._storage = storage
        self._links = links
        self._base_url = base_url
        self._kept = kept
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

    def key_of(self, ref: RecordRef, location: str) -> str:
        """The key of the file of that record, as its own row has it; empty if none has."""
        own = Filter("record_uri", ref.uri, COMPARISON.EQ)
        keys = {row.get("location") for row in self._list_all(own)}
        return next((key for key in ends_of(location) if key in keys and _is_key(key)), "")

    def adopt(
        self,
        bucket: str | None = None,
        collection: str | None = None,
        record: str | None = None,
        *,
        transaction_manager: AbstractContextManager | None = None,
        trial: Any = None,
    ) -> Iterator[Finding]:
        """Give links to the files of all records, or of one bucket, collection or record; then
        delete their rows. Those of collections that keep their old files are only deleted with
        all others: as long as there are any, nobody takes the kept files for orphans.

        A file that more than one record has gets shared links, so that only ``gc`` deletes it.
        Again does nothing; what was interrupted is finished by the next call. It may run while
        the server does.

        :param transaction_manager: each ``with`` is one transaction, for one page. Without it all
            is done within the caller's transaction.
        :param trial: change nothing, and remember what would be linked in here
            (:class:`~kinto_attachment.maintenance.key_index.Keys`).
        :returns: ``adopted`` for every new link; ``kept`` for every file that nobody has, and that
            stays as old files do; ``left behind`` for every other row whose record is gone or has
            another attachment, and whose file nobody else has: now an orphan.
        """
        page = transaction_manager or nullcontext()
        which = {"bucket": bucket, "collection": collection, "record": record}
        for attachments in self._records(page, which):
            with page:
                findings = self._link(attachments, trial)
            yield from findings
        with page:
            has_kept = bucket is None and self._kept and self.exist()
        if has_kept:
            yield from self._kept.adopt(page, trial)
        for name in RESOURCE_NAMES:
            list_all = partial(self._reader(page), name, PARENT)
            for rows in keyset(list_all, *_of(bucket, collection, record)):
                with page:
                    findings = self._settle(name, rows, bucket is not None, trial)
                yield from findings

    def _records(
        self, page: AbstractContextManager, which: dict[str, str | None]
    ) -> Iterator[Attachments]:
        """Records with an attachment and without a link, a page at a time."""
        found: Attachments = {}
        for uri, rows in records_of(self._reader(page), _ATTACHED, **which):
            _, _, bucket_id, _, collection_id = uri.split("/")
            refs = {RecordRef(bucket_id, collection_id, row["id"]): row for row in rows}
            with page:
                linked = {link.ref for link in self._links.find((ref, "") for ref in refs)}
            found.update((ref, row["attachment"]) for ref, row in refs.items() if ref not in linked)
            # Collections may be many and small.
            if len(found) >= PAGE:
                yield found
                found = {}
        if found:
            yield found

    def _reader(self, page: AbstractContextManager) -> ListAll:
        def list_all(*args: Any, **options: Any) -> list[Row]:
            with page:
                return self._storage.list_all(*args, **options)

        return list_all

    def _list_all(self, among: Filter) -> Iterator[Row]:
        """Those rows, of either name."""
        for name in RESOURCE_NAMES:
            yield from self._storage.list_all(name, PARENT, filters=[among])

    def _settle(self, name: str, rows: list[Row], only_some: bool, trial: Any) -> list[Finding]:
        """Delete the rows, of which most are known by links already."""
        keys = [key for row in rows if isinstance(key := row.get("location"), str)]
        linked = self._linked(keys, trial)
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
        findings = self._link(late, trial)
        linked = {finding.key for finding in findings}
        done = [row for row in rows if not (only_some and self._keeps(row))]
        for row in done:
            if row["id"] in refs and row.get("location") not in linked:
                findings += self._lose(row, refs[row["id"]], now, trial)
        if done and trial is None:
            among = [Filter("id", [row["id"] for row in done], COMPARISON.IN)]
            self._storage.delete_all(name, PARENT, filters=among, with_deleted=False)
        return findings

    def _lose(self, row: Row, ref: RecordRef | None, now: Attachments, trial: Any) -> list[Finding]:
        """A row whose file nobody has: it is kept, or left behind."""
        key, uri = str(row.get("location") or ""), str(row.get("record_uri") or "")
        if not self._keeps(row):
            return [Finding(LEFT_BEHIND, key, uri, _why(ref, now))]
        if self._kept.is_one(key) or not _is_key(key):
            return []  # it was found in the storage, or is not there
        if trial is None:
            self._kept.keep([key])
        return [Finding(KEPT, key, uri, _why(ref, now))]

    def _keeps(self, row: Row) -> bool:
        ref = _ref(row.get("record_uri"))
        return bool(self._kept and ref and self._kept.keeps(ref))

    def _linked(self, keys: Collection[str], trial: Any) -> set[str]:
        """Those of the keys that are linked, or would be."""
        tried = () if trial is None else chain(*map(trial.find, pages(keys)))
        return self._links.linked(keys) | set(tried)

    def _link(self, attachments: Attachments, trial: Any) -> list[Finding]:
        """Give links to these records, which have none."""
        found = self._keys(attachments)
        shared = self._shared(found, {attachments[ref]["location"] for ref in found}, trial)
        links = []
        for ref, key in found.items():
            known = Attachment.from_json(attachments[ref])
            named = (known.filename, known.mimetype, known.size)
            links.append(Link(ref, key, known.hash, key in shared, *named))
        if trial is not None:
            trial.add((link.key, 0) for link in links)
            return [_adopted(link) for link in links]
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
                findings.append(_adopted(link))
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
            if "://" not in key and _is_key(key):
                found[ref] = key
            else:
                ends[ref] = ends_of(location)
        # Below another base_url: the longest end that a row has.
        known = self._locations(set(chain(*ends.values())))
        for ref, keys in ends.items():
            found[ref] = next((key for key in keys if key in known), "")
        return {ref: key for ref, key in found.items() if _is_key(key)}

    def _locations(self, keys: set[str]) -> set[str]:
        """Those of the keys that are in a row."""
        if not keys:
            return set()
        among = Filter("location", list(keys), COMPARISON.IN)
        return {row["location"] for row in self._list_all(among)}

    def _shared(self, keys: dict[RecordRef, str], locations: set[str], trial: Any) -> set[str]:
        """Those of the keys, which are at these locations, that more than one record has."""
        held = Counter(keys.values())
        if not held:
            return set()
        linked = self._linked(held, trial)
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
        ends = {end for location in copied for end in ends_of(location)}
        return twice | (ends & set(held))

    def _attachments(self, refs: Iterable[RecordRef]) -> Attachments:
        """Those of these records that are there, now."""
        rows = rows_of(self._storage.list_all, refs)
        return {ref: row.get("attachment") for ref, row in rows.items()}


def _adopted(link: Link) -> Finding:
    return Finding(ADOPTED, link.key, link.ref.uri, "shared" if link.shared else "")


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


def _is_key(key: str) -> bool:
    try:
        return bool(check_key(key))
    except KeyRefused:
        return False


def _why(ref: RecordRef | None, now: Attachments) -> str:
    if ref not in now:
        return "the record is gone"
    return "it has no attachment" if now[ref] is None else "it has another attachment"
