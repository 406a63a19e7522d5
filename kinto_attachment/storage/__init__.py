"""Storages: bytes under keys. Nothing in this package knows Kinto, records or requests.

A storage is an object that provides :class:`IStorage` and passes
:class:`kinto_attachment.storage.testing.StorageTest`. The interfaces that a storage may provide in
addition are in :mod:`kinto_attachment.storage.staged`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from zope.interface import Attribute, Interface
from zope.interface.exceptions import Invalid
from zope.interface.verify import verifyObject

from ..errors import SettingError
from ..settings import Settings
from ..settings.setting import INI_PREFIX

try:
    from pyramid_storage.interfaces import IFileStorage
except ImportError:

    class IFileStorage(Interface):
        """The interface under which applications find ``request.attachment`` in the registry."""


__all__ = ["IFileStorage", "IStorage", "Stat", "open_storage", "place_of"]

# The classes of our own storages, by their names in the setting ``storage``.
BACKENDS = {
    "local": "kinto_attachment.storage.local:LocalFileStorage",
    "s3": "kinto_attachment.storage.s3:S3FileStorage",
    "gcs": "kinto_attachment.storage.gcs:GoogleCloudStorage",
    "memory": "kinto_attachment.storage.memory:MemoryFileStorage",
}
# The packages that the extras install, by the names of the storages that need them.
EXTRAS = {"s3": "boto3", "gcs": "google.cloud.storage"}

ENTRY_POINTS = "kinto_attachment.storage"
"""The group of entry points with which other packages name their storages."""


@dataclass(frozen=True)
class Stat:
    """What a storage knows about one key.

    :param size: the number of bytes.
    :param modified: when the bytes were stored (an aware datetime, UTC).
    """

    key: str
    size: int
    modified: datetime


class IStorage(Interface):
    """Bytes under keys.

    A storage is thread-safe, and the child processes of a preforking server can use a storage
    that their parent created.

    A class that is named in the setting ``storage`` also has a class method
    ``from_settings(settings)`` that returns a storage or raises ``SettingError``. The class finds
    its own settings in ``settings.storage_options``.

    Every method that takes a key checks it with :func:`kinto_attachment.files.key.check_key` and
    raises ``KeyRefused`` if the key is not valid. Every method raises ``StorageUnavailable`` within
    a bounded time if the storage cannot be reached or refuses the credentials.
    """

    exclusive = Attribute(
        "Whether ``put`` raises ``BlobExists`` and changes nothing if the key is taken, even when "
        "several requests race. A storage that cannot guarantee this overwrites the blob."
    )

    def spool():
        """Return a new binary file that receives bytes before they have a key. It can be read,
        written and sought. The caller closes it. If the caller passes the file to ``put`` of the
        same storage, the storage may use the file itself instead of a copy."""

    def put(key, source):
        """Store all bytes of ``source`` (:class:`~kinto_attachment.files.blob.Source`) under
        ``key``, with their type and disposition. Either all bytes are stored or none. When the call
        returns, they are durable. The source stays open and can be stored again.

        :raises BlobExists: if the key is taken and the storage is ``exclusive``."""

    def open(key, start=0, end=None):
        """Return an iterator over the bytes of a blob, in chunks (``bytes``), from the offset
        ``start`` up to but not including the offset ``end`` (None: the end of the blob). A range
        that goes beyond the end of the blob is cut off there.

        The iterator has an attribute ``length``, the total number of bytes, and a method
        ``close()``, which releases all resources early. If the bytes come from an open file, the
        iterator also has that file as its attribute ``file``, positioned at ``start``.

        :raises BlobNotFound: if there is no such key. The call itself raises it, before the first
            chunk is read."""

    def stat(key):
        """Return the :class:`Stat` of one key.

        :raises BlobNotFound: if there is no such key."""

    def delete(keys):
        """Delete any number of keys. Keys that do not exist are ignored."""

    def list(prefix=""):
        """Return an iterator of :class:`Stat`, one for each blob whose key begins with ``prefix``,
        in any order and in constant memory. ``prefix`` is plain text, not a folder: ``a`` also
        lists ``ab``."""

    def url(key):
        """Return the URL at which clients find the blob: ``base_url`` followed by the key,
        percent-encoded. Without a ``base_url`` the URL is relative."""


def open_storage(settings: Settings) -> IStorage:
    """Return the storage that the settings name.

    If the setting ``prefix`` is given, the returned storage is the part below that prefix.

    :raises SettingError: if there is no such storage, if a setting of the storage is wrong, if the
        extra of the storage is not installed, or if the storage of another package cannot be
        loaded, does not provide :class:`IStorage` or cannot do what the setting ``download`` asks.
    """
    from .prefixed import PrefixedStorage  # it imports IStorage from this module

    storage = _open_backend(settings)
    return PrefixedStorage(storage, settings["prefix"]) if settings["prefix"] else storage


def place_of(storage: IStorage) -> str:
    """Return where a storage keeps its blobs, for people: a folder or a URL. That of another
    package may have an attribute ``place``."""
    backend = getattr(storage, "backend", storage)
    return getattr(storage, "place", None) or type(backend).__name__


def _open_backend(settings: Settings) -> IStorage:
    name = settings.storage
    if name not in BACKENDS:
        return _open_foreign(name, settings)
    try:
        backend = _load(BACKENDS[name])
    except ImportError as error:
        if name in EXTRAS and str(error.name or "").startswith(EXTRAS[name].split(".")[0]):
            raise SettingError(
                f"{INI_PREFIX}storage",
                f"{name} storage needs the extra [{name}] of kinto-attachment: it is not installed "
                f"({error})",
            ) from error
        raise
    return backend.from_settings(settings)


def _open_foreign(name: str, settings: Settings) -> IStorage:
    """Return the storage of another package.

    :param name: the name of an entry point, or the path of a class.
    """
    from .staged import ISigningStorage  # ``staged`` imports IStorage from this module

    setting = f"{INI_PREFIX}storage"
    found = entry_points(group=ENTRY_POINTS, name=name)
    path = next((each.value for each in found), name)
    if "." not in path and ":" not in path:
        raise SettingError(
            setting,
            f"{name!r} is not a storage, use auto, {', '.join(BACKENDS)}, an entry point of the "
            f"group {ENTRY_POINTS}, or the path of a class such as package.module.MyStorage",
        )
    try:
        storage = _load(path).from_settings(settings)
        verifyObject(IStorage, storage, tentative=True)
    except (ImportError, AttributeError) as error:
        raise SettingError(setting, f"{path} cannot be loaded ({error})") from error
    except Invalid as error:
        raise SettingError(setting, f"{path} does not provide IStorage: {error}") from error
    if settings["download"] == "redirect" and not ISigningStorage.providedBy(storage):
        raise SettingError(f"{INI_PREFIX}download", f"{path} cannot sign URLs, use 'stream'")
    if settings["download"] == "accel" and not hasattr(storage, "path"):
        raise SettingError(f"{INI_PREFIX}download", f"{path} keeps no local files, use 'stream'")
    return storage


def _load(path: str) -> Any:
    """Return a class by its path, ``package.module:Class`` or ``package.module.Class``."""
    module, _, name = path.rpartition(":" if ":" in path else ".")
    backend: Callable = getattr(import_module(module), name)
    return backend
