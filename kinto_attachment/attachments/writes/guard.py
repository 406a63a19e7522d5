"""Only the plugin writes the fields of a record that have files.

A client may send the value that a field has, and one that it had before: offline clients keep
sending outdated values. Either means that the file stays as it is now. Of a list, a client may send
the entries in another order, and leave out some. Any other value is refused.

Before Kinto stores a record, it calls ``Record.process_object``; for a PATCH, it first calls
``Record.apply_changes``. Kinto's events come after the write, too late for storages that do not
roll back and for the other operations of a batch. Kinto offers no hook there, so :func:`install`
wraps these methods, once in a process. Servers in the same process that do not include this plugin
are not affected.
"""

from collections import Counter
from collections.abc import Iterable
from copy import deepcopy
from functools import wraps
from typing import Any

from kinto.core.events import ACTIONS
from kinto.views.records import Record
from pyramid.httpexceptions import HTTPPreconditionFailed
from pyramid.request import Request

from ...errors import FieldRefused, MetadataForged, ReplacedMeanwhile, TooManyFiles
from ...files.blob import Attachment, canonical_json
from ...files.field import MAX_FILES, Files, is_entry_id
from ...files.ref import FieldRef, RecordRef
from ...plugin import plugin_of
from ...rows.links import Link
from ...transactions.request import file_transaction
from ..fields import (
    declared_fields,
    is_declared,
    linked_fields,
    links_of,
    policy_at,
    read_files,
)
from ..records import is_same
from ..rules import rules_for

FEW = 20
"""Up to this many records that one request deletes, or entries that it removes, are dealt with one
by one."""


def is_trusted_copy(request: Request | None) -> bool:
    """Return whether kinto-signer is copying records, their attachments included
    (https://github.com/Kinto/kinto-attachment, ``_attachment_auto_save``)."""
    while request is not None:
        if getattr(request, "_attachment_auto_save", False):
            return True
        request = getattr(request, "parent", None)
    return False


def settle_fields(
    request: Request, ref: RecordRef, new: dict[str, Any], old: dict[str, Any]
) -> None:
    """Decide about the fields of a record that is about to be stored.

    A record without a field, or with null, may be written: its files are detached. So may the files
    that this very request is attaching. An outdated value is replaced by that of now.

    :param new: the record, which may be changed in place.
    :param old: as it is now; empty for a new record.
    :raises MetadataForged: if a field never had that value.
    :raises TooManyFiles: if a list has become longer than it may.
    """
    before = read_files(request, ref, old)
    for name in _guarded(request, ref, new, old, before):
        current = old.get(name)
        settled = _settled(request, ref, name, new.get(name), current)
        if settled is not None:
            new[name] = settled
        elif new.get(name) is not None:
            del new[name]
        if settled is not current:
            _remember_removed(request, ref, name, current, settled)
    if plugin_of(request).rows.rolls_back:
        return
    # A write that cannot be rolled back is checked now, and not by the listeners only.
    after = read_files(request, ref, new)
    unchanged = {place: value for place, value in after.items() if before.get(place) is value}
    if unchanged:
        check_still_linked(request, unchanged, links_of(request, ref, unchanged))


def remember_deleted(
    request: Request, bucket: str, collection: str, records: list[dict[str, Any]]
) -> None:
    """Remember the files of records that one request deletes. Fields that are not declared are
    left out: their last files go, and they are fields no longer."""
    refs = ((RecordRef(bucket, collection, record["id"]), record) for record in records)
    files = [
        (place, value)
        for ref, record in refs
        for place, value in read_files(request, ref, record).items()
        if is_declared(request, place)
    ]
    if len(files) > FEW:
        plugin_of(request).rows.former.add_all(bucket, collection)
        return
    for place, value in files:
        remember(request, place, value)


def remember(request: Request, place: FieldRef, attachment: Any) -> None:
    """Remember a value that a place no longer has, unless it is None."""
    if attachment is not None:
        plugin_of(request).rows.former.add(place, attachment)


def _guarded(
    request: Request, ref: RecordRef, new: dict[str, Any], old: dict[str, Any], before: Files
) -> list[str]:
    """Return the names of the fields that only this plugin writes: those that are declared, and
    those that used to be and still have files."""
    fields = declared_fields(request, ref)
    others = {place.field for place in (*before, *read_files(request, ref, new))} - {*fields}
    changed = {name for name in others if not is_same(new.get(name), old.get(name))}
    linked = linked_fields(request, ref, before) if changed else set()
    return [*fields, *sorted(changed & linked)]


def _settled(request: Request, ref: RecordRef, name: str, value: Any, current: Any) -> Any:
    """Return the value to store in a field, in the spelling of the server: 5 and not 5.0. Nothing
    is changed yet.

    :param value: what the client sends; None for nothing.
    :param current: what the field has now.
    :raises MetadataForged: if the field never had that value.
    :raises TooManyFiles: if a list has become longer than it may.
    """
    if is_same(value, current):
        return current
    if value is None:
        return None
    field = declared_fields(request, ref).get(name)
    # The field may have become a list since, or have been one before.
    if isinstance(value, list) and (isinstance(current, list) or (field and field.is_list)):
        return _settled_list(request, ref, name, value, current)
    place = FieldRef(ref, name)
    if file_transaction(request).expects(place, value):
        return value
    if isinstance(value, list) or not _had_all(request, place, [value]):
        raise MetadataForged(name)
    return current


def _settled_list(request: Request, ref: RecordRef, name: str, value: Any, current: Any) -> Any:
    """Return the list to store, as :func:`_settled` does. An entry that the record has lost counts
    as not there, and one whose file was replaced counts as it is now."""
    now, others = _split(current)
    # What the record had in this attribute before it was a field; each may stay.
    older = Counter(map(canonical_json, others))
    if len(value) > max(MAX_FILES, len(now) + len(others)):
        raise MetadataForged(name)  # no list was ever that long
    files = file_transaction(request)
    settled: list[Any] = []
    outdated: list[tuple[FieldRef, Any]] = []
    ids: list[str] = []
    for each in value:
        entry = each.get("id") if isinstance(each, dict) else None
        known = now.get(entry) if is_entry_id(entry) else None
        if known is not None and is_same(each, known):
            settled.append(known)
        elif not is_entry_id(entry):
            text = canonical_json(each)
            if not older[text]:
                raise MetadataForged(name)
            older[text] -= 1
            settled.append(each)
            continue
        elif files.expects(place := FieldRef(ref, name, entry), each):
            settled.append(each)
        else:
            outdated.append((place, each))
            if known is None:
                continue
            settled.append(known)
        ids.append(entry)
    if len({*ids}) < len(ids):
        raise MetadataForged(name)
    if outdated and not _had_all(request, outdated[0][0], [each for _, each in outdated]):
        raise MetadataForged(name)
    most = policy_at(request, FieldRef(ref, name)).max_files
    if len(settled) > max(most, len(now) + len(others)):
        raise TooManyFiles(name, most)
    return settled


def _split(value: Any) -> tuple[dict[str, Any], list[Any]]:
    """Return the entries of a list by their ids, and what else is in it."""
    items = value if isinstance(value, list) else []
    entries, others = {}, []
    for each in items:
        if isinstance(each, dict) and is_entry_id(each.get("id")):
            entries[each["id"]] = each
        else:
            others.append(each)
    return entries, others


def _remember_removed(request: Request, ref: RecordRef, name: str, before: Any, after: Any) -> None:
    """Remember what a field no longer says."""
    if not isinstance(before, list):
        remember(request, FieldRef(ref, name), before)
        return
    kept = {id(each) for each in after or ()}  # entries that stay are the same objects
    removed = {
        FieldRef(ref, name, entry): each
        for entry, each in _split(before)[0].items()
        if id(each) not in kept
    }
    if len(removed) > FEW:
        plugin_of(request).rows.former.add_field(next(iter(removed)))
        return
    for place, value in removed.items():
        remember(request, place, value)


def _had_all(request: Request, place: FieldRef, values: list[Any]) -> bool:
    """Return whether a field had each of these values before.

    :param place: the field, or any entry of it if the values are entries.
    """
    rows = plugin_of(request).rows
    known = rows.former.known(place, values)
    unknown = [value for value, is_known in zip(values, known, strict=True) if not is_known]
    return not unknown or (
        rows.former.may_have(place) and all(_has_lost(request, place, value) for value in unknown)
    )


def _has_lost(request: Request, place: FieldRef, value: Any) -> bool:
    """Return whether the field lost the file of that value together with others."""
    try:
        location = Attachment.from_json(value).location
    except ValueError:
        return False
    if place.entry:
        place = FieldRef(place.record, place.field, value["id"])
    other = FieldRef.served_at(location)
    return other in (None, place) and plugin_of(request).rows.links.has_lost(place, value)


def _already_applied(resource: Record) -> dict[str, Any] | None:
    """Return the record as it is, if a PUT whose If-Match failed would change nothing of it but
    bring back an outdated attachment.

    kinto.js sends some changes twice, and keeps its own version if the second is refused. With an
    outdated attachment in that version it would never agree with the server. RFC 9110, 13.1.1,
    allows a success if the change "appears to have already been applied".
    """
    request = resource.request
    current = resource.context.current_object
    body = request.validated["body"]
    new = body.get("data")
    if not current or not new or "permissions" in body or request.headers.get("If-None-Match"):
        return None
    ref = RecordRef(resource.bucket_id, resource.collection_id, resource.object_id)
    model = resource.model
    before = read_files(request, ref, current)
    fields = _guarded(request, ref, new, current, before)
    # Kinto itself sets the others when it writes the record.
    ignored = (
        *(*fields, model.id_field, model.modified_field, model.permissions_field),
        resource.schema_field,
    )
    kept, sent = (
        {name: value for name, value in record.items() if name not in ignored}
        for record in (current, new)
    )
    if canonical_json(kept) != canonical_json(sent):
        return None
    changed = [name for name in fields if not is_same(new.get(name), current.get(name))]
    if not changed or any(new.get(name) is None for name in changed):
        return None
    try:
        settled = [_settled(request, ref, name, new[name], current.get(name)) for name in changed]
    except (MetadataForged, TooManyFiles):
        return None
    is_applied = all(
        is_same(value, current.get(name)) for name, value in zip(changed, settled, strict=True)
    )
    return {**current} if is_applied else None


def check_still_linked(request: Request, files: Files, links: Iterable[Link]) -> None:
    """Check a record that was stored with the files that it had when Kinto read it.

    Kinto reads the record, merges the changes, and writes all of it. A write that waited for an
    upload or a deletion would bring back an attachment whose bytes are gone.

    :param files: what the record says.
    :param links: those of the record.
    :raises ReplacedMeanwhile: if the record has another attachment by now, or none. The request is
        then repeated with what is there now, see :mod:`kinto_attachment.transactions.retry`.
    """
    fields = {place.field for place in files if is_declared(request, place)}
    by_place: dict[Any, list[Link]] = {}
    for link in links:
        by_place.setdefault(link.ref, []).append(link)
        if isinstance(link.ref, FieldRef):
            fields.add(link.ref.field)
    for place, attachment in files.items():
        if place.field not in fields:
            continue  # another application's attribute
        linked = by_place.get(place, [])
        is_linked = (
            any(link.is_now(attachment) for link in linked)
            if linked
            else not plugin_of(request).rows.links.has_lost(place, attachment)
        )
        if not is_linked:
            raise ReplacedMeanwhile("" if linked else place.uri, place.field)


def install() -> None:
    """Stand between Kinto's resource of records and its storage. Idempotent."""
    if getattr(Record.process_object, "guards_attachments", False):
        return
    process_object, apply_changes = Record.process_object, Record.apply_changes
    postprocess, put = Record.postprocess, Record.put

    @wraps(process_object)
    def guarded_process_object(self, new, old=None):
        request = self.request
        if not hasattr(request.registry, "attachment_plugin"):
            return process_object(self, new, old)
        ref = RecordRef(self.bucket_id, self.collection_id, str(new.get("id", "")))
        rules = rules_for(request, ref)
        if is_trusted_copy(request):
            return process_object(self, new, old)
        prepared = rules.before_write(request, ref, new, old)
        if prepared is None:
            settle_fields(request, ref, new, old or {})
        processed = process_object(self, new, old)
        if prepared is not None:
            rules.after_write(request, ref, prepared, processed)
        return processed

    @wraps(apply_changes)
    def guarded_apply_changes(self, obj, requested_changes):
        if not hasattr(self.request.registry, "attachment_plugin"):
            return apply_changes(self, obj, requested_changes)
        fields: set[str] = set()
        if self._is_json_patch or self._is_merge_patch:
            # Kinto applies these in place. Without this copy, they would also change the old values
            # that the new ones are compared with.
            ref = RecordRef(self.bucket_id, self.collection_id, str(obj.get("id", "")))
            fields = {place.field for place in read_files(self.request, ref, obj)}
            obj = {**obj, **{name: deepcopy(obj[name]) for name in fields}}
        try:
            return apply_changes(self, obj, requested_changes)
        except TypeError as error:
            # Kinto fails on a patch that takes a list, a number or a text for an object.
            for name in fields.intersection(requested_changes):
                raise MetadataForged(name) from error
            reason = "The patch takes a list, a number or a text of the record for an object."
            raise FieldRefused(reason, "data") from error

    @wraps(postprocess)
    def guarded_postprocess(self, result, action=ACTIONS.READ, old=None):
        if action is ACTIONS.DELETE and hasattr(self.request.registry, "attachment_plugin"):
            deleted = old if isinstance(old, list) else [old]
            remember_deleted(self.request, self.bucket_id, self.collection_id, deleted)
        return postprocess(self, result, action, old)

    @wraps(put)
    def guarded_put(self):
        try:
            return put(self)
        except HTTPPreconditionFailed as refusal:
            if not hasattr(self.request.registry, "attachment_plugin"):
                raise
            current = _already_applied(self)
            if current is None:
                raise refusal
            self._add_timestamp_header(self.request.response, current[self.model.modified_field])
            return self.postprocess(current)

    guarded_process_object.guards_attachments = True
    Record.process_object = guarded_process_object
    Record.apply_changes = guarded_apply_changes
    Record.postprocess = guarded_postprocess
    Record.put = guarded_put
