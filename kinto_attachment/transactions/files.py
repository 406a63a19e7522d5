"""What one transaction does to files.

Every change is told to :class:`FileTransaction` before it is made. Bytes that were stored are
deleted again when the transaction fails. Bytes that lost their owner are deleted after it has
committed; the transaction itself writes a release for them, so that ``gc`` can finish what a dying
process leaves undone (see :mod:`kinto_attachment.rows.deletion`).

The data manager only remembers. The work on the storage is done by
:meth:`FileTransaction.settle`, after the database connection was given back.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

from transaction.interfaces import IDataManager
from zope.interface import implementer

from ..errors import AttachmentError
from ..files.blob import Label, Source
from ..files.key import KeyTemplate
from ..files.ref import FieldRef, RecordRef, Ref
from ..metrics import Metrics
from ..rows import Rows
from ..rows.deletion import Rule
from ..rows.links import Link
from ..storage.staged import compose, store
from ..storage.stored_file import PlacedFile
from .ownership import OwnedStorage
from .placement import Placement
from .restart import in_transaction, restart_transaction
from .streaming import Destination, StreamedFile

Item = TypeVar("Item")

logger = logging.getLogger(__name__)


@implementer(IDataManager)
class FileTransaction:
    """The data manager of one transaction.

    :param transaction_manager: ``request.tm``.
    :param metrics: counts the deletions.
    """

    def __init__(
        self, storage: OwnedStorage, rows: Rows, transaction_manager: Any, metrics: Metrics
    ):
        self.transaction_manager = transaction_manager
        self._metrics = metrics
        self._storage = storage
        self._rows = rows
        self._placement = Placement(storage, rows, self.committed)
        self._transaction: Any = None
        self._released: list[str] = []
        self._undo: list[Callable[[], None]] = []
        self._voted = False
        self._expected: dict[FieldRef, dict[str, Any]] = {}
        self._held: set[RecordRef] = set()
        # For settle():
        self._to_delete: list[str] = []
        self._to_sweep: list[str] = []
        self._to_release: list[str] = []

    def join(self) -> None:
        """Take part in the current transaction. Idempotent."""
        current = self.transaction_manager.get()
        if self._transaction is not current:
            self._transaction = current
            current.join(self)

    def leave(self) -> None:
        """Ignore the end of the current transaction, but keep the bytes that were stored: another
        transaction is about to do the same again."""
        created, shared = self._placement.created, self._placement.created_shared
        self._undo_all()
        self._placement.created, self._placement.created_shared = created, shared

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Run a transaction without a request: begin, commit at the end, and settle."""
        self.transaction_manager.begin()
        self.join()
        try:
            yield
            self.transaction_manager.commit()
        except BaseException:
            self.transaction_manager.abort()
            raise
        finally:
            self.settle()

    def put(self, keys: Iterable[str], source: Source, template: KeyTemplate) -> str:
        """Store the source under the first of the keys that is free, and return that key.

        A file that was sent to the storage while it arrived has its key already.

        A :class:`~kinto_attachment.storage.stored_file.PlacedFile` stays where it is, if its key
        and its label are right. It is not deleted if the transaction fails.

        :param keys: candidates, as the template makes them.
        :raises StorageUnavailable: if the storage cannot be reached.
        """
        if isinstance(source.file, StreamedFile) and source.file.key:
            return source.file.key
        placed = source.file
        if isinstance(placed, PlacedFile) and placed.fits(template, source.label):
            return placed.key
        return self._placement.store(
            keys, template, source.size, lambda key: store(self._storage, key, source)
        )

    def give(self, key: str, write: Callable[[], Item]) -> Item:
        """Give stored bytes an owner in a transaction of its own, which is committed by then.
        Return what ``write`` returned.

        :param write: writes the owner down. If it raises an error of this package, the bytes have
            no owner, and are deleted with the present transaction.
        """
        self._placement.created.remove(key)
        try:
            return self.committed(write)
        except AttachmentError:
            self._placement.created.append(key)
            raise  # after any other error, the commit may have succeeded: ``gc`` finds out

    def open_stream(
        self,
        destination: Callable[[], Destination],
        timed: Callable[[], AbstractContextManager] = nullcontext,
    ) -> StreamedFile:
        """Return a new file that is sent on to the storage while it arrives. The storage must be
        able to (:func:`~kinto_attachment.transactions.streaming.can_stream`), and the caller calls
        :meth:`renew` while it receives the bytes. The parameters are those of
        :class:`~kinto_attachment.transactions.streaming.StreamedFile`."""
        return StreamedFile(self._storage, self._placement, destination, timed)

    def renew(self) -> None:
        """Keep what this transaction has reserved while bytes arrive. Call this for every piece of
        them; it seldom does something.

        :raises StorageUnavailable: if it has expired, as after a long sleep of the machine.
        """
        self._placement.renew()

    def compose(
        self, parts: list[str], size: int, label: Label, keys: Iterable[str], template: KeyTemplate
    ) -> str:
        """Join stored blobs under the first of the keys that is free, and return that key.

        :param parts: the keys of the blobs, in order.
        :param size: bytes of all parts together.
        :raises BlobNotFound: if a part is missing.
        """
        return self._placement.store(
            keys, template, size, lambda key: compose(self._storage, parts, key, label)
        )

    def committed(self, call: Callable[[], Item]) -> Item:
        """Return what ``call`` returns, called in a transaction of its own, which is committed by
        then. Call this only before the request has written anything.

        :param call: is called again after a conflict.
        """
        manager = self.transaction_manager
        return restart_transaction(manager, self, between=lambda: in_transaction(manager, call))

    @contextmanager
    def hold(self, ref: RecordRef) -> Iterator[bool]:
        """Lock a record, and yield whether there was anything to lock; see
        :meth:`~kinto_attachment.rows.record_lock.RecordLocks.hold`."""
        with self._rows.locks.hold(ref) as found:
            self._held.add(ref)
            yield found

    def holds(self, ref: RecordRef) -> bool:
        """Return whether no other transaction can write the record, since :meth:`hold` and until
        the end of this one."""
        return self._rows.rolls_back and ref in self._held

    def expect(self, ref: FieldRef, attachment: dict[str, Any]) -> None:
        """Announce that this transaction is about to write that attachment in that place."""
        self._expected[ref] = attachment

    def expects(self, ref: FieldRef, attachment: Any) -> bool:
        """Return whether :meth:`expect` announced exactly this."""
        return attachment is not None and self._expected.get(ref) == attachment

    def link(
        self, link: Link, keep_old: bool, current_attachment: Callable[[], Any] = lambda: None
    ) -> None:
        """Give the blob to its owner, and release what the owner had before.

        Call this after the record was written in the same transaction: the record is locked then,
        and no other transaction can link a file to it.

        :param keep_old: keep the bytes that are replaced.
        :param current_attachment: returns what the record says now. It is only called where
            Kinto's storage does not roll back: nothing is locked there, and another upload may have
            replaced ours since.
        """
        before = [] if self._rows.rolls_back else self._rows.links.of(link.ref)
        removed = self._rows.links.remove(link.ref)
        winner = link
        if before and not link.is_of(attachment := current_attachment()):
            winner = next((other for other in before if other.is_of(attachment)), link)
        self._rows.links.add(winner)
        self.drop_reservations()
        self.undo(lambda: self._relink(link.ref, before))
        if winner is not link:
            removed.append((link.key, link.shared))
        self.release([(key, shared) for key, shared in removed if key != winner.key], keep_old)

    def drop_reservations(self) -> None:
        """Drop the reservations and turns of this transaction, whose keys are linked by now."""
        self._placement.end()

    def unlink(self, ref: Ref, keep_old: bool) -> bool:
        """Release what the owner had; return whether it had anything."""
        before = [] if self._rows.rolls_back else self._rows.links.of(ref)
        removed = self._rows.links.remove(ref)
        self.undo(lambda: self._relink(ref, before))
        self.release(removed, keep_old)
        return bool(removed)

    def unlink_all(self, links: list[Link], keep_old: bool) -> None:
        """Release what these links, all of one bucket, give to their owners."""
        if not links:
            return
        removed = self._rows.links.remove_links(links)
        self.undo(lambda: self._add(links))
        self.release(removed, keep_old)

    def move(self, before: Link, link: Link) -> None:
        """Give a record the blob of an upload. Call this only after ``UnclaimedUploads.take``
        returned true; no other request can then be moving the same blob."""
        self._rows.links.remove(before.ref)
        self.undo(lambda: self._rows.links.add(before))
        self.link(link, keep_old=False)

    def release(self, keys: Iterable[tuple[str, bool]], keep_old: bool) -> None:
        """Write down, in this transaction, that these ``(key, shared)`` lost their link."""
        by_rule: dict[Rule, list[str]] = {}
        for key, shared in keys:
            by_rule.setdefault(Rule.of(shared, keep_old), []).append(key)
        for rule, released in by_rule.items():
            ids = self._rows.releases.add(released, rule)
            if rule is Rule.DELETE:
                self._released += ids
            for release_id in ids:
                self.undo(lambda release_id=release_id: self._rows.releases.drop(release_id))

    def undo(self, callback: Callable[[], None]) -> None:
        """Call back if the transaction is aborted and Kinto's storage does not roll back."""
        if not self._rows.rolls_back:
            self._undo.append(callback)

    def _relink(self, ref: Ref, before: list[Link]) -> None:
        self._rows.links.remove(ref)
        self._add(before)

    def _add(self, links: list[Link]) -> None:
        for link in links:
            self._rows.links.add(link)

    # IDataManager. A successful commit calls tpc_begin, commit, tpc_vote, tpc_finish and abort.

    def sortKey(self) -> str:
        return "}~attachment"  # right before SQLAlchemy, whose "~" sorts last

    def tpc_begin(self, transaction: Any) -> None:
        pass

    def commit(self, transaction: Any) -> None:
        pass

    def tpc_vote(self, transaction: Any) -> None:
        self._voted = True

    def tpc_finish(self, transaction: Any) -> None:
        self._to_release += self._released
        self._placement.forget()
        self._clear()

    def tpc_abort(self, transaction: Any) -> None:
        self.abort(transaction)

    def abort(self, transaction: Any) -> None:
        if transaction is not self._transaction:
            return  # already finished, or left
        created = self._placement.created
        if self._voted and created:
            # The database may have committed although its answer was lost. If it did not, ``gc``
            # finds the bytes.
            logger.warning("A commit is in doubt: %s", ", ".join(created))
        else:
            self._to_delete += created
        self._to_sweep += self._placement.created_shared
        self._undo_all()

    def _undo_all(self) -> None:
        undo = self._undo[::-1]
        self._clear()
        for callback in undo:
            callback()

    def _clear(self) -> None:
        self._placement.created, self._placement.created_shared = [], []
        self._released, self._undo = [], []
        self._expected = {}
        self._held = set()
        self._voted = False
        self._transaction = None

    def settle(self) -> None:
        """Do to the storage what was decided. Failures are logged only: the answer to the client
        is decided too, and ``gc`` finds what is left undone."""
        try:
            if self._to_delete:
                self._storage.delete(self._to_delete)
                self._metrics.count("deletions", len(self._to_delete), result="deleted")
                self._to_delete = []
            if self._to_sweep:
                with self.transaction_manager:
                    linked = self._rows.links.linked(self._to_sweep)
                    unlinked = [key for key in self._to_sweep if key not in linked]
                    self._rows.releases.add(unlinked, Rule.SWEEP)
                    self._placement.end()
                self._to_sweep = []
            elif self._placement.is_waiting:
                with self.transaction_manager:
                    self._placement.end()
            self._placement.forget()
            while self._to_release and self._storage.may_delete_released():
                self._settle_release(self._to_release[0])
                self._to_release.pop(0)
        except Exception:
            # Anything: Kinto's storage raises SQLAlchemy's own errors at a commit.
            self.transaction_manager.abort()
            logger.exception("Files are left to be removed by `kinto-attachment gc`.")
        left = len(self._to_delete) + len(self._to_release)
        if left:
            self._metrics.count("deletions", left, result="left")

    def _settle_release(self, release_id: str) -> None:
        with self.transaction_manager:
            release = self._rows.releases.get(release_id)
            linked = self._rows.links.linked(release.keys) if release else set()
            gone = [key for key in release.keys if key not in linked] if release else []
            variants = self._rows.variants.of(gone)
        if release is None:
            return
        # No connection is held while the storage works.
        self._storage.delete([*gone, *(variant.key for variant in variants)])
        self._metrics.count("deletions", len(gone) + len(variants), result="deleted")
        with self.transaction_manager:
            if variants:
                self._rows.variants.drop(variants)
            self._rows.releases.drop(release_id)
