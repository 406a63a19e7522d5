"""Files of the media library by their ids, and images at any size."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from kinto.core import Service
from kinto.core.authorization import DYNAMIC
from pyramid.request import Request
from pyramid.response import Response

from ..errors import BlobDamaged, BlobNotFound, FieldRefused, ImageRefused, NotInBatch
from ..files.blob import Attachment, Blob
from ..http.downloads import Download, serve
from ..http.openapi import DOWNLOAD, EXPOSED_HEADERS, RefusedSchema
from ..http.requests import preferred_formats
from ..images.formats.header import Picture
from ..images.plan import Output, Plan, Size, Trim
from ..images.service import Imaging
from ..library.context import ObjectContext
from ..library.schema import trim_of
from ..rows.variants import Variant
from ..transactions.request import apart, is_in_batch, restart
from . import records
from .context import RecordContext
from .views import PATH, cache_control

ORIGINAL = Size(0, 0)

FORMATS = ("webp", "avif", "jpeg", "png")
"""What may be asked for."""

_EXTENSIONS = {"jpeg": "jpg"}
_IMAGE = {
    "permission": DYNAMIC,
    "response_schemas": {
        **DOWNLOAD,
        "501": RefusedSchema(description="This server does not resize images."),
    },
}
_LIBRARY: dict[str, Any] = {**_IMAGE, "tags": ["Media library"]}


def _service(name: str, path: str, description: str) -> Service:
    # Where a name and its extension are told apart, OpenAPI would not know what is meant.
    factory, headers = ObjectContext, (*EXPOSED_HEADERS, "Vary")
    return Service(
        name=name, path=path, description=description, factory=factory, cors_headers=headers
    )


attachment_image = Service(
    name="attachment-image",
    path=f"{PATH}/{{size}}",
    description="The image of a record at another size",
    factory=RecordContext,
    cors_headers=EXPOSED_HEADERS,
)
original = _service("original", "/original/{file}", "A file as it came")
image = _service("image", "/image/{size}/{file}", "An image at another size")
named_image = _service("named-image", "/image/{size}/{id}/{file}", "The same, with any name")
image_variant = _service(
    "image-variant",
    "/image/{size}/{id}/{file}/variant/{variant}",
    "A part of an image that has a name",
)
SERVICES = (original, image, named_image, image_variant)


@dataclass(frozen=True)
class Wanted:
    """
    :param trim: the part of the image, if not all of it.
    :param format: one of :data:`FORMATS`, or None for that of the image.
    :param since: not before then was it so, in seconds since 1970.
    """

    size: Size
    trim: Trim | None
    format: str | None
    cache_control: str
    since: int


@attachment_image.get(tags=["Attachments"], operation_id="get_attachment_image", **_IMAGE)
def get_attachment_image(request: Request) -> Response:
    """The image that is attached, at that size."""
    return _answer(request, lambda record: (None, cache_control(request)))


@original.get(operation_id="get_original", **_LIBRARY)
def get_original(request: Request) -> Response:
    """A file of the library, as it came."""
    if "format" in request.GET:
        raise FieldRefused("an original has its own", "format", "querystring")
    return _answer(request, lambda record: (None, _audience(request)))


@image.get(operation_id="get_image", **_LIBRARY)
@named_image.get(operation_id="get_named_image", **_LIBRARY)
def get_image(request: Request) -> Response:
    """A file of the library; an image at any size."""
    return _answer(request, lambda record: (None, _audience(request)))


@image_variant.get(operation_id="get_image_variant", **_LIBRARY)
def get_variant(request: Request) -> Response:
    """A part of an image, as an editor has cut it out."""

    def find(record: dict[str, Any]) -> tuple[Trim, str]:
        trim = trim_of(record, request.matchdict["variant"])
        if trim is None:
            raise request.context.not_found()
        return trim, _audience(request, stays=False)  # it may be cut in another way tomorrow

    return _answer(request, find)


def _answer(
    request: Request, find: Callable[[dict[str, Any]], tuple[Trim | None, str]]
) -> Response:
    """
    :param find: what part of the image is meant, and how long the answer may be kept.
    """
    if is_in_batch(request):
        raise NotInBatch()
    context: RecordContext = request.context
    size = Size.parse(request.matchdict.get("size", "0x0"))
    imaging: Imaging = request.registry.attachment_imaging
    imaging.check_size(size)
    format = _format(request)

    def answer(record: dict[str, Any]) -> Response:
        extension = request.matchdict.get("extension")
        found = records.attached(request, context.ref, record)
        if found is None or not _is_extension(extension, record):
            raise context.not_found()
        trim, kept = find(record)
        # What a name stands for changes with its record.
        since = record["last_modified"] // 1000 if trim else 0
        response = _serve(request, *found, Wanted(size, trim, format, kept, since))
        response.vary = imaging.varies
        return response

    return context.serve(answer)


def _is_extension(extension: str | None, record: dict[str, Any]) -> bool:
    """Whether the URL has that of the object; a record has none."""
    return extension is None or extension.lower() == record.get("extension")


def _serve(
    request: Request, attachment: Attachment, blob: Blob, modified: int, wanted: Wanted
) -> Response:
    imaging: Imaging = request.registry.attachment_imaging
    is_whole = wanted.size == ORIGINAL and wanted.trim is None and wanted.format is None
    picture = None if is_whole else imaging.pictures.known(blob)
    if picture is None:
        restart(request)  # no connection to the database is held while bytes move
        picture = None if is_whole else imaging.pictures.of(blob)
    is_drawn = picture is not None and picture.format == "svg"
    if is_whole or (is_drawn and not wanted.trim and not wanted.format):
        seconds, kept = modified // 1000, wanted.cache_control
        return _send(request, Download(blob, attachment.filename, seconds, kept))
    if picture is None or not picture.resizable:
        raise ImageRefused(f"It is of type {blob.mimetype}, which has one size: 0x0.")
    plan = imaging.plan(picture, wanted.size, wanted.trim)
    output = imaging.output(wanted.format or _negotiated(request, imaging, picture))
    return _serve_variant(request, attachment.filename, blob, picture, plan, output, wanted)


def _serve_variant(
    request: Request,
    filename: str,
    blob: Blob,
    picture: Picture,
    plan: Plan,
    output: Output,
    wanted: Wanted,
) -> Response:
    imaging: Imaging = request.registry.attachment_imaging

    def make() -> Variant:
        return apart(request, lambda: imaging.make(request.tm, blob, picture, plan, output))

    def send(variant: Variant) -> Response:
        if request.registry.attachment_settings["download"] == "redirect":
            # Nobody else would tell us that it is gone.
            request.registry.attachment_storage.stat(variant.key)
        return _send(request, _download(filename, variant, output, wanted))

    found = imaging.find(blob, plan, output)
    restart(request)  # no connection to the database is held while bytes move
    variant = found or make()
    try:
        return send(variant)
    except (BlobNotFound, BlobDamaged):
        # No loss: it is made again.
        apart(request, lambda: imaging.forget(request.tm, variant))
    return send(make())


def _send(request: Request, download: Download) -> Response:
    response = serve(request, download)
    request.registry.attachment_cache.put(request, download)
    return response


def _download(filename: str, variant: Variant, output: Output, wanted: Wanted) -> Download:
    extension = _EXTENSIONS.get(output.format, output.format)
    name = f"{PurePath(filename).stem}-{variant.width}x{variant.height}.{extension}"
    seconds = max(variant.modified // 1000, wanted.since)
    # Which of several was here in that second, nobody knows.
    return Download(variant.blob, name, seconds, wanted.cache_control, dated=False)


def _format(request: Request) -> str | None:
    """
    :raises FieldRefused: nobody makes that.
    """
    format = request.GET.get("format")
    if format is not None and format not in FORMATS:
        reason = f"{format[:100]!r} is none of {', '.join(FORMATS)}"
        raise FieldRefused(reason, "format", "querystring")
    return format


def _negotiated(request: Request, imaging: Imaging, picture: Picture) -> str:
    """That of the image, or what the client would rather have and the server may choose."""
    if not imaging.negotiates:
        return picture.format
    accepted = preferred_formats(request)
    moves = picture.format == "gif"  # maybe, and AVIF would stop it
    for format in ("webp",) if moves else ("avif", "webp"):
        if format in accepted:
            return format
    return picture.format


def _audience(request: Request, stays: bool = True) -> str:
    """An object is its file as long as it lives; who may see it may change."""
    if request.prefixed_userid is not None:
        return "private, no-cache"
    return "public, max-age=31536000, immutable" if stays else "public, no-cache"
