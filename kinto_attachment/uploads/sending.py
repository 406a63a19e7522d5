"""The first half of a request with bytes: they are received, and a complete file is stored.

What a request has received is remembered under :data:`RECEIVED` for the case that it is repeated
after a conflict: its body cannot be read a second time.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pyramid.request import Request

from ..errors import (
    AttachmentError,
    BlobDamaged,
    BlobNotFound,
    BodyTooLarge,
    FieldRefused,
    FilenameRefused,
    OffsetRefused,
    TooLarge,
    UploadFinished,
    UploadGone,
)
from ..files.blob import Digest
from ..http.requests import owner_of
from ..plugin import plugin_of
from ..rows.uploads import Intent, ResumableUpload, Segment
from ..transactions.request import file_transaction, release_connection
from . import protocol, resumable
from .progress import check_not_expired, find_upload, is_own, read_progress
from .receiver import Receiver
from .targets import Target

logger = logging.getLogger(__name__)

RECEIVED = "attachment.received"
"""The key in ``bound_data`` of the :class:`Received` for a repeated request."""


@dataclass(frozen=True)
class Received:
    """What a request has received.

    :param upload: the upload that it has created, or sent bytes of.
    :param offset: of the next byte that is missing.
    :param expires: when the upload expires, in seconds since 1970.
    :param last: the segment that completes the upload, if the request has sent that.
    :param parts: the partial uploads that a final one joins.
    """

    upload: ResumableUpload
    offset: int
    expires: float
    last: Segment | None = None
    parts: tuple[ResumableUpload, ...] = ()


def receive_new(request: Request, target: Target) -> Received:
    """Create the upload that the request describes, and receive the bytes that it brings."""
    plugin, files, owner = plugin_of(request), file_transaction(request), owner_of(request)
    text = request.headers.get("Upload-Concat", "")
    concat = protocol.read_concatenation(text)
    metadata = request.headers.get("Upload-Metadata")
    values = protocol.read_metadata(metadata)
    if concat and concat.parts is None:
        intent = Intent(target.base, owner, target=values.get("target", ""))
    else:
        intent = _read_intent(target, values, owner)
    if concat and concat.parts is not None:
        upload = ResumableUpload(intent, None, metadata, text)
        return _join(request, target, upload, concat.parts)
    upload = ResumableUpload(intent, protocol.read_length(request), metadata, text)
    _check_length(target, upload, upload.length)
    checksum = protocol.read_checksum(request)
    has_bytes = protocol.is_offset_stream(request)
    release_connection(request)
    upload = files.committed(lambda: plugin.rows.resumable.save(upload))
    plugin.metrics.count("resumable", event="begun")
    if not has_bytes and (upload.length != 0 or upload.is_partial):
        request.context.body.close()
        return _remember(request, Received(upload, 0, resumable.expires_at(plugin, upload, None)))
    try:
        return _receive(request, target, upload, upload.length, None, checksum)
    except AttachmentError:
        # The client will never know its URL.
        files.committed(lambda: resumable.abandon(plugin.rows, upload))
        raise


def _read_intent(target: Target, values: dict[str, str], owner: str) -> Intent:
    """Return what the sender wants, if that is possible now.

    :raises Refused: if it is not.
    """
    try:
        intent = target.read_intent(values, owner)
        target.check(intent)
    except FilenameRefused as error:
        error.field, error.location = "Upload-Metadata", "header"
        raise
    return intent


def receive_more(request: Request, target: Target) -> Received:
    """Receive the bytes that the request brings of an existing upload."""
    protocol.check_content_type(request)
    offset, checksum = protocol.read_offset(request), protocol.read_checksum(request)
    upload = find_upload(request, target)
    last, found, _ = read_progress(request, upload)
    if offset != found:
        raise OffsetRefused(offset, found)
    if upload.result is not None:
        raise UploadFinished()
    length = _read_late_length(request, target, upload, found)
    return _receive(request, target, upload, length, last, checksum)


def _read_late_length(
    request: Request, target: Target, upload: ResumableUpload, offset: int
) -> int | None:
    """Return the length of the upload, which the request may be the first to tell."""
    length = protocol.read_number(request, "Upload-Length")
    if length is None or length == upload.length:
        return upload.length
    if upload.length is not None or length < offset:
        least = "" if upload.length is not None else "at least "
        reason = f"Upload-Length must be {least}{upload.length or offset}, not {length}"
        raise FieldRefused(reason, "Upload-Length", "header")
    _check_length(target, upload, length)
    return length


def _receive(
    request: Request,
    target: Target,
    upload: ResumableUpload,
    length: int | None,
    before: Segment | None,
    checksum: protocol.Checksum | None,
) -> Received:
    """Receive the body. If it completes the upload, store the file.

    :param length: that of the upload, which the request may be the first to tell.
    """
    plugin, files = plugin_of(request), file_transaction(request)
    limit = target.policy.max_size or None if length is None else length
    release_connection(request)
    receiver = Receiver(plugin, files, upload, length, before, limit)
    try:
        receiver.receive(request.context.body, checksum)
    finally:
        request.context.body.close()
    if receiver.last:
        target.measure("resumable")
        segments = files.committed(lambda: plugin.rows.resumable.segments(upload.id))
        if segments and segments[-1].end > receiver.last.offset:
            raise OffsetRefused(receiver.last.offset)  # another request was faster
        digest = receiver.digest if receiver.digest.is_complete else None
        try:
            _store(request, target, receiver.upload, [*segments, receiver.last], digest)
        except AttachmentError as error:
            # Another request may have completed the upload meanwhile, and released its segments.
            now = files.committed(lambda: plugin.rows.resumable.get(upload.id))
            if now is None or now.result is not None:
                raise OffsetRefused(receiver.last.offset) from error
            raise
    expires = time.time() + plugin.settings["uploads.ttl"]
    return _remember(request, Received(receiver.upload, receiver.offset, expires, receiver.last))


def _join(
    request: Request, target: Target, upload: ResumableUpload, ids: tuple[str, ...]
) -> Received:
    """Store the file that consists of partial uploads.

    :param ids: of the partial uploads, in their order.
    """
    plugin, files = plugin_of(request), file_transaction(request)
    rows = plugin.rows.resumable
    if "Upload-Length" in request.headers or protocol.is_deferred(request):
        reason = "Upload-Length cannot be sent with a final upload: its parts have lengths"
        raise FieldRefused(reason, "Upload-Length", "header")
    parts = tuple(_find_part(request, target, part) for part in ids)
    segments: list[Segment] = []
    for part in parts:
        resumable.check_whole(found := rows.segments(part.id), part.length)
        segments += found
    upload = replace(upload, length=sum(part.length for part in parts))
    _check_length(target, upload, upload.length)
    request.context.body.close()
    release_connection(request)
    target.measure("resumable")
    receiver = Receiver(plugin, files, upload, upload.length, None, None)
    receiver.offset = upload.length
    receiver.finish()
    _store(request, target, upload, segments, None)
    return _remember(request, Received(upload, upload.length, 0, receiver.last, parts))


def _find_part(request: Request, target: Target, part_id: str) -> ResumableUpload:
    """Return a partial upload that is complete.

    :raises FieldRefused: if it is not.
    """
    rows = plugin_of(request).rows.resumable
    part = rows.get(part_id)
    last = rows.last(part_id) if part else None
    if part:
        plugin = plugin_of(request)
        check_not_expired(plugin, resumable.expires_at(plugin, part, last))
    is_part = part is not None and is_own(request, target, part.intent) and part.is_partial
    if not is_part or part.length != (last.end if last else 0):
        state = "is not complete" if is_part else "is no partial upload of yours here"
        reason = f"Upload-Concat names {part_id[:100]!r}, which {state}"
        raise FieldRefused(reason, "Upload-Concat", "header")
    return part


def _store(
    request: Request,
    target: Target,
    upload: ResumableUpload,
    segments: Sequence[Segment],
    digest: Digest | None,
) -> None:
    """Store the whole file. No database connection is held while bytes move.

    :param digest: that of all bytes, if it is known.
    """
    plugin = plugin_of(request)
    if not upload.concat:
        resumable.check_whole(segments, segments[-1].end)
    # What can be refused now is refused before all bytes are read and copied.
    target.begin(upload.intent)
    try:
        digest = digest or resumable.digest_of(plugin, segments)
        with resumable.open_segments(plugin, segments) as file:
            target.store(upload.intent, file, digest)
    except (BlobNotFound, BlobDamaged) as error:
        logger.error("Bytes of the upload %s are lost or damaged: %s", upload.id, error)
        raise UploadGone(resumable.LOST) from error


def _check_length(target: Target, upload: ResumableUpload, length: int | None) -> None:
    """Check that an upload may be this long. A part of another upload may be empty.

    :param length: in bytes; None if it is not known.
    :raises BodyTooLarge: if it is too long.
    :raises EmptyBody: if it has no bytes, and its target needs some.
    """
    if length is None or (not length and upload.is_partial):
        return
    try:
        target.check_size(length)
    except TooLarge as error:
        refused = BodyTooLarge(error.size, error.limit, "Upload-Length")
        refused.location = "header"
        raise refused from error


def _remember(request: Request, received: Received) -> Received:
    request.bound_data[RECEIVED] = received
    return received
