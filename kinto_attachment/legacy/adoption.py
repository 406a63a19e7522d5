"""Adopting the files of the existing plugin: its rows become links.

That plugin, kinto-attachment 0.x to 9.x, kept one row for each file in Kinto's storage, and
none for the file of a copied record. The rows are below the parent ``__attachments__``, with an
empty ``resource_name`` (8.0.0) or ``attachments`` (later). They contain ``location`` (the key),
``bucket_uri``, ``collection_uri`` and ``record_uri``.

Adoption changes rows only; files and records stay as they are. It runs in this order:

1. Every file of a record without a link gets a link, copies included. The existing plugin knew the
   field ``attachment`` only; the files of other fields have lost their links if they have none.
2. Old files that the settings keep are written down as kept.
3. The rows of the existing plugin are deleted. As long as one is left, there may be files without
   a link, and ``gc`` refuses to run.
"""

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any
from urllib.parse import unquote

from kinto.core.storage import Filter
from kinto.core.utils import COMPARISON

from ..files.blob import Attachment
from ..files.field import value_at
from ..files.key import is_key, key_suffixes
from ..files.ref import FieldRef, RecordRef, Ref
from ..finding import Finding
from ..rows import Rows
from ..rows.key_index import KeyIndex
from ..rows.links import Link
from ..rows.paging import PAGE, ListAll, Row, delete_rows, find_owners, keyset, pages
from ..settings import Settings
from .attached import Attachments, read_attached, read_fields
from .kept_files import KEPT, KeptFiles

logger = logging.getLogger(__name__)

PARENT = "__attachments__"
RESOURCE_NAMES = ("", "attachments")

ADOPTED = "adopted"
LEFT_BEHIND = "left behind"


class LegacyRows:
    """The rows of the existing plugin.

    :param base_url: the current ``base_url``. It finds files that have no row, such as those of
        copied records whose original is gone.
    :param kept: the old files that are kept.
    :param settings: which fields collections declare; None if no collection declares any.
    """

    def __init__(
        self, rows: Rows, base_url: str, kept: KeptFiles, settings: Settings | None = None
    ):
        self._rows = rows
        self._settings = settings
        self._base_url = base_url
        self._kept = kept
        self._may_exist = True
        self._is_announced = False

    def remain(self) -> bool:
        """Return whether there are any rows left. Once there are none, the database is
        not asked again."""
        if self._may_exist:
            self._may_exist = self.exist()
            if self._may_exist and not self._is_announced:
                self._is_announced = True
                logger.warning(
                    "Files of kinto-attachment 0.x to 9.x are not imported yet. Run:"
                    " kinto-attachment import"
                )
        return self._may_exist

    def exist(self) -> bool:
        """Return whether there are any rows. This costs only lookups in an index."""
        list_all = self._rows.storage.list_all
        return any(list_all(name, PARENT, limit=1) for name in RESOURCE_NAMES)

    def key_of(self, ref: RecordRef, location: str) -> str:
        """Return the key of the file of a record, according to its row; an empty string if there is
        no such row."""
        own = Filter("record_uri", ref.uri, COMPARISON.EQ)
        keys = {_location(row) for row in _all_rows(self._rows.storage.list_all, own)}
        return next((key for key in key_suffixes(location) if key in keys and is_key(key)), "")

    def adopt(
        self,
        bucket: str | None = None,
        collection: str | None = None,
        record: str | None = None,
        *,
        transaction_manager: AbstractContextManager | None = None,
        dry_run: bool = False,
    ) -> Iterator[Finding]:
        """Give links to the files of all records, or of one bucket, collection or record, then
        delete the rows of the existing plugin.

        Rows of collections that keep their old files are deleted only in a run for all records. As
        long as they exist, ``gc`` refuses to run, and ``fsck`` reports the kept files as orphans
        whose remedy is ``import``. A file that
        several records have gets shared links, so that only ``gc`` deletes it. It can run while the
        server does. Idempotent: the next run finishes an interrupted one.

        :param transaction_manager: each ``with`` is one transaction, for one page. Without it,
            everything runs within the caller's transaction.
        :param dry_run: change nothing.
        :returns: ``adopted`` for every new link; ``kept`` for every old file that is kept; ``left
            behind`` for every other row whose file is in no record. That file is an orphan now.
        """
        page = transaction_manager or nullcontext()
        which = {"bucket": bucket, "collection": collection, "record": record}
        with closing(KeyIndex()) as planned:
            adoption = _Adoption(self._rows, self._base_url, self._kept, page, dry_run, planned)
            yield from adoption.link_files(partial(read_attached, **which))
            if self._settings and self._settings.has_other_fields:
                yield from adoption.link_files(partial(read_fields, self._settings, **which))
            if bucket is None:
                with page:
                    exist = self.exist()
                if exist:
                    yield from self._kept.adopt(page, adoption.linked, dry_run)
            yield from adoption.settle_rows(which)


class _Adoption:
    """One run.

    :param page: each ``with`` is one transaction, for one page of rows.
    :param planned: the keys that a dry run would have linked; empty otherwise.
    """

    def __init__(
        self,
        rows: Rows,
        base_url: str,
        kept: KeptFiles,
        page: AbstractContextManager,
        dry_run: bool,
        planned: KeyIndex,
    ):
        self._rows = rows
        self._storage = rows.storage
        self._base_url = base_url
        self._kept = kept
        self._page = page
        self._dry_run = dry_run
        self._planned = planned

    def link_files(
        self, pages_of_files: Callable[[ListAll], Iterator[Attachments]]
    ) -> Iterator[Finding]:
        """Give links to files that have none.

        :param pages_of_files: reads them.
        """
        for attachments in self._unlinked(pages_of_files(self._list_all_in_page)):
            with self._page:
                findings = self._link(attachments)
            yield from findings

    def settle_rows(self, which: dict[str, str | None]) -> Iterator[Finding]:
        """Delete the rows of the existing plugin, and report those whose file is in no record."""
        for name in RESOURCE_NAMES:
            list_all = partial(self._list_all_in_page, name, PARENT)
            for rows in keyset(list_all, *_filters(**which)):
                with self._page:
                    findings = self._settle(name, rows, which["bucket"] is not None)
                yield from findings

    def linked(self, keys: Collection[str]) -> set[str]:
        """Return those of the keys that are linked, or that a dry run would have linked."""
        planned = chain.from_iterable(map(self._planned.find, pages(keys)))
        return self._rows.links.linked(keys) | set(planned)

    def _unlinked(self, pages_of_files: Iterator[Attachments]) -> Iterator[Attachments]:
        found: Attachments = {}
        for files in pages_of_files:
            linked: set[Ref] = set()
            for page in pages(files):
                with self._page:
                    links = self._rows.links.find((place, "") for place in page)
                linked |= {link.ref for link in links}
            found.update((place, value) for place, value in files.items() if place not in linked)
            # Collections may be many and small.
            if len(found) >= PAGE:
                yield found
                found = {}
        if found:
            yield found

    def _list_all_in_page(self, *args: Any, **options: Any) -> list[Row]:
        with self._page:
            return self._storage.list_all(*args, **options)

    def _settle(self, name: str, rows: list[Row], only_some: bool) -> list[Finding]:
        """Delete the rows, and return the findings. Most of their files have links by now.

        :param name: the resource name of the rows.
        :param only_some: whether the run is limited to a bucket, collection or record.
        """
        linked = self.linked([key for row in rows if (key := _location(row))])
        lost = [row for row in rows if _location(row) not in linked]
        refs = {row["id"]: _owner(row) for row in lost}
        now = self._attachments(ref for ref in refs.values() if ref)
        # Attached by the existing plugin while this run was reading the records.
        late = {
            ref: now[ref]
            for row in lost
            if (ref := refs[row["id"]]) in now and Link(ref, _location(row), "").is_of(now[ref])
        }
        findings = self._link(late)
        linked = {finding.key for finding in findings}
        done = [row for row in rows if not (only_some and self._keeps(row))]
        for row in done:
            if row["id"] in refs and _location(row) not in linked:
                findings += self._lose(row, refs[row["id"]], now)
        if done and not self._dry_run:
            ids = Filter("id", [row["id"] for row in done], COMPARISON.IN)
            delete_rows(self._storage, name, PARENT, ids, most=len(done))
        return findings

    def _lose(self, row: Row, ref: FieldRef | None, now: Attachments) -> list[Finding]:
        """Report a row whose file is in no record: the file is kept or left behind."""
        key, uri = str(row.get("location") or ""), str(row.get("record_uri") or "")
        if not self._keeps(row):
            return [Finding(LEFT_BEHIND, key, uri, _why(ref, now))]
        if self._kept.may_be_kept(key) or not is_key(key):
            return []  # KeptFiles has found the file in the storage, or there is none
        if not self._dry_run:
            self._kept.keep([key])
        return [Finding(KEPT, key, uri, _why(ref, now))]

    def _keeps(self, row: Row) -> bool:
        ref = RecordRef.from_uri(str(row.get("record_uri")))
        return bool(ref and self._kept.keeps(ref))

    def _link(self, attachments: Attachments) -> list[Finding]:
        """Give links to these files, which have none."""
        keys = self._keys(attachments)
        shared = self._shared(keys, {attachments[ref]["location"] for ref in keys})
        links = [
            Link.of(ref, key, Attachment.from_json(attachments[ref]), key in shared)
            for ref, key in keys.items()
        ]
        if self._dry_run:
            self._planned.add((link.key, 0) for link in links)
            return [_adopted(link) for link in links]
        self._share(shared)
        for link in links:
            self._rows.links.add(link)
        # The links are locked now. A request that replaces such a file waits from here on; one that
        # has just replaced it has already written its record.
        now = self._attachments(link.ref for link in links)
        findings = []
        for link in links:
            if link.is_of(now.get(link.ref)):
                findings.append(_adopted(link))
            else:
                self._rows.links.remove_links([link])
        return findings

    def _share(self, keys: set[str]) -> None:
        """Turn the links of these keys into shared ones."""
        for key in self._rows.links.linked(keys):
            for link in self._rows.links.having(key):
                if not link.shared:
                    self._rows.links.remove_links([link])
                    self._rows.links.add(replace(link, shared=True))

    def _keys(self, attachments: Attachments) -> dict[FieldRef, str]:
        """Return the keys of these files, as far as they can be determined."""
        found: dict[FieldRef, str] = {}
        suffixes: dict[FieldRef, list[str]] = {}
        for ref, value in attachments.items():
            try:
                location = Attachment.from_json(value).location
            except ValueError:
                continue  # another application's attribute
            if FieldRef.served_at(location):
                continue  # a private file, which the existing plugin did not know
            key = location.removeprefix(self._base_url)
            if "%" in key and not self._locations({key}):
                key = unquote(key)  # as this plugin writes locations
            if "://" not in key and is_key(key):
                found[ref] = key
            else:
                suffixes[ref] = key_suffixes(location)
        # These are below another base_url: take the longest suffix that is the key of a row.
        known = self._locations(set(chain.from_iterable(suffixes.values())))
        for ref, keys in suffixes.items():
            found[ref] = next((key for key in keys if key in known), "")
        return {ref: key for ref, key in found.items() if is_key(key)}

    def _locations(self, keys: set[str]) -> set[str]:
        """Return those of the keys that a row of the existing plugin has."""
        found: set[str] = set()
        for page in pages(keys):
            with_keys = Filter("location", page, COMPARISON.IN)
            found |= {_location(row) for row in _all_rows(self._storage.list_all, with_keys)}
        return found

    def _shared(self, keys: dict[FieldRef, str], locations: set[str]) -> set[str]:
        """Return those of the keys, which are at these locations, that several records have."""
        held = Counter(keys.values())
        if not held:
            return set()
        linked = self.linked(held)
        twice = {key for key, count in held.items() if count > 1 or key in linked}
        # All records of the server are searched, because only they tell which are copies.
        everywhere = ("record", "/buckets/*")
        at_locations = [Filter("attachment.location", list(locations), COMPARISON.IN)]
        count = self._storage.count_all(*everywhere, filters=at_locations)
        if count == len(locations):
            return twice
        rows = self._storage.list_all(*everywhere, filters=at_locations, limit=count)
        if len(rows) < count:
            return set(held)  # more copies than Kinto returns at once
        times = Counter(str(row["attachment"]["location"]) for row in rows)
        copied = [location for location, times in times.items() if times > 1]
        suffixes = {suffix for location in copied for suffix in key_suffixes(location)}
        return twice | (suffixes & set(held))

    def _attachments(self, places: Iterable[FieldRef]) -> Attachments:
        """Return what those of these records that exist now say there."""
        places = [*places]
        rows = find_owners(self._storage.list_all, places)
        return {
            place: value_at(place, rows[place.record]) for place in places if place.record in rows
        }


def _owner(row: Row) -> FieldRef | None:
    """Return whose file a row of the existing plugin tells; None if that is no record."""
    ref = RecordRef.from_uri(str(row.get("record_uri")))
    return FieldRef(ref) if ref else None


def _all_rows(list_all: ListAll, condition: Filter) -> Iterator[Row]:
    """Yield the rows of the existing plugin, of either name, that pass the filter."""
    for name in RESOURCE_NAMES:
        for rows in keyset(partial(list_all, name, PARENT), condition):
            yield from rows


def _adopted(link: Link) -> Finding:
    return Finding(ADOPTED, link.key, link.ref.uri, "shared" if link.shared else "")


def _filters(bucket: str | None, collection: str | None, record: str | None) -> list[Filter]:
    """Return the filter for the rows of a bucket, collection or record."""
    if bucket is None:
        return []
    ref = RecordRef(bucket, collection or "", record or "")
    if record is not None:
        return [Filter("record_uri", ref.uri, COMPARISON.EQ)]
    if collection is not None:
        return [Filter("collection_uri", ref.collection_uri, COMPARISON.EQ)]
    return [Filter("bucket_uri", f"/buckets/{bucket}", COMPARISON.EQ)]


def _location(row: Row) -> str:
    """Return the key in a row of the existing plugin; empty if it is none."""
    location = row.get("location")
    return location if is_key(location) else ""


def _why(ref: FieldRef | None, now: Attachments) -> str:
    if ref not in now:
        return "the record is gone"
    return "it has no attachment" if now[ref] is None else "it has another attachment"
