"""Uploads whose bytes are here, and whose hash nobody has checked yet.

Each has a row, by an id of its own: what it claims to be says nothing about where it is. Who
verifies one takes a lease on it, and renews it while he works; a lease that was not renewed is
over. That two should verify the same is no harm: only one of them takes the row away.

==================  ==========================  ==================  ==============================
resource_name       parent_id                   id                  data
==================  ==========================  ==================  ==============================
attachment-pending  /attachment-pending/{id}    ``pending{uuid}``   ``owner``, ``hash``, ``key``,
                                                                    ``mimetype``, ``size``
attachment-lease    /attachment-leases/{id}     that of the upload  ``holder``
==================  ==========================  ==================  ==============================

The ids begin alike so that all rows are one range of the primary key, however many other objects
Kinto's storage has.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any
from uuid import uuid4

from kinto.core.storage import Filter, Sort
from kinto.core.storage.exceptions import ObjectNotFoundError, UnicityError
from kinto.core.utils import COMPARISON

from ..files.ref import MediaRef, UploadRef
from .paging import PAGE, scan

PENDING = "attachment-pending"
PENDING_PARENT = "/attachment-pending"
LEASE = "attachment-lease"
LEASES_PARENT = "/attachment-leases"

LEASE_SECONDS = 30
"""Without a sign of life from who holds it."""

_FIRST, _LAST = "pending", "pendingg"  # hexadecimal digits are before a "g", in any language


@dataclass(frozen=True)
class Pending:
    """Bytes that somebody says have this hash.

    :param ref: whose entry they will be, and the hash that is claimed.
    :param key: where they are.
    :param mimetype: as it was judged.
    :param size: bytes.
    """

    ref: MediaRef
    key: str
    mimetype: str
    size: int
    id: str = field(default_factory=lambda: f"{_FIRST}{uuid4().hex}")


class PendingUploads:
    """The rows, in Kinto's storage. Every method works within the caller's transaction.

    :param storage: ``registry.storage``.
    """

    def __init__(self, storage: Any):
        self._storage = storage

    def add(self, upload: Pending) -> None:
        row = asdict(upload)
        row.pop("id")
        owner, digest = row.pop("ref").values()
        row.update(owner=owner, hash=digest)
        self._storage.update(PENDING, f"{PENDING_PARENT}/{upload.id}", upload.id, row)

    def all(self) -> Iterator[Pending]:
        """All of them, the oldest id first, read a page at a time."""
        last = _FIRST
        while page := self._page(Filter("id", last, COMPARISON.GT)):
            yield from page
            last = page[-1].id

    def of(self, ref: MediaRef) -> list[Pending]:
        """Those of one entry; a page of them at most."""
        return self._page(
            Filter("id", _FIRST, COMPARISON.GT),
            Filter("owner", ref.owner, COMPARISON.EQ),
            Filter("hash", ref.digest, COMPARISON.EQ),
        )

    def has(self, upload: Pending) -> bool:
        """Whether it is still pending."""
        return bool(self._storage.list_all(PENDING, f"{PENDING_PARENT}/{upload.id}"))

    def take(self, upload: Pending) -> bool:
        """Take the row away; False if somebody else did. It comes back if this transaction is
        aborted."""
        taken = self._storage.delete_all(
            PENDING, f"{PENDING_PARENT}/{upload.id}", with_deleted=False
        )
        self._storage.delete_all(LEASE, f"{LEASES_PARENT}/{upload.id}", with_deleted=False)
        return bool(taken)

    def lease(self, upload: Pending, holder: str) -> bool:
        """Take the lease, unless somebody alive has it. To be committed before the work begins."""
        if self._create(upload, holder):
            return True
        dead = [Filter("last_modified", self._now(holder) - LEASE_SECONDS * 1000, COMPARISON.LT)]
        parent = f"{LEASES_PARENT}/{upload.id}"
        over = self._storage.delete_all(LEASE, parent, filters=dead, with_deleted=False)
        return bool(over) and self._create(upload, holder)

    def _create(self, upload: Pending, holder: str) -> bool:
        row = {"id": upload.id, "holder": holder}
        try:
            self._storage.create(LEASE, f"{LEASES_PARENT}/{upload.id}", row)
        except UnicityError:
            return False
        return True

    def _now(self, holder: str) -> int:
        """Milliseconds since 1970 by the clock of the database, which dated the leases too."""
        parent = f"{LEASES_PARENT}/now-{holder}"
        row = self._storage.update(LEASE, parent, holder, {})
        self._storage.delete_all(LEASE, parent, with_deleted=False)
        return row["last_modified"]

    def renew(self, upload: Pending, holder: str) -> bool:
        """Give a sign of life; False if the lease, or the upload, is somebody else's by now."""
        parent = f"{LEASES_PARENT}/{upload.id}"
        try:
            row = self._storage.get(LEASE, parent, upload.id)
        except ObjectNotFoundError:
            return False
        if row["holder"] != holder:
            return False
        self._storage.update(LEASE, parent, upload.id, {"holder": holder})
        return True

    def give_back(self, upload: Pending, holder: str) -> None:
        """Somebody else may try. Again does nothing."""
        own = [Filter("holder", holder, COMPARISON.EQ)]
        parent = f"{LEASES_PARENT}/{upload.id}"
        self._storage.delete_all(LEASE, parent, filters=own, with_deleted=False)

    def _page(self, *filters: Filter) -> list[Pending]:
        rows = self._storage.list_all(
            PENDING,
            f"{PENDING_PARENT}/*",
            filters=[*filters, Filter("id", _LAST, COMPARISON.LT)],
            sorting=[Sort("id", 1)],
            limit=PAGE,
        )
        return [_pending(row) for row in rows]


def _pending(row: dict[str, Any]) -> Pending:
    ref = MediaRef(row["owner"], row["hash"])
    return Pending(ref, row["key"], row["mimetype"], row["size"], row["id"])


UNCLAIMED = "attachment-unclaimed"
UNCLAIMED_PARENT = "/attachment-unclaimed"


@dataclass(frozen=True)
class Unclaimed:
    """One of them.

    :param id: of the record that it may become.
    :param owner: the principal who may make it one.
    :param facts: what the record will say of its file.
    :param attachment: what will be attached to it.
    :param defaults: what else it says, if nobody says otherwise.
    :param modified: since when, in milliseconds since 1970; 0 before it is written.
    """

    id: str
    owner: str
    facts: dict[str, Any]
    attachment: dict[str, Any]
    defaults: dict[str, Any] = field(default_factory=dict)
    modified: int = 0

    @property
    def ref(self) -> UploadRef:
        return UploadRef(self.id)


class UnclaimedUploads:
    """The rows, in Kinto's storage. Every method works within the caller's transaction.

    :param storage: ``registry.storage``.
    """

    def __init__(self, storage: Any):
        self._storage = storage

    def add(self, upload: Unclaimed) -> None:
        row = asdict(upload)
        row.pop("id")
        row.pop("modified")
        self._storage.update(UNCLAIMED, _parent(upload.id), upload.id, row)

    def get(self, upload_id: str) -> Unclaimed | None:
        rows = self._storage.list_all(UNCLAIMED, _parent(upload_id)) if upload_id else []
        return _upload(rows[0]) if rows else None

    def take(self, upload: Unclaimed) -> bool:
        """Take the row away; False if somebody else did. It comes back if this transaction is
        aborted."""
        taken = self._storage.delete_all(UNCLAIMED, _parent(upload.id), with_deleted=False)
        return bool(taken)

    def all(self) -> Iterator[Unclaimed]:
        """All of them, read a page at a time."""
        for row in scan(self._storage, UNCLAIMED, UNCLAIMED_PARENT):
            yield _upload(row)


def _parent(upload_id: str) -> str:
    return f"{UNCLAIMED_PARENT}/{upload_id}"


def _upload(row: dict[str, Any]) -> Unclaimed:
    return Unclaimed(
        row["id"],
        row["owner"],
        row["facts"],
        row["attachment"],
        row["defaults"],
        row["last_modified"],
    )
