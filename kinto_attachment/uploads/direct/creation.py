"""Beginning a direct upload."""

from dataclasses import replace

from pyramid.request import Request

from ...errors import FilenameRefused, StorageUnavailable, TooLarge
from ...http.requests import owner_of
from ...plugin import Plugin, plugin_of
from ...rows.uploads import DirectUpload
from ...storage.staged import proves_digests
from ...transactions.request import file_transaction, release_connection
from ..targets import Target
from .announcement import Announcement
from .urls import sign_part
from .whole import new_staged_key

MAX_PARTS = 1000
"""The most parts of an upload. The parts of a larger file are larger than ``direct.part_size``."""

MAX_PART_BYTES = 5 * 1024**3
"""The most bytes that S3 takes in one request."""


def create_upload(request: Request, target: Target, announced: Announcement) -> DirectUpload:
    """Write down a new upload, which is judged as a form with that file would be.

    :raises Refused: if the file could not be attached now.
    :raises StorageUnavailable: if the storage cannot be reached.
    """
    plugin, owner = plugin_of(request), owner_of(request)
    try:
        intent = target.make_intent(
            owner,
            filename=announced.filename,
            mimetype=announced.mimetype,
            data=announced.data,
            permissions=announced.permissions,
        )
        target.check(intent)
    except FilenameRefused as error:
        error.field = "filename"
        raise
    part_size = _part_size(plugin, target, announced.size)
    place = target.place
    # What the first bytes say about the type is not known yet.
    policy = replace(target.policy, check_content=False)
    upload = DirectUpload(
        intent,
        announced.size,
        announced.digest,
        part_size,
        place=place.uri if place else "",
        mimetype=policy.mimetype(intent.filename, intent.mimetype or None, b""),
    )
    request.context.body.close()
    release_connection(request)
    upload = _with_keys(plugin, upload)
    saved = file_transaction(request).committed(lambda: plugin.rows.direct.save(upload))
    plugin.metrics.count("direct", event="begun")
    return saved


def _part_size(plugin: Plugin, target: Target, size: int) -> int:
    """Return the size of each part but the last one, in bytes.

    :raises TooLarge: if the file is over a limit.
    """
    try:
        target.check_size(size)
        part_size = max(plugin.settings["direct.part_size"], -(-size // MAX_PARTS))
        if part_size > MAX_PART_BYTES:
            raise TooLarge(size, MAX_PARTS * MAX_PART_BYTES)
    except TooLarge as error:
        error.field = "size"
        raise
    return part_size


def _with_keys(plugin: Plugin, upload: DirectUpload) -> DirectUpload:
    """Return the upload with the keys to which URLs of the storage lead, if it signs any. No URL
    leads to the key of the file itself: even where the storage refuses other bytes, a client could
    send other headers with them, such as ``Content-Encoding``.

    :raises StorageUnavailable: if the storage cannot be reached.
    """
    first = new_staged_key(plugin, upload)
    if upload.count == 1 and upload.digest and proves_digests(plugin.storage, first):
        proven = replace(upload, parts=(first,), proven=True)
        if sign_part(plugin, proven, first, upload.size, 1) is None:
            raise StorageUnavailable(first, "the storage does not sign URLs any more")
        return proven
    if sign_part(plugin, upload, first, upload.span(1)[1], 1) is None:
        return upload
    return replace(
        upload, parts=(first, *(new_staged_key(plugin, upload) for _ in range(1, upload.count)))
    )
