"""``POST /media`` of a form, ``/unsplash/{id}``, ``/content/_media`` and its definition.

A file is uploaded or imported first and gets an id; an object that describes it is created next.
The objects are the records of one collection: ``/content/_media`` is an alias of those.
"""

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
from ..images.formats.header import read_header
from ..plugin import plugin_of
from ..rows.uploads import Unclaimed
from ..settings.policy import Policy
from ..transactions.request import file_transaction, is_in_batch, release_connection
from ..transactions.retry import allow_retry
from . import schema
from .context import UploadContext, check_library, library_of
from .schema import FILE, IMAGE, UNSPLASH

STORED = "attachment.uploaded"
"""In ``bound_data``: what became of the body, for when the request is repeated."""

PHOTO = ".jpg"
"""The extension of every photo."""

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

    :param save: whether to make an object of it at once.
    :param defaults: attributes of the object, unless the client gives its own.
    """

    stored: Stored
    save: bool
    defaults: dict[str, Any] = field(default_factory=dict)


def upload(request: Request) -> dict[str, Any]:
    """Take ``POST /media`` with a form: the field ``file``, optionally ``type`` and ``save``."""
    if is_in_batch(request):
        raise NotInBatch()
    return _keep(request, request.bound_data.get(STORED) or _receive(request))


@unsplash.get(operation_id="import_photo", **_IMPORT)
@unsplash.post(operation_id="import_photo_by_post", **_IMPORT)
def import_photo(request: Request) -> dict[str, Any]:
    """Copy a photo of Unsplash to the library, with the name of its author."""
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
        stored = store(request, _new_ref(request), form.file, policy)
    return _remember(request, Upload(stored, save))


def _import(request: Request) -> Upload:
    client, save = library_of(request).unsplash, flag(request, "save", False)
    policy = _policy(request)
    policy.check_extension(PHOTO)
    request.context.body.close()
    release_connection(request)
    photo = client.photo(request.matchdict["id"])
    with plugin_of(request).storage.spool() as file:
        try:
            fetched = client.download(photo, file)
        except TooLarge as error:
            raise BodyTooLarge(error.size, error.limit) from error
        if policy.max_size and fetched.digest.size > policy.max_size:
            raise BodyTooLarge(fetched.digest.size, policy.max_size)
        received = Received(file, f"{photo.id}{PHOTO}", fetched.mimetype, fetched.digest)
        if read_header(received.file) is None:
            raise RemoteFailed("what Unsplash sent is not an image")
        stored = store(request, _new_ref(request), received, policy)
    origin = {"source": UNSPLASH, "externalId": photo.id}
    stored = replace(stored, facts={**stored.facts, **origin})
    defaults = {"title": f"Photo by {photo.author} on Unsplash", "alt": photo.alt}
    named = {name: text for name, text in defaults.items() if text}
    return _remember(request, Upload(stored, save, named))


def _check_type(form: Form) -> None:
    """Compare the ``type`` of the form with the bytes of its file.

    :raises FieldRefused: if they differ.
    """
    said = form.fields.get("type")
    if said not in (None, IMAGE, FILE):
        raise FieldRefused(f"{said[:100]!r} is neither {IMAGE!r} nor {FILE!r}", "type")
    header = read_header(form.file.file)
    if said == IMAGE and header is None:
        raise FieldRefused("the file is not an image", "type")
    if said == FILE and header:
        raise FieldRefused(f"the file is an image, of type {header.mimetype}", "type")


def _policy(request: Request) -> Policy:
    library = library_of(request)
    return plugin_of(request).settings.policy(library.bucket, library.collection)


def _new_ref(request: Request) -> RecordRef:
    """Return a record with an id of its own."""
    generators = request.registry.id_generators
    return library_of(request).ref(generators.get("record", generators[""])())


def _remember(request: Request, uploaded: Upload) -> Upload:
    request.bound_data[STORED] = uploaded
    allow_retry(request)
    return uploaded


def _keep(request: Request, uploaded: Upload) -> dict[str, Any]:
    """Make an object of the upload at once, or keep it until the client describes it."""
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
        uploads, files = plugin_of(request).rows.unclaimed, file_transaction(request)
        uploads.add(waiting)
        files.undo(lambda: uploads.take(waiting))
        files.link(replace(stored.link, ref=waiting.ref), keep_old=False)
    request.response.status = 201
    return facts


_ALIAS: dict[str, Any] = {
    # Kinto checks the permissions where the records are.
    "permission": NO_PERMISSION_REQUIRED,
    "tags": ["Media library"],
    "response_schemas": ERRORS,
}
_HEADERS = (*EXPOSED_HEADERS, "Next-Page", "Total-Count", "Total-Objects", "Total-Records")

content = Service(
    name="content",
    path=f"/content/{schema.NAME}",
    description="Objects of the media library",
    cors_headers=_HEADERS,
)
content_object = Service(
    name="content-object",
    path=f"/content/{schema.NAME}/{{id}}",
    description="One of them",
    cors_headers=_HEADERS,
)
content_type = Service(
    name="content-type",
    path=f"/internal/contenttype/{schema.NAME}",
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
    """Return the content type definition of ``_media`` objects."""
    return schema.definition()


@content.get(operation_id="list_media_objects", **_ALIAS)
def get_list(request: Request) -> Response:
    """List the objects that the client may read, with the filters, sorting and pages of records."""
    response = _as_records(request)
    if "Next-Page" in response.headers:
        _, _, query = response.headers["Next-Page"].partition("?")
        response.headers["Next-Page"] = f"{request.route_url('content')}?{query}"
    return response


@content.post(operation_id="create_media_object", **_ALIAS)
def create(request: Request) -> Response:
    """Make an object of an upload: send the response to the upload, with a description added."""
    body = _enveloped(request)
    if isinstance(body, dict) and not isinstance(body.get("data", {}), dict):
        raise FieldRefused("is not a JSON object", "data")
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
    """Read an object, or delete it together with its file."""
    return _as_records(request, request.matchdict["id"])


@content_object.put(operation_id="replace_media_object", **_ALIAS)
@content_object.patch(operation_id="update_media_object", **_ALIAS)
def describe(request: Request) -> Response:
    """Change the description of an object. The facts about its file cannot be changed."""
    return _as_records(request, request.matchdict["id"], body=_enveloped(request))


def _enveloped(request: Request) -> Any:
    """Return the body as Kinto expects it: bare attributes become the ``data`` of an object.

    :raises FieldRefused: if it is not JSON.
    """
    try:
        body = json.loads(request.body or b"{}")
    except (ValueError, RecursionError) as error:
        raise FieldRefused(f"not valid JSON ({error})", "body") from error
    if isinstance(body, dict) and body and not body.keys() & {"data", "permissions"}:
        return {"data": body}
    return body


def _as_records(request: Request, object_id: str = "", body: Any = None) -> Response:
    """Return Kinto's response at the URL of the records."""
    library = library_of(request)
    check_library(request, library)
    path = f"{library.uri}/records" + (f"/{quote(object_id, safe='')}" if object_id else "")
    query = f"?{request.query_string}" if request.query_string else ""
    spec: dict[str, Any] = {"method": request.method, "path": path + query}
    if body is not None:
        declared = request.headers.get("Content-Type", "application/json")
        spec |= {"body": json.dumps(body), "headers": {"Content-Type": declared}}
    return records.invoke(request, build_request(request, spec))
