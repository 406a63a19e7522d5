"""The media store: bytes by their hash, and the principals that own them.

Each principal has entries of its own, but the bytes of one hash are stored only once. An entry is a
link, like the link of a record. Entries need no other rows, and the same rules decide when bytes
are deleted.

Every method works within the caller's transaction.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ..files.blob import Source
from ..files.key import KeyTemplate
from ..files.ref import MediaRef
from ..plugin import Plugin
from ..rows.links import Link
from ..rows.uploads import Pending
from ..settings.reserved import PRIVATE_MEDIA, PUBLIC_MEDIA
from ..transactions.files import FileTransaction

if TYPE_CHECKING:
    from .verifier import Background


class MediaStore:
    """The entries of all principals: ``registry.attachment_media``.

    :ivar plugin: what all doors share.
    :ivar background: the thread that verifies unchecked uploads.
    """

    background: "Background"

    def __init__(self, plugin: Plugin):
        self.plugin = plugin
        self._links = plugin.rows.links
        self._pending = plugin.rows.pending

    def store(self, files: FileTransaction, source: Source) -> str:
        """Store bytes whose hash is known, and return their key. Call this before the transaction
        has written any row.

        :raises StorageUnavailable: if the storage cannot be reached.
        """
        template = self.plugin.settings.media.template
        return files.put(_keys(template, source.digest), source, template)

    def keep(
        self, files: FileTransaction, ref: MediaRef, key: str, mimetype: str, size: int
    ) -> bool:
        """Give the owner an entry for stored bytes, and return whether the owner had none before.

        :param ref: the owner and the hash.
        :param key: the key of the bytes.
        :param mimetype: their media type.
        :param size: their size in bytes.
        """
        entry = self.find(ref)
        if entry and entry.key == key:
            files.drop_reservations()  # the entry stays as it is, with its type and date
            return False
        # The media store knows no filenames, so a client saves the file under its hash.
        name = {"filename": ref.digest, "mimetype": mimetype, "size": size}
        files.link(Link(ref, key, ref.digest, shared=True, **name), keep_old=False)
        return entry is None

    def store_pending(self, files: FileTransaction, ref: MediaRef, source: Source) -> Pending:
        """Store bytes whose hash is not checked yet. The caller adds the result to ``rows.pending``
        in the same transaction.

        :raises StorageUnavailable: if the storage cannot be reached.
        """
        template = self.plugin.settings.pending.template
        key = files.put(template.keys(ref, "", ""), source, template)
        return Pending(ref, key, source.mimetype, source.size)

    def confirm(self, files: FileTransaction, upload: Pending) -> bool:
        """Turn an upload whose hash is right into an entry of its owner. Return False if another
        process has confirmed or discarded the upload; the caller then aborts the transaction.

        :raises BlobNotFound: if the bytes of the upload do not exist.
        """
        policy = self.plugin.settings.media
        label = policy.label(upload.ref.digest, upload.mimetype)
        keys = _keys(policy.template, upload.ref.digest)
        key = files.compose([upload.key], upload.size, label, keys, policy.template)
        if not self.discard(files, upload):
            return False
        self.keep(files, upload.ref, key, upload.mimetype, upload.size)
        return True

    def discard(self, files: FileTransaction, upload: Pending) -> bool:
        """Delete the upload and release its bytes. Return False if another process has confirmed or
        discarded it."""
        taken = self._pending.take(upload)
        if taken:
            files.release([(upload.key, False)], keep_old=False)
        return taken

    def find(self, ref: MediaRef) -> Link | None:
        """Return the owner's entry, or None."""
        return next(iter(self._links.of(ref)), None)

    def find_any(self, digest: str) -> Link | None:
        """Return the oldest entry of this hash, of any owner, or None."""
        return self._links.first(MediaRef("", digest), _possible_keys(digest))

    def stat(self, owner: str, digests: Iterable[str], of_all: bool) -> set[str]:
        """Return those of the hashes for which there is an entry.

        :param of_all: whether the entries of all owners count, or only those of ``owner``.
        """
        keys = {key: digest for digest in digests for key in _possible_keys(digest)}
        if of_all:
            return {keys[key] for key in self._links.linked(keys, MediaRef("", ""))}
        pairs = ((MediaRef(owner, digest), key) for key, digest in keys.items())
        return {link.digest for link in self._links.find(pairs)}

    def drop(self, files: FileTransaction, ref: MediaRef) -> bool:
        """Release the owner's entry and the owner's unchecked uploads of this hash. Return whether
        there were any."""
        dropped = False
        # Uploads before entries, as the verifier does: another order could deadlock.
        for upload in self._pending.of(ref):
            dropped = self.discard(files, upload) or dropped
        return files.unlink(ref, keep_old=False) or dropped


def _keys(template: KeyTemplate, digest: str) -> Iterator[str]:
    """Yield the keys under which the bytes of a hash may be stored. All owners share them."""
    return template.keys(MediaRef("", digest), "", digest)


def _possible_keys(digest: str) -> list[str]:
    """Return the keys at which the bytes of a hash may be. They are different in a public and in a
    private store, and the operator may have changed that setting after the upload."""
    return [next(_keys(template, digest)) for template in (PRIVATE_MEDIA, PUBLIC_MEDIA)]
