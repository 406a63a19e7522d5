"""The first half of an upload: a form is received, and its file becomes a blob."""

from dataclasses import dataclass, field
from typing import Any

from pyramid.request import Request

from ..errors import TooLarge
from ..files.blob import Attachment
from ..files.ref import RecordRef
from ..http.forms import MAX_OVERHEAD_BYTES, Form, FormReader, Received, read_boundary
from ..http.requests import RequestBody
from ..http.transfers import note_file, storage_time
from ..plugin import plugin_of
from ..rows.links import Link
from ..settings.policy import Policy
from ..transactions.request import file_transaction, is_in_batch, release_connection
from .records import location_of
from .rules import rules_for


@dataclass(frozen=True)
class Stored:
    """A file that is stored, and not yet on a record.

    :param link: gives the blob to the record.
    :param attachment: the value of the attribute.
    :param facts: further attributes that the rules of the collection add.
    """

    link: Link
    attachment: Attachment
    facts: dict[str, Any] = field(default_factory=dict)


def receive_form(request: Request, body: RequestBody, policy: Policy, **fields: Any) -> Form:
    """Read the form that is the body of the request. The caller closes its file. Except in a
    batch, no database connection is held meanwhile.

    :param fields: arguments of :class:`~kinto_attachment.http.forms.FormReader`.
    :raises TooLarge: if the file is over the limit, before a byte is read where that is certain.
    :raises Refused: of another kind, for each way in which a form can be wrong.
    """
    boundary = read_boundary(request.headers.get("Content-Type", ""))
    # In base64, with line breaks, a file is 1.37 times as long.
    if policy.max_size and (body.length or 0) - MAX_OVERHEAD_BYTES > 1.4 * policy.max_size:
        raise TooLarge(body.length, policy.max_size)
    if not is_in_batch(request):
        release_connection(request)
    reader = FormReader(
        plugin_of(request).storage.spool,
        max_size=policy.max_size,
        check_filename=policy.check_extension,
        **fields,
    )
    try:
        return reader.read(body, boundary)
    finally:
        body.close()


def store(request: Request, ref: RecordRef, received: Received, policy: Policy) -> Stored:
    """Make the bytes durable under a key.

    :param ref: the record that they are for.
    :param policy: that of its collection.
    :raises ContentRefused: if the bytes contradict their type.
    :raises StorageUnavailable: if the storage cannot be reached.
    """
    template, rules = policy.template, rules_for(request, ref)
    declared = rules.declared_type(received)
    source = policy.source(received.file, received.filename, declared, received.digest)
    source = rules.accept(source, received)
    keys = template.keys(ref, source.filename, source.digest)
    note_file(request, source.size, source.digest)
    with storage_time(request):
        key = file_transaction(request).put(keys, source, template)
    attachment = Attachment(
        filename=source.filename,
        hash=source.digest,
        location=location_of(request, ref, key, policy),
        mimetype=source.mimetype,
        size=source.size,
    )
    link = Link.of(ref, key, attachment, template.shared)
    return Stored(link, attachment, rules.facts(ref, source, received))
