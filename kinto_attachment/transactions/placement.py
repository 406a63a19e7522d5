"""Where a transaction stores its bytes: under a key that nothing else has, or is about to have.

A key with a UUID is free. Of a key that is named after its hash, all owners have the same bytes.
Any other key may be taken. A storage that is ``exclusive`` refuses to overwrite it; for the others,
and where bytes are stored while they arrive, a row says which upload may store it
(:mod:`kinto_attachment.rows.turns`).
"""

import logging
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any
from uuid import uuid4

from ..errors import BlobExists, BlobNotFound, StorageUnavailable
from ..files.blob import MAX_UPLOAD_TIME
from ..files.key import KeyTemplate
from ..rows import Rows
from ..rows.deletion import Reservation
from ..rows.turns import TURN_SECONDS
from ..storage.staged import IStreamingStorage
from .ownership import OwnedStorage

logger = logging.getLogger(__name__)

DELETION_WAIT_SECONDS = 10
"""How long an upload waits while ``gc`` deletes the key that it is about to store."""

POLL_SECONDS = 0.1
"""The pause between two looks at whether another upload has stored the same bytes."""

NAME_SECONDS = 2 * MAX_UPLOAD_TIME.total_seconds()
"""How long a name stays with an upload that never ends, because its process has died."""

RENEW_SECONDS = 600
"""The age at which the reservation and the turn of an upload that still arrives are renewed. ``gc``
and other uploads respect them for an hour at least."""

LATE_SECONDS = MAX_UPLOAD_TIME.total_seconds()
"""How long a request to delete an object may be on its way."""


class Placement:
    """The keys that one transaction stores.

    :param outside_transaction: calls a function in a transaction of its own, while the request has
        none, and returns its result once that is committed.
    :ivar created: the keys that are deleted if the transaction fails.
    :ivar created_shared: those that other records may have too, so that only ``gc`` deletes them.
    """

    def __init__(
        self,
        storage: OwnedStorage,
        rows: Rows,
        outside_transaction: Callable[[Callable[[], Any]], Any],
    ):
        self._storage = storage
        self._rows = rows
        self._outside_transaction = outside_transaction
        self.created: list[str] = []
        self.created_shared: list[str] = []
        self._id = uuid4().hex
        self._reservations: list[Reservation] = []
        self._turns: set[str] = set()
        self._renewed = 0.0
        # Where streams hold names, other uploads must look for their holders.
        self._takes_turns = not storage.exclusive or IStreamingStorage.providedBy(storage)

    @property
    def is_waiting(self) -> bool:
        """Whether other uploads or ``gc`` wait for this transaction, or leave a key to it."""
        return bool(self._turns or self._reservations)

    def store(
        self, keys: Iterable[str], template: KeyTemplate, size: int, store: Callable[[str], None]
    ) -> str:
        """Store bytes under the first of the keys that is free, and return that key.

        :param keys: candidates, as the template makes them.
        :param size: the number of bytes.
        :param store: stores them under a key.
        :raises StorageUnavailable: if the storage cannot be reached, or if ``gc`` is deleting the
            key and does not finish in time.
        """
        for key in keys:
            if template.shared:
                reservation = self._reserve(key)
                self.created_shared.append(key)
                self._store_shared(reservation, size, store)
                return key
            if not template.unique and not self._take_name(key, not self._storage.exclusive):
                continue
            # A key with a UUID is ours even if the call fails half-way, and so is a name that no
            # other upload may store. In an exclusive storage a name is ours only once it is stored.
            is_ours = template.unique or not self._storage.exclusive
            if is_ours:
                self.created.append(key)
            try:
                store(key)
            except BlobExists:
                if is_ours:
                    self.created.remove(key)
                else:
                    self._outside_transaction(lambda key=key: self._give_back(key))
                continue
            except BaseException:
                self.leave_name(key)
                raise
            if not is_ours:
                self.created.append(key)
            return key
        raise BlobExists("", "no key is free")

    def begin(self, keys: Iterable[str], template: KeyTemplate) -> str:
        """Return the first of the keys that is free, for bytes that are about to arrive. No other
        upload stores it, and ``gc`` does not delete it, until this transaction ends.

        :param keys: candidates, as the template makes them. They are not named after a hash.
        """
        if not self._reservations:
            self._renewed = time.monotonic()
        for key in keys:
            if template.unique:
                reserve = partial(self._rows.reservations.reserve, key)
                self._reservations.append(self._outside_transaction(reserve))
            elif not self._take_name(key, is_looked_for=True):
                continue
            if template.unique or not self._storage.exclusive:
                self.own(key)
            return key
        raise BlobExists("", "no key is free")

    def own(self, key: str) -> None:
        """Have a key deleted if the transaction fails. Idempotent."""
        if key not in self.created:
            self.created.append(key)

    def disown(self, key: str) -> None:
        """Leave a key alone if the transaction fails: it is not stored, or not by this transaction.
        Idempotent."""
        if key in self.created:
            self.created.remove(key)

    def leave_name(self, key: str) -> None:
        """Let a name stay taken after this transaction, because the storage may still carry out
        the request that stores it."""
        self._turns.discard(key)

    def renew(self, is_due: bool = False) -> None:
        """Keep the reservations and turns from expiring while bytes arrive. This must be called
        often; it seldom does something.

        :param is_due: whether to renew them even if they are young.
        :raises StorageUnavailable: if they have expired, as after a long sleep of the machine.
        """
        is_due = is_due or time.monotonic() - self._renewed > RENEW_SECONDS
        if self._reservations and is_due:
            self._reservations = self._outside_transaction(self._renew)
            self._renewed = time.monotonic()

    def _renew(self) -> list[Reservation]:
        renewed = []
        for each in self._reservations:
            reservation = self._rows.reservations.renew(each)
            is_held = each.key not in self._turns or self._rows.turns.renew(each.key, self._id)
            if not (reservation and is_held):
                raise StorageUnavailable(each.key, "the upload was interrupted for too long")
            renewed.append(reservation)
        return renewed

    def end(self) -> None:
        """Drop the reservations and turns, in the present transaction: the keys are linked by
        then, or the bytes are gone."""
        for reservation in self._reservations:
            self._rows.reservations.drop(reservation)
        self._rows.turns.end(self._turns, self._id)

    def forget(self) -> None:
        """Forget the reservations and turns, which have ended."""
        self._reservations.clear()
        self._turns.clear()

    def _take_name(self, key: str, is_looked_for: bool) -> bool:
        """Return whether the key is free, as far as rows tell. Unless the storage is exclusive and
        takes no streams, no other upload may store it until this transaction ends. ``gc`` does not
        delete it until then.

        :param is_looked_for: whether to ask the storage, too.
        """

        def take() -> Reservation | None:
            reservation = self._rows.reservations.reserve(key)
            now = reservation.modified
            is_first = not self._takes_turns or self._rows.turns.take(
                key, self._id, now, NAME_SECONDS
            )
            self._reservations.append(reservation)  # not before all that may conflict
            if not self._takes_turns or not is_first:
                return reservation if is_first else None
            self._turns.add(key)
            is_in_use = self._rows.is_in_use(key, now - int(LATE_SECONDS * 1000))
            return None if is_in_use else reservation

        taken = self._outside_transaction(take)
        is_free = taken is not None and not self._is_condemned(taken)
        if is_free and not (is_looked_for and self._find_size(key) is not None):
            return True
        self._outside_transaction(lambda: self._give_back(key))
        return False

    def _give_back(self, key: str) -> None:
        """Drop the reservation and the turn of one key."""
        for reservation in [each for each in self._reservations if each.key == key]:
            self._rows.reservations.drop(reservation)
            self._reservations.remove(reservation)
        self._rows.turns.end(self._turns & {key}, self._id)
        self._turns.discard(key)

    def _store_shared(
        self, reservation: Reservation, size: int, store: Callable[[str], None]
    ) -> None:
        """Store a key that is named after its hash, unless these bytes are there already: they keep
        the type and the disposition of their first upload. If the bytes there have another length,
        as after a full or broken disk, they are replaced.

        The key is reserved, so that ``gc`` deletes nothing between the look and the answer.
        """
        key = reservation.key
        found = None if self._storage.exclusive else self._await_turn(reservation)
        if found is None:
            try:
                store(key)
                return
            except BlobExists:
                found = self._storage.stat(key).size
        if found != size:
            logger.error("%s has %d bytes instead of %d: it is stored again.", key, found, size)
            self._storage.delete([key])
            store(key)

    def _await_turn(self, reservation: Reservation) -> int | None:
        """Return how many bytes the key has, or None if it is the turn of this upload to store
        them. Meanwhile no database connection is held."""
        key, begin = reservation.key, time.monotonic()
        while (size := self._find_size(key)) is None and key not in self._turns:
            waited = time.monotonic() - begin
            if waited > TURN_SECONDS:
                break  # others have had the turn all the time
            time.sleep(POLL_SECONDS)
            now = reservation.modified + int(waited * 1000)
            self._outside_transaction(lambda now=now: self._take_turn(key, now))
        return size

    def _take_turn(self, key: str, now: int) -> None:
        if self._rows.turns.take(key, self._id, now):
            self._turns.add(key)

    def _find_size(self, key: str) -> int | None:
        try:
            return self._storage.stat(key).size
        except BlobNotFound:
            return None

    def _reserve(self, key: str) -> Reservation:
        """Keep ``gc`` from deleting a key that this transaction is about to link, and take the turn
        to store it, if that is free. Each step is committed before the next, in transactions of
        their own.

        :raises StorageUnavailable: if ``gc`` is deleting the key, and does not finish in time.
        """

        def announce() -> Reservation:
            reservation = self._rows.reservations.reserve(key)
            if not self._storage.exclusive and key not in self._turns:
                self._take_turn(key, reservation.modified)
            return reservation

        reservation = self._outside_transaction(announce)
        self._reservations.append(reservation)
        deadline = time.monotonic() + DELETION_WAIT_SECONDS
        while self._is_condemned(reservation):
            if time.monotonic() > deadline:
                raise StorageUnavailable(key, "it is being deleted")
            time.sleep(0.05)
        return reservation

    def _is_condemned(self, reservation: Reservation) -> bool:
        """Return whether ``gc`` is about to delete the reserved key."""
        return self._outside_transaction(lambda: self._rows.reservations.is_condemned(reservation))
