"""What may be written in the media library, by whichever door.

Its records say what their files are, so the server alone writes that: an object is made of an
upload, and describes it for as long as it lives. What a write leaves out of it stays.
"""

import json
import time
from dataclasses import replace
from typing import Any

from kinto.core.storage import Filter
from kinto.core.utils import COMPARISON
from pyramid.request import Request

from ..attachments.record_model import Write
from ..attachments.records import location_of, read_record, undo_by_hand
from ..errors import FieldRefused, MetadataForged
from ..files.blob import ATTRIBUTE
from ..files.ref import RecordRef
from ..http.requests import owner_of
from ..rows.uploads import Unclaimed
from ..transactions.request import files_of
from .schema import FACTS, REQUIRED, check


def prepare(
    request: Request, ref: RecordRef, new: dict[str, Any], old: dict[str, Any] | None
) -> Unclaimed | None:
    """Judge an object of the library that is about to be stored, and complete what it leaves out.

    :returns: the upload that it is made of, for :func:`claim`, if it is a new one.
    :raises FieldRefused: it says something else of its file than is true, or there is no file.
    """
    upload = None
    if old:
        _complete(new, old)
    elif files_of(request).expects(ref, new.get(ATTRIBUTE)):
        _check_id(request, ref)  # it comes together with its file, from the server itself
    else:
        upload = _find(request, ref)
        _complete_from(new, upload)
    check(new)
    return upload


def _complete(new: dict[str, Any], old: dict[str, Any]) -> None:
    for name in (*FACTS, ATTRIBUTE):
        if name in old:
            new.setdefault(name, old[name])
        if name is not ATTRIBUTE and not is_same(new.get(name), old.get(name)):
            raise FieldRefused("is what the file is, and stays", name)
    if new.get(ATTRIBUTE) is None and old.get(ATTRIBUTE) is not None:
        raise FieldRefused("stays as long as its object: delete that", ATTRIBUTE)


def _check_id(request: Request, ref: RecordRef) -> None:
    """An id is given once: what has it may be kept in caches for ever.

    :raises FieldRefused: another object had it, or an upload waits to become one.
    """
    only = [Filter("id", ref.record, COMPARISON.EQ)]
    had = request.registry.storage.list_all(
        "record", ref.collection_uri, filters=only, include_deleted=True
    )
    if had or request.registry.attachment_unclaimed.get(ref.record):
        raise FieldRefused("another file had it, or waits for it", "id")


def _complete_from(new: dict[str, Any], upload: Unclaimed) -> None:
    for name in FACTS:
        if name in new and not is_same(new[name], upload.facts[name]):
            reason = f"of this upload it is {upload.facts[name]!r}, not {str(new[name])[:100]!r}"
            raise FieldRefused(reason, name)
    if not is_same(new.get(ATTRIBUTE, upload.attachment), upload.attachment):
        raise MetadataForged()
    # What is required has to be said.
    optional = {name: upload.facts[name] for name in FACTS if name not in REQUIRED}
    for name, value in {**upload.defaults, **optional, ATTRIBUTE: upload.attachment}.items():
        new.setdefault(name, value)


def _find(request: Request, ref: RecordRef) -> Unclaimed:
    registry = request.registry
    upload = registry.attachment_unclaimed.get(ref.record)
    links = registry.attachment_links.of(upload.ref) if upload else []
    if not links or upload.owner != owner_of(request) or _has_expired(request, upload):
        raise FieldRefused("no upload of yours has it, or it was claimed, or has expired", "id")
    # Files may have got another URL since.
    policy = registry.attachment_settings.policy(ref.bucket, ref.collection)
    location = location_of(request, ref, links[0].key, policy)
    return replace(upload, attachment={**upload.attachment, "location": location})


def claim(request: Request, ref: RecordRef, upload: Unclaimed, new: dict[str, Any]) -> None:
    """The upload becomes the file of the record that is about to be written.

    :param new: the record.
    :raises FieldRefused: it just became another's. Nothing was written by then: in a batch, it
        would stay.
    """
    uploads, links = request.registry.attachment_unclaimed, request.registry.attachment_links
    files = files_of(request)
    undo_by_hand(request, Write(ref, old=read_record(request, ref), new=dict(new)))
    before = links.of(upload.ref)
    if not (before and uploads.take(upload)):
        raise FieldRefused("somebody else has just claimed it", "id")
    files.undo(lambda: uploads.add(upload))
    files.move(before[0], replace(before[0], ref=ref))


def _has_expired(request: Request, upload: Unclaimed) -> bool:
    ttl = request.registry.attachment_settings["library.unclaimed_ttl"]
    return upload.modified / 1000 + ttl < time.time()


def is_same(one: Any, other: Any) -> bool:
    """As JSON: to Python, 1 and true are equal."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
