"""What a ``_media`` object is.

A library is a Kinto collection whose records have an attachment and describe it. One table,
:data:`PROPERTIES`, declares their attributes. The content type definition, the schema of the
collection and what Kinto Admin shows of it are made from that table.
"""

from collections.abc import Mapping
from mimetypes import guess_extension
from typing import Any, NamedTuple

from jsonschema import Draft7Validator

from ..errors import FieldRefused
from ..files.blob import ATTRIBUTE
from ..files.filename import extension_of
from ..images.formats.header import ImageHeader
from ..images.plan import Trim

NAME = "_media"
LABEL = "Media"

IMAGE, FILE = "image", "file"
DISK, UNSPLASH = "disk", "unsplash"


class Property(NamedTuple):
    """An attribute of a ``_media`` object.

    :param schema: the JSON Schema of its value.
    :param input: the kind of form field in which an editor enters it.
    :param is_fact: whether it describes the file: then only the server writes it.
    """

    name: str
    schema: Mapping[str, Any]
    title: str
    input: str = "text"
    is_fact: bool = True
    is_required: bool = True


_TEXT, _NUMBER = {"type": "string"}, {"type": "number"}
_SIDE = {"type": "integer", "minimum": 0, "maximum": 100_000}
_VARIANT = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"},
        "trim": {
            "type": "object",
            "properties": dict.fromkeys(("top", "left", "width", "height"), _SIDE),
            "required": ["top", "left", "width", "height"],
            "additionalProperties": False,
        },
    },
    "required": ["name", "trim"],
    "additionalProperties": False,
}

PROPERTIES = (
    Property("fileName", _TEXT, "File name"),
    Property("mimeType", _TEXT, "Type of the bytes"),
    Property("size", _NUMBER, "Bytes", "number"),
    Property("width", _NUMBER, "Width", "number", is_required=False),
    Property("height", _NUMBER, "Height", "number", is_required=False),
    Property("url", _TEXT, "Where it is"),
    Property("externalId", _TEXT, "Id where it comes from", is_required=False),
    Property("source", {"type": "string", "enum": [DISK, UNSPLASH]}, "Comes from", "select"),
    Property("extension", _TEXT, "Extension"),
    Property("type", {"type": "string", "enum": [FILE, IMAGE]}, "Type", "select"),
    Property("alt", _TEXT, "Alternative text", "textarea", False, False),
    Property("title", _TEXT, "Title", "text", False, False),
    Property("tags", {"type": "array", "items": _TEXT}, "Tags", "tags", False, False),
    Property(
        "variants",
        {"type": "array", "items": _VARIANT, "maxItems": 100},
        "Cuttings, in pixels",
        "object",
        False,
        False,
    ),
)

FACTS = tuple(each.name for each in PROPERTIES if each.is_fact)
"""Attributes that only the server writes."""

REQUIRED = [each.name for each in PROPERTIES if each.is_required]
_SCHEMAS = {each.name: {**each.schema, "title": each.title} for each in PROPERTIES}
_KINTOS_OWN = {"id", "last_modified", "schema", ATTRIBUTE, "__permissions__"}
_VALIDATOR = Draft7Validator({"type": "object", "properties": _SCHEMAS})


def facts_of(
    object_id: str,
    filename: str,
    mimetype: str,
    size: int,
    header: ImageHeader | None,
    source: str = DISK,
    external_id: str = "",
) -> dict[str, Any]:
    """Return what an object says about its file, its id included.

    :param header: the header of the image; None if the file is not an image.

    >>> facts_of("38e4e0f8", "a.doc", "application/msword", 9, None)["url"]
    'original/38e4e0f8.doc'
    """
    extension = extension_of(filename) or (guess_extension(mimetype) or ".bin")[1:]
    return {
        "id": object_id,
        "extension": extension,
        "fileName": filename,
        "mimeType": mimetype,
        "size": size,
        "type": IMAGE if header else FILE,
        "source": source,
        "externalId": external_id,
        "url": f"original/{object_id}.{extension}",
        "height": header.height if header else 0,
        "width": header.width if header else 0,
    }


def check_object(data: Mapping[str, Any]) -> None:
    """Check an object, whether or not Kinto compares records with the schema.

    :raises FieldRefused: if it is not a ``_media`` object.
    """
    for name in REQUIRED:
        if name not in data:
            raise FieldRefused("is required", name)
    for name in data:
        if name not in _SCHEMAS and name not in _KINTOS_OWN:
            raise FieldRefused(f"a {NAME} object has no such property", name[:200])
    error = next(_VALIDATOR.iter_errors(data), None)
    if error:
        raise FieldRefused(error.message[:200], ".".join(map(str, error.absolute_path)))
    seen = set()
    for number, variant in enumerate(data.get("variants", ())):
        if variant["name"] in seen:
            raise FieldRefused(f"{variant['name']!r} is there twice", f"variants.{number}.name")
        seen.add(variant["name"])
        _check_trim(data, variant["trim"], f"variants.{number}.trim")


def _check_trim(data: Mapping[str, Any], trim: Mapping[str, int], field: str) -> None:
    if data["type"] != IMAGE:
        raise FieldRefused("only images have variants", field)
    inside = (
        all(type(side) is int for side in trim.values())  # to JSON Schema, 60.0 is an integer
        and trim["width"] > 0
        and trim["height"] > 0
        and trim["left"] + trim["width"] <= data.get("width", 0)
        and trim["top"] + trim["height"] <= data.get("height", 0)
    )
    if not inside:
        raise FieldRefused("is not within the image", field)


def trim_of(data: Mapping[str, Any], name: str) -> Trim | None:
    """Return the part of the image that has that name; None if there is none."""
    found = (each["trim"] for each in data.get("variants") or () if each["name"] == name)
    return next((Trim(**trim) for trim in found), None)


def definition() -> dict[str, Any]:
    """Return the content type definition, as editors and site generators read it."""
    return {
        "name": NAME,
        "label": LABEL,
        "schemaDefinition": {
            "type": "object",
            "allOf": [
                {"$ref": "#/components/schemas/AbstractContentTypeSchemaDefinition"},
                {
                    "type": "object",
                    "properties": {each.name: dict(each.schema) for each in PROPERTIES},
                },
            ],
            "required": list(REQUIRED),
            "additionalProperties": False,
        },
        "metaDefinition": {
            "order": [each.name for each in PROPERTIES],
            "propertiesConfig": {each.name: _input(each) for each in PROPERTIES},
        },
    }


def _input(each: Property) -> dict[str, Any]:
    config: dict[str, Any] = {"label": each.title, "inputType": each.input, "unique": False}
    if each.name == "fileName":
        config["idTitlePart"] = True
    if "enum" in each.schema:
        config["options"] = list(each.schema["enum"])
    if each.is_fact:
        config["readonly"] = True
    return config


def metadata() -> dict[str, Any]:
    """Return the attributes of the collection by which Kinto Admin shows and edits it.

    The schema neither requires nor forbids a property: the form would ask an editor for what only
    the server knows, and refuse the ``id`` of a record. :func:`check_object` does both.
    """
    read_only = {each.name: {"ui:readonly": True} for each in PROPERTIES if each.is_fact}
    return {
        "schema": {
            "type": "object",
            "title": LABEL,
            "properties": {**_SCHEMAS, ATTRIBUTE: {"type": "object"}},
        },
        "uiSchema": {
            "ui:order": [*(each.name for each in PROPERTIES), "*"],
            **read_only,
            "alt": {"ui:widget": "textarea"},
            "attachment": {"ui:widget": "hidden"},
        },
        "displayFields": ["fileName", "type", "title", "tags"],
        "attachment": {"enabled": True, "required": True},
        "sort": "-last_modified",
    }
