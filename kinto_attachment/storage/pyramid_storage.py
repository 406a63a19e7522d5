"""The calls of pyramid_storage, answered by a storage of ours.

Applications that use ``request.attachment``, or look up ``IFileStorage`` in the registry, go on
working: https://pythonhosted.org/pyramid_storage/.
"""

import os
from dataclasses import replace
from typing import Any, BinaryIO

from pyramid_storage.exceptions import FileNotAllowed
from pyramid_storage.extensions import resolve_extensions
from pyramid_storage.interfaces import IFileStorage
from zope.interface import implementer

from ..errors import BlobExists, BlobNotFound, FilenameRefused
from ..files.blob import Digest
from ..files.key import KeyTemplate
from ..files.ref import RecordRef
from ..settings import Settings
from . import IStorage

_NO_RECORD = RecordRef("", "", "")


@implementer(IFileStorage)
class PyramidStorage:
    """
    :param storage: does the work.

    Files saved by these calls are the application's: they are not linked to a record.
    """

    def __init__(self, storage: IStorage, settings: Settings):
        self.storage = storage
        self._policy = settings.policy("", "")

    def url(self, filename: str) -> str:
        """URL of a key."""
        return self.storage.url(filename) if filename else self.storage.base_url

    def path(self, filename: str) -> str:
        """Path of the file of a key.

        :raises NotImplementedError: the storage has no files.
        """
        if not hasattr(self.storage, "path"):
            raise NotImplementedError("this storage has no paths")
        return self.storage.path(filename)

    def exists(self, filename: str) -> bool:
        try:
            self.storage.stat(filename)
        except BlobNotFound:
            return False
        return True

    def delete(self, filename: str) -> bool:
        """Whether there was something to delete."""
        existed = self.exists(filename)
        self.storage.delete([filename])
        return existed

    def save(self, fs: Any, *args: Any, **kwargs: Any) -> str:
        """Save an upload as WebOb has them, with ``file`` and ``filename``; its key."""
        return self.save_file(fs.file, fs.filename, *args, **kwargs)

    def save_filename(self, filename: str, *args: Any, **kwargs: Any) -> str:
        """Save a file of this machine; its key."""
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
        """Save a file under its name, or a random one; its key, which is never one in use.

        :param extensions: those allowed; an empty tuple for any.
        :raises FileNotAllowed: another extension.
        """
        self._check(filename, extensions)
        pattern = "{uuid}{extension}" if randomize else "{filename}"
        template = KeyTemplate((folder or "").replace("{", "{{").replace("}", "}}"), pattern)
        filename = os.path.basename(filename)
        digest = Digest()
        with self.storage.spool() as spool:
            file.seek(0)
            while chunk := file.read(256 * 1024):
                digest.update(chunk)
                spool.write(chunk)
            # Who saves it may delete it and save another under its name.
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
