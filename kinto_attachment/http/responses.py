"""The one table from errors to HTTP responses, and responses that views share."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from kinto.core import Service
from kinto.core.errors import ERRORS, http_error
from kinto.core.storage.exceptions import BackendError
from kinto.core.utils import reapply_cors
from kinto.core.views.errors import error as kinto_error_view
from pyramid import httpexceptions
from pyramid.config import Configurator
from pyramid.events import NewResponse
from pyramid.httpexceptions import HTTPException
from pyramid.request import Request
from pyramid.response import Response

from .. import errors


class HTTPChecksumMismatch(httpexceptions.HTTPClientError):
    """The status 460 of tus: the body has another checksum than the client says."""

    code = 460
    title = "Checksum Mismatch"
    explanation = "The body has another checksum than the client says."


NO_STORE = {"Cache-Control": "no-store"}
"""The header that forbids caching. Errors, redirects and responses to writes carry it."""

INVALID, POSTED = ERRORS.INVALID_PARAMETERS, ERRORS.INVALID_POSTED_DATA

# error: (HTTP status, errno of Kinto, message). Clients and consoles match on the messages. An
# error that is not listed is treated as its nearest base class. The clients of kinto-attachment 0.x
# to 9.x know the errno ``POSTED`` for what is wrong with the fields of a form or with attributes.
TABLE: dict[type[errors.AttachmentError], tuple] = {
    errors.NotMultipart: (httpexceptions.HTTPBadRequest, INVALID, "{reason}"),
    errors.ContentEncoded: (httpexceptions.HTTPUnsupportedMediaType, INVALID, "{reason}"),
    errors.BoundaryRefused: (httpexceptions.HTTPBadRequest, INVALID, "{reason}"),
    errors.AttachmentMissing: (httpexceptions.HTTPBadRequest, POSTED, "{reason}"),
    errors.MetadataForged: (httpexceptions.HTTPBadRequest, POSTED, "{reason}"),
    errors.ReplacedMeanwhile: (
        httpexceptions.HTTPConflict,
        ERRORS.CONSTRAINT_VIOLATED,
        "{reason}",
    ),
    errors.BodyTooLarge: (
        httpexceptions.HTTPRequestEntityTooLarge,
        ERRORS.REQUEST_TOO_LARGE,
        "{reason}",
    ),
    errors.VersionRefused: (httpexceptions.HTTPPreconditionFailed, INVALID, "{reason}"),
    errors.NotOffsetStream: (httpexceptions.HTTPUnsupportedMediaType, INVALID, "{reason}"),
    errors.OffsetRefused: (httpexceptions.HTTPConflict, ERRORS.CONSTRAINT_VIOLATED, "{reason}"),
    errors.SendingStopped: (httpexceptions.HTTPConflict, ERRORS.CONSTRAINT_VIOLATED, "{reason}"),
    errors.ChecksumMismatch: (HTTPChecksumMismatch, INVALID, "{reason}"),
    errors.UploadFinished: (httpexceptions.HTTPForbidden, ERRORS.FORBIDDEN, "{reason}"),
    errors.UploadGone: (httpexceptions.HTTPGone, ERRORS.MISSING_RESOURCE, "{reason}"),
    errors.PartsMissing: (httpexceptions.HTTPConflict, ERRORS.CONSTRAINT_VIOLATED, "{reason}"),
    errors.UploadBusy: (httpexceptions.HTTPConflict, ERRORS.CONSTRAINT_VIOLATED, "{reason}"),
    errors.UploadRefused: (httpexceptions.HTTPBadRequest, INVALID, "{location}: {reason}"),
    errors.SignatureRefused: (httpexceptions.HTTPForbidden, ERRORS.FORBIDDEN, "{reason}"),
    errors.ClientTooSlow: (httpexceptions.HTTPRequestTimeout, POSTED, "{reason}"),
    errors.FieldRefused: (httpexceptions.HTTPBadRequest, POSTED, "{location}: {reason}"),
    errors.Refused: (httpexceptions.HTTPBadRequest, INVALID, "{location}: {reason}"),
    errors.ImagingMissing: (
        httpexceptions.HTTPNotImplemented,
        ERRORS.UNDEFINED,
        "This server cannot resize images. Its operator can install kinto-attachment[images].",
    ),
    errors.ResizeError: (
        httpexceptions.HTTPServiceUnavailable,
        ERRORS.BACKEND,
        "The image cannot be resized now, please retry later.",
    ),
    errors.RemoteNotFound: (
        httpexceptions.HTTPNotFound,
        ERRORS.MISSING_RESOURCE,
        "Unsplash does not have this photo.",
    ),
    errors.RemoteLimited: (
        httpexceptions.HTTPTooManyRequests,
        ERRORS.BACKEND,
        "Unsplash has received too many requests from this server, please retry later.",
    ),
    errors.RemoteTimeout: (
        httpexceptions.HTTPGatewayTimeout,
        ERRORS.BACKEND,
        "Unsplash did not respond in time, please retry later.",
    ),
    errors.RemoteFailed: (httpexceptions.HTTPBadGateway, ERRORS.BACKEND, "{reason}"),
    errors.KeyRefused: (
        httpexceptions.HTTPBadRequest,
        INVALID,
        "The file cannot be stored under the name that follows from its record and its filename."
        " Choose another filename or another id.",
    ),
    errors.BlobNotFound: (
        httpexceptions.HTTPNotFound,
        ERRORS.MISSING_RESOURCE,
        "The bytes of this attachment are not in the file storage.",
    ),
    errors.BlobDamaged: (
        httpexceptions.HTTPInternalServerError,
        ERRORS.UNDEFINED,
        "The bytes of this attachment are damaged in the file storage.",
    ),
    errors.StorageError: (
        httpexceptions.HTTPServiceUnavailable,
        ERRORS.BACKEND,
        "The file storage is unavailable, please retry later.",
    ),
}


def error_view(error: errors.AttachmentError, request: Request) -> Response:
    """Return the response to an error of this package, in Kinto's format. The ``details`` name the
    field that is wrong."""
    kind = next(kind for kind in type(error).__mro__ if kind in TABLE)
    status, errno, wording = TABLE[kind]
    if kind is errors.FieldRefused and error.location != "body":
        errno = INVALID
    message, details, title = wording, None, None
    if isinstance(error, errors.Refused):
        message = wording.format(reason=error.reason, location=error.location)
        where = {"location": error.location, "name": error.field}
        details = [{**where, "description": error.description}]
        # The title that Kinto itself gives to an invalid request.
        title = "Invalid parameters" if status is httpexceptions.HTTPBadRequest else None
    elif isinstance(error, errors.RemoteError):
        message = wording.format(reason=error)
    response = http_error(status(), errno=errno, error=title, message=message, details=details)
    if isinstance(error, errors.ContentEncoded):
        response.headers["Accept-Encoding"] = "identity"  # RFC 9110, section 15.5.16
    if response.status_code in (429, 503):
        usual = request.registry.settings["retry_after_seconds"]
        response.headers["Retry-After"] = str(getattr(error, "retry_after", None) or usual)
    return reapply_cors(request, response)


def database_error_view(error: Exception, request: Request) -> Response:
    """Return what Kinto responds when its database fails. Kinto translates the errors of its own
    statements; this is for those of a commit.

    :param error: of SQLAlchemy.
    """
    return kinto_error_view(BackendError(original=error), request)


def add_services(config: Configurator, services: Iterable[Service]) -> None:
    """Add services of this package, whose responses :func:`forbid_caching` knows by their names."""
    for service in services:
        config.registry.attachment_services.add(service.name)
        config.add_cornice_service(service)


def explained(error: HTTPException) -> HTTPException:
    """Return an error of Kinto. If it has no message, as a 404 has none, it gets one."""
    body = error.json if error.content_type == "application/json" else {"message": error.title}
    if not body.get("message"):
        details = body.get("details")
        missing = details if isinstance(details, dict) else {}
        name, object_id = missing.get("resource_name", "resource"), str(missing.get("id", ""))
        message = f"There is no {name} {object_id[:100]!r}." if missing else error.title
        error.json = {**body, "message": message}
    return error


@contextmanager
def explaining() -> Iterator[None]:
    """Let each error of Kinto pass with a message; see :func:`explained`."""
    try:
        yield
    except HTTPException as error:
        raise explained(error) from None


def forbid_caching(event: NewResponse) -> None:
    """Tell caches not to keep an error. They may keep some errors, such as a 404, even if no header
    allows it (RFC 9110, section 15.1), and would then give them to other clients as the file.

    The same applies to redirects on the routes of this package, and to the responses to all methods
    there but ``GET`` and ``HEAD``.
    """
    request, status = event.request, event.response.status_code
    if status >= 400 or (_is_ours(request) and not _is_file(request, status)):
        for name, value in NO_STORE.items():
            event.response.headers.setdefault(name, value)


def _is_ours(request: Request) -> bool:
    service = request.current_service
    return service is not None and service.name in request.registry.attachment_services


def _is_file(request: Request, status: int) -> bool:
    return request.method in ("GET", "HEAD") and (status < 300 or status == 304)


class NoContent(Response):
    """A response with status 204 that works in a batch. A batch reads each response as JSON, and an
    empty body would make the whole batch fail."""

    json = None

    def __init__(self) -> None:
        super().__init__(status=204, content_type=None)
