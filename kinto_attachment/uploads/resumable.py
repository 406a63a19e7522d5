"""The life of a resumable upload, without HTTP: how far it is, and how it ends."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain

from ..errors import OffsetRefused, UploadGone
from ..files.blob import Digest
from ..plugin import Plugin
from ..rows import Rows
from ..rows.deletion import Rule
from ..rows.uploads import ResumableUpload, Segment
from ..storage.stored_file import StoredFile
from ..transactions.files import FileTransaction
from .finished import Finished

LOST = "Bytes of this upload are lost: delete it, and begin it again."


def expires_at(plugin: Plugin, upload: ResumableUpload, last: Segment | None) -> float:
    """Return when an upload expires, in seconds since 1970.

    :param last: the last segment that has arrived.
    """
    touched = max(upload.modified, last.modified if last else 0)
    return touched / 1000 + plugin.settings["uploads.ttl"]


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
) -> tuple[ResumableUpload, Finished]:
    """Attach the file of an upload, write down that the upload is complete, and release its
    segments, all in the present transaction. Return the upload as it is then.

    :param last: the segment that completes the upload, which is not claimed yet.
    :param attach: gives the file to its owner.
    :raises OffsetRefused: if another request has completed, changed or deleted the upload.
    """
    resumable = rows.resumable
    now = resumable.get(upload.id)
    if now is None or now.result is not None or now.length not in (None, last.end):
        raise OffsetRefused(last.offset)
    # Other requests that complete or delete the upload wait from here on.
    locked = resumable.replace(now, replace(now, length=last.end))
    if locked is None:
        raise OffsetRefused(last.offset)
    files.undo(lambda: resumable.has(now.id) and resumable.save(now))
    end = replace(last, key="")  # it stays, so that no other request stores that offset
    resumable.add_segment(end)
    files.undo(lambda: resumable.drop(end))
    finished = attach()
    completed = resumable.replace(locked, replace(locked, result=finished.to_row()))
    if completed is None:  # deleted meanwhile, on a storage where nothing is locked
        raise OffsetRefused(last.offset)
    _release_segments(rows, files, now, last.offset)
    files.release([(last.key, False)], keep_old=False)
    return completed, finished


def discard(rows: Rows, files: FileTransaction, upload: ResumableUpload) -> bool:
    """Delete an upload and release its segments. A file that was attached stays. Return False if
    another request has deleted it."""
    while not rows.resumable.take(upload):
        # The request that was in the way may have completed the upload instead.
        now = rows.resumable.get(upload.id)
        if now is None:
            return False
        upload = now
    files.undo(lambda: rows.resumable.save(upload))
    _release_segments(rows, files, upload)
    return True


def _release_segments(
    rows: Rows, files: FileTransaction, upload: ResumableUpload, end: int | None = None
) -> None:
    resumable = rows.resumable
    segments = resumable.take_segments(upload.id, end)
    for segment in segments:
        files.undo(lambda segment=segment: resumable.restore(segment))
    files.release([(each.key, False) for each in segments], keep_old=False)


def check_whole(segments: Sequence[Segment], length: int) -> None:
    """Check that segments follow each other from the start to the end.

    :raises UploadGone: if not, because rows are lost.
    """
    offset = 0
    for segment in segments:
        if segment.offset != offset or not (segment.key or not segment.size):
            break
        offset = segment.end
    if offset != length:
        raise UploadGone(LOST)


def abandon(rows: Rows, upload: ResumableUpload) -> None:
    """Delete an upload whose sender will never hear of it. ``gc`` deletes its bytes."""
    if rows.resumable.take(upload):
        segments = rows.resumable.take_segments(upload.id)
        rows.releases.add([each.key for each in segments], Rule.DELETE)
