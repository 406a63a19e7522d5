"""Making one object of the parts of a direct upload, and hashing it.

No URL leads to that object, so what is hashed is what becomes the file. Only if the storage refuses
all other bytes, or if this server has received them, the object of the part itself will do.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any

import transaction

from ...errors import BlobNotFound, PartsMissing, UploadRefused
from ...files.blob import Label
from ...files.mimetype import DEFAULT_MIMETYPE
from ...files.ref import UploadRef, read_ref
from ...media.verification import Hash, LeaseLost
from ...plugin import Plugin
from ...rows.uploads import DirectUpload, State
from ...storage.staged import compose
from ...transactions.files import FileTransaction
from ...transactions.restart import repeated
from .parts import ArrivedPart, choose_parts, find_parts
from .urls import label_of

RENEW_SECONDS = 10
"""How often the lease is renewed while the storage joins the parts."""


def new_staged_key(plugin: Plugin, upload: DirectUpload) -> str:
    """Return a new key for bytes of an unfinished upload."""
    return next(plugin.settings.staged.template.keys(UploadRef(upload.id), "", ""))


def new_whole_key(plugin: Plugin, upload: DirectUpload) -> str:
    """Return a new key for the whole file: one that the file can keep, if there is one."""
    if not upload.place:
        return new_staged_key(plugin, upload)
    place = read_ref(upload.place)
    return next(plugin.settings.policy_of(place).template.keys(place, upload.intent.filename, ""))


class LeasedUpload:
    """An upload whose lease this process holds. All methods fail if the lease is lost, and write
    nothing then.

    :param transaction_manager: has no transaction in progress that has written anything.
    :param outside: calls a function while the caller has no transaction.
    :ivar upload: as it was written down last.
    """

    def __init__(
        self,
        plugin: Plugin,
        transaction_manager: Any,
        upload: DirectUpload,
        holder: str,
        outside: Callable[[Callable[[], Any]], Any] = lambda call: call(),
    ):
        self._plugin = plugin
        self._manager = transaction_manager
        self._holder = holder
        self._outside = outside
        self.upload = upload

    def committed(self, call: Callable[[FileTransaction], Any]) -> Any:
        """Return what the function returns, called with a transaction of its own. What it releases
        is deleted when it returns."""

        def committed() -> Any:
            files = self._plugin.begin(self._manager)
            with files.transaction():
                return call(files)

        return self._outside(lambda: repeated(committed))

    def renew(self) -> None:
        """Extend the lease.

        :raises LeaseLost: if it is lost.
        """
        rows, upload_id = self._plugin.rows.leases, self.upload.id
        if not self.committed(lambda files: rows.renew(upload_id, self._holder)):
            raise LeaseLost()

    def save(
        self, upload: DirectUpload, gone: Sequence[str] = (), *, drop_parts: bool = False
    ) -> None:
        """Write the upload down.

        :param gone: keys that it does not need any more.
        :param drop_parts: delete the parts that this server has received.
        :raises LeaseLost: if the lease is lost.
        """
        rows = self._plugin.rows

        def save(files: FileTransaction) -> DirectUpload:
            if not rows.leases.renew(upload.id, self._holder):
                raise LeaseLost()
            saved = rows.direct.save(upload)
            parts = rows.direct.take_parts(upload.id) if drop_parts else []
            released = dict.fromkeys((*gone, *(part.key for part in parts)))
            files.release([(key, False) for key in released], keep_old=False)
            return saved

        self.upload = self.committed(save)

    def find_parts(self) -> list[ArrivedPart]:
        """Return the parts that have arrived; see :func:`.parts.find_parts`."""
        committed = self.committed
        return find_parts(self._plugin, self.upload, lambda call: committed(lambda files: call()))

    def make_whole(self, parts: Sequence[ArrivedPart]) -> None:
        """Make one object of all parts, and write its key down; its hash, too, if it is known.

        :param parts: all of them, in their order.
        :raises UploadRefused: if a part was replaced meanwhile.
        :raises PartsMissing: if a part is gone.
        :raises LeaseLost: if the lease is lost.
        :raises StorageUnavailable: if the storage cannot be reached.
        """
        first, upload = parts[0], self.upload
        is_own = not upload.parts  # received by this server: every URL leads to new objects
        if upload.proven and first.digest == upload.digest:
            self.upload = replace(upload, whole=first.key, found=first.digest)
            return
        if is_own and len(parts) == 1:
            self.upload = replace(upload, whole=first.key, found=first.digest)
            return
        key = new_whole_key(self._plugin, upload)
        stored = {part.key for part in parts}
        before = [upload.whole] if upload.whole and upload.whole not in stored else []
        self.save(replace(upload, whole=key, found=""), before)
        try:
            self._while_renewing(lambda: self._compose(parts, key))
            size = self._plugin.storage.stat(key).size
            self.renew()
        except BlobNotFound:
            raise PartsMissing([part.number for part in parts]) from None
        except LeaseLost:
            # A request may have deleted the upload before its whole was there.
            self.committed(lambda files: self._release_whole(files, key))
            raise
        if size != upload.size:
            raise UploadRefused(f"The file has {size} bytes instead of {upload.size}.", "size")
        if not is_own:
            self._check_unchanged(parts)

    def hash_whole(self, hash_of: Hash) -> None:
        """Find the hash of the whole, unless it is known, and compare it with the announced one.

        :raises UploadRefused: if it is another one.
        :raises LeaseLost: if the lease is lost.
        :raises StorageError: if the bytes cannot be read.
        """
        upload = self.upload
        found = upload.found or hash_of(upload.whole)
        if upload.digest not in ("", found):
            reason = f"SHA-256 mismatch: hash says {upload.digest}, but the file has {found}."
            raise UploadRefused(reason, "hash")
        self.upload = replace(upload, found=found)

    def refuse(self, error: UploadRefused) -> None:
        """Write down that the bytes are refused, and delete them.

        :raises LeaseLost: if the lease is lost.
        """
        upload, refusal = self.upload, {"reason": error.reason, "field": error.field}
        ended = replace(upload, state=State.REFUSED, refusal=refusal, whole="", found="")
        self.save(ended, upload.keys, drop_parts=True)
        self._plugin.metrics.count("direct", event="refused")

    def _compose(self, parts: Sequence[ArrivedPart], key: str) -> None:
        label = Label("upload", DEFAULT_MIMETYPE, private=True)
        if self.upload.place:
            label = label_of(self._plugin, self.upload)
        compose(self._plugin.storage, [part.key for part in parts], key, label)

    def _release_whole(self, files: FileTransaction, key: str) -> None:
        """Release a whole that the upload does not have any more."""
        current = self._plugin.rows.direct.get(self.upload.id)
        if current is None or current.whole != key:
            files.release([(key, False)], keep_old=False)

    def _check_unchanged(self, parts: Sequence[ArrivedPart]) -> None:
        """Check that what was joined is what the client has named."""
        now = {part.number: part.etags for part in self.find_parts()}
        for part in parts:
            if part.number not in now:
                raise PartsMissing([part.number])
            if part.etags != now[part.number]:
                reason = f"Part {part.number} was sent again while the upload was verified."
                raise UploadRefused(reason, "parts")

    def _while_renewing(self, call: Callable[[], None]) -> None:
        """Call a function in another thread, and renew the lease until it returns."""
        with ThreadPoolExecutor(1, "kinto-attachment whole") as pool:
            running: Future[None] = pool.submit(_without_transaction, call)
            while not wait([running], timeout=RENEW_SECONDS).done:
                self.renew()
            running.result()


def _without_transaction(call: Callable[[], None]) -> None:
    try:
        call()
    finally:
        transaction.manager.abort()  # that of this thread, which ends


def refusal_of(upload: DirectUpload) -> UploadRefused:
    """Return the error that tells why an upload was refused."""
    refusal = upload.refusal or {}
    return UploadRefused(str(refusal.get("reason", "")), refusal.get("field"))


def choose(leased: LeasedUpload, named: dict[int, str]) -> list[ArrivedPart]:
    """Return the parts of an upload that the client has named; see
    :func:`.parts.choose_parts`."""
    return choose_parts(leased.upload, leased.find_parts(), named)
