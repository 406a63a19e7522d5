"""Files of the media library that no object describes yet.

A link of its own owns the bytes of an *unclaimed* upload; the row holds what is known of them. Only
one request can take the row and make an object of it.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from ...files.blob import Attachment
from ...files.ref import UploadRef
from ..paging import Row, UnreadableRow, check_types, readable, scan, unreadable

UNCLAIMED_ROWS = "attachment-unclaimed"
UNCLAIMED_PARENT = "/attachment-unclaimed"


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
