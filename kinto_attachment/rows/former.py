"""What records said about their files before."""

from functools import partial
from hashlib import sha256
from typing import Any

from kinto.core.storage import Filter
from kinto.core.utils import COMPARISON

from ..files.blob import canonical_json
from ..files.ref import FieldRef
from .links import LINKS_PARENT, parent_below, parent_of
from .paging import delete_rows, find_rows

FORMER_ROWS = "attachment-former"
_DELETED_TOGETHER = "deleted-together"
_FIELD = 4
"""How many names of the path of a :class:`FieldRef` its field has, but for the default one."""


class FormerAttachments:
    """The attachments that records had before.

    An offline client keeps the last version of a record that it has seen, and sends it back much
    later, with an attachment that was replaced or removed since. Such a value is outdated, but not
    forged. These rows tell the two apart: each stands for one value that a record had, by its hash.

    Of records that were deleted together there may be too many values. One row then says that their
    collection or bucket lost records; the tombstones of the links tell which.

    :param storage: ``registry.storage``.
    """

    def __init__(self, storage: Any):
        self._storage = storage

    def add(self, ref: FieldRef, attachment: Any) -> None:
        """Remember that the place had this value. Idempotent."""
        self._storage.update(FORMER_ROWS, parent_of(ref, _FIELD), _row_id(attachment), {})

    def known(self, ref: FieldRef, attachments: list[Any]) -> list[bool]:
        """Return for each of these values whether the field had it, if it is a list in any of its
        entries. One lookup, whatever else it had."""
        ids = [_row_id(attachment) for attachment in attachments]
        list_all = partial(self._storage.list_all, FORMER_ROWS, parent_of(ref, _FIELD))
        found = find_rows(list_all, ids)
        return [each in found for each in ids]

    def add_all(self, bucket: str, collection: str | None = None) -> None:
        """Remember that records of a collection or bucket were deleted together. Idempotent."""
        parent = parent_below(bucket, collection)
        self._storage.update(FORMER_ROWS, parent, _DELETED_TOGETHER, {})

    def add_field(self, ref: FieldRef) -> None:
        """Remember that many entries of a field were removed together. Idempotent.

        :param ref: one of them.
        """
        self._storage.update(FORMER_ROWS, parent_of(ref, _FIELD), _DELETED_TOGETHER, {})

    def may_have(self, ref: FieldRef) -> bool:
        """Return whether the file of the place may have been deleted together with others."""
        only = [Filter("id", _DELETED_TOGETHER, COMPARISON.EQ)]
        depths = (1, 2, _FIELD) if ref.is_nested else (1, 2)
        parents = (parent_of(ref, depth) for depth in depths)
        list_all = partial(self._storage.list_all, FORMER_ROWS, filters=only, limit=1)
        return any(list_all(parent_id=parent) for parent in parents)

    def forget(self, before: int) -> None:
        """Delete the rows from before then (milliseconds since 1970)."""
        only = [Filter("last_modified", before, COMPARISON.LT)]
        delete_rows(self._storage, FORMER_ROWS, f"{LINKS_PARENT}/*", *only)


def _row_id(attachment: Any) -> str:
    return sha256(canonical_json(attachment).encode()).hexdigest()
