"""Images at other sizes: made by who asks first, kept for all others.

No request here, and no transaction is held while bytes move or pixels are computed.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any, BinaryIO

from ..errors import BlobNotFound, ImageRefused, ResizeBusy, SizeRefused, StorageUnavailable
from ..files.blob import CHUNK, Blob, Digest, Source
from ..files.ref import MediaRef
from ..rows.variants import Variant, Variants
from ..settings import VARIANTS, Settings
from ..storage import IStorage
from ..transactions.files import Files
from .formats.header import Picture
from .formats.limits import Limits
from .host_lock import only_one
from .plan import Output, Plan, Size, Trim, plan
from .probe import Pictures
from .worker.pool import Turn, Workers

logger = logging.getLogger(__name__)

PIPELINE = 1
"""To be counted up when the same request gives other pixels."""

ENOUGH = 2
"""A variant with so many times the pixels, in each direction, is as good as the original."""


class Imaging:
    """
    :param files: what a transaction does to files, by its manager.
    :param readonly: nothing is made, as it could not be kept.
    """

    def __init__(
        self,
        settings: Settings,
        storage: IStorage,
        variants: Variants,
        files: Callable[[Any], Files],
        readonly: bool = False,
    ):
        self._settings = settings
        self._storage = storage
        self._variants = variants
        self._files = files
        self._readonly = readonly
        self.pictures = Pictures(storage)
        self._workers = Workers(
            count=settings["images.workers"],
            queue=settings["images.queue"],
            timeout=settings["images.timeout"],
            memory=settings["images.memory"],
            limits=_limits(settings),
        )

    @property
    def varies(self) -> tuple[str, ...]:
        """Headers that an answer depends on. Other origins get more of them."""
        return ("Accept", "Origin") if self.negotiates else ("Origin",)

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

    def find(self, blob: Blob, wanted: Plan, output: Output) -> Variant | None:
        """The variant, if it was made before.

        :param blob: the original.
        """
        return self._variants.find(blob.key, _name(blob, wanted, output))

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
        if self._readonly:
            raise ResizeBusy("This server is read-only, and nobody has made that size yet.")
        name = _name(blob, wanted, output)
        # Who makes it waits as long for his turn, and then as long for the image.
        with only_one(f"{blob.key} {name}", 2 * self._settings["images.timeout"]):
            with transaction_manager:
                others = self._variants.of([blob.key])
            for found in others:
                if found.name == name:
                    return found
            with self._workers.turn() as turn, self._storage.spool() as spool:
                direct = self._resize(turn, blob, picture, wanted, output, others, spool)
                source = _source(spool, output)
                facts = (wanted.width, wanted.height, direct)
                made = self._keep(transaction_manager, blob, name, source, facts, others)
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
        turn: Turn,
        blob: Blob,
        picture: Picture,
        wanted: Plan,
        output: Output,
        others: list[Variant],
        into: BinaryIO,
    ) -> bool:
        """From a smaller variant where that makes no difference, or from the image itself; whether
        it was that."""
        kept = self.output(picture.format)
        for variant in _large_enough(others, blob, picture, wanted, kept):
            try:
                self._resize_from(turn, *_from_variant(variant, picture, wanted), output, into)
            except (BlobNotFound, ImageRefused) as error:
                logger.info("Not made of %s: %s", variant.key, error)
            else:
                return False
        self._resize_from(turn, blob, picture, wanted, output, into)
        return True

    def _resize_from(
        self,
        turn: Turn,
        blob: Blob,
        picture: Picture,
        wanted: Plan,
        output: Output,
        into: BinaryIO,
    ) -> None:
        with self._open(blob) as file:
            try:
                turn.resize(file, picture, wanted, output, into)
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
        facts: tuple[int, int, bool],
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
                bytes_ = (key, source.digest, source.size, source.mimetype)
                variant = Variant(blob.key, name, *bytes_, *facts)
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


def _name(blob: Blob, wanted: Plan, output: Output) -> str:
    """The same for all requests that give the same pixels."""
    crop = f"{wanted.left}.{wanted.top}.{wanted.crop_width}.{wanted.crop_height}"
    return f"{_of(blob)}{wanted.width}x{wanted.height}-{crop}-{_as(output)}"


def _of(blob: Blob) -> str:
    """How names of its variants begin."""
    return f"{PIPELINE}-{blob.digest[:16]}-"


def _as(output: Output) -> str:
    return f"{output.format}{output.q or ''}"


def _source(file: BinaryIO, output: Output) -> Source:
    digest = Digest()
    file.seek(0)
    while chunk := file.read(CHUNK):
        digest.update(chunk)
    name = f"image.{output.format}"
    return Source(file, name, output.mimetype, digest.size, digest.hexdigest(), True, True)


def _large_enough(
    variants: list[Variant], blob: Blob, picture: Picture, wanted: Plan, kept: Output
) -> list[Variant]:
    """Those of the whole image that are as good, and have all the pixels that are wanted; the
    smallest first."""
    if picture.format not in ("jpeg", "png"):
        return []  # they may be animated
    as_good = f"-0.0.{picture.width}.{picture.height}-{_as(kept)}"
    found = [
        variant
        for variant in variants
        if variant.direct
        and variant.name.startswith(_of(blob))
        and variant.name.endswith(as_good)
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
    return variant.blob, Picture(picture.format, variant.width, variant.height), part
