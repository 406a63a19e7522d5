"""Images at other sizes: made by who asks first, kept for all others.

No request here, and no transaction is held while bytes move or pixels are computed.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any, BinaryIO

from .blob import CHUNK, Blob, Digest, MediaRef, Source
from .errors import (
    BlobNotFound,
    ImageRefused,
    SizeRefused,
    StorageUnavailable,
)
from .files import Files
from .host_lock import only_one
from .images import Limits, Output, Picture, Plan, Size, Trim, Workers, plan
from .pictures import Pictures
from .settings import VARIANTS, Settings
from .storage import IStorage
from .variants import Variant, Variants

PIPELINE = 1
"""To be counted up when the same request gives other pixels."""

ENOUGH = 2
"""A variant with so many times the pixels, in each direction, is as good as the original."""


class Imaging:
    """
    :param files: what a transaction does to files, by its manager.
    """

    def __init__(
        self,
        settings: Settings,
        storage: IStorage,
        variants: Variants,
        files: Callable[[Any], Files],
    ):
        self._settings = settings
        self._storage = storage
        self._variants = variants
        self._files = files
        self.pictures = Pictures(storage)
        self._workers = Workers(
            count=settings["images.workers"],
            queue=settings["images.queue"],
            timeout=settings["images.timeout"],
            memory=settings["images.memory"],
            limits=_limits(settings),
        )

    @property
    def negotiates(self) -> bool:
        """Whether ``Accept`` decides on the format."""
        return self._settings["images.negotiate"]

    def check_size(self, size: Size) -> None:
        """
        :raises SizeRefused: the settings do not allow it.
        """
        sizes, step = self._settings["images.sizes"], self._settings["images.step"]
        if not (sizes or step) or (size.width, size.height) in {(0, 0), *sizes}:
            return
        if not step or size.width % step or size.height % step:
            raise SizeRefused("This server does not make images of that size.")

    def plan(self, picture: Picture, size: Size, trim: Trim | None) -> Plan:
        """
        :raises SizeRefused:
        """
        return plan(picture.width, picture.height, size, self._settings["images.max_side"], trim)

    def output(self, format: str) -> Output:
        """
        :param format: one of those that can be written.
        """
        return Output(format, self._settings.get(f"images.{format}_quality"))

    def find(self, original: str, wanted: Plan, output: Output) -> Variant | None:
        """The variant, if it was made before."""
        return self._variants.find(original, _name(wanted, output))

    def make(
        self, transaction_manager: Any, blob: Blob, picture: Picture, wanted: Plan, output: Output
    ) -> Variant:
        """The variant, made by this process unless another one does just now. To be called
        outside of any transaction.

        :raises ImageRefused: the image is broken, or too much.
        :raises ResizeBusy: too many others are being made.
        :raises WorkerLost: it took too long, or too much memory.
        :raises BlobNotFound: the image is gone.
        """
        name = _name(wanted, output)
        with only_one(f"{blob.key} {name}", self._settings["images.timeout"]):
            with transaction_manager:
                found = self._variants.find(blob.key, name)
                others = [] if found else self._variants.of([blob.key])
            if found:
                return found
            with self._storage.spool() as spool:
                self._resize(blob, picture, wanted, output, others, spool)
                source = _source(spool, output)
                made = self._keep(transaction_manager, blob, name, source, wanted, others)
            if made:
                return made
            with transaction_manager:
                found = self._variants.find(blob.key, name)
        if found is None:
            raise BlobNotFound(blob.key)
        return found

    def forget(self, transaction_manager: Any, variant: Variant) -> None:
        """Its bytes are not there any more."""
        with transaction_manager:
            self._variants.drop([variant])

    def close(self) -> None:
        self._workers.close()

    def _resize(
        self,
        blob: Blob,
        picture: Picture,
        wanted: Plan,
        output: Output,
        others: list[Variant],
        into: BinaryIO,
    ) -> None:
        """From a smaller variant where that makes no difference, or from the image itself."""
        for variant in _large_enough(others, picture, wanted):
            try:
                self._resize_from(*_from_variant(variant, picture, wanted), output, into)
            except (BlobNotFound, ImageRefused):
                into.seek(0)
                into.truncate()
            else:
                return
        self._resize_from(blob, picture, wanted, output, into)

    def _resize_from(
        self, blob: Blob, picture: Picture, wanted: Plan, output: Output, into: BinaryIO
    ) -> None:
        with self._open(blob) as file:
            try:
                self._workers.resize(file, picture, wanted, output, into)
            except OSError as error:
                raise StorageUnavailable("spool", str(error)) from error

    @contextmanager
    def _open(self, blob: Blob) -> Iterator[BinaryIO]:
        """All of it, in a file."""
        if blob.size > self._settings["images.max_bytes"]:
            limit = self._settings["images.max_bytes"]
            raise ImageRefused(f"The file has {blob.size} bytes, {limit} are resized at most.")
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
        name: str,
        source: Source,
        wanted: Plan,
        others: list[Variant],
    ) -> Variant | None:
        """Store it, in the place of the oldest if there are very many; None if another server was
        quicker."""
        files = self._files(transaction_manager)
        most = self._settings["images.max_variants"]
        outdated = sorted(others, key=lambda other: other.modified)[
            : max(0, len(others) + 1 - most)
        ]
        try:
            with files.transaction():
                keys = VARIANTS.keys(MediaRef("", blob.digest), "", blob.digest)
                key = files.put(keys, source, VARIANTS)
                facts = (key, source.digest, source.size, source.mimetype)
                variant = Variant(blob.key, name, *facts, wanted.width, wanted.height)
                if not self._variants.add(variant):
                    raise _Quicker
                self._variants.drop(outdated)
                files.release([(other.key, False) for other in outdated], keep_old=False)
        except _Quicker:
            return None
        return replace(variant, modified=int(time.time() * 1000))


class _Quicker(Exception):
    """Somebody made the same."""


def _limits(settings: Settings) -> Limits:
    pixels, usual = settings["images.max_pixels"], Limits()
    return Limits(
        max_bytes=settings["images.max_bytes"],
        pixels=pixels,
        avif_pixels=min(pixels, usual.avif_pixels),
        gif_pixels=min(pixels, usual.gif_pixels),
    )


def _name(wanted: Plan, output: Output) -> str:
    """The same for all requests that give the same pixels."""
    crop = f"{wanted.left}.{wanted.top}.{wanted.crop_width}.{wanted.crop_height}"
    return f"{PIPELINE}-{wanted.width}x{wanted.height}-{crop}-{output.format}{output.q or ''}"


def _source(file: BinaryIO, output: Output) -> Source:
    digest = Digest()
    file.seek(0)
    while chunk := file.read(CHUNK):
        digest.update(chunk)
    name = f"image.{output.format}"
    return Source(file, name, output.mimetype, digest.size, digest.hexdigest(), True, True)


def _large_enough(variants: list[Variant], picture: Picture, wanted: Plan) -> list[Variant]:
    """Those of the whole image that have all the pixels that are wanted, the smallest first."""
    if picture.format not in ("jpeg", "png"):
        return []  # they may be animated
    whole = f"-0.0.{picture.width}.{picture.height}-"
    found = [
        variant
        for variant in variants
        if whole in variant.name
        and variant.name.startswith(f"{PIPELINE}-")
        and variant.mimetype == picture.mimetype
        # How large the whole image would be if the part of it has the size that is wanted.
        and variant.width * wanted.crop_width >= ENOUGH * wanted.width * picture.width
        and variant.height * wanted.crop_height >= ENOUGH * wanted.height * picture.height
    ]
    return sorted(found, key=lambda variant: variant.width)


def _from_variant(variant: Variant, picture: Picture, wanted: Plan) -> tuple[Blob, Picture, Plan]:
    """The same part of the variant."""
    horizontal, vertical = variant.width / picture.width, variant.height / picture.height
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
    blob = Blob(variant.key, variant.digest, variant.size, variant.mimetype)
    return blob, Picture(picture.format, variant.width, variant.height), part
