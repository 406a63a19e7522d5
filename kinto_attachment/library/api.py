"""What the routes of the media library do, for :mod:`kinto_attachment.http.openapi`."""

from ..attachments.api import FORMAT, IMAGE, SIZE
from ..http.openapi.components import (
    BINARY,
    RECORD_CONDITIONS,
    Object,
    json_response,
    ref,
    refusals,
    response,
)
from ..http.openapi.operation import (
    DOWNLOAD,
    download,
    form,
    json_body,
    operation,
    parameter,
    path_item,
)
from ..http.requests import FLAGS
from .schema import FACTS, FILE, NAME, PROPERTIES, REQUIRED
from .schema import IMAGE as IMAGE_TYPE

TAG = "Media library"

_ID: Object = {"type": "string", "description": "The id of the file and of its object."}
_ATTRIBUTES = {each.name: {**each.schema, "description": each.title} for each in PROPERTIES}
_RECORD: dict[str, Object] = {
    "last_modified": {"type": "integer", "description": "The version of the object."},
    "schema": {"type": "integer"},
    "attachment": ref("schemas", "Attachment"),
}
_PERMISSIONS = {
    "type": "object",
    "additionalProperties": {"type": "array", "items": {"type": "string"}},
    "description": "Lists of principals by the names of permissions.",
}

SCHEMAS: dict[str, Object] = {
    "MediaFile": {
        "type": "object",
        "description": "What the server knows of an uploaded file. With this id, the client creates"
        f" the `{NAME}` object.",
        "properties": {"id": _ID, **{name: _ATTRIBUTES[name] for name in FACTS}},
        "required": ["id", *FACTS],
    },
    "MediaObject": {
        "type": "object",
        "description": f"A `{NAME}` object: a file of the library, and its description.",
        "properties": {"id": _ID, **_ATTRIBUTES, **_RECORD},
        "required": ["id", "last_modified", *REQUIRED],
    },
    "MediaDescription": {
        "type": "object",
        "description": f"Attributes of a `{NAME}` object. What describes the file itself may be"
        " sent if it is right.",
        "properties": {"id": _ID, **_ATTRIBUTES, **_RECORD},
        "additionalProperties": False,
    },
    "MediaDescriptionEnvelope": {
        "type": "object",
        "description": "The same with permissions, as everywhere in Kinto.",
        "properties": {
            "data": ref("schemas", "MediaDescription"),
            "permissions": _PERMISSIONS,
        },
        "additionalProperties": False,
    },
    "StoredMediaObject": {
        "type": "object",
        "properties": {"data": ref("schemas", "MediaObject"), "permissions": _PERMISSIONS},
        "required": ["data"],
    },
    "MediaObjects": {
        "type": "object",
        "properties": {
            "data": {
                "type": "array",
                "items": {
                    "type": "object",
                    "description": "A `MediaObject`, or those attributes that `_fields` names.",
                },
            }
        },
        "required": ["data"],
    },
    "DeletedMediaObject": {
        "type": "object",
        "properties": {
            "data": {
                "type": "object",
                "properties": {
                    "id": _ID,
                    "last_modified": {"type": "integer"},
                    "deleted": {"type": "boolean", "const": True},
                },
                "required": ["id", "last_modified", "deleted"],
            }
        },
        "required": ["data"],
    },
}

FORM = form(
    {
        "file": {**BINARY, "description": "The file, with a filename."},
        "type": {
            "type": "string",
            "enum": [IMAGE_TYPE, FILE],
            "description": "What the file has to be.",
        },
        "save": {
            "type": "string",
            "enum": [*FLAGS],
            "description": "Whether to create the object at once.",
        },
    },
    required=["file"],
    encoding={"file": {"contentType": "*/*"}},
)
"""The form that uploads a file to the library."""

_SAVE = parameter(
    "query", "save", "Whether to create the object at once.", enum=[*FLAGS], default="no"
)
_ID_IN_PATH = parameter("path", "id", "The id of the object.")
_FILE = parameter(
    "path",
    "file",
    "The id of the object with the extension of its file, such as `2f1c2f1e.jpg`.",
    pattern=r"^[^/]+\.[^/.]+$",
)
_NAME = parameter(
    "path",
    "file",
    "Any name with the extension of the file, such as `lake.jpg`.",
    pattern=r"^[^/]+\.[^/.]+$",
)

_LISTING = (
    parameter("query", "_limit", "How many objects a page has at most."),
    parameter("query", "_sort", "Attributes to sort by, such as `-last_modified,title`."),
    parameter("query", "_fields", "Attributes to return, separated by commas."),
    parameter("query", "_since", "Only objects that were changed after this version."),
    parameter("query", "_before", "Only objects that were changed before this version."),
    parameter("query", "_token", "The next page: use the URL in `Next-Page` as it is."),
)

_VERSION = ("ETag", "Last-Modified")
_OBJECT = ref("schemas", "StoredMediaObject")
_UNCHANGED = {"304": response("The client already has this version.", None, _VERSION)}
_READ = refusals(400, 401, 403, 404, 406, 412)
_WRITE = {**_READ, **refusals(405, 408, 409, 413, 415)}

_DESCRIPTION: Object = {
    "oneOf": [ref("schemas", "MediaDescription"), ref("schemas", "MediaDescriptionEnvelope")]
}
_BODY = json_body(_DESCRIPTION, "The attributes, alone or as `data` beside `permissions`.")
_PATCH = json_body(
    _DESCRIPTION,
    "The attributes that change.",
    ("application/json", "application/merge-patch+json"),
)
_PATCH["content"]["application/json-patch+json"] = {
    "schema": {"type": "array", "items": {"type": "object"}}
}

PATHS: dict[str, Object] = {
    f"/content/{NAME}": path_item(
        get=operation(
            "list_media_objects",
            TAG,
            "List the objects that the user may read.",
            {
                "200": json_response(
                    "A page of objects. `Next-Page` has the URL of the next one.",
                    ref("schemas", "MediaObjects"),
                    _VERSION,
                ),
                **_UNCHANGED,
                **_READ,
            },
            parameters=_LISTING,
            conditions=RECORD_CONDITIONS,
            description="Every attribute is a filter, too, such as `?type=image`. Kinto's"
            " documentation has all filters.",
        ),
        post=operation(
            "create_media_object",
            TAG,
            "Create the object of an uploaded file.",
            {
                "201": json_response("The object was created.", _OBJECT, (*_VERSION, "Location")),
                **_WRITE,
            },
            conditions=RECORD_CONDITIONS,
            body=_BODY,
            description="The body is the response to the upload, with `alt`, `title`, `tags` and"
            " `variants` if there is something to say.",
        ),
    ),
    f"/content/{NAME}/{{id}}": path_item(
        _ID_IN_PATH,
        get=operation(
            "get_media_object",
            TAG,
            "Get an object.",
            {"200": json_response("The object.", _OBJECT, _VERSION), **_UNCHANGED, **_READ},
            conditions=RECORD_CONDITIONS,
        ),
        put=operation(
            "replace_media_object",
            TAG,
            "Replace the description of a file.",
            {
                "200": json_response("The object was changed.", _OBJECT, _VERSION),
                "201": json_response("The object was created.", _OBJECT, _VERSION),
                **_WRITE,
            },
            conditions=RECORD_CONDITIONS,
            body=_BODY,
        ),
        patch=operation(
            "update_media_object",
            TAG,
            "Change the description of a file.",
            {"200": json_response("The object was changed.", _OBJECT, _VERSION), **_WRITE},
            conditions=RECORD_CONDITIONS,
            body=_PATCH,
        ),
        delete=operation(
            "delete_media_object",
            TAG,
            "Delete an object, its file and all sizes of it.",
            {
                "200": json_response(
                    "The object is gone.", ref("schemas", "DeletedMediaObject"), _VERSION
                ),
                **_READ,
                **refusals(405, 409),
            },
            conditions=RECORD_CONDITIONS,
        ),
    ),
    f"/internal/contenttype/{NAME}": path_item(
        get=operation(
            "get_media_definition",
            TAG,
            f"Get the content type definition of `{NAME}` objects.",
            {"200": json_response("The definition.", {"type": "object"})},
            is_public=True,
        ),
    ),
    "/original/{file}": path_item(
        _FILE,
        get=download(
            "get_original",
            TAG,
            "Download a file of the library as it was uploaded.",
            DOWNLOAD,
        ),
    ),
    "/image/{size}/{file}": path_item(
        SIZE,
        _FILE,
        get=download(
            "get_image",
            TAG,
            "Get an image of the library at another size.",
            IMAGE,
            parameters=[FORMAT],
        ),
    ),
    "/image/{size}/{id}/{file}": path_item(
        SIZE,
        _ID_IN_PATH,
        _NAME,
        get=download(
            "get_named_image",
            TAG,
            "Get an image of the library at another size, under a name of any choice.",
            IMAGE,
            parameters=[FORMAT],
        ),
    ),
    "/image/{size}/{id}/{file}/variant/{variant}": path_item(
        SIZE,
        _ID_IN_PATH,
        _NAME,
        parameter("path", "variant", "The name of a part of the image, in its `variants`."),
        get=download(
            "get_image_variant",
            TAG,
            "Get a named part of an image at another size.",
            IMAGE,
            parameters=[FORMAT],
        ),
    ),
}

_IMPORTED = {
    "201": json_response("The photo was imported.", ref("schemas", "MediaFile")),
    **refusals(400, 401, 403, 404, 409, 413, 429, 502, 504),
}

UNSPLASH: dict[str, Object] = {
    "/unsplash/{id}": path_item(
        parameter("path", "id", "The id of the photo at Unsplash."),
        get=operation(
            "import_photo",
            TAG,
            "Import a photo from Unsplash.",
            _IMPORTED,
            parameters=[_SAVE],
            description="A page of another site gets a `403`: use `POST` there.",
        ),
        post=operation(
            "import_photo_by_post",
            TAG,
            "Import a photo from Unsplash.",
            _IMPORTED,
            parameters=[_SAVE],
        ),
        head={
            "operationId": "import_photo_headers",
            "tags": [TAG],
            "summary": "Not offered.",
            "responses": refusals(401, 403, 404, 405, 503),
        },
    ),
}
