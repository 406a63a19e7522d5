"""Storage in files below one folder.

A file gets its name only when it is complete and on the disk. It is written without a name in the
same file system, synced, and then linked into place. A link never replaces another file.
"""

import errno
import logging
import os
import stat as stat_mode
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import datetime, timezone
from typing import BinaryIO
from uuid import uuid4

from zope.interface import implementer

from ..errors import (
    BlobExists,
    BlobNotFound,
    KeyRefused,
    SettingError,
    StorageError,
    StorageUnavailable,
)
from ..files.blob import CHUNK, Label, Source
from ..files.key import check_key
from ..settings import Settings
from . import IStorage, Stat
from .base import FileChunks, Storage
from .spool import SPOOL_PREFIX, Spool, append, claimed
from .staged import IComposingStorage, IUnfinishedStorage

logger = logging.getLogger(__name__)

_CANNOT_SYNC = {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS}
_CANNOT_LINK = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EXDEV}

# Our errors for those of the operating system. The second one is for calls that look up the path of
# a stored file, the first one is for all other calls. Errors that are not in the table mean
# StorageUnavailable.
_ERRORS: dict[int | None, tuple[type[StorageError], type[StorageError]]] = {
    errno.EEXIST: (BlobExists, StorageUnavailable),
    errno.ENAMETOOLONG: (KeyRefused, StorageUnavailable),
    errno.EILSEQ: (KeyRefused, StorageUnavailable),
    errno.ENOTDIR: (KeyRefused, BlobNotFound),
    errno.ENOENT: (StorageUnavailable, BlobNotFound),
    errno.EISDIR: (StorageUnavailable, BlobNotFound),
    errno.ELOOP: (StorageUnavailable, BlobNotFound),
}


@contextmanager
def _translated(key: str, lookup: bool = False) -> Iterator[None]:
    """Replace an error of the operating system by our own.

    :param key: the key that our error names.
    :param lookup: whether the wrapped call looks up the path of a stored file.
    :raises StorageError: as :data:`_ERRORS` says.
    """
    try:
        yield
    except OSError as error:
        general, of_lookup = _ERRORS.get(error.errno, (StorageUnavailable, StorageUnavailable))
        ours = of_lookup if lookup else general
        # These two errors say what is wrong without a reason.
        reason = "" if ours in (BlobExists, BlobNotFound) else str(error)
        raise ours(key, reason) from error


@implementer(IStorage, IComposingStorage, IUnfinishedStorage)
class LocalFileStorage(Storage):
    """A storage in files below one folder. The key of a file is its path below the folder.

    Methods without a docstring are documented in the interfaces.

    :param base_path: the path of the folder, which is created when it is first needed.
    :param base_url: the URL at which a web server serves the folder, with a slash at its end.
    :param file_mode: the mode of new files; None to let the umask decide, as for ``dir_mode``.
    :param dir_mode: the mode of new folders.

    >>> LocalFileStorage("/srv/files", "https://cdn.example/").url("a/b.txt")
    'https://cdn.example/a/b.txt'
    """

    exclusive = True

    def __init__(
        self,
        base_path: str,
        base_url: str = "",
        file_mode: int | None = None,
        dir_mode: int | None = None,
    ):
        self.base_path = os.path.abspath(base_path)
        self.base_url = base_url
        self._file_mode = file_mode
        self._dir_mode = dir_mode
        self.place = self.base_path
        self._root = self.base_path.encode("utf-8")
        self._told_of_sync = False

    @classmethod
    def from_settings(cls, settings: Settings) -> "LocalFileStorage":
        """Return the storage below the folder of the setting ``base_path``.

        :raises SettingError: if that is a file.
        """
        base_path = settings["base_path"]
        if os.path.exists(base_path) and not os.path.isdir(base_path):
            raise SettingError(
                "kinto.attachment.base_path", f"{base_path} exists but is not a folder"
            )
        modes = settings["file_mode"], settings["dir_mode"]
        return cls(base_path, settings["base_url"], *modes)

    def spool(self) -> BinaryIO:
        with _translated("spool"):
            self._make_folder(self._root)
            try:
                descriptor = os.open(self._root, os.O_TMPFILE | os.O_RDWR, 0o666)
                return self._spool(descriptor)
            except AttributeError:
                pass  # not Linux
            except OSError as error:
                # Not every file system supports files without a name (open(2), O_TMPFILE).
                if error.errno not in (*_CANNOT_LINK, errno.EISDIR):
                    raise
            path = os.path.join(self._root, f"{SPOOL_PREFIX}{uuid4().hex}".encode())
            return self._spool(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666), path)

    def _spool(self, descriptor: int, path: bytes | None = None) -> Spool:
        file = Spool(self._root, descriptor, path)
        self._set_file_mode(file)
        return file

    def _set_file_mode(self, file: BinaryIO) -> None:
        if self._file_mode is not None:
            os.fchmod(file.fileno(), self._file_mode)

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

    def open(self, key: str, start: int = 0, end: int | None = None) -> FileChunks:
        path = self._path(key)
        with _translated(key, lookup=True):
            file = open(path, "rb", buffering=0)
        return FileChunks(key, file, start, end)

    def stat(self, key: str) -> Stat:
        path = self._path(key)
        with _translated(key, lookup=True):
            found = os.stat(path)
        if not stat_mode.S_ISREG(found.st_mode):
            raise BlobNotFound(key)
        return Stat(key, found.st_size, datetime.fromtimestamp(found.st_mtime, timezone.utc))

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            path = self._path(key)
            with suppress(BlobNotFound), _translated(key, lookup=True):
                try:
                    os.unlink(path)
                except OSError:
                    # A folder is not a blob. unlink() of a folder fails with EPERM on macOS.
                    if not os.path.isdir(path):
                        raise

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
                with closing(self.open(part)) as chunks, _translated(key):
                    append(whole, chunks.file)
            with _translated(key):
                self._publish(whole, path)

    def _link(self, part: bytes, path: bytes) -> bool:
        """Give the file of a part a second name. The bytes of a file never change, so a second name
        is as good as a copy. Return False if the file system does not allow it."""
        with _translated(os.fsdecode(path)):
            self._make_folder(os.path.dirname(path))
            try:
                os.utime(part)  # as in _publish()
                os.link(part, path)
            except FileNotFoundError as error:
                raise BlobNotFound(os.fsdecode(part)) from error
            except OSError as error:
                # EACCES: the part belongs to another user, and may only be read.
                if error.errno in (*_CANNOT_LINK, errno.EMLINK, errno.EACCES):
                    return False
                raise
            self._sync_folder(os.path.dirname(path))
        return True

    def discard_unfinished(
        self, before: datetime, is_ours: Callable[[str], bool], dry_run: bool = False
    ) -> Iterator[str]:
        with _translated(self.base_path), suppress(FileNotFoundError):
            for entry in os.scandir(self._root):
                name = os.fsdecode(entry.name)
                if not name.startswith(SPOOL_PREFIX):
                    continue
                with suppress(FileNotFoundError):  # the upload has ended meanwhile
                    if entry.stat().st_mtime < before.timestamp():
                        if not dry_run:
                            os.unlink(entry.path)
                        yield name

    def path(self, key: str) -> str:
        """Return the absolute path of the file that has this key or would have it.

        :raises KeyRefused: if the key is not valid.
        """
        return os.fsdecode(self._path(key))

    def _path(self, key: str) -> bytes:
        # The path consists of bytes, so that it does not depend on the locale.
        return os.path.join(self._root, check_key(key).encode("utf-8"))

    def _publish(self, file: Spool, path: bytes) -> None:
        """Sync a spooled file to the disk and give it its name.

        Its age counts from now on, and not from its last byte: the client may have taken an hour to
        send the rest of the form, and ``gc`` must not take the file for one that was left behind.

        :raises FileExistsError: if the name is taken.
        """
        file.flush()
        os.utime(file.fileno())
        os.fsync(file.fileno())
        self._make_folder(os.path.dirname(path))
        try:
            if file.path:
                os.link(file.path, path)
            else:
                # A file without a name has a link in /proc (open(2), O_TMPFILE). Python follows
                # the link only if src_dir_fd is given; its value does not matter.
                descriptor = file.fileno()
                os.link(f"/proc/self/fd/{descriptor}", path, src_dir_fd=descriptor)
        except FileExistsError:
            raise
        except OSError as error:
            if error.errno not in (*_CANNOT_LINK, errno.ENOENT):
                raise
            self._publish_by_name(file, path)
        self._sync_folder(os.path.dirname(path))

    def _publish_by_name(self, file: Spool, path: bytes) -> None:
        """Move a spooled file into place, for file systems without links. A file without a name is
        copied.

        A move would replace another file, so only one caller at a time may check that the name is
        free and move its file.

        :raises FileExistsError: if the name is taken.
        """
        source = file.path or self._copy(file)
        try:
            with claimed(self._root, path):
                if os.path.lexists(path):
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
                os.utime(source)  # as in _publish(): others may have had the claim
                os.rename(source, path)
            if source == file.path:
                file.path = None
        except BaseException:
            if source != file.path:
                with suppress(FileNotFoundError):
                    os.unlink(source)
            raise

    def _copy(self, file: Spool) -> bytes:
        """Copy a spooled file to a temporary name, durably, and return that."""
        path = os.path.join(self._root, f"{SPOOL_PREFIX}{uuid4().hex}".encode())
        try:
            with open(path, "wb") as copy:
                self._set_file_mode(copy)
                file.seek(0)
                while chunk := file.read(CHUNK):
                    copy.write(chunk)
                copy.flush()
                os.fsync(copy.fileno())
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(path)
            raise
        return path

    def _make_folder(self, folder: bytes) -> None:
        """Create a folder and those above it, durably. Idempotent.

        :raises NotADirectoryError: if a file has its name.
        :raises StorageUnavailable: if the root of the storage, or what is above it, is a file.
        """
        if os.path.isdir(folder):
            return
        parent = os.path.dirname(folder)
        self._make_folder(parent)
        try:
            os.mkdir(folder)
            if self._dir_mode is not None:
                os.chmod(folder, self._dir_mode)
        except FileExistsError:
            if not os.path.isdir(folder):
                if len(folder) <= len(self._root):
                    raise StorageUnavailable(self.base_path, "is not a folder") from None
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None
        self._sync_folder(parent)

    def _sync_folder(self, folder: bytes) -> None:
        """Make the names in a folder durable, where the file system can (CIFS and some servers of
        NFS cannot). The log says so once."""
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in _CANNOT_SYNC:
                raise
            if not self._told_of_sync:
                self._told_of_sync = True
                logger.warning(
                    "The file system of %s cannot sync folders: a power failure may take away the"
                    " names of new files.",
                    os.fsdecode(folder),
                )
        finally:
            os.close(descriptor)

    def _walk(
        self, folder: str, prefix: str, above: tuple[tuple[int, int], ...] = ()
    ) -> Iterator[Stat]:
        """Yield the files below a folder. Follow symbolic links to folders, except for links to a
        folder above, which would never end.

        :param folder: the path of the folder below the root.
        :param prefix: how the keys begin.
        :param above: device and inode of each folder above.
        """
        path = os.path.join(self._root, folder.encode("utf-8"))
        try:
            status = os.stat(path)
            if (status.st_dev, status.st_ino) in above:
                return
            above = (*above, (status.st_dev, status.st_ino))
            entries = os.scandir(path)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            # A loop of links is an error here, where a lookup takes it for a missing file.
            raise StorageUnavailable(folder, str(error)) from error
        with entries:
            for entry in entries:
                name = os.fsdecode(entry.name)
                key = f"{folder}/{name}" if folder else name
                if _is_folder(entry):
                    if key.startswith(prefix) or f"{key}/".startswith(prefix):
                        yield from self._walk(key, prefix, above)
                elif key.startswith(prefix) and not name.startswith(SPOOL_PREFIX):
                    try:
                        yield self.stat(key)
                    except (BlobNotFound, KeyRefused):
                        continue  # deleted since, or a file whose name is not a valid key


def _is_folder(entry: os.DirEntry) -> bool:
    """Return whether the entry is a folder or a link to one. A link to itself is neither."""
    try:
        return entry.is_dir()
    except OSError:
        return False
