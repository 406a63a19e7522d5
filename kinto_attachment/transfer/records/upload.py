"""Uploading a folder of files to the records that they are of.

The files of one record are sent one after the other, because each changes the record; different
records are written at the same time. A file is sent under the condition that the record is as it
was seen last. If another client has changed it, or a response was lost, the record is read again
before the next attempt, and a file that has arrived is not sent a second time.

A list becomes equal to the files of its folder in their order. Entries whose files are not there
stay, behind the others.
"""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

from ...errors import CommandFailed, FilenameRefused
from ...files.field import is_entry_id, with_file
from ...files.filename import accept_filename
from ...files.ref import FieldRef
from ...finding import NO_PROGRESS, Finding, Progress
from ..client import Client, Found
from ..local_files import hash_of
from ..pool import FileProgress, Job, attempt, known, to_the_end, work
from ..responses import PreconditionFailed, TransferFailed, TryAgain, check_response
from ..sending.sender import Destination, FileSender, Sender
from ..trial import Trial
from ..upload import connect
from .folder import FolderFile, RecordFolder


def upload_records(
    client: Client,
    folder: str | os.PathLike,
    parallel: int = 4,
    dry_run: bool = False,
    progress: Progress = NO_PROGRESS,
) -> Generator[Finding, None, None]:
    """Upload the files of a folder to the records that they are of, as
    :func:`~kinto_attachment.transfer.download.download` has written them. Records that do not exist
    are created.

    :param folder: the folder.
    :param parallel: records to write at the same time.
    :param dry_run: only report what would be uploaded.
    :param progress: is told of the files, and of the bytes that are sent.
    :returns: as soon as a record is done, one finding for each of its files, of the kinds of
        :func:`~kinto_attachment.transfer.upload.upload`; ``reordered`` for a list whose order was
        changed, and ``kept`` for an entry of it that is not in the folder.
    :raises CommandFailed: by the iterator, if no file can be uploaded.
    """
    return work(client, to_the_end(_jobs(client, folder, dry_run, progress)), parallel)


def _jobs(
    client: Client, folder: str | os.PathLike, dry_run: bool, progress: Progress
) -> Iterator[Job]:
    if not os.path.isdir(folder):
        raise CommandFailed(f"{os.fspath(folder)} is not a folder: give one for --records")
    sender, trial = connect(client, dry_run)
    with closing(RecordFolder(folder)) as found:
        yield from map(known, found.read(progress))
        for record, files in found.records():
            yield _RecordUpload(client, record, files, sender, trial, progress).run


class _RecordUpload:
    """The upload of the files of one record.

    :param files: those of a field are together, in their order.
    :param trial: asks whether the server would accept the files; None to send them.
    """

    def __init__(
        self,
        client: Client,
        record: str,
        files: list[FolderFile],
        sender: Sender,
        trial: Trial | None,
        progress: Progress,
    ):
        self._client, self._files, self._progress = client, files, progress
        self._sender, self._trial = sender, trial
        self._ref = client.ref(record)
        self._counts = Counter(file.target.field for file in files)
        self._before: dict[str, Any] = {}
        self._now: Found | None = None
        self._is_outdated = False
        # The ids of the entries that the files have, by the fields, in the order of the files.
        self._taken: defaultdict[str, list[str]] = defaultdict(list)

    def run(self) -> list[Finding]:
        """Upload what the record does not have yet, and return the findings."""
        try:
            self._now = self._client.persist(lambda: self._client.find(self._ref))
        except TransferFailed as error:
            return [self._failed(file, error) for file in self._files]
        self._before = self._now.data if self._now else {}
        found = []
        for file in self._files:
            progress = FileProgress(self._progress)
            with progress.of(file.local.size):
                upload = partial(self._upload, file, progress)
                found.append(attempt(upload, file.local.name, self._uri(file)))
        return [*found, *self._order_lists(), *self._kept()]

    def _uri(self, file: FolderFile) -> str:
        return FieldRef(self._ref, file.target.field).uri

    def _finding(self, kind: str, file: FolderFile) -> Finding:
        return Finding(kind, file.local.name, self._uri(file))

    def _failed(self, file: FolderFile, error: TransferFailed) -> Finding:
        with FileProgress(self._progress).of(file.local.size):
            why = error.detail, error.remedy
            return Finding(error.kind, file.local.name, self._uri(file), *why)

    def _value(self, field: str) -> Any:
        """Return what the record says in a field."""
        return self._now.data.get(field) if self._now else None

    def _upload(self, file: FolderFile, progress: FileProgress) -> Finding:
        """Upload one file, unless the record has it already.

        :raises TransferFailed: if it cannot be uploaded.
        """
        field, path = file.target.field, file.local.path
        if self._counts[field] > 1 and isinstance(self._value(field), dict):
            detail = f"the record has one file in the field {field!r}, and the folder has several"
            remedy = "leave one file in the folder"
            raise TransferFailed("refused", detail, remedy)
        if self._take(file):
            return self._finding("unchanged", file)
        if self._trial:
            url = self._client.file_url(FieldRef(self._ref, field))
            exists = self._now is not None
            self._trial.check(url, path, file.target.filename, exists, field)
            self._pretend(file)
        else:
            with self._sender.file(path, progress) as sending:
                self._client.persist(lambda: self._send(file, sending), sending.position)
        return self._finding("uploaded", file)

    def _take(self, file: FolderFile) -> bool:
        """Return whether the record has the file: in the field, or in an entry of its list that is
        not that of another file. The file is only read if it may be the same."""
        value = self._value(file.target.field)
        if isinstance(value, dict):
            return self._is_same(file, value)
        taken = self._taken[file.target.field]
        for entry in value if isinstance(value, list) else ():
            if not _is_entry(entry) or entry["id"] in taken:
                continue
            if entry.get("filename") == _accepted(file) and self._is_same(file, entry):
                taken.append(entry["id"])
                return True
        return False

    def _is_same(self, file: FolderFile, value: dict[str, Any]) -> bool:
        if value.get("size") != os.path.getsize(file.local.path):
            return False
        return value.get("hash") == hash_of(file.local.path, self._client).hexdigest()

    def _pretend(self, file: FolderFile) -> None:
        """Write down what the record would say once the file was sent, for a dry run."""
        field = file.target.field
        if isinstance(self._value(field), list):
            entry = {"id": f"dry-run-{len(self._taken[field])}"}
            self._value(field).append(entry)
            self._taken[field].append(entry["id"])

    def _send(self, file: FolderFile, sending: FileSender) -> None:
        """Send the file once.

        :raises TransferFailed: if it is refused, or the record has another file now.
        """
        if self._is_outdated:
            self._read_again()
            if self._take(file):
                return
            self._check_still(file)
        self._is_outdated = True  # unless there is an answer
        target = file.target
        path = json.dumps({"path": target.path}, ensure_ascii=False)
        data = {"data": path} if target.path is not None else {}
        url = self._client.file_url(FieldRef(self._ref, target.field))
        with _as_expected():
            sent = sending.send(Destination(url, target.filename, data, self._precondition()))
        sent.check()
        self._note(target.field, sent.answer, sent.etag)

    def _precondition(self) -> dict[str, str]:
        return {"If-Match": self._now.etag} if self._now else {"If-None-Match": "*"}

    def _read_again(self) -> None:
        self._now = self._client.find(self._ref)
        self._is_outdated = False

    def _check_still(self, file: FolderFile) -> None:
        """
        :raises TransferFailed: if another client has written the field since this upload began. A
            list may have changed.
        """
        value = self._value(file.target.field)
        if not isinstance(value, list) and value != self._before.get(file.target.field):
            remedy = "look at the record; run it again to replace its file"
            raise TransferFailed("conflict", "another client has changed the record", remedy)

    def _note(self, field: str, answer: dict[str, Any], etag: str) -> None:
        """Remember what the record says now, by the response to a file."""
        data = dict(self._now.data) if self._now else {}
        value = data.get(field)
        entry = answer.get("id")
        place = FieldRef(self._ref, field, entry if is_entry_id(entry) else "")
        data[field] = with_file(value if isinstance(value, list) else None, place, answer)
        if place.entry:
            self._taken[field].append(place.entry)
        else:
            self._before = {**self._before, field: answer}
        self._now = Found(etag, data)
        self._is_outdated = not self._now.etag

    def _order_lists(self) -> list[Finding]:
        """Bring the lists into the order of the files."""
        ordered = self._orders()
        if not ordered:
            return []
        if not self._trial:
            try:
                self._client.persist(self._patch)
            except TransferFailed as error:
                how = error.kind, error.detail, error.remedy
                return [self._of_list(field, *how) for field in ordered]
        return [self._of_list(field, "reordered") for field in ordered]

    def _of_list(self, field: str, kind: str, *why: str) -> Finding:
        return Finding(kind, self._folder(field), FieldRef(self._ref, field).uri, *why)

    def _patch(self) -> None:
        """Write the lists in their order once, unless they have it.

        :raises TryAgain: if another client has changed the record.
        """
        if self._is_outdated:
            self._read_again()
        ordered = self._orders()
        if not ordered or not self._now:
            return
        self._is_outdated = True
        headers = {"If-Match": self._now.etag}
        url = self._client.record_url(self._ref)
        response = self._client.request("PATCH", url, headers=headers, json={"data": ordered})
        with _as_expected():
            check_response(response)

    def _orders(self) -> dict[str, list]:
        """Return the lists that are not in the order of the files, in that order."""
        found = {}
        for field, first in self._taken.items():
            value = self._value(field)
            if not isinstance(value, list):
                continue
            entries = {each["id"]: each for each in value if _is_entry(each)}
            others = [each for each in value if not _is_entry(each) or each["id"] not in first]
            wanted = [entries[each] for each in first if each in entries] + others
            if wanted != value:
                found[field] = wanted
        return found

    def _kept(self) -> Iterator[Finding]:
        """Yield a finding for each entry that is not in the folder."""
        for field in self._counts:
            value = self._value(field)
            for entry in value if isinstance(value, list) else ():
                if _is_entry(entry) and entry["id"] not in self._taken[field]:
                    uri = FieldRef(self._ref, field, entry["id"]).uri
                    key = f"{self._folder(field)}/{entry.get('filename')}"
                    yield Finding("kept", key, uri, "it is not in the folder")

    def _folder(self, field: str) -> str:
        return f"{self._ref.record}/{field}"


@contextmanager
def _as_expected() -> Iterator[None]:
    """
    :raises TryAgain: if the record is not as it was expected to be.
    """
    try:
        yield
    except PreconditionFailed as error:
        detail = "another client has changed the record"
        raise TryAgain(detail, after=0, kind="conflict") from error


def _accepted(file: FolderFile) -> str:
    """Return the filename as the server stores it."""
    try:
        return accept_filename(file.target.filename)
    except FilenameRefused:
        return file.target.filename  # the server says why


def _is_entry(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("id"), str)
