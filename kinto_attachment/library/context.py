"""Permissions in the media library: those on its collection and its records in Kinto."""

from kinto.authorization import RouteFactory
from kinto.core.errors import ERRORS, http_error
from pyramid import httpexceptions
from pyramid.request import Request

from ..attachments.context import RecordContext, read_collection
from ..http.requests import RequestBody
from .collection import Library


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
