"""Resized copies of an image: made once, kept, and deleted with it.

A variant is a file of its own. Its key is used once and contains the hash of the original. The id
of its row is the key of the original, so that the primary key finds all variants of an image; its
name contains the hash too, because a key may come to hold other bytes. Losing the bytes of a
variant is harmless: they can be made again.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from typing import Any

from kinto.core.storage import Filter
from kinto.core.utils import COMPARISON

from ..files.blob import Blob, is_digest
from ..files.key import check_key
from .paging import (
    Row,
    UnreadableRow,
    check_types,
    create_row,
    delete_rows,
    fetch_size,
    keyset,
    pages,
    readable,
    unreadable,
)

VARIANT_ROWS = "attachment-variant"
VARIANTS_PARENT = "/attachment-variants"


@dataclass(frozen=True)
class Variant:
    """One resized copy of an image.

    :param original: the key of the image.
    :param name: size, crop and format: letters, digits, ``-`` and ``.`` only.
    :param key: where its bytes are.
    :param digest: SHA-256 of them, lowercase hex.
    :param size: bytes.
    :param width: in pixels, as ``height``.
    :param direct: whether it was made from the original, and not from another variant.
    :param modified: when it was written, in milliseconds since 1970; 0 before that.
    """

    original: str
    name: str
    key: str
    digest: str
    size: int
    mimetype: str
    width: int
    height: int
    direct: bool = True
    modified: int = field(default=0, compare=False)

    @property
    def blob(self) -> Blob:
        """Its bytes."""
        return Blob(self.key, self.digest, self.size, self.mimetype)


class Variants:
    """Resized copies of images.

    :param storage: ``registry.storage``.
    """

    def __init__(self, storage: Any):
        self._storage = storage

    def find(self, original: str, name: str) -> Variant | None:
        """Return the variant of that name, or None if it was not made yet.

        :param original: the key of the image.
        """
        only = [Filter("id", original, COMPARISON.EQ)]
        rows = self._storage.list_all(VARIANT_ROWS, _parent(original, name), filters=only)
        return next(readable(rows, _variant), None)

    def of(self, originals: Iterable[str]) -> list[Variant]:
        """Return the variants of any number of images.

        :param originals: the keys of the images.
        """
        found: list[Variant] = []
        for page in pages(originals):
            for rows in self._pages(Filter("id", page, COMPARISON.IN)):
                found += readable(rows, _variant)
        return found

    def add(self, variant: Variant) -> bool:
        """Write the variant down; return False if there is one of that name already."""
        row = {**vars(variant)}
        row.pop("modified")
        row["id"] = row.pop("original")
        parent = _parent(variant.original, variant.name)
        return create_row(self._storage, VARIANT_ROWS, parent, row)

    def drop(self, variants: Iterable[Variant]) -> None:
        """Forget the variants. Idempotent."""
        for page in pages(variants):
            originals = {variant.original for variant in page}
            delete_rows(
                self._storage,
                VARIANT_ROWS,
                f"{VARIANTS_PARENT}/*",
                Filter("id", list(originals), COMPARISON.IN),
                # By their keys too: another variant of that name may have been made since.
                Filter("key", [variant.key for variant in page], COMPARISON.IN),
                most=len(page),
            )

    def all(self) -> Iterator[Variant]:
        """Yield every variant on the server, read a page at a time."""
        for rows in self._pages():
            yield from readable(rows, _variant)

    def unreadable(self) -> Iterator[UnreadableRow]:
        """Yield every row that cannot be read."""
        for rows in self._pages():
            yield from unreadable(VARIANT_ROWS, rows, _variant)

    def _pages(self, *filters: Filter) -> Iterator[list[Row]]:
        list_all = partial(self._storage.list_all, VARIANT_ROWS, f"{VARIANTS_PARENT}/*")
        return keyset(list_all, *filters, by=("id", "key"), least=fetch_size(self._storage))


def _parent(original: str, name: str) -> str:
    # Kinto's timestamps are unique below a parent: the digits keep those of images apart.
    return f"{VARIANTS_PARENT}/{name}-{sha256(original.encode()).hexdigest()[:8]}"


def _variant(row: Row) -> Variant:
    row = {"direct": True, **row}
    check_types(row, key=str, name=str, digest=str, mimetype=str, size=int, width=int, height=int)
    check_types(row, direct=bool)
    if not is_digest(row["digest"]) or min(row["size"], row["width"], row["height"]) < 0:
        raise ValueError("digest, size, width or height is malformed")
    values = {name: row[name] for name in Variant.__annotations__ if name in row}
    check_key(row["key"])
    return Variant(original=row["id"], modified=row["last_modified"], **values)
