"""The media store: bytes by their hash, and which principals keep them.

Each principal has entries of its own, while the bytes of one hash are stored once. An entry is a
link like that of a record and nothing else: there is no other row, storage, or rule of deletion.

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
from ..settings import PRIVATE_MEDIA, PUBLIC_MEDIA
from ..transactions.files import FileTransaction

if TYPE_CHECKING:
    from .verifier import Background


class MediaStore:
    """The entries of all principals: ``registry.attachment_media``.

    :ivar background: verifies unchecked uploads.
    """

    background: "Background"

    def __init__(self, plugin: Plugin):
        self.plugin = plugin
        self._links = plugin.rows.links
        self._pending = plugin.rows.pending

    def store(self, files: FileTransaction, source: Source) -> str:
        """Make bytes durable whose hash is known, and return their key. Call this before anything
        is written."""
        template = self.plugin.settings.media.template
        return files.put(_keys(template, source.digest), source, template)

    def keep(
        self, files: FileTransaction, ref: MediaRef, key: str, mimetype: str, size: int
    ) -> bool:
        """Give the owner an entry for stored bytes; return whether it is a new one."""
        entry = self.find(ref)
        if entry and entry.key == key:
            files.drop_reservations()  # the entry stays as it is, type and date included
            return False
        # The hash is the best name for a client that saves the file.
        name = {"filename": ref.digest, "mimetype": mimetype, "size": size}
        files.link(Link(ref, key, ref.digest, shared=True, **name), keep_old=False)
        return entry is None

    def store_pending(self, files: FileTransaction, ref: MediaRef, source: Source) -> Pending:
        """Make bytes durable whose hash is only claimed. Write the result down with
        ``rows.pending.add``, in the same transaction."""
        template = self.plugin.settings.pending.template
        key = files.put(template.keys(ref, "", ""), source, template)
        return Pending(ref, key, source.mimetype, source.size)

    def confirm(self, files: FileTransaction, upload: Pending) -> bool:
        """Turn an upload whose hash is right into the owner's entry. Return False if another
        process has settled it; then abort the transaction.

        :raises BlobNotFound: if the bytes are gone.
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
        """Forget the upload and release its bytes; return False if another process has settled
        it."""
        taken = self._pending.take(upload)
        if taken:
            files.release([(upload.key, False)], keep_old=False)
        return taken

    def find(self, ref: MediaRef) -> Link | None:
        """Return the owner's own entry."""
        return next(iter(self._links.of(ref)), None)

    def find_any(self, digest: str) -> Link | None:
        """Return the oldest entry of any owner."""
        return self._links.first(MediaRef("", digest), _possible_keys(digest))

    def stat(self, owner: str, digests: Iterable[str], of_all: bool) -> set[str]:
        """Return those of the hashes for which the owner has an entry, or any owner if
        ``of_all``."""
        keys = {key: digest for digest in digests for key in _possible_keys(digest)}
        if of_all:
            return {keys[key] for key in self._links.linked(keys, MediaRef("", ""))}
        pairs = ((MediaRef(owner, digest), key) for key, digest in keys.items())
        return {link.digest for link in self._links.find(pairs)}

    def drop(self, files: FileTransaction, ref: MediaRef) -> bool:
        """Release the owner's entry and its unchecked uploads; return whether there was any."""
        dropped = False
        # The verifier settles uploads before entries too: the other order could deadlock.
        for upload in self._pending.of(ref):
            dropped = self.discard(files, upload) or dropped
        return files.unlink(ref, keep_old=False) or dropped


def _keys(template: KeyTemplate, digest: str) -> Iterator[str]:
    """Return the keys for a hash: all owners share them."""
    return template.keys(MediaRef("", digest), "", digest)


def _possible_keys(digest: str) -> list[str]:
    """Return the keys that the hash can have: the store may have been made public or private
    since."""
    return [next(_keys(template, digest)) for template in (PRIVATE_MEDIA, PUBLIC_MEDIA)]
