"""Whose a storage is.

A database marks each storage that it uses with its own random id (:mod:`kinto_attachment.rows
.identity`). Where it finds the mark of another database, it goes on serving and storing files, but
deletes nothing that the other one may need, until an operator runs ``kinto-attachment
adopt-storage``.

The database also remembers which folders it has marked. A folder that has lost its mark is a file
system that is not mounted, so nothing is written there.
"""

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, BinaryIO, TypeVar

import transaction

from ..errors import BlobExists, BlobNotFound, ForeignStorage, StorageUnavailable
from ..files.blob import Label, Source
from ..files.key import MARKER
from ..rows.identity import Identities, Identity
from ..storage import IStorage, Stat
from ..storage.prefixed import StorageProxy

Result = TypeVar("Result")

logger = logging.getLogger(__name__)

ADOPT_STORAGE = "kinto-attachment adopt-storage"

MAX_MARKER_BYTES = 4096
"""The most bytes of a marker that are read; ours has 45."""


@dataclass(frozen=True)
class Claim:
    """What a storage and a database say of each other.

    :param own: the identity of the database.
    :param owner: the id in the marker; empty if the marker cannot be understood, and None if there
        is no marker.
    :param folder: the path of the marker in the file system of this server, or an empty string.
    """

    own: Identity
    owner: str | None
    folder: str

    @property
    def is_foreign(self) -> bool:
        """Whether the storage belongs to another database."""
        return self.owner not in (None, self.own.owner)

    @property
    def is_gone(self) -> bool:
        """Whether a folder was marked once, and is not any more."""
        return self.owner is None and self.folder in self.own.folders

    @property
    def is_settled(self) -> bool:
        """Whether both know of each other."""
        known = not self.folder or self.folder in self.own.folders
        return known and self.owner == self.own.owner

    def __str__(self) -> str:
        if self.is_foreign:
            whose = f"the database {self.owner}" if self.owner else "an unknown database"
            return f"The file storage belongs to {whose}, and this is {self.own.owner}."
        if self.is_gone:
            return f"{self.folder} has disappeared: is its file system mounted?"
        return "The file storage belongs to " + ("this database." if self.owner else "no database.")


class OwnedStorage(StorageProxy):
    """A proxy for the server's storage that marks it as belonging to this database, or finds that
    it belongs to another.

    Each process reads the mark once, around its first write or before its first deletion. If the
    storage is a folder, every write also checks that the mark is still there.

    Methods without a docstring are documented in the interfaces.

    :param storage: the storage that has the bytes.
    :param identities: gives the identity of the database.
    """

    def __init__(self, storage: IStorage, identities: Identities):
        super().__init__(storage)
        self._identities = identities
        self._folder = storage.path(MARKER) if hasattr(storage, "path") else ""
        self._seen_by = 0
        self._is_foreign = False

    @classmethod
    def of(cls, storage: IStorage, identities: Identities) -> "OwnedStorage":
        """Return the storage for that database, also if it is an owned one of another database."""
        return cls(storage._storage if isinstance(storage, cls) else storage, identities)

    @property
    def inner(self) -> IStorage:
        """The storage that has the bytes: writing to it makes no mark."""
        return self._storage

    def spool(self) -> BinaryIO:
        self._check_folder()
        return self._storage.spool()

    def put(self, key: str, source: Source) -> None:
        self._check_folder()
        self._storage.put(key, source)
        self._look_once()

    def compose(self, parts: Iterable[str], key: str, label: Label) -> None:
        self._check_folder()
        self._storage.compose(parts, key, label)

    def list(self, prefix: str = "") -> Iterator[Stat]:
        return (stat for stat in self._storage.list(prefix) if stat.key != MARKER)

    def may_delete_released(self) -> bool:
        """Return whether files whose last link is gone may be deleted. In the storage of another
        database they stay: the row of the release tells ``gc`` of them."""
        self._look_once()
        return not self._is_foreign

    def claim(self) -> Claim:
        """Return what storage and database say of each other. No mark is made.

        :raises StorageUnavailable: if the storage cannot be reached.
        """
        return Claim(self._in_database(self._identities.get), self._read_marker(), self._folder)

    def check_is_ours(self, dry_run: bool = False) -> None:
        """Check that the storage belongs to this database. A storage without a mark is marked.

        :param dry_run: make no mark.
        :raises ForeignStorage: if it belongs to another database, or if it is a folder that has
            lost its mark.
        :raises StorageUnavailable: if the storage cannot be reached.
        """
        claim = self.claim()
        if claim.is_foreign or claim.is_gone:
            raise ForeignStorage(
                f"{claim} To make it the storage of this database, run: {ADOPT_STORAGE}"
            )
        if not claim.is_settled and not dry_run:
            self._mark(claim)

    def adopt(self) -> None:
        """Mark the storage as that of this database, whatever it was before.

        :raises StorageUnavailable: if the storage cannot be reached.
        """
        claim = self.claim()
        if claim.is_foreign:
            self._storage.delete([MARKER])
        self._mark(claim)

    def _check_folder(self) -> None:
        """Check that the folder of a local storage is there, before anything is written to it.

        :raises StorageUnavailable: if it was marked once, and is not any more.
        """
        if not self._folder:
            return
        if self._seen_by != os.getpid():
            self._look()
        elif not os.path.exists(self._folder):
            raise StorageUnavailable(MARKER, "it has disappeared: is its file system mounted?")

    def _look_once(self) -> None:
        """Mark the storage, or find out whose it is. If the storage cannot be asked now, it is
        treated as ours."""
        if self._seen_by == os.getpid():
            return
        try:
            self._look()
        except StorageUnavailable as error:
            logger.warning("Cannot tell which database the file storage belongs to: %s", error)
            self._seen_by = os.getpid()

    def _look(self) -> None:
        claim = self.claim()
        if claim.is_gone:
            raise StorageUnavailable(MARKER, str(claim))
        if not claim.is_settled and not claim.is_foreign:
            self._mark(claim)
            claim = self.claim()  # another database may have done the same
        if claim.is_foreign:
            logger.warning(
                "%s Replaced and deleted files stay in it until you run: %s", claim, ADOPT_STORAGE
            )
        self._is_foreign = claim.is_foreign
        self._seen_by = os.getpid()

    def _mark(self, claim: Claim) -> None:
        own = claim.own
        content = json.dumps({"owner": own.owner}).encode()
        digest = sha256(content).hexdigest()
        with self._storage.spool() as file:
            file.write(content)
            file.flush()
            label = ("storage.json", "application/json")
            source = Source(file, *label, len(content), digest, private=True)
            try:
                self._storage.put(MARKER, source)
            except BlobExists:
                logger.info("The file storage has a mark already.")
        if self._folder and self._folder not in own.folders:
            folders = (*own.folders, self._folder)
            self._in_database(lambda: self._identities.save(replace(own, folders=folders)))

    def _read_marker(self) -> str | None:
        try:
            content = b"".join(self._storage.open(MARKER, 0, MAX_MARKER_BYTES))
        except BlobNotFound:
            return None
        try:
            return str(json.loads(content)["owner"])
        except (ValueError, KeyError, TypeError):
            return ""

    def _in_database(self, call: Callable[[], Result]) -> Result:
        """Return what ``call`` returns, called in a transaction of its own. It runs in a new
        thread, because transactions belong to threads: that of this thread is not touched."""

        def run() -> Any:
            with transaction.manager:
                return call()

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(run).result()
