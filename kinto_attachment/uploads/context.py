"""Permissions of uploads: on every request those of a form that would attach the file."""

from typing import Any

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
        if method != "POST":
            # The conditions of the request that has created the upload count.
            self._request.headers.pop("If-None-Match", None)
        super()._require("POST")


class StoreUploadContext(MediaContext):
    """Uploads for the media store. Every request needs the permission to store."""

    def __init__(self, request: Request):
        super().__init__(request)
        self._stores = True
        self.required_permission = "create"


class LibraryUploadContext(UploadContext):
    """Uploads for the media library. Every request needs the permission to create objects."""


class MediaUploadContext(StoreUploadContext):
    """Uploads below ``/media`` whose target is not known: one of the two permissions is enough."""

    def check_permission(self, principals: list[str], bound_perms: Any) -> bool:
        """Return whether the user may store media, or create objects of the library."""
        if super().check_permission(principals, bound_perms):
            return True
        if self._request.registry.attachment_library is None:
            return False
        library = LibraryUploadContext(self._request)
        parents = [(library.permission_object_id, library.required_permission)]
        return library.check_permission(principals, parents)


def media_upload_context(request: Request) -> RouteFactory:
    """Return the context of an upload below ``/media``: that of its target."""
    if request.method == "OPTIONS":
        return RouteFactory(request)
    contexts = {LIBRARY: LibraryUploadContext, STORE: StoreUploadContext}
    return contexts.get(_target_of(request), MediaUploadContext)(request)


def _target_of(request: Request) -> str:
    """Return what the upload is to become; empty if that is not known."""
    has_library = request.registry.attachment_library is not None
    if not has_library:
        return STORE
    if "upload" in request.matchdict:
        upload = plugin_of(request).rows.resumable.get(request.matchdict["upload"])
        return upload.intent.target if upload else ""
    if request.method != "POST":
        return ""
    try:
        values = read_metadata(request.headers.get("Upload-Metadata"))
    except FieldRefused:
        return ""  # the view refuses it
    is_partial = request.headers.get("Upload-Concat") == "partial"
    return values.get("target", "" if is_partial else LIBRARY)


def check_target(request: Request, values: dict[str, str]) -> None:
    """Check the target in the metadata of a new upload below ``/media``.

    :raises FieldRefused: if it is unknown.
    """
    has_library = request.registry.attachment_library is not None
    known = (LIBRARY, STORE) if has_library else (STORE,)
    target = values.get("target", STORE)
    if target not in known:
        reason = f"target in Upload-Metadata must be {' or '.join(known)}, not {target[:100]!r}"
        raise FieldRefused(reason, "Upload-Metadata", "header")
