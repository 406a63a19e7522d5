"""The life of a resumable upload, without HTTP: how far it is, and how it ends."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain

from ..errors import OffsetRefused, UploadExpired
from ..files.blob import Digest
from ..plugin import Plugin
from ..rows import Rows
from ..rows.paging import database_time
from ..rows.uploads import ResumableUpload, Segment
from ..storage.stored_file import StoredFile
from ..transactions.files import FileTransaction
from .targets import Finished


def expires_at(plugin: Plugin, upload: ResumableUpload, last: Segment | None) -> float:
    """Return when an upload expires, in seconds since 1970.

    :param last: the last segment that has arrived.
    """
    touched = max(upload.modified, last.modified if last else 0)
    return touched / 1000 + plugin.settings["uploads.ttl"]


def check_not_expired(plugin: Plugin, upload: ResumableUpload, last: Segment | None) -> None:
    """Check that the upload has not expired.

    :raises UploadExpired: if it has.
    """
    expires = expires_at(plugin, upload, last)
    # The clock of this server may be wrong: that of the database, which dates the rows, decides.
    if time.time() > expires and database_time(plugin.rows.storage) / 1000 > expires:
        raise UploadExpired()


def open_segments(plugin: Plugin, segments: Sequence[Segment]) -> StoredFile:
    """Return the bytes of segments, in their order, as one file."""
    return StoredFile(plugin.storage, [(each.key, each.size) for each in segments])


def digest_of(plugin: Plugin, segments: Sequence[Segment]) -> Digest:
    """Read the bytes of segments, and return their digest."""
    return Digest.of(
        chain.from_iterable(plugin.storage.open(each.key) for each in segments if each.size)
    )


def complete(
    rows: Rows,
    files: FileTransaction,
    upload: ResumableUpload,
    last: Segment,
    attach: Callable[[], Finished],
) -> Finished:
    """Attach the file of an upload, write down that the upload is complete, and release its
    segments, all in the present transaction.

    :param last: the segment that completes the upload, which is not claimed yet.
    :param attach: gives the file to its owner.
    :raises OffsetRefused: if another request has completed the upload.
    """
    resumable = rows.resumable
    # This row stays: two requests may complete the upload, and the second one waits for it.
    end = replace(last, key="")
    if not resumable.claim(upload, end):
        raise OffsetRefused(last.offset)
    files.undo(lambda: resumable.drop(end))
    finished = attach()
    resumable.save(replace(upload, length=last.end, result=finished.to_row()))
    files.undo(lambda: resumable.save(upload))
    _release_segments(rows, files, upload, last.offset)
    files.release([(last.key, False)], keep_old=False)
    return finished


def discard(rows: Rows, files: FileTransaction, upload: ResumableUpload) -> bool:
    """Delete an upload and release its segments. A file that was attached stays. Return False if
    another request has deleted it."""
    if not rows.resumable.take(upload):
        return False
    files.undo(lambda: rows.resumable.save(upload))
    _release_segments(rows, files, upload)
    return True


def _release_segments(
    rows: Rows, files: FileTransaction, upload: ResumableUpload, end: int | None = None
) -> None:
    resumable = rows.resumable
    segments = resumable.take_segments(upload.id, end)
    for segment in segments:
        files.undo(lambda segment=segment: resumable.claim(upload, segment))
    files.release([(each.key, False) for each in segments], keep_old=False)
