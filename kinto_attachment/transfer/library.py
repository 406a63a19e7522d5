"""Uploading local files to the media library, and describing them.

A file becomes an object of the library in two steps: it is uploaded, and then described. If the
second step does not happen, the upload expires, and the next run sends the file again. So no run
leaves an object without its description.

The objects have ids that the server chooses. A file counts as being in the library already if the
user can read an object with the same bytes and the same name, which is the name of the upload or
the one that an editor has given the object since. Each object is that of one file only, so equal
files in two folders become two objects. The description of an object stays as it is, as an editor
may have changed it.
"""

import csv
import json
import os
import posixpath
import unicodedata
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from threading import Lock
from typing import Any
from urllib.parse import quote

from ..errors import CommandFailed, FilenameRefused
from ..files.filename import accept_filename
from ..finding import NO_PROGRESS, Finding, Progress
from .client import Client
from .local_files import LocalFile, find_files, found_files, hash_of
from .pool import FileProgress, Job, attempt, known, to_the_end, work
from .responses import Forbidden, check_response, json_of
from .sending.sender import Destination, FileSender, Sender, damaged
from .sending.source import changed
from .server_info import ServerInfo
from .trial import Trial
from .upload import may_not_create

COLUMNS = ("file", "title", "alt", "tags")
"""The columns that a table of descriptions may have."""

FILE_FIELD = "file"
"""The field of the form with the file."""
TARGET = "library"
"""What a resumable upload becomes."""


@dataclass(frozen=True)
class Description:
    """What an editor says about a file. What is empty is left out.

    >>> Description("Sunrise").over(Description(alt="The sun", tags=("sky",)))
    Description(title='Sunrise', alt='The sun', tags=('sky',))
    """

    title: str = ""
    alt: str = ""
    tags: tuple[str, ...] = ()

    def over(self, general: "Description") -> "Description":
        """Return this description, completed by that of all files."""
        return Description(
            self.title or general.title, self.alt or general.alt, self.tags or general.tags
        )

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> "Description":
        """Return the description of an object."""
        tags = data.get("tags") or ()
        return cls(data.get("title") or "", data.get("alt") or "", tuple(tags))

    def to_json(self) -> dict[str, Any]:
        """Return the attributes of the object."""
        found = {"title": self.title, "alt": self.alt, "tags": list(self.tags)}
        return {name: value for name, value in found.items() if value}


def read_descriptions(path: str | os.PathLike) -> dict[str, Description]:
    """Return the descriptions in a CSV file, by what its column ``file`` has (in the Unicode form
    NFC).

    :param path: a file in UTF-8, with commas between the columns. Its first line names them:
        ``file`` and any of ``title``, ``alt`` and ``tags``, which are separated by semicolons.
    :raises CommandFailed: if it cannot be read, or has an unknown column, or describes a file
        twice.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as opened:
            table = csv.DictReader(opened, strict=True)
            _check_columns(path, table.fieldnames or [])
            found: dict[str, Description] = {}
            for row in table:
                name = _composed(row["file"] or "")
                if not name or None in row or name in found:
                    why = f"{name} is described twice" if name in found else "it names no file"
                    why = "it has more cells than columns" if None in row else why
                    raise CommandFailed(f"{path}, line {table.line_num}: {why}")
                tags = filter(None, map(str.strip, (row.get("tags") or "").split(";")))
                found[name] = Description(row.get("title") or "", row.get("alt") or "", tuple(tags))
            return found
    except OSError as error:
        raise CommandFailed(f"--metadata: {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CommandFailed(f"--metadata: {path} is not text in UTF-8") from error
    except csv.Error as error:
        raise CommandFailed(f"--metadata: {path} is not a CSV file: {error}") from error


def _check_columns(path: str | os.PathLike, names: Iterable[str]) -> None:
    unknown = [name for name in names if name not in COLUMNS]
    if unknown or "file" not in names:
        why = f"has the unknown column {unknown[0]!r}" if unknown else "has no column 'file'"
        raise CommandFailed(f"--metadata: {path} {why}: use {', '.join(COLUMNS)}")


def upload_media(
    client: Client,
    paths: Iterable[str | os.PathLike],
    general: Description,
    single: Mapping[str, Description],
    parallel: int = 4,
    dry_run: bool = False,
    progress: Progress = NO_PROGRESS,
) -> Generator[Finding, None, None]:
    """Upload files, and all files in folders, each as an object of the media library.

    :param paths: files and folders.
    :param general: the description of all files.
    :param single: descriptions of single files, which come before the general one. They are given
        by the path of the file as in ``paths``, or by its name (:attr:`LocalFile.name`).
    :param parallel: files to upload at the same time.
    :param dry_run: only report what would be uploaded.
    :param progress: is told of the files, and of the bytes that are sent.
    :returns: findings as those of :func:`~kinto_attachment.transfer.upload.upload`.
    :raises CommandFailed: by the iterator, before anything is sent, if ``single`` describes a file
        that is not there, or does not say which one of several; or if no file can be uploaded.
    """
    jobs = _jobs(client, list(paths), general, single, dry_run, progress)
    return work(client, to_the_end(jobs), parallel)


def _jobs(
    client: Client,
    paths: list,
    general: Description,
    single: Mapping[str, Description],
    dry_run: bool,
    progress: Progress,
) -> Iterator[Job]:
    described = _described(paths, single)
    info = client.connect()
    if info.library is None:
        raise CommandFailed(
            f"The server at {info.url} has no media library: its operator has to set "
            "kinto.attachment.library.bucket and run kinto-attachment library init"
        )
    client.use_collection(*info.library)
    client.check_list()
    trial = Trial(client, info, FILE_FIELD) if dry_run else None
    sender, objects = Sender(client, info), _Objects(described, general)
    for found in found_files(paths, progress, unique_names=False):
        if isinstance(found, Finding):
            yield known(found)
            continue
        descriptions = described.get(found.path, Description()), general
        how = sender, trial, objects, progress
        transfer = _MediaUpload(client, info, found, descriptions, *how)
        yield partial(attempt, transfer.run, found.name, "")


def _described(paths: list, single: Mapping[str, Description]) -> dict[str, Description]:
    """Return the descriptions of single files by the paths of these files (:attr:`LocalFile.path`).

    :raises CommandFailed: if a description is not that of exactly one file, or a file has two.
    """
    by_path, by_name = defaultdict(list), defaultdict(list)
    for given in single:
        by_path[_composed(os.path.abspath(given))].append(given)
        by_name[posixpath.normpath(given)].append(given)
    with_path, with_name = defaultdict(list), defaultdict(list)
    unusable: set[str] = set()  # they have findings of their own
    for found in find_files(paths, unique_names=False) if single else ():
        if isinstance(found, Finding):
            unusable.update(by_name.get(_composed(found.key), ()))
            continue
        for given in by_path.get(_composed(os.path.abspath(found.path)), ()):
            with_path[given].append(found.path)
        for given in by_name.get(_composed(found.name), ()):
            with_name[given].append(found.path)
    described: dict[str, Description] = {}
    missing = []
    for given, description in single.items():
        files = with_path.get(given) or with_name.get(given) or []
        if len(files) > 1:
            several = " or ".join(files[:3])
            raise CommandFailed(f"--metadata: several files are called {given}: write {several}")
        if not files and given not in unusable:
            missing.append(given)
        for file in files:
            if file in described:
                raise CommandFailed(f"--metadata describes {file} twice, also as {given}")
            described[file] = description
    if missing:
        names = ", ".join(sorted(missing)[:5])
        count = "a file that is" if len(missing) == 1 else f"{len(missing)} files that are"
        raise CommandFailed(f"--metadata describes {count} not among those to upload: {names}")
    return described


def _composed(text: str) -> str:
    """Return the text in the Unicode form NFC. Names on a Mac are in another form than those that
    people type."""
    return unicodedata.normalize("NFC", text)


class _Objects:
    """The objects of the library that have a file of this run already. Each is that of one file.

    :param described: the descriptions of single files by their paths.
    :param general: the description of all files.
    """

    def __init__(self, described: Mapping[str, Description], general: Description):
        self._described = {
            (_composed(os.path.basename(path)).strip(), single.over(general))
            for path, single in described.items()
        }
        self._taken: set[str] = set()
        self._lock = Lock()

    def add(self, data: Mapping[str, Any]) -> None:
        """Remember that an object is that of a file."""
        with self._lock:
            self._taken.add(str(data.get("id")))

    def take(self, name: str, wanted: Description, rows: list) -> dict[str, Any] | None:
        """Return the object of a file; None if there is none.

        :param name: the accepted name of the file.
        :param wanted: its description. An object that has it comes first; one that is described
            like another file of the same name is left to that file.
        :param rows: objects with the same bytes.
        """
        for row in sorted(rows, key=lambda row: Description.of(row) != wanted):
            has_name = name in (row.get("attachment", {}).get("filename"), row.get("fileName"))
            description = Description.of(row)
            is_others = description != wanted and (name, description) in self._described
            if not has_name or is_others:
                continue
            with self._lock:
                if row.get("id") not in self._taken:
                    self._taken.add(str(row.get("id")))
                    return row
        return None


class _MediaUpload:
    """The upload of one file, and its description.

    :param descriptions: what is said about this file, and about all files.
    """

    def __init__(
        self,
        client: Client,
        info: ServerInfo,
        file: LocalFile,
        descriptions: tuple[Description, Description],
        sender: Sender,
        trial: Trial | None,
        objects: _Objects,
        progress: Progress,
    ):
        self._client, self._info, self._file = client, info, file
        self._sender, self._trial = sender, trial
        self._single, general = descriptions
        self._description = self._single.over(general)
        self._objects = objects
        self._progress = FileProgress(progress)
        self._attempts = 0

    def run(self) -> Finding:
        """Upload and describe the file, unless the library has it already.

        :raises TransferFailed: if it cannot be uploaded.
        """
        with self._progress.of(self._file.size):
            try:
                return self._run()
            except Forbidden as error:
                raise may_not_create(self._client.collection_uri) from error

    def _run(self) -> Finding:
        client, name = self._client, self._file.name
        digest = hash_of(self._file.path, client).hexdigest()
        found = client.persist(lambda: self._find(digest))
        if found:
            return self._found(found)
        url = f"{self._info.url}/media"
        if self._trial:
            self._trial.check(url, self._file.path, name)
            return Finding("uploaded", name)
        with self._sender.file(self._file.path, self._progress) as sending:
            facts = client.persist(lambda: self._send(sending, url, digest), sending.position)
            self._objects.add(facts)
            client.persist(lambda: self._describe(facts, digest))
        return Finding("uploaded", name, self._uri(facts))

    def _found(self, data: Mapping[str, Any]) -> Finding:
        """Return the finding for a file whose object exists."""
        name, uri = self._file.name, self._uri(data)
        wanted = self._single.to_json()
        other = [each for each, value in wanted.items() if data.get(each) != value]
        if not other:
            return Finding("unchanged", name, uri)
        detail = f"the library has this file with another description ({', '.join(other)})"
        remedy = "change that object, or leave this file out of the table"
        return Finding("conflict", name, uri, detail, remedy)

    def _uri(self, facts: Mapping[str, Any]) -> str:
        return f"{self._client.collection_uri}/records/{facts.get('id')}"

    def _find(self, digest: str) -> dict[str, Any] | None:
        """Return the object that has the file already; None if there is none."""
        try:
            name = accept_filename(PurePosixPath(self._file.name).name)
        except FilenameRefused:
            return None  # the server says why
        # In quotes, because Kinto would take a hash that looks like a number for one.
        query = f"size={self._file.size}&attachment.hash={quote(json.dumps(digest))}"
        response = self._client.request("GET", f"{self._client.url}/records?{query}")
        rows = json_of(check_response(response)).get("data") or []
        return self._objects.take(name, self._description, rows)

    def _send(self, sending: FileSender, url: str, digest: str) -> dict[str, Any]:
        """Upload the file; return what the server says about it.

        :param digest: the hash with which the file was searched for.
        """
        sent = sending.send(Destination(url, self._file.name, file_field=FILE_FIELD, target=TARGET))
        if sent.hash != digest:
            raise changed()  # the upload expires
        if sent.answer.get("size") != sent.size:
            raise damaged(f"{sent.size} bytes", f"{sent.answer.get('size')} bytes")
        return sent.answer

    def _describe(self, facts: dict[str, Any], digest: str) -> None:
        """Make the upload an object, with its description."""
        self._attempts += 1
        if self._attempts > 1 and self._is_described(facts):
            return  # the response to an earlier attempt was lost
        data = {**facts, **self._description.to_json()}
        url = f"{self._info.url}/content/_media"
        response = self._client.request("POST", url, json={"data": data})
        stored = json_of(check_response(response)).get("data", {}).get("attachment", {})
        if stored.get("hash") != digest:
            raise damaged(digest, stored.get("hash"))

    def _is_described(self, facts: dict[str, Any]) -> bool:
        url = f"{self._client.url}/records/{quote(str(facts.get('id')), safe='')}"
        return self._client.request("GET", url).status_code == 200
