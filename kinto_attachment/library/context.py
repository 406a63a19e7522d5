"""Permissions in the media library: those of Kinto in its collection."""

from kinto.authorization import RouteFactory
from kinto.core.errors import ERRORS, http_error
from pyramid import httpexceptions
from pyramid.request import Request

from ..attachments.context import RecordContext, read_collection
from ..http.requests import RequestBody
from .collection import Library


class UploadContext(RouteFactory):
    """A file for the library: its sender needs the permission to create records there.

    :raises HTTPNotFound: if the collection does not exist yet.
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
    """One object of the library. The URL names its id before the name of a file, or as that name.
    The extension is added to ``matchdict``.

    :raises HTTPNotFound: if there is no extension.
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


def library_of(request: Request) -> Library:
    """Return the library of the server that received the request."""
    return request.registry.attachment_library


def check_library(request: Request, library: Library) -> None:
    """Refuse a request as long as the collection was not created.

    :raises HTTPNotFound: if it does not exist.
    """
    try:
        read_collection(request, library.bucket, library.collection)
    except httpexceptions.HTTPNotFound:
        raise http_error(
            httpexceptions.HTTPNotFound(),
            errno=ERRORS.MISSING_RESOURCE,
            message="There is no media library yet: kinto-attachment library init",
            details={"id": library.collection, "resource_name": "collection"},
        ) from None
