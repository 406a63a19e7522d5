"""One transaction ended, another begun: nothing is held between."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from transaction.interfaces import IDataManager
from zope.interface import implementer

from ..errors import BlobExists, StorageUnavailable
from ..files.blob import Label, Source
from ..files.key import KeyTemplate
from ..files.ref import RecordRef, Ref
from ..rows.deletion import Claim, Claims, Releases, Rule
from ..rows.links import Link, Links
from ..rows.variants import Variants
from ..storage import IStorage


def begin_again(
    transaction_manager: Any,
    files: Any,
    carry_hooks: bool = True,
    between: Callable[[], Any] = lambda: None,
) -> Any:
    """End a transaction without a trace and begin another; see
    :func:`kinto_attachment.transactions.request.restart`.

    :param files: what it does to files (:class:`Files`), or None.
    :param between: is called after the old transaction, and before the new one.
    :returns: what it returned.
    """
    hooks = list(transaction_manager.get().getAfterCommitHooks()) if carry_hooks else []
    if files:
        files.leave()
    transaction_manager.abort()
    try:
        return between()
    finally:
        current = transaction_manager.begin()
        for hook, args, kwargs in hooks:
            current.addAfterCommitHook(hook, args, kwargs)
        if files:
            files.join()


logger = logging.getLogger(__name__)

DOOMED_SECONDS = 10
"""How long an upload waits for the deletion of what it is about to store."""


@implementer(IDataManager)
class Files:
    """What one transaction does to files.

    :param transaction_manager: ``request.tm``.
    """

    def __init__(
        self,
        storage: IStorage,
        links: Links,
        releases: Releases,
        claims: Claims,
        variants: Variants,
        transaction_manager: Any,
    ):
        self.transaction_manager = transaction_manager
        self._storage = storage
        self._links = links
        self._releases = releases
        self._claims = claims
        self._variants = variants
        self._claimed: list[Claim] = []
        self._transaction: Any = None
        self._created: list[str] = []
        self._created_shared: list[str] = []
        self._released: list[str] = []
        self._undo: list[Callable[[], None]] = []
        self._voted = False
        self._expected: dict[RecordRef, dict[str, Any]] = {}
        # For settle():
        self._to_delete: list[str] = []
        self._to_sweep: list[str] = []
        self._to_release: list[str] = []

    def join(self) -> None:
        """Take part in the current transaction; again does nothing."""
        current = self.transaction_manager.get()
        if self._transaction is not current:
            self._transaction = current
            current.join(self)

    def leave(self) -> None:
        """Take no part in the end of the transaction, but keep the bytes that came: the same
        is going to be tried again in another one."""
        created, shared = self._created, self._created_shared
        self._undo_all()
        self._created, self._created_shared = created, shared

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """A transaction of its own, for who has no request: committed at the end, and settled."""
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
        """Store the source under the first of the keys that is free.

        :param keys: candidates, as the template makes them.
        :returns: the key.
        """
        return self._store(keys, template, source.size, lambda key: self._storage.put(key, source))

    def compose(
        self, parts: list[str], size: int, label: Label, keys: Iterable[str], template: KeyTemplate
    ) -> str:
        """Store blobs that are there, one after the other, under the first of the keys that is
        free.

        :param size: of them all, in bytes.
        :returns: the key.
        """
        return self._store(
            keys, template, size, lambda key: self._storage.compose(parts, key, label)
        )

    def _store(
        self, keys: Iterable[str], template: KeyTemplate, size: int, store: Callable[[str], None]
    ) -> str:
        for key in keys:
            if template.shared:
                self._claim(key)
                self._created_shared.append(key)
            elif template.unique:
                # Ours, whatever becomes of it; of another key we only know when it is stored.
                self._created.append(key)
            try:
                store(key)
            except BlobExists:
                if template.shared:
                    self._heal(key, size, store)
                    return key  # and so are the bytes
                if template.unique:
                    self._created.remove(key)
                continue
            if not (template.shared or template.unique):
                self._created.append(key)
            return key
        raise BlobExists("", "no key is free")

    def _heal(self, key: str, size: int, store: Callable[[str], None]) -> None:
        """Under a name that says its hash something else may be, after a disk was full or broken:
        what is asked to be stored is stored."""
        found = self._storage.stat(key).size
        if found != size:
            logger.error("%s has %d bytes instead of %d: it is stored again.", key, found, size)
            self._storage.delete([key])
            store(key)

    def _claim(self, key: str) -> None:
        """Keep ``gc`` from deleting a key that is taken as stored. Each step is committed before
        the next, in transactions apart from that of the request.

        :raises StorageUnavailable: it is just being deleted, and that takes long.
        """
        claim = self._apart(lambda: self._claims.claim(key))
        self._claimed.append(claim)
        deadline = time.monotonic() + DOOMED_SECONDS
        while self._apart(lambda: self._claims.is_doomed(claim)):
            if time.monotonic() > deadline:
                raise StorageUnavailable(key, "it is being deleted")
            time.sleep(0.05)

    def _apart(self, call: Callable[[], Any]) -> Any:
        def committed() -> Any:
            with self.transaction_manager:
                return call()

        return begin_again(self.transaction_manager, self, between=committed)

    def expect(self, ref: RecordRef, attachment: dict[str, Any]) -> None:
        """This transaction is about to write that attachment on the record."""
        self._expected[ref] = attachment

    def expects(self, ref: RecordRef, attachment: Any) -> bool:
        return attachment is not None and self._expected.get(ref) == attachment

    def link(self, link: Link, keep_old: bool, shown: Callable[[], Any]) -> None:
        """Give the blob to the record, and let go what it had before.

        To be called after the record was written in this transaction: then it is locked, and
        nobody else can add a link to it meanwhile.

        :param shown: the attachment that the record has now. Only asked where nothing is locked,
            as Kinto's storage does not roll back: another upload may have come in between.
        """
        before = [] if self._links.rolls_back else self._links.of(link.ref)
        removed = self._links.remove(link.ref)
        winner = link
        if before and not link.is_of(attachment := shown()):
            winner = next((other for other in before if other.is_of(attachment)), link)
        self._links.add(winner)
        self.drop_claims()
        self.undo(lambda: self._relink(link.ref, before))
        if winner is not link:
            removed.append((link.key, link.shared))
        self.release([(key, shared) for key, shared in removed if key != winner.key], keep_old)

    def drop_claims(self) -> None:
        """What was claimed has a link by now."""
        for claim in self._claimed:
            self._claims.drop(claim)

    def unlink(self, ref: Ref, keep_old: bool) -> bool:
        """Let go what the record had; whether that was anything."""
        before = [] if self._links.rolls_back else self._links.of(ref)
        removed = self._links.remove(ref)
        self.undo(lambda: self._relink(ref, before))
        self.release(removed, keep_old)
        return bool(removed)

    def move(self, before: Link, link: Link) -> None:
        """Give a record the blob that an upload has. To be called by who took the upload, which
        nobody else can have done."""
        self._links.remove(before.ref)
        self.undo(lambda: self._links.add(before))
        self.link(link, keep_old=False, shown=lambda: None)

    def release(self, keys: Iterable[tuple[str, bool]], keep_old: bool) -> None:
        """Write down, in this transaction, that these ``(key, shared)`` lost their link."""
        by_rule: dict[Rule, list[str]] = {}
        for key, shared in keys:
            by_rule.setdefault(Rule.of(shared, keep_old), []).append(key)
        for rule, released in by_rule.items():
            ids = self._releases.add(released, rule)
            if rule is Rule.DELETE:
                self._released += ids
            for release_id in ids:
                self.undo(lambda release_id=release_id: self._releases.drop(release_id))

    def undo(self, callback: Callable[[], None]) -> None:
        """Call back if the transaction is aborted and Kinto's storage does not roll back."""
        if not self._links.rolls_back:
            self._undo.append(callback)

    def _relink(self, ref: Ref, before: list[Link]) -> None:
        self._links.remove(ref)
        for link in before:
            self._links.add(link)

    # IDataManager. A successful commit calls tpc_begin, commit, tpc_vote, tpc_finish, abort.

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
        self._clear()

    def tpc_abort(self, transaction: Any) -> None:
        self.abort(transaction)

    def abort(self, transaction: Any) -> None:
        if transaction is not self._transaction:
            return  # finished, or left
        if self._voted and self._created:
            # The commit may have happened, or be about to, when only its answer was lost. What no
            # record has by tomorrow ``gc`` finds.
            logger.warning("A commit is in doubt: %s", ", ".join(self._created))
        else:
            self._to_delete += self._created
        self._to_sweep += self._created_shared
        self._undo_all()

    def _undo_all(self) -> None:
        undo = self._undo[::-1]
        self._clear()
        for callback in undo:
            callback()

    def _clear(self) -> None:
        self._created, self._created_shared, self._released, self._undo = [], [], [], []
        self._expected = {}
        self._voted = False
        self._transaction = None

    def settle(self) -> None:
        """Do to the storage what was decided. Failures are logged: the answer to the client is
        decided too, and what is left undone is found by ``gc``."""
        try:
            if self._to_delete:
                self._storage.delete(self._to_delete)
                self._to_delete = []
            if self._to_sweep:
                with self.transaction_manager:
                    linked = self._links.linked(self._to_sweep)
                    unlinked = [key for key in self._to_sweep if key not in linked]
                    self._releases.add(unlinked, Rule.SWEEP)
                    self.drop_claims()
                self._to_sweep = []
            while self._to_release:
                self._settle_release(self._to_release.pop(0))
        except Exception:
            # Anything: Kinto's storage raises SQLAlchemy's own errors at a commit.
            self.transaction_manager.abort()
            logger.exception("Files are left to be removed by `kinto-attachment gc`.")

    def _settle_release(self, release_id: str) -> None:
        with self.transaction_manager:
            release = self._releases.get(release_id)
            linked = self._links.linked(release.keys) if release else set()
            gone = [key for key in release.keys if key not in linked] if release else []
            variants = self._variants.of(gone)
        if release is None:
            return
        # No connection is held while the storage works.
        self._storage.delete([*gone, *(variant.key for variant in variants)])
        with self.transaction_manager:
            if variants:
                self._variants.drop(variants)
            self._releases.drop(release_id)
