"""Files that came for the media library, and that nobody has described yet.

The bytes belong to a link of their own, as those of a record do; what is known of them is in a row.
Who makes a record of one takes the row away, which only one can.

====================  ========================  ==========  ======================================
resource_name         parent_id                 id          data
====================  ========================  ==========  ======================================
attachment-unclaimed  /attachment-unclaimed/id  the upload  ``owner``, ``facts``, ``attachment``,
                                                            ``defaults``
====================  ========================  ==========  ======================================
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from .blob import UploadRef
from .rows import scan

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
