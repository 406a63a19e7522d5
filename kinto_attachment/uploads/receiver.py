"""Receiving the bytes of a resumable upload, segment by segment."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import BinaryIO

from ..errors import (
    BodyTooLarge,
    ChecksumMismatch,
    ClientTooSlow,
    MalformedForm,
    OffsetRefused,
    SendingStopped,
)
from ..files.blob import Source
from ..files.mimetype import DEFAULT_MIMETYPE
from ..files.ref import UploadRef
from ..http.requests import RequestBody, spooling
from ..plugin import Plugin
from ..rows.uploads import ResumableUpload, Segment
from ..transactions.files import FileTransaction
from .digest import RunningDigest
from .protocol import Checksum


class Receiver:
    """Receives what one request sends of an upload.

    A segment is stored, then claimed: its row is committed, and the offset of the upload has moved
    for good. Whatever was claimed before an error stays.

    :param files: the transaction of the request, which has written nothing yet.
    :param upload: as it was read. The request has named its offset.
    :param length: its length, which the request may be the first to tell; None if none has.
    :param before: the last segment that arrived before; None if none did.
    :param limit: how long the upload may become, in bytes; None for no limit.
    :ivar digest: of all bytes of the upload so far.
    :ivar upload: as it is now.
    :ivar last: the segment that completes the upload. It is stored but not claimed: its row is
        committed together with the record. None if bytes are missing, or if the upload is partial.
    """

    def __init__(
        self,
        plugin: Plugin,
        files: FileTransaction,
        upload: ResumableUpload,
        length: int | None,
        before: Segment | None,
        limit: int | None,
    ):
        self._plugin = plugin
        self._files = files
        self.upload = upload
        self._length = length
        self._limit = limit
        self.offset = before.end if before else 0
        self.digest = RunningDigest(before.state if before else "", self.offset)
        self.last: Segment | None = None

    def receive(self, body: RequestBody, checksum: Checksum | None = None) -> None:
        """Receive the body of the request.

        Of a body that breaks off, what has arrived is kept, unless it has a checksum. Of a body
        without a length, nothing is claimed before its end, because it may be too long.

        :raises BodyTooLarge: if the body is longer than the rest of the upload.
        :raises ChecksumMismatch: if it has another checksum.
        :raises OffsetRefused: if another request has sent the bytes of the same offset.
        :raises SendingStopped: if the body breaks off, or arrives too slowly.
        :raises StorageUnavailable: if a segment cannot be stored.
        """
        if body.length is not None:
            self._check_length(self.offset + body.length)
        self._checksum = checksum.start() if checksum else None
        is_late = checksum is not None or body.length is None
        held: list[Segment] = []
        expected, start = body.length, self.offset
        is_last, broken = False, None
        while not (is_last or broken):
            segment, is_last, broken = self._store_next(body)
            if is_last and expected is not None and self.offset - start < expected:
                reason = f"The body ended after {self.offset - start} of {expected} bytes."
                is_last, broken = False, MalformedForm(reason, "body")
            if segment:
                held.append(segment)
            if not is_late:
                self._claim(held)
        if checksum and not broken and self._checksum.digest() != checksum.digest:
            raise ChecksumMismatch(checksum.algorithm)
        if not (checksum and broken):
            self._claim(held)
        if broken:
            raise SendingStopped(broken) from broken
        if self._is_end(self.offset):
            self.finish()
        elif self.upload.length != self._length:
            self._tell_length()

    def finish(self) -> None:
        """Store the segment that completes the upload, if no bytes do: it is empty."""
        if self.last is None:
            with _spooled(self._plugin) as spool:
                self.last = self._store(spool, 0)

    def _is_end(self, offset: int) -> bool:
        """Return whether the file is complete with the bytes up to the offset."""
        return offset == self._length and not self.upload.is_partial

    def _tell_length(self) -> None:
        """Write the length down, without any bytes.

        :raises OffsetRefused: if another request has changed the upload.
        """
        rows, before = self._plugin.rows.resumable, self.upload
        after = replace(before, length=self._length)
        now = self._files.committed(lambda: rows.replace(before, after))
        if now is None:
            raise OffsetRefused(self.offset)
        self.upload = now

    def _store_next(
        self, body: RequestBody
    ) -> tuple[Segment | None, bool, MalformedForm | ClientTooSlow | None]:
        """Receive and store the next segment. Return it, or None if no bytes came; whether the body
        has ended; and the error by which it broke off, if it did."""
        size, most = 0, self._plugin.settings["uploads.segment_size"]
        chunk, broken = _read(body)
        if not chunk:
            return None, broken is None, broken
        with _spooled(self._plugin) as spool:
            while chunk:
                size += len(chunk)
                self._check_length(self.offset + size)
                self._add(chunk)
                with spooling():
                    spool.write(chunk)
                if size >= most:
                    return self._store(spool, size), False, None
                chunk, broken = _read(body)
            return self._store(spool, size), broken is None, broken

    def _add(self, chunk: bytes) -> None:
        self.digest.update(chunk)
        if self._checksum:
            self._checksum.update(chunk)

    def _store(self, spool: BinaryIO, size: int) -> Segment:
        """Store a segment, and return it. The upload grows by its size."""
        with spooling():
            spool.flush()
        staged = self._plugin.settings.staged
        source = Source(spool, "segment", DEFAULT_MIMETYPE, size, "", private=True)
        keys = staged.template.keys(UploadRef(self.upload.id), "", "")
        key = self._files.put(keys, source, staged.template)
        segment = Segment(self.upload.id, self.offset, key, size, self.digest.state)
        self.offset += size
        return segment

    def _claim(self, held: list[Segment]) -> None:
        """Claim segments that are stored, and remove them from the list; all but the one that
        completes the upload.

        :raises OffsetRefused: if another request has sent the bytes of the same offset.
        """
        rows = self._plugin.rows.resumable
        while held:
            segment = held.pop(0)
            if self._is_end(segment.end):
                self.last = segment
                continue
            claim = partial(rows.claim, self.upload, segment, self._length)
            self.upload = self._files.give(segment.key, claim)

    def _check_length(self, length: int) -> None:
        if self._limit is not None and length > self._limit:
            raise BodyTooLarge(length, self._limit)


@contextmanager
def _spooled(plugin: Plugin) -> Iterator[BinaryIO]:
    """Give a new spool to the block, and close it then."""
    spool = plugin.storage.spool()
    try:
        yield spool
    finally:
        with suppress(OSError):  # closing flushes, which fails again if the disk is full
            spool.close()


def _read(body: RequestBody) -> tuple[bytes, MalformedForm | ClientTooSlow | None]:
    """Return the next bytes, none at the end, and the error by which the body breaks off, if it
    does."""
    try:
        return body.read(), None
    except (MalformedForm, ClientTooSlow) as error:
        return b"", error
