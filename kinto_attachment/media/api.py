"""What the routes of the media store do, for :mod:`kinto_attachment.http.openapi`."""

from typing import Any

from ..http.openapi.components import (
    BINARY,
    Object,
    json_response,
    ref,
    refusals,
    response,
)
from ..http.openapi.operation import (
    download,
    json_body,
    operation,
    parameter,
    path_item,
)
from ..http.requests import FLAGS
from ..library import api as library_api
from .context import DIGEST_HEADERS, MAX_STAT

TAG = "Media store"

_DIGEST = ref("schemas", "Sha256")

SCHEMAS: dict[str, Object] = {
    "StoredMedia": {
        "type": "object",
        "description": "What the media store keeps.",
        "properties": {
            "hash": _DIGEST,
            "size": {"type": "integer", "minimum": 1, "description": "The size in bytes."},
            "mimetype": {"type": "string", "description": "The media type."},
            "verified": {"type": "boolean", "description": "Whether the bytes were hashed."},
            "location": {"type": "string", "description": "The URL of the bytes."},
        },
        "required": ["hash", "size", "mimetype", "verified", "location"],
    },
    "KnownHashes": {
        "type": "object",
        "description": "The hashes that a request listed.",
        "properties": {
            "present": {"type": "array", "items": _DIGEST, "description": "The user can get them."},
            "missing": {"type": "array", "items": _DIGEST, "description": "All others."},
        },
        "required": ["present", "missing"],
    },
}

_HASH = parameter("path", "hash", "The SHA-256 in hexadecimal digits.", pattern="^[0-9A-Fa-f]{64}$")

_VERIFY = parameter(
    "query",
    "verify",
    "`false`: respond at once, and hash the bytes later. The hash has to be in the URL, or in a"
    " header.",
    enum=[*FLAGS],
    default="true",
)

_HEADERS = tuple(
    parameter(
        "header",
        name,
        "The SHA-256 of the body, such as `sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:`"
        " (RFC 9530).",
    )
    for name in DIGEST_HEADERS
)

_BODY: Object = {
    "required": True,
    "description": "The bytes. `Content-Type` is their media type.",
    "content": {"application/octet-stream": {"schema": BINARY}, "*/*": {"schema": BINARY}},
}

_LIST = {"type": "array", "items": {"type": "string"}, "maxItems": MAX_STAT}

_QUESTION: Object = {
    "description": "The hashes, alone or as the attribute `hashes`.",
    "oneOf": [
        {"type": "object", "properties": {"hashes": _LIST}, "required": ["hashes"]},
        _LIST,
    ],
}


def _stored(description: str, headers: tuple[str, ...] = ("ETag", "Location")) -> Object:
    content = {"text/plain": _DIGEST, "application/json": ref("schemas", "StoredMedia")}
    return response(
        f"{description} The body is the hash, or a description for `Accept: application/json`.",
        content,
        headers,
    )


_RESPONSES: Object = {
    "200": _stored("The user had stored these bytes before."),
    "201": _stored("The bytes are stored."),
    "202": _stored("The bytes are stored, and a `404` until they were hashed.", ("Location",)),
    **refusals(400, 401, 403, 404, 408, 413, 415),
}


def _store(operation_id: str, summary: str, **options: Any) -> Object:
    return operation(
        operation_id,
        TAG,
        summary,
        options.pop("responses", _RESPONSES),
        parameters=[_VERIFY, *_HEADERS],
        body=options.pop("body", _BODY),
        **options,
    )


PATHS: dict[str, Object] = {
    "/media": path_item(post=_store("store_media", "Store bytes, and get their hash.")),
    "/media/stat": path_item(
        post=operation(
            "stat_media",
            TAG,
            "Ask which hashes can be downloaded.",
            {
                "200": json_response("Which are there.", ref("schemas", "KnownHashes")),
                **refusals(400, 401, 403, 408, 413, 415),
            },
            body=json_body(_QUESTION, f"Up to {MAX_STAT} hashes."),
        ),
    ),
    "/media/{hash}": path_item(
        _HASH,
        get=download("get_media", TAG, "Download the bytes of a hash."),
        post=_store("store_media_by_hash", "Store bytes if they have this hash."),
        put=_store("put_media", "Store bytes if they have this hash."),
        delete=operation(
            "delete_media",
            TAG,
            "Delete the user's entry of a hash.",
            {
                "204": response(
                    "The entry is gone. `gc` deletes the bytes once no user has an entry."
                ),
                **refusals(400, 401, 403, 404),
            },
        ),
    ),
}


def with_library() -> dict[str, Object]:
    """Return the path item of ``/media`` on a server where it also takes forms for the media
    library."""
    content = {**_BODY["content"], "multipart/form-data": library_api.FORM}
    uploaded = _stored("The bytes are stored.")
    uploaded["content"]["application/json"] = {
        "schema": {"oneOf": [ref("schemas", "StoredMedia"), ref("schemas", "MediaFile")]}
    }
    return {
        "/media": path_item(
            post=_store(
                "store_media",
                "Store bytes, and get their hash; or upload a file to the media library.",
                responses={**_RESPONSES, "201": uploaded, **refusals(409)},
                body={**_BODY, "content": content},
                description="A form uploads its file to the media library; every other body is"
                " stored under its hash.",
            )
        )
    }
