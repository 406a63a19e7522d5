"""The first half of a request with bytes: they are received, and a complete file is stored.

What a request has received is remembered under :data:`RECEIVED` for the case that it is repeated
after a conflict: its body cannot be read a second time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pyramid.request import Request
from pyramid.response import Response

from ..errors import (
    AttachmentError,
    BodyTooLarge,
    FieldRefused,
    FilenameRefused,
    OffsetRefused,
    TooLarge,
    UploadFinished,
)
from ..files.blob import Digest
from ..http import transfers
from ..http.requests import owner_of
from ..plugin import plugin_of
from ..rows.uploads import Intent, ResumableUpload, Segment
from ..transactions.request import file_transaction, release_connection
from . import protocol, resumable
from .progress import find_upload, is_own, read_progress
from .receiver import Receiver
from .targets import Target

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
        intent = Intent(target.base, owner, target=target.name)
    else:
        intent = _read_intent(target, values, owner)
    if concat and concat.parts is not None:
        upload = ResumableUpload(intent, None, metadata, text)
        return _join(request, target, upload, concat.parts)
    upload = ResumableUpload(intent, protocol.read_length(request), metadata, text)
    if upload.length is not None and (upload.length or not upload.is_partial):
        _check_size(target, upload.length)
    checksum = protocol.read_checksum(request)
    has_bytes = protocol.is_offset_stream(request)
    release_connection(request)
    upload = files.committed(lambda: plugin.rows.resumable.save(upload))
    plugin.metrics.count("resumable", event="begun")
    if has_bytes or (upload.length == 0 and not upload.is_partial):
        return _receive(request, target, upload, None, checksum)
    request.context.body.close()
    return _remember(request, Received(upload, 0, resumable.expires_at(plugin, upload, None)))


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
    if upload.result is not None or upload.concat.startswith("final"):
        raise UploadFinished()
    if offset != found:
        raise OffsetRefused(offset, found)
    upload = _with_length(request, target, upload, found)
    return _receive(request, target, upload, last, checksum)


def _with_length(
    request: Request, target: Target, upload: ResumableUpload, offset: int
) -> ResumableUpload:
    """Return the upload with the length that the request gives, if that was not known before."""
    length = protocol.read_number(request, "Upload-Length")
    if length is None or length == upload.length:
        return upload
    if upload.length is not None or length < offset:
        least = "" if upload.length is not None else "at least "
        reason = f"Upload-Length must be {least}{upload.length or offset}, not {length}"
        raise FieldRefused(reason, "Upload-Length", "header")
    if length or not upload.is_partial:
        _check_size(target, length)
    upload = replace(upload, length=length)
    files, rows = file_transaction(request), plugin_of(request).rows.resumable
    return files.committed(lambda: rows.save(upload))


def _receive(
    request: Request,
    target: Target,
    upload: ResumableUpload,
    before: Segment | None,
    checksum: protocol.Checksum | None,
) -> Received:
    """Receive the body. If it completes the upload, store the file."""
    plugin, files = plugin_of(request), file_transaction(request)
    limit = upload.length
    if limit is None:
        limit = target.policy.max_size or None
    release_connection(request)
    receiver = Receiver(plugin, files, upload, before, limit)
    try:
        receiver.receive(request.context.body, checksum)
    finally:
        request.context.body.close()
    if receiver.offset == upload.length and not upload.is_partial:
        receiver.finish()
        _measure(request, target)
        segments = files.committed(lambda: plugin.rows.resumable.segments(upload.id))
        digest = receiver.digest if receiver.digest.is_complete else None
        try:
            _store(request, target, upload, [*segments, receiver.last], digest)
        except AttachmentError as error:
            # Another request may have completed the upload meanwhile, and released its segments.
            now = files.committed(lambda: plugin.rows.resumable.get(upload.id))
            if now is None or now.result is not None:
                raise OffsetRefused(receiver.last.offset) from error
            raise
    expires = resumable.expires_at(plugin, upload, receiver.claimed or before)
    return _remember(request, Received(upload, receiver.offset, expires, receiver.last))


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
    segments = [segment for part in parts for segment in rows.segments(part.id)]
    length = sum(part.length for part in parts)
    _check_size(target, length)
    upload = replace(upload, length=length)
    request.context.body.close()
    release_connection(request)
    _measure(request, target)
    receiver = Receiver(plugin, files, upload, None, length)
    receiver.offset = length
    receiver.finish()
    _store(request, target, upload, segments, None)
    return _remember(request, Received(upload, length, 0, receiver.last, parts))


def _find_part(request: Request, target: Target, part_id: str) -> ResumableUpload:
    """Return a partial upload that is complete.

    :raises FieldRefused: if it is not.
    """
    rows = plugin_of(request).rows.resumable
    part = rows.get(part_id)
    last = rows.last(part_id) if part else None
    is_part = part is not None and is_own(request, target, part) and part.is_partial
    if not is_part or part.length != (last.end if last else 0):
        state = "is not complete" if is_part else "is no partial upload of yours here"
        reason = f"Upload-Concat names {part_id[:100]!r}, which {state}"
        raise FieldRefused(reason, "Upload-Concat", "header")
    return part


def _measure(request: Request, target: Target) -> None:
    """Measure the upload of a whole file from now on."""
    transfers.measure(request, target.door, is_upload=True)
    metrics = plugin_of(request).metrics

    def count(request: Request, response: Response) -> None:
        if response.status_code < 300:
            metrics.count("resumable", event="completed")

    request.add_response_callback(count)


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
    digest = digest or resumable.digest_of(plugin, segments)
    with resumable.open_segments(plugin, segments) as file:
        target.store(upload.intent, file, digest)


def _check_size(target: Target, size: int) -> None:
    try:
        target.check_size(size)
    except TooLarge as error:
        refused = BodyTooLarge(error.size, error.limit, "Upload-Length")
        refused.location = "header"
        raise refused from error


def _remember(request: Request, received: Received) -> Received:
    request.bound_data[RECEIVED] = received
    return received
