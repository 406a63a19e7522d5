"""What a storage may offer beyond :class:`~kinto_attachment.storage.IStorage`, and what happens
without it.

A storage declares each power by ``@implementer(IStorage, IComposingStorage, ...)``. The functions
of this module use the power where it is, and do without where it is not, so that their callers need
not ask.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime

from zope.interface import Interface

from ..files.blob import Digest, Label, Source
from . import IStorage


class IComposingStorage(Interface):
    """A storage that can join blobs. Without it, :func:`compose` reads them and puts them again."""

    def compose(parts, key, label):
        """Store the blobs of the keys ``parts``, one after the other, under ``key``, without
        moving them through this process where that is possible. The parts remain. ``label``
        (:class:`~kinto_attachment.files.blob.Label`) is what the object says about itself.

        :raises BlobNotFound: if a part is missing; nothing is stored under ``key`` then.
        :raises BlobExists: as ``IStorage.put``."""


class ISigningStorage(Interface):
    """A storage that can sign URLs. Without it, every file is streamed through Kinto."""

    def sign(key, method="GET", expires=3600, disposition=None, mimetype=None):
        """Return a URL with which anybody can do ``method`` for ``expires`` seconds, or None if
        the credentials cannot sign. A GET is answered with that ``Content-Disposition`` and
        ``Content-Type`` if given."""


class IUnfinishedStorage(Interface):
    """A storage in which an interrupted ``put`` leaves something behind. Without it, ``gc`` has
    nothing to look for."""

    def discard_unfinished(before, is_ours, dry_run=False):
        """Delete temporary files and multipart uploads that began before then (an aware datetime),
        and return an iterator of their names. Where a key was already given, only those of which
        ``is_ours(key)`` is true."""


def compose(storage: IStorage, parts: list[str], key: str, label: Label) -> None:
    """Join stored blobs under another key; see :class:`IComposingStorage`."""
    if IComposingStorage.providedBy(storage):
        storage.compose(parts, key, label)
        return
    digest = Digest()
    with storage.spool() as spool:
        for part in parts:
            with closing(storage.open(part)) as chunks:
                for chunk in chunks:
                    digest.update(chunk)
                    spool.write(chunk)
        spool.flush()
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


def sign(
    storage: IStorage,
    key: str,
    method: str = "GET",
    *,
    expires: int,
    disposition: str | None = None,
    mimetype: str | None = None,
) -> str | None:
    """Return a signed URL, or None if there is none to be had; see :class:`ISigningStorage`.

    :param expires: seconds for which it is valid.
    """
    if not ISigningStorage.providedBy(storage):
        return None
    return storage.sign(key, method, expires, disposition, mimetype)


def discard_unfinished(
    storage: IStorage, before: datetime, is_ours: Callable[[str], bool], dry_run: bool = False
) -> Iterator[str]:
    """Delete what interrupted calls left behind; see :class:`IUnfinishedStorage`."""
    if not IUnfinishedStorage.providedBy(storage):
        return iter(())
    return storage.discard_unfinished(before, is_ours, dry_run)
