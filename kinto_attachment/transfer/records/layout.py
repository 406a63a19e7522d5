"""The path of a file below a folder of records, and back."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from ...files.field import is_field_name
from ...files.filename import extension_of
from ...files.ref import ATTRIBUTE
from ..paths import is_record_id
from ..upload import record_id

LAST = 10**9
"""The position of a file whose name has none: after the others."""

_POSITION = re.compile(r"([0-9]{3,9})-(.+)", re.DOTALL)


@dataclass(frozen=True)
class RecordFile:
    """A file in a folder, as that of a record.

    :param record: the id of the record.
    :param field: the name of the field.
    :param position: from 1, in the order of the list; 0 for a file that is in no folder of a field.
    :param filename: its name on the record.
    :param path: the attribute ``path`` of the record, if it says where the file is; else None.
    """

    record: str
    field: str
    position: int
    filename: str
    path: str | None = None


def read_path(path: str) -> RecordFile:
    """Return what a file is by its path below the folder. If that is not the path of a field, it is
    the attachment of a record whose id is computed from the path.

    >>> read_path("r1/pictures/002-sun.jpg")
    RecordFile(record='r1', field='pictures', position=2, filename='sun.jpg', path=None)
    >>> read_path("r1/pictures/sun.jpg").position == LAST
    True
    >>> read_path("sun.jpg").path
    'sun.jpg'
    """
    name = PurePosixPath(path).name
    match path.split("/"):
        case [record, field, last] if is_record_id(record) and is_field_name(field):
            found = _POSITION.fullmatch(last)
            if found:
                return RecordFile(record, field, int(found[1]), found[2])
            return RecordFile(record, field, LAST, last)
    return RecordFile(record_id(path), ATTRIBUTE, 0, name, path)


def paths_of(file: RecordFile) -> Iterator[str]:
    """Yield the path of a file of a field, and another one, in case that no file can have that
    name on this computer.

    >>> list(paths_of(RecordFile("r1", "pictures", 2, "sun.jpg")))
    ['r1/pictures/002-sun.jpg', 'r1/pictures/002-pictures.jpg']
    """
    start = f"{file.record}/{file.field}/{file.position:03}-"
    if "/" not in file.filename:
        yield start + file.filename
    extension = extension_of(file.filename)
    yield f"{start}{file.field}.{extension}" if extension else start + file.field
