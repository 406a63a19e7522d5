"""What the routes below records do, for :mod:`kinto_attachment.http.openapi`."""

from ..http.openapi.components import (
    BINARY,
    FILE_HEADERS,
    RECORD_CONDITIONS,
    Object,
    json_response,
    ref,
    refusals,
    response,
)
from ..http.openapi.operation import (
    ANY_FILE,
    DOWNLOAD,
    download,
    form,
    operation,
    parameter,
    path_item,
)

PATH = "/buckets/{bucket_id}/collections/{collection_id}/records/{id}/attachment"
"""Below the version prefix."""

FORMATS = ("webp", "avif", "jpeg", "png")
"""What ``?format=`` may ask for."""

TAG = "Attachments"

SCHEMAS: dict[str, Object] = {
    "Attachment": {
        "type": "object",
        "description": "The `attachment` attribute of a record, which only the server writes.",
        "properties": {
            "filename": {"type": "string", "description": "As the client named the file."},
            "hash": ref("schemas", "Sha256"),
            "location": {"type": "string", "description": "The URL of the file."},
            "mimetype": {"type": "string", "description": "The media type of the file."},
            "size": {"type": "integer", "minimum": 0, "description": "The size in bytes."},
        },
        "required": ["filename", "hash", "location", "mimetype", "size"],
    },
}

SIZE = parameter(
    "path",
    "size",
    "Width and height in pixels, such as `320x200`. A `0` keeps the proportions; `0x0` is the file"
    " as it was uploaded.",
    pattern=r"^\d+x\d+$",
)

FORMAT = parameter(
    "query", "format", "The format of the image; by default that of the file.", enum=[*FORMATS]
)

_PICTURES = {f"image/{name}": BINARY for name in ("avif", "gif", "jpeg", "png", "svg+xml", "webp")}

IMAGE: Object = {
    **DOWNLOAD,
    "200": response("The image.", {**ANY_FILE, **_PICTURES}, FILE_HEADERS),
    **refusals(501),
}
"""The responses to a request for an image."""

_RECORD = (
    parameter("path", "bucket_id", "The id of the bucket; `default` for that of the user."),
    parameter("path", "collection_id", "The id of the collection."),
    parameter("path", "id", "The id of the record."),
)

_VERSION = ("ETag", "Last-Modified", "Location")

_FORM = form(
    {
        "attachment": {**BINARY, "description": "The file, with a filename."},
        "data": {"type": "object", "description": "Attributes of the record, as JSON."},
        "permissions": {"type": "object", "description": "Permissions of the record, as JSON."},
    },
    required=["attachment"],
    encoding={
        "attachment": {"contentType": "*/*"},
        "data": {"contentType": "application/json"},
        "permissions": {"contentType": "application/json"},
    },
)

PATHS: dict[str, Object] = {
    PATH: path_item(
        *_RECORD,
        get=download(
            "get_attachment",
            TAG,
            "Download the file of a record.",
        ),
        post=operation(
            "upload_attachment",
            TAG,
            "Attach a file to a record.",
            {
                "200": json_response(
                    "The file was attached to an existing record, whose former file is gone.",
                    ref("schemas", "Attachment"),
                    _VERSION,
                ),
                "201": json_response(
                    "A record was created with this file.", ref("schemas", "Attachment"), _VERSION
                ),
                **refusals(400, 401, 403, 404, 405, 408, 409, 412, 415),
            },
            conditions=RECORD_CONDITIONS,
            body={"required": True, "content": {"multipart/form-data": _FORM}},
            description="`data` is merged into a record that exists. A file over the limit of the"
            " server is a `400`.",
        ),
        delete=operation(
            "delete_attachment",
            TAG,
            "Delete the file of a record.",
            {
                "204": response("The file is gone; the record stays.", None, _VERSION[:2]),
                **refusals(400, 401, 403, 404, 405, 409, 412),
            },
            conditions=RECORD_CONDITIONS,
        ),
    ),
    f"{PATH}/{{size}}": path_item(
        *_RECORD,
        SIZE,
        get=download(
            "get_attachment_image",
            TAG,
            "Get the image of a record at another size.",
            IMAGE,
            parameters=[FORMAT],
        ),
    ),
}
