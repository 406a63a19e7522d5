"""Receiving a part, where the storage cannot receive it itself."""

from contextlib import closing

from pyramid.request import Request

from ...errors import FieldRefused, MalformedForm, SignatureRefused, UploadFinished
from ...files.blob import Digest, Source
from ...files.mimetype import DEFAULT_MIMETYPE
from ...files.ref import read_ref
from ...http.requests import RequestBody, spooling
from ...plugin import Plugin, plugin_of
from ...rows.uploads import DirectUpload, Part, State
from ...transactions.request import file_transaction, release_connection
from .urls import check_signature, label_of
from .whole import new_staged_key, new_whole_key

MAX_SENT = 20
"""How often a part may be sent: each time it takes the room of another part."""


def receive_part(request: Request, body: RequestBody) -> Part:
    """Receive the body of the request as a part, and write the part down.

    :raises SignatureRefused: if the URL is not valid.
    :raises UploadFinished: if the upload takes no more bytes.
    :raises FieldRefused: if the body has another size than the part.
    :raises MalformedForm: if it breaks off.
    :raises StorageUnavailable: if the part cannot be stored.
    """
    plugin, files = plugin_of(request), file_transaction(request)
    rows = plugin.rows.direct
    number = int(request.matchdict["number"])
    upload = check_signature(request, rows.get(request.matchdict["upload"]), number)
    if number > upload.count or upload.parts:
        raise SignatureRefused()
    sent = [part for part in rows.parts(upload.id) if part.number == number]
    if upload.state is not State.OPEN or len(sent) >= MAX_SENT:
        raise UploadFinished()
    size = upload.span(number)[1]
    if body.length not in (None, size):
        raise _wrong_size(size, body.length)
    release_connection(request)
    try:
        part = _store(request, plugin, upload, number, body)
    finally:
        body.close()

    def claim() -> None:
        current = rows.get(upload.id)
        if current is None or current.state is not State.OPEN:
            raise UploadFinished()
        rows.add_part(part)

    files.give(part.key, claim)
    return part


def _store(
    request: Request,
    plugin: Plugin,
    upload: DirectUpload,
    number: int,
    body: RequestBody,
) -> Part:
    """Store the body under a new key. That of a file in one part is one that the file can keep,
    because no URL changes what is stored there."""
    size, digest = upload.span(number)[1], Digest()
    with closing(plugin.storage.spool()) as spool:
        while chunk := body.read():
            digest.update(chunk)
            if digest.size > size:
                raise _wrong_size(size, digest.size)
            with spooling():
                spool.write(chunk)
        if digest.size < size:
            reason = f"The body ended after {digest.size} of {size} bytes."
            raise MalformedForm(reason, "body")
        with spooling():
            spool.flush()
        found = digest.hexdigest()
        if upload.count == 1 and upload.place:
            label = label_of(plugin, upload)
            template = plugin.settings.policy_of(read_ref(upload.place)).template
            key = new_whole_key(plugin, upload)
            source = Source(
                spool,
                label.filename,
                label.mimetype,
                size,
                found,
                immutable=label.immutable,
                private=label.private,
            )
        else:
            template = plugin.settings.staged.template
            key = new_staged_key(plugin, upload)
            source = Source(spool, "part", DEFAULT_MIMETYPE, size, found, private=True)
        key = file_transaction(request).put([key], source, template)
    return Part(upload.id, number, key, size, found)


def _wrong_size(size: int, found: int | None) -> FieldRefused:
    return FieldRefused(f"the body must have {size} bytes, not {found}", "Content-Length", "header")
