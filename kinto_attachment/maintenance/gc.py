"""Finishing what was begun: bytes that nobody has any more go.

Nothing is deleted because it looks unused. What goes was written down as released, or has a name
that this server makes and has been there, without a record, for longer than any upload takes.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any

from ..errors import BlobNotFound, NotImported, SweepRefused
from ..files.blob import ATTRIBUTE
from ..files.key import HEARTBEAT, ends_of
from ..files.ref import RecordRef, UploadRef
from ..finding import Finding
from ..rows.deletion import Release, Rule
from ..rows.links import Link
from ..rows.paging import pages, records_of, rows_of
from ..rows.uploads import Unclaimed
from ..rows.variants import Variant
from .key_index import Keys
from .server import Server

FEW = 10
"""Files in no record, of which there may be more than of others: a new server."""

CLAIM_TIME = timedelta(hours=1)
"""How long a claim is believed at least: longer than any upload waits for its storage."""


def collect(
    server: Server,
    older_than: timedelta = timedelta(hours=24),
    *,
    dry_run: bool = False,
    force: bool = False,
    offline: bool = False,
) -> Iterator[Finding]:
    """Delete what nobody has; a finding ``deleted`` for each object that goes, or would, and
    ``released`` for each that is found to be nobody's.

    :param older_than: what is younger may belong to an upload that is under way.
    :param dry_run: change nothing.
    :param force: also where the storage and the database do not seem to belong together.
    :param offline: no server is running: nothing is under way.
    :raises NotImported: there are files that only rows of the existing plugin know.
    :raises SweepRefused: they do not seem to belong together. What was written down as released
        is deleted by then.
    """
    before = datetime.now(timezone.utc) - older_than
    claims_before = datetime.now(timezone.utc) - max(older_than, CLAIM_TIME)
    if offline:
        before = claims_before = datetime.now(timezone.utc) + timedelta(seconds=1)
    collector = _Collector(server, before, claims_before, dry_run)
    if server.run(server.legacy.exist):
        raise NotImported()
    yield from collector.release_links()
    yield from collector.expire_uploads()
    yield from collector.finish_releases()
    yield from collector.drop_variants()
    yield from collector.discard_unfinished()
    yield from collector.sweep(force)
    collector.forget()


class _Written(Exception):
    """The record of a link that seemed to have none."""


class _Collector:
    def __init__(self, server: Server, before: datetime, claims_before: datetime, dry_run: bool):
        self._server = server
        self._before = before
        self._claims_since = int(claims_before.timestamp() * 1000)
        self._dry_run = dry_run

    def release_links(self) -> Iterator[Finding]:
        """Links of records that are gone, or have another attachment: nothing makes such."""
        server, old = self._server, int(self._before.timestamp() * 1000)
        for page in server.read(server.links.every()):
            for link in _without_record(server, [link for link in page if link.modified <= old]):
                if self._dry_run or self._release(link):
                    yield Finding("released", link.key, link.ref.uri, "link without record")

    def _release(self, link: Link) -> bool:
        """Let go of a link, unless its record is written in this moment."""
        server, ref = self._server, link.ref
        keep = isinstance(ref, RecordRef) and server.settings.policy_of(ref).keep_old_files
        rule = Rule.of(link.shared, keep)

        def release() -> None:
            server.links.remove_links([link])
            server.releases.add([link.key], rule)
            # Whoever wrote the record had the row of the link too, and is done by now.
            rows = rows_of(server.records.list_all, [ref])
            is_upload = isinstance(ref, UploadRef) and server.unclaimed.get(ref.id)
            if is_upload or _is_of(server, link, rows.get(ref, {}).get(ATTRIBUTE)):
                raise _Written()

        try:
            server.run(release)
        except _Written:
            return False
        return True

    def expire_uploads(self) -> Iterator[Finding]:
        """What came for the media library, and became no object of it."""
        server = self._server
        old = (time.time() - server.settings["library.unclaimed_ttl"]) * 1000
        for page in server.read(server.unclaimed.all()):
            for upload in page:
                if upload.modified < old and (self._dry_run or self._expire(upload)):
                    yield Finding("expired", "", upload.ref.uri, upload.facts["fileName"])

    def _expire(self, upload: Unclaimed) -> bool:
        """Let go of an upload, unless somebody claims it in this moment."""
        server = self._server

        def expire() -> bool:
            taken = server.unclaimed.take(upload)
            for key, shared in server.links.remove(upload.ref) if taken else ():
                server.releases.add([key], Rule.of(shared, keep_old=False))
            return taken

        return server.run(expire)

    def drop_variants(self) -> Iterator[Finding]:
        """Other sizes of images that nobody has any more: they were made when it was deleted."""
        server, old = self._server, int(self._before.timestamp() * 1000)
        for page in server.read(server.variants.all()):
            originals = {variant.original for variant in page}
            digests = server.run(lambda originals=originals: server.links.digests(originals))
            gone = [
                each
                for each in page
                if each.modified <= old and f"/{digests.get(each.original)}/" not in each.key
            ]
            if gone and not self._dry_run:
                self._delete_variants(gone)
            for variant in gone:
                yield Finding("deleted", variant.key, detail="of an image that is gone")

    def _delete(self, keys: list[str]) -> None:
        """Delete files, and other sizes of them."""
        server = self._server
        self._delete_variants(server.run(lambda: server.variants.of(keys)))
        server.storage.delete(keys)

    def _delete_variants(self, variants: list[Variant]) -> None:
        server = self._server
        if variants:
            server.storage.delete([variant.key for variant in variants])
            server.run(lambda: server.variants.drop(variants))

    def finish_releases(self) -> Iterator[Finding]:
        """What a transaction wrote down, and a process did not live to do."""
        server = self._server
        old = int(self._before.timestamp() * 1000)
        for page in server.read(server.releases.all()):
            for release in page:
                if release.rule is Rule.DELETE:
                    yield from self._finish(release, self._delete_unlinked)
                elif release.rule is Rule.SWEEP and release.modified <= old:
                    yield from self._finish(release, self._delete_doomed)

    def _finish(
        self, release: Release, delete: Callable[[list[str]], tuple[list[str], bool]]
    ) -> Iterator[Finding]:
        gone, is_done = delete(list(release.keys))
        for key in gone:
            yield Finding("deleted", key, detail="released")
        if is_done and not self._dry_run:
            self._server.run(lambda: self._server.releases.drop(release.id))

    def discard_unfinished(self) -> Iterator[Finding]:
        """What the storage itself has half of."""
        storage, is_ours = self._server.storage, partial(_is_ours, self._server)
        for name in storage.discard_unfinished(self._before, is_ours, dry_run=self._dry_run):
            yield Finding("deleted", name, detail="unfinished")

    def sweep(self, force: bool) -> Iterator[Finding]:
        """What no row knows: a process died between storing and writing its record."""
        with closing(Keys()) as orphans, closing(Keys()) as known:
            for keys in self._server.kept_keys():
                known.add((key, 0) for key in keys)
            for _, records in records_of(self._server.rows):
                known.add((key, 0) for record in records for key in _keys_of(record))
            linked = yield from self._find_orphans(orphans, known)
            if len(orphans) and not force:
                self._check_it_is_ours(linked, len(orphans))
            for page in pages(orphans):
                for key in self._delete_doomed([key for key, _ in page])[0]:
                    yield Finding("deleted", key, detail="in no record")

    def _find_orphans(self, orphans: Keys, known: Keys) -> Iterator[Finding]:
        """Fill ``orphans``; how many objects are linked."""
        server, linked = self._server, 0
        for page in pages(server.storage.list()):
            keys = [stat.key for stat in page]
            has_record = server.run(lambda keys=keys: server.links.linked(keys))
            has_row = known.find(keys)
            linked += len(has_record)
            for stat in page:
                if stat.key in has_record or stat.key in has_row or stat.modified > self._before:
                    continue
                if _is_ours(server, stat.key):
                    orphans.add([(stat.key, stat.size)])
                else:
                    yield Finding("unknown object", stat.key, detail="no name of this server's")
        return linked

    def _check_it_is_ours(self, linked: int, orphans: int) -> None:
        server = self._server
        if not hasattr(server.records, "client"):
            raise SweepRefused("Kinto's storage is in memory: it knows nothing of what was before.")
        links = sum(len(page) for page in server.read(server.links.all()))
        if not links:
            raise SweepRefused("No record has a file, but the storage has.")
        if linked * 2 < links:
            raise SweepRefused(f"Of {links} files of records, {linked} are in this storage.")
        if orphans > max(linked, FEW):
            raise SweepRefused(f"{orphans} files are in no record, and only {linked} are in one.")

    def _delete_unlinked(self, keys: list[str]) -> tuple[list[str], bool]:
        """Of keys that one record had; those that went, and whether the others are to stay."""
        server = self._server
        linked = server.run(lambda: server.links.linked(keys))
        unlinked = [key for key in keys if key not in linked]
        gone = [key for key in unlinked if self._is_from_before(key)]
        if not self._dry_run:
            self._delete(gone)
        return gone, gone == unlinked

    def _is_from_before(self, key: str) -> bool:
        """A name may be free again by now, and somebody's upload under way."""
        if self._server.settings.makes_once(key):
            return True
        try:
            return self._server.storage.stat(key).modified <= self._before
        except BlobNotFound:
            return True

    def _delete_doomed(self, keys: list[str]) -> tuple[list[str], bool]:
        """Of keys that somebody may just be storing, see
        :mod:`kinto_attachment.rows.deletion`; those that went. The others are to stay: who stores them now writes down what becomes of them."""
        server = self._server
        doom = None if self._dry_run else server.run(lambda: server.claims.doom(keys))
        # In this order, each with eyes of its own: a claim ends when its link is there.
        claimed = server.run(lambda: server.claims.claimed(keys, self._claims_since))
        linked = server.run(lambda: server.links.linked(keys))
        gone = [key for key in keys if key not in claimed and key not in linked]
        if doom:
            # If that fails it may yet be done: the keys stay doomed for a while.
            self._delete(gone)
            server.run(lambda: server.claims.spare(doom))
        return gone, True

    def forget(self) -> None:
        """Rows that have had their time: claims of the dead, and what stale writes are told by."""
        if self._dry_run:
            return
        server, before = self._server, int(self._before.timestamp() * 1000)
        server.run(lambda: server.claims.drop_before(self._claims_since))
        server.run(lambda: server.links.forget(min(before, int(time.time() * 1000))))


def _without_record(server: Server, links: list[Link]) -> list[Link]:
    """Those links of records whose record is gone, or has another attachment; and of uploads that
    nobody knows."""
    rows = rows_of(server.rows, [link.ref for link in links])

    def is_wanted(link: Link) -> bool:
        if isinstance(link.ref, RecordRef):
            return link.is_of(rows.get(link.ref, {}).get(ATTRIBUTE))
        # An entry of the media store is nothing but its link.
        return not isinstance(link.ref, UploadRef) or server.has_upload(link.ref)

    return [link for link in links if not is_wanted(link)]


def _is_of(server: Server, link: Link, attachment: Any) -> bool:
    """Whether the record has that file: by its location, or, if that is of no file of it, by its
    hash. A wrong location is to be mended, and no reason to delete anything."""
    if link.is_of(attachment):
        return True
    return link.may_be_of(attachment) and not any(
        other.is_of(attachment) for other in server.links.of(link.ref)
    )


def _keys_of(record: dict[str, Any]) -> list[str]:
    """The keys that its attachment may have, whatever ``base_url`` was: that nobody linked it is
    no reason to delete it."""
    attachment = record.get(ATTRIBUTE)
    location = attachment.get("location") if isinstance(attachment, dict) else None
    return ends_of(str(location or ""))


def _is_ours(server: Server, key: str) -> bool:
    return server.settings.makes(key) or key.startswith(f"{HEARTBEAT}/")
