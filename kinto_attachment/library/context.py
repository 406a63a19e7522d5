"""Who may do what in the media library: what Kinto lets him do in its collection."""

from kinto.authorization import RouteFactory
from kinto.core.errors import ERRORS, http_error
from pyramid import httpexceptions
from pyramid.request import Request

from ..attachments.context import RecordContext, read_collection
from ..http.requests import Body
from .schema import Library


class UploadContext(RouteFactory):
    """Who may create records in the library may send files to it.

    :raises HTTPNotFound: there is no such collection yet.
    """

    def __init__(self, request: Request):
        super().__init__(request)
        library = library_of(request)
        self.resource_name = "record"
        self.required_permission = "create"
        self.permission_object_id = f"{library.uri}/records"
        self.body = Body(request.environ)
        request.add_finished_callback(lambda request: self.body.close())
        check_library(request, library)


class ObjectContext(RecordContext):
    """One object of the library: the record that has its id, which is said before the name of a
    file, or by it. Its extension is added to ``matchdict``.

    :raises HTTPNotFound: there is no extension.
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
    return request.registry.attachment_library


def check_library(request: Request, library: Library) -> None:
    """
    :raises HTTPNotFound: nobody has made it yet.
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
