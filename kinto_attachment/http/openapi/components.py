"""What the descriptions of all doors share, written as OpenAPI 3.1 has it.

https://spec.openapis.org/oas/v3.1.1
"""

from collections.abc import Iterable, Mapping
from typing import Any

Object = dict[str, Any]
"""A JSON object of an OpenAPI document."""

BINARY: Object = {"type": "string", "format": "binary"}
"""The schema of bytes. OpenAPI 3.1 needs none, but generators know bytes by this format."""

_NUMBER = {"type": "integer", "minimum": 0}
_TEXT = {"type": "string"}

SCHEMAS: dict[str, Object] = {
    "Sha256": {
        "type": "string",
        "pattern": "^[0-9a-f]{64}$",
        "description": "A SHA-256 in lowercase hexadecimal digits.",
    },
    "FieldError": {
        "type": "object",
        "description": "A field that was refused.",
        "properties": {
            "location": {
                "type": ["string", "null"],
                "description": "Where the field is: `body`, `header`, `path` or `querystring`.",
            },
            "name": {"type": ["string", "null"], "description": "The name of the field."},
            "description": {"type": "string", "description": "What is wrong with it."},
        },
    },
    "ErrorContext": {
        "type": "object",
        "description": "The missing object (`id`, `resource_name`), or the record as it is now"
        " (`existing`).",
    },
    "Error": {
        "type": "object",
        "description": "An error, in the format that all of Kinto has.",
        "properties": {
            "code": {"type": "integer", "description": "The HTTP status."},
            "errno": {"type": "integer", "description": "Kinto's number for this kind of error."},
            "error": {"type": "string", "description": "The title of the HTTP status."},
            "message": {"type": "string", "description": "What is wrong, for people."},
            "info": {"type": "string", "description": "A URL with more information."},
            "details": {
                "description": "The fields that were refused, or the object concerned.",
                "oneOf": [
                    {"type": "array", "items": {"$ref": "#/components/schemas/FieldError"}},
                    {"$ref": "#/components/schemas/ErrorContext"},
                ],
            },
        },
        "required": ["code", "errno", "error", "message"],
    },
}

HEADERS: dict[str, Object] = {
    "ETag": {
        "description": "The version: for a file, its SHA-256 in quotes; for a record, its"
        " timestamp in quotes.",
        "schema": {"type": "string", "pattern": '^"[^"]*"$'},
    },
    "Last-Modified": {
        "description": "Since when the file or record is like this, as an HTTP date.",
        "schema": _TEXT,
    },
    "Location": {"description": "The URL of what was stored, or of the file.", "schema": _TEXT},
    "Content-Disposition": {
        "description": "Whether browsers show or save the file, and under which name (RFC 6266).",
        "schema": _TEXT,
    },
    "Content-Range": {
        "description": "Which bytes these are, and how many the file has (RFC 9110).",
        "schema": _TEXT,
    },
    "Accept-Ranges": {"description": "`bytes`.", "schema": _TEXT},
    "Repr-Digest": {
        "description": "The SHA-256 of the whole file in base64 (RFC 9530).",
        "schema": _TEXT,
    },
    "Cache-Control": {"description": "How long caches may keep the file.", "schema": _TEXT},
    "Content-Location": {"description": "The URL of the attached file.", "schema": _TEXT},
    "Upload-Offset": {"description": "How many bytes have arrived.", "schema": _NUMBER},
    "Upload-Length": {"description": "The size of the whole file in bytes.", "schema": _NUMBER},
    "Upload-Metadata": {"description": "The metadata as they were sent.", "schema": _TEXT},
    "Upload-Concat": {"description": "The header as it was sent.", "schema": _TEXT},
    "Upload-Expires": {
        "description": "When the upload expires unless more bytes arrive, as an HTTP date.",
        "schema": _TEXT,
    },
    "Retry-After": {"description": "Seconds to wait before the next attempt.", "schema": _NUMBER},
}

FILE_HEADERS = (
    "Accept-Ranges",
    "Cache-Control",
    "Content-Disposition",
    "ETag",
    "Last-Modified",
    "Repr-Digest",
)
"""Headers of a response with the bytes of a file."""


def ref(kind: str, name: str) -> Object:
    """Return a reference to a component.

    >>> ref("schemas", "Error")
    {'$ref': '#/components/schemas/Error'}
    """
    return {"$ref": f"#/components/{kind}/{name}"}


def response(
    description: str,
    content: Mapping[str, Object] | None = None,
    headers: Iterable[str] = (),
) -> Object:
    """Return a response object.

    :param content: schemas by media type; None for a response without a body.
    :param headers: names in :data:`HEADERS`.
    """
    made: Object = {"description": description}
    if headers:
        made["headers"] = {name: ref("headers", name) for name in headers}
    if content:
        made["content"] = {name: {"schema": schema} for name, schema in content.items()}
    return made


def json_response(description: str, schema: Object, headers: Iterable[str] = ()) -> Object:
    """Return a response object whose body is JSON."""
    return response(description, {"application/json": schema}, headers)


_REFUSALS = {
    400: ("BadRequest", "The request is invalid: `details` names the field that is wrong."),
    401: (
        "Unauthorized",
        "The request has no valid credentials, and needs some.",
    ),
    403: ("Forbidden", "The user does not have the permission."),
    404: ("NotFound", "There is no such object or file, or its bytes are lost."),
    405: ("MethodNotAllowed", "The server is read-only, or does not offer this method."),
    406: ("NotAcceptable", "`Accept` excludes JSON."),
    408: ("RequestTimeout", "The body arrives too slowly, or stops arriving."),
    409: ("Conflict", "Another request changed the record at the same moment: read it again."),
    410: ("Gone", "The upload was not finished in time: begin it again."),
    412: ("PreconditionFailed", "The record or file is not the one that a header requires."),
    413: ("ContentTooLarge", "The body is over the limit of this server."),
    415: ("UnsupportedMediaType", "The body is compressed, or not of an accepted type."),
    416: ("RangeNotSatisfiable", "The file ends before the requested range."),
    429: ("TooManyRequests", "Unsplash has received too many requests from this server."),
    460: ("ChecksumMismatch", "The body has another checksum than `Upload-Checksum` says."),
    500: ("InternalServerError", "The bytes of the file are damaged, or the server has a fault."),
    501: ("NotImplemented", "This server cannot resize images."),
    502: ("BadGateway", "The response of Unsplash is an error or invalid."),
    503: ("ServiceUnavailable", "Storage, database or image workers are unavailable: try later."),
    504: ("GatewayTimeout", "Unsplash did not respond in time."),
}

_REFUSAL_HEADERS = {
    412: ("ETag", "Last-Modified"),
    416: ("Content-Range",),
    429: ("Retry-After",),
    503: ("Retry-After",),
}

RESPONSES: dict[str, Object] = {
    name: json_response(text, ref("schemas", "Error"), _REFUSAL_HEADERS.get(status, ()))
    for status, (name, text) in _REFUSALS.items()
}


def refusals(*statuses: int) -> Object:
    """Return the responses for these error statuses.

    >>> refusals(404)
    {'404': {'$ref': '#/components/responses/NotFound'}}
    """
    return {str(status): ref("responses", _REFUSALS[status][0]) for status in sorted(statuses)}


def _header(name: str, description: str, **schema: Any) -> Object:
    made = {"name": name, "in": "header", "description": description}
    return {**made, "schema": {"type": "string", **schema}}


PARAMETERS: dict[str, Object] = {
    "Download": {
        "name": "download",
        "in": "query",
        "description": "Have browsers save the file, even if they could show it: `yes` or `no`.",
        "schema": {"type": "string", "default": "no"},
    },
    "Range": _header(
        "Range",
        "Up to 16 ranges of bytes, such as `bytes=0-499` (RFC 9110). Several ranges are sent as"
        " `multipart/byteranges`.",
    ),
    "If-Range": _header(
        "If-Range", "Send ranges only if the file still has this `ETag` or `Last-Modified`."
    ),
    "FileIfMatch": _header("If-Match", "Send the file only if it has one of these entity tags."),
    "FileIfNoneMatch": _header(
        "If-None-Match", "Send the file only if it has none of these entity tags; else a `304`."
    ),
    "If-Modified-Since": _header(
        "If-Modified-Since", "Send the file only if it is newer than this HTTP date; else a `304`."
    ),
    "If-Unmodified-Since": _header(
        "If-Unmodified-Since",
        "Send the file only if it is not newer than this HTTP date; else a `412`.",
    ),
    "RecordIfMatch": _header(
        "If-Match",
        'Do it only if the record has this `ETag`, such as `"1700000000000"`, or with `*` if it'
        " exists.",
        pattern=r'^("\d{1,20}"|\*)$',
    ),
    "RecordIfNoneMatch": _header(
        "If-None-Match",
        "With `*`: do it only if the record does not exist. With an `ETag`: answer `304` to a `GET`"
        " if the record still has it.",
        pattern=r'^("\d{1,20}"|\*)$',
    ),
}

FILE_PARAMETERS = (
    "Download",
    "Range",
    "If-Range",
    "FileIfMatch",
    "FileIfNoneMatch",
    "If-Modified-Since",
    "If-Unmodified-Since",
)
"""Parameters of every download."""

RECORD_CONDITIONS = ("RecordIfMatch", "RecordIfNoneMatch")
"""Parameters of every request that reads or writes a record."""

SECURITY_SCHEMES: dict[str, Object] = {
    "basic": {
        "type": "http",
        "scheme": "basic",
        "description": "User name and password, where Kinto's policy `basicauth` or `account` is"
        " on.",
    },
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "A token, where a policy such as `openid` is on.",
    },
}

EXPOSED_HEADERS = (
    "Accept-Ranges",
    "Content-Disposition",
    "Content-Range",
    "ETag",
    "Last-Modified",
    "Location",
    "Repr-Digest",
)
"""Response headers that scripts of other origins may read."""
