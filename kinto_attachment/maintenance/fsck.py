"""Whether records, links and objects agree: what is wrong, where, and what would mend it."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from hashlib import sha256
from typing import Any

from ..errors import BlobNotFound, StorageUnavailable
from ..files.blob import ATTRIBUTE, Attachment
from ..files.ref import RecordRef, Ref, UploadRef
from ..finding import Finding
from ..rows.links import Link
from ..rows.paging import pages, records_of, rows_of
from .key_index import Keys
from .server import Server

RESTORE = "restore it from a backup, or DELETE {record}/attachment"
DELETE = "restore it from a backup, or DELETE /media/{hash}"
GC = "kinto-attachment gc"
IMPORT = "kinto-attachment import"
REBASE = "kinto-attachment rebase"
MOVE = "move it elsewhere, if nobody needs it here"

PAUSE = 5
"""Seconds between storing a file and writing its record, at most."""

FAILURES = 10
"""Objects in a row that cannot be read: then it is not they."""


def check(
    server: Server,
    *,
    deep: bool = False,
    on_bytes: Callable[[int], None] = lambda count: None,
) -> Iterator[Finding]:
    """Every link has its bytes, every record with an attachment its link, every object is known.

    It may run while the server does: what looks wrong is looked at again before it is told.

    :param deep: read all bytes, and compare their hashes.
    :param on_bytes: is told how many bytes were read.
    :raises StorageUnavailable: nothing can be said.
    """
    with closing(Keys()) as objects, closing(Keys()) as known, closing(Keys()) as linked:
        checker = _Checker(server, objects, known, linked)
        yield from checker.check()
        if deep:
            yield from checker.check_bytes(on_bytes)


class _Checker:
    """
    :param objects: what is in the storage, with its size.
    :param known: keys that have a row.
    :param linked: URIs of records that have what they are linked to.
    """

    def __init__(self, server: Server, objects: Keys, known: Keys, linked: Keys):
        self._server = server
        self._objects = objects
        self._known = known
        self._linked = linked

    def check(self) -> Iterator[Finding]:
        server = self._server
        for page in pages(server.storage.list()):
            self._objects.add((stat.key, stat.size) for stat in page)
        listed = time.monotonic()
        for keys in server.kept_keys():
            self._known.add((key, 0) for key in keys)
        for page in server.read(server.pending.all()):
            there = self._objects.find([upload.key for upload in page])
            lost = [u for u in page if u.key not in there and not self._is_stored(u.key)]
            for upload in server.run(lambda lost=lost: list(filter(server.pending.has, lost))):
                yield Finding("missing object", upload.key, upload.ref.uri, remedy=DELETE)
        for page in server.read(server.links.every()):
            self._known.add((link.key, 0) for link in page)
            yield from self._check_links(page)
        for collection_uri, page in records_of(server.rows):
            yield from self._check_records(collection_uri, page)
        yield from self._check_objects(listed)

    def _check_links(self, links: list[Link]) -> Iterator[Finding]:
        there = self._objects.find([link.key for link in links])
        records = rows_of(self._server.rows, [link.ref for link in links])
        for link in links:
            if link.key not in there and not self._is_stored(link.key) and self._is_link(link):
                yield Finding("missing object", link.key, link.ref.uri, remedy=RESTORE)
            size = there.get(link.key, link.size)
            if not isinstance(link.ref, RecordRef):
                # Nothing else is ever stored under such a key.
                if size != link.size:
                    yield _wrong_size(link, size, link.size)
                is_upload = isinstance(link.ref, UploadRef)
                if is_upload and not self._server.has_upload(link.ref) and self._is_link(link):
                    yield Finding("link without record", link.key, link.ref.uri, remedy=GC)
                continue
            attachment = records.get(link.ref, {}).get(ATTRIBUTE)
            if link.is_of(attachment):
                self._linked.add([(link.ref.uri, 0)])
                # Not all is well: as it is now, all of it.
                if list(_contradictions(link, attachment, size)):
                    yield from self._check_again(link)
            elif self._is_link(link):
                yield from self._check_again(link)

    def _check_again(self, link: Link) -> Iterator[Finding]:
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

    def _check_records(
        self, collection_uri: str, records: list[dict[str, Any]]
    ) -> Iterator[Finding]:
        _, _, bucket, _, collection = collection_uri.split("/")
        locations = {}
        for record in records:
            try:
                attachment = Attachment.from_json(record.get(ATTRIBUTE))
            except ValueError:
                continue  # none, or none of ours
            locations[RecordRef(bucket, collection, record["id"])] = attachment.location
        linked = self._linked.find([ref.uri for ref in locations])
        for ref, location in locations.items():
            if ref.uri not in linked and self._lacks_link(ref):
                yield Finding("record without link", "", ref.uri, location, IMPORT)

    def _lacks_link(self, ref: RecordRef) -> bool:
        """Whether it has an attachment that no link is of, now."""
        attachment = self._attachment_of(ref)
        links = self._server.run(lambda: self._server.links.of(ref))
        return attachment is not None and not any(link.may_be_of(attachment) for link in links)

    def _attachment_of(self, ref: Ref) -> Any:
        """What the record has, now."""
        return rows_of(self._server.rows, [ref]).get(ref, {}).get(ATTRIBUTE)

    def _check_objects(self, listed: float) -> Iterator[Finding]:
        old_files = self._server.run(self._server.legacy.exist)
        for page in pages(self._objects):
            unknown = self._unknown([key for key, _ in page])
            # Its record may be about to be written.
            wait = PAUSE - (time.monotonic() - listed)
            if unknown and wait > 0:
                time.sleep(wait)
            for key in self._unknown(unknown):
                if not self._is_stored(key):
                    continue
                if old_files:
                    yield Finding("orphan object", key, remedy=IMPORT)
                elif self._server.settings.makes(key):
                    yield Finding("orphan object", key, remedy=GC)
                else:
                    yield Finding("unknown object", key, remedy=MOVE)

    def _unknown(self, keys: list[str]) -> list[str]:
        """Those of a page that no row has, or had since it was looked at."""
        has_row = self._known.find(keys) if keys else {}
        keys = [key for key in keys if key not in has_row]
        linked = self._server.run(lambda: self._server.links.linked(keys)) if keys else set()
        return [key for key in keys if key not in linked]

    def check_bytes(self, on_bytes: Callable[[int], None]) -> Iterator[Finding]:
        failures = 0
        for page in self._server.read(self._server.links.all()):
            for link in page:
                try:
                    yield from self._check_bytes(link, on_bytes)
                    failures = 0
                except StorageUnavailable as error:
                    failures += 1
                    if failures == FAILURES:
                        raise
                    yield Finding("unreadable object", link.key, link.ref.uri, str(error), RESTORE)

    def _check_bytes(self, link: Link, on_bytes: Callable[[int], None]) -> Iterator[Finding]:
        digest = sha256()
        try:
            chunks = self._server.storage.open(link.key)
        except BlobNotFound:
            return  # told, or gone since
        with closing(chunks):
            for chunk in chunks:
                digest.update(chunk)
                on_bytes(len(chunk))
        found = digest.hexdigest()
        if found != link.digest and self._is_link(link):
            detail = f"SHA-256 is {found}, not {link.digest}"
            yield Finding("wrong bytes", link.key, link.ref.uri, detail, RESTORE)

    def _is_link(self, link: Link) -> bool:
        return link in self._server.run(lambda: self._server.links.of(link.ref))

    def _is_stored(self, key: str) -> bool:
        return self._size_of(key) is not None

    def _size_of(self, key: str) -> int | None:
        """Bytes, now; None if it is not there."""
        try:
            return self._server.storage.stat(key).size
        except BlobNotFound:
            return None


def _contradictions(link: Link, value: Any, size: int | None) -> Iterator[Finding]:
    """Where a record says something else of its file than is true.

    :param size: of the object in bytes; None if there is none.
    """
    try:
        attachment = Attachment.from_json(value)
    except ValueError:
        return  # somebody else's attribute
    if size not in (None, attachment.size):
        yield _wrong_size(link, size, attachment.size)
    if attachment.hash != link.digest:
        detail = f"the record says {attachment.hash}, the link {link.digest}"
        yield Finding("wrong hash", link.key, link.ref.uri, detail, RESTORE)


def _wrong_size(link: Link, size: int | None, expected: int | None) -> Finding:
    detail = f"{size} bytes, not {expected}"
    return Finding("wrong size", link.key, link.ref.uri, detail, RESTORE)
