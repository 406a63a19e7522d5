"""Deleting bytes that have no owner any more.

``gc`` deletes an object only if a row says that it was released, or if its key is one that this
server makes and it has been in the storage, without an owner, for longer than any upload takes.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any

from ..errors import BlobNotFound, NotImported, SweepRefused
from ..files.blob import MAX_UPLOAD_TIME
from ..files.field import value_at
from ..files.key import HEARTBEAT, is_key, key_suffixes, marked_folder
from ..files.ref import FieldRef, RecordRef, UploadRef
from ..finding import NO_PROGRESS, Finding, Progress
from ..rows.deletion import Release, Rule
from ..rows.key_index import KeyIndex
from ..rows.links import Link
from ..rows.paging import Row, find_owners, find_records, pages, records_of
from ..rows.variants import Variant
from ..storage.staged import discard_unfinished
from ..transactions.claim import ADOPT_STORAGE
from .expiry import expire_uploads
from .server import Server

FEW_ORPHANS = 10
"""This many orphans are accepted even if fewer files are linked: a new server has few files."""

MIN_AGE = MAX_UPLOAD_TIME
"""What is younger is spared whatever the operator asks, unless no server is running."""

REMEMBERED_SECONDS = 365 * 24 * 3600
"""How long an offline client may keep an outdated attachment before the server takes it for a
forged one."""

BELONG_TOGETHER = "Check that storage and database belong together, or use --force."


def collect(
    server: Server,
    older_than: timedelta = timedelta(hours=24),
    *,
    dry_run: bool = False,
    force: bool = False,
    offline: bool = False,
    progress: Progress = NO_PROGRESS,
) -> Iterator[Finding]:
    """Delete what has no owner. Yields ``deleted`` for each object that is, or would be, deleted,
    ``released`` for each link whose owner is gone, ``expired`` for each upload that was never
    described, and ``unknown object`` for each object that may belong to another application.

    :param older_than: spare what is younger, because an upload may be in progress. Less than
        :data:`MIN_AGE` counts as that.
    :param dry_run: change nothing.
    :param force: delete even if storage and database do not seem to belong together.
    :param offline: no server is running, so no upload is in progress; ``older_than`` is ignored.
    :param progress: is told of the files.
    :raises NotImported: if there are files that only rows of the existing plugin know.
    :raises ForeignStorage: if the storage belongs to another database.
    :raises SweepRefused: if storage and database do not seem to belong together. Released files
        are deleted by then.
    """
    storage = server.plugin.storage
    claim = storage.check_is_ours(dry_run)
    before = datetime.now(timezone.utc) - max(older_than, MIN_AGE)
    reserved_before = datetime.now(timezone.utc) - max(older_than, MAX_UPLOAD_TIME)
    if offline:
        before = reserved_before = datetime.now(timezone.utc) + timedelta(seconds=1)
    collector = _Collector(server, before, reserved_before, dry_run, progress)
    if server.run(server.plugin.legacy.exist):
        raise NotImported()
    yield from collector.release_links()
    yield from expire_uploads(server, dry_run)
    yield from collector.finish_releases()
    yield from collector.drop_variants()
    yield from collector.discard_unfinished()
    yield from collector.sweep(force, claim.is_adopted)
    collector.forget()
    if not dry_run:
        storage.renew()


class _Linked(Exception):
    """The owner of a link exists after all."""


class _Collector:
    """One run.

    :param before: spare what is younger.
    :param reserved_before: ignore older reservations.
    """

    def __init__(
        self,
        server: Server,
        before: datetime,
        reserved_before: datetime,
        dry_run: bool,
        progress: Progress = NO_PROGRESS,
    ):
        self._server = server
        self._progress = progress
        self._settings = server.plugin.settings
        self._storage = server.plugin.storage
        self._lasts = server.plugin.rows.identities.lasts
        self._rows = server.plugin.rows
        self._before = before
        self._reserved_since = int(reserved_before.timestamp() * 1000)
        self._dry_run = dry_run

    def release_links(self) -> Iterator[Finding]:
        """Release links whose record is gone or has another attachment. The server itself never
        leaves such links; records that were changed by other means do."""
        old = int(self._before.timestamp() * 1000)
        self._progress.begin("files of records")
        for page in self._server.read(self._rows.links.all()):
            self._progress.add_files(len(page))
            for link in self._without_owner([link for link in page if link.modified <= old]):
                if self._dry_run or self._release(link):
                    yield Finding("released", link.key, link.ref.uri, "link without record")

    def _without_owner(self, links: list[Link]) -> list[Link]:
        """Return the links of records that are gone or have another attachment, and of unknown
        uploads."""
        records = find_owners(self._server.list_all, [link.ref for link in links])

        def has_owner(link: Link) -> bool:
            if isinstance(link.ref, FieldRef):
                return link.is_of(value_at(link.ref, records.get(link.ref.record)))
            # An entry of the media store is nothing but its link.
            return not isinstance(link.ref, UploadRef) or self._server.has_upload(link.ref)

        return [link for link in links if not has_owner(link)]

    def _release(self, link: Link) -> bool:
        """Release a link, unless its record is being written at this moment."""
        ref = link.ref
        keep = isinstance(ref, FieldRef) and self._settings.policy_of(ref).keep_old_files

        def release() -> None:
            self._rows.links.remove_links([link])
            self._rows.releases.add([link.key], Rule.of(link.shared, keep))
            # An upload that writes the record also locks the row of the link. If there was such an
            # upload, it has committed by now.
            is_upload = isinstance(ref, UploadRef) and self._rows.unclaimed.has(ref.id)
            if is_upload or (isinstance(ref, FieldRef) and self._is_of(link, self._value_at(ref))):
                raise _Linked()

        try:
            self._server.run(release)
        except _Linked:
            return False
        return True

    def _value_at(self, place: FieldRef) -> Any:
        record = find_records(self._server.records.list_all, [place.record]).get(place.record)
        return value_at(place, record)

    def _is_of(self, link: Link, attachment: Any) -> bool:
        """Return whether the record has that file: by its location or, if that fits no file of the
        record, by its hash. A wrong location is no reason to delete anything."""
        if link.is_of(attachment):
            return True
        return link.may_be_of(attachment) and not any(
            other.is_of(attachment) for other in self._rows.links.of(link.ref)
        )

    def drop_variants(self) -> Iterator[Finding]:
        """Delete variants that were being made while their image was deleted."""
        old = int(self._before.timestamp() * 1000)
        for page in self._server.read(self._rows.variants.all()):
            originals = {variant.original for variant in page}
            digests = self._server.run(partial(self._rows.links.digests, originals))
            gone = [
                each
                for each in page
                if each.modified <= old and f"/{digests.get(each.original)}" not in each.key
            ]
            if gone and not self._dry_run:
                self._delete_variants(gone)
            for variant in gone:
                yield Finding("deleted", variant.key, detail="of an image that is gone")

    def _delete(self, keys: list[str]) -> None:
        """Delete files and their variants."""
        self._delete_variants(self._server.run(lambda: self._rows.variants.of(keys)))
        self._storage.delete(keys)
        self._server.metrics.count("deletions", len(keys), result="late")

    def _delete_variants(self, variants: list[Variant]) -> None:
        if variants:
            self._storage.delete([variant.key for variant in variants])
            self._server.metrics.count("deletions", len(variants), result="late")
            self._server.run(lambda: self._rows.variants.drop(variants))

    def finish_releases(self) -> Iterator[Finding]:
        """Carry out the releases that are left: those of processes that died, and those that only
        ``gc`` may carry out."""
        old = int(self._before.timestamp() * 1000)
        for page in self._server.read(self._rows.releases.all()):
            for release in page:
                if release.rule is Rule.DELETE:
                    yield from self._finish(release, self._delete_unlinked)
                elif release.rule is Rule.SWEEP and release.modified <= old:
                    yield from self._finish(release, self._delete_condemned)

    def _finish(
        self, release: Release, delete: Callable[[list[str]], tuple[list[str], bool]]
    ) -> Iterator[Finding]:
        gone, is_done = delete(list(release.keys))
        for key in gone:
            yield Finding("deleted", key, detail="released")
        if is_done and not self._dry_run:
            self._server.run(lambda: self._rows.releases.drop(release.id))

    def discard_unfinished(self) -> Iterator[Finding]:
        """Delete what interrupted writes have left in the storage."""
        names = discard_unfinished(self._storage, self._before, self._is_abandoned, self._dry_run)
        for name in names:
            yield Finding("deleted", name, detail="unfinished")

    def sweep(self, force: bool, is_adopted: bool) -> Iterator[Finding]:
        """Delete objects that no row names: a process died after it had stored a file and before it
        wrote the record.

        :param is_adopted: False if the storage had files before it was marked.
        """
        with (
            closing(KeyIndex()) as orphans,
            closing(KeyIndex()) as unknown,
            closing(KeyIndex()) as known,
        ):
            for page in self._server.read(self._rows.unlinked_keys()):
                known.add((each.key, 0) for each in page)
            for records in records_of(self._server.list_all):
                known.add((key, 0) for item in records.items() for key in self._keys_of(*item))
            linked = self._find_orphans(orphans, unknown, known)
            for key, _ in unknown:
                detail = "this server does not make such keys"
                yield Finding("unknown object", key, detail=detail)
            if len(orphans) and not force and not self._lasts:
                why = "Kinto's storage is in memory, so it has forgotten its files."
                raise SweepRefused(f"{why} {BELONG_TOGETHER}")
            if len(orphans) and self._lasts and not is_adopted:
                raise SweepRefused(
                    f"The file storage had files before this database marked it, and {len(orphans)}"
                    " of its files belong to no record. If no other server uses it, run: "
                    f"{ADOPT_STORAGE}"
                )
            if len(orphans) and not force:
                self._check_it_is_ours(linked, len(orphans))
            self._progress.begin("orphans")
            self._progress.expect(len(orphans))
            for page in pages(orphans):
                self._progress.add_files(len(page))
                for key in self._delete_condemned([key for key, _ in page])[0]:
                    yield Finding("deleted", key, detail="in no record")

    def _find_orphans(self, orphans: KeyIndex, unknown: KeyIndex, known: KeyIndex) -> int:
        """Fill ``orphans``, and ``unknown`` with objects that this server does not make; return how
        many objects are linked. The folders of other databases are left out."""
        linked, others = 0, set()
        self._progress.begin("stored files")
        for page in pages(self._storage.list()):
            self._progress.add_files(len(page))
            keys = [stat.key for stat in page]
            has_owner = self._server.run(partial(self._rows.links.linked, keys))
            has_row = known.find(keys)
            linked += len(has_owner)
            for stat in page:
                if folder := marked_folder(stat.key):  # however young it is
                    others.add(folder)
                elif (
                    stat.key not in has_owner
                    and stat.key not in has_row
                    and stat.modified <= self._before
                ):
                    index = orphans if self._is_ours(stat.key) else unknown
                    index.add([(stat.key, stat.size)])
        for folder in others:
            orphans.remove_below(folder)
            unknown.remove_below(folder)
        return linked

    def _check_it_is_ours(self, linked: int, orphans: int) -> None:
        """Refuse to delete orphans where storage and database do not seem to belong together.

        :raises SweepRefused: if they do not.
        """
        why = ""
        pages_of_links = self._server.read(self._rows.links.one_of_each_key())
        links = sum(len(page) for page in pages_of_links)
        if not links:
            why = "The storage contains files, but no record has one."
        elif linked * 2 < links:
            why = f"Only {linked} of the {links} files of records are in this storage."
        elif orphans > max(linked, FEW_ORPHANS):
            why = f"{orphans} files belong to no record, and only {linked} belong to one."
        if why:
            raise SweepRefused(f"{why} {BELONG_TOGETHER}")

    def _delete_unlinked(self, keys: list[str]) -> tuple[list[str], bool]:
        """Delete those of these keys, which one record had, that have no owner. Return the deleted
        ones, and whether the others are to stay for good."""
        names = [key for key in keys if self._settings.makes_again(key)]
        if names:
            once = [key for key in keys if key not in names]
            gone, is_done = self._delete_condemned(names)
            return (gone + self._delete_unlinked(once)[0] if once else gone), is_done
        linked = self._server.run(lambda: self._rows.links.linked(keys))
        unlinked = [key for key in keys if key not in linked]
        if not self._dry_run:
            self._delete(unlinked)
        return unlinked, True

    def _is_from_before(self, key: str) -> bool | None:
        """Return whether the object is old enough to be deleted, or None if there is none. A later
        upload may be using, or about to use, the same key again."""
        try:
            return self._storage.stat(key).modified <= self._before
        except BlobNotFound:
            return None

    def _delete_condemned(self, keys: list[str]) -> tuple[list[str], bool]:
        """Delete those of these keys that no upload needs, see
        :mod:`kinto_attachment.rows.deletion`. Return the deleted ones, and whether the others are
        to stay, because the upload that stores them writes down what becomes of them."""
        server, reservations = self._server, self._rows.reservations
        mark = None if self._dry_run else server.run(lambda: reservations.condemn(keys))
        # In this order, each in its own transaction: a reservation ends when its link exists.
        reserved = server.run(lambda: reservations.reserved(keys, self._reserved_since))
        linked = server.run(lambda: self._rows.links.linked(keys))
        free = [key for key in keys if key not in reserved and key not in linked]
        # A later upload may use a name again.
        again = self._settings.makes_again
        ages = {key: not again(key) or self._is_from_before(key) for key in free}
        gone = [key for key, is_old in ages.items() if is_old]
        if mark:
            # If the deletion fails, the storage may still carry it out later. The mark then stays,
            # so no upload stores these keys until it has expired.
            self._delete(gone)
            server.run(lambda: reservations.pardon(mark))
        return gone, False not in ages.values()

    def forget(self) -> None:
        """Delete expired rows: reservations and turns of dead uploads, and what tells which
        attachments records had before."""
        if self._dry_run:
            return
        before = int((time.time() - REMEMBERED_SECONDS) * 1000)
        self._server.run(lambda: self._rows.reservations.drop_before(self._reserved_since))
        self._server.run(lambda: self._rows.turns.drop_before(self._reserved_since))
        self._server.run(lambda: self._rows.links.forget(before))
        self._server.run(lambda: self._rows.former.forget(before))

    def _keys_of(self, ref: RecordRef, record: Row) -> Iterator[str]:
        """Yield the keys that the files of a record may have, whatever ``base_url`` was: a file
        that a record names is not deleted only because it has no link."""
        for value in self._server.plugin.files_of(ref, record).values():
            yield from key_suffixes(str(value.get("location") or ""))

    def _is_abandoned(self, key: str) -> bool:
        """Return whether the unfinished upload of a key is ours, and its process has died. An
        upload that still arrives has reserved its key."""
        reserved = partial(self._rows.reservations.reserved, [key], self._reserved_since)
        return self._is_ours(key) and not self._server.run(reserved)

    def _is_ours(self, key: str) -> bool:
        return is_key(key) and (self._settings.makes(key) or key.startswith(f"{HEARTBEAT}/"))
