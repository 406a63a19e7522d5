"""The OpenAPI 3.1 document of this plugin."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ...plugin import VERSION
from .components import (
    HEADERS,
    PARAMETERS,
    RESPONSES,
    SCHEMAS,
    SECURITY_SCHEMES,
    Object,
)

METHODS = ("get", "head", "post", "put", "patch", "delete")
"""The methods that a path item may have."""

_TEXT = """\
Files for Kinto: one on each record, media by their hash, and a library of images at any size. What
is said here is what this server offers: routes that its settings turn off are left out.

`default` as `bucket_id` is the personal bucket of the user, if the server includes that plugin.
"""


@dataclass
class Description:
    """What this server offers, as ``registry.attachment_api``. Each door adds its part.

    :ivar paths: path items of OpenAPI 3.1 by their paths, below the version prefix.
    :ivar schemas: the schemas that they refer to.
    """

    paths: dict[str, Object] = field(default_factory=dict)
    schemas: dict[str, Object] = field(default_factory=lambda: dict(SCHEMAS))

    def add(self, paths: Mapping[str, Object], schemas: Mapping[str, Object] | None = None) -> None:
        """Add the routes of a door. Where a path is there already, its item is replaced."""
        self.paths.update(paths)
        self.schemas.update(schemas or {})

    def to_openapi(self, server: str) -> Object:
        """Return the document.

        :param server: the URL of the API with its version prefix, which may be relative.
        """
        tags = dict.fromkeys(
            tag
            for item in self.paths.values()
            for method in METHODS
            for tag in item.get(method, {}).get("tags", ())
        )
        return {
            "openapi": "3.1.1",
            "info": {
                "title": "kinto-attachment",
                "version": VERSION,
                "description": _TEXT,
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "servers": [{"url": server}],
            "tags": [{"name": tag} for tag in tags],
            # The empty one: permissions may allow something to system.Everyone.
            "security": [*({name: []} for name in SECURITY_SCHEMES), {}],
            "paths": self.paths,
            "components": {
                "schemas": self.schemas,
                "headers": HEADERS,
                "parameters": PARAMETERS,
                "responses": RESPONSES,
                "securitySchemes": SECURITY_SCHEMES,
            },
        }


def resolve(item: Object) -> Object:
    """Return the shared component that a reference names, or the object itself if it is none.

    >>> resolve({"$ref": "#/components/responses/NotFound"})["description"]
    'There is no such object or file, or its bytes are lost.'
    """
    if "$ref" not in item:
        return item
    kind, name = item["$ref"].split("/")[-2:]
    return {"headers": HEADERS, "parameters": PARAMETERS, "responses": RESPONSES}[kind][name]
