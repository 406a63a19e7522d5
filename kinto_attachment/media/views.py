"""``/media``, ``/media/{hash}`` and ``/media/stat``.

How uploads are repeated after a conflict is explained in ``attachments/views.py``.
"""

from contextlib import closing
from dataclasses import dataclass
from mimetypes import guess_extension
from typing import Any, BinaryIO

from kinto.core import Service
from kinto.core.authorization import DYNAMIC
from kinto.core.errors import ERRORS as ERRNO
from kinto.core.errors import http_error
from pyramid import httpexceptions
from pyramid.authorization import Everyone
from pyramid.request import Request
from pyramid.response import Response

from ..errors import DigestMismatch, NotADigest, NotInBatch
from ..files.blob import Blob, Digest, is_digest
from ..files.ref import MediaRef
from ..http.downloads import Download, serve
from ..http.openapi.components import EXPOSED_HEADERS
from ..http.requests import flag, receive
from ..http.responses import NoContent
from ..http.transfers import note_file, storage_time
from ..library.context import UploadContext
from ..library.views import upload
from ..plugin import plugin_of
from ..rows.links import Link
from ..rows.uploads import Pending
from ..transactions.request import file_transaction, is_in_batch, release_connection
from ..transactions.retry import allow_retry
from .context import MediaContext, claimed_digest, declared_type, read_question
from .store import MediaStore

STORED = "attachment.media"
"""The key in ``bound_data`` of the :class:`StoredBody` for a repeated request."""


def _context(request: Request) -> MediaContext | UploadContext:
    """Return the context of the media library for a form, if there is a library, and that of the
    media store for all other requests."""
    return UploadContext(request) if _is_for_library(request) else MediaContext(request)


def _is_for_library(request: Request) -> bool:
    is_form = request.headers.get("Content-Type", "").lower().startswith("multipart/")
    is_post = request.method == "POST" and "hash" not in request.matchdict
    return is_form and is_post and request.registry.attachment_library is not None


def door_of(request: Request) -> str:
    """Return the door that a request to one of these routes comes through."""
    return "library" if _is_for_library(request) else "media"


media = Service(
    name="media",
    path="/media",
    description="The media store",
    factory=_context,
    cors_headers=EXPOSED_HEADERS,
)
# This service must come before the next one, whose path would match ``stat`` as a hash.
media_stat = Service(
    name="media-stat",
    path="/media/stat",
    description="Which hashes exist",
    factory=MediaContext,
    cors_headers=EXPOSED_HEADERS,
)
medium = Service(
    name="medium",
    path="/media/{hash}",
    description="The bytes of a hash",
    factory=MediaContext,
    cors_headers=EXPOSED_HEADERS,
)
SERVICES = (media, media_stat, medium)


@dataclass(frozen=True)
class StoredBody:
    """A body that was read and stored.

    :param ref: the owner and the hash.
    :param mimetype: the media type.
    :param size: the size in bytes.
    :param key: the key of the bytes, if the hash was verified on arrival.
    :param pending: the upload, if the hash is to be verified later.
    """

    ref: MediaRef
    mimetype: str
    size: int
    key: str = ""
    pending: Pending | None = None


@media.post(permission=DYNAMIC)
@medium.post(permission=DYNAMIC)
@medium.put(permission=DYNAMIC)
def store(request: Request) -> Response | dict[str, Any]:
    """Store the body and return its SHA-256. A form is stored in the media library, if there is
    one, and the response is what its object will say about the file."""
    if isinstance(request.context, UploadContext):
        return upload(request)
    if is_in_batch(request):
        raise NotInBatch()
    store: MediaStore = request.registry.attachment_media
    # A repeated request finds that its bytes are stored already.
    stored = request.bound_data.get(STORED) or _receive(request, store)
    if stored.pending:
        plugin_of(request).rows.pending.add(stored.pending)
        status = 202
        request.add_finished_callback(_verify_soon)
    else:
        status = 201 if keep_entry(request, stored) else 200
    return _answer(request, status, stored)


@medium.get(permission=DYNAMIC)
def get(request: Request) -> Response:
    """Serve the bytes of this hash, whole or in ranges."""
    if is_in_batch(request):
        raise NotInBatch()
    link = _find(request)
    release_connection(request)
    blob = Blob(link.key, link.digest, _size(request, link), link.mimetype)
    extension = guess_extension(link.mimetype) or ""
    cache_control = f"{_audience(request)}, max-age=31536000, immutable"
    seconds = link.modified // 1000
    return serve(request, Download(blob, f"{link.digest}{extension}", seconds, cache_control))


@medium.delete(permission=DYNAMIC)
def delete(request: Request) -> Response:
    """Delete the user's entry. ``gc`` deletes the bytes once no owner has an entry."""
    digest = request.matchdict["hash"].lower()
    store: MediaStore = request.registry.attachment_media
    allow_retry(request)
    ref = MediaRef(request.context.owner, digest)
    if not is_digest(digest) or not store.drop(file_transaction(request), ref):
        raise _not_found(request)
    return NoContent()


@media_stat.post(permission=DYNAMIC)
def stat(request: Request) -> dict[str, Any]:
    """Return which of up to 1000 hashes the user can download. The body is a JSON list of hashes,
    or ``{"hashes": [...]}``."""
    release_connection(request)
    digests = read_question(request, request.context.body)
    context, store = request.context, request.registry.attachment_media
    found = store.stat(context.owner, digests, context.reads_all)
    return {
        "present": [digest for digest in digests if digest in found],
        "missing": [digest for digest in digests if digest not in found],
    }


def _receive(request: Request, store: MediaStore) -> StoredBody:
    """Read the body, store its bytes, and remember the result for a repeated request."""
    context = request.context
    claimed, verified = claimed_digest(request), flag(request, "verify", True)
    plugin = plugin_of(request)
    policy = plugin.settings.media if verified else plugin.settings.pending
    if claimed is None and not verified:
        reason = "verify=false needs a hash, in the URL, in Content-Digest or in Repr-Digest."
        raise NotADigest(reason, "verify", "querystring")
    declared = declared_type(request)
    release_connection(request)
    try:
        file, digest = receive(context.body, plugin.storage.spool, policy.max_size, verified)
    finally:
        context.body.close()
    with closing(file):
        found = digest.hexdigest()
        if claimed and found and claimed.digest != found:
            raise DigestMismatch(claimed.digest, found, claimed.field, claimed.location)
        if verified:
            return store_file(request, file, declared, digest)
        ref = MediaRef(context.owner, claimed.digest)
        source = policy.source(file, ref.digest, declared, digest)
        with storage_time(request):
            pending = store.store_pending(file_transaction(request), ref, source)
    return _remember(request, StoredBody(ref, source.mimetype, source.size, pending=pending))


def store_file(
    request: Request, file: BinaryIO, declared: str | None, digest: Digest
) -> StoredBody:
    """Store a file whose hash is known, and remember the result for a repeated request.

    :param declared: the media type that the client sent, if any.
    """
    store: MediaStore = request.registry.attachment_media
    ref = MediaRef(request.context.owner, digest.hexdigest())
    policy = plugin_of(request).settings.media
    source = policy.source(file, ref.digest, declared, digest)
    with storage_time(request):
        key = store.store(file_transaction(request), source)
    return _remember(request, StoredBody(ref, source.mimetype, source.size, key))


def _remember(request: Request, stored: StoredBody) -> StoredBody:
    note_file(request, stored.size, stored.ref.digest)
    request.bound_data[STORED] = stored
    allow_retry(request)
    return stored


def keep_entry(request: Request, stored: StoredBody) -> bool:
    """Give the user an entry for a stored file, and return whether there was none before."""
    store: MediaStore = request.registry.attachment_media
    files = file_transaction(request)
    return store.keep(files, stored.ref, stored.key, stored.mimetype, stored.size)


def _verify_soon(request: Request) -> None:
    """Wake the thread that verifies. A finished callback runs after the row is committed."""
    request.registry.attachment_media.background.wake()


def _answer(request: Request, status: int, stored: StoredBody) -> Response:
    digest = stored.ref.digest
    location = request.route_url("medium", hash=digest)
    response = answer_with(request, status, describe(request, stored))
    response.headers["Location"] = location
    if stored.pending is None:
        response.headers["ETag"] = f'"{digest}"'
    return response


def describe(request: Request, stored: StoredBody) -> dict[str, Any]:
    """Return what JSON says about a body that was stored."""
    return {
        "hash": stored.ref.digest,
        "size": stored.size,
        "mimetype": stored.mimetype,
        "verified": stored.pending is None,
        "location": request.route_url("medium", hash=stored.ref.digest),
    }


def answer_with(request: Request, status: int, description: dict[str, Any]) -> Response:
    """Return a response with a description, or with the hash alone, whichever the client prefers.

    :param description: as :func:`describe` returns it.
    """
    if request.accept.best_match(["text/plain", "application/json"]) == "application/json":
        response = Response(json=description, status=status)
    else:
        digest = description["hash"]
        response = Response(digest, status=status, content_type="text/plain", charset="utf-8")
    response.vary = ["Accept"]
    return response


def _find(request: Request) -> Link:
    """Return an entry of this hash that the user may read: their own, or that of another owner.

    :raises HTTPNotFound: if there is no such entry. The response is the same whether or not there
        are entries that the user may not read.
    """
    digest, store = request.matchdict["hash"].lower(), request.registry.attachment_media
    context = request.context
    if not is_digest(digest):
        raise _not_found(request)
    own = store.find(MediaRef(context.owner, digest))
    found = own or (store.find_any(digest) if context.reads_all else None)
    if found is None:
        raise _not_found(request)
    return found


def _size(request: Request, link: Link) -> int:
    """Return the size of an entry in bytes. The storage tells it if the row does not.

    :raises BlobNotFound: if the storage does not have the blob.
    :raises StorageUnavailable: if the storage cannot be reached.
    """
    if link.size is not None:
        return link.size
    with storage_time(request):
        return plugin_of(request).storage.stat(link.key).size


def _not_found(request: Request) -> httpexceptions.HTTPNotFound:
    return http_error(
        httpexceptions.HTTPNotFound(),
        errno=ERRNO.MISSING_RESOURCE,
        message="There is no media with this hash, or it is not verified yet.",
        details={"id": request.matchdict["hash"][:200], "resource_name": "media"},
    )


def _audience(request: Request) -> str:
    """Return which caches may keep media, as in ``Cache-Control``: ``public`` or ``private``."""
    principals = request.registry.settings["media_read_principals"]
    return "public" if Everyone in principals else "private"
