"""The interfaces that a storage may provide in addition to
:class:`~kinto_attachment.storage.IStorage`.

A storage declares them with ``@implementer(IStorage, IComposingStorage, ...)``. The functions of
this module call the storage if it provides the interface, and do without it otherwise. Their
callers can pass any storage.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, BinaryIO

from zope.interface import Attribute, Interface

from ..errors import BlobDamaged, StorageUnavailable
from ..files.blob import Digest, Label, Source
from . import IStorage
from .stored_file import StoredFile


class IComposingStorage(Interface):
    """A storage that can join blobs. For other storages, :func:`compose` reads the parts and stores
    their bytes again."""

    def compose(parts, key, label):
        """Join the blobs of the keys ``parts``, in their order, and store the result under ``key``.
        The bytes do not pass through this process unless the storage requires it. The parts
        remain. ``label`` (:class:`~kinto_attachment.files.blob.Label`) is what the new object says
        about itself.

        :raises BlobNotFound: if a part is missing. Nothing is stored under ``key`` then.
        :raises BlobExists: if the key is taken and the storage is ``exclusive``."""


class ISigningStorage(Interface):
    """A storage that can sign URLs. Files of other storages are streamed through Kinto."""

    def sign(key, method="GET", expires=3600, disposition=None, mimetype=None):
        """Return a URL that allows any client to send ``method`` (GET, HEAD or PUT) for ``expires``
        seconds, or None if the credentials cannot sign.

        ``disposition`` and ``mimetype`` are the ``Content-Disposition`` and the ``Content-Type`` of
        the answer to a GET (None: those of the object)."""


class IStreamingStorage(Interface):
    """A storage that takes bytes while they arrive. Files for other storages are received in a
    spool first."""

    max_stream = Attribute("The most bytes of a stream.")

    def stream(key, label):
        """Begin to store bytes under ``key``, with the type and disposition of ``label``
        (:class:`~kinto_attachment.files.blob.Label`), and return a stream
        (:class:`~kinto_attachment.storage.stream.Stream`) to write them to. Nothing is stored under
        the key before the stream is finished; the caller finishes or aborts it.

        A stream takes the memory of a few parts, and writes nothing to the disk of this machine. It
        belongs to one thread at a time."""


class IReceivingStorage(ISigningStorage):
    """A storage to which clients can send bytes themselves. Bytes for other storages are received
    by Kinto."""

    def sign_put(key, size, expires, digest=""):
        """Return a :class:`SignedPut` that allows any client to store exactly ``size`` bytes under
        ``key`` for ``expires`` seconds, any number of times, or None if the credentials cannot
        sign.

        With a ``digest``, the storage accepts no bytes with another SHA-256. Callers give one only
        to a storage for which :meth:`proves_digests` is true."""

    def look(key):
        """Return :class:`Arrived`: what the storage knows of an object that a client has sent.

        :raises BlobNotFound: if there is no such key."""

    def proves_digests(key):
        """Return whether the storage refuses bytes with another SHA-256 than the signed one, and
        tells the SHA-256 afterwards. The first call tries it out with small objects under ``key``,
        which are deleted again; a process asks only once.

        :raises StorageUnavailable: if the storage cannot be reached."""

    def allow_origins(origins, dry_run=False):
        """Let the scripts of these origins, and of no other ones that an earlier call allowed, send
        and read objects. Return the rules of the storage afterwards, as it writes them itself.
        Rules that others have made stay."""


@dataclass(frozen=True)
class SignedPut:
    """A request that a client can send to the storage without credentials.

    :param url: where to.
    :param headers: which headers it has to have, besides ``Content-Length``.
    """

    url: str
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Arrived:
    """What a storage knows of an object that a client has sent.

    :param size: bytes.
    :param etags: the entity tags, without quotes, that the client may know it by.
    :param digest: its SHA-256 in lowercase hex; empty if the storage does not know it.
    """

    size: int
    etags: tuple[str, ...] = ()
    digest: str = ""


class IUnfinishedStorage(Interface):
    """A storage in which interrupted calls leave temporary data behind. In other storages ``gc``
    finds nothing of this kind."""

    def discard_unfinished(before, is_ours, dry_run=False):
        """Delete temporary files, temporary objects and multipart uploads that are older than
        ``before`` (an aware datetime), and return an iterator of their names.

        They are deleted while the iterator is read; with ``dry_run`` nothing is deleted. If an
        unfinished upload already has a key, it is deleted only if ``is_ours(key)`` is true."""


def compose(storage: IStorage, parts: list[str], key: str, label: Label) -> None:
    """Join stored blobs and store the result under another key, in any storage.

    :param parts: the keys of the blobs, in their order.
    :param key: the key of the result.
    :param label: what the new object says about itself.
    :raises BlobNotFound: if a part is missing. Nothing is stored then.
    :raises BlobExists: if the key is taken and the storage is ``exclusive``.
    :raises StorageUnavailable: if the storage cannot be reached.
    """
    if IComposingStorage.providedBy(storage):
        storage.compose(parts, key, label)
        return
    digest = Digest()
    with storage.spool() as spool:
        for part in parts:
            with closing(storage.open(part)) as chunks:
                for chunk in chunks:
                    digest.update(chunk)
                    _write(spool, chunk)
        _write(spool, b"")
        source = Source(
            spool,
            label.filename,
            label.mimetype,
            digest.size,
            digest.hexdigest(),
            immutable=label.immutable,
            private=label.private,
        )
        storage.put(key, source)


def _write(spool: BinaryIO, chunk: bytes) -> None:
    """Write a chunk; no bytes at the end, after which all of them are in the file."""
    try:
        spool.write(chunk)
        if not chunk:
            spool.flush()
    except OSError as error:
        raise StorageUnavailable("spool", str(error)) from error


def store(storage: IStorage, key: str, source: Source) -> None:
    """Store a source under a key, in any storage. If its bytes are blobs of the storage already,
    the storage joins them; see :class:`~kinto_attachment.storage.stored_file.StoredFile`.

    :raises BlobNotFound: if a blob is missing. Nothing is stored then.
    :raises BlobDamaged: if a blob has another size than it had. Nothing is stored then.
    :raises BlobExists: if the key is taken and the storage is ``exclusive``.
    :raises StorageUnavailable: if the storage cannot be reached.
    """
    if not isinstance(source.file, StoredFile):
        storage.put(key, source)
        return
    compose(storage, source.file.keys, key, source.label)
    size = storage.stat(key).size
    if size != source.size:
        storage.delete([key])
        raise BlobDamaged(key, f"its parts have {size} bytes, not {source.size}")


def sign(
    storage: IStorage,
    key: str,
    method: str = "GET",
    *,
    expires: int,
    disposition: str | None = None,
    mimetype: str | None = None,
) -> str | None:
    """Return a signed URL, or None if the storage or its credentials cannot sign.

    :param method: GET, HEAD or PUT.
    :param expires: the validity of the URL in seconds.
    :param disposition: the ``Content-Disposition`` of the answer to a GET; None for that of the
        object.
    :param mimetype: the ``Content-Type`` of the answer to a GET; None for that of the object.
    """
    if not ISigningStorage.providedBy(storage):
        return None
    return storage.sign(key, method, expires, disposition, mimetype)


def proves_digests(storage: IStorage, key: str) -> bool:
    """Return whether the storage, whichever it is, proves the SHA-256 of what clients send to it;
    see :class:`IReceivingStorage`."""
    return IReceivingStorage.providedBy(storage) and storage.proves_digests(key)


def sign_put(
    storage: IStorage,
    key: str,
    size: int,
    expires: int,
    digest: str = "",
) -> SignedPut | None:
    """Return a request with which a client can store bytes, or None if the storage or its
    credentials cannot sign; see :class:`IReceivingStorage`."""
    if not IReceivingStorage.providedBy(storage):
        return None
    return storage.sign_put(key, size, expires, digest)


def look(storage: IStorage, key: str) -> Arrived:
    """Return what any storage knows of an object; see :class:`IReceivingStorage`.

    :raises BlobNotFound: if there is no such key.
    """
    if IReceivingStorage.providedBy(storage):
        return storage.look(key)
    return Arrived(storage.stat(key).size)  # the server had another storage when it was sent


def allow_origins(
    storage: IStorage, origins: Sequence[str], dry_run: bool = False
) -> Sequence[dict[str, Any]] | None:
    """Let scripts of other origins send and read objects; see :class:`IReceivingStorage`. Return
    None if clients never speak to the storage."""
    if not IReceivingStorage.providedBy(storage):
        return None
    return storage.allow_origins(origins, dry_run)


def discard_unfinished(
    storage: IStorage, before: datetime, is_ours: Callable[[str], bool], dry_run: bool = False
) -> Iterator[str]:
    """Delete what interrupted calls left behind in any storage, and return an iterator of its
    names. The deletion happens while the iterator is read.

    :param before: an aware datetime; only what is older is deleted.
    :param is_ours: returns whether a key is one of ours.
    :param dry_run: whether to delete nothing.
    :raises StorageUnavailable: if the storage cannot be reached.
    """
    if not IUnfinishedStorage.providedBy(storage):
        return iter(())
    return storage.discard_unfinished(before, is_ours, dry_run)
