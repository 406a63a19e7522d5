"""The second half of an upload: an attachment is written on its record, or taken off it.

Kinto itself writes the record, in a subrequest, so that permissions, schema, preconditions, events
and history are Kinto's own. It is the last step of an upload: the bytes are durable by then.
"""

from typing import Any
from urllib.parse import unquote

from kinto.core.errors import http_error
from kinto.core.storage import Filter
from kinto.core.storage.exceptions import ObjectNotFoundError, UnicityError
from kinto.core.utils import COMPARISON, build_request
from kinto.core.views.errors import authorization_required
from pyramid import httpexceptions
from pyramid.request import Request
from pyramid.response import Response

from ..errors import BlobNotFound, ReplacedMeanwhile
from ..files.blob import ATTRIBUTE, Attachment, Blob, canonical_json
from ..files.key import is_key
from ..files.mimetype import DEFAULT_MIMETYPE, accept_mimetype
from ..files.ref import RecordRef, Ref
from ..http.responses import explained
from ..plugin import Plugin, plugin_of
from ..rows.links import Link
from ..settings.policy import Policy
from ..transactions.request import file_transaction
from .record_model import Write, write_one


def attach(
    request: Request,
    link: Link,
    attachment: Attachment,
    *,
    data: dict[str, Any] | None,
    permissions: dict[str, Any] | None,
    exists: bool,
    keep_old: bool,
) -> Response:
    """Create the record with the attachment, or merge the attachment into the existing record.

    :param link: the record, and the blob that is stored already.
    :param data: further attributes; an ``attachment`` among them is ignored.
    :param exists: whether the record was there a moment ago.
    :param keep_old: keep the bytes of the attachment that is replaced.
    :returns: Kinto's own response, 200 or 201, for ``ETag`` and ``Last-Modified``.
    :raises HTTPException: if Kinto refuses the record.
    """
    body: dict[str, Any] = {"data": {**(data or {}), ATTRIBUTE: attachment.to_json()}}
    if permissions is not None:
        body["permissions"] = permissions

    legacy = plugin_of(request).legacy
    if legacy.remain():
        for _ in legacy.adopt(link.ref.bucket, link.ref.collection, link.ref.record):
            pass  # this links the file that is about to be replaced
    files = file_transaction(request)
    files.expect(link.ref, attachment.to_json())
    response = _create_or_update(request, link.ref, body, exists)
    files.link(link, keep_old, lambda: attachment_of(request, link.ref))
    return response


def detach(request: Request, ref: RecordRef) -> Response:
    """Remove the attribute from the record; the listeners release the bytes."""
    # RFC 7396: null removes the key. A plain PATCH would store the null.
    body = {"data": {ATTRIBUTE: None}}
    return _invoke(request, "PATCH", ref, body, {"Content-Type": "application/merge-patch+json"})


def _create_or_update(
    request: Request, ref: RecordRef, body: dict[str, Any], exists: bool
) -> Response:
    safely = {"If-None-Match": "*"}
    only_new = request.headers.get("If-None-Match") == "*"
    for _ in range(3):
        try:
            if exists and not only_new:
                return _invoke(request, "PATCH", ref, body)
            return _invoke(request, "PUT", ref, body, safely, missing=not exists)
        except (httpexceptions.HTTPException, UnicityError):
            # If another request has created or deleted the record since, try the other way.
            if exists == (read_record(request, ref) is not None):
                raise
            exists = not exists
    raise ReplacedMeanwhile()


def _invoke(
    request: Request,
    method: str,
    ref: RecordRef,
    body: dict[str, Any],
    headers: dict[str, str] | None = None,
    *,
    missing: bool = False,
) -> Response:
    """Have Kinto write the record; see :func:`invoke`.

    :param missing: the record does not exist, and Kinto need not look for it.
    :raises UnicityError: if it does exist.
    """
    defaults = {"Accept": "application/json", "Content-Type": "application/json"}
    subrequest = build_request(request, {"method": method, "path": ref.uri, "body": body})
    for name in ("Transfer-Encoding", "Expect", "Response-Behavior"):
        subrequest.headers.pop(name, None)
    subrequest.headers.update({**defaults, **(headers or {})})
    write = Write(ref, missing, refuses_second=plugin_of(request).rows.rolls_back)
    write_one(subrequest, write)
    undo_by_hand(request, write)
    return invoke(request, subrequest)


def invoke(request: Request, subrequest: Request) -> Response:
    """Return Kinto's response to a subrequest in the same transaction.

    :raises HTTPException: for every refusal, because a returned one would be committed.
    """
    try:
        response = request.invoke_subrequest(subrequest, use_tweens=False)
    except httpexceptions.HTTPForbidden as error:
        # Kinto tells a 401 from a 403 by the request. Since this one began, its user may have got
        # another password.
        response = authorization_required(error, subrequest)
    except httpexceptions.HTTPException as error:
        raise explained(error) from None
    if response.status_code >= 400:
        error = http_error(httpexceptions.status_map[response.status_code](), **response.json)
        for name in ("ETag", "Last-Modified", "Retry-After", "WWW-Authenticate"):
            if name in response.headers:
                error.headers[name] = response.headers[name]
        raise explained(error)
    return response


def read_record(request: Request, ref: RecordRef) -> dict[str, Any] | None:
    """Return the record as Kinto's storage has it now, or None."""
    try:
        return request.registry.storage.get("record", ref.collection_uri, ref.record)
    except ObjectNotFoundError:
        return None


def attachment_of(request: Request, ref: RecordRef) -> Any:
    """Return the attribute of the record as it is now; None if it has none."""
    return (read_record(request, ref) or {}).get(ATTRIBUTE)


def is_same(one: Any, other: Any) -> bool:
    """Return whether two values are equal as JSON: to Python, 1 and true are equal."""
    return canonical_json(one) == canonical_json(other)


def attached(
    request: Request, ref: Ref, record: dict[str, Any]
) -> tuple[Attachment, Blob, int] | None:
    """Return what is attached to the record: the attribute, the blob, and since when, in
    milliseconds since 1970. None if nothing is attached.

    :param ref: the owner of the blob: the record, or the upload that describes itself like one.
    :raises BlobNotFound: if the record has another attachment by now, or if its blob is unknown.
    """
    value = record.get(ATTRIBUTE)
    try:
        attachment = Attachment.from_json(value)
    except ValueError:
        return None
    links = plugin_of(request).rows.links.of(ref)
    for link in links:
        if link.is_of(value):
            key, modified = link.key, link.modified
            break
    else:
        if links or not isinstance(ref, RecordRef):
            raise BlobNotFound(attachment.location)
        key, modified = _unlinked_key(request, ref, value), record["last_modified"]
    mimetype = accept_mimetype(attachment.mimetype) or DEFAULT_MIMETYPE
    return attachment, Blob(key, attachment.hash, attachment.size, mimetype), modified


def _unlinked_key(request: Request, ref: RecordRef, attachment: dict[str, Any]) -> str:
    """Return the key of a file of the existing plugin.

    The attribute may also be older than any plugin and name anything. Only a key that no other
    record has is accepted, and only if this server names files like that, or if a row of the
    existing plugin gives it to this record.

    :raises BlobNotFound: if there is no such key.
    """
    plugin = plugin_of(request)
    location = str(attachment["location"])
    keys = keys_in(plugin, attachment)
    key = next((key for key in keys if plugin.settings.makes(key)), "")
    if not key:
        key = plugin.legacy.key_of(ref, location) if plugin.legacy.remain() else ""
    if not key or plugin.rows.links.having(key):
        raise BlobNotFound(location)
    return key


def location_of(request: Request, ref: RecordRef, key: str, policy: Policy) -> str:
    """Return the ``location`` to write on the record: the key joined to ``base_url``, or, for a
    private file, the URL of the record's attachment, as Kinto makes its URLs."""
    if not policy.private:
        return plugin_of(request).storage.url(key)
    ids = {"bucket_id": ref.bucket, "collection_id": ref.collection, "id": ref.record}
    return request.route_url("attachment", **ids)


def key_in(plugin: Plugin, attachment: Any) -> str:
    """Return the first of :func:`keys_in`, or an empty text."""
    return next(iter(keys_in(plugin, attachment)), "")


def keys_in(plugin: Plugin, attachment: Any) -> list[str]:
    """Return the keys that a location may have at its end: decoded, and as it is, because the
    existing plugin did not encode it. There are none if the location is below another ``base_url``
    than today's, if the file is private, or if the attribute is no attachment."""
    location = attachment.get("location") if isinstance(attachment, dict) else ""
    key = str(location or "").removeprefix(plugin.settings["base_url"])
    if "://" in key or RecordRef.attached_at(key):
        return []
    return [each for each in dict.fromkeys((unquote(key), key)) if is_key(each)]


def find_key(plugin: Plugin, attachment: dict[str, Any]) -> str:
    """Return the key of a file that another record may have; empty if it is unknown."""
    ref = RecordRef.attached_at(str(attachment.get("location", "")))
    links = plugin.rows.links.of(ref) if ref else ()
    found = next((link.key for link in links if link.is_of(attachment)), "")
    keys = keys_in(plugin, attachment)
    if found or len(keys) < 2:
        return found or next(iter(keys), "")
    return next((key for key in keys if plugin.rows.links.having(key)), keys[0])


def undo_by_hand(request: Request, write: Write) -> None:
    """On a Kinto storage that does not roll back, arrange for the write to be undone if the
    transaction fails, unless another request has attached a file by then."""
    registry, ref = request.registry, write.ref
    if plugin_of(request).rows.rolls_back:
        return

    permissions = registry.permission.get_objects_permissions([ref.uri])[0]

    def undo() -> None:
        now = read_record(request, ref)
        if write.new is None or now == write.old:
            return
        if (now or {}).get(ATTRIBUTE) not in (None, write.new.get(ATTRIBUTE)):
            return
        if write.old is None:
            only = [Filter("id", ref.record, COMPARISON.EQ)]
            registry.storage.delete_all(
                "record", ref.collection_uri, filters=only, with_deleted=False
            )
            registry.permission.delete_object_permissions(ref.uri)
        else:
            registry.storage.update("record", ref.collection_uri, ref.record, write.old)
            registry.permission.replace_object_permissions(ref.uri, permissions)

    file_transaction(request).undo(undo)
