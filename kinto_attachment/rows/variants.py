"""Other sizes of an image: made once, kept, and gone with it.

A variant is a file of its own, below a key that is given once and has the hash of its original in
it; a row says which one it is. The row has the key of the original for its id, so that the primary
key, which begins with the id, finds all variants of it; its name has the hash too, as a key may be
given to other bytes. That those of a variant are missing is no loss: they can be made again.

==================  =================================  ===================  ====================
resource_name       parent_id                          id                   data
==================  =================================  ===================  ====================
attachment-variant  /attachment-variants/{name}-{...}  key of the original  ``key``, ``digest``,
                                                                            ``size``,
                                                                            ``mimetype``,
                                                                            ``width``,
                                                                            ``height``, ``name``,
                                                                            ``direct``
==================  =================================  ===================  ====================

Kinto's timestamps are unique in a parent: a few digits of a digest of the original keep those of
different images apart.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from typing import Any

from kinto.core.storage import Filter, Sort
from kinto.core.storage.exceptions import UnicityError
from kinto.core.utils import COMPARISON

from ..files.blob import Blob
from .paging import PAGE, Row, pages

VARIANT = "attachment-variant"
VARIANTS_PARENT = "/attachment-variants"


@dataclass(frozen=True)
class Variant:
    """
    :param original: the key of the image that it is of.
    :param name: what it is: letters, digits, ``-`` and ``.`` only.
    :param key: where its bytes are.
    :param digest: SHA-256 of them, lowercase hex.
    :param direct: whether it was made of the original, and not of another variant.
    :param size: bytes.
    :param width: in pixels, as ``height``.
    :param modified: since when, in milliseconds since 1970; 0 before it is written.
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
        return Blob(self.key, self.digest, self.size, self.mimetype)


class Variants:
    """The rows, in Kinto's storage. Every method works within the caller's transaction.

    :param storage: ``registry.storage``.
    """

    def __init__(self, storage: Any):
        self._storage = storage

    def find(self, original: str, name: str) -> Variant | None:
        only = [Filter("id", original, COMPARISON.EQ)]
        rows = self._storage.list_all(VARIANT, _parent(original, name), filters=only)
        return _variant(rows[0]) if rows else None

    def of(self, originals: Iterable[str]) -> list[Variant]:
        """Those of any number of images."""
        found: list[Variant] = []
        for page in pages(originals):
            only = [Filter("id", page, COMPARISON.IN)]
            for rows in self._pages(*only):
                found += map(_variant, rows)
        return found

    def add(self, variant: Variant) -> bool:
        """Write it down; False if there is one of that name already."""
        row = asdict(variant)
        row.pop("modified")
        row["id"] = row.pop("original")
        try:
            self._storage.create(VARIANT, _parent(variant.original, variant.name), row)
        except UnicityError:
            return False
        return True

    def drop(self, variants: Iterable[Variant]) -> None:
        """Forget them. Again does nothing."""
        for page in pages(variants):
            # By their keys too: another one of that name may have been made since.
            same = [
                Filter("id", list({variant.original for variant in page}), COMPARISON.IN),
                Filter("key", [variant.key for variant in page], COMPARISON.IN),
            ]
            parent = f"{VARIANTS_PARENT}/*"
            self._storage.delete_all(VARIANT, parent, filters=same, with_deleted=False)

    def all(self) -> Iterator[Variant]:
        """Every variant on the server, read a page at a time."""
        for rows in self._pages():
            yield from map(_variant, rows)

    def _pages(self, *filters: Filter) -> Iterator[list[Row]]:
        """Keyset paging, by what no two rows have both."""
        order = [Sort("id", 1), Sort("key", 1)]
        start, after = [], []
        while True:
            rows = self._storage.list_all(
                VARIANT,
                f"{VARIANTS_PARENT}/*",
                filters=[*filters, *start],
                sorting=order,
                pagination_rules=after,
                limit=PAGE,
            )
            if rows:
                yield rows
            if len(rows) < PAGE:
                return
            last, key = rows[-1]["id"], rows[-1]["key"]
            # Says nothing new, but PostgreSQL does not see that the rules begin there.
            start = [Filter("id", last, COMPARISON.MIN)]
            after = [
                [Filter("id", last, COMPARISON.EQ), Filter("key", key, COMPARISON.GT)],
                [Filter("id", last, COMPARISON.GT)],
            ]


def _parent(original: str, name: str) -> str:
    return f"{VARIANTS_PARENT}/{name}-{sha256(original.encode()).hexdigest()[:8]}"


def _variant(row: Row) -> Variant:
    values = {name: row[name] for name in Variant.__annotations__ if name in row}
    return Variant(original=row["id"], modified=row["last_modified"], **values)
