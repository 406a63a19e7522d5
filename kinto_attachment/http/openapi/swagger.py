"""The same description in Swagger 2.0, which is what Kinto's document is written in.

Swagger 2.0 cannot say that a body is either a form or something else, that a value has one of
several types, or what type a part of a form has. What it cannot say is left out, so that the
document allows more than the server does.

https://github.com/OAI/OpenAPI-Specification/blob/main/versions/2.0.md
"""

from collections.abc import Iterable, Mapping
from typing import Any

from .components import BINARY, Object
from .document import METHODS, Description, resolve

_FORM = "multipart/form-data"
_NOT_IN_SWAGGER = {"oneOf", "anyOf", "const", "examples", "contentMediaType"}
_OF_PARAMETERS = ("type", "format", "enum", "pattern", "default", "minimum", "maximum", "items")


def to_swagger(
    description: Description, security: list[Object]
) -> tuple[dict[str, Object], dict[str, Object]]:
    """Return the path items and the definitions of a Swagger 2.0 document.

    :param security: how clients may authenticate, by the names of the security definitions.
    """
    paths = {path: _path_item(item, security) for path, item in description.paths.items()}
    return paths, {name: _schema(schema) for name, schema in description.schemas.items()}


def _path_item(item: Object, security: list[Object]) -> Object:
    made: Object = {
        method: {"security": security, **_operation(item[method])}
        for method in METHODS
        if method in item
    }
    if "parameters" in item:
        made["parameters"] = [_parameter(each) for each in item["parameters"]]
    return made


def _operation(operation: Object) -> Object:
    made = {
        name: operation[name]
        for name in ("operationId", "tags", "summary", "description", "security")
        if name in operation
    }
    parameters = [_parameter(each) for each in operation.get("parameters", ())]
    responses = {status: resolve(each) for status, each in operation["responses"].items()}
    if "requestBody" in operation:
        made["consumes"], body = _body(operation["requestBody"])
        parameters += body
    if parameters:
        made["parameters"] = parameters
    types = dict.fromkeys(name for each in responses.values() for name in each.get("content", ()))
    made["produces"] = list(types)
    made["responses"] = {status: _response(each) for status, each in responses.items()}
    return made


def _parameter(parameter: Object) -> Object:
    resolved = resolve(parameter)
    schema = resolved["schema"]
    made = {name: resolved[name] for name in ("name", "in", "description")}
    made["required"] = resolved.get("required", False)
    return {**made, **{name: schema[name] for name in _OF_PARAMETERS if name in schema}}


def _body(body: Object) -> tuple[list[str], list[Object]]:
    """Return the media types of a request body and its parameters. An operation has either form
    fields or a body, so a form that is only one of several types is left out."""
    others = {name: each for name, each in body["content"].items() if name != _FORM}
    if not others:
        return [_FORM], list(_form_fields(body["content"][_FORM]["schema"]))
    schema = next(iter(others.values()))["schema"]
    parameter = {"name": "body", "in": "body", "required": body.get("required", False)}
    return list(others), [
        {**parameter, "description": body.get("description", ""), "schema": _schema(schema)}
    ]


def _form_fields(schema: Object) -> Iterable[Object]:
    for name, each in schema["properties"].items():
        field = {"name": name, "in": "formData", "required": name in schema["required"]}
        field["description"] = each.get("description", "")
        if each.get("format") == BINARY["format"]:
            yield {**field, "type": "file"}
        elif each.get("type") == "object":
            yield {**field, "type": "string", "format": "json"}
        else:
            yield {**field, **{key: each[key] for key in _OF_PARAMETERS if key in each}}


def _response(response: Object) -> Object:
    made: Object = {"description": response["description"]}
    if "headers" in response:
        made["headers"] = {
            name: {"description": header["description"], **header["schema"]}
            for name, header in (
                (name, resolve(each)) for name, each in response["headers"].items()
            )
        }
    schemas = [each["schema"] for each in response.get("content", {}).values()]
    if schemas:
        made["schema"] = _schema(schemas[0])  # "type": "file" is legal, but refused by validators
    return made


def _schema(schema: Any) -> Any:
    """Return a JSON Schema without what Swagger 2.0 does not know."""
    if isinstance(schema, list):
        return [_schema(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    made = {name: _schema(value) for name, value in schema.items() if name not in _NOT_IN_SWAGGER}
    if isinstance(made.get("$ref"), str):
        made["$ref"] = made["$ref"].replace("#/components/schemas/", "#/definitions/")
    if isinstance(made.get("type"), list):
        made["type"] = next(name for name in made["type"] if name != "null")
    return made
