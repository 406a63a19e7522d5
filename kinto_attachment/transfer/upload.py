"""Uploading local files, each to a record of its own."""

import json
import os
from collections.abc import Generator, Iterable, Iterator
from functools import partial
from uuid import NAMESPACE_URL, uuid5

from ..errors import CommandFailed
from ..files.ref import FieldRef
from ..finding import NO_PROGRESS, Finding, Progress
from .client import Client, Found
from .local_files import LocalFile, found_files, hash_of
from .pool import FileProgress, Job, attempt, known, to_the_end, work
from .responses import Forbidden, PreconditionFailed, TransferFailed
from .sending.sender import Destination, FileSender, Sender
from .trial import Trial


def record_id(name: str) -> str:
    """Return the id of the record for a file of that name; it is always the same.

    >>> record_id("a/b.txt")
    '2e41d7e6-8f6c-5326-a4db-1b15d00b6df8'
    """
    return str(uuid5(NAMESPACE_URL, f"kinto-attachment:{name}"))


def upload(
    client: Client,
    paths: Iterable[str | os.PathLike],
    parallel: int = 4,
    dry_run: bool = False,
    progress: Progress = NO_PROGRESS,
) -> Generator[Finding, None, None]:
    """Upload files, and all files in folders, each to a record of its own. The name of the file
    (:attr:`LocalFile.name`) determines the id of the record, and is stored in its attribute
    ``path``.

    :param paths: files and folders.
    :param parallel: files to upload at the same time.
    :param dry_run: only report what would be uploaded. The server is asked whether it accepts the
        extension of each file, and whether the user may write each record that exists. It stores
        nothing.
    :param progress: is told of the files, and of the bytes that are sent.
    :returns: one finding for each file, with its name as the ``key``, as soon as it is known:
        ``uploaded``, ``unchanged``, ``skipped`` (not a regular file); with a remedy ``conflict``,
        ``refused``, ``changed``, ``damaged``, ``unavailable``, ``failed``. Closing the iterator
        stops all transfers.
    :raises CommandFailed: by the iterator, if no file can be uploaded: the server does not answer,
        does not know the user, or has no such collection; or it is the media library.
    """
    paths = list(paths)
    return work(client, to_the_end(_jobs(client, paths, dry_run, progress)), parallel)


def _jobs(client: Client, paths: list, dry_run: bool, progress: Progress) -> Iterator[Job]:
    sender, trial = connect(client, dry_run)
    for job in found_files(paths, progress):
        if isinstance(job, Finding):
            yield known(job)
            continue
        transfer = _Upload(client, job, sender, trial, progress)
        yield partial(attempt, transfer.run, job.name, transfer.ref.uri)


def connect(client: Client, dry_run: bool) -> tuple[Sender, Trial | None]:
    """Find the server, and the collection to upload to. Return what sends files, and what a dry run
    asks instead; None if it is no dry run.

    :raises CommandFailed: if nothing can be uploaded there.
    """
    info = client.connect(only_look=dry_run)
    if info.library and client.is_collection(*info.library):
        raise CommandFailed(
            f"{client.collection_uri} is the media library, whose files are described: use upload "
            "--library instead of --bucket and --collection"
        )
    client.check_list()
    return Sender(client, info), Trial(client, info) if dry_run else None


class _Upload:
    """The upload of one file.

    :param trial: asks whether the server would accept the file; None to send it.
    """

    def __init__(
        self,
        client: Client,
        file: LocalFile,
        sender: Sender,
        trial: Trial | None,
        progress: Progress,
    ):
        self._client, self._file = client, file
        self._sender, self._trial = sender, trial
        self._progress = FileProgress(progress)
        self.ref = client.ref(record_id(file.name))
        self._before: Found | None = None
        self._attempts = 0

    def run(self) -> Finding:
        """Upload the file, unless its record has it already.

        :raises TransferFailed: if it cannot be uploaded.
        """
        with self._progress.of(self._file.size):
            return self._run()

    def _run(self) -> Finding:
        self._before = self._client.persist(lambda: self._client.find(self.ref))
        if self._has_file(self._before):
            return self._finding("unchanged")
        try:
            if self._trial:
                url = self._client.file_url(FieldRef(self.ref))
                exists = self._before is not None
                self._trial.check(url, self._file.path, self._file.name, exists)
                return self._finding("uploaded")
            with self._sender.file(self._file.path, self._progress) as sending:
                return self._client.persist(lambda: self._send(sending), sending.position)
        except Forbidden as error:
            if self._before:
                raise
            raise may_not_create(self._client.collection_uri) from error

    def _finding(self, kind: str) -> Finding:
        return Finding(kind, self._file.name, self.ref.uri)

    def _send(self, sending: FileSender) -> Finding:
        self._attempts += 1
        if self._attempts > 1 and self._has_arrived():
            return self._finding("uploaded")
        url = self._client.file_url(FieldRef(self.ref))
        data = json.dumps({"path": self._file.name}, ensure_ascii=False)
        conditions = self._precondition()
        try:
            sending.send(Destination(url, self._file.name, {"data": data}, conditions)).check()
        except PreconditionFailed as error:
            if not self._has_arrived():
                raise self._conflict() from error
        return self._finding("uploaded")

    def _precondition(self) -> dict[str, str]:
        return {"If-Match": self._before.etag} if self._before else {"If-None-Match": "*"}

    def _has_arrived(self) -> bool:
        """Return whether the record has the file, after an attempt whose response was lost.

        :raises TransferFailed: if another client has written the record.
        """
        now = self._client.find(self.ref)
        if self._has_file(now):
            return True
        if (now and now.etag) != (self._before and self._before.etag):
            raise self._conflict()
        return False

    def _conflict(self) -> TransferFailed:
        remedy = "look at the record; run it again to replace its file"
        return TransferFailed("conflict", "another client has changed the record", remedy)

    def _has_file(self, found: Found | None) -> bool:
        """Return whether the record has the same bytes as the file. The file is only read if the
        sizes are equal."""
        attachment = found and found.data.get("attachment")
        if not isinstance(attachment, dict):
            return False
        if attachment.get("size") != os.path.getsize(self._file.path):
            return False
        return attachment.get("hash") == hash_of(self._file.path, self._client).hexdigest()


def may_not_create(collection_uri: str) -> CommandFailed:
    """Return the error for a user who may not create records at all."""
    return CommandFailed(
        f"This user may not create records in {collection_uri}: ask its owner for the permission "
        "record:create"
    )
