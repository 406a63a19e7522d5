"""Only the plugin writes the ``attachment`` attribute.

A client may send the value that the record has, and one that it had before: offline clients keep
sending outdated values. Either means that the file stays as it is now. Any other value is refused.

Before Kinto stores a record, it calls ``Record.process_object``; for a PATCH, it first calls
``Record.apply_changes``. Kinto's events come after the write, too late for storages that do not
roll back and for the other operations of a batch. Kinto offers no hook there, so :func:`install`
wraps these methods, once in a process. Servers in the same process that do not include this plugin
are not affected.
"""

from copy import deepcopy
from functools import wraps
from typing import Any

from kinto.core.events import ACTIONS
from kinto.views.records import Record
from pyramid.httpexceptions import HTTPPreconditionFailed
from pyramid.request import Request

from ..errors import MetadataForged, ReplacedMeanwhile
from ..files.blob import ATTRIBUTE, Attachment, canonical_json
from ..files.ref import RecordRef
from ..plugin import plugin_of
from ..transactions.request import file_transaction
from .records import is_same
from .rules import rules_for

FEW = 20
"""Up to this many records that one request deletes are dealt with one by one."""


def is_trusted_copy(request: Request | None) -> bool:
    """Return whether kinto-signer is copying records, their attachments included
    (https://github.com/Kinto/kinto-attachment, ``_attachment_auto_save``)."""
    while request is not None:
        if getattr(request, "_attachment_auto_save", False):
            return True
        request = getattr(request, "parent", None)
    return False


def settle_attribute(
    request: Request, ref: RecordRef, new: dict[str, Any], old: dict[str, Any]
) -> None:
    """Decide about the attribute of a record that is about to be stored.

    A record without the attribute, or with null, may be written: its file is detached. So may the
    file that this very request is attaching. An outdated value is replaced by that of now.

    :param new: the record, which may be changed in place.
    :param old: as it is now; empty for a new record.
    :raises MetadataForged: if the record never had that value.
    """
    attachment, current = new.get(ATTRIBUTE), old.get(ATTRIBUTE)
    if is_same(attachment, current):
        if attachment is not None:
            new[ATTRIBUTE] = current  # in the spelling of the server: 5 and not 5.0
        if isinstance(current, dict) and not plugin_of(request).rows.rolls_back:
            # A write that cannot be rolled back is checked now, and not by the listeners only.
            check_still_linked(request, ref, current)
        return
    if attachment is None or file_transaction(request).expects(ref, attachment):
        remember(request, ref, current)
        return
    if not _had(request, ref, attachment):
        raise MetadataForged()
    if current is None:
        del new[ATTRIBUTE]
    else:
        new[ATTRIBUTE] = current


def remember_deleted(
    request: Request, bucket: str, collection: str, records: list[dict[str, Any]]
) -> None:
    """Remember the attachments of records that one request deletes."""
    records = [record for record in records if record.get(ATTRIBUTE) is not None]
    if len(records) > FEW:
        plugin_of(request).rows.former.add_all(bucket, collection)
        return
    for record in records:
        remember(request, RecordRef(bucket, collection, record["id"]), record[ATTRIBUTE])


def remember(request: Request, ref: RecordRef, attachment: Any) -> None:
    """Remember a value that the record has no more, unless it is None."""
    if attachment is not None:
        plugin_of(request).rows.former.add(ref, attachment)


def _had(request: Request, ref: RecordRef, attachment: Any) -> bool:
    """Return whether the record had that value before."""
    rows = plugin_of(request).rows
    if rows.former.has(ref, attachment):
        return True
    try:
        location = Attachment.from_json(attachment).location
    except ValueError:
        return False
    other = RecordRef.attached_at(location)
    return (
        other in (None, ref) and rows.former.may_have(ref) and rows.links.has_lost(ref, attachment)
    )


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
    attachment = new.get(ATTRIBUTE)
    if attachment is None or is_same(attachment, current.get(ATTRIBUTE)):
        return None
    model = resource.model
    # Kinto itself sets the others when it writes the record.
    ignored = (
        *(ATTRIBUTE, model.id_field, model.modified_field, model.permissions_field),
        resource.schema_field,
    )
    before, after = (
        {name: value for name, value in record.items() if name not in ignored}
        for record in (current, new)
    )
    if canonical_json(before) != canonical_json(after):
        return None
    return {**current} if _had(request, ref, attachment) else None


def check_still_linked(request: Request, ref: RecordRef, attachment: dict[str, Any]) -> None:
    """Check a record that was stored with the attachment that it had when Kinto read it.

    Kinto reads the record, merges the changes, and writes all of it. A write that waited for an
    upload or a deletion would bring back an attachment whose bytes are gone.

    :raises ReplacedMeanwhile: if the record has another attachment by now, or none. The request is
        then repeated with what is there now, see :mod:`kinto_attachment.transactions.retry`.
    """
    links = plugin_of(request).rows.links
    if not links.allows(ref, attachment):
        raise ReplacedMeanwhile(unlinked="" if links.of(ref) else ref.uri)


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
            settle_attribute(request, ref, new, old or {})
        processed = process_object(self, new, old)
        if prepared is not None:
            rules.after_write(request, ref, prepared, processed)
        return processed

    @wraps(apply_changes)
    def guarded_apply_changes(self, obj, requested_changes):
        # Kinto applies a JSON merge patch in place. Without this copy, the patch would also change
        # the old attachment that the new one is compared with.
        if isinstance(obj.get(ATTRIBUTE), dict):
            obj = {**obj, ATTRIBUTE: deepcopy(obj[ATTRIBUTE])}
        return apply_changes(self, obj, requested_changes)

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
