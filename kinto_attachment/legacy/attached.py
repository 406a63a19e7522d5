"""Reading what records say about their files, for those that have no link yet."""

from collections.abc import Iterator
from typing import Any

from kinto.core.storage import Filter
from kinto.core.utils import COMPARISON

from ..files.field import files_of
from ..files.ref import FieldRef
from ..rows.paging import ListAll, records_of
from ..settings import Settings

Attachments = dict[FieldRef, Any]
"""Places on records that exist, with what the records say there."""

_ATTACHED = Filter("attachment.location", True, COMPARISON.HAS)


def read_attached(list_all: ListAll, **which: str | None) -> Iterator[Attachments]:
    """Yield pages of what records say in the field that each of them has, the only one that the
    existing plugin knew.

    :param which: one bucket, collection or record; see :func:`records_of`.
    """
    for records in records_of(list_all, _ATTACHED, **which):
        yield {FieldRef(ref): row["attachment"] for ref, row in records.items()}


def read_fields(
    settings: Settings, list_all: ListAll, **which: str | None
) -> Iterator[Attachments]:
    """Yield pages of what records say in the other fields that their collections declare."""
    for records in records_of(list_all, **which):
        found: Attachments = {}
        for ref, row in records.items():
            fields = settings.policy(ref.bucket, ref.collection).fields
            for place, value in files_of(ref, row, fields).items():
                if place.is_nested and place.field in fields:
                    found[place] = value
        yield found
