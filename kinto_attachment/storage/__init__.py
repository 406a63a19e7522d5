"""Where the bytes are. Nothing in this package knows Kinto, records or requests.

A storage is any object that provides :class:`IStorage` and passes
:class:`kinto_attachment.storage.testing.StorageTest`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module

from pyramid_storage.interfaces import IFileStorage
from zope.interface import Attribute, Interface

from ..errors import SettingError
from ..settings import Settings

__all__ = ["IFileStorage", "IStorage", "Stat", "open_storage"]

BACKENDS = {
    "local": "kinto_attachment.storage.local:LocalFileStorage",
    "s3": "kinto_attachment.storage.s3:S3FileStorage",
    "gcs": "kinto_attachment.storage.gcs:GoogleCloudStorage",
    "memory": "kinto_attachment.storage.memory:MemoryFileStorage",
}
EXTRAS = {"s3": "boto3", "gcs": "google.cloud.storage"}


@dataclass(frozen=True)
class Stat:
    """What a storage knows of one key: bytes, and when they came (aware, UTC)."""

    key: str
    size: int
    modified: datetime


class IStorage(Interface):
    """Bytes under keys. Thread-safe, and safe in the children of a preforking server.

    Keys are judged by :func:`kinto_attachment.files.key.check_key`; every method that takes one
    raises ``KeyRefused`` for a bad one. Any of them raises ``StorageUnavailable`` within a
    bounded time when the storage cannot be reached or refuses us.
    """

    exclusive = Attribute(
        "Whether ``put`` of a key that is taken raises ``BlobExists`` and changes nothing, "
        "whoever races. A storage that cannot promise it overwrites instead."
    )

    def spool():
        """A new file (binary, writable, readable, seekable) to receive bytes in before
        they have a key; the caller closes it. It is best handed to ``put`` of the same
        storage, which may then take it over without copying."""

    def put(key, source):
        """Store all bytes of ``source`` (:class:`~kinto_attachment.files.blob.Source`) under
        ``key``, with its type and disposition. All or nothing, and durable on return.
        The source stays open and may be put again.

        :raises BlobExists: the key is taken, on an ``exclusive`` storage."""

    def open(key, start=0, end=None):
        """An iterator of chunks (``bytes``) from offset ``start`` up to, not including, ``end``
        (None: the end of the blob). It has the ``length`` of them all in bytes, and a ``close()``
        that gives everything back early.
        Where the bytes are those of an open file, it has that ``file``, at its ``start``.

        :raises BlobNotFound: now, and not at the first chunk."""

    def stat(key):
        """:class:`Stat` of one key.

        :raises BlobNotFound:"""

    def delete(keys):
        """Delete many keys; those that are not there are fine."""

    def list(prefix=""):
        """An iterator of :class:`Stat`, one a blob, in no order; constant memory. ``prefix``
        is text, not a folder: ``a`` also lists ``ab``."""

    def compose(parts, key, label):
        """Store under ``key`` the blobs ``parts`` (a list of keys) one after the other, without
        moving them through this process where the storage can. The parts remain. ``label``
        (:class:`~kinto_attachment.files.blob.Label`) is what the object says of itself.

        :raises BlobNotFound: a part is not there; nothing is stored under ``key``.
        :raises BlobExists: as ``put``."""

    def discard_unfinished(before, is_ours, dry_run=False):
        """Delete what the storage has half of, from before then (an aware datetime): temporary
        files, multipart uploads. An iterator of their names; only those that had been given a key
        of which ``is_ours(key)`` is true."""

    def url(key):
        """Where clients find the blob: the key joined to ``base_url``, relative without."""

    def sign(key, method="GET", expires=3600, disposition=None, mimetype=None):
        """A URL that lets whoever has it do ``method`` for ``expires`` seconds; a GET is
        answered with that ``Content-Disposition`` and ``Content-Type`` if given.
        None from storages that have no such thing."""


def open_storage(settings: Settings) -> IStorage:
    """The storage that the settings ask for.

    :raises SettingError: none is configured, or its extra is not installed.
    """
    name = settings.storage
    module, _, classname = BACKENDS[name].partition(":")
    try:
        backend: Callable = getattr(import_module(module), classname)
    except ImportError as error:
        if name in EXTRAS and str(error.name or "").startswith(EXTRAS[name].split(".")[0]):
            raise SettingError(
                "attachment", f"install kinto-attachment[{name}] to use this storage ({error})"
            ) from error
        raise
    return backend.from_settings(settings)
