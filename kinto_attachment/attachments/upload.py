"""The first half of an upload: a form is received, and its files become blobs."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from pyramid.request import Request

from ..errors import TooLarge, TooManyFiles
from ..files.blob import Attachment
from ..files.field import value_at
from ..files.ref import FieldRef
from ..http.forms import MAX_OVERHEAD_BYTES, FileField, Form, FormReader, Received, read_boundary
from ..http.requests import RequestBody
from ..http.transfers import note_file, storage_time
from ..plugin import plugin_of
from ..rows.links import Link
from ..settings.policy import Policy
from ..transactions.request import file_transaction, is_in_batch, release_connection
from ..transactions.retry import allow_retry
from .context import RecordContext
from .fields import policy_at
from .records import Stored, location_of
from .rules import rules_for

STORED = "attachment.stored"
"""With the record and the place in the URL, the key in ``bound_data`` of the :class:`StoredForm`
for a repeated request."""


def file_field(name: str, policy: Policy, most: int = 1) -> FileField:
    """Return what a form may send as a field.

    :param policy: what the settings say about its files.
    :param most: how many files it may have.
    """
    return FileField(name, most, policy.max_size, policy.check_extension)


def receive_form(
    request: Request, body: RequestBody, files: dict[str, FileField], **options: Any
) -> Form:
    """Read the form that is the body of the request. The caller closes its files. Except in a
    batch, no database connection is held meanwhile.

    :param files: the fields with files, by the names of the parts that they may come in.
    :param options: arguments of :class:`~kinto_attachment.http.forms.FormReader`.
    :raises TooLarge: if the files are over the limit, before a byte is read where that is certain.
    :raises Refused: of another kind, for each way in which a form can be wrong.
    """
    boundary = read_boundary(request.headers.get("Content-Type", ""))
    limits = [field.most * field.max_size for field in {*files.values()}]
    # In base64, with line breaks, a file is 1.37 times as long.
    if all(limits) and (body.length or 0) - MAX_OVERHEAD_BYTES > 1.4 * sum(limits):
        raise TooLarge(body.length, sum(limits))
    if not is_in_batch(request):
        release_connection(request)
    reader = FormReader(plugin_of(request).storage.spool, files, **options)
    try:
        return reader.read(body, boundary)
    finally:
        body.close()


def store(request: Request, place: FieldRef, received: Received) -> Stored:
    """Make the bytes durable under a key.

    :param place: where they go.
    :raises ContentRefused: if the bytes contradict their type.
    :raises StorageUnavailable: if the storage cannot be reached.
    """
    policy, rules = policy_at(request, place), rules_for(request, place.record)
    template = policy.template
    declared = rules.declared_type(received)
    source = policy.source(received.file, received.filename, declared, received.digest)
    source = rules.accept(source, received)
    keys = template.keys(place, source.filename, source.digest)
    note_file(request, source.size, source.digest)
    with storage_time(request):
        key = file_transaction(request).put(keys, source, template)
    attachment = Attachment(
        filename=source.filename,
        hash=source.digest,
        location=location_of(request, place, key),
        mimetype=source.mimetype,
        size=source.size,
    )
    link = Link.of(place, key, attachment, template.shared)
    return Stored(link, attachment, rules.facts(place.record, source, received))


@dataclass(frozen=True)
class StoredForm:
    """A form that was read and checked, and whose files are stored.

    :param files: for different places of the record.
    :param data: further attributes of the record; None if there are none.
    :param permissions: the permissions of the record; None if the client sent none.
    """

    files: tuple[Stored, ...]
    data: dict[str, Any] | None
    permissions: dict[str, Any] | None


def receive(
    request: Request,
    context: RecordContext,
    parts: dict[str, FileField],
    place_of: Callable[[Received], FieldRef],
    **options: Any,
) -> StoredForm:
    """Read the form and store its files, and remember the result for a repeated request, which
    finds that they are stored already.

    :param parts: as in :func:`receive_form`, and so are ``options``.
    :param place_of: returns the place of a file.
    """
    key = (STORED, context.ref, context.place)
    if key in request.bound_data:
        return request.bound_data[key]
    with closing(receive_form(request, context.body, parts, **options)) as form:
        data, permissions = form.json_object("data"), form.json_object("permissions")
        files = [(place_of(file), file) for file in form.files]
        return store_form(request, context, files, data, permissions)


def store_form(
    request: Request,
    context: RecordContext,
    files: Sequence[tuple[FieldRef, Received]],
    data: dict[str, Any] | None,
    permissions: dict[str, Any] | None,
) -> StoredForm:
    """Store the files of a form that was read, and remember the result for a repeated request.

    :param files: each with its place.
    :param data: further attributes of the record.
    :param permissions: the permissions of the record.
    :raises TooManyFiles: if there is no room for them on the record.
    """
    places = [place for place, _ in files]
    check_room(request, places, {**(context.current_object or {}), **(data or {})})
    stored = [store(request, place, file) for place, file in files]
    for facts in (each.facts for each in stored if each.facts):
        data = {**(data or {}), **facts}
    form = StoredForm(tuple(stored), data, permissions)
    request.bound_data[STORED, context.ref, context.place] = form
    allow_retry(request)
    return form


def check_room(request: Request, places: list[FieldRef], record: dict[str, Any]) -> None:
    """Check that lists have room for files, before these are stored.

    :param record: what it was before the form was read, with what the form changes.
    :raises TooManyFiles: if there is no room.
    """
    added = Counter(place.field for place in places if value_at(place, record) is None)
    for place in places:
        value = record.get(place.field)
        count = len(value) if isinstance(value, list) else 0
        most = policy_at(request, place).max_files
        if place.entry and added[place.field] and count + added[place.field] > most:
            raise TooManyFiles(place.field, most)
