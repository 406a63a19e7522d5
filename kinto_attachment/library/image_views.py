"""``/original/...`` and ``/image/...``: files of the media library by the ids of their objects."""

from typing import Any

from kinto.core import Service
from pyramid.request import Request
from pyramid.response import Response

from ..attachments.image_views import IMAGE, Cut, serve_image
from ..errors import FieldRefused
from ..http.openapi import EXPOSED_HEADERS
from .context import ObjectContext
from .schema import trim_of

_LIBRARY: dict[str, Any] = {**IMAGE, "tags": ["Media library"]}


def _service(name: str, path: str, description: str) -> Service:
    # One placeholder for the name and its extension: OpenAPI has no way to separate them.
    factory, headers = ObjectContext, (*EXPOSED_HEADERS, "Vary")
    return Service(
        name=name, path=path, description=description, factory=factory, cors_headers=headers
    )


original = _service("original", "/original/{file}", "A file as it was uploaded")
image = _service("image", "/image/{size}/{file}", "An image at another size")
named_image = _service("named-image", "/image/{size}/{id}/{file}", "The same, with any name")
image_variant = _service(
    "image-variant",
    "/image/{size}/{id}/{file}/variant/{variant}",
    "A named part of an image",
)
SERVICES = (original, image, named_image, image_variant)


@original.get(operation_id="get_original", **_LIBRARY)
def get_original(request: Request) -> Response:
    """Serve a file of the library as it was uploaded."""
    if "format" in request.GET:
        raise FieldRefused("an original keeps its own format", "format", "querystring")
    return serve_image(request, lambda record: Cut(None, _cache_control(request)))


@image.get(operation_id="get_image", **_LIBRARY)
@named_image.get(operation_id="get_named_image", **_LIBRARY)
def get_image(request: Request) -> Response:
    """Serve a file of the library; an image at any size."""
    return serve_image(request, lambda record: Cut(None, _cache_control(request)))


@image_variant.get(operation_id="get_image_variant", **_LIBRARY)
def get_variant(request: Request) -> Response:
    """Serve a part of an image that an editor has named."""

    def cut_of(record: dict[str, Any]) -> Cut:
        trim = trim_of(record, request.matchdict["variant"])
        if trim is None:
            raise request.context.not_found()
        return Cut(trim, _cache_control(request, immutable=False))  # an editor may cut it anew

    return serve_image(request, cut_of)


def _cache_control(request: Request, immutable: bool = True) -> str:
    """Return the header. An object keeps its file for life, but its readers may change."""
    if request.prefixed_userid is not None:
        return "private, no-cache"
    return "public, max-age=31536000, immutable" if immutable else "public, no-cache"
