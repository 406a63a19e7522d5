"""What the routes below records do, for :mod:`kinto_attachment.http.openapi`."""

from typing import Any

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

_RECORD_PATH = "/buckets/{bucket_id}/collections/{collection_id}/records/{id}"
PATH = f"{_RECORD_PATH}/attachment"
FILES = f"{_RECORD_PATH}/attachments"
FIELD = f"{FILES}/{{field}}"
"""Below the version prefix."""

ENTRY = r"{entry:[0-9a-f]{8}-[0-9a-f-]{27}}"
"""An entry of a list, in a route."""

IMAGE_SIZE = r"{width:\d+}x{height:\d+}"
"""The size of an image, in a route. OpenAPI tells it from an entry by the ``x``."""

FORMATS = ("webp", "avif", "jpeg", "png")
"""What ``?format=`` may ask for."""

TAG = "Attachments"

_DESCRIPTION: Object = {
    "filename": {"type": "string", "description": "As the client named the file."},
    "hash": ref("schemas", "Sha256"),
    "location": {"type": "string", "description": "The URL of the file."},
    "mimetype": {"type": "string", "description": "The media type of the file."},
    "size": {"type": "integer", "minimum": 0, "description": "The size in bytes."},
}

_ENTRY_ID = {"type": "string", "format": "uuid", "description": "The id of the entry."}

_ENTRIES: Object = {"type": "array", "items": ref("schemas", "Entry")}

_FILE_OR_ENTRY: Object = {"anyOf": [ref("schemas", "Entry"), ref("schemas", "Attachment")]}

SCHEMAS: dict[str, Object] = {
    "Attachment": {
        "type": "object",
        "description": "A file in the attribute `attachment` of a record, or in another field. Only"
        " the server writes it.",
        "properties": _DESCRIPTION,
        "required": [*_DESCRIPTION],
    },
    "Entry": {
        "type": "object",
        "description": "A file in a field that is a list. Only the server writes it.",
        "properties": {"id": _ENTRY_ID, **_DESCRIPTION},
        "required": ["id", *_DESCRIPTION],
    },
    "Fields": {
        "type": "object",
        "description": "Files of a record, by the names of their fields: an object for a single"
        " file, and a list of entries for a list.",
        "additionalProperties": {"anyOf": [ref("schemas", "Attachment"), _ENTRIES]},
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

RECORD_PARAMETERS = (
    parameter("path", "bucket_id", "The id of the bucket; `default` for that of the user."),
    parameter("path", "collection_id", "The id of the collection."),
    parameter("path", "id", "The id of the record."),
)

FIELD_PARAMETER = parameter(
    "path",
    "field",
    "The name of a field that the settings declare for the collection.",
    pattern="^[a-z][a-z0-9_]{0,62}$",
)

_ENTRY = parameter(
    "path",
    "entry",
    "The id of an entry of the list.",
    format="uuid",
    pattern="^[0-9a-f]{8}-[0-9a-f-]{27}$",
)

_SIDES = tuple(
    parameter(
        "path",
        name,
        f"The {name} in pixels. `0` keeps the proportions; `0x0` is the file as it was uploaded.",
        pattern="^[0-9]+$",
    )
    for name in ("width", "height")
)

_VERSION = ("ETag", "Last-Modified", "Location")

_TEXT_PARTS: Object = {
    "data": {"type": "object", "description": "Attributes of the record, as JSON."},
    "permissions": {"type": "object", "description": "Permissions of the record, as JSON."},
}

_TEXT_TYPES = {name: {"contentType": "application/json"} for name in _TEXT_PARTS}

_FORM = form(
    {"attachment": {**BINARY, "description": "The file, with a filename."}, **_TEXT_PARTS},
    required=["attachment"],
    encoding={"attachment": {"contentType": "*/*"}, **_TEXT_TYPES},
)

_FORM_OF_FIELDS = form(_TEXT_PARTS, required=[], encoding=_TEXT_TYPES)
# Not an array: openapi-python-client writes invalid Python for arrays here.
_FORM_OF_FIELDS["schema"]["additionalProperties"] = {
    **BINARY,
    "description": "A file with a filename, in a part that has the name of its field. A list may"
    " have several such parts.",
}

_NOT_WRITTEN = refusals(400, 401, 403, 404, 405, 408, 409, 412, 415)
_NOT_DELETED = refusals(400, 401, 403, 404, 405, 409, 412)


def _sending(*args: Any, content: Object = _FORM, description: str = "") -> Object:
    """Return the operation of a request that sends a form.

    :param args: the first arguments of :func:`operation`.
    """
    return operation(
        *args,
        conditions=RECORD_CONDITIONS,
        body={"required": True, "content": {"multipart/form-data": content}},
        description=f"{description} A file over the limit of the server is a `400`.".strip(),
    )


def _deleting(operation_id: str, summary: str, result: str) -> Object:
    """Return the operation of a ``DELETE``."""
    responses = {"204": response(result, None, _VERSION[:2]), **_NOT_DELETED}
    return operation(operation_id, TAG, summary, responses, conditions=RECORD_CONDITIONS)


def _image(operation_id: str, summary: str) -> Object:
    """Return the operation of a ``GET`` of an image."""
    return download(operation_id, TAG, summary, IMAGE, parameters=[FORMAT])


_FIELD_CONTENT: Object = {
    **DOWNLOAD,
    "200": response(
        "The file. If the field is a list: its entries, as JSON.",
        # A file may be JSON, too.
        {**ANY_FILE, "application/json": {"anyOf": [_ENTRIES, {"description": "The file."}]}},
        FILE_HEADERS,
    ),
}


def _entry_operations(prefix: str) -> Object:
    """Return the operations on an entry of a list.

    :param prefix: of the names of the operations, after their verb.
    """
    return {
        "get": download(f"get_{prefix}entry", TAG, "Download the file of an entry of a list."),
        "put": _sending(
            f"replace_{prefix}entry",
            TAG,
            "Replace the file of an entry of a list. Its id and its position stay.",
            {
                "200": json_response("The new entry.", ref("schemas", "Entry"), _VERSION),
                **_NOT_WRITTEN,
            },
        ),
        "delete": _deleting(
            f"delete_{prefix}entry",
            "Delete an entry of a list, with its file.",
            "The entry is gone; the other ones stay.",
        ),
    }


_OF_A_LIST = " Only where the settings declare `attachment[]`."


def _only_of_a_list(operations: Object) -> Object:
    return {
        name: {**each, "description": f"{each.get('description', '')}{_OF_A_LIST}".strip()}
        for name, each in operations.items()
    }


_ATTACHMENT: dict[str, Object] = {
    PATH: path_item(
        *RECORD_PARAMETERS,
        get=download(
            "get_attachment",
            TAG,
            "Download the file of a record.",
        ),
        post=_sending(
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
                **_NOT_WRITTEN,
            },
            description="`data` is merged into a record that exists.",
        ),
        delete=_deleting(
            "delete_attachment",
            "Delete the file of a record.",
            "The file is gone; the record stays.",
        ),
    ),
    f"{PATH}/{{width}}x{{height}}": path_item(
        *RECORD_PARAMETERS,
        *_SIDES,
        get=_image("get_attachment_image", "Get the image of a record at another size."),
    ),
    f"{PATH}/{{entry}}": path_item(
        *RECORD_PARAMETERS, _ENTRY, **_only_of_a_list(_entry_operations("attachment_"))
    ),
    f"{PATH}/{{entry}}/{{width}}x{{height}}": path_item(
        *RECORD_PARAMETERS,
        _ENTRY,
        *_SIDES,
        **_only_of_a_list(
            {
                "get": _image(
                    "get_attachment_entry_image", "Get the image of an entry at another size."
                )
            }
        ),
    ),
}

_FIELDS: dict[str, Object] = {
    FILES: path_item(
        *RECORD_PARAMETERS,
        get=operation(
            "get_attachments",
            TAG,
            "Get what a record says about its files, by their fields.",
            {
                "200": json_response(
                    "The fields that have files.", ref("schemas", "Fields"), _VERSION[:2]
                ),
                "304": response("The client already has this version.", None, _VERSION[:2]),
                **refusals(400, 401, 403, 404, 412),
            },
            conditions=RECORD_CONDITIONS,
        ),
        post=_sending(
            "upload_attachments",
            TAG,
            "Attach several files to a record: all of them, or none.",
            {
                "200": json_response(
                    "The files were attached to an existing record. These are the fields that were"
                    " written, a list with its new entries only.",
                    ref("schemas", "Fields"),
                    _VERSION,
                ),
                "201": json_response(
                    "A record was created with these files.", ref("schemas", "Fields"), _VERSION
                ),
                **_NOT_WRITTEN,
            },
            content=_FORM_OF_FIELDS,
            description="The files of a list are appended to it; another file replaces that of its"
            " field. `data` is merged into a record that exists.",
        ),
    ),
    FIELD: path_item(
        *RECORD_PARAMETERS,
        FIELD_PARAMETER,
        get=download(
            "get_field",
            TAG,
            "Download the file of a field, or list the entries of a list.",
            _FIELD_CONTENT,
        ),
        post=_sending(
            "upload_field",
            TAG,
            "Attach a file to a field, or append it to a list.",
            {
                "200": json_response(
                    "The file was attached to an existing record; the former file of the field is"
                    " gone.",
                    _FILE_OR_ENTRY,
                    _VERSION,
                ),
                "201": json_response(
                    "The file was appended to a list: `Location` is the URL of the entry. Or a"
                    " record was created with this file.",
                    _FILE_OR_ENTRY,
                    _VERSION,
                ),
                **_NOT_WRITTEN,
            },
            description="The part with the file may also have the name of the field. `data` is"
            " merged into a record that exists.",
        ),
        delete=_deleting(
            "delete_field",
            "Delete all files of a field.",
            "The files are gone; the record stays.",
        ),
    ),
    f"{FIELD}/{{width}}x{{height}}": path_item(
        *RECORD_PARAMETERS,
        FIELD_PARAMETER,
        *_SIDES,
        get=_image("get_field_image", "Get the image of a field at another size."),
    ),
    f"{FIELD}/{{entry}}": path_item(
        *RECORD_PARAMETERS, FIELD_PARAMETER, _ENTRY, **_entry_operations("")
    ),
    f"{FIELD}/{{entry}}/{{width}}x{{height}}": path_item(
        *RECORD_PARAMETERS,
        FIELD_PARAMETER,
        _ENTRY,
        *_SIDES,
        get=_image("get_entry_image", "Get the image of an entry at another size."),
    ),
}

PATHS: dict[str, Object] = {**_ATTACHMENT, **_FIELDS}
