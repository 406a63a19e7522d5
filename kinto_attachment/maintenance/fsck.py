"""Checking that records, links and objects agree: what is wrong, where, and what would mend it."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import Any

from ..errors import BlobNotFound, StorageUnavailable
from ..files.blob import ATTRIBUTE, Attachment, Digest
from ..files.ref import RecordRef, Ref, UploadRef
from ..finding import Finding
from ..rows.key_index import KeyIndex
from ..rows.links import Link
from ..rows.paging import Row, find_records, pages, records_of
from .server import Server

RESTORE = "restore it from a backup, or DELETE {record}/attachment"
DELETE = "restore it from a backup, or DELETE /media/{hash}"
GC = "kinto-attachment gc"
IMPORT = "kinto-attachment import"
REBASE = "kinto-attachment rebase"
MOVE = "move it elsewhere, if no application needs it here"

PAUSE_SECONDS = 5
"""The longest time between storing a file and writing its record."""

MAX_FAILURES = 10
"""Consecutive unreadable objects after which we give up: the storage is at fault, not the
objects."""


def fsck(
    server: Server,
    *,
    deep: bool = False,
    on_bytes: Callable[[int], None] = lambda count: None,
) -> Iterator[Finding]:
    """Check that every link has its bytes, that every record with an attachment has a link, and
    that every object has a row.

    It may run while the server does: whatever looks wrong is looked at again before it is
    reported.

    :param deep: read all bytes, and compare their hashes.
    :param on_bytes: is told how many bytes were read.
    :raises StorageUnavailable: if the storage cannot be reached.
    """
    with (
        closing(KeyIndex()) as objects,
        closing(KeyIndex()) as known,
        closing(KeyIndex()) as linked,
    ):
        checker = _Checker(server, objects, known, linked)
        yield from checker.check()
        if deep:
            yield from checker.check_bytes(on_bytes)


class _Checker:
    """One run.

    :param objects: the keys in the storage, with their sizes.
    :param known: the keys that a row names.
    :param linked: the URIs of records that have the file they are linked to.
    """

    def __init__(self, server: Server, objects: KeyIndex, known: KeyIndex, linked: KeyIndex):
        self._server = server
        self._rows = server.plugin.rows
        self._storage = server.plugin.storage
        self._objects = objects
        self._known = known
        self._linked = linked

    def check(self) -> Iterator[Finding]:
        """Compare everything but the bytes."""
        server = self._server
        for page in pages(self._storage.list()):
            self._objects.add((stat.key, stat.size) for stat in page)
        listed = time.monotonic()
        for page in server.read(self._rows.unlinked_keys()):
            self._known.add((known.key, 0) for known in page)
        yield from self._check_pending()
        for page in server.read(self._rows.links.all()):
            self._known.add((link.key, 0) for link in page)
            yield from self._check_links(page)
        for records in records_of(server.list_all):
            yield from self._check_records(records)
        yield from self._check_objects(listed)

    def _check_pending(self) -> Iterator[Finding]:
        for page in self._server.read(self._rows.pending.all()):
            there = self._objects.find([upload.key for upload in page])
            lost = [
                upload
                for upload in page
                if upload.key not in there and not self._is_stored(upload.key)
            ]
            still_pending = partial(list, filter(self._rows.pending.has, lost))
            for upload in self._server.run(still_pending):
                yield Finding("missing object", upload.key, upload.ref.uri, remedy=DELETE)

    def _check_links(self, links: list[Link]) -> Iterator[Finding]:
        there = self._objects.find([link.key for link in links])
        records = find_records(self._server.list_all, [link.ref for link in links])
        for link in links:
            if link.key not in there and not self._is_stored(link.key) and self._is_link(link):
                yield Finding("missing object", link.key, link.ref.uri, remedy=RESTORE)
            size = there.get(link.key, link.size)
            if not isinstance(link.ref, RecordRef):
                # Such a key never holds other bytes.
                if size != link.size:
                    yield _wrong_size(link, size, link.size)
                is_upload = isinstance(link.ref, UploadRef)
                if is_upload and not self._server.has_upload(link.ref) and self._is_link(link):
                    yield Finding("link without record", link.key, link.ref.uri, remedy=GC)
                continue
            attachment = records.get(link.ref, {}).get(ATTRIBUTE)
            if link.is_of(attachment):
                self._linked.add([(link.ref.uri, 0)])
                if list(_contradictions(link, attachment, size)):
                    yield from self._check_again(link)
            elif self._is_link(link):
                yield from self._check_again(link)

    def _check_again(self, link: Link) -> Iterator[Finding]:
        """Report what is wrong with a link now."""
        attachment = self._attachment_of(link.ref)
        size = self._size_of(link.key)
        if not self._is_link(link):
            return
        if link.is_of(attachment):
            yield from _contradictions(link, attachment, size)
        elif link.may_be_of(attachment):
            location = str(attachment.get("location"))
            yield Finding("wrong location", link.key, link.ref.uri, location, REBASE)
        else:
            yield Finding("link without record", link.key, link.ref.uri, remedy=GC)

    def _check_records(self, records: dict[RecordRef, Row]) -> Iterator[Finding]:
        locations = {}
        for ref, record in records.items():
            try:
                locations[ref] = Attachment.from_json(record.get(ATTRIBUTE)).location
            except ValueError:
                continue  # no attachment, or another application's attribute
        linked = self._linked.find([ref.uri for ref in locations])
        for ref, location in locations.items():
            if ref.uri not in linked and self._lacks_link(ref):
                yield Finding("record without link", "", ref.uri, location, IMPORT)

    def _lacks_link(self, ref: RecordRef) -> bool:
        """Return whether the record has an attachment now and no link to it."""
        attachment = self._attachment_of(ref)
        links = self._server.run(lambda: self._rows.links.of(ref))
        return attachment is not None and not any(link.may_be_of(attachment) for link in links)

    def _attachment_of(self, ref: Ref) -> Any:
        """Return the attribute of the record as it is now."""
        return find_records(self._server.list_all, [ref]).get(ref, {}).get(ATTRIBUTE)

    def _check_objects(self, listed: float) -> Iterator[Finding]:
        settings = self._server.plugin.settings
        old_files = self._server.run(self._server.plugin.legacy.exist)
        for page in pages(self._objects):
            unknown = self._unknown([key for key, _ in page])
            # Its record may be about to be written.
            wait = PAUSE_SECONDS - (time.monotonic() - listed)
            if unknown and wait > 0:
                time.sleep(wait)
            for key in self._unknown(unknown):
                if not self._is_stored(key):
                    continue
                if old_files:
                    yield Finding("orphan object", key, remedy=IMPORT)
                elif settings.makes(key):
                    yield Finding("orphan object", key, remedy=GC)
                else:
                    yield Finding("unknown object", key, remedy=MOVE)

    def _unknown(self, keys: list[str]) -> list[str]:
        """Return those of a page of keys that no row named when we looked, and none names now."""
        named = self._known.find(keys) if keys else {}
        keys = [key for key in keys if key not in named]
        linked = self._server.run(lambda: self._rows.links.linked(keys)) if keys else set()
        return [key for key in keys if key not in linked]

    def check_bytes(self, on_bytes: Callable[[int], None]) -> Iterator[Finding]:
        """Read all bytes that are linked, and compare their hashes."""
        failures = 0
        for page in self._server.read(self._rows.links.all()):
            for link in page:
                try:
                    yield from self._check_bytes(link, on_bytes)
                    failures = 0
                except StorageUnavailable as error:
                    failures += 1
                    if failures == MAX_FAILURES:
                        raise
                    yield Finding("unreadable object", link.key, link.ref.uri, str(error), RESTORE)

    def _check_bytes(self, link: Link, on_bytes: Callable[[int], None]) -> Iterator[Finding]:
        try:
            found = Digest.of(self._storage.open(link.key), on_bytes).hexdigest()
        except BlobNotFound:
            return  # already reported, or deleted since
        if found != link.digest and self._is_link(link):
            detail = f"SHA-256 is {found}, not {link.digest}"
            yield Finding("wrong bytes", link.key, link.ref.uri, detail, RESTORE)

    def _is_link(self, link: Link) -> bool:
        """Return whether the link exists now."""
        return link in self._server.run(lambda: self._rows.links.of(link.ref))

    def _is_stored(self, key: str) -> bool:
        return self._size_of(key) is not None

    def _size_of(self, key: str) -> int | None:
        """Return the bytes of an object now; None if there is none."""
        try:
            return self._storage.stat(key).size
        except BlobNotFound:
            return None


def _contradictions(link: Link, value: Any, size: int | None) -> Iterator[Finding]:
    """Report where a record says something untrue about its file.

    :param size: bytes of the object; None if there is none.
    """
    try:
        attachment = Attachment.from_json(value)
    except ValueError:
        return  # another application's attribute
    if size not in (None, attachment.size):
        yield _wrong_size(link, size, attachment.size)
    if attachment.hash != link.digest:
        detail = f"the record says {attachment.hash}, the link {link.digest}"
        yield Finding("wrong hash", link.key, link.ref.uri, detail, RESTORE)


def _wrong_size(link: Link, size: int | None, expected: int | None) -> Finding:
    detail = f"{size} bytes, not {expected}"
    return Finding("wrong size", link.key, link.ref.uri, detail, RESTORE)
