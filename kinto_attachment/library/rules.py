"""The rules of the media library: an object always describes its file.

The server alone writes what an object says about its file. An object is made from an upload and
describes that file for as long as it lives; what a write leaves out is completed.
"""

import time
from dataclasses import replace
from typing import Any

from kinto.core.storage import Filter
from kinto.core.utils import COMPARISON
from pyramid.request import Request

from ..attachments.record_model import Write
from ..attachments.records import is_same, location_of, read_record, undo_by_hand
from ..attachments.rules import CollectionRules
from ..errors import FieldRefused, MetadataForged
from ..files.blob import ATTRIBUTE, Source
from ..files.mimetype import DEFAULT_MIMETYPE, SNIFF_BYTES, contradicts
from ..files.ref import RecordRef
from ..http.forms import Received
from ..http.requests import owner_of
from ..images.formats.header import read_header
from ..plugin import plugin_of
from ..rows.uploads import Unclaimed
from ..transactions.request import file_transaction
from .collection import Library
from .schema import FACTS, REQUIRED, check_object, facts_of


class LibraryRules(CollectionRules):
    """The rules of the collection that is the media library.

    :param library: the collection.
    """

    def __init__(self, library: Library):
        self._library = library

    def applies_to(self, ref: RecordRef) -> bool:
        return self._library.holds(ref)

    def declared_type(self, received: Received) -> str | None:
        """Return the type of the image that the bytes are, whatever the client calls it."""
        header = read_header(received.file)
        return header.mimetype if header else received.declared_type

    def accept(self, source: Source, received: Received) -> Source:
        """Take the type from a file that is called an image and does not begin like one."""
        if source.mimetype.startswith("image/") and read_header(received.file) is None:
            source.file.seek(0)
            if contradicts(source.mimetype, source.file.read(SNIFF_BYTES)):
                return replace(source, mimetype=DEFAULT_MIMETYPE)
        return source

    def facts(self, ref: RecordRef, source: Source, received: Received) -> dict[str, Any]:
        header = read_header(received.file)
        return facts_of(ref.record, source.filename, source.mimetype, source.size, header)

    def check_removable(self, ref: RecordRef) -> None:
        raise FieldRefused("stays as long as its object: make another object", ATTRIBUTE)

    def before_write(
        self, request: Request, ref: RecordRef, new: dict[str, Any], old: dict[str, Any] | None
    ) -> Unclaimed | None:
        """Check an object and complete what it leaves out.

        :returns: the upload that a new object is made from.
        :raises FieldRefused: if it says something untrue about its file, or if there is no file.
        """
        upload = None
        if old:
            _complete(new, old)
        elif file_transaction(request).expects(ref, new.get(ATTRIBUTE)):
            _check_id(request, ref)  # the server writes it together with its file
        else:
            upload = _find(request, ref)
            _complete_from(new, upload)
        check_object(new)
        return upload

    def after_write(
        self, request: Request, ref: RecordRef, prepared: Unclaimed, new: dict[str, Any]
    ) -> None:
        """Give the file of the upload to the object.

        :raises FieldRefused: if another request has just taken the upload. Nothing is written by
            then; in a batch it would stay.
        """
        rows, files = plugin_of(request).rows, file_transaction(request)
        undo_by_hand(request, Write(ref, old=read_record(request, ref), new=dict(new)))
        before = rows.links.of(prepared.ref)
        if not (before and rows.unclaimed.take(prepared)):
            raise FieldRefused("another request has just claimed it", "id")
        files.undo(lambda: rows.unclaimed.add(prepared))
        files.move(before[0], replace(before[0], ref=ref))


def _complete(new: dict[str, Any], old: dict[str, Any]) -> None:
    for name in (*FACTS, ATTRIBUTE):
        if name in old:
            new.setdefault(name, old[name])
        if name is not ATTRIBUTE and not is_same(new.get(name), old.get(name)):
            raise FieldRefused("describes the file itself and cannot be changed", name)
    if new.get(ATTRIBUTE) is None and old.get(ATTRIBUTE) is not None:
        raise FieldRefused("stays as long as its object: delete that", ATTRIBUTE)


def _check_id(request: Request, ref: RecordRef) -> None:
    """Refuse an id that was used before: caches may keep what had it for ever.

    :raises FieldRefused: if another object had it, or an upload waits to become one.
    """
    only = [Filter("id", ref.record, COMPARISON.EQ)]
    had = request.registry.storage.list_all(
        "record", ref.collection_uri, filters=only, include_deleted=True
    )
    if had or plugin_of(request).rows.unclaimed.get(ref.record):
        raise FieldRefused("another file had it, or waits for it", "id")


def _complete_from(new: dict[str, Any], upload: Unclaimed) -> None:
    for name in FACTS:
        if name in new and not is_same(new[name], upload.facts[name]):
            reason = f"of this upload it is {upload.facts[name]!r}, not {str(new[name])[:100]!r}"
            raise FieldRefused(reason, name)
    if not is_same(new.get(ATTRIBUTE, upload.attachment), upload.attachment):
        raise MetadataForged()
    # The client has to send what is required.
    optional = {name: upload.facts[name] for name in FACTS if name not in REQUIRED}
    for name, value in {**upload.defaults, **optional, ATTRIBUTE: upload.attachment}.items():
        new.setdefault(name, value)


def _find(request: Request, ref: RecordRef) -> Unclaimed:
    plugin = plugin_of(request)
    upload = plugin.rows.unclaimed.get(ref.record)
    links = plugin.rows.links.of(upload.ref) if upload else []
    if not links or upload.owner != owner_of(request) or _has_expired(request, upload):
        raise FieldRefused("no upload of yours has it, or it was claimed, or has expired", "id")
    # The URLs of files may have changed since.
    policy = plugin.settings.policy(ref.bucket, ref.collection)
    location = location_of(request, ref, links[0].key, policy)
    return replace(upload, attachment={**upload.attachment, "location": location})


def _has_expired(request: Request, upload: Unclaimed) -> bool:
    ttl = plugin_of(request).settings["library.unclaimed_ttl"]
    return upload.modified / 1000 + ttl < time.time()
