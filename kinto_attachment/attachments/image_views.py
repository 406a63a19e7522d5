"""Images at any size: ``GET {record}/attachments/{field}/{w}x{h}``, and what serves images for all
doors."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from kinto.core.authorization import DYNAMIC
from pyramid.request import Request
from pyramid.response import Response

from ..errors import BlobDamaged, BlobNotFound, FieldRefused, ImageRefused, NotInBatch
from ..files.blob import Attachment, Blob
from ..files.filename import MAX_FILENAME
from ..http.downloads import Download, serve
from ..http.requests import preferred_formats
from ..images.formats.header import ImageHeader
from ..images.plan import ANIMATED, Output, Plan, Size, Trim
from ..images.service import ImageService
from ..plugin import plugin_of
from ..remote.origin import is_public
from ..rows.variants import Variant
from ..transactions.request import is_in_batch, outside_transaction, release_connection
from . import records
from .api import ENTRY, FIELD, FORMATS, IMAGE_SIZE, PATH
from .context import RecordContext
from .views import cache_control, service

ORIGINAL = Size(0, 0)

_EXTENSIONS = {"jpeg": "jpg"}

attachment_image = service("attachment-image", f"{PATH}/{IMAGE_SIZE}")
field_image = service("attachment-field-image", f"{FIELD}/{IMAGE_SIZE}")
attachment_entry_image = service("attachment-entry-image", f"{PATH}/{ENTRY}/{IMAGE_SIZE}")
entry_image = service("attachment-field-entry-image", f"{FIELD}/{ENTRY}/{IMAGE_SIZE}")

SERVICES = (attachment_image, field_image, attachment_entry_image, entry_image)


@entry_image.get(permission=DYNAMIC)
@attachment_entry_image.get(permission=DYNAMIC)
@field_image.get(permission=DYNAMIC)
@attachment_image.get(permission=DYNAMIC)
def get_attachment_image(request: Request) -> Response:
    """Serve the attached image at that size."""
    return serve_image(
        request, lambda record: Cut(None, cache_control(request, request.context.ref))
    )


@dataclass(frozen=True)
class Cut:
    """Which part of an image is wanted, and how to describe it to the client.

    :param trim: the part; None for the whole image.
    :param cache_control: the header.
    :param filename: what the file is called; that of the upload by default.
    """

    trim: Trim | None
    cache_control: str
    filename: str | None = None


@dataclass(frozen=True)
class _Wanted:
    """What the client asks for.

    :param format: one of :data:`FORMATS`, or None for that of the image.
    :param since: the image cannot have been like this before then, in seconds since 1970.
    """

    size: Size
    cut: Cut
    format: str | None
    since: int

    @property
    def is_original(self) -> bool:
        """Whether these are the bytes as they were uploaded."""
        return self.size == ORIGINAL and self.cut.trim is None and self.format is None


def serve_image(request: Request, cut_of: Callable[[dict[str, Any]], Cut]) -> Response:
    """Serve the file of the context's record at the size that the URL names. ``0x0`` is the
    original of any file.

    :param cut_of: takes the record.
    :raises SizeRefused: if there is no such size here.
    :raises ImageRefused: if the file has one size only.
    """
    if is_in_batch(request):
        raise NotInBatch()
    context: RecordContext = request.context
    size = _size(request)
    images: ImageService = request.registry.attachment_images
    images.check_size(size)
    format = _format(request)

    def answer(record: dict[str, Any]) -> Response:
        found = records.attached(request, context.holder, record)
        if found is None:
            context.check_has_field(record)
            place = context.place
            is_list = not place.entry and isinstance(record.get(place.field), list)
            reason = f"{place.field} is a list: request one of its entries." if is_list else None
            raise context.not_found(reason)
        extension = request.matchdict.get("extension")  # URLs of records have none
        if extension is not None and extension.lower() != record.get("extension"):
            raise context.not_found("This file has another extension.")
        cut = cut_of(record)
        # A named part of an image changes with its record.
        since = record["last_modified"] // 1000 if cut.trim else 0
        response = _serve(request, *found, _Wanted(size, cut, format, since))
        response.vary = images.varies
        return response

    return context.serve(answer)


def _serve(
    request: Request, attachment: Attachment, blob: Blob, modified: int, wanted: _Wanted
) -> Response:
    images: ImageService = request.registry.attachment_images
    filename = wanted.cut.filename or attachment.filename
    header = None if wanted.is_original else images.probe.known(blob)
    variants: list[Variant] | None = None
    if header is None:
        # Which variant is wanted turns out later, without a connection.
        variants = [] if wanted.is_original else images.variants_of(blob)
        release_connection(request)
        header = None if wanted.is_original else images.probe.of(blob)
    is_drawing = header is not None and header.format == "svg"
    if wanted.is_original or (is_drawing and not wanted.cut.trim and not wanted.format):
        cache_control = wanted.cut.cache_control
        return _send(request, Download(blob, filename, modified // 1000, cache_control))
    if header is None or not header.resizable:
        raise ImageRefused(
            f"This file of type {blob.mimetype} cannot be resized: request 0x0 for the file itself."
            " Intact images in JPEG, PNG, WebP, GIF and AVIF can be resized."
        )
    plan = images.plan(header, wanted.size, wanted.cut.trim)
    output = images.output(wanted.format or _negotiated(request, images, header))
    found = images.find(blob, plan, output, variants)
    if variants is None:
        release_connection(request)
    return _serve_variant(request, filename, blob, header, plan, output, wanted, found)


def _serve_variant(
    request: Request,
    filename: str,
    blob: Blob,
    header: ImageHeader,
    plan: Plan,
    output: Output,
    wanted: _Wanted,
    found: Variant | None,
) -> Response:
    """Serve a variant, which is made first if none was found. No connection is held."""
    images: ImageService = request.registry.attachment_images
    plugin = plugin_of(request)

    def make() -> Variant:
        return outside_transaction(
            request,
            lambda: images.make(request.tm, blob, header, plan, output, _address_of(request)),
        )

    def send(variant: Variant) -> Response:
        if plugin.settings["download"] == "redirect":
            # With a redirect, the storage answers the client directly, so this server would not
            # notice that the variant is missing.
            plugin.storage.stat(variant.key)
        return _send(request, _download(filename, variant, output, wanted))

    variant = found or make()
    try:
        return send(variant)
    except (BlobNotFound, BlobDamaged):
        # Losing a variant is harmless: it is made again.
        outside_transaction(request, lambda: images.forget(request.tm, variant))
    return send(make())


def _send(request: Request, download: Download) -> Response:
    response = serve(request, download)
    request.registry.attachment_cache.put(request, download)
    return response


def _download(filename: str, variant: Variant, output: Output, wanted: _Wanted) -> Download:
    extension = _EXTENSIONS.get(output.format, output.format)
    end = f"-{variant.width}x{variant.height}.{extension}"
    name = PurePath(filename).stem[: MAX_FILENAME - len(end)] + end
    seconds = max(variant.modified // 1000, wanted.since)
    # Several variants may have been here within that second.
    return Download(variant.blob, name, seconds, wanted.cut.cache_control, dated=False)


def _address_of(request: Request) -> str:
    """Return the address of the client. A proxy on this host or in its network says which client it
    speaks for; what clients on the public Internet say does not count."""
    address = request.remote_addr or ""
    named = request.headers.get("X-Forwarded-For", "").rpartition(",")[2].strip()
    try:
        is_proxy = not is_public(address)
    except ValueError:
        is_proxy = True  # a socket in the file system has no address
    return named if named and is_proxy else address


def _size(request: Request) -> Size:
    """Return the size in the URL: ``{size}``, or ``{width}x{height}`` below a record.

    :raises SizeRefused: if there can be no such size.
    """
    found = request.matchdict
    if "width" in found:
        return Size.parse(f"{found['width']}x{found['height']}")
    return Size.parse(found.get("size", "0x0"))


def _format(request: Request) -> str | None:
    """Return the value of ``?format=``.

    :raises FieldRefused: if it is not one of :data:`FORMATS`.
    """
    format = request.GET.get("format")
    if format is not None and format not in FORMATS:
        reason = f"format must be one of {', '.join(FORMATS)}, not {format[:100]!r}"
        raise FieldRefused(reason, "format", "querystring")
    return format


def _negotiated(request: Request, images: ImageService, header: ImageHeader) -> str:
    """Return the format of the image, or one that the client prefers if the settings allow it."""
    if not images.negotiates:
        return header.format
    accepted = preferred_formats(request)
    for format in ("avif", "webp"):
        # An image that may be animated never loses its motion.
        if format in accepted and (format in ANIMATED or header.format not in ANIMATED):
            return format
    return header.format
