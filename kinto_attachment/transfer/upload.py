"""Uploading local files, each to a record of its own."""

import json
import os
from collections.abc import Generator, Iterable, Iterator, Mapping
from functools import partial
from pathlib import PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import quote
from uuid import NAMESPACE_URL, uuid4, uuid5

from urllib3.fields import RequestField
from urllib3.filepost import encode_multipart_formdata

from ..errors import CommandFailed
from ..files.blob import CHUNK, Digest
from ..files.ref import FieldRef
from ..finding import NO_PROGRESS, Finding, Progress
from .client import Client, Found
from .local_files import LocalFile, found_files
from .pool import FileProgress, Job, attempt, known, remedy_for, to_the_end, work
from .responses import LATER, Forbidden, TransferFailed, check_response, json_of
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
    trial = connect(client, dry_run)
    for job in found_files(paths, progress):
        if isinstance(job, Finding):
            yield known(job)
            continue
        transfer = _Upload(client, job, trial, progress)
        yield partial(attempt, transfer.run, job.name, transfer.ref.uri)


def connect(client: Client, dry_run: bool) -> Trial | None:
    """Find the server, and the collection to upload to. Return what a dry run asks instead of
    sending files; None if it is no dry run.

    :raises CommandFailed: if nothing can be uploaded there.
    """
    info = client.connect(only_look=dry_run)
    if info.library and client.is_collection(*info.library):
        raise CommandFailed(
            f"{client.collection_uri} is the media library, whose files are described: use upload "
            "--library instead of --bucket and --collection"
        )
    client.check_list()
    return Trial(client, info) if dry_run else None


class _Upload:
    """The upload of one file.

    :param trial: asks whether the server would accept the file; None to send it.
    """

    def __init__(self, client: Client, file: LocalFile, trial: Trial | None, progress: Progress):
        self._client, self._file, self._trial = client, file, trial
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
            return self._client.persist(self._post)
        except Forbidden as error:
            if self._before:
                raise
            raise may_not_create(self._client.collection_uri) from error

    def _finding(self, kind: str) -> Finding:
        return Finding(kind, self._file.name, self.ref.uri)

    def _post(self) -> Finding:
        self._attempts += 1
        if self._attempts > 1 and self._has_arrived():
            return self._finding("uploaded")
        with open(self._file.path, "rb") as file:
            form = Form(file, self._file.name, {"data": json.dumps({"path": self._file.name})})
            headers = {"Content-Type": form.content_type, **self._precondition()}
            url = self._client.file_url(FieldRef(self.ref))
            response = self._client.request(
                "POST", url, headers=headers, data=ProgressForm(form, self._client, self._progress)
            )
        if response.status_code == 412:
            if self._has_arrived():
                return self._finding("uploaded")
            raise self._conflict()
        answer = json_of(check_response(response))
        if (answer.get("hash"), answer.get("size")) != (form.digest.hexdigest(), form.size):
            raise damaged(form.digest.hexdigest(), answer.get("hash"))
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


def damaged(sent: str, stored: Any) -> TransferFailed:
    """Return the error for a file that has arrived with other bytes."""
    remedy = f"{LATER}; check the proxies between this computer and the server"
    return TransferFailed("damaged", f"sent {sent}, stored {stored}", remedy)


def changed() -> TransferFailed:
    """Return the error for a file that does not stay the same during its upload."""
    return TransferFailed("changed", "the file was changed while it was read", LATER)


def hash_of(path: str | os.PathLike, client: Client) -> Digest:
    """Return the digest of a local file.

    :raises OSError: if the file cannot be read.
    :raises Stopped: if the transfers of the client were stopped.
    """
    digest = Digest()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            client.go_on()
            digest.update(chunk)
    return digest


class Form:
    """The form of one upload (RFC 7578), read and hashed while it is sent, in constant memory. Its
    ``len()`` is the ``Content-Length``, in bytes.

    ``MultipartEncoder`` of requests-toolbelt is not used: if the file becomes shorter while it is
    sent, that encoder still closes the form, and the server stores part of a file.

    :param file: the file, at its start.
    :param name: the name of the file; what is before its last slash is not sent.
    :param fields: the text fields, which come before the file.
    :param file_field: the name of the field with the file.
    :ivar size: bytes of the file.
    :ivar digest: of the bytes that were read so far.
    :ivar content_type: the ``Content-Type`` of the request.
    :raises TransferFailed: while it is iterated over, if the file was changed. The closing boundary
        is missing then, so the server refuses the form.
    """

    def __init__(
        self,
        file: BinaryIO,
        name: str,
        fields: Mapping[str, str],
        file_field: str = "attachment",
    ):
        self._file = file
        self._version = _version(file)
        self.size = os.fstat(file.fileno()).st_size
        self.digest = Digest()
        boundary = uuid4().hex
        parts: list[Any] = [*fields.items(), _file_part(file_field, PurePosixPath(name).name)]
        empty, self.content_type = encode_multipart_formdata(parts, boundary)
        self._end = f"\r\n--{boundary}--\r\n".encode()
        self._start = empty.removesuffix(self._end)

    def __len__(self) -> int:
        return len(self._start) + self.size + len(self._end)

    def __iter__(self) -> Iterator[bytes]:
        yield self._start
        while chunk := self._read(min(CHUNK, self.size - self.digest.size)):
            self.digest.update(chunk)
            yield chunk
        if self.digest.size < self.size or _version(self._file) != self._version:
            raise changed()
        yield self._end

    def _read(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except OSError as error:  # requests would take it for a connection error
            raise TransferFailed(
                "failed", error.strerror or str(error), remedy_for(error)
            ) from error


class ProgressForm:
    """A form that reports how many bytes were sent, and ends when the transfer is stopped."""

    def __init__(self, form: Form, client: Client, progress: FileProgress):
        self._form, self._client, self._progress = form, client, progress

    def __len__(self) -> int:
        return len(self._form)

    def __iter__(self) -> Iterator[bytes]:
        sent = 0
        for chunk in self._form:
            self._client.go_on()
            yield chunk
            self._progress.add_bytes(self._form.digest.size - sent)
            sent = self._form.digest.size


def _file_part(field: str, name: str) -> RequestField:
    """Return the part of a form with the file, without its bytes.

    A form has ``%22`` for a quote in a name and ``%0A`` for a line break, but leaves a percent sign
    as it is, and servers cut off what looks like a folder of Windows. Such a name is therefore sent
    as ``filename*``, too, which this server prefers; RFC 7578 does not want it for other names.
    """
    part = RequestField.from_tuples(field, (name, b""))
    if "%" in name or "\\" in name:
        part.headers["Content-Disposition"] += f"; filename*=UTF-8''{quote(name, safe='')}"
    return part


def _version(file: BinaryIO) -> tuple[int, int]:
    """Return what changes when the file is written."""
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns
