"""What the records of a collection have in their fields, and where it goes below a folder."""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...files.blob import Attachment
from ...files.field import files_of
from ...files.ref import ATTRIBUTE, FieldRef, RecordRef
from ...finding import Finding
from ..client import Client
from ..local_files import hash_of, move_without_replacing, printable_name
from ..paths import PART, PathAllocator, link_on_the_way
from ..responses import check_response, json_of
from .index import INDEX, IndexWriter
from .layout import RecordFile, paths_of

LOST = "ask the operator of the server to run kinto-attachment fsck"


@dataclass(frozen=True)
class StoredFile:
    """A file on the server.

    :param place: where it is on its record.
    :param attachment: what the record says about it.
    :param path: where it goes below the folder.
    """

    place: FieldRef
    attachment: Attachment
    path: str


class Listing:
    """The files of records in the order of their ids, and their paths. The same records always get
    the same paths.

    :param root: the folder.
    """

    def __init__(self, client: Client, root: Path):
        self._client, self._root = client, root
        self._allocator = PathAllocator()
        self._allocator.reserve(INDEX)
        self._index = IndexWriter()
        self._fields: set[str] = set()

    def files_of(self, record: dict[str, Any]) -> Iterator[StoredFile | Finding]:
        """Yield the files of a record, or why one cannot be downloaded.

        :raises TransferFailed: if the server fails.
        """
        ref = self._client.ref(str(record.get("id")))
        positions: Counter[str] = Counter()
        for place, value in self._places_of(ref, record):
            try:
                attachment = Attachment.from_json(value)
                if place.is_nested:
                    positions[place.field] += 1
                    position = positions[place.field]
                    file = RecordFile(ref.record, place.field, position, attachment.filename)
                    path = self._allocator.give(ref.record, *paths_of(file))
                else:
                    wanted = record.get("path")
                    path = self._allocator.give(ref.record, wanted, attachment.filename)
                    wanted = wanted if isinstance(wanted, str) else None
                    file = RecordFile(ref.record, ATTRIBUTE, 0, attachment.filename, wanted)
            except ValueError as error:
                yield Finding("refused", "", place.uri, str(error), LOST)
                continue
            self._index.add(path, file)
            yield StoredFile(place, attachment, path)

    def move_to_positions(self, files: list[StoredFile | Finding]) -> None:
        """Rename local files that another position of the same list has now, so that they are not
        downloaded again.

        :param files: all files of a record.
        """
        for file in files:
            if isinstance(file, Finding) or not file.place.is_nested:
                continue
            folder, _, name = file.path.rpartition("/")
            target = self._root / file.path
            if os.path.lexists(target) or link_on_the_way(self._root, folder):
                continue
            for place, path in self._strangers_in(folder):
                if path.partition("-")[2] == name.partition("-")[2] and self._is(file, place):
                    with suppress(OSError):  # then it is downloaded
                        move_without_replacing(place, target)
                    break

    def _is(self, file: StoredFile, place: Path) -> bool:
        """Return whether a local file has the same bytes."""
        try:
            if place.stat().st_size != file.attachment.size:
                return False
            return hash_of(place, self._client).hexdigest() == file.attachment.hash
        except OSError:
            return False

    def outdated_files(self) -> Iterator[Finding]:
        """Yield a finding for each local file that lies among those of a field, but that the record
        does not have, or no longer has at that position. Call this after all records."""
        for field in sorted(self._fields):
            for folder in self._root.glob(f"*/{field}"):
                below = folder.relative_to(self._root).as_posix()
                if not self._allocator.has_folder(below) or link_on_the_way(self._root, below):
                    continue
                uri = FieldRef(self._client.ref(folder.parent.name), field).uri
                for _, name in self._strangers_in(below):
                    detail = "the record has no such file at this position"
                    remedy = "move it away: upload --records would send it to the record again"
                    yield Finding("conflict", f"{below}/{name}", uri, detail, remedy)

    def _strangers_in(self, folder: str) -> Iterator[tuple[Path, str]]:
        """Yield the files in the folder of a field that no record has there, and their names."""
        for file in sorted((self._root / folder).glob("[0-9][0-9][0-9]*-*")):
            name = printable_name(file.name)
            is_ours = self._allocator.has_file(f"{folder}/{name}") or name.endswith(PART)
            if not is_ours and file.is_file() and not file.is_symlink():
                yield file, name

    def write_index(self) -> None:
        """Write the index to the folder, which exists.

        :raises CommandFailed: if it cannot be written.
        """
        self._index.write(self._root)

    def _places_of(self, ref: RecordRef, record: dict[str, Any]) -> Iterator[tuple[FieldRef, Any]]:
        value = record.get(ATTRIBUTE)
        if value is not None and not isinstance(value, dict | list):
            yield FieldRef(ref), value
        places = files_of(ref, record, {ATTRIBUTE})
        names = {place.field for place in places if place.is_nested}
        if not names <= self._fields:
            self._fields |= names & self._client.persist(lambda: self._ask(ref))
        for place, value in places.items():
            if not place.is_nested or place.field in names & self._fields:
                yield place, value

    def _ask(self, ref: RecordRef) -> set[str]:
        """Return which fields of a record have files. Applications may have attributes that look
        like those of this plugin."""
        response = self._client.request("GET", f"{self._client.record_url(ref)}/attachments")
        if response.status_code == 404:
            return set()  # the record was deleted, or the server knows no fields
        return set(json_of(check_response(response)))

    def close(self) -> None:
        """Delete the temporary files."""
        with closing(self._allocator), closing(self._index):
            pass
