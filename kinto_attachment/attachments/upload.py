"""A file is received, and becomes a blob, with what its record will say of it."""

from dataclasses import dataclass, field, replace
from typing import Any

from pyramid.request import Request

from ..errors import TooLarge
from ..files.blob import Attachment, Source
from ..files.mimetype import DEFAULT_MIMETYPE, HEAD, contradicts
from ..files.ref import RecordRef
from ..http.forms import MAX_OVERHEAD, Form, FormReader, Received, read_boundary
from ..http.requests import Body
from ..images.formats.header import Picture
from ..library.schema import DISK, facts_of
from ..rows.links import Link
from ..settings.policy import Policy
from ..transactions.request import files_of, is_in_batch, restart
from .records import location_of


@dataclass(frozen=True)
class Stored:
    """
    :param link: by which the record, or an upload, has the blob.
    :param attachment: the value of the attribute.
    :param facts: what a ``_media`` object says besides; of other records nothing.
    """

    link: Link
    attachment: Attachment
    facts: dict[str, Any] = field(default_factory=dict)


def receive_form(request: Request, body: Body, policy: Policy, **fields: Any) -> Form:
    """The form that is the body of the request, off the wire; whoever receives it closes its file.
    No connection to the database is held while it comes, but in a batch.

    :param fields: what :class:`~kinto_attachment.http.forms.FormReader` is told of them.
    :raises TooLarge: its file is for certain, before a byte of it is read, or turns out to be.
    :raises Refused: of another kind, for each way a form can be wrong.
    """
    boundary = read_boundary(request.headers.get("Content-Type", ""))
    if policy.max_size and (body.length or 0) - MAX_OVERHEAD > policy.max_size:
        raise TooLarge(body.length, policy.max_size)
    if not is_in_batch(request):
        restart(request)
    reader = FormReader(
        request.registry.attachment_storage.spool,
        max_size=policy.max_size,
        check_filename=policy.check_extension,
        **fields,
    )
    try:
        return reader.read(body, boundary)
    finally:
        body.close()


def store(
    request: Request,
    ref: RecordRef,
    received: Received,
    policy: Policy,
    origin: str = DISK,
    external_id: str = "",
) -> Stored:
    """Make the bytes durable under a key.

    :param ref: the record that they are for.
    :param policy: that of its collection.
    :param origin: where they come from, and their id there; only the media library says so.
    :raises ContentRefused: the bytes contradict their type.
    :raises StorageUnavailable:
    """
    registry = request.registry
    library, storage, template = (
        registry.attachment_library,
        registry.attachment_storage,
        policy.template,
    )
    in_library = library is not None and library.holds(ref)
    picture = received.picture if in_library else None
    declared = picture.mimetype if picture else received.declared_type
    source = policy.source(received.file, received.filename, declared, received.digest)
    if in_library:
        source = _judged(source, picture)
    keys = template.keys(ref, source.filename, source.digest)
    if not (storage.exclusive or template.unique or template.shared):
        next(keys)  # the plain name might overwrite another's file
    key = files_of(request).put(keys, source, template)
    location = location_of(request, ref, key, policy)
    filename, mimetype, size = named = (source.filename, source.mimetype, source.size)
    facts = facts_of(ref.record, *named, picture, origin, external_id) if in_library else {}
    return Stored(
        Link(ref, key, source.digest, template.shared, *named),
        Attachment(filename, source.digest, location, mimetype, size),
        facts,
    )


def _judged(source: Source, picture: Picture | None) -> Source:
    """What calls itself an image and begins as none is none."""
    if picture is None and source.mimetype.startswith("image/"):
        source.file.seek(0)
        if contradicts(source.mimetype, source.file.read(HEAD)):
            return replace(source, mimetype=DEFAULT_MIMETYPE)
    return source
