"""``POST /media`` with a form, ``/unsplash/{id}``, ``/content/_media`` and its definition.

First a client uploads or imports a file, which gets an id. Then the client creates an object with
this id, which describes the file. The objects are the records of one collection, and
``/content/_media`` is an alias of its URL.

How uploads and imports are repeated after a conflict is explained in ``attachments/views.py``.
"""

import json
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

from kinto.authorization import RouteFactory
from kinto.core import Service
from kinto.core.authorization import DYNAMIC
from kinto.core.errors import ERRORS as ERRNO
from kinto.core.errors import http_error
from kinto.core.utils import build_request
from pyramid import httpexceptions
from pyramid.request import Request
from pyramid.response import Response
from pyramid.security import NO_PERMISSION_REQUIRED

from ..attachments import records
from ..attachments.context import storable_id
from ..attachments.records import Stored
from ..attachments.upload import Incoming, file_field, receive_form, store
from ..errors import BodyTooLarge, FieldRefused, NotInBatch, RemoteFailed, TooLarge
from ..files.ref import FieldRef
from ..http.forms import Form, Received
from ..http.openapi.components import EXPOSED_HEADERS
from ..http.requests import flag, owner_of, read_conditions, read_flag
from ..http.responses import NO_STORE
from ..http.text import decode_body, parse_json
from ..images.formats.header import read_header
from ..plugin import plugin_of
from ..rows.uploads import Unclaimed
from ..settings.policy import Policy
from ..transactions.request import file_transaction, is_in_batch, release_connection
from ..transactions.retry import allow_retry
from . import schema
from .context import DescriptionContext, UploadContext, check_library, library_of
from .schema import FILE, IMAGE, UNSPLASH

STORED = "attachment.uploaded"
"""The key in ``bound_data`` of the :class:`Upload` for a repeated request."""

BODY = "attachment.description"
"""In ``bound_data``: the JSON body, for when the request is repeated."""

PHOTO = ".jpg"
"""The extension of every photo from Unsplash."""

unsplash = Service(
    name="unsplash",
    path="/unsplash/{id}",
    description="Import of a photo from Unsplash",
    factory=UploadContext,
    cors_headers=EXPOSED_HEADERS,
)


@dataclass(frozen=True)
class Upload:
    """A file that is stored, and what to do with it.

    :param stored: the file.
    :param save: whether to create its object at once.
    :param defaults: further attributes of the object, which the client may override.
    """

    stored: Stored
    save: bool
    defaults: dict[str, Any] = field(default_factory=dict)


def upload(request: Request) -> dict[str, Any]:
    """Store the file of a form, and return what its object will say about it. The file is the field
    ``file``; the fields ``type`` and ``save`` are optional."""
    if is_in_batch(request):
        raise NotInBatch()
    return keep(request, request.bound_data.get(STORED) or _receive(request))


@unsplash.get(permission=DYNAMIC)
@unsplash.post(permission=DYNAMIC)
def import_photo(request: Request) -> dict[str, Any]:
    """Copy a photo from Unsplash to the library. Its title names the author."""
    if is_in_batch(request):
        raise NotInBatch()
    if request.method == "HEAD":
        raise httpexceptions.HTTPMethodNotAllowed()
    _check_site(request)
    request.response.headers.update(NO_STORE)
    return keep(request, request.bound_data.get(STORED) or _import(request))


def _receive(request: Request) -> Upload:
    """Read the form and store its file."""
    policy = policy_of(request)
    parts = {"file": file_field("file", policy)}
    place, body = new_place(request), request.context.body
    incoming = Incoming(request, lambda received: place, body.length)
    try:
        form = receive_form(request, body, parts, incoming, text_fields=("type", "save"))
    except TooLarge as error:
        raise BodyTooLarge(error.size, error.limit, "file") from error
    with closing(form):
        save = read_flag(form.fields.get("save", "no"), "save", "body")
        _check_type(form)
        return store_file(request, form.file, save, place)


def store_file(
    request: Request, received: Received, save: bool, place: FieldRef | None = None
) -> Upload:
    """Store a file for a new object, and remember the result for a repeated request.

    :param save: whether to create the object at once.
    :param place: that of the object, if it is known.
    """
    place = place or new_place(request)
    return _remember(request, Upload(store(request, place, received), save))


def _check_site(request: Request) -> None:
    """Refuse a ``GET`` by a page of another site. The page needs no more than an ``<img>`` to have
    a browser send one, with the credentials of its user
    (https://www.w3.org/TR/fetch-metadata/#sec-fetch-site-header).

    :raises HTTPForbidden: if it is one.
    """
    site = request.headers.get("Sec-Fetch-Site", "").strip().lower()
    if request.method == "GET" and site == "cross-site":
        reason = "a page of another site cannot import a photo with GET: use POST"
        raise http_error(
            httpexceptions.HTTPForbidden(),
            errno=ERRNO.FORBIDDEN,
            message=f"Sec-Fetch-Site: {reason}.",
            details=[{"location": "header", "name": "Sec-Fetch-Site", "description": reason}],
        )


def _import(request: Request) -> Upload:
    """Fetch the photo and store it."""
    client, save = library_of(request).unsplash, flag(request, "save", False)
    policy = policy_of(request)
    policy.check_extension(PHOTO)
    request.context.body.close()
    release_connection(request)
    photo = client.photo(request.matchdict["id"])
    place = new_place(request)
    received = Received(file_field("file", policy), f"{photo.id}{PHOTO}", None)
    received.file = Incoming(request, lambda received: place).open(received)
    with closing(received):
        try:
            fetched = client.download(photo, received.file)
        except TooLarge as error:
            raise BodyTooLarge(error.size, error.limit) from error
        received.declared_type, received.digest = fetched.mimetype, fetched.digest
        if policy.max_size and fetched.digest.size > policy.max_size:
            raise BodyTooLarge(fetched.digest.size, policy.max_size)
        received.file.flush()
        if read_header(received.file) is None:
            raise RemoteFailed("the file that Unsplash sent is not an image")
        stored = store(request, place, received)
    origin = {"source": UNSPLASH, "externalId": photo.id}
    stored = replace(stored, facts={**stored.facts, **origin})
    defaults = {"title": f"Photo by {photo.author} on Unsplash", "alt": photo.alt}
    given = {name: text for name, text in defaults.items() if text}
    return _remember(request, Upload(stored, save, given))


def _check_type(form: Form) -> None:
    """Compare the field ``type`` of the form with the bytes of its file.

    :raises FieldRefused: if the field is neither ``image`` nor ``file``, or if the bytes contradict
        it.
    """
    kind = form.fields.get("type")
    if kind not in (None, IMAGE, FILE):
        raise FieldRefused(f"type must be {IMAGE!r} or {FILE!r}, not {kind[:100]!r}", "type")
    header = read_header(form.file.file)
    if kind == IMAGE and header is None:
        raise FieldRefused(f"type is {IMAGE!r}, but the file is not an image", "type")
    if kind == FILE and header:
        reason = f"type is {FILE!r}, but the file is an image of type {header.mimetype}"
        raise FieldRefused(reason, "type")


def policy_of(request: Request) -> Policy:
    """Return what the settings say about the files of the library."""
    library = library_of(request)
    return plugin_of(request).settings.policy(library.bucket, library.collection)


def new_place(request: Request) -> FieldRef:
    """Return the place for the file of a new object, whose id Kinto generates."""
    generators = request.registry.id_generators
    return FieldRef(library_of(request).ref(generators.get("record", generators[""])()))


def _remember(request: Request, uploaded: Upload) -> Upload:
    """Keep the upload for a repeated request, and allow the request to be repeated."""
    request.bound_data[STORED] = uploaded
    allow_retry(request)
    return uploaded


def keep(request: Request, uploaded: Upload) -> dict[str, Any]:
    """Create the object of the upload at once, or keep the upload until the client creates it.
    Return what the object says, or will say, about the file."""
    stored, defaults = uploaded.stored, uploaded.defaults
    ref, facts = stored.place.record, stored.facts
    if uploaded.save:
        data = {**defaults, **facts}
        records.attach(request, ref, [stored], None, data=data, permissions=None)
        request.response.headers["Location"] = request.route_url("content-object", id=ref.record)
    else:
        unclaimed = Unclaimed(
            ref.record, owner_of(request), facts, stored.attachment.to_json(), defaults
        )
        uploads, files = plugin_of(request).rows.unclaimed, file_transaction(request)
        uploads.add(unclaimed)
        files.undo(lambda: uploads.take(unclaimed))
        files.link(replace(stored.link, ref=unclaimed.ref), keep_old=False)
    request.response.status = 201
    return facts


def _context(request: Request) -> RouteFactory:
    """For a request with a body, return the context that checks its permission. For all others,
    Kinto checks the permission later."""
    if request.method == "POST":
        return UploadContext(request)
    if request.method in ("PUT", "PATCH") and "id" in request.matchdict:
        return DescriptionContext(request)
    return RouteFactory(request)


CHECKED_LATER = NO_PERMISSION_REQUIRED
"""Kinto checks the permission when the request is passed on to the records."""

_HEADERS = (*EXPOSED_HEADERS, "Next-Page", "Total-Count", "Total-Objects", "Total-Records")

content = Service(
    name="content",
    path=f"/content/{schema.NAME}",
    description="Objects of the media library",
    factory=_context,
    cors_headers=_HEADERS,
)
content_object = Service(
    name="content-object",
    path=f"/content/{schema.NAME}/{{id}}",
    description="One object of the media library",
    factory=_context,
    cors_headers=_HEADERS,
)
content_type = Service(
    name="content-type",
    path=f"/internal/contenttype/{schema.NAME}",
    description="Definition of the objects of the media library",
    cors_headers=_HEADERS,
)
SERVICES = (content, content_object, content_type)


@content_type.get(permission=NO_PERMISSION_REQUIRED)
def get_definition(request: Request) -> dict[str, Any]:
    """Return the content type definition of ``_media`` objects."""
    return schema.definition()


@content.get(permission=CHECKED_LATER)
def get_list(request: Request) -> Response:
    """List the objects that the client may read, with the filters, sorting and pages of records."""
    response = _as_records(request)
    if "Next-Page" in response.headers:
        _, _, query = response.headers["Next-Page"].partition("?")
        response.headers["Next-Page"] = f"{request.route_url('content')}?{query}"
    return response


@content.post(permission=DYNAMIC)
def create(request: Request) -> Response:
    """Create the object of an upload. The body is the response to the upload, to which a client may
    add ``alt``, ``title``, ``tags`` and ``variants``."""
    body = _enveloped(request)
    if not isinstance(body.get("data", {}), dict):
        raise FieldRefused("data must be a JSON object", "data")
    allow_retry(request)
    response = _as_records(request, body=body)
    if response.status_code != 201:
        raise FieldRefused("this upload was claimed already: its object exists", "id")
    location = request.route_url("content-object", id=response.json["data"]["id"])
    response.headers["Location"] = location
    return response


@content_object.get(permission=CHECKED_LATER)
@content_object.delete(permission=CHECKED_LATER)
def get_or_delete(request: Request) -> Response:
    """Return an object, or delete it together with its file."""
    return _as_records(request, request.matchdict["id"])


@content_object.put(permission=DYNAMIC)
@content_object.patch(permission=DYNAMIC)
def describe(request: Request) -> Response:
    """Change the description of an object. The facts about its file cannot be changed."""
    return _as_records(request, request.matchdict["id"], body=_enveloped(request))


def _enveloped(request: Request) -> dict[str, Any]:
    """Return the JSON body as Kinto expects it. If the body consists of the attributes alone, they
    are put below ``data``.

    :raises JSONTooLarge: if the body is larger than ``client.max_json``.
    :raises FieldRefused: if the body is not a JSON object that this server accepts.
    """
    content = request.bound_data.get(BODY)
    if content is None:
        content = request.context.body.read_all(plugin_of(request).settings["client.max_json"])
        if not is_in_batch(request):  # where the other operations share bound_data
            request.bound_data[BODY] = content
    body = parse_json(decode_body(request, content or b"{}"), "the body", "body")
    if not isinstance(body, dict):
        raise FieldRefused("the body must be a JSON object", "body")
    return {"data": body} if body and not body.keys() & {"data", "permissions"} else body


def _as_records(request: Request, object_id: str = "", body: Any = None) -> Response:
    """Pass the request on to the records of the library, and return Kinto's response.

    :param object_id: the id of one record; empty for the list.
    :param body: the JSON body to send, if any.
    :raises HTTPException: if Kinto refuses the request.
    """
    library = library_of(request)
    check_library(request, library)
    read_conditions(request)  # refuses malformed ones
    known = quote(storable_id(object_id), safe="")
    path = f"{library.uri}/records" + (f"/{known}" if object_id else "")
    query = f"?{request.query_string}" if request.query_string else ""
    # Without the charset: what is passed on is ASCII. What has no body has no type either.
    mimetype = "" if body is None else request.content_type.strip() or "application/json"
    spec = {
        "method": request.method,
        "path": path + query,
        "headers": {"Content-Type": mimetype},
        "body": "" if body is None else json.dumps(body),
    }
    return records.invoke(request, build_request(request, spec))
