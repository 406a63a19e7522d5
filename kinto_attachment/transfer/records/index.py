"""The index of a folder: which records its files are of, where their paths do not tell.

A line is a JSON object with the path of the file (``file``) and the attributes of its
:class:`~.layout.RecordFile`. There are lines for the attachments of records whose ids are not
computed from their paths, and for the few files that have another path than usual because that was
taken, or is no valid name.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from shutil import copyfileobj
from tempfile import TemporaryFile

from ...errors import CommandFailed
from ...files.field import is_field_name
from ...files.ref import ATTRIBUTE
from ..paths import PART, is_record_id
from .layout import RecordFile, read_path

INDEX = "kinto-attachment.jsonl"
"""The name of the index in the folder."""


class IndexWriter:
    """The index of what a download writes. Its lines are kept in a temporary file."""

    def __init__(self) -> None:
        self._lines = TemporaryFile("w+b")
        self._has_fields = False

    def add(self, path: str, file: RecordFile) -> None:
        """Add a file, if its path does not tell what it is."""
        self._has_fields = self._has_fields or file.position > 0
        if read_path(path) != file:
            line = json.dumps({"file": path, **asdict(file)})
            self._lines.write(f"{line}\n".encode())

    def write(self, root: Path) -> None:
        """Write the index to the folder. If no record has files in other fields than
        ``attachment``, do so only if there is an index already, which may be wrong by now.

        :raises CommandFailed: if it cannot be written.
        """
        target = root / INDEX
        has_old = target.is_file()
        if not has_old and not (self._has_fields and self._lines.tell()):
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0)
        flags |= getattr(os, "O_BINARY", 0)
        part = root / (INDEX + PART)
        self._lines.seek(0)
        try:
            with open(os.open(part, flags, 0o666), "wb") as file:
                copyfileobj(self._lines, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, target)
        except OSError as error:
            raise CommandFailed(f"{target} cannot be written: {error.strerror}") from error

    def close(self) -> None:
        """Delete the temporary file."""
        self._lines.close()


def read_index(root: str | os.PathLike) -> Iterator[tuple[str, RecordFile]]:
    """Yield the paths in the index of a folder, and what the files there are; nothing if there is
    no index.

    :raises CommandFailed: if it is malformed, or cannot be read.
    """
    place = Path(root, INDEX)
    try:
        with place.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    yield _read_line(line)
                except (ValueError, TypeError, LookupError) as error:
                    remedy = f"delete {place}, and download the files again"
                    raise CommandFailed(f"{place}, line {number}: {error}; {remedy}") from error
    except FileNotFoundError:
        return
    except OSError as error:
        raise CommandFailed(f"{place} cannot be read: {error.strerror}") from error


def _read_line(line: bytes) -> tuple[str, RecordFile]:
    found = json.loads(line)
    path = found.pop("file")
    file = RecordFile(**found)
    for name, kind in RecordFile.__annotations__.items():
        if not isinstance(getattr(file, name), kind):
            raise ValueError(f"{name} is malformed")
    if not isinstance(path, str) or not is_record_id(file.record):
        raise ValueError("it names no file of a record")
    if file.field != ATTRIBUTE and not is_field_name(file.field):
        raise ValueError(f"no field is called {file.field!r}")
    return path, file
