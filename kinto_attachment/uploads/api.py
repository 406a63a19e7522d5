"""What the routes of uploads do, for :mod:`kinto_attachment.http.openapi`."""

from typing import Any

from ..attachments.api import FIELD, FIELD_PARAMETER, PATH, RECORD_PARAMETERS
from ..http.openapi.components import (
    BINARY,
    RECORD_CONDITIONS,
    Object,
    json_response,
    ref,
    refusals,
    response,
)
from ..http.openapi.operation import operation, parameter, path_item
from .direct import api as direct
from .protocol import ALGORITHMS, OFFSET_STREAM, VERSION

TAG = "Resumable uploads"

SCHEMAS: dict[str, Object] = {
    **direct.SCHEMAS,
    "Upload": {
        "type": "object",
        "description": "A resumable upload.",
        "properties": {
            "id": {"type": "string", "description": "The last part of its URL."},
            "state": {
                "enum": ["open", "attached"],
                "description": "Whether bytes are missing, or the file is attached.",
            },
            "offset": {"type": "integer", "minimum": 0, "description": "Bytes that have arrived."},
            "length": {
                "type": ["integer", "null"],
                "minimum": 0,
                "description": "The size in bytes; null until its sender has said it.",
            },
            "expires": {
                "type": "integer",
                "description": "When it expires, in milliseconds since 1970, unless bytes arrive.",
            },
            "filename": {"type": ["string", "null"], "description": "The name of the file."},
            "concat": {"type": ["string", "null"], "description": "`Upload-Concat`, as sent."},
            "file": {
                "type": ["object", "null"],
                "description": "What describes the file once it is attached, as the response to a"
                " form would; null before, and for the media store.",
            },
        },
        "required": ["id", "state", "offset", "length", "expires", "filename", "concat", "file"],
    },
}


def _header(name: str, description: str, **schema: Any) -> Object:
    return parameter("header", name, description, **schema)


_UPLOAD = parameter("path", "upload", "The id of the upload.", pattern="^[0-9a-f]{32}$")

_VERSION = {**_header("Tus-Resumable", f"Always `{VERSION}`.", const=VERSION), "required": True}

_VERSION_OF_RESUMABLE = _header(
    "Tus-Resumable", f"Always `{VERSION}`, except for a direct upload.", const=VERSION
)

_CHECKSUM = _header(
    "Upload-Checksum",
    f"The checksum of the body: {', '.join(ALGORITHMS)}, a space, and the digest in base64.",
)

_LENGTH = _header("Upload-Length", "The size of the whole file in bytes.", pattern=r"^\d+$")

_NEW = (
    _VERSION_OF_RESUMABLE,
    _LENGTH,
    _header("Upload-Defer-Length", "`1` if the size is said later.", const="1"),
    _header(
        "Upload-Metadata",
        "Pairs of a key and a value in base64, separated by commas. Keys that count: `filename`;"
        " `filetype` or `type`; for records `data` and `permissions`, as JSON; below `/media`"
        " `target`, which is `library` or `store`.",
    ),
    _header("Upload-Concat", "`partial`, or `final;` and the URLs of partial uploads."),
    _CHECKSUM,
)

_SENT = (
    _VERSION,
    {
        **_header("Upload-Offset", "The offset of the first byte of the body.", pattern=r"^\d+$"),
        "required": True,
    },
    _LENGTH,
    _CHECKSUM,
)

_BODY: Object = {"description": "Bytes.", "content": {OFFSET_STREAM: {"schema": BINARY}}}

_PROGRESS = ("Upload-Offset", "Upload-Expires")
_WHOLE = ("Content-Location", "ETag")
_STATE = (*_PROGRESS, *_WHOLE, "Upload-Length", "Upload-Metadata", "Upload-Concat")


def _routes(path: str, name: str, body: Object, *parameters: Object) -> dict[str, Object]:
    """Return the path items of the uploads below one path.

    :param name: the end of the names of the operations.
    :param body: what describes the file in the response, once it is complete.
    :param parameters: those of the path.
    """
    conditions = RECORD_CONDITIONS if parameters else ()
    refused = refusals(400, 401, 403, 404, 405, 409, 410, 412, 413, 415, 460)
    found = refusals(400, 401, 403, 404, 410, 412)
    done = "The file is complete, and attached."
    plural = path_item(
        *parameters,
        get=operation(
            f"list_{name}_uploads",
            TAG,
            "List the user's uploads.",
            {
                "200": json_response(
                    "The uploads.", {"type": "array", "items": ref("schemas", "Upload")}
                ),
                **refusals(400, 401, 403, 404, 412),
            },
            parameters=[_VERSION],
        ),
        post=operation(
            f"create_{name}_upload",
            TAG,
            "Begin an upload; with a body, send its first bytes. JSON begins a direct upload.",
            {
                "201": json_response(
                    "The upload exists: `Location` is its URL. The body describes the file, if it"
                    " is complete, or says where to send the bytes of a direct upload.",
                    {"anyOf": [body, direct.CREATED]},
                    ("Location", *_PROGRESS, *_WHOLE),
                ),
                **refused,
            },
            parameters=_NEW,
            conditions=conditions,
            body={**_BODY, "content": {**_BODY["content"], **direct.NEW}},
        ),
    )
    single = path_item(
        *parameters,
        _UPLOAD,
        get=operation(
            f"get_{name}_upload",
            TAG,
            "Get how far an upload is.",
            {
                "200": json_response(
                    "Its state.", {"anyOf": [ref("schemas", "Upload"), direct.STATE]}, _STATE
                ),
                **found,
            },
            parameters=[_VERSION_OF_RESUMABLE],
        ),
        patch=operation(
            f"send_{name}_upload",
            TAG,
            "Send bytes of an upload.",
            {
                "200": json_response(f"{done} The body describes it.", body, (*_PROGRESS, *_WHOLE)),
                "204": response(
                    "The bytes are stored. With the last ones, the file is attached.",
                    None,
                    (*_PROGRESS, *_WHOLE),
                ),
                **refused,
            },
            parameters=_SENT,
            body={**_BODY, "required": True},
        ),
        post=operation(
            f"override_{name}_upload",
            TAG,
            "Send bytes, ask for the state, or delete, for clients that can only send `POST`.",
            {
                "200": json_response(
                    "The state of the upload, or a description of the file.",
                    {"anyOf": [ref("schemas", "Upload"), body]},
                    _STATE,
                ),
                "204": response("Done.", None, (*_PROGRESS, *_WHOLE)),
                **refused,
            },
            parameters=[
                _header(
                    "X-HTTP-Method-Override",
                    "The method that is meant.",
                    enum=["PATCH", "DELETE", "HEAD"],
                ),
                _VERSION,
            ],
            body=_BODY,
        ),
        delete=operation(
            f"delete_{name}_upload",
            TAG,
            "Delete an upload, and what has arrived of it. A file that was attached stays.",
            {"204": response("The upload is gone."), **found, **refusals(405, 409)},
            parameters=[_VERSION_OF_RESUMABLE],
        ),
    )
    content = {"application/json": body}
    if not parameters:
        content = {"application/json": body, "text/plain": _DIGEST}
    return {
        f"{path}/uploads": plural,
        f"{path}/uploads/{{upload}}": single,
        f"{path}/uploads/{{upload}}/complete": direct.complete_item(
            name, content, *parameters, _UPLOAD
        ),
    }


_MEDIA, _DIGEST = ref("schemas", "StoredMedia"), ref("schemas", "Sha256")
_ATTACHMENT = {"anyOf": [ref("schemas", "Entry"), ref("schemas", "Attachment")]}


def paths(has_library: bool) -> dict[str, Object]:
    """Return the path items of all routes.

    :param has_library: whether the server has a media library.
    """
    media = {"anyOf": [ref("schemas", "MediaFile"), _MEDIA]} if has_library else _MEDIA
    return {
        **_routes(PATH, "attachment", _ATTACHMENT, *RECORD_PARAMETERS),
        **_routes(FIELD, "field", _ATTACHMENT, *RECORD_PARAMETERS, FIELD_PARAMETER),
        **_routes("/media", "media", media),
        **direct.PATHS,
    }
