"""How far an upload is, and what a response says about it."""

import time
from typing import Any

from kinto.core.errors import ERRORS, http_error
from pyramid import httpexceptions
from pyramid.request import Request
from pyramid.response import Response

from ..errors import UploadGone
from ..http.requests import owner_of
from ..plugin import Plugin, plugin_of
from ..rows.paging import database_time
from ..rows.uploads import Intent, ResumableUpload, Segment
from . import protocol, resumable
from .finished import Finished
from .targets import Target


def describe(
    response: Response,
    upload: ResumableUpload,
    offset: int,
    expires: float,
) -> None:
    """Set the headers that say how far an upload is."""
    headers = response.headers
    headers["Upload-Offset"] = str(offset)
    headers["Upload-Expires"] = protocol.http_date(expires)
    if upload.result is not None:
        finished = Finished.from_row(upload.result)
        found = {"Content-Location": finished.url, "ETag": finished.etag}
        headers.update({name: value for name, value in found.items() if value})


def describe_whole(response: Response, upload: ResumableUpload) -> None:
    """Set the headers that say what an upload is."""
    found = {
        "Upload-Length": None if upload.length is None else str(upload.length),
        "Upload-Defer-Length": "1" if upload.length is None else None,
        "Upload-Metadata": upload.metadata,
        "Upload-Concat": upload.concat or None,
    }
    response.headers.update({name: value for name, value in found.items() if value is not None})


def state_of(upload: ResumableUpload, offset: int, expires: float) -> dict[str, Any]:
    """Return what JSON says about an upload."""
    return {
        "id": upload.id,
        "state": "open" if upload.result is None else "attached",
        "offset": offset,
        "length": upload.length,
        "expires": int(expires * 1000),
        "filename": upload.intent.filename or None,
        "concat": upload.concat or None,
        "file": None if upload.result is None else Finished.from_row(upload.result).body,
    }


def find_upload(request: Request, target: Target) -> ResumableUpload:
    """Return the upload in the URL.

    :raises HTTPNotFound: if the user has not begun it here.
    """
    upload = plugin_of(request).rows.resumable.get(request.matchdict["upload"])
    if upload is None or not is_own(request, target, upload.intent):
        raise upload_not_found(request.matchdict["upload"])
    return upload


def is_own(request: Request, target: Target, intent: Intent) -> bool:
    """Return whether the user has begun the upload of that intent here."""
    return intent.base == target.base and intent.owner == owner_of(request)


def read_progress(request: Request, upload: ResumableUpload) -> tuple[Segment | None, int, float]:
    """Return the last segment of an upload, its offset, and when it expires; see
    :func:`read_position`.

    :raises UploadGone: if it has expired.
    """
    last, offset, expires = read_position(request, upload)
    check_not_expired(plugin_of(request), expires)
    return last, offset, expires


def read_position(request: Request, upload: ResumableUpload) -> tuple[Segment | None, int, float]:
    """Return the last segment of an upload, its offset, and when it expires, in seconds since
    1970."""
    plugin = plugin_of(request)
    last = plugin.rows.resumable.last(upload.id)
    offset = last.end if last else 0
    if upload.result is not None and upload.length is not None:
        offset = upload.length
    return last, offset, resumable.expires_at(plugin, upload, last)


def upload_not_found(upload_id: str) -> httpexceptions.HTTPNotFound:
    return http_error(
        httpexceptions.HTTPNotFound(),
        errno=ERRORS.MISSING_RESOURCE,
        message=f"There is no upload {upload_id[:100]!r} of yours here.",
        details={"id": upload_id[:200], "resource_name": "upload"},
    )


def check_not_expired(plugin: Plugin, expires: float) -> None:
    """Check that an upload has not expired.

    :param expires: when it does, in seconds since 1970.
    :raises UploadGone: if it has.
    """
    # The clock of this server may be wrong: that of the database, which dates the rows, decides.
    if time.time() > expires and database_time(plugin.rows.storage) / 1000 > expires:
        raise UploadGone("This upload has expired: begin it again.")
