"""The media library: what a ``_media`` object is.

A library is a collection of Kinto's, whose records have an attachment and say what it is. All that
is known of their attributes is in one table, :data:`PROPERTIES`: the content type definition, the
schema of the collection and what Kinto Admin shows of it are made from that.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from mimetypes import guess_extension
from typing import Any, NamedTuple

from jsonschema import Draft7Validator

from ..errors import FieldRefused, SettingError
from ..files.blob import ATTRIBUTE
from ..files.filename import extension_of
from ..files.ref import RecordRef, Ref
from ..images.formats.header import Picture
from ..images.plan import Trim
from ..settings import PREFIX, Settings

NAME = "_media"
LABEL = "Media"

IMAGE, FILE = "image", "file"
DISK, UNSPLASH = "disk", "unsplash"


class Property(NamedTuple):
    """An attribute of a ``_media`` object.

    :param schema: of its value, in JSON Schema.
    :param input: how an editor is asked for it.
    :param is_fact: whether it says what the file is: only the server does.
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
"""What only the server writes."""

REQUIRED = [each.name for each in PROPERTIES if each.is_required]
_SCHEMAS = {each.name: {**each.schema, "title": each.title} for each in PROPERTIES}
_KINTOS_OWN = {"id", "last_modified", "schema", ATTRIBUTE, "__permissions__"}
_VALIDATOR = Draft7Validator({"type": "object", "properties": _SCHEMAS})


@dataclass(frozen=True)
class Library:
    """The collection whose records are ``_media`` objects.

    >>> Library("site", "media").holds(RecordRef("site", "media", "38e4e0f8"))
    True
    """

    bucket: str
    collection: str

    @property
    def uri(self) -> str:
        return self.ref("").collection_uri

    def ref(self, object_id: str) -> RecordRef:
        return RecordRef(self.bucket, self.collection, object_id)

    def holds(self, ref: Ref) -> bool:
        return isinstance(ref, RecordRef) and ref.path[:2] == (self.bucket, self.collection)


def open_library(settings: Settings) -> Library | None:
    """The library that the settings ask for, if they do.

    :raises SettingError: they do not say where it is.
    """
    bucket, collection = settings["library.bucket"], settings["library.collection"]
    if bucket and not collection:
        raise SettingError(f"{PREFIX}library.collection", "a library needs a collection")
    return Library(bucket, collection) if bucket else None


def facts_of(
    object_id: str,
    filename: str,
    mimetype: str,
    size: int,
    picture: Picture | None,
    source: str = DISK,
    external_id: str = "",
) -> dict[str, Any]:
    """What an object says of its file, its id included.

    :param picture: what its bytes are, if they are an image.

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
        "type": IMAGE if picture else FILE,
        "source": source,
        "externalId": external_id,
        "url": f"original/{object_id}.{extension}",
        "height": picture.height if picture else 0,
        "width": picture.width if picture else 0,
    }


def check(data: Mapping[str, Any]) -> None:
    """
    :raises FieldRefused: it is no ``_media`` object, whatever Kinto makes of its schema.
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
    """What of the image a variant of that name shows; None if it has no such variant."""
    found = (each["trim"] for each in data.get("variants") or () if each["name"] == name)
    return next((Trim(**trim) for trim in found), None)


def definition() -> dict[str, Any]:
    """The content type definition, as editors and site generators read it."""
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
    """The attributes of the collection, by which Kinto Admin shows and edits it.

    Its schema neither requires nor forbids a property: the form would ask an editor for what the
    server is going to say, and stumble over the ``id`` of a record. :func:`check` does both.
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
