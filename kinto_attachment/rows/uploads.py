"""Uploads that are not finished: their hash is unchecked, or no record describes them yet.

A *pending* upload of the media store claims a hash that no one has checked. Its id is its own, so
the claim says nothing about where its bytes are. The verifier takes a lease on an upload and renews
it while it hashes; a lease that is not renewed expires. Two verifiers may hash the same upload
without harm, because only one of them can take the row.

An *unclaimed* upload of the media library is a file that no object describes yet. A link of its own
owns the bytes; the row holds what is known of them. Only one request can take the row and make an
object of it.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any
from uuid import uuid4

from kinto.core.storage import Filter
from kinto.core.storage.exceptions import ObjectNotFoundError
from kinto.core.utils import COMPARISON

from ..files.blob import Attachment, is_digest
from ..files.key import check_key
from ..files.ref import MediaRef, UploadRef
from .paging import (
    Row,
    UnreadableRow,
    check_types,
    create_row,
    keyset,
    readable,
    scan,
    unreadable,
)

PENDING_ROWS = "attachment-pending"
PENDING_PARENT = "/attachment-pending"
LEASE_ROWS = "attachment-lease"
LEASES_PARENT = "/attachment-leases"
UNCLAIMED_ROWS = "attachment-unclaimed"
UNCLAIMED_PARENT = "/attachment-unclaimed"

LEASE_SECONDS = 30
"""A lease expires when its holder has not renewed it for this long."""

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
    """Uploads to the media store whose hash is unchecked, and the leases on them.

    :param storage: ``registry.storage``.
    """

    def __init__(self, storage: Any):
        self._storage = storage

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
        self._storage.delete_all(LEASE_ROWS, f"{LEASES_PARENT}/{upload.id}", with_deleted=False)
        return bool(taken)

    def lease(self, upload: Pending, holder: str) -> bool:
        """Take the lease; return False if another process holds it. Commit before the work
        begins.

        :param holder: an id of the process that takes it.
        """
        if self._create(upload, holder):
            return True
        dead = [Filter("last_modified", self._now(holder) - LEASE_SECONDS * 1000, COMPARISON.LT)]
        parent = f"{LEASES_PARENT}/{upload.id}"
        expired = self._storage.delete_all(LEASE_ROWS, parent, filters=dead, with_deleted=False)
        return bool(expired) and self._create(upload, holder)

    def _create(self, upload: Pending, holder: str) -> bool:
        row = {"id": upload.id, "holder": holder}
        return create_row(self._storage, LEASE_ROWS, f"{LEASES_PARENT}/{upload.id}", row)

    def _now(self, holder: str) -> int:
        """Return milliseconds since 1970 by the clock of the database, which dates the leases."""
        parent = f"{LEASES_PARENT}/now-{holder}"
        row = self._storage.update(LEASE_ROWS, parent, holder, {})
        self._storage.delete_all(LEASE_ROWS, parent, with_deleted=False)
        return row["last_modified"]

    def renew(self, upload: Pending, holder: str) -> bool:
        """Extend the lease; return False if the lease or the upload belongs to another process by
        now."""
        parent = f"{LEASES_PARENT}/{upload.id}"
        try:
            row = self._storage.get(LEASE_ROWS, parent, upload.id)
        except ObjectNotFoundError:
            return False
        if row.get("holder") != holder:
            return False
        self._storage.update(LEASE_ROWS, parent, upload.id, {"holder": holder})
        return True

    def give_back(self, upload: Pending, holder: str) -> None:
        """Return the lease, so that another process may try. Idempotent."""
        own = [Filter("holder", holder, COMPARISON.EQ)]
        parent = f"{LEASES_PARENT}/{upload.id}"
        self._storage.delete_all(LEASE_ROWS, parent, filters=own, with_deleted=False)

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


@dataclass(frozen=True)
class Unclaimed:
    """A file of the media library that no object describes yet.

    :param id: that of the record that it may become.
    :param owner: the principal that may make a record of it.
    :param facts: what the record will say of its file.
    :param attachment: what will be attached to the record.
    :param defaults: further attributes, unless the request gives its own.
    :param modified: when it was written, in milliseconds since 1970; 0 before that.
    """

    id: str
    owner: str
    facts: dict[str, Any]
    attachment: dict[str, Any]
    defaults: dict[str, Any] = field(default_factory=dict)
    modified: int = 0

    @property
    def ref(self) -> UploadRef:
        """The owner of its bytes."""
        return UploadRef(self.id)


class UnclaimedUploads:
    """Files of the media library that no object describes yet.

    :param storage: ``registry.storage``.
    """

    def __init__(self, storage: Any):
        self._storage = storage

    def add(self, upload: Unclaimed) -> None:
        """Write the upload down."""
        row = asdict(upload)
        row.pop("id")
        row.pop("modified")
        self._storage.update(UNCLAIMED_ROWS, _unclaimed_parent(upload.id), upload.id, row)

    def get(self, upload_id: str) -> Unclaimed | None:
        """Return the upload, or None if it was taken."""
        if not upload_id:
            return None
        rows = self._storage.list_all(UNCLAIMED_ROWS, _unclaimed_parent(upload_id))
        return next(readable(rows, _unclaimed), None)

    def has(self, upload_id: str) -> bool:
        """Return whether there is a row of that upload, even one that cannot be read."""
        return bool(self._storage.list_all(UNCLAIMED_ROWS, _unclaimed_parent(upload_id)))

    def take(self, upload: Unclaimed) -> bool:
        """Delete the row; return False if another request did. The row comes back if this
        transaction is aborted."""
        parent = _unclaimed_parent(upload.id)
        return bool(self._storage.delete_all(UNCLAIMED_ROWS, parent, with_deleted=False))

    def all(self) -> Iterator[Unclaimed]:
        """Yield all of them, read a page at a time."""
        yield from readable(scan(self._storage, UNCLAIMED_ROWS, UNCLAIMED_PARENT), _unclaimed)

    def unreadable(self) -> Iterator[UnreadableRow]:
        """Yield every row that cannot be read."""
        rows = scan(self._storage, UNCLAIMED_ROWS, UNCLAIMED_PARENT)
        yield from unreadable(UNCLAIMED_ROWS, rows, _unclaimed)


def _unclaimed_parent(upload_id: str) -> str:
    return f"{UNCLAIMED_PARENT}/{upload_id}"


def _unclaimed(row: Row) -> Unclaimed:
    check_types(row, owner=str, facts=dict, attachment=dict, defaults=dict)
    Attachment.from_json(row["attachment"])
    return Unclaimed(
        id=row["id"],
        owner=row["owner"],
        facts=row["facts"],
        attachment=row["attachment"],
        defaults=row["defaults"],
        modified=row["last_modified"],
    )
