"""``POST .../uploads`` with JSON, ``.../uploads/{upload}/complete``, and the URL of a part.

The URLs of direct and of resumable uploads are the same: ``../views.py`` calls this module for an
upload that is a direct one.
"""

from typing import Any

from kinto.core import Service
from kinto.core.authorization import DYNAMIC
from pyramid.request import Request
from pyramid.response import Response
from pyramid.security import NO_PERMISSION_REQUIRED

from ...attachments.api import FIELD, PATH
from ...attachments.context import DEFAULT_BUCKET, RecordContext
from ...errors import FieldRefused, NotInBatch
from ...http.openapi.components import EXPOSED_HEADERS
from ...http.requests import RequestBody
from ...http.responses import NoContent
from ...media.views import answer_with
from ...plugin import plugin_of
from ...rows.uploads import DirectUpload, State
from ...transactions.request import file_transaction, is_in_batch, release_connection
from ...transactions.retry import allow_retry
from ..context import (
    STORE,
    AnyUploadContext,
    RecordUploadContext,
    choose_target,
    media_upload_context,
)
from ..finished import Finished
from ..progress import check_not_expired, is_own, upload_not_found
from ..targets import Target, target_of
from . import completion
from .announcement import Announcement, read_announcement, read_object
from .creation import create_upload
from .parts import find_parts
from .receiving import receive_part
from .urls import PART_ROUTE, PartURLs, expires_at

RETRY_SECONDS = 2
"""When to ask again for an upload whose bytes are being hashed."""

KEYS = ("filename", "size", "mimetype", "hash", "data", "permissions")
"""What the JSON of a new upload may say; below ``/media``, it may also say ``target``."""

_NAMED = "attachment.named"


def _service(name: str, path: str, factory: Any) -> Service:
    return Service(
        name=name,
        path=f"{path}/uploads/{{upload}}/complete",
        description="The end of a direct upload",
        factory=factory,
        cors_headers=EXPOSED_HEADERS,
    )


attachment_complete = _service("attachment-upload-complete", PATH, RecordUploadContext)
field_complete = _service("attachment-field-upload-complete", FIELD, RecordUploadContext)
media_complete = _service("media-upload-complete", "/media", media_upload_context)
part = Service(
    name=PART_ROUTE,
    path=r"/attachments/uploads/{upload:[0-9a-f]{32}}/{number:[1-9][0-9]{0,4}}",
    description="One part of a direct upload",
    cors_headers=("ETag",),
)

RECORD_SERVICES = (attachment_complete, field_complete)
SERVICES = (*RECORD_SERVICES, media_complete, part)


def create(request: Request) -> Response:
    """Begin an upload, and tell the client where to send the bytes."""
    if is_in_batch(request):
        raise NotInBatch()
    target, announced = _read(request)
    upload = create_upload(request, target, announced)
    urls = PartURLs(request, upload)
    described = {"id": upload.id, "expires": urls.expires, "size": upload.size}
    if upload.count == 1:
        signed = urls.sign(1)
        described |= {"method": "PUT", "url": signed.url, "headers": signed.headers}
    else:
        numbers = range(1, upload.count + 1)
        parts = [_describe_part(upload, number, urls) for number in numbers]
        described |= {"part_size": upload.part_size, "parts": parts}
    described["complete"] = _url(request, upload, complete=True)
    response = Response(json=described, status=201)
    response.headers["Location"] = _url(request, upload)
    return response


def _read(request: Request) -> tuple[Target, Announcement]:
    """Return what the client announces, and what it is to become."""
    if isinstance(request.context, RecordContext):
        return target_of(request), read_announcement(request, KEYS)
    announced = read_announcement(request, (*KEYS, "target"))
    chosen = choose_target(request, announced.target, "target", "body")
    if isinstance(request.context, AnyUploadContext):
        request.context = request.context.choose(chosen)
    return target_of(request), announced


def find_direct(request: Request, target: Target) -> DirectUpload | None:
    """Return the direct upload in the URL, or None if the user has not begun it here."""
    upload = plugin_of(request).rows.direct.get(request.matchdict["upload"])
    return upload if upload and is_own(request, target, upload.intent) else None


def get(request: Request, upload: DirectUpload) -> Response:
    """Tell how far an upload is, and where to send the parts that are missing."""
    if is_in_batch(request):
        raise NotInBatch()
    _check_not_expired(request, upload)
    described = {"id": upload.id, "state": upload.state.value, "size": upload.size}
    if upload.state is State.OPEN:
        described |= _describe_open(request, upload)
    else:
        described["expires"] = int(expires_at(plugin_of(request), upload) * 1000)
        described["parts"] = []
    if upload.refusal:
        described["reason"] = upload.refusal.get("reason", "")
    response = Response(json=described)
    response.headers["Cache-Control"] = "no-store"
    return response


def _check_not_expired(request: Request, upload: DirectUpload) -> None:
    """Check that the upload has not expired.

    :raises UploadGone: if it has.
    """
    plugin = plugin_of(request)
    check_not_expired(plugin, expires_at(plugin, upload))


def _describe_open(request: Request, upload: DirectUpload) -> dict[str, Any]:
    plugin, urls = plugin_of(request), PartURLs(request, upload)
    release_connection(request)
    found = find_parts(plugin, upload, file_transaction(request).committed)
    etags = {part.number: part.etags for part in found}
    numbers = range(1, upload.count + 1)
    return {
        "expires": urls.expires,
        "part_size": upload.part_size,
        "parts": [
            _describe_arrived(upload, number, etags[number])
            if number in etags
            else _describe_part(upload, number, urls)
            for number in numbers
        ],
        "complete": _url(request, upload, complete=True),
    }


def _describe_part(upload: DirectUpload, number: int, urls: PartURLs) -> dict[str, Any]:
    offset, size = upload.span(number)
    signed = urls.sign(number)
    where = {"url": signed.url, "headers": signed.headers}
    return {"number": number, "offset": offset, "size": size, **where}


def _describe_arrived(upload: DirectUpload, number: int, etags: tuple[str, ...]) -> dict[str, Any]:
    offset, size = upload.span(number)
    tag = {"etag": f'"{etags[0]}"'} if etags else {}
    return {"number": number, "offset": offset, "size": size, **tag}


def delete(request: Request, upload: DirectUpload) -> Response | None:
    """Delete an upload and its bytes. A file that was attached stays. Return None if another
    request has deleted it."""
    _check_not_expired(request, upload)
    allow_retry(request)
    if not completion.discard(request, upload):
        return None
    if upload.state in (State.OPEN, State.VERIFYING):
        plugin_of(request).metrics.count("direct", event="deleted")
    return NoContent()


@attachment_complete.post(permission=DYNAMIC)
@field_complete.post(permission=DYNAMIC)
@media_complete.post(permission=DYNAMIC)
def complete(request: Request) -> Response:
    """Attach the file of an upload, once its bytes are there."""
    if is_in_batch(request):
        raise NotInBatch()
    target = target_of(request)
    upload = find_direct(request, target)
    if upload is None:
        raise upload_not_found(request.matchdict["upload"])
    _check_not_expired(request, upload)
    named = _read_named(request, upload)
    if upload.state is State.ATTACHED:
        finished: Finished | None = Finished.from_row(upload.result)
    elif upload.state is State.REFUSED:
        raise completion.refusal_of(upload)
    else:
        finished = completion.complete(request, target, upload, named)
    if finished is None:
        return _ask_again(upload)
    return _answer(request, upload, finished)


def _read_named(request: Request, upload: DirectUpload) -> dict[int, str]:
    """Return the entity tags of parts that the client names, by the numbers of the parts."""
    if _NAMED in request.bound_data:  # the body of a repeated request was read already
        return request.bound_data[_NAMED]
    body, named = read_object(request, ("parts",)), {}
    listed = body.get("parts", [])
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise FieldRefused("parts must be a list of objects", "parts")
    for each in listed:
        number, tag = each.get("number"), each.get("etag")
        is_number = type(number) is int and 0 < number <= upload.count
        if not is_number or not isinstance(tag, str) or each.keys() - {"number", "etag"}:
            reason = f"a part must have a number from 1 to {upload.count} and an etag, only"
            raise FieldRefused(f"parts: {reason}", "parts")
        if number in named:
            raise FieldRefused(f"parts has the number {number} twice", "parts")
        named[number] = tag.strip().removeprefix("W/").strip('"')
    request.bound_data[_NAMED] = named
    return named


def _ask_again(upload: DirectUpload) -> Response:
    described = {"id": upload.id, "state": State.VERIFYING.value}
    response = Response(json=described, status=202)
    response.headers["Retry-After"] = str(RETRY_SECONDS)
    return response


def _answer(request: Request, upload: DirectUpload, finished: Finished) -> Response:
    """Return the response that a form with the file would have got."""
    if upload.intent.target == STORE:
        response = answer_with(request, finished.status, finished.body)
    else:
        # PostgreSQL does not keep the order of keys, and the answer is to stay the same.
        body = dict(sorted(finished.body.items()))
        response = Response(json=body, status=finished.status)
    found = {"Location": finished.location, "ETag": finished.etag}
    found["Last-Modified"] = finished.modified
    response.headers.update({name: value for name, value in found.items() if value})
    return response


@part.put(permission=NO_PERMISSION_REQUIRED)
def put_part(request: Request) -> Response:
    """Receive a part. The client needs nothing but the URL, which only a sender with permission has
    got."""
    if is_in_batch(request):
        raise NotInBatch()
    body = RequestBody(request.environ)
    request.add_finished_callback(lambda request: body.close())
    received = receive_part(request, body)
    response = Response(status=200)
    response.headers.pop("Content-Type", None)
    response.headers["ETag"] = f'"{received.digest}"'
    return response


def _url(request: Request, upload: DirectUpload, complete: bool = False) -> str:
    single = request.matched_route.name.removesuffix("s").removesuffix("-complete")
    ids = {**request.matchdict, "upload": upload.id}
    if request.bound_data.get(DEFAULT_BUCKET):
        # Below another name of the bucket, the upload could not create the bucket in the end.
        ids["bucket_id"] = "default"
    return request.route_url(f"{single}-complete" if complete else single, **ids)
