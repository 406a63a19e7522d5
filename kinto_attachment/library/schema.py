"""The attributes of ``_media`` objects.

The media library is a Kinto collection whose records have an attachment and describe it. The table
:data:`PROPERTIES` declares their attributes. The content type definition, the schema of the
collection and the form in Kinto Admin are generated from that table.
"""

from collections.abc import Mapping
from mimetypes import guess_extension
from typing import Any, NamedTuple

from jsonschema import Draft7Validator

from ..errors import FieldRefused
from ..files.filename import extension_of
from ..files.ref import ATTRIBUTE
from ..images.formats.header import ImageHeader
from ..images.plan import Trim

NAME = "_media"
LABEL = "Media"

FILE_NAME = "fileName"
"""The one fact that editors may change, all but its extension."""

IMAGE, FILE = "image", "file"
DISK, UNSPLASH = "disk", "unsplash"


class Property(NamedTuple):
    """An attribute of a ``_media`` object.

    :param name: the name of the attribute.
    :param schema: the JSON Schema of its value.
    :param title: its label in forms.
    :param input: the kind of form field for it.
    :param is_fact: whether it describes the file itself; the server alone determines its value.
    :param is_required: whether a client must send it to create an object.
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
    Property(FILE_NAME, _TEXT, "File name"),
    Property("mimeType", _TEXT, "Media type"),
    Property("size", _NUMBER, "Size in bytes", "number"),
    Property("width", _NUMBER, "Width", "number", is_required=False),
    Property("height", _NUMBER, "Height", "number", is_required=False),
    Property("url", _TEXT, "URL"),
    Property("externalId", _TEXT, "Id at the source", is_required=False),
    Property("source", {"type": "string", "enum": [DISK, UNSPLASH]}, "Source", "select"),
    Property("extension", _TEXT, "Extension"),
    Property("type", {"type": "string", "enum": [FILE, IMAGE]}, "Type", "select"),
    Property("alt", _TEXT, "Alternative text", "textarea", False, False),
    Property("title", _TEXT, "Title", "text", False, False),
    Property("tags", {"type": "array", "items": _TEXT}, "Tags", "tags", False, False),
    Property(
        "variants",
        {"type": "array", "items": _VARIANT, "maxItems": 100},
        "Named parts, in pixels",
        "object",
        False,
        False,
    ),
)

FACTS = tuple(each.name for each in PROPERTIES if each.is_fact)
"""Attributes whose values only the server determines."""

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
    """Return what an object says about its file, together with its id.

    :param mimetype: the media type of the file.
    :param size: the size of the file in bytes.
    :param header: the header of the image; None if the file is not an image.
    :param source: where the file comes from: :data:`DISK` or :data:`UNSPLASH`.
    :param external_id: the id of the file there, if it has one.

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
    """Check an object. This does not depend on Kinto's own setting for schema validation.

    :raises FieldRefused: if the object lacks a required property, has an unknown one, or has a
        malformed one.
    """
    for name in REQUIRED:
        if name not in data:
            raise FieldRefused(f"{name} is required", name)
    for name in data:
        if name not in _SCHEMAS and name not in _KINTOS_OWN:
            raise FieldRefused(f"{name[:200]!r} is not a property of {NAME} objects", name[:200])
    error = next(_VALIDATOR.iter_errors(data), None)
    if error:
        raise FieldRefused(error.message[:200], ".".join(map(str, error.absolute_path)))
    seen = set()
    for number, variant in enumerate(data.get("variants", ())):
        if variant["name"] in seen:
            reason = f"two variants have the name {variant['name']!r}: a name must be unique"
            raise FieldRefused(reason, f"variants.{number}.name")
        seen.add(variant["name"])
        _check_trim(data, variant["trim"], f"variants.{number}.trim")


def _check_trim(data: Mapping[str, Any], trim: Mapping[str, int], field: str) -> None:
    """Check one part of an image.

    :raises FieldRefused: if the object is not an image, or if the part is not inside the image.
    """
    if data["type"] != IMAGE:
        raise FieldRefused("only images have variants, and this file is not an image", field)
    inside = (
        all(type(side) is int for side in trim.values())  # for JSON Schema, 60.0 is an integer
        and trim["width"] > 0
        and trim["height"] > 0
        and trim["left"] + trim["width"] <= data.get("width", 0)
        and trim["top"] + trim["height"] <= data.get("height", 0)
    )
    if not inside:
        reason = "a trim must be inside the image, and its four numbers must be whole pixels"
        raise FieldRefused(reason, field)


def is_well_formed(data: Mapping[str, Any]) -> bool:
    """Return whether no property is malformed. Another program may have written the object."""
    return _VALIDATOR.is_valid(data)


def name_of(data: Mapping[str, Any]) -> str | None:
    """Return what the file is called, or None if the object does not say so."""
    name = data.get(FILE_NAME)
    return name if isinstance(name, str) else None


def trim_of(data: Mapping[str, Any], name: str) -> Trim | None:
    """Return the part of the image that has this name, or None if there is none."""
    variants = data.get("variants")
    for each in variants if isinstance(variants, list) else ():
        is_wanted = isinstance(each, dict) and each.get("name") == name
        if is_wanted and is_well_formed({"variants": [each]}):
            return Trim(**each["trim"])
    return None


def definition() -> dict[str, Any]:
    """Return the content type definition of ``_media`` objects, for editors and site generators."""
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
    if "enum" in each.schema:
        config["options"] = list(each.schema["enum"])
    if each.name == FILE_NAME:
        config["idTitlePart"] = True
    elif each.is_fact:
        config["readonly"] = True
    return config


def metadata() -> dict[str, Any]:
    """Return the attributes that the collection needs for Kinto Admin.

    The schema requires no property, or the form would ask editors for what only the server knows.
    It also forbids none, or the form would refuse the ``id`` of a record. :func:`check_object` does
    both. The form hides the facts: Kinto Admin shows the attachment beside it. The attachment is
    not required, or the form would want another file at each change.
    """
    hidden = {each.name: {"ui:widget": "hidden"} for each in PROPERTIES if each.is_fact}
    return {
        "schema": {
            "type": "object",
            "title": LABEL,
            "properties": {**_SCHEMAS, ATTRIBUTE: {"type": "object"}},
        },
        "uiSchema": {
            "ui:order": [*(each.name for each in PROPERTIES), "*"],
            **hidden,
            "alt": {"ui:widget": "textarea"},
            "attachment": {"ui:widget": "hidden"},
        },
        "displayFields": ["fileName", "type", "title", "tags"],
        "attachment": {"enabled": True, "required": False},
        "sort": "-last_modified",
    }
