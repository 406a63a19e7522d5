"""Only the plugin writes the ``attachment`` attribute.

Before Kinto stores a record, it calls ``Record.process_object``; for a PATCH, it first calls
``Record.apply_changes``. Kinto's events come after the write, too late for storages that do not
roll back and for the other operations of a batch. Kinto offers no hook there, so :func:`install`
wraps the two methods, once in a process. Servers in the same process that do not include this
plugin are not affected.
"""

from copy import deepcopy
from functools import wraps
from typing import Any

from kinto.views.records import Record
from pyramid.request import Request

from ..errors import MetadataForged, ReplacedMeanwhile
from ..files.blob import ATTRIBUTE
from ..files.ref import RecordRef
from ..plugin import plugin_of
from ..transactions.request import file_transaction
from .records import is_same
from .rules import rules_for


def is_trusted_copy(request: Request | None) -> bool:
    """Return whether kinto-signer is copying records, their attachments included
    (https://github.com/Kinto/kinto-attachment, ``_attachment_auto_save``)."""
    while request is not None:
        if getattr(request, "_attachment_auto_save", False):
            return True
        request = getattr(request, "parent", None)
    return False


def check_attribute(
    request: Request, ref: RecordRef, new: dict[str, Any], old: dict[str, Any]
) -> None:
    """Check a record that is about to be stored.

    A record without the attribute, with null, or with the value that it has now may be written. Any
    other value is allowed only if this very request is attaching that file.

    :raises MetadataForged: if a client made the value up.
    :raises ReplacedMeanwhile: if the value is outdated.
    """
    attachment = new.get(ATTRIBUTE)
    if attachment is None or is_trusted_copy(request):
        return
    if is_same(attachment, old.get(ATTRIBUTE)):
        # A write that cannot be rolled back is checked now, and not by the listeners only.
        if not plugin_of(request).rows.rolls_back and isinstance(attachment, dict):
            check_still_linked(request, ref, attachment)
        return
    if not file_transaction(request).expects(ref, attachment):
        raise MetadataForged()


def check_still_linked(request: Request, ref: RecordRef, attachment: dict[str, Any]) -> None:
    """Refuse a write that was made from a copy of the record older than its present file.

    Kinto reads the record, merges the changes, and writes all of it. A PATCH of another attribute
    that waited for an upload or a deletion would bring back an attachment whose bytes are gone.

    :raises ReplacedMeanwhile: if the record has another attachment by now, or none.
    """
    if not plugin_of(request).rows.links.allows(ref, attachment):
        raise ReplacedMeanwhile()


def install() -> None:
    """Check every record between Kinto's resource and its storage. Idempotent."""
    if getattr(Record.process_object, "guards_attachments", False):
        return
    process_object, apply_changes = Record.process_object, Record.apply_changes

    @wraps(process_object)
    def guarded_process_object(self, new, old=None):
        request = self.request
        if not hasattr(request.registry, "attachment_plugin"):
            return process_object(self, new, old)
        ref = RecordRef(self.bucket_id, self.collection_id, str(new.get("id", "")))
        rules = rules_for(request, ref)
        prepared = None
        if not is_trusted_copy(request):
            prepared = rules.before_write(request, ref, new, old)
        processed = process_object(self, new, old)
        if prepared is None:
            check_attribute(request, ref, processed, old or {})
        else:
            rules.after_write(request, ref, prepared, processed)
        return processed

    @wraps(apply_changes)
    def guarded_apply_changes(self, obj, requested_changes):
        # Kinto applies a JSON merge patch in place. Without this copy, the patch would also change
        # the old attachment that the new one is compared with.
        if isinstance(obj.get(ATTRIBUTE), dict):
            obj = {**obj, ATTRIBUTE: deepcopy(obj[ATTRIBUTE])}
        return apply_changes(self, obj, requested_changes)

    guarded_process_object.guards_attachments = True
    Record.process_object = guarded_process_object
    Record.apply_changes = guarded_apply_changes
