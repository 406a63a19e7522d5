"""Uploading local files, each to a record of its own."""

import json
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO
from uuid import NAMESPACE_URL, uuid4, uuid5

from urllib3.filepost import encode_multipart_formdata

from ..files.blob import CHUNK, Digest
from ..finding import Finding
from .client import Client, Found
from .pool import Job, OnBytes, attempt, failing, one_at_a_time, work
from .responses import LATER, TransferFailed, check_response, json_of

RENAME = "rename it, or give the file itself if only one of its folders has such a name"


@dataclass(frozen=True)
class LocalFile:
    """A file to upload.

    :param path: where the file is.
    :param name: its path below the folder that was given, with slashes. For a file that was given
        itself, its filename.
    """

    path: str
    name: str


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
    on_bytes: OnBytes | None = None,
) -> Iterator[Finding]:
    """Upload files, and all files in folders, each to a record of its own. The name of the file
    (:attr:`LocalFile.name`) determines the id of the record, and is stored in its attribute
    ``path``.

    :param paths: files and folders.
    :param parallel: files to upload at the same time.
    :param dry_run: only report what would be uploaded.
    :param on_bytes: is told how many bytes were sent. Bytes that are sent again count again.
    :returns: one finding for each file, with its name as the ``key``, as soon as it is known:
        ``uploaded``, ``unchanged``, ``skipped`` (not a regular file); with a remedy ``conflict``,
        ``refused``, ``changed``, ``damaged``, ``unavailable``, ``failed``. Closing the iterator
        stops all transfers.
    """
    count = one_at_a_time(on_bytes)
    jobs = failing(lambda: _jobs(client, paths, dry_run, count), client.collection_uri)
    return work(client, jobs, parallel)


def _jobs(client: Client, paths: Iterable, dry_run: bool, on_bytes: OnBytes) -> Iterator[Job]:
    if dry_run:
        client.only_look()
    for found in find_files(paths):
        if isinstance(found, Finding):
            yield partial(_same, found)
            continue
        transfer = _Upload(client, found, dry_run, on_bytes)
        yield partial(attempt, transfer.run, found.name, transfer.ref.uri)


def _same(finding: Finding) -> Finding:
    return finding


def find_files(paths: Iterable[str | os.PathLike]) -> Iterator[LocalFile | Finding]:
    """Yield the files to upload, and a finding for everything that cannot be uploaded.

    :param paths: files and folders. A symbolic link is followed if it is given here, and skipped
        if it is in a folder.
    """
    folders: list[str] = []
    names: set[str] = set()
    for given in map(os.fspath, paths):
        if os.path.isdir(given):
            found = _walk(given, "")
        else:
            found = iter([_regular(given, Path(given).name)])
        for file in found:
            if isinstance(file, LocalFile) and _is_taken(file.name, folders, names):
                detail = f"{file.path}: another file has the same name"
                yield Finding("conflict", file.name, "", detail, "upload it to another collection")
            else:
                yield file
        if os.path.isdir(given):
            folders.append(given)
        else:
            names.add(Path(given).name)


def _walk(folder: str, prefix: str) -> Iterator[LocalFile | Finding]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                name = f"{prefix}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    yield from _walk(entry.path, f"{name}/")
                elif entry.is_symlink():
                    yield Finding("skipped", _printable(name), "", "a symbolic link")
                else:
                    yield _regular(entry.path, name)
    except OSError as error:
        yield Finding("failed", _printable(prefix), "", str(error), LATER)


def _regular(path: str, name: str) -> LocalFile | Finding:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return Finding("skipped", _printable(name), "", "not a regular file")
    except OSError as error:
        return Finding("failed", _printable(name), "", str(error), LATER)
    if _printable(name) != name:
        return Finding("refused", _printable(name), "", "its name is not valid text", RENAME)
    return LocalFile(path, name)


def _printable(name: str) -> str:
    """Return the name with escapes for bytes that are not valid text. The names on a disk are
    bytes; such a name can be neither sent nor printed."""
    return name.encode("utf-8", "backslashreplace").decode()


def _is_taken(name: str, folders: list[str], names: set[str]) -> bool:
    return name in names or any(os.path.isfile(os.path.join(folder, name)) for folder in folders)


class _Upload:
    """The upload of one file."""

    def __init__(self, client: Client, file: LocalFile, dry_run: bool, on_bytes: OnBytes):
        self._client, self._file = client, file
        self._dry_run, self._on_bytes = dry_run, on_bytes
        self.ref = client.ref(record_id(file.name))
        self._before: Found | None = None
        self._attempts = 0

    def run(self) -> Finding:
        """Upload the file, unless its record has it already.

        :raises TransferFailed: if it cannot be uploaded.
        """
        self._before = self._client.persist(lambda: self._client.find(self.ref))
        if self._has_file(self._before):
            return self._finding("unchanged")
        if self._dry_run:
            return self._finding("uploaded")
        return self._client.persist(self._post)

    def _finding(self, kind: str) -> Finding:
        return Finding(kind, self._file.name, self.ref.uri)

    def _post(self) -> Finding:
        self._attempts += 1
        if self._attempts > 1 and self._has_arrived():
            return self._finding("uploaded")
        with open(self._file.path, "rb") as file:
            form = Form(file, self._file.name)
            headers = {"Content-Type": form.content_type, **self._precondition()}
            url = self._client.attachment_url(self.ref)
            response = self._client.request(
                "POST", url, headers=headers, data=_ProgressForm(form, self._client, self._on_bytes)
            )
        if response.status_code == 412:
            if self._has_arrived():
                return self._finding("uploaded")
            raise self._conflict()
        answer = json_of(check_response(response))
        if (answer.get("hash"), answer.get("size")) != (form.digest.hexdigest(), form.size):
            detail = f"sent {form.digest.hexdigest()}, stored {answer.get('hash')}"
            remedy = f"{LATER}; check the proxies between this computer and the server"
            raise TransferFailed("damaged", detail, remedy)
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
    :param name: the name of the file, with slashes; see :class:`LocalFile`.
    :ivar size: bytes of the file.
    :ivar digest: of the bytes that were read so far.
    :ivar content_type: the ``Content-Type`` of the request.
    :raises TransferFailed: while it is iterated over, if the file was changed. The closing boundary
        is missing then, so the server refuses the form.
    """

    def __init__(self, file: BinaryIO, name: str):
        self._file = file
        self._version = _version(file)
        self.size = os.fstat(file.fileno()).st_size
        self.digest = Digest()
        boundary = uuid4().hex
        fields: list[Any] = [
            ("data", json.dumps({"path": name})),
            ("attachment", (PurePosixPath(name).name, b"")),
        ]
        empty, self.content_type = encode_multipart_formdata(fields, boundary)
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
            raise TransferFailed("changed", "the file was changed while it was read", LATER)
        yield self._end

    def _read(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except OSError as error:  # requests would take it for a connection error
            raise TransferFailed("failed", str(error), LATER) from error


class _ProgressForm:
    """A form that reports how many bytes were sent, and ends when the transfer is stopped."""

    def __init__(self, form: Form, client: Client, on_bytes: OnBytes):
        self._form, self._client, self._on_bytes = form, client, on_bytes

    def __len__(self) -> int:
        return len(self._form)

    def __iter__(self) -> Iterator[bytes]:
        sent = 0
        for chunk in self._form:
            self._client.go_on()
            yield chunk
            self._on_bytes(self._form.digest.size - sent)
            sent = self._form.digest.size


def _version(file: BinaryIO) -> tuple[int, int]:
    """Return what changes when the file is written."""
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns
