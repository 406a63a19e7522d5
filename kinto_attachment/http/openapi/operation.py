"""How the doors describe what their routes do: path items of OpenAPI 3.1."""

from collections.abc import Iterable, Mapping
from typing import Any

from .components import (
    BINARY,
    FILE_HEADERS,
    FILE_PARAMETERS,
    Object,
    ref,
    refusals,
    response,
)

ANY_FILE = {"application/octet-stream": BINARY, "*/*": BINARY}
"""The content of a response with a file of any type."""

DOWNLOAD: Object = {
    "200": response("The file.", ANY_FILE, FILE_HEADERS),
    "206": response(
        "The requested ranges of the file. Several of them are the parts of a"
        " `multipart/byteranges`.",
        {**ANY_FILE, "multipart/byteranges": BINARY},
        (*FILE_HEADERS, "Content-Range"),
    ),
    "304": response("The client already has the file.", None, ("ETag", "Last-Modified")),
    "307": response(
        "The storage has the file at this URL for a limited time (`download = redirect`).",
        None,
        ("Location",),
    ),
    **refusals(400, 401, 403, 404, 412, 416),
}
"""The responses to a download."""

_FAILURES = refusals(500, 503)

_NOT_OF_HEAD = ("206", "307", "416")


def operation(
    operation_id: str,
    tag: str,
    summary: str,
    responses: Object,
    *,
    parameters: Iterable[Object] = (),
    conditions: Iterable[str] = (),
    body: Object | None = None,
    description: str = "",
    is_public: bool = False,
) -> Object:
    """Return an operation object.

    :param responses: by their statuses, but for those to failures, which every operation has.
    :param parameters: parameters in full.
    :param conditions: names of shared parameters.
    :param body: a request body object.
    :param is_public: whether no permission is needed.
    """
    made: Object = {"operationId": operation_id, "tags": [tag], "summary": summary}
    if description:
        made["description"] = description
    listed = [*parameters, *(ref("parameters", name) for name in conditions)]
    if listed:
        made["parameters"] = listed
    if body:
        made["requestBody"] = body
    if is_public:
        made["security"] = []
    return {**made, "responses": dict(sorted({**responses, **_FAILURES}.items()))}


def download(
    operation_id: str, tag: str, summary: str, responses: Object = DOWNLOAD, **options: Any
) -> Object:
    """Return the operation of a ``GET`` that serves a file."""
    return operation(operation_id, tag, summary, responses, conditions=FILE_PARAMETERS, **options)


def path_item(*parameters: Object, **operations: Object) -> Object:
    """Return a path item object.

    :param parameters: those of the path.
    :param operations: operations by their methods, in lower case. ``head`` is by default like
        ``get``, without the bodies.
    """
    made: Object = {"parameters": list(parameters)} if parameters else {}
    if "get" in operations:
        made["head"] = _as_head(operations["get"])
    return {**made, **operations}


def _as_head(get: Object) -> Object:
    responses = {
        status: {name: value for name, value in each.items() if name != "content"}
        for status, each in get["responses"].items()
        if status not in _NOT_OF_HEAD
    }
    summary = f"The headers of: {get['summary']}"
    return {
        **get,
        "operationId": f"{get['operationId']}_headers",
        "summary": summary,
        "responses": responses,
    }


def parameter(place: str, name: str, description: str, **schema: Any) -> Object:
    """Return a parameter object.

    :param place: ``path``, ``query`` or ``header``.

    >>> parameter("path", "size", "Width and height.", pattern=r"^[0-9]+x[0-9]+$")["required"]
    True
    """
    made = {"name": name, "in": place, "description": description}
    if place == "path":
        made["required"] = True
    return {**made, "schema": {"type": "string", **schema}}


def json_body(
    schema: Object, description: str, mimetypes: Iterable[str] = ("application/json",)
) -> Object:
    """Return a request body object for JSON."""
    content = {name: {"schema": schema} for name in mimetypes}
    return {"required": True, "description": description, "content": content}


def form(
    properties: Mapping[str, Object], required: Iterable[str], encoding: Mapping[str, Object]
) -> Object:
    """Return the media type object of a multipart form.

    :param encoding: the ``Content-Type`` of some parts.
    """
    schema = {"type": "object", "properties": dict(properties), "required": list(required)}
    return {"schema": schema, "encoding": dict(encoding)}
