"""Uploads to the media store whose hash is not checked yet.

A *pending* upload claims a hash that no one has checked. Its id is its own, so the claim says
nothing about where its bytes are. Two verifiers may hash the same upload without harm, because only
one of them can take the row.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import uuid4

from kinto.core.storage import Filter
from kinto.core.utils import COMPARISON

from ...files.blob import is_digest
from ...files.key import check_key
from ...files.ref import MediaRef
from ..paging import (
    Row,
    UnreadableRow,
    check_types,
    keyset,
    readable,
    scan,
    unreadable,
)
from .leases import Leases

PENDING_ROWS = "attachment-pending"
PENDING_PARENT = "/attachment-pending"

# All ids begin alike, so that the rows are one range of the primary key, however many other objects
# Kinto's storage holds. In every collation, hexadecimal digits sort before a "g".
_FIRST, _LAST = "pending", "pendingg"


@dataclass(frozen=True)
class Pending:
    """Bytes whose uploader says that they have a certain hash.

    :param ref: the entry that they will become, and the claimed hash.
    :param key: where they are stored.
    :param mimetype: our own judgement of the type.
    :param size: bytes.
    """

    ref: MediaRef
    key: str
    mimetype: str
    size: int
    id: str = field(default_factory=lambda: f"{_FIRST}{uuid4().hex}")


class PendingUploads:
    """Uploads to the media store whose hash is unchecked.

    :param storage: ``registry.storage``.
    """

    def __init__(self, storage: Any):
        self._storage = storage
        self._leases = Leases(storage)

    def add(self, upload: Pending) -> None:
        """Write the upload down."""
        row = {
            "owner": upload.ref.owner,
            "hash": upload.ref.digest,
            "key": upload.key,
            "mimetype": upload.mimetype,
            "size": upload.size,
        }
        self._storage.update(PENDING_ROWS, f"{PENDING_PARENT}/{upload.id}", upload.id, row)

    def all(self) -> Iterator[Pending]:
        """Yield all of them in the order of their ids, read a page at a time."""
        for rows in self._pages():
            yield from readable(rows, _pending)

    def unreadable(self) -> Iterator[UnreadableRow]:
        """Yield every row that cannot be read."""
        rows = scan(self._storage, PENDING_ROWS, PENDING_PARENT)
        yield from unreadable(PENDING_ROWS, rows, _pending)

    def of(self, ref: MediaRef) -> list[Pending]:
        """Return the pending uploads of one entry."""
        pages = self._pages(
            Filter("owner", ref.owner, COMPARISON.EQ), Filter("hash", ref.digest, COMPARISON.EQ)
        )
        return list(readable((row for rows in pages for row in rows), _pending))

    def has(self, upload: Pending) -> bool:
        """Return whether the upload is still pending."""
        return bool(self._storage.list_all(PENDING_ROWS, f"{PENDING_PARENT}/{upload.id}"))

    def take(self, upload: Pending) -> bool:
        """Delete the row; return False if another process did. The row comes back if this
        transaction is aborted."""
        parent = f"{PENDING_PARENT}/{upload.id}"
        taken = self._storage.delete_all(PENDING_ROWS, parent, with_deleted=False)
        self._leases.drop(upload.id)
        return bool(taken)

    def _pages(self, *filters: Filter) -> Iterator[list[Row]]:
        bounds = (Filter("id", _FIRST, COMPARISON.GT), Filter("id", _LAST, COMPARISON.LT))
        list_all = partial(self._storage.list_all, PENDING_ROWS, f"{PENDING_PARENT}/*")
        return keyset(list_all, *bounds, *filters)


def _pending(row: Row) -> Pending:
    check_types(row, owner=str, hash=str, key=str, mimetype=str, size=int)
    ref = MediaRef(row["owner"], row["hash"])
    if not is_digest(ref.digest) or row["size"] < 0 or not row["id"].startswith(_FIRST):
        raise ValueError("hash, size or id is malformed")
    ref.uri.encode()  # the owner may not be Unicode
    return Pending(ref, check_key(row["key"]), row["mimetype"], row["size"], id=row["id"])
