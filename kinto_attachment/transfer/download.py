"""Files of the records of a collection, to a folder of this machine."""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from ..files.blob import CHUNK, Attachment, Digest
from ..files.ref import RecordRef
from ..finding import Finding
from .client import Client
from .paths import PART, PathAllocator, link_on_the_way
from .pool import Job, OnBytes, attempt, failing, one_at_a_time, work
from .responses import LATER, TransferFailed, TryAgain, check
from .upload import hash_of

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOST = "run kinto-attachment fsck on the server"


def download(
    client: Client,
    folder: str | os.PathLike,
    parallel: int = 4,
    dry_run: bool = False,
    on_bytes: OnBytes | None = None,
    overwrite: bool = False,
) -> Iterator[Finding]:
    """Download the files of all records, each to where its attribute ``path`` says, else under its
    filename: never outside of the folder, and never over another file unless told so. What is not
    complete is in a file of that name and ``.part``, with which the next run goes on. ``key`` of
    a finding is the path below the folder.

    :param folder: is created.
    :param parallel: files at once.
    :param dry_run: look what would be downloaded.
    :param on_bytes: is told of bytes that were received, again if they are received again.
    :param overwrite: replace other files that have these names.
    :returns: findings as they come: ``downloaded``, ``unchanged``; with remedies ``conflict``,
        ``missing``, ``refused``, ``damaged``, ``unavailable``, ``failed``. Closing the iterator
        stops all that is under way.
    """
    root = Path(folder).absolute()
    receive = partial(_Receiving, client, root, dry_run, one_at_a_time(on_bytes), overwrite)
    jobs = failing(lambda: _jobs(client, receive, dry_run), client.collection_uri)
    return work(client, jobs, parallel)


def _jobs(client: Client, receive: Any, dry_run: bool) -> Iterator[Job]:
    if dry_run:
        client.only_look()
    with closing(PathAllocator()) as places:
        for record in client.records():
            value = record.get("attachment")
            if value is None:
                continue
            ref = client.ref(str(record.get("id")))
            try:
                attachment = Attachment.from_json(value)
                path = places.give(ref.record, record.get("path"), attachment.filename)
            except ValueError as error:
                finding = Finding("refused", "", ref.uri, str(error), LOST)
                yield partial(lambda finding: finding, finding)
                continue
            receiving = receive(ref, attachment, path)
            yield partial(attempt, receiving.run, path, ref.uri)


class _Receiving:
    """One file on its way to its place."""

    def __init__(
        self,
        client: Client,
        root: Path,
        dry_run: bool,
        on_bytes: OnBytes,
        overwrite: bool,
        ref: RecordRef,
        attachment: Attachment,
        path: str,
    ):
        self._client, self._root, self._ref, self._path = client, root, ref, path
        self._dry_run, self._on_bytes, self._overwrite = dry_run, on_bytes, overwrite
        self._attachment = attachment
        self._place = root / path
        self._part = self._place.with_name(self._place.name + PART)
        self._tries = 0
        self._wrong = 0

    def run(self) -> Finding:
        for path in (self._path, self._path + PART):
            if link := link_on_the_way(self._root, path):
                raise TransferFailed("conflict", f"{link} is a symbolic link", "move it away")
        if self._place.exists():
            if self._is_same():
                return self._finding("unchanged")
            if not self._overwrite:
                raise self._conflict()
        if self._dry_run:
            return self._finding("downloaded")
        self._place.parent.mkdir(parents=True, exist_ok=True)
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
        return Finding(kind, self._path, self._ref.uri)

    def _conflict(self) -> TransferFailed:
        remedy = "move it away, or use --overwrite"
        return TransferFailed("conflict", f"{self._place} is another file", remedy)

    def _is_same(self) -> bool:
        if not self._place.is_file() or self._place.stat().st_size != self._attachment.size:
            return False
        return hash_of(self._place, self._client).hexdigest() == self._attachment.hash

    def _complete(self) -> None:
        """One attempt to get what is still missing.

        :raises TransferFailed:
        """
        self._tries += 1
        if self._tries > 1:
            self._look_again()
        if self._digest.size < self._attachment.size:
            self._receive()
        if self._digest.size == self._attachment.size:
            if self._digest.hexdigest() == self._attachment.hash:
                return
        elif self._digest.size < self._attachment.size:
            missing = self._attachment.size - self._digest.size
            raise TryAgain(f"broken off, {missing} bytes are missing")
        self._start_over()
        # The first time it may be what was there before, or a file that was just replaced.
        self._wrong += 1
        if self._wrong > 1:
            self._part.unlink()
            raise TransferFailed("damaged", f"these are not the bytes of {self._hash}", LOST)
        raise TryAgain("other bytes than the record says", after=0)

    @property
    def _hash(self) -> str:
        return self._attachment.hash

    def _look_again(self) -> None:
        """Whether it is still the file that the record has."""
        found = self._client.find(self._ref)
        try:
            now = Attachment.from_json(found and found.data.get("attachment"))
        except ValueError as error:
            raise TransferFailed("missing", "the record has no file any more", LATER) from error
        if now.hash != self._hash:
            self._start_over()
            self._wrong = 0
        self._attachment = now

    def _receive(self) -> None:
        """From where we are to the end; what comes is in the part file and in its hash."""
        start = self._digest.size
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers |= {"Range": f"bytes={start}-", "If-Range": f'"{self._hash}"'}
        with self._client.open(self._client.attachment_url(self._ref), headers) as response:
            if response.status_code == 404:
                raise TransferFailed("missing", "the server has lost it", LOST)
            if start and response.status_code == 416:
                self._start_over()
                raise TryAgain("there are fewer bytes than there were", after=0)
            check(response)
            content_range = response.headers.get("Content-Range", "")
            if start and not content_range.startswith(f"bytes {start}-"):
                self._start_over()
                if response.status_code == 206:
                    raise TryAgain(f"other bytes than asked for: {content_range}", after=0)
            for chunk in self._client.chunks(response):
                self._file.write(chunk)
                self._digest.update(chunk)
                self._on_bytes(len(chunk))
                if self._digest.size > self._attachment.size:
                    break

    def _start_over(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._digest = Digest()

    def _move(self) -> None:
        """The part becomes the file."""
        if self._overwrite:
            os.replace(self._part, self._place)
        else:
            _move_where_nothing_is(self._part, self._place, self._conflict())
        _sync_folder(self._place.parent)


@contextmanager
def _open_part(path: Path) -> Iterator[BinaryIO]:
    """The file, at its start, for us alone; it is created if it is not there.

    :raises TransferFailed: somebody else has it open.
    """
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    with open(os.open(path, flags, 0o666), "r+b", buffering=0) as file:
        if fcntl:
            busy = TransferFailed("conflict", f"another run is writing {path}", "wait for its end")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise busy from error
            if not os.path.samestat(os.fstat(file.fileno()), os.lstat(path)):
                raise busy  # it became the file before we had the lock
        yield file


def _move_where_nothing_is(part: Path, place: Path, conflict: TransferFailed) -> None:
    """
    :raises TransferFailed: something is there by now.
    """
    try:
        os.link(part, place)
    except FileExistsError as error:
        raise conflict from error
    except OSError:  # a file system without hard links
        if place.exists():
            raise conflict from None
        os.rename(part, place)
    else:
        with suppress(FileNotFoundError):
            part.unlink()


def _sync_folder(folder: Path) -> None:
    """Make a new name last; Windows has nothing of the kind."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
