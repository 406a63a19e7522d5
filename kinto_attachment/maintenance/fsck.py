"""Checking that records, links and stored objects agree.

A finding says what is wrong, where, and how to repair it.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..errors import BlobNotFound, StorageUnavailable
from ..files.blob import Attachment, Digest
from ..files.field import value_at
from ..files.key import MARKER, is_key, marked_folder
from ..files.ref import FieldRef, RecordRef, UploadRef
from ..finding import NO_PROGRESS, Finding, Progress, restoring
from ..rows import KeyKind
from ..rows.key_index import KeyIndex
from ..rows.links import Link
from ..rows.paging import Row, find_owners, find_records, pages, records_of
from ..rows.variants import Variant
from .server import Server

GC = "kinto-attachment gc"
IMPORT = "kinto-attachment import"
DELETE_ROW = "delete it from Kinto's database, if no backup tells what it was"
DELETE_VARIANT = "delete the object: the image is resized again"
BEGIN_AGAIN = "have its sender delete the upload and begin it again"
MOVE = "move it elsewhere, if no application needs it here"

PAUSE_SECONDS = 5
"""How long ``fsck`` waits before it looks again at an unknown object: most uploads write their
record within this time."""

MAX_FAILURES = 10
"""Consecutive unreadable objects after which ``fsck`` gives up: the storage is at fault, not the
objects."""


def fsck(
    server: Server,
    *,
    deep: bool = False,
    progress: Progress = NO_PROGRESS,
) -> Iterator[Finding]:
    """Check that every link has its bytes, that every record with an attachment has a link, and
    that every object has a row.

    It can run while the server does: whatever looks wrong is checked again before it is reported.

    If the folder of a local storage is not mounted, nothing else is checked.

    :param deep: also read all bytes and check their hashes.
    :param progress: is told of the files, the records, and the bytes that are read.
    :raises StorageUnavailable: if the storage cannot be reached.
    """
    claim = server.plugin.storage.claim()
    if claim.is_foreign or claim.is_missing:
        kind = "foreign storage" if claim.is_foreign else "missing marker"
        yield Finding(kind, MARKER, detail=str(claim), remedy=claim.remedy)
    if claim.is_missing:
        return
    with (
        closing(KeyIndex()) as objects,
        closing(KeyIndex()) as known,
        closing(KeyIndex()) as linked,
    ):
        checker = _Checker(server, objects, known, linked, progress)
        yield from checker.check(is_ours=not claim.is_foreign)
        if deep:
            yield from checker.check_bytes()


@dataclass(frozen=True)
class _Hashed:
    """Bytes whose hash a row tells.

    :param record: the URI of their owner; empty if they have none.
    :param remedy: what the operator can do if they are wrong.
    :param is_current: returns whether the row still exists.
    """

    key: str
    digest: str
    record: str
    remedy: str
    is_current: Callable[[], bool]


class _Checker:
    """One run.

    :param objects: the keys in the storage, with their sizes.
    :param known: the keys that a row names.
    :param linked: the URIs of the places that have the file they are linked to.
    """

    def __init__(
        self,
        server: Server,
        objects: KeyIndex,
        known: KeyIndex,
        linked: KeyIndex,
        progress: Progress,
    ):
        self._server = server
        self._progress = progress
        self._hashed = 0
        self._hashed_bytes = 0
        self._rows = server.plugin.rows
        self._storage = server.plugin.storage
        self._objects = objects
        self._known = known
        self._linked = linked

    def check(self, is_ours: bool) -> Iterator[Finding]:
        """Check everything except the bytes.

        :param is_ours: whether objects that no row names are to be reported.
        """
        server, progress = self._server, self._progress
        others = set()
        progress.begin("stored files")
        for page in pages(self._storage.list()):
            progress.add_files(len(page))
            self._objects.add((stat.key, stat.size) for stat in page)
            others |= {folder for stat in page if (folder := marked_folder(stat.key))}
        listed = time.monotonic()
        for page in server.read(self._rows.unlinked_keys()):
            self._known.add((known.key, 0) for known in page)
            self._count([known.key for known in page if known.kind is KeyKind.VARIANT])
        yield from self._check_pending()
        yield from self._check_segments()
        yield from self._check_direct()
        for broken in server.read(self._rows.unreadable()):
            for each in broken:
                detail = str(each)
                yield Finding("unreadable row", "", each.owner, detail, remedy=DELETE_ROW)
        progress.begin("files of records")
        for page in server.read(self._rows.links.all()):
            progress.add_files(len(page))
            self._known.add((link.key, 0) for link in page)
            self._count([link.key for link in page])
            yield from self._check_links(page)
        for records in records_of(server.list_all):
            yield from self._check_records(records)
        if is_ours:
            yield from self._check_objects(listed, tuple(others))

    def _count(self, keys: list[str]) -> None:
        """Add up the files whose bytes ``--deep`` reads."""
        sizes = self._objects.find(keys)
        self._hashed += len(keys)
        self._hashed_bytes += sum(sizes.get(key, 0) for key in keys)

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
                remedy = restoring(upload.ref.uri)
                yield Finding("missing object", upload.key, upload.ref.uri, remedy=remedy)

    def _check_segments(self) -> Iterator[Finding]:
        rows = self._rows.resumable
        for page in self._server.read(rows.all_segments()):
            there = self._objects.find([segment.key for segment in page])
            for segment in page:
                key = segment.key
                if not key or there.get(key) == segment.size:
                    continue
                upload = self._server.run(partial(rows.get, segment.upload))
                if upload and segment in self._server.run(partial(rows.segments, segment.upload)):
                    size = self._size_of(key)
                    if size == segment.size:
                        continue  # stored since the objects were listed
                    kind = "missing object" if size is None else "wrong size"
                    detail = "" if size is None else f"{size} bytes, not {segment.size}"
                    where = f"{upload.intent.base}/uploads/{upload.id}"
                    yield Finding(kind, key, where, detail, BEGIN_AGAIN)

    def _check_direct(self) -> Iterator[Finding]:
        """Report direct uploads that were verified, and whose bytes are gone since. Those of other
        ones need not be there yet."""
        rows = self._rows.direct
        for page in self._server.read(rows.all()):
            for upload in page:
                if not upload.found or not upload.whole or self._is_stored(upload.whole):
                    continue
                if self._server.run(partial(rows.get, upload.id)) == upload:
                    where = f"{upload.intent.base}/uploads/{upload.id}"
                    yield Finding("missing object", upload.whole, where, remedy=BEGIN_AGAIN)

    def _check_links(self, links: list[Link]) -> Iterator[Finding]:
        there = self._objects.find([link.key for link in links])
        records = find_owners(self._server.list_all, [link.ref for link in links])
        for link in links:
            if link.key not in there and not self._is_stored(link.key) and self._is_link(link):
                remedy = restoring(link.ref.uri)
                yield Finding("missing object", link.key, link.ref.uri, remedy=remedy)
            size = there.get(link.key, link.size)
            if not isinstance(link.ref, FieldRef):
                # The bytes of such a key never change.
                if size != link.size:
                    yield _wrong_size(link, size, link.size)
                is_upload = isinstance(link.ref, UploadRef)
                if is_upload and not self._server.has_upload(link.ref) and self._is_link(link):
                    yield Finding("link without record", link.key, link.ref.uri, remedy=GC)
                continue
            attachment = value_at(link.ref, records.get(link.ref.record))
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
            method = "PUT" if link.ref.entry else "POST"
            remedy = f"upload the file again: {method} {link.ref.url_path}"
            yield Finding("wrong location", link.key, link.ref.uri, location, remedy)
        else:
            yield Finding("link without record", link.key, link.ref.uri, remedy=GC)

    def _check_records(self, records: dict[RecordRef, Row]) -> Iterator[Finding]:
        for page in pages(self._server.locations(records).items()):
            linked = self._linked.find([place.uri for place, _ in page])
            for place, location in page:
                if place.uri not in linked and self._lacks_link(place):
                    # The location of a private file does not say which file it is.
                    remedy = restoring(place.uri) if FieldRef.served_at(location) else IMPORT
                    yield Finding("record without link", "", place.uri, location, remedy)

    def _lacks_link(self, place: FieldRef) -> bool:
        """Return whether the record has a file there now, and no link to it."""
        attachment = self._attachment_of(place)
        links = self._server.run(lambda: self._rows.links.of(place))
        return attachment is not None and not any(link.may_be_of(attachment) for link in links)

    def _attachment_of(self, place: FieldRef) -> Any:
        """Return what the record says there now."""
        record = find_records(self._server.list_all, [place.record]).get(place.record)
        return value_at(place, record)

    def _check_objects(self, listed: float, others: tuple[str, ...]) -> Iterator[Finding]:
        """Report objects that no row names.

        :param listed: when the objects were listed (``time.monotonic()``).
        :param others: folders that belong to other databases; their objects are not reported.
        """
        settings = self._server.plugin.settings
        old_files = self._server.run(self._server.plugin.legacy.exist)
        for page in pages(self._objects):
            unknown = self._unknown([key for key, _ in page if not key.startswith(others)])
            # The upload that stored an unknown key may be about to write its record.
            wait = PAUSE_SECONDS - (time.monotonic() - listed)
            if unknown and wait > 0:
                time.sleep(wait)
            for key in self._unknown(unknown):
                if is_key(key) and not self._is_stored(key):
                    continue
                if old_files:
                    yield Finding("orphan object", key, remedy=IMPORT)
                elif settings.makes(key):
                    yield Finding("orphan object", key, remedy=GC)
                else:
                    yield Finding("unknown object", key, remedy=MOVE)

    def _unknown(self, keys: list[str]) -> list[str]:
        """Return those of a page of keys that no row named at the start, and that have no link
        now."""
        named = self._known.find(keys) if keys else {}
        keys = [key for key in keys if key not in named]
        linked = self._server.run(lambda: self._rows.links.linked(keys)) if keys else set()
        return [key for key in keys if key not in linked]

    def check_bytes(self) -> Iterator[Finding]:
        """Read all bytes that are linked, and those of resized images, and check their hashes."""
        failures, progress = 0, self._progress
        progress.begin("bytes")
        progress.expect(self._hashed, self._hashed_bytes)
        for blob in self._blobs():
            progress.add_files()
            try:
                found = Digest.of(self._storage.open(blob.key), progress.add_bytes).hexdigest()
                failures = 0
            except BlobNotFound:
                continue  # already reported, or deleted since; a resized image is made again
            except StorageUnavailable as error:
                failures += 1
                if failures == MAX_FAILURES:
                    raise
                finding = ("unreadable object", blob.key, blob.record, str(error))
                yield Finding(*finding, blob.remedy)
                continue
            if found != blob.digest and blob.is_current():
                detail = f"SHA-256 is {found}, not {blob.digest}"
                yield Finding("wrong bytes", blob.key, blob.record, detail, blob.remedy)

    def _blobs(self) -> Iterator["_Hashed"]:
        """Yield all bytes whose hash a row tells."""
        for links in self._server.read(self._rows.links.all()):
            for link in links:
                is_current = partial(self._is_link, link)
                uri = link.ref.uri
                yield _Hashed(link.key, link.digest, uri, restoring(uri), is_current)
        for variants in self._server.read(self._rows.variants.all()):
            for variant in variants:
                is_current = partial(self._is_variant, variant)
                yield _Hashed(variant.key, variant.digest, "", DELETE_VARIANT, is_current)

    def _is_variant(self, variant: Variant) -> bool:
        """Return whether the resized image exists now."""
        rows = self._rows.variants
        return variant == self._server.run(lambda: rows.find(variant.original, variant.name))

    def _is_link(self, link: Link) -> bool:
        """Return whether the link exists now."""
        return link in self._server.run(lambda: self._rows.links.of(link.ref))

    def _is_stored(self, key: str) -> bool:
        return self._size_of(key) is not None

    def _size_of(self, key: str) -> int | None:
        """Return the current size of an object in bytes; None if there is no object."""
        try:
            return self._storage.stat(key).size
        except BlobNotFound:
            return None


def _contradictions(link: Link, value: Any, size: int | None) -> Iterator[Finding]:
    """Report where the attachment of a record contradicts its file.

    :param value: the attribute of the record.
    :param size: bytes of the object; None if there is no object.
    """
    try:
        attachment = Attachment.from_json(value)
    except ValueError:
        return  # another application's attribute
    if size not in (None, attachment.size):
        yield _wrong_size(link, size, attachment.size)
    if attachment.hash != link.digest:
        detail = f"the record says {attachment.hash}, the link {link.digest}"
        yield Finding("wrong hash", link.key, link.ref.uri, detail, restoring(link.ref.uri))


def _wrong_size(link: Link, size: int | None, expected: int | None) -> Finding:
    detail = f"{size} bytes, not {expected}"
    return Finding("wrong size", link.key, link.ref.uri, detail, restoring(link.ref.uri))
