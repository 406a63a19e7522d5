"""Single files of a record: ``{record}/attachments/{field}``, and ``.../{entry}`` of a list.

``{record}/attachment`` is another name of ``{record}/attachments/attachment``.

**How an upload is repeated after a conflict.** The database may refuse what a request writes
because another request wrote at the same moment. The tween of
:mod:`kinto_attachment.transactions.retry` then runs the view again, in a new transaction. The body
cannot be read a second time, so a view that takes one works in two halves. The first half reads the
body, stores its bytes, remembers the result in ``request.bound_data`` under the module's
``STORED``, and calls ``allow_retry``. The second half writes rows only. A repeated view finds the
result under ``STORED`` and skips the first half. The stored bytes are carried over to the new
transaction, and are removed if the request fails in the end. Until ``allow_retry`` is called,
nothing is repeated and the client gets the error. This module, ``library/views.py`` and
``media/views.py`` follow this protocol.
"""

from typing import Any

from kinto.core import Service
from kinto.core.authorization import DYNAMIC
from pyramid import httpexceptions
from pyramid.request import Request
from pyramid.response import Response

from ..errors import NotInBatch
from ..files.field import Field, is_attachment, value_at, without_entry
from ..files.ref import FieldRef, RecordRef
from ..http.downloads import Download, serve
from ..http.openapi.components import EXPOSED_HEADERS
from ..http.requests import read_conditions
from ..http.responses import NoContent
from ..http.transfers import forget_transfer
from ..plugin import plugin_of
from ..transactions.request import is_in_batch, release_connection
from ..transactions.retry import allow_retry
from . import records
from .api import ENTRY, FIELD, PATH
from .context import RecordContext, read_collection
from .default_bucket import create_parents
from .fields import declared_fields, policy_at, read_files
from .rules import rules_for
from .upload import StoredForm, file_field, receive


def service(name: str, path: str, **options: Any) -> Service:
    """Return a service for files of records."""
    return Service(
        name=name,
        path=path,
        description="Files of a record",
        factory=RecordContext,
        cors_headers=EXPOSED_HEADERS,
        **options,
    )


attachment = service("attachment", PATH)
field = service("attachment-field", FIELD)
attachment_entry = service("attachment-entry", f"{PATH}/{ENTRY}")
entry = service("attachment-field-entry", f"{FIELD}/{ENTRY}")

SERVICES = (attachment, field, attachment_entry, entry)


@entry.get(permission=DYNAMIC)
@attachment_entry.get(permission=DYNAMIC)
@field.get(permission=DYNAMIC)
@attachment.get(permission=DYNAMIC)
def download(request: Request) -> Any:
    """Serve the file, whole or in ranges, to clients that may read the record. Of a list, serve
    what the record says about its files."""
    context: RecordContext = request.context
    return context.serve(lambda record: _serve(request, context, record))


@field.post(permission=DYNAMIC)
@attachment.post(permission=DYNAMIC)
def upload(request: Request) -> dict[str, Any]:
    """Attach the file of a multipart form to the record. It replaces that of the field, or becomes
    the last one of a list. The file is the field ``attachment`` of the form, or has the name of the
    field; the optional fields ``data`` and ``permissions`` are JSON objects for the record."""
    context: RecordContext = request.context
    declared = check_attachable(request, context)
    return _attach(request, context, declared, declared.new_place(context.ref))


@entry.put(permission=DYNAMIC)
@attachment_entry.put(permission=DYNAMIC)
def replace(request: Request) -> dict[str, Any]:
    """Replace the file of one entry of a list by that of a multipart form. The entry keeps its id
    and its position."""
    context: RecordContext = request.context
    context.check_preconditions()
    declared = context.declared_field()
    if value_at(context.place, context.current_object) is None:
        raise context.not_found()
    return _attach(request, context, declared, context.place)


@entry.delete(permission=DYNAMIC)
@attachment_entry.delete(permission=DYNAMIC)
@field.delete(permission=DYNAMIC)
@attachment.delete(permission=DYNAMIC)
def remove(request: Request) -> Response:
    """Remove the file and the attribute from the record, or one entry of a list."""
    context: RecordContext = request.context
    place = context.place
    if context.current_object is None:
        raise context.not_found()
    allow_retry(request)
    response = NoContent()
    with context.held():
        value = (context.current_object or {}).get(place.field)
        if value is None or (place.entry and value_at(place, context.current_object) is None):
            raise context.not_found()
        context.check_has_field(context.current_object)
        rules_for(request, context.ref).check_removable(context.ref)
        left = without_entry(value, place.entry) if place.entry else None
        describe_record(
            request, response, records.write_field(request, context.ref, place.field, left)
        )
    del response.headers["Location"]
    return response


def check_attachable(request: Request, context: RecordContext) -> Field:
    """Return the field in the URL, if the record may get a file there now.

    :raises HTTPNotFound: if the collection does not declare the field.
    :raises HTTPPreconditionFailed: if the record has another version than the client expects.
    :raises FieldRefused: if the record has to keep the file that it has.
    """
    context.check_preconditions()
    declared = context.declared_field()
    if context.current_object is not None:
        rules_for(request, context.ref).check_removable(context.ref)
    return declared


def attach_form(request: Request, context: RecordContext, form: StoredForm) -> Response:
    """Write the files of a form on the record, and describe the record in the response. Return
    Kinto's response."""
    if context.is_default_bucket:
        create_parents(request, context.ref)
    with context.held():
        if context.place.entry and value_at(context.place, context.current_object) is None:
            raise context.not_found()
        written = records.attach(
            request,
            context.ref,
            form.files,
            context.current_object,
            data=form.data,
            permissions=form.permissions,
        )
    describe_record(request, request.response, written)
    request.response.status = written.status
    return written


def _attach(
    request: Request, context: RecordContext, declared: Field, place: FieldRef
) -> dict[str, Any]:
    """Receive the file of the form, attach it to its place, and return what the record says about
    it."""
    accepted = file_field(declared.name, policy_at(request, place))
    parts = dict.fromkeys((declared.name, str(declared), "attachment"), accepted)
    return attach_file(
        request, context, declared, receive(request, context, parts, lambda received: place)
    )


def attach_file(
    request: Request, context: RecordContext, declared: Field, form: StoredForm
) -> dict[str, Any]:
    """Attach the file of the form to its place, and return what the record says about it."""
    attach_form(request, context, form)
    stored = form.files[0]  # a repeated request may have drawn another id
    if declared.is_list:
        is_new = not context.place.entry
        request.response.status = 201 if is_new else 200
        request.response.headers["Location"] = records.url_of(request, stored.place)
    return stored.value


def _serve(request: Request, context: RecordContext, record: dict[str, Any]) -> Any:
    place = context.place
    if not place.entry and _is_list(request, context, record):
        return _serve_list(request, context, record)
    if is_in_batch(request):
        raise NotInBatch()
    found = records.attached(request, place, record)
    if found is None:
        context.check_has_field(record)
        raise context.not_found()
    attachment, blob, modified = found
    # The links are read only for a client that resumes a download by date. With an entity tag,
    # ``dated`` makes no difference.
    by_date = '"' not in request.headers.get("If-Range", '"')
    dated = not by_date or plugin_of(request).rows.links.is_first(place)
    control = cache_control(request, context.ref)
    release_connection(request)
    return serve(
        request,
        Download(
            blob,
            attachment.filename,
            modified // 1000,
            control,
            dated=dated,
        ),
    )


def _is_list(request: Request, context: RecordContext, record: dict[str, Any]) -> bool:
    """Return whether the field in the URL is a list, by what the record says, or else by what its
    collection declares."""
    name = context.place.field
    value, declared = record.get(name), declared_fields(request, context.ref).get(name)
    if declared and declared.is_list:
        return value is None or isinstance(value, list)
    return isinstance(value, list) and any(
        place.field == name for place in read_files(request, context.ref, record)
    )


def _serve_list(request: Request, context: RecordContext, record: dict[str, Any]) -> list[Any]:
    forget_transfer(request)
    context.check_has_field(record)
    describe_reading(request, context, record)
    files = read_files(request, context.ref, record)
    return [
        value
        for place, value in files.items()
        if place.field == context.place.field and is_attachment(value)
    ]


def describe_reading(request: Request, context: RecordContext, record: dict[str, Any]) -> None:
    """Set the headers of a response with what a record says about its files.

    :raises HTTPNotModified: if the client has this version of the record.
    :raises HTTPPreconditionFailed: if the client expects another version.
    """
    context.check_preconditions()
    modified = record["last_modified"]
    is_known = read_conditions(request)[1] == modified
    # Not by WebOb's conditional response, which would cut the JSON into ranges, too.
    response = httpexceptions.HTTPNotModified() if is_known else request.response
    response.headers["ETag"] = f'"{modified}"'
    response.last_modified = modified / 1000
    response.headers["Cache-Control"] = cache_control(request, context.ref)
    if is_known:
        raise response


def cache_control(request: Request, ref: RecordRef) -> str:
    """Return the ``Cache-Control`` that Kinto sends with the record, except that caches may keep
    the file and revalidate it where nothing says that they must not keep the record."""
    if request.prefixed_userid is not None:
        return "private, no-cache"
    seconds = _cache_seconds(request, ref)
    if seconds is None:
        return "no-cache"
    return f"max-age={seconds}" if seconds > 0 else "no-cache, no-store"


def _cache_seconds(request: Request, ref: RecordRef) -> int | None:
    """Return for how long caches may keep the record, or None if nothing says so: as in Kinto, by
    the settings of its collection or bucket, the general one, and the attribute of its collection.
    """
    name = "record_cache_expires_seconds"
    below = (f"{ref.bucket}.{ref.collection}.", f"{ref.bucket}.", "")
    older = (f"{ref.bucket}_{ref.collection}_", f"{ref.bucket}_")
    settings = request.registry.settings
    found = [settings[f"{each}{name}"] for each in (*below, *older) if f"{each}{name}" in settings]
    seconds = int(found[0]) if found else None
    attribute = read_collection(request, ref.bucket, ref.collection).get("cache_expires")
    # The schema of Kinto's collections accepts numbers only.
    return seconds if attribute is None else max(seconds or -1, int(attribute))


def describe_record(request: Request, response: Response, written: Response) -> None:
    """Set the headers that identify the record and its new version.

    :param written: Kinto's response to the write.
    """
    for name in ("ETag", "Last-Modified"):
        response.headers[name] = written.headers[name]
    ids = {name: request.matchdict[name] for name in ("bucket_id", "collection_id", "id")}
    response.headers["Location"] = request.route_url("record-object", **ids)
