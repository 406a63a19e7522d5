"""Finding the files to upload, in the folders of this computer."""

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..files.blob import CHUNK, Digest
from ..finding import Finding, Progress
from .client import Client
from .pool import remedy_for

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

    @property
    def size(self) -> int:
        """Bytes of the file now; 0 if it is gone."""
        try:
            return os.path.getsize(self.path)
        except OSError:
            return 0


def found_files(
    paths: list, progress: Progress, unique_names: bool = True
) -> Iterator[LocalFile | Finding]:
    """Yield what :func:`find_files` does, and report how much that is if the progress is shown."""
    if progress.is_shown:  # the folders are read twice, the files are not
        for found in find_files(paths, unique_names):
            if isinstance(found, LocalFile):
                progress.expect(1, found.size)
    yield from find_files(paths, unique_names)


def find_files(
    paths: Iterable[str | os.PathLike], unique_names: bool = True
) -> Iterator[LocalFile | Finding]:
    """Yield the files to upload, and a finding for everything that cannot be uploaded.

    :param paths: files and folders. A symbolic link is followed if it is given here, and skipped
        if it is in a folder.
    :param unique_names: whether a second file of the same name cannot be uploaded. If not, a file
        that is given twice is found once.
    """
    before = _Given(unique_names)
    for given in map(os.fspath, paths):
        if os.path.isdir(given):
            found = _walk(given, "")
        else:
            found = iter([_regular(given, Path(given).name)])
        for file in found:
            yield (isinstance(file, LocalFile) and before.refusal_of(file)) or file
        before.add(given)


class _Given:
    """The files and folders whose files are found already. Those files themselves are not
    remembered, because there may be many."""

    def __init__(self, unique_names: bool):
        self._unique_names = unique_names
        self._folders: list[str] = []
        self._files: set[str] = set()

    def add(self, given: str) -> None:
        """Remember a path that was given."""
        known = given if self._unique_names else os.path.realpath(given)
        if os.path.isdir(given):
            self._folders.append(known)
        else:
            self._files.add(Path(known).name if self._unique_names else known)

    def refusal_of(self, file: LocalFile) -> Finding | None:
        """Return why the file cannot be uploaded after those before it; None if it can."""
        if self._unique_names:
            if not self._has_name(file.name):
                return None
            detail = f"{file.path}: another file has the same name"
            return Finding("conflict", file.name, "", detail, "upload it to another collection")
        if not self._has_file(os.path.realpath(file.path)):
            return None
        return Finding("skipped", file.name, "", f"{file.path}: this file is given twice")

    def _has_name(self, name: str) -> bool:
        return name in self._files or any(
            os.path.isfile(os.path.join(folder, name)) for folder in self._folders
        )

    def _has_file(self, path: str) -> bool:
        return path in self._files or any(
            path.startswith(os.path.join(folder, "")) for folder in self._folders
        )


def _walk(folder: str, prefix: str) -> Iterator[LocalFile | Finding]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                name = f"{prefix}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    yield from _walk(entry.path, f"{name}/")
                elif entry.is_symlink():
                    yield Finding("skipped", printable_name(name), "", "a symbolic link")
                else:
                    yield _regular(entry.path, name)
    except OSError as error:
        yield _unreadable(prefix or folder, error)


def _regular(path: str, name: str) -> LocalFile | Finding:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return Finding("skipped", printable_name(name), "", "not a regular file")
    except OSError as error:
        return _unreadable(name, error)
    if printable_name(name) != name:
        return Finding("refused", printable_name(name), "", "its name is not valid text", RENAME)
    return LocalFile(path, name)


def _unreadable(name: str, error: OSError) -> Finding:
    return Finding(
        "failed", printable_name(name), "", error.strerror or str(error), remedy_for(error)
    )


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


def printable_name(name: str) -> str:
    """Return the name with escapes for bytes that are not valid text. The names on a disk are
    bytes; such a name can be neither sent nor printed."""
    return name.encode("utf-8", "backslashreplace").decode()


def move_without_replacing(source: Path, target: Path) -> None:
    """Rename a file without replacing another one.

    :raises FileExistsError: if there is another file.
    """
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if target.exists():
            raise FileExistsError(target) from None
        os.rename(source, target)
    else:
        with suppress(FileNotFoundError):
            source.unlink()
