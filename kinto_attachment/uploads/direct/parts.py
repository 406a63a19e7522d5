"""Which parts of a direct upload have arrived."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import BlobNotFound, PartsMissing, UploadRefused
from ...plugin import Plugin
from ...rows.uploads import DirectUpload
from ...storage.base import at_once
from ...storage.staged import look

_LOOKS = 8
"""How many objects the storage is asked for at the same time."""

Committed = Callable[[Callable[[], Any]], Any]
"""Returns what a function returns, called in a transaction of its own."""


@dataclass(frozen=True)
class ArrivedPart:
    """A part that is there.

    :param etags: the entity tags, without quotes, that the client may know it by.
    :param digest: its SHA-256; empty if it is not known.
    """

    number: int
    key: str
    size: int
    etags: tuple[str, ...]
    digest: str = ""


def find_parts(plugin: Plugin, upload: DirectUpload, committed: Committed) -> list[ArrivedPart]:
    """Return the parts that have arrived, in the order of their numbers. Of one number, the one
    that was sent last comes last. No transaction is open while the storage is asked.

    :raises StorageUnavailable: if the storage cannot be reached.
    """
    if not upload.parts:
        rows = committed(lambda: plugin.rows.direct.parts(upload.id))
        return [
            ArrivedPart(row.number, row.key, row.size, (row.digest,), row.digest) for row in rows
        ]
    found = at_once(lambda numbered: _look(plugin, *numbered), enumerate(upload.parts, 1), _LOOKS)
    return sorted((each for each in found if each), key=lambda part: part.number)


def _look(plugin: Plugin, number: int, key: str) -> ArrivedPart | None:
    try:
        found = look(plugin.storage, key)
    except BlobNotFound:
        return None
    return ArrivedPart(number, key, found.size, found.etags, found.digest)


def choose_parts(
    upload: DirectUpload, found: Sequence[ArrivedPart], named: Mapping[int, str]
) -> list[ArrivedPart]:
    """Return one part of each number, in their order.

    :param named: entity tags by the numbers of the parts, as the client says them. Of a part that
        was sent again, the one with that tag is taken, and without a tag the last one.
    :raises PartsMissing: if a part has not arrived, or none with that tag.
    :raises UploadRefused: if a part has another size than it should have.
    """
    fitting = {
        part.number: part
        for part in found
        if part.number not in named or named[part.number] in part.etags
    }
    missing = [number for number in range(1, upload.count + 1) if number not in fitting]
    if missing:
        raise PartsMissing(missing)
    for number, part in fitting.items():
        expected = upload.span(number)[1]
        if part.size != expected:
            what = "The file" if upload.count == 1 else f"Part {number}"
            raise UploadRefused(f"{what} has {part.size} bytes instead of {expected}.", "size")
    return [fitting[number] for number in range(1, upload.count + 1)]
