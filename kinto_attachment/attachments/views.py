"""``POST``, ``GET`` and ``DELETE {record}/attachment``.

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

from contextlib import closing
from dataclasses import dataclass
from typing import Any

from kinto.core import Service
from kinto.core.authorization import DYNAMIC
from pyramid.request import Request
from pyramid.response import Response

from ..errors import NotInBatch
from ..files.blob import ATTRIBUTE, Attachment
from ..files.ref import RecordRef
from ..http.downloads import Download, serve
from ..http.openapi.components import EXPOSED_HEADERS
from ..http.responses import NoContent
from ..plugin import plugin_of
from ..rows.links import Link
from ..settings.policy import Policy
from ..transactions.request import is_in_batch, release_connection
from ..transactions.retry import allow_retry
from . import records
from .api import PATH
from .context import RecordContext, read_collection
from .default_bucket import create_parents
from .rules import rules_for
from .upload import receive_form, store

STORED = "attachment.stored"
"""With the record, the key in ``bound_data`` of the :class:`StoredForm` for a repeated request."""


attachment = Service(
    name="attachment",
    path=PATH,
    description="The file of a record",
    factory=RecordContext,
    cors_headers=EXPOSED_HEADERS,
)


@attachment.get(permission=DYNAMIC)
def download(request: Request) -> Response:
    """Serve the file, whole or in ranges, to clients that may read the record."""
    context: RecordContext = request.context
    if is_in_batch(request):
        raise NotInBatch()
    return context.serve(lambda record: _serve(request, context, record))


@attachment.post(permission=DYNAMIC)
def upload(request: Request) -> dict[str, Any]:
    """Attach the file of a multipart form to the record. The file is the field ``attachment``; the
    optional fields ``data`` and ``permissions`` are JSON objects for the record."""
    context: RecordContext = request.context
    policy = plugin_of(request).settings.policy(context.ref.bucket, context.ref.collection)
    context.check_preconditions()
    if context.current_object is not None:
        rules_for(request, context.ref).check_removable(context.ref)
    # A repeated request finds that its file is stored already.
    stored = request.bound_data.get((STORED, context.ref)) or _receive(request, context, policy)
    if context.is_default_bucket:
        create_parents(request, context.ref)
    with context.held():
        response = records.attach(
            request,
            stored.link,
            stored.attachment,
            data=stored.data,
            permissions=stored.permissions,
            exists=context.current_object is not None,
            keep_old=policy.keep_old_files,
        )
    _describe_record(request, request.response, response)
    request.response.status = response.status
    return stored.attachment.to_json()


@attachment.delete(permission=DYNAMIC)
def remove(request: Request) -> Response:
    """Remove the file and the attribute from the record. The record stays."""
    context: RecordContext = request.context
    if context.current_object is None:
        raise context.not_found()
    allow_retry(request)
    response = NoContent()
    with context.held():
        if (context.current_object or {}).get(ATTRIBUTE) is None:
            raise context.not_found()
        rules_for(request, context.ref).check_removable(context.ref)
        _describe_record(request, response, records.detach(request, context.ref))
    del response.headers["Location"]
    return response


@dataclass(frozen=True)
class StoredForm:
    """A form that was read and checked, and whose file is stored.

    :param link: gives the stored file to the record.
    :param attachment: the value of the record's attribute.
    :param data: further attributes of the record; None if there are none.
    :param permissions: the permissions of the record; None if the client sent none.
    """

    link: Link
    attachment: Attachment
    data: dict[str, Any] | None
    permissions: dict[str, Any] | None


def _receive(request: Request, context: RecordContext, policy: Policy) -> StoredForm:
    """Read the form, store its file, and remember the result for a repeated request."""
    form = receive_form(request, context.body, policy)
    with closing(form.file):
        data, permissions = form.json_object("data"), form.json_object("permissions")
        stored = store(request, context.ref, form.file, policy)
    if stored.facts:
        data = {**(data or {}), **stored.facts}
    form_stored = StoredForm(stored.link, stored.attachment, data, permissions)
    request.bound_data[STORED, context.ref] = form_stored
    allow_retry(request)
    return form_stored


def _serve(request: Request, context: RecordContext, record: dict[str, Any]) -> Response:
    found = records.attached(request, context.ref, record)
    if found is None:
        raise context.not_found()
    attachment, blob, modified = found
    # The links are read only for a client that resumes a download by date. With an entity tag,
    # ``dated`` makes no difference.
    by_date = '"' not in request.headers.get("If-Range", '"')
    dated = not by_date or plugin_of(request).rows.links.is_first(context.ref)
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


def _describe_record(request: Request, response: Response, written: Response) -> None:
    """Set the headers that identify the record and its new version.

    :param written: Kinto's response to the write.
    """
    for name in ("ETag", "Last-Modified"):
        response.headers[name] = written.headers[name]
    response.headers["Location"] = request.route_url("record-object", **request.matchdict)
