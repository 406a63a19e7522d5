"""Resumable uploads, and the segments of them that have arrived.

The bytes of an upload are stored in *segments*, each an object of its own that never changes. The
row of a segment has the offset of its first byte as its id. Of two requests that send the bytes of
one offset, only one can create the row: no lock is needed, and every process of a server can take
the next request. The offset of an upload is the end of its last segment.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from kinto.core.storage import Filter, Sort
from kinto.core.utils import COMPARISON

from ...errors import OffsetRefused
from ...files.key import check_key
from ..paging import (
    Row,
    UnreadableRow,
    check_types,
    create_row,
    delete_rows,
    keyset,
    readable,
    scan,
    unreadable,
)
from .intent import HEADER_TEXT, UPLOAD_ID, Intent, new_upload_id

UPLOAD_ROWS = "attachment-upload"
UPLOADS_PARENT = "/attachment-uploads"
SEGMENT_ROWS = "attachment-segment"
SEGMENTS_PARENT = "/attachment-segments"


@dataclass(frozen=True)
class ResumableUpload:
    """An upload that arrives in any number of requests.

    :param intent: what it is to become.
    :param length: its size in bytes; None if its sender has not said so yet.
    :param metadata: the header ``Upload-Metadata`` as it was sent; None if there was none.
    :param concat: the header ``Upload-Concat`` as it was sent; empty if there was none.
    :param result: once the file is attached, what its sender was answered; None before.
    :param modified: when the row was written, in milliseconds since 1970; 0 before that.
    """

    intent: Intent
    length: int | None
    metadata: str | None = None
    concat: str = ""
    result: dict[str, Any] | None = None
    modified: int = 0
    id: str = field(default_factory=new_upload_id)

    @property
    def is_partial(self) -> bool:
        """Whether it becomes a part of another upload, and never a file."""
        return self.concat == "partial"


@dataclass(frozen=True)
class Segment:
    """A part of an upload that is stored.

    :param upload: the id of the upload.
    :param offset: the offset of its first byte.
    :param key: where its bytes are; empty for the last segment of an upload whose file is attached.
    :param state: the state of the SHA-256 after its last byte; empty if it is not known.
    :param modified: when it was stored, in milliseconds since 1970; 0 before that.
    """

    upload: str
    offset: int
    key: str
    size: int
    state: str = ""
    modified: int = 0

    @property
    def end(self) -> int:
        """The offset after its last byte."""
        return self.offset + self.size


class ResumableUploads:
    """Resumable uploads and their segments.

    :param storage: ``registry.storage``.
    """

    def __init__(self, storage: Any):
        self._storage = storage

    def save(self, upload: ResumableUpload) -> ResumableUpload:
        """Write the upload down, or replace what was written before. Return it with its date."""
        row = {
            "intent": upload.intent.to_row(),
            "length": upload.length,
            "metadata": upload.metadata,
            "concat": upload.concat,
            "result": upload.result,
        }
        saved = self._storage.update(UPLOAD_ROWS, _parent(upload.id), upload.id, row)
        return replace(upload, modified=saved["last_modified"])

    def get(self, upload_id: str) -> ResumableUpload | None:
        """Return the upload, or None if there is none of that id."""
        if not UPLOAD_ID.fullmatch(upload_id):  # it may be anything that a client has sent
            return None
        rows = self._storage.list_all(UPLOAD_ROWS, _parent(upload_id))
        return next(readable(rows, _upload), None)

    def has(self, upload_id: str) -> bool:
        """Return whether there is a row of that upload, even one that cannot be read."""
        return bool(self._storage.list_all(UPLOAD_ROWS, _parent(upload_id)))

    def take(self, upload: ResumableUpload) -> bool:
        """Delete the row; return False if another request did. Segments remain."""
        parent = _parent(upload.id)
        return bool(self._storage.delete_all(UPLOAD_ROWS, parent, with_deleted=False))

    def below(self, base: str, owner: str) -> list[ResumableUpload]:
        """Return the uploads that a principal has created below a path."""
        list_all = partial(self._storage.list_all, UPLOAD_ROWS, f"{UPLOADS_PARENT}/*")
        filters = (
            Filter("intent.base", base, COMPARISON.EQ),
            Filter("intent.owner", owner, COMPARISON.EQ),
        )
        return list(readable((row for page in keyset(list_all, *filters) for row in page), _upload))

    def all(self) -> Iterator[ResumableUpload]:
        """Yield all of them, read a page at a time."""
        yield from readable(scan(self._storage, UPLOAD_ROWS, UPLOADS_PARENT), _upload)

    def replace(self, before: ResumableUpload, after: ResumableUpload) -> ResumableUpload | None:
        """Replace the upload, and return it with its date; return None if another request has
        changed or deleted it since it was read. Others that do so wait for this transaction."""
        unchanged = Filter("last_modified", before.modified, COMPARISON.EQ)
        parent = _parent(before.id)
        taken = self._storage.delete_all(
            UPLOAD_ROWS, parent, filters=[unchanged], with_deleted=False
        )
        return self.save(after) if taken else None

    def claim(
        self, upload: ResumableUpload, segment: Segment, length: int | None
    ) -> ResumableUpload:
        """Write a segment down, and return the upload as it is then.

        :param upload: as it was read.
        :param length: that of the upload, which may not have been known before.
        :raises OffsetRefused: if another request has stored that offset, or has changed, finished
            or deleted the upload. The caller aborts the transaction.
        """
        if upload.length is None:
            # One request may say a length where another one has just ended: they wait in turn.
            now = self.replace(upload, replace(upload, length=length))
        else:
            now = self.get(upload.id)
        if now is None or now.result is not None or now.length != length:
            raise OffsetRefused(segment.offset)
        try:
            self.add_segment(segment)
        except OffsetRefused:
            if upload.length is None:
                self.save(upload)  # the storage may not roll back
            raise
        return now

    def add_segment(self, segment: Segment) -> None:
        """Write a segment down.

        :raises OffsetRefused: if there is one of that offset. If another request is about to write
            it, this one waits until that is certain.
        """
        row = {"id": _segment_id(segment.upload, segment.offset), **_content(segment)}
        if not create_row(self._storage, SEGMENT_ROWS, _segments_parent(segment.upload), row):
            raise OffsetRefused(segment.offset)

    def restore(self, segment: Segment) -> None:
        """Write a segment down that was deleted, on a storage that does not roll back."""
        parent = _segments_parent(segment.upload)
        row_id = _segment_id(segment.upload, segment.offset)
        self._storage.update(SEGMENT_ROWS, parent, row_id, _content(segment))

    def last(self, upload_id: str) -> Segment | None:
        """Return the last segment of an upload, or None if nothing has arrived."""
        parent, order = _segments_parent(upload_id), [Sort("id", -1)]
        rows = self._storage.list_all(SEGMENT_ROWS, parent, sorting=order, limit=1)
        return next(readable(rows[:1], _segment), None)

    def segments(self, upload_id: str) -> list[Segment]:
        """Return the segments of an upload in their order."""
        list_all = partial(self._storage.list_all, SEGMENT_ROWS, _segments_parent(upload_id))
        return list(readable((row for page in keyset(list_all) for row in page), _segment))

    def take_segments(self, upload_id: str, end: int | None = None) -> list[Segment]:
        """Delete the rows of the segments of an upload, and return those that have bytes.

        :param end: spare the segments from this offset on.
        """
        segments = [each for each in self.segments(upload_id) if end is None or each.offset < end]
        filters = [] if end is None else [Filter("id", _segment_id(upload_id, end), COMPARISON.LT)]
        delete_rows(self._storage, SEGMENT_ROWS, _segments_parent(upload_id), *filters)
        return [each for each in segments if each.key]

    def drop(self, segment: Segment) -> None:
        """Delete the row of a segment. Idempotent."""
        only = Filter("id", _segment_id(segment.upload, segment.offset), COMPARISON.EQ)
        parent = _segments_parent(segment.upload)
        self._storage.delete_all(SEGMENT_ROWS, parent, filters=[only], with_deleted=False)

    def all_segments(self) -> Iterator[Segment]:
        """Yield the segments of all uploads, read a page at a time."""
        yield from readable(scan(self._storage, SEGMENT_ROWS, SEGMENTS_PARENT), _segment)

    def unreadable(self) -> Iterator[UnreadableRow]:
        """Yield every row that cannot be read."""
        kinds = (
            (UPLOAD_ROWS, UPLOADS_PARENT, _upload),
            (SEGMENT_ROWS, SEGMENTS_PARENT, _segment),
        )
        for name, parent, read in kinds:
            yield from unreadable(name, scan(self._storage, name, parent), read)


def _parent(upload_id: str) -> str:
    return f"{UPLOADS_PARENT}/{upload_id}"


def _segments_parent(upload_id: str) -> str:
    return f"{SEGMENTS_PARENT}/{upload_id}"


def _segment_id(upload_id: str, offset: int) -> str:
    """Return the id of the row. Ids of one upload sort as their offsets do."""
    return f"{upload_id}-{offset:020d}"


def _content(segment: Segment) -> Row:
    return {"key": segment.key, "size": segment.size, "state": segment.state}


def _upload(row: Row) -> ResumableUpload:
    check_types(row, concat=str, length=int | None, metadata=str | None, result=dict | None)
    length, metadata, result = row["length"], row["metadata"], row["result"]
    if (length or 0) < 0 or not all(map(HEADER_TEXT.fullmatch, (metadata or "", row["concat"]))):
        raise ValueError("length, metadata or concat is malformed")
    if result is not None:
        check_types(result, status=int, url=str, etag=str, body=dict | None)
        if not all(HEADER_TEXT.fullmatch(result[name]) for name in ("url", "etag")):
            raise ValueError("result is malformed")
    return ResumableUpload(
        intent=Intent.from_row(row.get("intent")),
        length=length,
        metadata=metadata,
        concat=row["concat"],
        result=result,
        modified=row["last_modified"],
        id=row["id"],
    )


def _segment(row: Row) -> Segment:
    check_types(row, key=str, size=int, state=str)
    upload, _, offset = row["id"].rpartition("-")
    if row["size"] < 0 or not upload:
        raise ValueError("size or id is malformed")
    return Segment(
        upload=upload,
        offset=int(offset),
        key=check_key(row["key"]) if row["key"] else "",
        size=row["size"],
        state=row["state"],
        modified=row["last_modified"],
    )
