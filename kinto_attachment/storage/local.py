"""Bytes in files below one folder.

A file gets its name only when it is complete and on the disk: it is written without a name
in the same file system, synced, and linked into place, which never replaces another.
"""

import errno
import fcntl
import io
import os
import stat as stat_mode
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from typing import BinaryIO
from uuid import uuid4

from zope.interface import implementer

from ..errors import BlobExists, BlobNotFound, KeyRefused, SettingError, StorageUnavailable
from ..files.blob import CHUNK, Label, Source
from ..files.key import check_key
from ..settings import Settings
from . import IStorage, Stat
from .base import Storage
from .staged import IComposingStorage, IUnfinishedStorage

_SPOOL_PREFIX = ".kinto-attachment-spool-"
_NOT_THERE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP}
_NO_SUCH_NAME = {errno.ENAMETOOLONG, errno.ENOTDIR, errno.EILSEQ}
_CANNOT_LINK = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EXDEV}


@contextmanager
def _translated(key: str) -> Iterator[None]:
    """What the operating system says, in our words."""
    try:
        yield
    except FileExistsError as error:
        raise BlobExists(key) from error
    except OSError as error:
        if error.errno in _NO_SUCH_NAME:
            raise KeyRefused(key, str(error)) from error
        raise StorageUnavailable(key, str(error)) from error


@implementer(IStorage, IComposingStorage, IUnfinishedStorage)
class LocalFileStorage(Storage):
    """
    :param base_path: the folder, created when it is first needed.
    :param base_url: what serves it, see :meth:`url`.

    >>> LocalFileStorage("/srv/files", "https://cdn.example/").url("a/b.txt")
    'https://cdn.example/a/b.txt'
    """

    exclusive = True

    def __init__(self, base_path: str, base_url: str = ""):
        self.base_path = os.path.abspath(base_path)
        self.base_url = base_url
        self._root = self.base_path.encode("utf-8")

    @classmethod
    def from_settings(cls, settings: Settings) -> "LocalFileStorage":
        base_path = settings["base_path"]
        if os.path.exists(base_path) and not os.path.isdir(base_path):
            raise SettingError("attachment.base_path", f"{base_path} is not a folder")
        return cls(base_path, settings["base_url"])

    def spool(self) -> BinaryIO:
        with _translated("spool"):
            self._make_folder(self._root)
            try:
                descriptor = os.open(self._root, os.O_TMPFILE | os.O_RDWR, 0o666)
                return Spool(self._root, descriptor)
            except AttributeError:
                pass  # not Linux
            except OSError as error:
                # Not every file system has files without a name (open(2), O_TMPFILE).
                if error.errno not in (*_CANNOT_LINK, errno.EISDIR):
                    raise
            path = os.path.join(self._root, f"{_SPOOL_PREFIX}{uuid4().hex}".encode())
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
            return Spool(self._root, descriptor, path)

    def put(self, key: str, source: Source) -> None:
        path = self._path(key)
        if isinstance(source.file, Spool) and source.file.root == self._root:
            with _translated(key):
                self._publish(source.file, path)
            return
        with self.spool() as copy:
            for chunk in source.chunks():
                with _translated(key):
                    copy.write(chunk)
            with _translated(key):
                self._publish(copy, path)

    def open(self, key: str, start: int = 0, end: int | None = None) -> "FileChunks":
        path = self._path(key)
        try:
            file = open(path, "rb", buffering=0)
        except OSError as error:
            if error.errno in _NOT_THERE:
                raise BlobNotFound(key) from error
            raise StorageUnavailable(key, str(error)) from error
        return FileChunks(key, file, start, end)

    def stat(self, key: str) -> Stat:
        path = self._path(key)
        try:
            found = os.stat(path)
        except OSError as error:
            if error.errno in _NOT_THERE:
                raise BlobNotFound(key) from error
            raise StorageUnavailable(key, str(error)) from error
        if not stat_mode.S_ISREG(found.st_mode):
            raise BlobNotFound(key)
        return Stat(key, found.st_size, datetime.fromtimestamp(found.st_mtime, timezone.utc))

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            path = self._path(key)
            try:
                os.unlink(path)
            except OSError as error:
                if error.errno not in _NOT_THERE and not os.path.isdir(path):
                    raise StorageUnavailable(key, str(error)) from error

    def list(self, prefix: str = "") -> Iterator[Stat]:
        folder = prefix.rpartition("/")[0]
        if folder:
            check_key(folder)
        yield from self._walk(folder, prefix)

    def compose(self, parts: Iterable[str], key: str, label: Label) -> None:
        path, parts = self._path(key), list(parts)
        if len(parts) == 1 and self._link(self._path(parts[0]), path):
            return
        with self.spool() as whole:
            for part in parts:
                for chunk in self.open(part):
                    with _translated(key):
                        whole.write(chunk)
            with _translated(key):
                self._publish(whole, path)

    def _link(self, part: bytes, path: bytes) -> bool:
        """Files never change: a second name for one is as good as a copy, where it can be had."""
        with _translated(os.fsdecode(path)):
            self._make_folder(os.path.dirname(path))
            try:
                os.link(part, path)
            except FileNotFoundError as error:
                raise BlobNotFound(os.fsdecode(part)) from error
            except OSError as error:
                if error.errno in (*_CANNOT_LINK, errno.EMLINK):
                    return False
                raise
            _sync_folder(os.path.dirname(path))
        return True

    def discard_unfinished(
        self, before: datetime, is_ours: Callable[[str], bool], dry_run: bool = False
    ) -> Iterator[str]:
        with _translated(self.base_path), suppress(FileNotFoundError):
            for entry in os.scandir(self._root):
                name = os.fsdecode(entry.name)
                if not name.startswith(_SPOOL_PREFIX) or name == f"{_SPOOL_PREFIX}lock":
                    continue
                with suppress(FileNotFoundError):  # ended meanwhile
                    if entry.stat().st_mtime < before.timestamp():
                        if not dry_run:
                            os.unlink(entry.path)
                        yield name

    def path(self, key: str) -> str:
        """Absolute path of the file that has or will have this key."""
        return os.fsdecode(self._path(key))

    def _path(self, key: str) -> bytes:
        # Bytes: the locale has no say in how a key is written.
        return os.path.join(self._root, check_key(key).encode("utf-8"))

    def _publish(self, file: "Spool", path: bytes) -> None:
        file.flush()
        os.fsync(file.fileno())
        self._make_folder(os.path.dirname(path))
        try:
            if file.path:
                os.link(file.path, path)
            else:
                # /proc has a name for the file without one (open(2), O_TMPFILE). Only with a
                # src_dir_fd, of no further use here, does Python follow it.
                descriptor = file.fileno()
                os.link(f"/proc/self/fd/{descriptor}", path, src_dir_fd=descriptor)
        except FileExistsError:
            raise
        except OSError as error:
            if error.errno not in (*_CANNOT_LINK, errno.ENOENT):
                raise
            self._publish_by_name(file, path)
        _sync_folder(os.path.dirname(path))

    def _publish_by_name(self, file: "Spool", path: bytes) -> None:
        """Where links cannot be made: move a complete copy to its place, if that is free. One at
        a time, as a move replaces what is there."""
        copy_path = os.path.join(self._root, f"{_SPOOL_PREFIX}{uuid4().hex}".encode())
        try:
            with open(copy_path, "wb") as copy:
                file.seek(0)
                while chunk := file.read(CHUNK):
                    copy.write(chunk)
                copy.flush()
                os.fsync(copy.fileno())
            with open(os.path.join(self._root, f"{_SPOOL_PREFIX}lock".encode()), "wb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if os.path.lexists(path):
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
                os.rename(copy_path, path)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(copy_path)
            raise

    def _make_folder(self, folder: bytes) -> None:
        if os.path.isdir(folder):
            return
        parent = os.path.dirname(folder)
        self._make_folder(parent)
        try:
            os.mkdir(folder)
        except FileExistsError:
            if not os.path.isdir(folder):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None
        _sync_folder(parent)

    def _walk(
        self, folder: str, prefix: str, above: tuple[tuple[int, int], ...] = ()
    ) -> Iterator[Stat]:
        """All below a folder, which may be a link to another place, but not to one above it."""
        path = os.path.join(self._root, folder.encode("utf-8"))
        try:
            place = os.stat(path)
            if (place.st_dev, place.st_ino) in above:
                return
            above = (*above, (place.st_dev, place.st_ino))
            entries = os.scandir(path)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise StorageUnavailable(folder, str(error)) from error
        with entries:
            for entry in entries:
                name = os.fsdecode(entry.name)
                key = f"{folder}/{name}" if folder else name
                if entry.is_dir():
                    if key.startswith(prefix) or f"{key}/".startswith(prefix):
                        yield from self._walk(key, prefix, above)
                elif key.startswith(prefix) and not name.startswith(_SPOOL_PREFIX):
                    try:
                        yield self.stat(key)
                    except (BlobNotFound, KeyRefused):
                        continue  # deleted since, or a foreign file with no name of ours


class Spool(io.BufferedRandom):
    """A file that has no name yet, or at most one of our own for the time being.

    :param root: the folder of the storage that made it.
    :param path: the temporary name, where the file system insists on one.
    """

    def __init__(self, root: bytes, descriptor: int, path: bytes | None = None):
        super().__init__(io.FileIO(descriptor, "w+"))
        self.root = root
        self.path = path

    def close(self) -> None:
        if not self.closed and self.path:
            with suppress(FileNotFoundError):
                os.unlink(self.path)
        super().close()


class FileChunks(Iterator[bytes]):
    """Bytes of one range of an open file, closed at its end or by :meth:`close`.

    :ivar length: of the range.
    :ivar file: at its start.
    """

    def __init__(self, key: str, file: BinaryIO, start: int, end: int | None):
        self._key = key
        self.file = file
        size = os.fstat(file.fileno()).st_size
        start = min(start, size)
        self.length = self._left = max(0, min(size if end is None else end, size) - start)
        file.seek(start)

    def __next__(self) -> bytes:
        if not self._left:
            self.close()
            raise StopIteration
        with _translated(self._key):
            chunk = self.file.read(min(CHUNK, self._left))
        if not chunk:
            self.close()
            raise StorageUnavailable(self._key, "the file became shorter while it was read")
        self._left -= len(chunk)
        return chunk

    def close(self) -> None:
        self._left = 0
        self.file.close()


def _sync_folder(folder: bytes) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
