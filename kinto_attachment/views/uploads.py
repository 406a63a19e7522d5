"""The third door, step one: a file comes, from a form or from Unsplash, and gets an id."""

from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

from kinto.core import Service
from kinto.core.authorization import DYNAMIC
from pyramid import httpexceptions
from pyramid.request import Request

from .. import records
from ..blob import RecordRef
from ..errors import BodyTooLarge, FieldRefused, NotInBatch, RemoteFailed, TooLarge
from ..forms import Form, Received
from ..library import FILE, IMAGE, UNSPLASH
from ..owner import owner_of
from ..policy import Policy
from ..retry import allow_retry
from ..storing import Stored, receive_form, store
from ..transaction import files_of, is_in_batch, restart
from ..unclaimed import Unclaimed
from .library_context import UploadContext, library_of
from .media_request import flag, read_flag
from .schemas import ERRORS, EXPOSED_HEADERS, RefusedSchema, UploadedSchema

STORED = "attachment.uploaded"
"""In ``bound_data``: what is left of the body, for when the request is tried again."""

PHOTO = ".jpg"
"""What Unsplash has."""

unsplash = Service(
    name="unsplash",
    path="/unsplash/{id}",
    description="A photo of Unsplash for the media library",
    factory=UploadContext,
    cors_headers=EXPOSED_HEADERS,
)

_IMPORT: dict[str, Any] = {
    "permission": DYNAMIC,
    "tags": ["Media library"],
    "response_schemas": {
        "201": UploadedSchema(description="It is there, and waits for a description."),
        "429": RefusedSchema(description="Unsplash was asked too often."),
        "502": RefusedSchema(description="Unsplash does not answer as it should."),
        "504": RefusedSchema(description="Unsplash does not answer in time."),
        **ERRORS,
    },
}


@dataclass(frozen=True)
class Upload:
    """A file that is stored, and what is to become of it.

    :param save: whether to make it an object at once.
    :param defaults: what that says, if nobody says otherwise.
    """

    stored: Stored
    save: bool
    defaults: dict[str, Any] = field(default_factory=dict)


def upload(request: Request) -> dict[str, Any]:
    """``POST /media`` with a form: field ``file``, and ``type`` and ``save`` if one likes."""
    if is_in_batch(request):
        raise NotInBatch()
    return _keep(request, request.bound_data.get(STORED) or _receive(request))


@unsplash.get(operation_id="import_photo", **_IMPORT)
@unsplash.post(operation_id="import_photo_by_post", **_IMPORT)
def import_photo(request: Request) -> dict[str, Any]:
    """Copy a photo of Unsplash to the library, with what is known of its author."""
    if is_in_batch(request):
        raise NotInBatch()
    if request.method == "HEAD":
        raise httpexceptions.HTTPMethodNotAllowed()
    return _keep(request, request.bound_data.get(STORED) or _import(request))


def _receive(request: Request) -> Upload:
    policy = _policy(request)
    fields = {"text_fields": ("type", "save"), "file_field": "file"}
    try:
        form = receive_form(request, request.context.body, policy, **fields)
    except TooLarge as error:
        raise BodyTooLarge(error.size, error.limit) from error
    with closing(form.file):
        save = read_flag(form.fields.get("save", "no"), "save", "body")
        _check_type(form)
        stored = _store(request, form.file, policy)
    return _remember(request, Upload(stored, save))


def _import(request: Request) -> Upload:
    registry = request.registry
    client, save = registry.attachment_unsplash, flag(request, "save", False)
    policy = _policy(request)
    policy.check_extension(PHOTO)
    request.context.body.close()
    restart(request)  # no connection to the database is held while bytes move
    photo = client.photo(request.matchdict["id"])
    with registry.attachment_storage.spool() as file:
        try:
            fetched = client.download(photo, file)
        except TooLarge as error:
            raise BodyTooLarge(error.size, error.limit) from error
        if policy.max_size and fetched.digest.size > policy.max_size:
            raise BodyTooLarge(fetched.digest.size, policy.max_size)
        received = Received(file, f"{photo.id}{PHOTO}", fetched.mimetype, fetched.digest)
        if received.picture is None:
            raise RemoteFailed("what Unsplash sent is no image")
        stored = _store(request, received, policy, UNSPLASH, photo.id)
    defaults = {"title": f"Photo by {photo.author} on Unsplash", "alt": photo.alt}
    named = {name: text for name, text in defaults.items() if text}
    return _remember(request, Upload(stored, save, named))


def _check_type(form: Form) -> None:
    """
    :raises FieldRefused: the form says something else of the file than its bytes do.
    """
    said = form.fields.get("type")
    if said not in (None, IMAGE, FILE):
        raise FieldRefused(f"{said[:100]!r} is neither {IMAGE!r} nor {FILE!r}", "type")
    picture = form.file.picture
    if said == IMAGE and picture is None:
        raise FieldRefused("the file is no image", "type")
    if said == FILE and picture:
        raise FieldRefused(f"the file is an image, of type {picture.mimetype}", "type")


def _policy(request: Request) -> Policy:
    library = library_of(request)
    return request.registry.attachment_settings.policy(library.bucket, library.collection)


def _store(request: Request, received: Received, policy: Policy, *origin: str) -> Stored:
    return store(request, _new_ref(request), received, policy, *origin)


def _new_ref(request: Request) -> RecordRef:
    """The record that may be made of it."""
    generators = request.registry.id_generators
    return library_of(request).ref(generators.get("record", generators[""])())


def _remember(request: Request, uploaded: Upload) -> Upload:
    request.bound_data[STORED] = uploaded
    allow_retry(request)
    return uploaded


def _keep(request: Request, uploaded: Upload) -> dict[str, Any]:
    """Write it down: as a record, or as one that waits to be claimed."""
    stored, defaults = uploaded.stored, uploaded.defaults
    ref, facts = stored.link.ref, stored.facts
    if uploaded.save:
        records.attach(
            request,
            stored.link,
            stored.attachment,
            data={**defaults, **facts},
            permissions=None,
            exists=False,
            keep_old=False,
        )
        request.response.headers["Location"] = request.route_url("content-object", id=ref.record)
    else:
        waiting = Unclaimed(
            ref.record, owner_of(request), facts, stored.attachment.to_json(), defaults
        )
        uploads, files = request.registry.attachment_unclaimed, files_of(request)
        uploads.add(waiting)
        files.undo(lambda: uploads.take(waiting))
        files.link(replace(stored.link, ref=waiting.ref), keep_old=False, shown=lambda: None)
    request.response.status = 201
    return facts
