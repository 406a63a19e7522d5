"""The third door, step one: a file comes, from a form or from Unsplash, and gets an id."""

import json
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

from kinto.core import Service
from kinto.core.authorization import DYNAMIC
from kinto.core.utils import build_request
from pyramid import httpexceptions
from pyramid.request import Request
from pyramid.response import Response
from pyramid.security import NO_PERMISSION_REQUIRED

from ..attachments import records
from ..attachments.upload import Stored, receive_form, store
from ..errors import BodyTooLarge, FieldRefused, NotInBatch, RemoteFailed, TooLarge
from ..files.ref import RecordRef
from ..http.forms import Form, Received
from ..http.openapi import ERRORS, EXPOSED_HEADERS, RefusedSchema, UploadedSchema
from ..http.requests import flag, owner_of, read_flag
from ..rows.uploads import Unclaimed
from ..settings.policy import Policy
from ..transactions.request import files_of, is_in_batch, restart
from ..transactions.retry import allow_retry
from . import schema as library
from .context import UploadContext, check_library, library_of
from .schema import FILE, IMAGE, UNSPLASH

STORED = "attachment.uploaded"
"""In ``bound_data``: what is left of the body, for when the request is tried again."""

PHOTO = ".jpg"
"""What Unsplash has."""

unsplash = Service(
    name="unsplash",
    path="/unsplash/{id}",
    description="A photo of Unsplash for the media library",
    factory=UploadContext,
    cors_headers=EXPOSED_HEADERS,
)

_IMPORT: dict[str, Any] = {
    "permission": DYNAMIC,
    "tags": ["Media library"],
    "response_schemas": {
        "201": UploadedSchema(description="It is there, and waits for a description."),
        "429": RefusedSchema(description="Unsplash was asked too often."),
        "502": RefusedSchema(description="Unsplash does not answer as it should."),
        "504": RefusedSchema(description="Unsplash does not answer in time."),
        **ERRORS,
    },
}


@dataclass(frozen=True)
class Upload:
    """A file that is stored, and what is to become of it.

    :param save: whether to make it an object at once.
    :param defaults: what that says, if nobody says otherwise.
    """

    stored: Stored
    save: bool
    defaults: dict[str, Any] = field(default_factory=dict)


def upload(request: Request) -> dict[str, Any]:
    """``POST /media`` with a form: field ``file``, and ``type`` and ``save`` if one likes."""
    if is_in_batch(request):
        raise NotInBatch()
    return _keep(request, request.bound_data.get(STORED) or _receive(request))


@unsplash.get(operation_id="import_photo", **_IMPORT)
@unsplash.post(operation_id="import_photo_by_post", **_IMPORT)
def import_photo(request: Request) -> dict[str, Any]:
    """Copy a photo of Unsplash to the library, with what is known of its author."""
    if is_in_batch(request):
        raise NotInBatch()
    if request.method == "HEAD":
        raise httpexceptions.HTTPMethodNotAllowed()
    return _keep(request, request.bound_data.get(STORED) or _import(request))


def _receive(request: Request) -> Upload:
    policy = _policy(request)
    fields = {"text_fields": ("type", "save"), "file_field": "file"}
    try:
        form = receive_form(request, request.context.body, policy, **fields)
    except TooLarge as error:
        raise BodyTooLarge(error.size, error.limit) from error
    with closing(form.file):
        save = read_flag(form.fields.get("save", "no"), "save", "body")
        _check_type(form)
        stored = _store(request, form.file, policy)
    return _remember(request, Upload(stored, save))


def _import(request: Request) -> Upload:
    registry = request.registry
    client, save = registry.attachment_unsplash, flag(request, "save", False)
    policy = _policy(request)
    policy.check_extension(PHOTO)
    request.context.body.close()
    restart(request)  # no connection to the database is held while bytes move
    photo = client.photo(request.matchdict["id"])
    with registry.attachment_storage.spool() as file:
        try:
            fetched = client.download(photo, file)
        except TooLarge as error:
            raise BodyTooLarge(error.size, error.limit) from error
        if policy.max_size and fetched.digest.size > policy.max_size:
            raise BodyTooLarge(fetched.digest.size, policy.max_size)
        received = Received(file, f"{photo.id}{PHOTO}", fetched.mimetype, fetched.digest)
        if received.picture is None:
            raise RemoteFailed("what Unsplash sent is no image")
        stored = _store(request, received, policy, UNSPLASH, photo.id)
    defaults = {"title": f"Photo by {photo.author} on Unsplash", "alt": photo.alt}
    named = {name: text for name, text in defaults.items() if text}
    return _remember(request, Upload(stored, save, named))


def _check_type(form: Form) -> None:
    """
    :raises FieldRefused: the form says something else of the file than its bytes do.
    """
    said = form.fields.get("type")
    if said not in (None, IMAGE, FILE):
        raise FieldRefused(f"{said[:100]!r} is neither {IMAGE!r} nor {FILE!r}", "type")
    picture = form.file.picture
    if said == IMAGE and picture is None:
        raise FieldRefused("the file is no image", "type")
    if said == FILE and picture:
        raise FieldRefused(f"the file is an image, of type {picture.mimetype}", "type")


def _policy(request: Request) -> Policy:
    library = library_of(request)
    return request.registry.attachment_settings.policy(library.bucket, library.collection)


def _store(request: Request, received: Received, policy: Policy, *origin: str) -> Stored:
    return store(request, _new_ref(request), received, policy, *origin)


def _new_ref(request: Request) -> RecordRef:
    """The record that may be made of it."""
    generators = request.registry.id_generators
    return library_of(request).ref(generators.get("record", generators[""])())


def _remember(request: Request, uploaded: Upload) -> Upload:
    request.bound_data[STORED] = uploaded
    allow_retry(request)
    return uploaded


def _keep(request: Request, uploaded: Upload) -> dict[str, Any]:
    """Write it down: as a record, or as one that waits to be claimed."""
    stored, defaults = uploaded.stored, uploaded.defaults
    ref, facts = stored.link.ref, stored.facts
    if uploaded.save:
        records.attach(
            request,
            stored.link,
            stored.attachment,
            data={**defaults, **facts},
            permissions=None,
            exists=False,
            keep_old=False,
        )
        request.response.headers["Location"] = request.route_url("content-object", id=ref.record)
    else:
        waiting = Unclaimed(
            ref.record, owner_of(request), facts, stored.attachment.to_json(), defaults
        )
        uploads, files = request.registry.attachment_unclaimed, files_of(request)
        uploads.add(waiting)
        files.undo(lambda: uploads.take(waiting))
        files.link(replace(stored.link, ref=waiting.ref), keep_old=False, shown=lambda: None)
    request.response.status = 201
    return facts


_ALIAS: dict[str, Any] = {
    # Kinto asks for permissions where the records are.
    "permission": NO_PERMISSION_REQUIRED,
    "tags": ["Media library"],
    "response_schemas": ERRORS,
}
_HEADERS = (*EXPOSED_HEADERS, "Next-Page", "Total-Count", "Total-Objects", "Total-Records")

content = Service(
    name="content",
    path=f"/content/{library.NAME}",
    description="Objects of the media library",
    cors_headers=_HEADERS,
)
content_object = Service(
    name="content-object",
    path=f"/content/{library.NAME}/{{id}}",
    description="One of them",
    cors_headers=_HEADERS,
)
content_type = Service(
    name="content-type",
    path=f"/internal/contenttype/{library.NAME}",
    description="What they are",
    cors_headers=_HEADERS,
)
SERVICES = (content, content_object, content_type)


@content_type.get(
    permission=NO_PERMISSION_REQUIRED,
    tags=["Media library"],
    operation_id="get_media_definition",
)
def get_definition(request: Request) -> dict[str, Any]:
    """The content type definition of ``_media`` objects."""
    return library.definition()


@content.get(operation_id="list_media_objects", **_ALIAS)
def get_list(request: Request) -> Response:
    """Those one may read, with the filters, sorting and pages of Kinto's records."""
    response = _as_records(request)
    if "Next-Page" in response.headers:
        _, _, query = response.headers["Next-Page"].partition("?")
        response.headers["Next-Page"] = f"{request.route_url('content')}?{query}"
    return response


@content.post(operation_id="create_media_object", **_ALIAS)
def create(request: Request) -> Response:
    """Make an object of an upload: what that was answered with, and a description."""
    body = _enveloped(request)
    if isinstance(body, dict) and not isinstance(body.get("data", {}), dict):
        raise FieldRefused("is no object", "data")
    allow_retry(request)
    response = _as_records(request, body=body)
    if response.status_code != 201:
        raise FieldRefused("it was claimed already", "id")
    location = request.route_url("content-object", id=response.json["data"]["id"])
    response.headers["Location"] = location
    return response


@content_object.get(operation_id="get_media_object", **_ALIAS)
@content_object.delete(operation_id="delete_media_object", **_ALIAS)
def get_or_delete(request: Request) -> Response:
    """One object; its file goes with it."""
    return _as_records(request, request.matchdict["id"])


@content_object.put(operation_id="replace_media_object", **_ALIAS)
@content_object.patch(operation_id="update_media_object", **_ALIAS)
def describe(request: Request) -> Response:
    """Describe an object. What its file is stays."""
    return _as_records(request, request.matchdict["id"], body=_enveloped(request))


def _enveloped(request: Request) -> Any:
    """The body as Kinto wants it: attributes alone are the ``data`` of an object.

    :raises FieldRefused: it is not JSON.
    """
    try:
        body = json.loads(request.body or b"{}")
    except (ValueError, RecursionError) as error:
        raise FieldRefused(f"not valid JSON ({error})", "body") from error
    if isinstance(body, dict) and body and not body.keys() & {"data", "permissions"}:
        return {"data": body}
    return body


def _as_records(request: Request, object_id: str = "", body: Any = None) -> Response:
    """Return what Kinto answers at the URL of the records."""
    shelf = library_of(request)
    check_library(request, shelf)
    path = f"{shelf.uri}/records" + (f"/{quote(object_id, safe='')}" if object_id else "")
    query = f"?{request.query_string}" if request.query_string else ""
    spec: dict[str, Any] = {"method": request.method, "path": path + query}
    if body is not None:
        declared = request.headers.get("Content-Type", "application/json")
        spec |= {"body": json.dumps(body), "headers": {"Content-Type": declared}}
    return records.invoke(request, build_request(request, spec))
