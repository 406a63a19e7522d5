"""``.../uploads`` and ``.../uploads/{upload}``: resumable uploads with tus 1.0.

The last bytes of an upload make the attachment, with the same steps as a form; see
``attachments/views.py`` for how a request is repeated after a conflict.
"""

import re
import time
from typing import Any

from kinto.core import Service
from kinto.core.authorization import DYNAMIC
from kinto.core.cornice.cors import get_cors_preflight_view
from kinto.core.errors import ERRORS, http_error
from pyramid import httpexceptions
from pyramid.authorization import Everyone
from pyramid.events import NewResponse
from pyramid.request import Request
from pyramid.response import Response
from pyramid.security import NO_PERMISSION_REQUIRED

from ..attachments.api import FIELD, PATH
from ..attachments.context import DEFAULT_BUCKET
from ..errors import NotInBatch
from ..http import transfers
from ..http.openapi.components import EXPOSED_HEADERS
from ..http.requests import owner_of
from ..http.responses import NoContent
from ..plugin import plugin_of
from ..rows.uploads import ResumableUpload
from ..transactions.request import file_transaction, is_in_batch
from . import protocol, resumable
from .context import RecordUploadContext, is_direct, media_upload_context
from .direct import views as direct
from .finished import Finished
from .progress import (
    describe,
    describe_whole,
    find_upload,
    read_position,
    read_progress,
    state_of,
    upload_not_found,
)
from .sending import RECEIVED, Received, receive_more, receive_new
from .targets import Target, target_of

UPLOAD_HEADERS = (
    "Content-Location",
    "Upload-Offset",
    "Upload-Length",
    "Upload-Metadata",
    "Upload-Defer-Length",
    "Upload-Concat",
    "Upload-Expires",
    "Tus-Resumable",
    "Tus-Version",
    "Tus-Extension",
    "Tus-Max-Size",
    "Tus-Checksum-Algorithm",
)

_HEADERS = (*EXPOSED_HEADERS, *UPLOAD_HEADERS)


def _service(name: str, path: str, factory: Any) -> Service:
    return Service(
        name=name,
        path=path,
        description="Resumable uploads",
        factory=factory,
        cors_headers=_HEADERS,
    )


_ONE = "uploads/{upload}"

attachment_uploads = _service("attachment-uploads", f"{PATH}/uploads", RecordUploadContext)
attachment_upload = _service("attachment-upload", f"{PATH}/{_ONE}", RecordUploadContext)
field_uploads = _service("attachment-field-uploads", f"{FIELD}/uploads", RecordUploadContext)
field_upload = _service("attachment-field-upload", f"{FIELD}/{_ONE}", RecordUploadContext)
media_uploads = _service("media-uploads", "/media/uploads", media_upload_context)
media_upload = _service("media-upload", f"/media/{_ONE}", media_upload_context)

RECORD_SERVICES = (attachment_uploads, attachment_upload, field_uploads, field_upload)
SERVICES = (*RECORD_SERVICES, media_uploads, media_upload)
_PLURAL = (attachment_uploads, field_uploads, media_uploads)
_SINGLE = (attachment_upload, field_upload, media_upload)


def create(request: Request) -> Response:
    """Create an upload. The body may be its first bytes, or all of them; JSON describes a direct
    upload."""
    if is_direct(request):
        return direct.create(request)
    protocol.check_version(request)
    if is_in_batch(request):
        raise NotInBatch()
    target = target_of(request)
    received = request.bound_data.get(RECEIVED) or receive_new(request, target)
    try:
        response = _respond(request, target, received, 201)
    except httpexceptions.HTTPException:
        # Kinto refuses the file, and the client will never know the URL of the upload.
        rows = plugin_of(request).rows
        file_transaction(request).committed(lambda: resumable.abandon(rows, received.upload))
        raise
    ids = {**request.matchdict, "upload": received.upload.id}
    if request.bound_data.get(DEFAULT_BUCKET):
        # Below another name of the bucket, the upload could not create the bucket in the end.
        ids["bucket_id"] = "default"
    single = request.matched_route.name.removesuffix("s")
    response.headers["Location"] = request.route_url(single, **ids)
    return response


def send(request: Request) -> Response:
    """Receive bytes of an upload, from its offset on."""
    protocol.check_version(request)
    if is_in_batch(request):
        raise NotInBatch()
    target = target_of(request)
    received = request.bound_data.get(RECEIVED) or receive_more(request, target)
    return _respond(request, target, received, 204)


def get(request: Request) -> Response:
    """Tell how far an upload is: in headers, and as JSON."""
    target = target_of(request)
    found = direct.find_direct(request, target)
    if found:
        return direct.get(request, found)
    upload = _find_resumable(request, target)
    _, offset, expires = read_progress(request, upload)
    response = Response(json=state_of(upload, offset, expires))
    describe(response, upload, offset, expires)
    describe_whole(response, upload)
    response.headers["Cache-Control"] = "no-store"
    return response


def get_list(request: Request) -> list[dict[str, Any]]:
    """Return the state of each upload that the user has begun here, as JSON."""
    protocol.check_version(request)
    owner, target = owner_of(request), target_of(request)
    request.response.headers["Cache-Control"] = "no-store"
    if owner == Everyone:  # all who are anonymous have this name
        return []
    uploads = plugin_of(request).rows.resumable.below(target.base, owner)
    states = (state_of(upload, *read_position(request, upload)[1:]) for upload in uploads)
    return [state for state in states if state["expires"] > time.time() * 1000]


def terminate(request: Request) -> Response:
    """Delete an upload, and what has arrived of it. A file that was attached stays."""
    target = target_of(request)
    found = direct.find_direct(request, target)
    if found:
        response = direct.delete(request, found)
        if response is None:
            raise upload_not_found(found.id)
        return response
    upload = _find_resumable(request, target)
    read_progress(request, upload)
    if not resumable.discard(plugin_of(request).rows, file_transaction(request), upload):
        raise upload_not_found(upload.id)
    plugin_of(request).metrics.count("resumable", event="deleted")
    return NoContent()


def _find_resumable(request: Request, target: Target) -> ResumableUpload:
    """Return the upload in the URL. A client of direct uploads, which does not speak tus, learns
    that there is none.

    :raises HTTPNotFound: if the user has not begun it here.
    :raises VersionRefused: if it is there, and the client does not speak tus.
    """
    if "Tus-Resumable" in request.headers:
        protocol.check_version(request)
    upload = find_upload(request, target)
    protocol.check_version(request)
    return upload


_OVERRIDES = {"PATCH": send, "DELETE": terminate, "HEAD": get}


def override(request: Request) -> Response:
    """Handle a request whose real method is in ``X-HTTP-Method-Override``, for clients that can
    send no other method than POST."""
    method = request.headers.get("X-HTTP-Method-Override", "").upper()
    if method not in _OVERRIDES:
        raise http_error(
            httpexceptions.HTTPMethodNotAllowed(),
            errno=ERRORS.METHOD_NOT_ALLOWED,
            message="POST needs X-HTTP-Method-Override with PATCH, DELETE or HEAD.",
        )
    return _OVERRIDES[method](request)


def options(request: Request) -> Response | None:
    """Tell which version and which extensions of tus the server has, or answer the preflight
    request of a browser."""
    if request.headers.get("Access-Control-Request-Method"):
        return get_cors_preflight_view(request.current_service)(request)
    response = NoContent()
    limit = _limit_of(request)
    response.headers.update(
        {
            "Tus-Version": protocol.VERSION,
            "Tus-Extension": ",".join(protocol.EXTENSIONS),
            "Tus-Checksum-Algorithm": ",".join(protocol.ALGORITHMS),
            **({"Tus-Max-Size": str(limit)} if limit else {}),
        }
    )
    return response


def _limit_of(request: Request) -> int:
    """Return the largest accepted file in bytes, for a client without permission; 0 for no
    limit."""
    settings, found = plugin_of(request).settings, request.matchdict
    if "bucket_id" not in found:
        library = request.registry.attachment_library  # the target that a client need not name
        is_there = library is not None
        policy = settings.policy(library.bucket, library.collection) if is_there else settings.media
        return policy.max_size
    field = found.get("field", "attachment")
    return settings.policy(found["bucket_id"], found["collection_id"], field).max_size


for _each in _PLURAL:
    _each.add_view("POST", create, permission=DYNAMIC)
    _each.add_view("GET", get_list, permission=DYNAMIC)
    _each.add_view("OPTIONS", options, permission=NO_PERMISSION_REQUIRED)
for _each in _SINGLE:
    _each.add_view("POST", override, permission=DYNAMIC)
    _each.add_view("PATCH", send, permission=DYNAMIC)
    _each.add_view("GET", get, permission=DYNAMIC)
    _each.add_view("DELETE", terminate, permission=DYNAMIC)
    _each.add_view("OPTIONS", options, permission=NO_PERMISSION_REQUIRED)


_PATH = re.compile(r"/v\d+/(?:buckets/.+/attachment(?:s/[^/]+)?|media)/uploads(?:/[^/]*)?/?")


def add_version(event: NewResponse) -> None:
    """Say on every response of these routes, errors too, that the server speaks tus."""
    # Not by the route: below an alias, that of an error is another one.
    if _PATH.fullmatch(event.request.environ["PATH_INFO"]):  # encoded as it was sent
        event.response.headers["Tus-Resumable"] = protocol.VERSION
        if event.response.status_code == 412:
            event.response.headers["Tus-Version"] = protocol.VERSION


def _respond(request: Request, target: Target, received: Received, status: int) -> Response:
    """Attach the file, if the upload is complete, and describe the upload in the response.

    :param status: that of a response without a file.
    """
    plugin, upload = plugin_of(request), received.upload
    if received.last is None:
        response = _without_body(status)
        describe(response, upload, received.offset, received.expires)
        return response
    rows, files = plugin.rows, file_transaction(request)
    if received.parts:
        upload = rows.resumable.save(upload)
        files.undo(lambda: rows.resumable.take(upload))

    def attach() -> Finished:
        for part in received.parts:
            if not resumable.discard(rows, files, part):
                raise upload_not_found(part.id)
        return target.attach()

    completed, finished = resumable.complete(rows, files, upload, received.last, attach)
    transfers.note_status(request, finished.status)
    if finished.body is not None and (status == 201 or target.has_facts):
        response = Response(json=finished.body, status=200 if status == 204 else status)
    else:
        response = _without_body(status)
    expires = resumable.expires_at(plugin, completed, None)
    describe(response, completed, completed.length, expires)
    return response


def _without_body(status: int) -> Response:
    response = Response(status=status)
    response.headers.pop("Content-Type", None)
    return response
