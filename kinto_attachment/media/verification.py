"""What there is to verify: uploads whose bytes are stored, and whose SHA-256 is unknown.

Each kind of upload is a :class:`Verification` in ``registry.attachment_verifications``.
"""

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Generic, Protocol, TypeVar

import transaction

from ..files.blob import Digest
from ..finding import Finding
from ..rows.uploads import Pending, leases
from ..storage import IStorage
from ..transactions.restart import in_transaction, repeated
from .store import MediaStore

logger = logging.getLogger(__name__)


class Waiting(Protocol):
    """An upload that waits for its verification."""

    @property
    def id(self) -> str:
        """The id of its row, and of the lease on it."""

    @property
    def size(self) -> int:
        """The size in bytes."""


Upload = TypeVar("Upload", bound=Waiting)

Hash = Callable[[str], str]
"""Returns the SHA-256 of the bytes of a key, in hex. Meanwhile it renews the lease."""


class LeaseLost(Exception):
    """The upload or its lease belongs to another process by now, or the verifier has to stop."""


class Verification(ABC, Generic[Upload]):
    """The uploads of one kind. The caller of :meth:`verify` holds the lease on the upload, and no
    transaction; all other methods work within the caller's transaction."""

    @abstractmethod
    def waiting(self) -> Iterator[Upload]:
        """Yield the uploads that wait, read a page at a time."""

    @abstractmethod
    def is_waiting(self, upload: Upload) -> bool:
        """Return whether the upload still waits."""

    @abstractmethod
    def name(self, upload: Upload) -> tuple[str, str]:
        """Return the key and the URI that findings name."""

    @abstractmethod
    def verify(self, upload: Upload, hash_of: Hash, holder: str) -> Finding:
        """Hash the bytes, and write down what became of the upload.

        :param holder: of the lease.
        :raises LeaseLost: if another process has done so, or if the verifier has to stop.
        :raises StorageError: if the bytes cannot be read.
        """


class PendingVerification(Verification[Pending]):
    """Uploads to the media store with ``?verify=false``."""

    def __init__(self, media: MediaStore):
        self._media = media
        self._rows = media.plugin.rows.pending

    def waiting(self) -> Iterator[Pending]:
        return self._rows.all()

    def is_waiting(self, upload: Pending) -> bool:
        return self._rows.has(upload)

    def name(self, upload: Pending) -> tuple[str, str]:
        return upload.key, upload.ref.uri

    def verify(self, upload: Pending, hash_of: Hash, holder: str) -> Finding:
        found = hash_of(upload.key)
        is_right = found == upload.ref.digest
        settle = self._media.confirm if is_right else self._media.discard

        def settled() -> None:
            files = self._media.plugin.begin(transaction.manager)
            with files.transaction():
                if not settle(files, upload):
                    raise LeaseLost()

        repeated(settled)
        if is_right:
            return Finding("verified", *self.name(upload))
        logger.warning("An upload to %s was removed: its SHA-256 is %s", upload.ref.uri, found)
        return Finding("refused", *self.name(upload), f"SHA-256 is {found}")


def hash_renewing(
    storage: IStorage,
    key: str,
    renew: Callable[[], None],
    on_bytes: Callable[[int], None] = lambda count: None,
) -> str:
    """Return the SHA-256 of stored bytes, in hex.

    :param renew: renews the lease; it is called several times within ``LEASE_SECONDS``.
    :param on_bytes: is told the length of each chunk.
    :raises StorageError: if the bytes cannot be read.
    """
    renewed = time.monotonic()

    def after_chunk(count: int) -> None:
        nonlocal renewed
        on_bytes(count)
        if time.monotonic() - renewed > leases.LEASE_SECONDS / 3:
            renewed = time.monotonic()
            renew()

    return Digest.of(storage.open(key), after_chunk).hexdigest()


def committed(call: Callable[[], Any]) -> Any:
    """Return what the function returns, run in a transaction of its own. It is repeated after a
    conflict, such as when another verifier takes the lease of an upload in the same millisecond."""
    return in_transaction(transaction.manager, call)
