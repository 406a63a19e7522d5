"""Where the bytes lie. Nothing in this package knows Kinto, records or requests.

A storage is an object that provides :class:`IStorage` and passes
:class:`kinto_attachment.storage.testing.StorageTest`. What a storage may offer beyond that is in
:mod:`kinto_attachment.storage.staged`.
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
from ..settings import PREFIX, Settings

__all__ = ["IStorage", "Stat", "open_storage"]

BACKENDS = {
    "local": "kinto_attachment.storage.local:LocalFileStorage",
    "s3": "kinto_attachment.storage.s3:S3FileStorage",
    "gcs": "kinto_attachment.storage.gcs:GoogleCloudStorage",
    "memory": "kinto_attachment.storage.memory:MemoryFileStorage",
}
EXTRAS = {"s3": "boto3", "gcs": "google.cloud.storage"}

ENTRY_POINTS = "kinto_attachment.storage"
"""The group of entry points by which other packages name their storages."""


@dataclass(frozen=True)
class Stat:
    """What a storage knows about one key.

    :param size: bytes.
    :param modified: when it was stored (aware, UTC).
    """

    key: str
    size: int
    modified: datetime


class IStorage(Interface):
    """Bytes under keys. Thread-safe, and safe in the children of a preforking server.

    A class that is named in the setting ``storage`` also has a class method
    ``from_settings(settings)`` that returns a storage, or raises ``SettingError``. It finds its own
    settings in ``settings.storage_options``.

    Every method that takes a key checks it with :func:`kinto_attachment.files.key.check_key` and
    raises ``KeyRefused`` if it is bad. Every method raises ``StorageUnavailable``, within a bounded
    time, if the storage cannot be reached or refuses the credentials.
    """

    exclusive = Attribute(
        "Whether ``put`` of a key that is taken raises ``BlobExists`` and changes nothing, even "
        "when several requests race. A storage that cannot promise this overwrites."
    )

    def spool():
        """Return a new file (binary, writable, readable, seekable) to receive bytes in before
        they have a key. The caller closes it. When it is handed to ``put`` of the same storage,
        the storage may take it over without copying."""

    def put(key, source):
        """Store all bytes of ``source`` (:class:`~kinto_attachment.files.blob.Source`) under
        ``key``, with its type and disposition. All or nothing, and durable on return. The source
        stays open and may be put again.

        :raises BlobExists: if the key is taken, on an ``exclusive`` storage."""

    def open(key, start=0, end=None):
        """Return an iterator of chunks (``bytes``) from offset ``start`` up to, not including,
        ``end`` (None: the end of the blob). Its ``length`` is their total in bytes, and its
        ``close()`` frees everything early. Where the bytes are those of an open file, the iterator
        has that ``file``, positioned at ``start``.

        :raises BlobNotFound: at once, and not with the first chunk."""

    def stat(key):
        """Return the :class:`Stat` of one key.

        :raises BlobNotFound: if there is no such key."""

    def delete(keys):
        """Delete many keys; keys that do not exist are ignored."""

    def list(prefix=""):
        """Return an iterator of :class:`Stat`, one a blob, in no order and in constant memory.
        ``prefix`` is text, not a folder: ``a`` also lists ``ab``."""

    def url(key):
        """Return the URL at which clients find the blob: the key joined to ``base_url``, or a
        relative URL without it."""


def open_storage(settings: Settings) -> IStorage:
    """Return the storage that the settings name.

    :raises SettingError: if none is configured, if its extra is not installed, or if a class of
        another package cannot be loaded or lacks a method of :class:`IStorage`.
    """
    name = settings.storage
    if name not in BACKENDS:
        return _open_foreign(name, settings)
    try:
        backend = _load(BACKENDS[name])
    except ImportError as error:
        if name in EXTRAS and str(error.name or "").startswith(EXTRAS[name].split(".")[0]):
            raise SettingError(
                "attachment", f"install kinto-attachment[{name}] to use this storage ({error})"
            ) from error
        raise
    return backend.from_settings(settings)


def _open_foreign(name: str, settings: Settings) -> IStorage:
    """Return a storage of another package, named by an entry point or by the path of its class."""
    from .staged import ISigningStorage  # which imports IStorage from here

    setting = f"{PREFIX}storage"
    found = entry_points(group=ENTRY_POINTS, name=name)
    path = next((each.value for each in found), name)
    if "." not in path and ":" not in path:
        raise SettingError(
            setting,
            f"{name!r} is none of auto, {', '.join(BACKENDS)}, nor an entry point of the group "
            f"{ENTRY_POINTS}, nor the path of a class such as package.module.MyStorage",
        )
    try:
        storage = _load(path).from_settings(settings)
        verifyObject(IStorage, storage, tentative=True)
    except (ImportError, AttributeError) as error:
        raise SettingError(setting, f"{path} cannot be loaded ({error})") from error
    except Invalid as error:
        raise SettingError(setting, f"{path} does not provide IStorage: {error}") from error
    if settings["download"] == "redirect" and not ISigningStorage.providedBy(storage):
        raise SettingError(f"{PREFIX}download", f"{path} cannot sign URLs, use 'stream'")
    if settings["download"] == "accel" and not hasattr(storage, "path"):
        raise SettingError(f"{PREFIX}download", f"{path} has no files, use 'stream'")
    return storage


def _load(path: str) -> Any:
    """Return the class at ``package.module:Class`` or ``package.module.Class``."""
    module, _, name = path.rpartition(":" if ":" in path else ".")
    backend: Callable = getattr(import_module(module), name)
    return backend
