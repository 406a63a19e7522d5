"""The rules of the media library: an object always describes its file.

An object is made from an upload, and describes the file of that upload for as long as it exists.
Only the server determines what an object says about its file. A client may send these attributes if
they are right, or leave them out; the server then fills them in.
"""

from dataclasses import replace
from typing import Any

from kinto.core.storage import Filter
from kinto.core.utils import COMPARISON
from pyramid.request import Request

from ..attachments.records import is_same, location_of, read_record, undo_by_hand
from ..attachments.rules import CollectionRules
from ..attachments.writes.record_model import Write
from ..errors import FieldRefused, FilenameRefused, MetadataForged
from ..files.blob import Source
from ..files.filename import accept_filename, extension_of
from ..files.mimetype import DEFAULT_MIMETYPE, SNIFF_BYTES, contradicts
from ..files.ref import ATTRIBUTE, FieldRef, RecordRef
from ..http.forms import Received
from ..images.formats.header import read_header
from ..plugin import plugin_of
from ..rows.uploads import Unclaimed
from ..transactions.request import file_transaction
from .collection import Library
from .context import own_upload
from .schema import FACTS, FILE_NAME, REQUIRED, check_object, facts_of


class LibraryRules(CollectionRules):
    """The rules of the media library's collection.

    :param library: the collection.
    """

    def __init__(self, library: Library):
        self._library = library

    def applies_to(self, ref: RecordRef) -> bool:
        """Return whether the record is an object of the library."""
        return self._library.holds(ref)

    def declared_type(self, received: Received) -> str | None:
        """Return the media type that the bytes of an image have, whatever the client says."""
        header = read_header(received.file)
        return header.mimetype if header else received.declared_type

    def accept(self, source: Source, received: Received) -> Source:
        """Return the source. If it is declared as an image but its bytes contradict that, its media
        type becomes the default one."""
        if source.mimetype.startswith("image/") and read_header(received.file) is None:
            source.file.seek(0)
            if contradicts(source.mimetype, source.file.read(SNIFF_BYTES)):
                return replace(source, mimetype=DEFAULT_MIMETYPE)
        return source

    def facts(self, ref: RecordRef, source: Source, received: Received) -> dict[str, Any]:
        """Return what the object says about its file; see :func:`facts_of`."""
        header = read_header(received.file)
        return facts_of(ref.record, source.filename, source.mimetype, source.size, header)

    def check_removable(self, ref: RecordRef) -> None:
        """Refuse, because an object keeps its file for as long as it exists.

        :raises FieldRefused: always.
        """
        reason = f"{ATTRIBUTE} cannot be replaced or removed: create another object"
        raise FieldRefused(reason, ATTRIBUTE)

    def before_write(
        self, request: Request, ref: RecordRef, new: dict[str, Any], old: dict[str, Any] | None
    ) -> Unclaimed | None:
        """Check an object, and fill in what it leaves out about its file.

        :returns: the upload that a new object is made from; None if the object exists already, or
            if the server writes it together with its file.
        :raises FieldRefused: if the object says something wrong about its file, or if there is no
            upload for it.
        :raises MetadataForged: if the object has another attachment than the upload.
        """
        upload = None
        if old:
            _complete(new, old)
        elif file_transaction(request).expects(FieldRef(ref), new.get(ATTRIBUTE)):
            _check_id(request, ref)  # the server writes the object together with its file
        else:
            upload = _find(request, ref)
            _complete_from(new, upload)
        check_object(new)
        return upload

    def after_write(
        self, request: Request, ref: RecordRef, prepared: Unclaimed, new: dict[str, Any]
    ) -> None:
        """Give the file of the upload to the object.

        This must happen before Kinto stores the object: if it failed afterwards, a batch would
        still commit the object, without its file.

        :raises FieldRefused: if another request has just taken the upload.
        """
        rows, files = plugin_of(request).rows, file_transaction(request)
        before = rows.links.of(prepared.ref)
        if not (before and rows.unclaimed.take(prepared)):
            raise FieldRefused("another request has just claimed this upload", "id")
        # Not before: the other request may have written the object by now.
        undo_by_hand(request, Write(ref, old=read_record(request, ref), new=dict(new)))
        files.undo(lambda: rows.unclaimed.add(prepared))
        files.move(before[0], replace(before[0], ref=FieldRef(ref)))


def _complete(new: dict[str, Any], old: dict[str, Any]) -> None:
    """Fill in what a changed object leaves out about its file. Its name may have changed.

    :raises FieldRefused: if it says anything else about its file than before.
    """
    for name in (*FACTS, ATTRIBUTE):
        if name in old:
            new.setdefault(name, old[name])
        before = old.get(name)
        if name == FILE_NAME and isinstance(before, str) and isinstance(new.get(name), str):
            new[name] = _accept_name(new[name], before)
        elif name is not ATTRIBUTE and not is_same(new.get(name), before):
            raise FieldRefused(f"{name} describes the file itself and cannot be changed", name)
    if new.get(ATTRIBUTE) is None and old.get(ATTRIBUTE) is not None:
        raise FieldRefused(f"{ATTRIBUTE} cannot be removed: delete the object", ATTRIBUTE)


def _accept_name(name: str, old: str) -> str:
    """Return the new name of a file.

    :raises FilenameRefused: if it is malformed.
    :raises FieldRefused: if it has another extension than the old one.
    """
    try:
        accepted = accept_filename(name)
    except FilenameRefused as error:
        raise FilenameRefused(error.reason, FILE_NAME) from error
    extension = extension_of(old)
    if extension_of(accepted) != extension:
        ending = f"end with .{extension}" if extension else "have no extension"
        raise FieldRefused(f"{FILE_NAME} must {ending}, as it did before", FILE_NAME)
    return accepted


def _check_id(request: Request, ref: RecordRef) -> None:
    """Refuse an id that was used before, because caches may keep the file of that id for ever.

    :raises FieldRefused: if an object has or had the id, or if an unclaimed upload has it.
    """
    only = [Filter("id", ref.record, COMPARISON.EQ)]
    used = request.registry.storage.list_all(
        "record", ref.collection_uri, filters=only, include_deleted=True
    )
    if used or plugin_of(request).rows.unclaimed.has(ref.record):
        raise FieldRefused("this id is, or was, that of another file: choose another one", "id")


def _complete_from(new: dict[str, Any], upload: Unclaimed) -> None:
    """Fill in what a new object leaves out about its file.

    :raises FieldRefused: if it says something else about its file than the upload.
    :raises MetadataForged: if it has another attachment than the upload.
    """
    for name in FACTS:
        fact = upload.facts.get(name)
        if name in new and not is_same(new[name], fact):
            given = str(new[name])[:100]
            reason = f"{name} of this upload is {fact!r}, not {given!r}"
            raise FieldRefused(reason, name)
    if not is_same(new.get(ATTRIBUTE, upload.attachment), upload.attachment):
        raise MetadataForged()
    # Required attributes are not filled in: the client has to send them.
    optional = {
        name: upload.facts[name] for name in FACTS if name not in REQUIRED and name in upload.facts
    }
    for name, value in {**upload.defaults, **optional, ATTRIBUTE: upload.attachment}.items():
        new.setdefault(name, value)


def _find(request: Request, ref: RecordRef) -> Unclaimed:
    """Return the upload that the client wants to make an object of.

    :raises FieldRefused: if the client has no unclaimed upload of this id.
    """
    plugin = plugin_of(request)
    upload = own_upload(request, ref.record)
    links = plugin.rows.links.of(upload.ref) if upload else []
    if not links:
        reason = "you have no unclaimed upload of this id, or it has expired: upload the file first"
        raise FieldRefused(reason, "id")
    # The settings that determine the location may have changed since the upload.
    location = location_of(request, FieldRef(ref), links[0].key)
    return replace(upload, attachment={**upload.attachment, "location": location})
