"""Permissions of uploads: on every request those of a form that would attach the file."""

from typing import Any

from kinto.authorization import RouteFactory
from kinto.core.authorization import DYNAMIC
from pyramid.httpexceptions import HTTPForbidden, HTTPNotFound
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


class AnyUploadContext(StoreUploadContext):
    """An upload below ``/media`` whose target is not known, or is in a body that is not read yet.
    It needs either permission until :meth:`choose` is called."""

    def check_permission(self, principals: list[str], bound_perms: Any) -> bool:
        """Return whether the user may send uploads for either."""
        if super().check_permission(principals, bound_perms):
            return True
        try:
            library = LibraryUploadContext(self._request)
        except HTTPNotFound:
            return False
        return bool(self._request.has_permission(DYNAMIC, library))

    def choose(self, target: str) -> RouteFactory:
        """Return the context for one of them.

        :raises HTTPForbidden: if the user may not send uploads for that.
        :raises HTTPNotFound: if the collection of the library does not exist.
        """
        request = self._request
        kind = LibraryUploadContext if target == LIBRARY else StoreUploadContext
        chosen = kind(request)
        chosen.body = self.body
        if not request.has_permission(DYNAMIC, chosen):
            raise HTTPForbidden()
        return chosen


def media_upload_context(request: Request) -> RouteFactory:
    """Return the context of an upload below ``/media``: that of its target."""
    if request.method == "OPTIONS":
        return RouteFactory(request)
    if not _has_library(request):
        return StoreUploadContext(request)
    contexts = {LIBRARY: LibraryUploadContext, STORE: StoreUploadContext}
    return contexts.get(_target_of(request), AnyUploadContext)(request)


def is_direct(request: Request) -> bool:
    """Return whether a request that creates an upload describes a direct one, in JSON."""
    mimetype = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return request.method == "POST" and mimetype == "application/json"


def choose_target(request: Request, name: str | None, field: str, location: str) -> str:
    """Return what an upload below ``/media`` is to become.

    :param name: what the client says; None for nothing.
    :param field: where it says that, for an error, and so is ``location``.
    :raises FieldRefused: if there is no such target.
    """
    known = (LIBRARY, STORE) if _has_library(request) else (STORE,)
    if name is None:
        return known[0]
    if name not in known:
        what = "target" if field == "target" else f"target in {field}"
        reason = f"{what} must be {' or '.join(known)}, not {name[:100]!r}"
        raise FieldRefused(reason, field, location)
    return name


def _has_library(request: Request) -> bool:
    return request.registry.attachment_library is not None


def _target_of(request: Request) -> str:
    """Return what the upload is to become; empty if that is not known."""
    if "upload" in request.matchdict:
        rows, upload_id = plugin_of(request).rows, request.matchdict["upload"]
        upload = rows.direct.get(upload_id) or rows.resumable.get(upload_id)
        return upload.intent.target if upload else ""
    if request.method != "POST" or is_direct(request):
        return ""
    try:
        values = read_metadata(request.headers.get("Upload-Metadata"))
    except FieldRefused:
        return ""  # the view refuses it
    is_partial = request.headers.get("Upload-Concat") == "partial"
    return values.get("target", "" if is_partial else LIBRARY)
