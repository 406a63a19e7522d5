"""The media store: bytes by their hash, and who keeps them.

Each owner has entries of his own; the bytes of one hash are stored once. An entry is a link, like
that of a record, and nothing else: there is no other row, storage, or rule of deletion.

Every method works within the caller's transaction.
"""

from collections.abc import Callable, Iterable
from typing import Any

from ..files.blob import Source
from ..files.ref import MediaRef
from ..rows.links import Link, Links
from ..rows.uploads import Pending, PendingUploads
from ..settings import PRIVATE_MEDIA, PUBLIC_MEDIA, Settings
from ..storage import IStorage
from ..transactions.files import Files


class MediaStore:
    """
    :param pending: what is not verified yet.
    :param files: what a transaction does to files, by its manager; for who has no request.
    """

    def __init__(
        self,
        settings: Settings,
        storage: IStorage,
        links: Links,
        pending: PendingUploads,
        files: Callable[[Any], Files],
    ):
        self.settings = settings
        self.storage = storage
        self.pending = pending
        self.files = files
        self._links = links

    def store(self, files: Files, source: Source) -> str:
        """Make bytes durable, whose hash is known, and that nobody has yet; their key. To be
        called before anything is written."""
        template = self.settings.media.template
        return files.put(template.keys(_nobody(source.digest), "", source.digest), source, template)

    def keep(self, files: Files, ref: MediaRef, key: str, mimetype: str, size: int) -> bool:
        """Give the owner an entry for bytes that are stored; whether it is a new one."""
        entry = self.find(ref)
        if entry and entry.key == key:
            files.drop_claims()  # it stays what it is, type and date included
            return False
        # Whoever saves it has no better name for it.
        link = Link(ref, key, ref.digest, True, ref.digest, mimetype, size)
        files.link(link, keep_old=False, shown=lambda: None)
        return entry is None

    def store_pending(self, files: Files, ref: MediaRef, source: Source) -> Pending:
        """Make bytes durable of which somebody says what their hash is. It is to be written down
        by ``pending.add``, in the same transaction."""
        template = self.settings.pending.template
        key = files.put(template.keys(ref, "", ""), source, template)
        return Pending(ref, key, source.mimetype, source.size)

    def verified(self, files: Files, upload: Pending) -> bool:
        """It is what it was said to be: the owner's entry, and no longer pending. False if
        somebody else was quicker; then the transaction is to be aborted.

        :raises BlobNotFound: the bytes are gone.
        """
        policy = self.settings.media
        label = policy.label(upload.ref.digest, upload.mimetype)
        keys = policy.template.keys(upload.ref, "", upload.ref.digest)
        key = files.compose([upload.key], upload.size, label, keys, policy.template)
        if not self.discard(files, upload):
            return False
        self.keep(files, upload.ref, key, upload.mimetype, upload.size)
        return True

    def discard(self, files: Files, upload: Pending) -> bool:
        """Forget the upload, and let go its bytes; False if somebody else was quicker."""
        taken = self.pending.take(upload)
        if taken:
            files.release([(upload.key, False)], keep_old=False)
        return taken

    def find(self, ref: MediaRef) -> Link | None:
        """The owner's own entry."""
        return next(iter(self._links.of(ref)), None)

    def find_any(self, digest: str) -> Link | None:
        """The oldest entry of anybody."""
        return self._links.first(_nobody(digest), _keys_of(digest))

    def stat(self, owner: str, digests: Iterable[str], of_all: bool) -> set[str]:
        """Those of the hashes that the owner has an entry for, or anybody, if ``of_all``."""
        keys = {key: digest for digest in digests for key in _keys_of(digest)}
        if of_all:
            return {keys[key] for key in self._links.linked(keys, _nobody(""))}
        pairs = ((MediaRef(owner, digest), key) for key, digest in keys.items())
        return {link.digest for link in self._links.find(pairs)}

    def drop(self, files: Files, ref: MediaRef) -> bool:
        """Let go of the owner's entry, and of what he uploaded for it that is not verified yet;
        whether there was any."""
        dropped = False
        # In the order in which an upload is verified, or both would wait for each other.
        while uploads := self.pending.of(ref):
            for upload in uploads:
                dropped = self.discard(files, upload) or dropped
        return files.unlink(ref, keep_old=False) or dropped


def _nobody(digest: str) -> MediaRef:
    """Keys by hash are everybody's."""
    return MediaRef("", digest)


def _keys_of(digest: str) -> list[str]:
    """Where its bytes may be: whether the store is public may have changed."""
    nobody = _nobody(digest)
    return [next(template.keys(nobody, "", digest)) for template in (PRIVATE_MEDIA, PUBLIC_MEDIA)]
