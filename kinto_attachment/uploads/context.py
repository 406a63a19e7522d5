"""Permissions of uploads: on every request those of a form that would attach the file."""

from kinto.authorization import RouteFactory
from pyramid.request import Request

from ..attachments.context import RecordContext
from ..errors import FieldRefused
from ..library.context import UploadContext
from ..media.context import MediaContext
from ..plugin import plugin_of
from .protocol import read_metadata

LIBRARY, STORE = "library", "store"
"""What an upload below ``/media`` can become."""


class RecordUploadContext(RecordContext):
    """Uploads for a field of a record. Every request needs the permission to write the record, or
    to create it."""

    writing_methods = ("POST", "HEAD", "GET", "PATCH", "DELETE", "PUT")

    def _require(self, method: str) -> None:
        super()._require("POST")


class StoreUploadContext(MediaContext):
    """Uploads for the media store. Every request needs the permission to store."""

    def __init__(self, request: Request):
        super().__init__(request)
        self._stores = True
        self.required_permission = "create"


class LibraryUploadContext(UploadContext):
    """Uploads for the media library. Every request needs the permission to create objects."""


def media_upload_context(request: Request) -> RouteFactory:
    """Return the context of an upload below ``/media``: that of its target.

    :raises FieldRefused: if the metadata of a new upload name an unknown target, or are malformed.
    """
    if request.method == "OPTIONS":
        return RouteFactory(request)
    target = _target_of(request)
    return LibraryUploadContext(request) if target == LIBRARY else StoreUploadContext(request)


def _target_of(request: Request) -> str:
    has_library = request.registry.attachment_library is not None
    default = LIBRARY if has_library else STORE
    if "upload" in request.matchdict:
        upload = plugin_of(request).rows.resumable.get(request.matchdict["upload"])
        return upload.intent.target if upload else default
    if request.method != "POST":
        return default
    target = read_metadata(request.headers.get("Upload-Metadata")).get("target", default)
    known = (LIBRARY, STORE) if has_library else (STORE,)
    if target not in known:
        reason = f"target in Upload-Metadata must be {' or '.join(known)}, not {target[:100]!r}"
        raise FieldRefused(reason, "Upload-Metadata", "header")
    return target
