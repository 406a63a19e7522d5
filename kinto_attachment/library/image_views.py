"""``/original/...`` and ``/image/...``: files of the media library by the ids of their objects."""

from typing import Any

from kinto.core import Service
from kinto.core.authorization import DYNAMIC
from pyramid.request import Request
from pyramid.response import Response

from ..attachments.image_views import Cut, serve_image
from ..errors import FieldRefused
from ..http.openapi.components import EXPOSED_HEADERS
from .context import ObjectContext
from .schema import name_of, trim_of


def _service(name: str, path: str, description: str) -> Service:
    # ``{file}`` is the name with its extension: OpenAPI cannot describe ``{name}.{extension}``.
    factory, headers = ObjectContext, (*EXPOSED_HEADERS, "Vary")
    return Service(
        name=name, path=path, description=description, factory=factory, cors_headers=headers
    )


original = _service(
    "original", "/original/{file}", "A file of the media library as it was uploaded"
)
image = _service("image", "/image/{size}/{file}", "An image of the library at another size")
named_image = _service(
    "named-image", "/image/{size}/{id}/{file}", "The same image, with a filename of any choice"
)
image_variant = _service(
    "image-variant",
    "/image/{size}/{id}/{file}/variant/{variant}",
    "A named part of an image at another size",
)
SERVICES = (original, image, named_image, image_variant)


@original.get(permission=DYNAMIC)
def get_original(request: Request) -> Response:
    """Serve a file of the library as it was uploaded."""
    if "format" in request.GET:
        reason = "an original is served in its own format only, use /image/... for another one"
        raise FieldRefused(reason, "format", "querystring")
    return serve_image(request, lambda record: _whole(request, record))


@image.get(permission=DYNAMIC)
@named_image.get(permission=DYNAMIC)
def get_image(request: Request) -> Response:
    """Serve an image of the library at the requested size, or any file at the size ``0x0``."""
    return serve_image(request, lambda record: _whole(request, record))


@image_variant.get(permission=DYNAMIC)
def get_variant(request: Request) -> Response:
    """Serve a named part of an image at the requested size."""

    def cut_of(record: dict[str, Any]) -> Cut:
        trim = trim_of(record, request.matchdict["variant"])
        if trim is None:
            raise request.context.not_found("This image has no variant of this name.")
        # An editor may give the name to another part of the image.
        return Cut(trim, _cache_control(request, immutable=False), name_of(record))

    return serve_image(request, cut_of)


def _whole(request: Request, record: dict[str, Any]) -> Cut:
    return Cut(None, _cache_control(request), name_of(record))


def _cache_control(request: Request, immutable: bool = True) -> str:
    """Return the ``Cache-Control`` of an image.

    What an anonymous client gets may stay in public caches. What a user gets stays in the cache of
    the user alone. What only its sender may see stays there, too, because it may expire.

    :param immutable: whether this URL has the same bytes for as long as its object exists.
    """
    if request.context.holder != request.context.place:
        return "private, no-cache"
    audience = "public" if request.prefixed_userid is None else "private"
    return f"{audience}, max-age=31536000, immutable" if immutable else f"{audience}, no-cache"
