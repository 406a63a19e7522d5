"""The third door, step two: objects that describe files.

They are the records of one collection; ``/content/_media`` is another name for those.
"""

import json
from typing import Any
from urllib.parse import quote

from kinto.core import Service
from kinto.core.utils import build_request
from pyramid.request import Request
from pyramid.response import Response
from pyramid.security import NO_PERMISSION_REQUIRED

from .. import library, records
from ..errors import FieldRefused
from ..retry import allow_retry
from .library_context import check_library, library_of
from .schemas import ERRORS, EXPOSED_HEADERS

_ALIAS: dict[str, Any] = {
    # Kinto asks for permissions where the records are.
    "permission": NO_PERMISSION_REQUIRED,
    "tags": ["Media library"],
    "response_schemas": ERRORS,
}
_HEADERS = (*EXPOSED_HEADERS, "Next-Page", "Total-Count", "Total-Objects", "Total-Records")

content = Service(
    name="content",
    path=f"/content/{library.NAME}",
    description="Objects of the media library",
    cors_headers=_HEADERS,
)
content_object = Service(
    name="content-object",
    path=f"/content/{library.NAME}/{{id}}",
    description="One of them",
    cors_headers=_HEADERS,
)
content_type = Service(
    name="content-type",
    path=f"/internal/contenttype/{library.NAME}",
    description="What they are",
    cors_headers=_HEADERS,
)
SERVICES = (content, content_object, content_type)


@content_type.get(
    permission=NO_PERMISSION_REQUIRED,
    tags=["Media library"],
    operation_id="get_media_definition",
)
def get_definition(request: Request) -> dict[str, Any]:
    """The content type definition of ``_media`` objects."""
    return library.definition()


@content.get(operation_id="list_media_objects", **_ALIAS)
def get_list(request: Request) -> Response:
    """Those one may read, with the filters, sorting and pages of Kinto's records."""
    response = _as_records(request)
    if "Next-Page" in response.headers:
        _, _, query = response.headers["Next-Page"].partition("?")
        response.headers["Next-Page"] = f"{request.route_url('content')}?{query}"
    return response


@content.post(operation_id="create_media_object", **_ALIAS)
def create(request: Request) -> Response:
    """Make an object of an upload: what that was answered with, and a description."""
    body = _enveloped(request)
    if isinstance(body, dict) and not isinstance(body.get("data", {}), dict):
        raise FieldRefused("is no object", "data")
    allow_retry(request)
    response = _as_records(request, body=body)
    if response.status_code != 201:
        raise FieldRefused("it was claimed already", "id")
    location = request.route_url("content-object", id=response.json["data"]["id"])
    response.headers["Location"] = location
    return response


@content_object.get(operation_id="get_media_object", **_ALIAS)
@content_object.delete(operation_id="delete_media_object", **_ALIAS)
def get_or_delete(request: Request) -> Response:
    """One object; its file goes with it."""
    return _as_records(request, request.matchdict["id"])


@content_object.put(operation_id="replace_media_object", **_ALIAS)
@content_object.patch(operation_id="update_media_object", **_ALIAS)
def describe(request: Request) -> Response:
    """Describe an object. What its file is stays."""
    return _as_records(request, request.matchdict["id"], body=_enveloped(request))


def _enveloped(request: Request) -> Any:
    """The body as Kinto wants it: attributes alone are the ``data`` of an object.

    :raises FieldRefused: it is not JSON.
    """
    try:
        body = json.loads(request.body or b"{}")
    except (ValueError, RecursionError) as error:
        raise FieldRefused(f"not valid JSON ({error})", "body") from error
    if isinstance(body, dict) and body and not body.keys() & {"data", "permissions"}:
        return {"data": body}
    return body


def _as_records(request: Request, object_id: str = "", body: Any = None) -> Response:
    """What Kinto answers where the records are; see :func:`kinto_attachment.records.invoke`."""
    shelf = library_of(request)
    check_library(request, shelf)
    path = f"{shelf.uri}/records" + (f"/{quote(object_id, safe='')}" if object_id else "")
    query = f"?{request.query_string}" if request.query_string else ""
    spec: dict[str, Any] = {"method": request.method, "path": path + query}
    if body is not None:
        declared = request.headers.get("Content-Type", "application/json")
        spec |= {"body": json.dumps(body), "headers": {"Content-Type": declared}}
    return records.invoke(request, build_request(request, spec))
