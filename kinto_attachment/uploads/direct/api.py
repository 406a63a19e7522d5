"""What the routes of direct uploads do, for :mod:`kinto_attachment.http.openapi`. Those that they
share with resumable uploads are described in ``../api.py``."""

from typing import Any

from ...http.openapi.components import (
    BINARY,
    RECORD_CONDITIONS,
    Object,
    json_response,
    ref,
    refusals,
    response,
)
from ...http.openapi.operation import json_body, operation, parameter, path_item

TAG = "Direct uploads"

_TEXT = {"type": "string"}
_SIZE = {"type": "integer", "minimum": 0, "description": "The size in bytes."}
_NUMBER = {"type": "integer", "minimum": 1, "description": "The number of the part."}
_ID = {"type": "string", "description": "The last part of the URL of the upload."}
_URL = {"type": "string", "description": "Where to send the bytes with `PUT`, without credentials."}
_HEADERS = {
    "type": "object",
    "additionalProperties": _TEXT,
    "description": "Headers that the request must have.",
}
_EXPIRES = {
    "type": "integer",
    "description": "When the URLs expire, in milliseconds since 1970.",
}
_COMPLETE = {"type": "string", "description": "Where to `POST` when all bytes are there."}


def _object(description: str, required: tuple[str, ...], **properties: Any) -> Object:
    made = {"type": "object", "description": description, "properties": properties}
    return {**made, "required": list(required)} if required else made


SCHEMAS: dict[str, Object] = {
    "NewDirectUpload": _object(
        "A file that the client is about to send to the storage.",
        ("size",),
        filename={"type": "string", "description": "Needed everywhere but in the media store."},
        size=_SIZE,
        mimetype={"type": "string", "description": "Its media type."},
        hash={"type": "string", "description": "Its SHA-256 in hexadecimal digits."},
        data={"type": "object", "description": "Further attributes of the record."},
        permissions={"type": "object", "description": "Permissions of the record."},
        target={
            "type": "string",
            "description": "Below `/media`: `library`, which is the default where there is one, or"
            " `store`.",
        },
    ),
    "DirectPart": _object(
        "A part of a direct upload. It has a URL if it has not arrived.",
        ("number", "offset", "size"),
        number=_NUMBER,
        offset={"type": "integer", "minimum": 0, "description": "Of its first byte."},
        size=_SIZE,
        url=_URL,
        headers=_HEADERS,
        etag={"type": "string", "description": "The entity tag of what has arrived."},
    ),
    "DirectUpload": _object(
        "Where to send the bytes: all at once, or in parts.",
        ("id", "expires", "size", "complete"),
        id=_ID,
        expires=_EXPIRES,
        size=_SIZE,
        method={"const": "PUT"},
        url=_URL,
        headers=_HEADERS,
        part_size={"type": "integer", "description": "Bytes of each part but the last one."},
        parts={"type": "array", "items": ref("schemas", "DirectPart")},
        complete=_COMPLETE,
    ),
    "DirectState": _object(
        "How far a direct upload is.",
        ("id", "state", "expires", "parts"),
        id=_ID,
        state={
            "enum": ["open", "verifying", "refused", "attached"],
            "description": "Whether bytes are missing, are being hashed, were deleted because they"
            " were not those that the client had announced, or belong to a file.",
        },
        size=_SIZE,
        expires=_EXPIRES,
        part_size={"type": "integer", "description": "Bytes of each part but the last one."},
        parts={"type": "array", "items": ref("schemas", "DirectPart")},
        complete=_COMPLETE,
        reason={"type": "string", "description": "Why the bytes were refused."},
    ),
    "DirectVerifying": _object(
        "The bytes are being hashed.", ("id", "state"), id=_ID, state={"const": "verifying"}
    ),
    "NamedParts": _object(
        "Which bytes are meant.",
        (),
        parts={
            "type": "array",
            "items": _object(
                "A part.",
                ("number", "etag"),
                number=_NUMBER,
                etag={"type": "string", "description": "As the response to the `PUT` had it."},
            ),
        },
    ),
}

CREATED, STATE = ref("schemas", "DirectUpload"), ref("schemas", "DirectState")
"""What responses say that resumable and direct uploads share."""

NEW: Object = {"application/json": {"schema": ref("schemas", "NewDirectUpload")}}
"""The body that begins a direct upload."""


def complete_item(name: str, content: Object, *parameters: Object) -> Object:
    """Return the path item of ``complete``.

    :param name: the end of the name of the operation.
    :param content: schemas of the responses that a form would get, by media type.
    :param parameters: those of the path.
    """
    headers = ("ETag", "Last-Modified", "Location")
    done = "The file is attached. Another request gets the same response."
    body = json_body(ref("schemas", "NamedParts"), "The entity tags of parts; may be left out.")
    return path_item(
        *parameters,
        post=operation(
            f"complete_{name}_upload",
            TAG,
            "Attach the file of a direct upload, whose bytes are in the storage.",
            {
                "200": response(done, content, headers),
                "201": response(done, content, headers),
                "202": json_response(
                    "The bytes are being hashed: ask again.",
                    ref("schemas", "DirectVerifying"),
                    ("Retry-After",),
                ),
                **refusals(400, 401, 403, 404, 405, 408, 409, 410, 412, 413, 415),
            },
            conditions=RECORD_CONDITIONS if len(parameters) > 1 else (),
            body={**body, "required": False},
        ),
    )


_QUERY = tuple(
    {**parameter("query", name, description), "required": True}
    for name, description in (
        ("expires", "When the URL expires, in milliseconds since 1970."),
        ("signature", "The signature of the URL."),
    )
)

PATHS: dict[str, Object] = {
    "/attachments/uploads/{upload}/{number}": path_item(
        parameter("path", "upload", "The id of the upload.", pattern="^[0-9a-f]{32}$"),
        parameter("path", "number", "The number of the part.", pattern="^[0-9]{1,5}$"),
        put=operation(
            "send_part",
            TAG,
            "Send a part to this server, where the storage cannot receive it.",
            {
                "200": response("The part is stored.", None, ("ETag",)),
                **refusals(400, 403, 404, 405, 408, 415),
            },
            parameters=_QUERY,
            body={
                "required": True,
                "description": "The bytes of the part.",
                "content": {"*/*": {"schema": BINARY}},
            },
            is_public=True,
        ),
    )
}
