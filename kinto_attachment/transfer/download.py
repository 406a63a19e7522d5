"""Downloading the files of all records of a collection to a local folder."""

import os
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import CommandFailed
from ..files.blob import CHUNK, Attachment, Digest
from ..files.field import value_at
from ..finding import NO_PROGRESS, Finding, Progress
from .client import Client
from .local_files import hash_of, move_without_replacing
from .paths import PART, link_on_the_way
from .pool import FileProgress, Job, attempt, known, to_the_end, work
from .records.listing import LOST, Listing, StoredFile
from .responses import LATER, TransferFailed, TryAgain, check_response

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def download(
    client: Client,
    folder: str | os.PathLike,
    parallel: int = 4,
    dry_run: bool = False,
    progress: Progress = NO_PROGRESS,
    overwrite: bool = False,
) -> Generator[Finding, None, None]:
    """Download the files of all records. The attribute ``path`` of a record says where its file
    goes below the folder; without a usable ``path``, the filename does. Files of other fields than
    ``attachment`` go to ``{record}/{field}/{position}-{filename}``. No file is written outside the
    folder. An incomplete file is named ``NAME.part``, and the next run completes it.

    :param folder: the folder; it is created if necessary.
    :param parallel: files to download at the same time.
    :param dry_run: only report what would be downloaded.
    :param progress: is told of the files, and of the bytes that are received.
    :param overwrite: replace other files that have these names. Otherwise each is a ``conflict``.
    :returns: one finding for each file, with the path below the folder as the ``key``, as soon as
        it is known: ``downloaded``, ``unchanged``; with a remedy ``conflict``, ``missing``,
        ``refused``, ``damaged``, ``unavailable``, ``failed``. Closing the iterator stops all
        transfers.
    :raises CommandFailed: by the iterator, if no file can be downloaded: the server does not answer
        or refuses the user, there is no such collection, or the folder cannot be written.
    """
    root = Path(folder).absolute()
    make_transfer = partial(
        _Download,
        client=client,
        root=root,
        dry_run=dry_run,
        progress=progress,
        overwrite=overwrite,
    )
    jobs = _jobs(client, root, make_transfer, dry_run, progress)
    return work(client, to_the_end(jobs), parallel)


def _jobs(
    client: Client, root: Path, make_transfer: Any, dry_run: bool, progress: Progress
) -> Iterator[Job]:
    client.connect(only_look=dry_run)
    if progress.is_shown and (count := client.count()) is not None:
        progress.expect(count)
    with closing(Listing(client, root)) as listing:
        is_checked = dry_run
        for page in client.records():
            for record in page:
                found = list(listing.files_of(record))
                if found and not is_checked:
                    _check_folder(root)
                    is_checked = True
                if not dry_run:
                    listing.move_to_positions(found)
                yield from _jobs_of_record(found, make_transfer, progress)
        yield from map(known, listing.outdated_files())
        if root.is_dir() and not dry_run:
            listing.write_index()


def _jobs_of_record(
    files: list[StoredFile | Finding], make_transfer: Any, progress: Progress
) -> Iterator[Job]:
    for file in files:
        if isinstance(file, Finding):
            yield known(file)
            continue
        if file.place.is_nested:
            progress.expect(1)  # the server counts the others
        progress.expect_bytes(1, file.attachment.size)
        transfer = make_transfer(file=file)
        yield partial(attempt, transfer.run, file.path, file.place.uri)


def _check_folder(root: Path) -> None:
    """Create the folder if necessary.

    :raises CommandFailed: if nothing can be written there.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise CommandFailed(f"{root} is not a folder: give another DIR") from error
    except OSError as error:
        raise CommandFailed(f"{root} cannot be created: {error.strerror}") from error
    if not os.access(root, os.W_OK | os.X_OK):
        raise CommandFailed(f"{root} cannot be written: get the permission, or give another DIR")


class _Download:
    """The download of one file.

    :param root: the folder.
    """

    def __init__(
        self,
        client: Client,
        root: Path,
        dry_run: bool,
        progress: Progress,
        overwrite: bool,
        file: StoredFile,
    ):
        self._client, self._root = client, root
        self._place, self._path = file.place, file.path
        self._dry_run, self._overwrite = dry_run, overwrite
        self._progress = FileProgress(progress)
        self._attachment = file.attachment
        self._target = root / file.path
        self._part = self._target.with_name(self._target.name + PART)
        self._attempts = 0
        self._mismatches = 0

    def run(self) -> Finding:
        """Download the file, unless it is there already.

        :raises TransferFailed: if it cannot be downloaded.
        """
        with self._progress.of(self._attachment.size):
            return self._run()

    def _run(self) -> Finding:
        for path in (self._path, self._path + PART):
            if link := link_on_the_way(self._root, path):
                raise TransferFailed("conflict", f"{link} is a symbolic link", "move it away")
        if self._target.exists():
            if self._is_same():
                return self._finding("unchanged")
            if not self._overwrite:
                raise self._conflict()
        if self._dry_run:
            return self._finding("downloaded")
        self._target.parent.mkdir(parents=True, exist_ok=True)
        with _open_part(self._part) as self._file:
            self._digest = Digest()
            while chunk := self._file.read(CHUNK):
                self._client.go_on()
                self._digest.update(chunk)
            self._client.persist(self._complete)
            os.fsync(self._file.fileno())
            self._move()
        return self._finding("downloaded")

    def _finding(self, kind: str) -> Finding:
        return Finding(kind, self._path, self._place.uri)

    def _conflict(self) -> TransferFailed:
        remedy = "move it away, or use --overwrite"
        return TransferFailed("conflict", f"{self._target} is another file", remedy)

    def _is_same(self) -> bool:
        if not self._target.is_file() or self._target.stat().st_size != self._attachment.size:
            return False
        return hash_of(self._target, self._client).hexdigest() == self._attachment.hash

    def _complete(self) -> None:
        """Try once to receive the rest of the file.

        :raises TransferFailed: if the record has no file any more, or its bytes are damaged.
        :raises TryAgain: if bytes are still missing, or do not match the record.
        """
        self._attempts += 1
        if self._attempts > 1:
            self._read_record()
        if self._digest.size < self._attachment.size:
            self._receive()
        if self._digest.size == self._attachment.size:
            if self._digest.hexdigest() == self._attachment.hash:
                return
        elif self._digest.size < self._attachment.size:
            missing = self._attachment.size - self._digest.size
            raise TryAgain(f"the connection was closed, {missing} bytes are missing")
        self._start_over()
        # The first mismatch may be due to the part file, or to a file that was just replaced.
        self._mismatches += 1
        if self._mismatches > 1:
            self._part.unlink()
            raise TransferFailed("damaged", f"the SHA-256 of the bytes is not {self._hash}", LOST)
        raise TryAgain("the bytes do not match the record", after=0)

    @property
    def _hash(self) -> str:
        return self._attachment.hash

    def _read_record(self) -> None:
        """Read the record again; start over if it has another file now."""
        found = self._client.find(self._place.record)
        try:
            now = Attachment.from_json(value_at(self._place, found and found.data))
        except ValueError as error:
            raise TransferFailed("missing", "the record no longer has a file", LATER) from error
        if now.hash != self._hash:
            self._start_over()
            self._mismatches = 0
        self._attachment = now

    def _receive(self) -> None:
        """Receive the bytes that are missing, and add them to the part file and to the digest."""
        start = self._digest.size
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers |= {"Range": f"bytes={start}-", "If-Range": f'"{self._hash}"'}
        with self._client.open(self._client.file_url(self._place), headers) as response:
            if response.status_code == 404:
                raise TransferFailed("missing", "the server does not have the bytes", LOST)
            if start and response.status_code == 416:
                self._start_over()
                raise TryAgain("the file is shorter than the part file", after=0)
            check_response(response)
            content_range = response.headers.get("Content-Range", "")
            if start and not content_range.startswith(f"bytes {start}-"):
                self._start_over()
                if response.status_code == 206:
                    raise TryAgain(f"the server sent another range: {content_range}", after=0)
            for chunk in self._client.chunks(response):
                self._file.write(chunk)
                self._digest.update(chunk)
                self._progress.add_bytes(len(chunk))
                if self._digest.size > self._attachment.size:
                    break

    def _start_over(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._digest = Digest()

    def _move(self) -> None:
        """Give the part file the name of the file."""
        if self._overwrite:
            os.replace(self._part, self._target)
        else:
            try:
                move_without_replacing(self._part, self._target)
            except FileExistsError as error:
                raise self._conflict() from error
        _sync_folder(self._target.parent)


@contextmanager
def _open_part(path: Path) -> Iterator[BinaryIO]:
    """Open the part file at its start, and lock it; create it if there is none.

    :raises TransferFailed: if another run has locked it.
    """
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    with open(os.open(path, flags, 0o666), "r+b", buffering=0) as file:
        if fcntl:
            busy = TransferFailed(
                "conflict", f"another run is writing {path}", "wait for it to end"
            )
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise busy from error
            if not os.path.samestat(os.fstat(file.fileno()), os.lstat(path)):
                raise busy  # the other run finished, and renamed it, before we got the lock
        yield file


def _sync_folder(folder: Path) -> None:
    """Write a new name in the folder to the disk. Windows has no such call."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
