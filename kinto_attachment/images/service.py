"""Images at other sizes: made when they are first asked for, and kept.

Nothing here knows a request, and no transaction is open while bytes move or pixels are computed.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any, BinaryIO

from kinto.core.storage.exceptions import IntegrityError

from ..errors import BlobNotFound, ImageRefused, ResizeBusy, SizeRefused, StorageUnavailable
from ..files.blob import CHUNK, Blob, Digest, Source
from ..files.ref import MediaRef
from ..metrics import Metrics
from ..rows import Rows
from ..rows.variants import Variant
from ..settings import Settings
from ..settings.reserved import VARIANTS
from ..transactions.files import FileTransaction
from ..transactions.ownership import OwnedStorage
from .admission import Applicant
from .formats.header import ImageHeader
from .formats.limits import Limits
from .host_lock import only_one
from .plan import Output, Plan, Size, Trim, plan
from .probe import ImageProbe
from .worker.pool import BorrowedWorker, WorkerPool

logger = logging.getLogger(__name__)

PIPELINE = 2
"""Increase this when the same request gives other pixels: older variants are not found then."""

OVERSAMPLING = 2
"""A variant with this many times the wanted pixels in each direction is as good a source as the
original."""


class ImageService:
    """The service that finds variants of images, or makes them.

    :param is_readonly: whether Kinto refuses all writes. No variants are made then, because they
        could not be kept.
    :param metrics: counts the images.
    """

    def __init__(
        self,
        settings: Settings,
        storage: OwnedStorage,
        rows: Rows,
        is_readonly: bool = False,
        metrics: Metrics | None = None,
    ):
        self._metrics = metrics or Metrics()
        self._settings = settings
        self._storage = storage
        self._rows = rows
        self._is_readonly = is_readonly
        self.probe = ImageProbe(storage)
        self._workers = WorkerPool(
            count=settings["images.workers"],
            queue=settings["images.queue"],
            timeout=settings["images.timeout"],
            memory=settings["images.memory"],
            limits=_limits(settings),
        )

    @property
    def varies(self) -> tuple[str, ...]:
        """The request headers that a response depends on, for ``Vary``. ``Origin`` is always among
        them, because Kinto adds CORS headers for other origins."""
        return ("Accept", "Origin") if self.negotiates else ("Origin",)

    @property
    def is_installed(self) -> bool:
        """Whether what resizes images is installed."""
        return WorkerPool.is_installed()

    @property
    def negotiates(self) -> bool:
        """Whether ``Accept`` decides on the format."""
        return self._settings["images.negotiate"]

    def check_size(self, size: Size) -> None:
        """Refuse a size that the settings do not allow.

        :raises SizeRefused: if they do not.
        """
        sizes, step = self._settings["images.sizes"], self._settings["images.step"]
        if not (sizes or step) or (size.width, size.height) in {(0, 0), *sizes}:
            return
        if not step or size.width % step or size.height % step:
            raise SizeRefused(
                f"This server does not make images of {size.width}x{size.height} pixels. Ask for"
                " another size, or for the full size with 0x0."
            )

    def plan(self, header: ImageHeader, size: Size, trim: Trim | None) -> Plan:
        """Return how to make that size of an image.

        :param trim: the part of the image that is wanted; None for all of it.
        :raises SizeRefused: if the part is not inside the image.
        """
        return plan(header.width, header.height, size, self._settings["images.max_side"], trim)

    def output(self, format: str) -> Output:
        """Return a format with the quality that the settings define for it.

        :param format: one of those that can be written.
        """
        return Output(format, self._settings.get(f"images.{format}_quality"))

    def variants_of(self, blob: Blob) -> list[Variant]:
        """Return all variants of an image that were made so far."""
        return self._rows.variants.of([blob.key])

    def find(
        self, blob: Blob, wanted: Plan, output: Output, among: list[Variant] | None = None
    ) -> Variant | None:
        """Return the variant, or None if it was not made yet.

        :param blob: the original.
        :param among: what :meth:`variants_of` has returned; None if it was not called.
        """
        name = _name(blob, wanted, output)
        if among is None:
            found = self._rows.variants.find(blob.key, name)
        else:
            found = next((variant for variant in among if variant.name == name), None)
        if found:
            self._metrics.count("images", result="kept")
        return found

    def make(
        self,
        transaction_manager: Any,
        blob: Blob,
        header: ImageHeader,
        wanted: Plan,
        output: Output,
        client: str,
    ) -> Variant:
        """Make the variant and keep it, unless another process is making it; then wait for that.
        Call this outside of any transaction.

        :param client: identifies the client, so that none of them takes the places of all others.

        :raises ImageRefused: if the image is broken, or larger than the limits.
        :raises ResizeBusy: if too many images are being made.
        :raises WorkerLost: if it took too long, or too much memory.
        :raises BlobNotFound: if the image is gone.
        """
        started, result = time.monotonic(), "failed"
        try:
            variant, is_new = self._make(transaction_manager, blob, header, wanted, output, client)
            result = "made" if is_new else "kept"
        except ImageRefused:
            result = "refused"
            raise
        except ResizeBusy:
            result = "busy"
            raise
        finally:
            self._metrics.count("images", result=result)
        if is_new:
            self._metrics.time("image_seconds", time.monotonic() - started)
        return variant

    def _make(
        self,
        transaction_manager: Any,
        blob: Blob,
        header: ImageHeader,
        wanted: Plan,
        output: Output,
        client: str,
    ) -> tuple[Variant, bool]:
        """Make the variant; see :meth:`make`. Return it, and whether this call has made it."""
        if self._is_readonly:
            raise ResizeBusy("This server is read-only, and that size was not made before.")
        name = _name(blob, wanted, output)
        applicant = Applicant(blob.key, client)
        # The process that makes it waits that long for a worker, and then that long for the image.
        seconds = 2 * self._settings["images.timeout"]
        self._metrics.observe("images_waiting", self._workers.load)
        with self._workers.admit(applicant), only_one(f"{blob.key} {name}", seconds):
            with transaction_manager:
                others = self._rows.variants.of([blob.key])
            for found in others:
                if found.name == name:
                    return found, False
            with self._workers.borrow(applicant) as worker, self._storage.spool() as spool:
                direct = self._resize(worker, blob, header, wanted, output, others, spool)
                source = _source(spool, output)
                variant = Variant(
                    blob.key,
                    name,
                    key="",
                    digest=source.digest,
                    size=source.size,
                    mimetype=source.mimetype,
                    width=wanted.width,
                    height=wanted.height,
                    direct=direct,
                )
                made = self._keep(transaction_manager, blob, variant, source, others)
            if made:
                return made, True
            with transaction_manager:
                found = self._rows.variants.find(blob.key, name)
        if found is None:
            raise BlobNotFound(blob.key)
        return found, False

    def forget(self, transaction_manager: Any, variant: Variant) -> None:
        """Drop the row of a variant whose bytes are gone."""
        with transaction_manager:
            self._rows.variants.drop([variant])

    def close(self) -> None:
        """End the worker processes."""
        self._workers.close()

    def _resize(
        self,
        worker: BorrowedWorker,
        blob: Blob,
        header: ImageHeader,
        wanted: Plan,
        output: Output,
        others: list[Variant],
        into: BinaryIO,
    ) -> bool:
        """Resize a smaller variant where that makes no visible difference, else the image itself;
        return whether it was the image itself."""
        kept = self.output(header.format)
        for variant in _large_enough(others, blob, header, wanted, kept):
            try:
                self._resize_from(worker, *_from_variant(variant, header, wanted), output, into)
            except (BlobNotFound, ImageRefused) as error:
                logger.info("Cannot resize the variant %s, trying another: %s", variant.key, error)
            else:
                return False
        self._resize_from(worker, blob, header, wanted, output, into)
        return True

    def _resize_from(
        self,
        worker: BorrowedWorker,
        blob: Blob,
        header: ImageHeader,
        wanted: Plan,
        output: Output,
        into: BinaryIO,
    ) -> None:
        with self._open(blob) as file:
            try:
                worker.resize(file, header, wanted, output, into)
            except OSError as error:
                raise StorageUnavailable("spool", str(error)) from error

    @contextmanager
    def _open(self, blob: Blob) -> Iterator[BinaryIO]:
        """Yield an open file with all bytes of the blob.

        :raises ImageRefused: if the blob is over the limit of the settings.
        """
        if blob.size > self._settings["images.max_bytes"]:
            limit = self._settings["images.max_bytes"]
            raise ImageRefused(
                f"The file of the image has {blob.size} bytes, but only {limit} are allowed. Upload"
                " a smaller one."
            )
        with closing(self._storage.open(blob.key)) as chunks:
            file = getattr(chunks, "file", None)
            if file is not None:
                yield file
                return
            with self._storage.spool() as spool:
                for chunk in chunks:
                    spool.write(chunk)
                spool.flush()
                spool.seek(0)
                yield spool

    def _keep(
        self,
        transaction_manager: Any,
        blob: Blob,
        variant: Variant,
        source: Source,
        others: list[Variant],
    ) -> Variant | None:
        """Store the variant, and drop the oldest ones if there are too many. Return None if another
        server has made the same variant."""
        files = FileTransaction(self._storage, self._rows, transaction_manager, self._metrics)
        surplus = max(0, len(others) + 1 - self._settings["images.max_variants"])
        outdated = sorted(others, key=lambda other: other.modified)[:surplus]
        try:
            with files.transaction():
                keys = VARIANTS.keys(MediaRef("", blob.digest), "", blob.digest)
                variant = replace(variant, key=files.put(keys, source, VARIANTS))
                if not self._rows.variants.add(variant):
                    raise _MadeElsewhere
                self._rows.variants.drop(outdated)
                files.release([(other.key, False) for other in outdated], keep_old=False)
        except (_MadeElsewhere, IntegrityError):  # the latter if it was in this millisecond
            return None
        return replace(variant, modified=int(time.time() * 1000))


class _MadeElsewhere(Exception):
    """Another server has made the same variant, so this transaction is to be aborted."""


def _limits(settings: Settings) -> Limits:
    pixels, usual = settings["images.max_pixels"], Limits()
    return Limits(
        max_bytes=settings["images.max_bytes"],
        pixels=pixels,
        avif_pixels=min(pixels, usual.avif_pixels),
        gif_pixels=min(pixels, usual.gif_pixels),
    )


def _name(blob: Blob, wanted: Plan, output: Output) -> str:
    """Return the name of a variant: the same for all requests that give the same pixels."""
    crop = f"{wanted.left}.{wanted.top}.{wanted.crop_width}.{wanted.crop_height}"
    return f"{_prefix(blob)}{wanted.width}x{wanted.height}-{crop}-{_suffix(output)}"


def _prefix(blob: Blob) -> str:
    return f"{PIPELINE}-{blob.digest[:16]}-"


def _suffix(output: Output) -> str:
    return f"{output.format}{output.q or ''}"


def _source(file: BinaryIO, output: Output) -> Source:
    file.seek(0)
    digest = Digest.of(iter(lambda: file.read(CHUNK), b""))
    return Source(
        file,
        f"image.{output.format}",
        output.mimetype,
        digest.size,
        digest.hexdigest(),
        immutable=True,
        private=True,
    )


def _large_enough(
    variants: list[Variant], blob: Blob, header: ImageHeader, wanted: Plan, kept: Output
) -> list[Variant]:
    """Return the variants of the whole image that are as good a source as the image itself, the
    smallest first."""
    if header.format not in ("jpeg", "png"):
        return []  # they may be animated
    as_good = f"-0.0.{header.width}.{header.height}-{_suffix(kept)}"
    found = [
        variant
        for variant in variants
        if variant.direct
        and variant.name.startswith(_prefix(blob))
        and variant.name.endswith(as_good)
        # How large the whole image would be if the wanted part of it had the wanted size.
        and variant.width * wanted.crop_width >= OVERSAMPLING * wanted.width * header.width
        and variant.height * wanted.crop_height >= OVERSAMPLING * wanted.height * header.height
    ]
    return sorted(found, key=lambda variant: variant.width)


def _from_variant(
    variant: Variant, header: ImageHeader, wanted: Plan
) -> tuple[Blob, ImageHeader, Plan]:
    """Return the same part of the image, in the pixels of a variant."""
    horizontal, vertical = variant.width / header.width, variant.height / header.height
    left = min(round(wanted.left * horizontal), variant.width - 1)
    top = min(round(wanted.top * vertical), variant.height - 1)
    part = Plan(
        left,
        top,
        max(1, min(round(wanted.crop_width * horizontal), variant.width - left)),
        max(1, min(round(wanted.crop_height * vertical), variant.height - top)),
        wanted.width,
        wanted.height,
    )
    return variant.blob, ImageHeader(header.format, variant.width, variant.height), part
