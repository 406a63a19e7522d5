"""The first half of an upload: a form is received, and its files become blobs."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, BinaryIO

from pyramid.request import Request

from ..errors import TooLarge, TooManyFiles
from ..files.blob import Attachment, Source
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
from ..transactions.streaming import MEMORY_BYTES, Destination, StreamedFile, can_stream
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


class Incoming:
    """The files of one request, while they are received.

    On S3 and Google Cloud Storage, a file is sent on to the storage while it arrives, unless its
    key needs its hash. All others are received in a spool.

    :param place_of: returns the place of a file.
    :param length: the most bytes of all files together; None if that is not known.
    :ivar places: the place of each file, in the order in which they arrive.
    """

    def __init__(
        self,
        request: Request,
        place_of: Callable[[Received], FieldRef],
        length: int | None = None,
    ):
        self._request = request
        self._place_of = place_of
        self._length = length or 0
        self._streamed: list[StreamedFile] = []
        self.places: list[FieldRef] = []

    def open(self, received: Received) -> BinaryIO:
        """Return the file to receive the next file into.

        :raises StorageUnavailable: if the storage cannot be reached, or a spool not be created.
        """
        self._finish_others()
        place = self._place_of(received)
        self.places.append(place)
        storage = plugin_of(self._request).storage
        template = policy_at(self._request, place).template
        if is_in_batch(self._request) or not can_stream(storage, template, self._length):
            return storage.spool()
        timed = partial(storage_time, self._request)
        destination = partial(self._destination, place, received)
        self._streamed.append(file_transaction(self._request).open_stream(destination, timed))
        return self._streamed[-1]

    def renew(self) -> None:
        """Keep the keys of the files from ``gc`` and other uploads. To be called whenever bytes
        have arrived."""
        if self._streamed:
            file_transaction(self._request).renew()

    def _finish_others(self) -> None:
        """Store files that have arrived, so that the memory of one form is that of one file."""
        for file in self._streamed:
            file.flush()
        if sum(file.bytes_in_memory for file in self._streamed) > MEMORY_BYTES:
            for file in self._streamed:
                file.move()

    def _destination(self, place: FieldRef, received: Received) -> Destination:
        """Return where a file goes, of which the first bytes have arrived."""
        source = _source(self._request, place, received)
        template = policy_at(self._request, place).template
        return Destination(template.keys(place, source.filename, ""), source.label, template)


def receive_form(
    request: Request,
    body: RequestBody,
    files: dict[str, FileField],
    incoming: Incoming,
    **options: Any,
) -> Form:
    """Read the form that is the body of the request. The caller closes its files. Except in a
    batch, no database connection is held meanwhile.

    :param files: the fields with files, by the names of the parts that they may come in.
    :param incoming: takes the files.
    :param options: arguments of :class:`~kinto_attachment.http.forms.FormReader`.
    :raises TooLarge: if the files are over the limit, before a byte is read where that is certain.
    :raises StorageUnavailable: if the storage cannot be reached.
    :raises Refused: of another kind, for each way in which a form can be wrong.
    """
    boundary = read_boundary(request.headers.get("Content-Type", ""))
    limits = [field.most * field.max_size for field in {*files.values()}]
    # In base64, with line breaks, a file is 1.37 times as long.
    if all(limits) and (body.length or 0) - MAX_OVERHEAD_BYTES > 1.4 * sum(limits):
        raise TooLarge(body.length, sum(limits))
    if not is_in_batch(request):
        release_connection(request)
    reader = FormReader(incoming.open, files, on_chunk=incoming.renew, **options)
    try:
        return reader.read(body, boundary)
    finally:
        body.close()


def _source(request: Request, place: FieldRef, received: Received) -> Source:
    """Return a file with the media type that the rules of its place determine. Its first bytes
    suffice. Once it is on its way to the storage, the type is settled.

    :raises ContentRefused: if the bytes contradict their type.
    """
    file, digest = received.file, received.digest
    if isinstance(file, StreamedFile) and file.label:
        known = asdict(file.label)
        return Source(file=file, size=digest.size, digest=digest.hexdigest(), **known)
    policy, rules = policy_at(request, place), rules_for(request, place.record)
    declared = rules.declared_type(received)
    source = policy.source(file, received.filename, declared, digest)
    return rules.accept(source, received)


def store(request: Request, place: FieldRef, received: Received) -> Stored:
    """Make the bytes durable under a key, unless they are already.

    :param place: where they go.
    :raises ContentRefused: if the bytes contradict their type.
    :raises StorageUnavailable: if the storage cannot be reached.
    """
    template, rules = policy_at(request, place).template, rules_for(request, place.record)
    source = _source(request, place, received)
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
    incoming = Incoming(request, place_of, context.body.length)
    with closing(receive_form(request, context.body, parts, incoming, **options)) as form:
        data, permissions = form.json_object("data"), form.json_object("permissions")
        files = list(zip(incoming.places, form.files, strict=True))
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
