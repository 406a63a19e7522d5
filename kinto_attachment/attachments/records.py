"""The second half of an upload: an attachment is written on its record, or taken off it.

Kinto itself writes the record, in a subrequest, so that permissions, schema, preconditions, events
and history are Kinto's own. It is the last step of an upload: the bytes are durable by then.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
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

from ..errors import BlobNotFound, FieldRefused, MetadataForged, ReplacedMeanwhile
from ..files.blob import Attachment, Blob
from ..files.field import is_attachment, value_at, with_file
from ..files.key import is_key
from ..files.mimetype import DEFAULT_MIMETYPE, accept_mimetype
from ..files.ref import FieldRef, RecordRef, Ref
from ..http.responses import explained
from ..plugin import Plugin, plugin_of
from ..rows.links import Link
from ..transactions.request import file_transaction
from .fields import is_declared, policy_at, read_files
from .writes.record_model import Write, write_one

Row = dict[str, Any]

_UPLOAD = FieldRef(RecordRef("", "", ""))
"""Where an upload to the media library describes its file."""


@dataclass(frozen=True)
class Stored:
    """A file that is stored, and not yet on a record.

    :param link: gives the blob to its place on the record.
    :param attachment: describes the file.
    :param facts: further attributes that the rules of the collection add.
    """

    link: Link
    attachment: Attachment
    facts: Row = field(default_factory=dict)

    @property
    def place(self) -> FieldRef:
        """Where the file goes."""
        return self.link.ref

    @property
    def value(self) -> Row:
        """What the record is to say about the file."""
        value = self.attachment.to_json()
        return {"id": self.place.entry, **value} if self.place.entry else value


def attach(
    request: Request,
    ref: RecordRef,
    stored: Sequence[Stored],
    record: Row | None,
    *,
    data: Row | None,
    permissions: Row | None,
) -> Response:
    """Create the record with the files, or merge them into the existing record.

    :param stored: files for different places of the record.
    :param record: as it was a moment ago; None if it was not there. If a file goes to a list, no
        other request may write the record meanwhile.
    :param data: further attributes. A field with one file among them is ignored, and a list takes
        the place of that of the record.
    :returns: Kinto's own response, 200 or 201, for ``ETag`` and ``Last-Modified``.
    :raises HTTPException: if Kinto refuses the record.
    """
    legacy = plugin_of(request).legacy
    if legacy.remain():
        for _ in legacy.adopt(*ref.path):
            pass  # this links the file that is about to be replaced
    files = file_transaction(request)
    for each in stored:
        files.expect(each.place, each.value)
    response = _create_or_update(request, ref, stored, record, data, permissions)
    for each in stored:
        keep_old = policy_at(request, each.place).keep_old_files
        files.link(each.link, keep_old, lambda place=each.place: value_of(request, place))
    return response


def write_field(request: Request, ref: RecordRef, name: str, value: Any) -> Response:
    """Change what a record says in a field; the listeners release the bytes that are gone.

    :param value: None to remove the field.
    """
    # RFC 7396: null removes the key. A plain PATCH would store the null.
    headers = {"Content-Type": "application/merge-patch+json"}
    return _invoke(request, "PATCH", ref, {"data": {name: value}}, headers)


def _create_or_update(
    request: Request,
    ref: RecordRef,
    stored: Sequence[Stored],
    record: Row | None,
    data: Row | None,
    permissions: Row | None,
) -> Response:
    safely = {"If-None-Match": "*"}
    only_new = request.headers.get("If-None-Match") == "*"
    for _ in range(3):
        body: Row = {"data": _with_files(data or {}, stored, record)}
        if permissions is not None:
            body["permissions"] = permissions
        try:
            if record is not None and not only_new:
                return _invoke(request, "PATCH", ref, body)
            return _invoke(request, "PUT", ref, body, safely, missing=record is None)
        except (httpexceptions.HTTPException, UnicityError):
            # If another request has created or deleted the record since, try the other way.
            with _lists_locked(request, ref, stored):
                now = read_record(request, ref)
            if (record is None) == (now is None):
                raise
            record = now
    raise ReplacedMeanwhile()


def _lists_locked(
    request: Request, ref: RecordRef, stored: Sequence[Stored]
) -> AbstractContextManager:
    """Lock the record, if a file goes to a list."""
    has_list = any(each.place.entry for each in stored)
    return file_transaction(request).hold(ref) if has_list else nullcontext()


def _with_files(data: Row, stored: Sequence[Stored], record: Row | None) -> Row:
    """Return the attributes to write.

    :raises MetadataForged: if ``data`` has no list where a file goes to a list.
    :raises FieldRefused: if ``data`` leaves out the entry whose file is replaced, or if the record
        has a single file from before the field became a list.
    """
    written = dict(data)
    for place, value in ((each.place, each.value) for each in stored):
        name = place.field
        before = written[name] if name in written else (record or {}).get(name)
        if place.entry and not isinstance(before, list | None):
            if name in written:
                raise MetadataForged(name)
            what = "a single file" if is_attachment(before) else "another value"
            reason = f"{name} has {what}, from before it was a list of files: remove that first"
            raise FieldRefused(reason, name)
        if value_at(place, record) is not None and value_at(place, {name: before}) is None:
            raise FieldRefused(f"{name} in data leaves out the entry whose file is sent", name)
        written[name] = with_file(before, place, value)
    return written


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
    for name in ("Transfer-Encoding", "Expect", "Response-Behavior", "X-HTTP-Method-Override"):
        subrequest.headers.pop(name, None)
    subrequest.headers.update({**defaults, **(headers or {})})
    rolls_back = plugin_of(request).rows.rolls_back
    write = Write(ref, missing, refuses_second=rolls_back, is_undone=not rolls_back)
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


def value_of(request: Request, place: Ref) -> Any:
    """Return what the record says at a place now; None if it says nothing there, or if this is no
    place of a record."""
    if not isinstance(place, FieldRef):
        return None
    return value_at(place, read_record(request, place.record))


def is_same(one: Any, other: Any) -> bool:
    """Return whether two values are equal as JSON: to Python, 1 and true are equal.

    >>> is_same({"size": 5.0}, {"size": 5}), is_same([1], [True])
    (True, False)
    """
    if isinstance(one, dict):
        return (
            isinstance(other, dict)
            and one.keys() == other.keys()
            and all(is_same(value, other[name]) for name, value in one.items())
        )
    if isinstance(one, list):
        return (
            isinstance(other, list)
            and len(one) == len(other)
            and all(is_same(*pair) for pair in zip(one, other, strict=True))
        )
    return one == other and isinstance(one, bool) is isinstance(other, bool)


def attached(
    request: Request, ref: Ref, record: dict[str, Any]
) -> tuple[Attachment, Blob, int] | None:
    """Return what has a place on the record: its description, the blob, and since when, in
    milliseconds since 1970. None if nothing has.

    :param ref: the owner of the blob: the place, or the upload that describes itself like a record.
    :raises BlobNotFound: if the place has another file by now, or if its blob is unknown.
    """
    value = value_at(ref if isinstance(ref, FieldRef) else _UPLOAD, record)
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
        if links or not isinstance(ref, FieldRef):
            raise BlobNotFound(attachment.location)
        if not is_declared(request, ref):
            return None  # another application's attribute
        key, modified = _unlinked_key(request, ref, value), record["last_modified"]
    mimetype = accept_mimetype(attachment.mimetype) or DEFAULT_MIMETYPE
    return attachment, Blob(key, attachment.hash, attachment.size, mimetype), modified


def _unlinked_key(request: Request, ref: FieldRef, attachment: dict[str, Any]) -> str:
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
        key = plugin.legacy.key_of(ref.record, location) if plugin.legacy.remain() else ""
    if not key or plugin.rows.links.having(key):
        raise BlobNotFound(location)
    return key


def location_of(request: Request, place: FieldRef, key: str) -> str:
    """Return the ``location`` to write on the record: the key joined to ``base_url``, or, for a
    private file, its URL below the record, as Kinto makes its URLs."""
    if not policy_at(request, place).private:
        return plugin_of(request).storage.url(key)
    return url_of(request, place)


def url_of(request: Request, place: FieldRef) -> str:
    """Return the URL below the record at which a file is served, as Kinto makes its URLs."""
    record = place.record
    ids = {"bucket_id": record.bucket, "collection_id": record.collection, "id": record.record}
    url = request.route_url("record-object", **ids)
    return url + place.url_path.removeprefix(record.uri)


def key_in(plugin: Plugin, attachment: Any) -> str:
    """Return the first of :func:`keys_in`, or an empty text."""
    return next(iter(keys_in(plugin, attachment)), "")


def keys_in(plugin: Plugin, attachment: Any) -> list[str]:
    """Return the keys that a location may have at its end: decoded, and as it is, because the
    existing plugin did not encode it. There are none if the location is below another ``base_url``
    than today's, if the file is private, or if the attribute is no attachment."""
    location = attachment.get("location") if isinstance(attachment, dict) else ""
    key = str(location or "").removeprefix(plugin.settings["base_url"])
    if "://" in key or FieldRef.served_at(key):
        return []
    return [each for each in dict.fromkeys((unquote(key), key)) if is_key(each)]


def find_key(plugin: Plugin, attachment: dict[str, Any]) -> str:
    """Return the key of a file that another record may have; empty if it is unknown."""
    place = FieldRef.served_at(str(attachment.get("location", "")))
    if place:
        return _find_private_key(plugin, place, attachment)
    keys = keys_in(plugin, attachment)
    if len(keys) < 2:
        return next(iter(keys), "")
    return next((key for key in keys if plugin.rows.links.having(key)), keys[0])


def _find_private_key(plugin: Plugin, place: FieldRef, attachment: dict[str, Any]) -> str:
    """Return the key of a private file; empty if it is unknown.

    :param place: where its location says that it is. It may have lost the file since, while a copy
        of the record still has it.
    """
    links = plugin.rows.links
    for link in links.of(place):
        if link.is_of(attachment):
            return link.key
    digest = attachment.get("hash")
    lost = (key for key in links.lost(place) if any(k.digest == digest for k in links.having(key)))
    return next(lost, "")


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
        written = read_files(request, ref, write.new)
        if any(written.get(place) != file for place, file in read_files(request, ref, now).items()):
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
