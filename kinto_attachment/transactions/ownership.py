"""Whose a storage is.

A database marks each storage that it uses with its own random id (:mod:`kinto_attachment.rows
.identity`). Where it finds the mark of another database, it goes on serving and storing files, but
deletes nothing that the other one may need, until an operator runs ``kinto-attachment
adopt-storage``.

If a storage had files before it was marked, the mark says so. ``gc`` then deletes no file that this
database does not know, until an operator has adopted the storage: another server may use it that
does not make marks yet.

Kinto's memory storage marks nothing and deletes what it has stored itself: it knows no other files,
and forgets them all with its server.

The database also remembers which folders it has marked. A folder that has lost its mark is a file
system that is not mounted, so nothing is written there.
"""

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import sha256
from threading import Thread
from typing import Any, BinaryIO, TypeVar
from uuid import uuid4

import transaction

from ..errors import BlobExists, BlobNotFound, ForeignStorage, StorageUnavailable
from ..files.blob import Label, Source
from ..files.key import MARKER, NEW_MARKER, is_marker
from ..rows.identity import Identities, Identity
from ..storage import IStorage, Stat
from ..storage.prefixed import StorageProxy
from ..storage.staged import SignedPut
from ..storage.stream import Stream
from .claim import ADOPT_STORAGE, Claim, Mark

Result = TypeVar("Result")

logger = logging.getLogger(__name__)

MAX_MARKER_BYTES = 4096
"""The most bytes of a marker that are read; ours has 110."""

TRUST_SECONDS = 300
"""How long a process believes what it has read in the mark. Another database may have adopted the
storage since."""

START_SECONDS = 5
"""How long a starting server waits for its storage and its database to say whose the storage is."""


class OwnedStorage(StorageProxy):
    """A proxy for the server's storage that marks it as belonging to this database, or finds that
    it belongs to another.

    Each process reads the mark before its first write and its first deletion, and again every
    :data:`TRUST_SECONDS`. If the storage is a folder, every write also checks that the mark is
    still there.

    Methods without a docstring are documented in the interfaces.

    :param storage: the storage that has the bytes.
    :param identities: gives the identity of the database.
    """

    def __init__(self, storage: IStorage, identities: Identities):
        super().__init__(storage)
        self._identities = identities
        self._folder = storage.path(MARKER) if hasattr(storage, "path") else ""
        self._seen_by = 0
        self._seen_at = 0.0
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
        self._check_mark()
        return self._storage.spool()

    def put(self, key: str, source: Source) -> None:
        self._check_mark()
        self._storage.put(key, source)

    def compose(self, parts: Iterable[str], key: str, label: Label) -> None:
        self._check_mark()
        self._storage.compose(parts, key, label)

    def stream(self, key: str, label: Label) -> Stream:
        self._check_mark()
        return self._storage.stream(key, label)

    def sign_put(self, key: str, *args: Any, **options: Any) -> SignedPut | None:
        self._check_mark()
        return self._storage.sign_put(key, *args, **options)

    def open(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        try:
            return self._storage.open(key, start, end)
        except BlobNotFound:
            self._check_not_gone()
            raise

    def stat(self, key: str) -> Stat:
        try:
            return self._storage.stat(key)
        except BlobNotFound:
            self._check_not_gone()
            raise

    def list(self, prefix: str = "") -> Iterator[Stat]:
        return (stat for stat in self._storage.list(prefix) if not is_marker(stat.key))

    def may_delete_released(self) -> bool:
        """Return whether files whose last link is gone may be deleted. In the storage of another
        database they stay, as they do while it is not known whose it is, or a folder is not
        mounted: the row of the release tells ``gc`` of them."""
        if not self._identities.lasts:
            return True
        is_there = not self._folder or os.path.exists(self._folder)
        return is_there and self._look_once() and not self._is_foreign

    def claim(self) -> Claim:
        """Return what storage and database say of each other. Nothing is written.

        :raises StorageUnavailable: if the storage cannot be reached.
        """
        # In this order: a nonce that gc replaces meanwhile is known to the database still.
        mark = self._read_mark()
        is_empty = mark is None and next(iter(self._storage.list()), None) is None
        own = self._in_database(self._identities.find)
        if mark is None:
            mark = self._read_mark()  # another process may have made it meanwhile
        return Claim(own, mark, self._folder, is_empty and mark is None)

    def check_is_ours(self, dry_run: bool = False) -> Claim:
        """Check that the storage belongs to this database, and return the claim. A storage without
        a mark is marked.

        :param dry_run: make no mark.
        :raises ForeignStorage: if it belongs to another database, or if it is a folder that has
            lost its mark.
        :raises StorageUnavailable: if the storage cannot be reached.
        """
        if not self._identities.lasts:
            return self.claim()
        claim = self.claim() if dry_run else self._mark()
        if claim.is_gone:
            raise ForeignStorage(f"{claim} What to do: {claim.remedy}")
        if claim.is_foreign:
            raise ForeignStorage(
                f"{claim} To make it the storage of this database, run: {ADOPT_STORAGE}"
            )
        return claim

    def check_folder(self) -> None:
        """Check that the folder of a local storage is there, for a server that only reads. Nothing
        is written.

        :raises StorageUnavailable: if it is empty, and this database has files in a folder.
        """
        if self._folder and not os.path.exists(self._folder):
            claim = self.claim()
            if claim.is_missing:
                raise StorageUnavailable(MARKER, str(claim))

    def _check_not_gone(self) -> None:
        """Tell a file that does not exist from one in a folder that is not mounted.

        :raises StorageUnavailable: if the folder was marked once, and is not any more.
        """
        if self._folder and not os.path.exists(self._folder):
            claim = self.claim()
            if claim.is_gone:
                raise StorageUnavailable(MARKER, str(claim))

    def adopt(self) -> None:
        """Mark the storage as that of this database, whatever it was before.

        :raises StorageUnavailable: if the storage cannot be reached.
        """
        claim = self.claim()
        before = claim.mark.nonce if claim.mark and not claim.is_foreign else ""
        self._replace_mark(before, is_adopted=True)
        self._remember_folder()

    def renew(self) -> None:
        """Write a nonce into the mark that no copy of this database knows. Call this when ``gc``
        has run.

        :raises StorageUnavailable: if the storage cannot be reached.
        """
        claim = self.claim()
        if claim.mark and not claim.is_foreign:
            self._replace_mark(claim.mark.nonce, claim.mark.is_adopted)

    def warn(self) -> None:
        """Log a warning if the storage belongs to another database, or is a folder that is not
        mounted. Call this when a server starts. Nothing is written, and a storage or database that
        does not respond delays the start by :data:`START_SECONDS` at most."""
        if not self._identities.lasts:
            return
        thread = Thread(target=self._warn, name="kinto-attachment start", daemon=True)
        thread.start()
        thread.join(START_SECONDS)

    def _warn(self) -> None:
        try:
            try:
                claim = self.claim()
            finally:
                self._identities.disconnect()
            if claim.is_foreign or claim.is_missing:
                logger.warning("%s What to do: %s", claim, claim.remedy)
        except Exception as error:
            # Anything: the server must start even if storage and database are not there yet.
            logger.warning("Cannot tell which database the file storage belongs to: %s", error)

    def _check_mark(self) -> None:
        """Read the mark before something is written, if this process has not done so, and make one
        if there is none.

        :raises StorageUnavailable: if it is a folder that was marked once, and is not any more.
        """
        if not self._identities.lasts:
            return
        if not self._folder:
            self._look_once()
        elif not self._is_seen:
            self._look()
        elif not os.path.exists(self._folder):
            raise StorageUnavailable(MARKER, "it has disappeared: is its file system mounted?")

    @property
    def _is_seen(self) -> bool:
        """Whether this process has read the mark not long ago."""
        return self._seen_by == os.getpid() and time.monotonic() - self._seen_at < TRUST_SECONDS

    def _look_once(self) -> bool:
        """Mark the storage, or find out whose it is. Return False if the storage cannot be asked
        now."""
        if self._is_seen:
            return True
        try:
            self._look()
        except StorageUnavailable as error:
            logger.warning("Cannot tell which database the file storage belongs to: %s", error)
            return False
        return True

    def _look(self) -> None:
        claim = self._mark()
        if claim.is_gone:
            raise StorageUnavailable(MARKER, str(claim))
        if claim.is_foreign and not (self._is_foreign and self._seen_by == os.getpid()):
            logger.warning(
                "%s Replaced and deleted files stay in it until you run: %s", claim, ADOPT_STORAGE
            )
        self._is_foreign = claim.is_foreign
        self._seen_by, self._seen_at = os.getpid(), time.monotonic()

    def _mark(self) -> Claim:
        """Mark the storage if it has no mark and its folder is not gone. Return the claim, which
        may be that of another database that has marked it at the same time."""
        claim = self.claim()
        if claim.mark is None and not claim.is_gone:
            owner = self._in_database(self._identities.get).owner
            self._write_mark(Mark(owner, is_adopted=claim.is_empty))
            claim = self.claim()
        if claim.mark and not claim.is_foreign:
            self._remember_folder(claim)
        return claim

    def _remember_folder(self, claim: Claim | None = None) -> None:
        if self._folder and (claim is None or self._folder not in claim.own.folders):
            add = partial(Identity.with_folder, folder=self._folder)
            self._in_database(lambda: self._identities.change(add))

    def _replace_mark(self, before: str, is_adopted: bool) -> None:
        """Write a mark with another nonce. The database learns of the nonce first: if the process
        dies then, the mark still has the one before it.

        :param before: the nonce that is in the mark now, if that is ours.
        """
        nonce = uuid4().hex
        renew = partial(Identity.renewed, before=before, nonce=nonce)
        own = self._in_database(lambda: self._identities.change(renew))
        self._write_mark(Mark(own.owner, nonce, is_adopted), replace=True)

    def _write_mark(self, mark: Mark, replace: bool = False) -> None:
        """Store a mark, unless there is one.

        :param replace: replace it. A storage that is not exclusive always does.
        """
        content = mark.to_json()
        digest = sha256(content).hexdigest()
        with self._storage.spool() as file:
            file.write(content)
            file.flush()
            label = ("storage.json", "application/json")
            source = Source(file, *label, len(content), digest, private=True)
            try:
                if replace and self._storage.exclusive:
                    self._swap_mark(source)
                else:
                    self._storage.put(MARKER, source)
            except BlobExists:
                logger.info("The file storage has a mark already.")

    def _swap_mark(self, source: Source) -> None:
        """Replace the mark in a storage that does not overwrite. The new mark has another name
        meanwhile, under which it is found, too: the storage is never without one."""
        self._storage.delete([NEW_MARKER])
        self._storage.put(NEW_MARKER, source)
        if self._folder:
            try:
                os.replace(self._storage.path(NEW_MARKER), self._folder)
            except OSError as error:
                raise StorageUnavailable(MARKER, str(error)) from error
        else:
            self._storage.delete([MARKER])
            self._storage.put(MARKER, source)
            self._storage.delete([NEW_MARKER])

    def _read_mark(self) -> Mark | None:
        for key in (MARKER, NEW_MARKER):
            try:
                return Mark.from_json(b"".join(self._storage.open(key, 0, MAX_MARKER_BYTES)))
            except BlobNotFound:
                continue
        return None

    def _in_database(self, call: Callable[[], Result]) -> Result:
        """Return what ``call`` returns, called in a transaction of its own. It runs in a new
        thread, because transactions belong to threads: that of this thread is not touched."""

        def run() -> Any:
            with transaction.manager:
                return call()

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(run).result()
