"""From errors to HTTP: the one table."""

from kinto.core.errors import ERRORS, http_error
from kinto.core.utils import reapply_cors
from pyramid import httpexceptions
from pyramid.request import Request
from pyramid.response import Response

from .. import errors

INVALID, POSTED = ERRORS.INVALID_PARAMETERS, ERRORS.INVALID_POSTED_DATA

# error: (HTTP, errno, how the message is worded; clients and consoles match on it)
TABLE: dict[type[errors.AttachmentError], tuple] = {
    errors.NotMultipart: (httpexceptions.HTTPBadRequest, INVALID, "{reason}"),
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
    errors.FieldRefused: (httpexceptions.HTTPBadRequest, POSTED, "{location}: {reason}"),
    errors.Refused: (httpexceptions.HTTPBadRequest, INVALID, "{location}: {reason}"),
    errors.ImagingMissing: (
        httpexceptions.HTTPNotImplemented,
        ERRORS.UNDEFINED,
        "This server does not resize images: pip install 'kinto-attachment[images]'",
    ),
    errors.ResizeError: (
        httpexceptions.HTTPServiceUnavailable,
        ERRORS.BACKEND,
        "The image cannot be made now, please retry later.",
    ),
    errors.RemoteNotFound: (
        httpexceptions.HTTPNotFound,
        ERRORS.MISSING_RESOURCE,
        "There is no such photo.",
    ),
    errors.RemoteLimited: (
        httpexceptions.HTTPTooManyRequests,
        ERRORS.BACKEND,
        "The other server was asked too often, please retry later.",
    ),
    errors.RemoteTimeout: (
        httpexceptions.HTTPGatewayTimeout,
        ERRORS.BACKEND,
        "The other server does not answer in time.",
    ),
    errors.RemoteFailed: (httpexceptions.HTTPBadGateway, ERRORS.BACKEND, "{reason}"),
    errors.KeyRefused: (
        httpexceptions.HTTPBadRequest,
        INVALID,
        "The file cannot be stored under the name that its record, or itself, would give it.",
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
    """The answer to an error of ours, in Kinto's format, with the field in ``details``."""
    kind = next(kind for kind in type(error).__mro__ if kind in TABLE)
    status, errno, wording = TABLE[kind]
    message, details, title = wording, None, None
    if isinstance(error, errors.Refused):
        message = wording.format(reason=error.reason, location=error.location)
        details = [{"location": error.location, "name": error.field, "description": error.reason}]
        # Kinto's title for a refused field.
        title = "Invalid parameters" if errno is INVALID and error.location == "body" else None
    elif isinstance(error, errors.RemoteError):
        message = wording.format(reason=error)
    response = http_error(status(), errno=errno, error=title, message=message, details=details)
    if response.status_code in (429, 503):
        usual = request.registry.settings["retry_after_seconds"]
        response.headers["Retry-After"] = str(getattr(error, "retry_after", None) or usual)
    return reapply_cors(request, response)


class NoContent(Response):
    """A 204 that a batch can take: there, an empty body that is not JSON fails all of it."""

    json = None

    def __init__(self) -> None:
        super().__init__(status=204, content_type=None)
