"""``request.attachment``: the methods of pyramid_storage on top of a storage of this package.

Applications that use ``request.attachment``, or that look up ``IFileStorage`` in the registry, keep
working: https://pythonhosted.org/pyramid_storage/. If pyramid_storage is installed, this module
uses its interface and its exception. Otherwise it defines its own.
"""

import os
from dataclasses import replace
from typing import Any, BinaryIO

from zope.interface import implementer

from ..errors import BlobExists, BlobNotFound, ExtensionRefused, FilenameRefused
from ..files.blob import CHUNK, Digest
from ..files.key import KeyTemplate
from ..files.ref import RecordRef
from ..rows import Rows
from ..rows.deletion import Rule
from ..settings import Settings
from ..settings.extensions import resolve_extensions
from ..storage import IFileStorage, IStorage

try:
    from pyramid_storage.exceptions import FileNotAllowed
except ImportError:

    class FileNotAllowed(Exception):
        """An error: the extension of a file is not allowed."""


_NO_RECORD = RecordRef("", "", "")


@implementer(IFileStorage)
class PyramidStorage:
    """An object with the methods of pyramid_storage's storages.

    The files that these methods save belong to the application: no record is linked to them.

    :param storage: the storage that holds the files.
    :param settings: the settings, of which the general policy applies to the files.
    """

    def __init__(self, storage: IStorage, settings: Settings, rows: Rows):
        self.storage = storage
        self._rows = rows
        self._folders = settings.folders
        self._policy = settings.policy("", "")

    def url(self, filename: str) -> str:
        """Return the URL of a key, or ``base_url`` for an empty key.

        :raises KeyRefused: if the key is not valid.
        """
        return self.storage.url(filename) if filename else self.storage.base_url

    def path(self, filename: str) -> str:
        """Return the absolute path of the file that has this key or would have it.

        :raises KeyRefused: if the key is not valid.
        :raises NotImplementedError: if the storage keeps no local files.
        """
        if not hasattr(self.storage, "path"):
            raise NotImplementedError("this storage keeps no local files, use url()")
        return self.storage.path(filename)

    def exists(self, filename: str) -> bool:
        """Return whether a key exists.

        :raises KeyRefused: if the key is not valid.
        :raises StorageUnavailable: if the storage cannot be reached.
        """
        try:
            self.storage.stat(filename)
        except BlobNotFound:
            return False
        return True

    def delete(self, filename: str) -> bool:
        """Delete a key, and return whether it existed.

        :raises KeyRefused: if the key is not valid.
        :raises StorageUnavailable: if the storage cannot be reached.
        """
        existed = self.exists(filename)
        self.storage.delete([filename])
        return existed

    def save(self, fs: Any, *args: Any, **kwargs: Any) -> str:
        """Save an upload and return its key.

        :param fs: the upload as WebOb represents it, with the attributes ``file`` and
            ``filename``. The other arguments are those of :meth:`save_file`.
        """
        return self.save_file(fs.file, fs.filename, *args, **kwargs)

    def save_filename(self, filename: str, *args: Any, **kwargs: Any) -> str:
        """Save a file of this machine and return its key.

        :param filename: the path of the file. The other arguments are those of :meth:`save_file`.
        """
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
        """Save a file and return its key. A key that is in use is never overwritten: the name gets
        a random suffix instead.

        :param file: a binary file, read from its start.
        :param filename: the name, of which only the part after the last slash is used.
        :param folder: the folder of the key; None for the root.
        :param randomize: whether a random name replaces the file name.
        :param extensions: the allowed extensions, in lowercase without a dot, or a text such as
            the setting ``extensions`` has. None stands for that setting; an empty tuple allows all
            extensions.
        :raises FileNotAllowed: if the extension is not allowed.
        :raises StorageUnavailable: if the storage cannot be reached.
        """
        self._check(filename, extensions)
        pattern = "{uuid}{extension}" if randomize else "{filename}"
        template = KeyTemplate((folder or "").replace("{", "{{").replace("}", "}}"), pattern)
        template.keep_clear_of(self._folders)
        filename = os.path.basename(filename)
        digest = Digest()
        with self.storage.spool() as spool:
            file.seek(0)
            while chunk := file.read(CHUNK):
                digest.update(chunk)
                spool.write(chunk)
            # The application may delete the file and then save another one under the same key.
            source = replace(self._policy.source(spool, filename, None, digest), immutable=False)
            for key in template.keys(_NO_RECORD, filename, source.digest):
                if not self.storage.exclusive and self.exists(key):
                    continue
                try:
                    self.storage.put(key, source)
                except BlobExists:
                    continue
                self._rows.releases.add([key], Rule.KEEP)
                return key
        raise AssertionError("unreachable")

    def _check(self, filename: str, extensions: Any) -> None:
        if isinstance(extensions, str):
            extensions = resolve_extensions(extensions)
        try:
            if extensions is None:
                self._policy.check_extension(filename)
            elif (
                extensions and (extension := filename.rpartition(".")[2].lower()) not in extensions
            ):
                raise ExtensionRefused(extension, extensions)
        except FilenameRefused as error:
            raise FileNotAllowed(error.description) from error
