"""``request.attachment``: the calls of pyramid_storage, answered by a storage of ours.

Applications that use ``request.attachment`` or look up ``IFileStorage`` in the registry keep
working: https://pythonhosted.org/pyramid_storage/. Where that package is installed, its interface
and its exception are used; elsewhere this module has its own.
"""

import os
from dataclasses import replace
from typing import Any, BinaryIO

from zope.interface import Interface, implementer

from ..errors import BlobExists, BlobNotFound, FilenameRefused
from ..files.blob import CHUNK, Digest
from ..files.key import KeyTemplate
from ..files.ref import RecordRef
from ..settings import Settings
from ..settings.extensions import resolve_extensions
from . import IStorage

try:
    from pyramid_storage.exceptions import FileNotAllowed
    from pyramid_storage.interfaces import IFileStorage
except ImportError:

    class IFileStorage(Interface):
        """The utility under which the registry has :class:`PyramidStorage`."""

    class FileNotAllowed(Exception):
        """The extension of a file is not allowed."""


_NO_RECORD = RecordRef("", "", "")


@implementer(IFileStorage)
class PyramidStorage:
    """The calls of pyramid_storage.

    :param storage: does the work.

    Files that are saved by these calls belong to the application: no record is linked to them.
    """

    def __init__(self, storage: IStorage, settings: Settings):
        self.storage = storage
        self._policy = settings.policy("", "")

    def url(self, filename: str) -> str:
        """Return the URL of a key."""
        return self.storage.url(filename) if filename else self.storage.base_url

    def path(self, filename: str) -> str:
        """Return the path of the file of a key.

        :raises NotImplementedError: if the storage has no files.
        """
        if not hasattr(self.storage, "path"):
            raise NotImplementedError("this storage has no paths")
        return self.storage.path(filename)

    def exists(self, filename: str) -> bool:
        """Return whether there is such a key."""
        try:
            self.storage.stat(filename)
        except BlobNotFound:
            return False
        return True

    def delete(self, filename: str) -> bool:
        """Delete a key; return whether there was something to delete."""
        existed = self.exists(filename)
        self.storage.delete([filename])
        return existed

    def save(self, fs: Any, *args: Any, **kwargs: Any) -> str:
        """Save an upload as WebOb represents it, with ``file`` and ``filename``; return its key."""
        return self.save_file(fs.file, fs.filename, *args, **kwargs)

    def save_filename(self, filename: str, *args: Any, **kwargs: Any) -> str:
        """Save a file of this machine; return its key."""
        with open(filename, "rb") as file:
            return self.save_file(file, os.path.basename(filename), *args, **kwargs)

    def save_file(
        self,
        file: BinaryIO,
        filename: str,
        folder: str | None = None,
        randomize: bool = False,
        extensions: Any = None,
    ) -> str:
        """Save a file under its own name or a random one; return its key, which is never one that
        was in use.

        :param extensions: those that are allowed; an empty tuple allows all.
        :raises FileNotAllowed: if the file has another extension.
        """
        self._check(filename, extensions)
        pattern = "{uuid}{extension}" if randomize else "{filename}"
        template = KeyTemplate((folder or "").replace("{", "{{").replace("}", "}}"), pattern)
        filename = os.path.basename(filename)
        digest = Digest()
        with self.storage.spool() as spool:
            file.seek(0)
            while chunk := file.read(CHUNK):
                digest.update(chunk)
                spool.write(chunk)
            # The application may delete the file and save another one under its name.
            source = replace(self._policy.source(spool, filename, None, digest), immutable=False)
            for key in template.keys(_NO_RECORD, filename, source.digest):
                if not self.storage.exclusive and self.exists(key):
                    continue
                try:
                    self.storage.put(key, source)
                except BlobExists:
                    continue
                return key
        raise AssertionError("unreachable")

    def _check(self, filename: str, extensions: Any) -> None:
        if isinstance(extensions, str):
            extensions = resolve_extensions(extensions)
        try:
            if extensions is None:
                self._policy.check_extension(filename)
            elif extensions and filename.rpartition(".")[2].lower() not in extensions:
                raise FilenameRefused("File extension is not allowed.")
        except FilenameRefused as error:
            raise FileNotAllowed(str(error)) from error
