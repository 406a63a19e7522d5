"""Permissions in the media library: those on its collection and its records in Kinto."""

import time
from typing import Any

from kinto.authorization import RouteFactory
from kinto.core.errors import ERRORS, http_error
from pyramid import httpexceptions
from pyramid.events import ContextFound
from pyramid.request import Request

from ..attachments.context import RecordContext, read_collection
from ..files.ref import ATTRIBUTE
from ..http.requests import RequestBody, owner_of
from ..plugin import plugin_of
from ..rows.uploads import Unclaimed
from .collection import Library
from .schema import is_well_formed


class UploadContext(RouteFactory):
    """An upload to the library. The client needs the permission to create records there.

    :ivar body: the body of the request. It is closed when the request is finished.
    :raises HTTPNotFound: if the collection of the library does not exist.
    """

    def __init__(self, request: Request):
        super().__init__(request)
        library = library_of(request)
        self.resource_name = "record"
        self.required_permission = "create"
        self.permission_object_id = f"{library.uri}/records"
        self.body = RequestBody(request.environ)
        request.add_finished_callback(lambda request: self.body.close())
        check_library(request, library)


class ObjectContext(RecordContext):
    """One object of the library, whose URL ends with ``{id}.{ext}`` or ``{id}/{name}.{ext}``.

    An upload that no object describes yet has the same URL. Only its sender sees it there.

    The id and the extension are added to ``matchdict``.

    :raises HTTPNotFound: if the URL has no extension.
    """

    def __init__(self, request: Request):
        library, matchdict = library_of(request), request.matchdict
        name, dot, extension = matchdict["file"].rpartition(".")
        if not (name and extension):
            raise httpexceptions.HTTPNotFound()
        matchdict.setdefault("id", name)
        matchdict.update(
            extension=extension, bucket_id=library.bucket, collection_id=library.collection
        )
        super().__init__(request)

    def check_permission(self, principals: list, bound_perms: list | None) -> bool:
        """Return whether the user may read the object, or has sent the upload."""
        allowed = super().check_permission(principals, bound_perms)
        return allowed or self._own_upload() is not None

    def find_record(self) -> dict[str, Any]:
        """Return the object, or what it will say about the upload.

        :raises HTTPNotFound: if there is neither.
        """
        self.holder = self.place
        try:
            return super().find_record()
        except httpexceptions.HTTPNotFound:
            upload = self._own_upload()
            if upload is None:
                raise
        self.holder = upload.ref
        return {**upload.facts, ATTRIBUTE: upload.attachment, "last_modified": upload.modified}

    def _own_upload(self) -> Unclaimed | None:
        """Return the upload that the user has sent. Those who are not authenticated cannot be told
        apart, so they do not see any."""
        request = self._request
        return own_upload(request, self.ref.record) if request.prefixed_userid else None


class DescriptionContext(RecordContext):
    """A change of an object's description. Kinto checks the permission again when it writes the
    record; this check comes before a byte of the body is read.

    :raises HTTPNotFound: if the collection of the library does not exist.
    """

    writing_methods = ("PUT", "PATCH")

    def __init__(self, request: Request):
        library = library_of(request)
        check_library(request, library)
        ids = {"bucket_id": library.bucket, "collection_id": library.collection}
        request.matchdict.update(ids)
        super().__init__(request)


def library_of(request: Request) -> Library:
    """Return the library of this server. Call this only where there is one."""
    return request.registry.attachment_library


def protect_collection(event: ContextFound) -> None:
    """Require the permission to write the bucket from users who delete the library's collection.
    Editors may write the collection, and therefore all objects, but not the bucket."""
    request = event.request
    context, library = getattr(request, "context", None), library_of(request)
    if request.method != "DELETE" or getattr(context, "resource_name", "") != "collection":
        return
    if context.permission_object_id == library.uri:
        context.permission_object_id = f"/buckets/{library.bucket}"
    elif context.on_plural_endpoint and request.matchdict["bucket_id"] == library.bucket:
        find_ids = context.fetch_shared_objects

        def find_others(*args: Any) -> list[str]:
            context.shared_ids = [each for each in find_ids(*args) if each != library.collection]
            return context.shared_ids

        context.fetch_shared_objects = find_others


def own_upload(request: Request, upload_id: str) -> Unclaimed | None:
    """Return an upload that no object describes yet, or None if the user of this request has not
    sent it, if it has expired, or if another program has broken its facts."""
    plugin = plugin_of(request)
    upload = plugin.rows.unclaimed.get(upload_id)
    if upload is None or upload.owner != owner_of(request) or not is_well_formed(upload.facts):
        return None
    expires = upload.modified / 1000 + plugin.settings["library.unclaimed_ttl"]
    return upload if time.time() <= expires else None


def check_library(request: Request, library: Library) -> None:
    """Check that the collection of the library exists.

    :raises HTTPNotFound: if the operator has not created it yet.
    """
    try:
        read_collection(request, library.bucket, library.collection)
    except httpexceptions.HTTPNotFound:
        raise http_error(
            httpexceptions.HTTPNotFound(),
            errno=ERRORS.MISSING_RESOURCE,
            message="The media library has not been created yet: the operator has to run "
            "kinto-attachment library init.",
            details={"id": library.collection, "resource_name": "collection"},
        ) from None
