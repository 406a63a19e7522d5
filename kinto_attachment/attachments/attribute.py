"""Only the plugin writes the ``attachment`` attribute.

Kinto has one place that every write of a record passes through before it is stored:
``Record.process_object`` (and ``apply_changes`` before it, for PATCH). Its events come after the
write, too late for storages that do not roll back and for the other operations of a batch. There
is no way to plug in there, so :func:`install` wraps the two methods, once in a process; servers
without this plugin are not touched.
"""

from copy import deepcopy
from functools import wraps
from typing import Any

from kinto.views.records import Record
from pyramid.request import Request

from ..errors import MetadataForged, ReplacedMeanwhile
from ..files.blob import ATTRIBUTE
from ..files.ref import RecordRef
from ..library import rules as content
from ..transactions.request import files_of


def is_trusted_copy(request: Request | None) -> bool:
    """Whether kinto-signer is copying records, their attachments included
    (https://github.com/Kinto/kinto-attachment, ``_attachment_auto_save``)."""
    while request is not None:
        if getattr(request, "_attachment_auto_save", False):
            return True
        request = getattr(request, "parent", None)
    return False


def check(request: Request, ref: RecordRef, new: dict[str, Any], old: dict[str, Any]) -> None:
    """Let a record pass that is about to be stored, or refuse it.

    Without the attribute, with null, or with what is there already it passes; otherwise only
    when this very request is attaching a file to it.

    :raises MetadataForged: somebody made it up.
    """
    attachment = new.get(ATTRIBUTE)
    if attachment is None or is_trusted_copy(request):
        return
    if content.is_same(attachment, old.get(ATTRIBUTE)):
        _check_now(request, ref, attachment)
        return
    if not files_of(request).expects(ref, attachment):
        raise MetadataForged()


def _check_now(request: Request, ref: RecordRef, attachment: Any) -> None:
    """Where a write cannot be rolled back it is checked before, and not only by the listeners."""
    links = request.registry.attachment_links
    if not links.rolls_back and isinstance(attachment, dict):
        check_still_linked(request, ref, attachment)


def check_still_linked(request: Request, ref: RecordRef, attachment: dict[str, Any]) -> None:
    """Refuse a write that was made from a copy of the record older than its present file.

    Kinto reads the record, merges, and writes all of it: a PATCH of something else that waited for
    an upload or a deletion would bring back the attachment from before, whose bytes are gone.

    :raises ReplacedMeanwhile: the record has another attachment now, or none.
    """
    if not request.registry.attachment_links.allows(ref, attachment):
        raise ReplacedMeanwhile()


def install() -> None:
    """Stand between Kinto's record resource and its storage; again does nothing."""
    if getattr(Record.process_object, "guards_attachments", False):
        return
    process_object, apply_changes = Record.process_object, Record.apply_changes

    @wraps(process_object)
    def guarded_process_object(self, new, old=None):
        registry = self.request.registry
        if not hasattr(registry, "attachment_settings"):
            return process_object(self, new, old)
        ref = RecordRef(self.bucket_id, self.collection_id, str(new.get("id", "")))
        library = registry.attachment_library
        in_library = (
            library is not None and library.holds(ref) and not is_trusted_copy(self.request)
        )
        # Before Kinto compares it with the schema, and after.
        upload = content.prepare(self.request, ref, new, old) if in_library else None
        processed = process_object(self, new, old)
        if upload:
            content.claim(self.request, ref, upload, processed)
            return processed
        check(self.request, ref, processed, old or {})
        return processed

    @wraps(apply_changes)
    def guarded_apply_changes(self, obj, requested_changes):
        # A JSON merge patch is applied in place, down to the attributes of the attachment.
        if isinstance(obj.get(ATTRIBUTE), dict):
            obj = {**obj, ATTRIBUTE: deepcopy(obj[ATTRIBUTE])}
        return apply_changes(self, obj, requested_changes)

    guarded_process_object.guards_attachments = True
    Record.process_object = guarded_process_object
    Record.apply_changes = guarded_apply_changes
