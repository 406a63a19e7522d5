"""``GET /attachments/__api__``, and what this plugin adds to Kinto's ``GET /__api__``."""

from typing import Any

from kinto.core import Service
from kinto.core.openapi import OpenAPI
from kinto.core.utils import reapply_cors
from kinto.core.views.openapi import openapi as kintos
from kinto.core.views.openapi import openapi_view
from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response
from pyramid.security import NO_PERMISSION_REQUIRED

from ..responses import add_services
from .components import json_response
from .document import Description
from .operation import operation, path_item
from .swagger import to_swagger

PATH = "/attachments/__api__"

description = Service(
    name="attachments-openapi", path=PATH, description="OpenAPI 3.1 description of attachments"
)

API = {
    PATH: path_item(
        get=operation(
            "get_attachments_openapi",
            "Attachments",
            "This document.",
            {"200": json_response("An OpenAPI 3.1 document.", {"type": "object"})},
            is_public=True,
        )
    )
}


def install(config: Configurator) -> None:
    """Add the route, and put this plugin's operations into Kinto's document."""
    config.registry.attachment_api.add(API)
    add_services(config, [description])
    config.add_view(
        get_swagger,
        route_name="openapi",
        request_method="GET",
        permission=NO_PERMISSION_REQUIRED,
        path_info=r"^/v\d+/__api__$",
        **_same_predicates(),
    )


def _same_predicates() -> dict[str, Any]:
    """Return what describes Kinto's own view of that route. To Pyramid these are predicates, which
    are always met, and it prefers the view that has one more."""
    _, _, arguments = kintos.definitions[0]
    names = ("tags", "operation_id", "response_schemas", "api_security")
    return {name: arguments[name] for name in names if name in arguments}


@description.get(permission=NO_PERMISSION_REQUIRED)
def get_openapi(request: Request) -> dict[str, Any]:
    """Return the OpenAPI document of this plugin."""
    api: Description = request.registry.attachment_api
    return api.to_openapi(request.route_path("hello").rstrip("/"))


def get_swagger(request: Request) -> Response:
    """Return Kinto's document with this plugin's operations in it. Kinto's generator sees only the
    views, so what it says of them lacks bodies, parameters and media types."""
    document = openapi_view(request)
    security = [{name: list(scopes)} for name, scopes in OpenAPI.security_roles.items()]
    paths, definitions = to_swagger(request.registry.attachment_api, security)
    definitions = {**document.get("definitions", {}), **definitions}
    ours = _routes(request)
    kintos = {path: item for path, item in document["paths"].items() if path not in ours}
    merged = {**document, "paths": {**kintos, **paths}, "definitions": definitions}
    return reapply_cors(request, Response(json=merged))


def _routes(request: Request) -> set[str]:
    """Return the paths of all services of this plugin, with their regular expressions."""
    registry = request.registry
    services = registry.cornice_services.values()
    return {each.path for each in services if each.name in registry.attachment_services}
