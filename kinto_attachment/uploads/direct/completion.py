"""Completing a direct upload: its bytes are checked, and attached as those of a form would be."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from uuid import uuid4

from pyramid.request import Request

from ...errors import BlobNotFound, ContentRefused, PartsMissing, UploadBusy, UploadRefused
from ...files.blob import Digest
from ...media.verification import LeaseLost, hash_renewing
from ...plugin import plugin_of
from ...rows.uploads import DirectUpload, Intent, State
from ...storage.stored_file import PlacedFile, StoredFile
from ...transactions.request import (
    file_transaction,
    outermost,
    outside_transaction,
    release_connection,
)
from ..finished import Finished
from ..progress import upload_not_found
from ..targets import CONDITIONS, Target
from .urls import label_of
from .whole import LeasedUpload, choose, refusal_of

logger = logging.getLogger(__name__)

PREPARED = "attachment.direct"
"""The key in ``bound_data`` of the :class:`Prepared` for a repeated request."""

WAIT_SECONDS = 1.0
"""How long a request waits for another one that completes the same upload. It holds a thread of the
server meanwhile."""

POLL_SECONDS = 0.1


class KnownDigest(Digest):
    """The digest of bytes that were hashed before.

    :param found: the SHA-256 in hex.
    """

    def __init__(self, size: int, found: str):
        super().__init__(hashed=False)
        self.size = size
        self._found = found

    def hexdigest(self) -> str:
        """Return the SHA-256 in hex."""
        return self._found


@dataclass(frozen=True)
class Prepared:
    """An upload whose file is stored, and to be attached.

    :param holder: of the lease on it.
    """

    upload: DirectUpload
    holder: str


def complete(
    request: Request, target: Target, upload: DirectUpload, named: Mapping[int, str]
) -> Finished | None:
    """Attach the file of an upload. Return None if its bytes are still being hashed, or if another
    request is completing it.

    :param named: the entity tags of the parts, by their numbers, as far as the client says them.
    :raises UploadRefused: if the bytes are not those that were announced. They are deleted.
    :raises PartsMissing: if bytes have not arrived.
    :raises Refused: if the file cannot be attached now. The upload stays as it is.
    :raises HTTPNotFound: if the upload is deleted meanwhile.
    :raises StorageUnavailable: if the storage cannot be reached.
    """
    try:
        prepared = request.bound_data.get(PREPARED) or _prepare(request, target, upload, named)
    except LeaseLost:
        if plugin_of(request).rows.direct.get(upload.id) is None:
            raise upload_not_found(upload.id) from None
        return None
    return prepared if isinstance(prepared, Finished | None) else _attach(request, target, prepared)


def _prepare(
    request: Request, target: Target, upload: DirectUpload, named: Mapping[int, str]
) -> Prepared | Finished | None:
    """Check the bytes, and store the file. Return what another request has made of the upload, if
    one has.

    :raises LeaseLost: if the lease is lost meanwhile.
    """
    plugin = plugin_of(request)
    intent = _with_conditions(request, upload.intent)
    target.check(intent)
    target.check_size(upload.size)
    request.context.body.close()
    release_connection(request)
    holder = uuid4().hex
    current, is_ours = _take_lease(request, upload, holder)
    if current.state is State.ATTACHED:
        return Finished.from_row(current.result)
    if current.state is State.REFUSED:
        raise refusal_of(current)
    if not is_ours:
        return None
    outside = partial(outside_transaction, request)
    leased = LeasedUpload(plugin, request.tm, current, holder, outside)
    target.measure("direct")  # the bytes themselves did not come to this server
    try:
        if not current.found and not _verify(request, leased, named):
            return None
        target.begin(intent)
        try:
            _store(target, leased.upload, intent, plugin)
        except BlobNotFound as error:
            # The bytes are lost: their sender has to send them again.
            leased.save(replace(leased.upload, state=State.OPEN, whole="", found=""))
            raise PartsMissing(list(range(1, upload.count + 1))) from error
    except (UploadRefused, ContentRefused) as error:
        refused = error if isinstance(error, UploadRefused) else UploadRefused(error.reason)
        leased.refuse(refused)
        raise refused from error
    prepared = Prepared(leased.upload, holder)
    request.bound_data[PREPARED] = prepared
    return prepared


def _with_conditions(request: Request, intent: Intent) -> Intent:
    """Return the intent with the conditions of this request, where the sender had none before."""
    if_match, if_none_match = (request.headers.get(name, "") for name in CONDITIONS)
    return replace(
        intent,
        if_match=intent.if_match or if_match,
        if_none_match=intent.if_none_match or if_none_match,
    )


def _take_lease(request: Request, upload: DirectUpload, holder: str) -> tuple[DirectUpload, bool]:
    """Return the upload as it is now, and whether this request has the lease on it. If another
    request has, wait for it."""
    rows, files = plugin_of(request).rows, file_transaction(request)
    manager = request.tm

    def give_back(request: Request) -> None:
        try:
            with manager:
                rows.leases.give_back(upload.id, holder)
        except Exception:
            # Anything: Kinto's storage raises SQLAlchemy's own errors at a commit.
            manager.abort()
            logger.exception("The lease on an upload is left to expire.")

    def look() -> tuple[DirectUpload | None, bool]:
        is_ours = rows.leases.take(upload.id, holder)
        return rows.direct.get(upload.id), is_ours

    outermost(request).add_finished_callback(give_back)
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        current, is_ours = files.committed(look)
        if current is None:
            raise upload_not_found(upload.id)
        is_open = current.state is State.OPEN
        if is_ours or not is_open or time.monotonic() > deadline:
            return current, is_ours
        time.sleep(POLL_SECONDS)


def _verify(request: Request, leased: LeasedUpload, named: Mapping[int, str]) -> bool:
    """Find the hash of the bytes. Return False if that is done in the background."""
    upload, background = leased.upload, request.registry.attachment_media.background
    is_waiting = upload.state is State.VERIFYING
    if not is_waiting:
        parts = choose(leased, dict(named))
        is_known = len(parts) == 1 and parts[0].digest and (upload.proven or not upload.parts)
        limit = plugin_of(request).settings["direct.inline"]
        if is_known or upload.size <= limit:
            leased.make_whole(parts)
            leased.hash_whole(partial(_hash, request, leased.renew))
            leased.save(leased.upload)  # not to hash it again if it cannot be attached now
            return True
        etags = tuple(part.etags[0] if part.etags else "" for part in parts)
        leased.save(replace(upload, state=State.VERIFYING, etags=etags))
    outermost(request).add_finished_callback(lambda request: background.wake())
    return False


def _hash(request: Request, renew: Callable[[], None], key: str) -> str:
    return hash_renewing(plugin_of(request).storage, key, renew)


def _store(target: Target, upload: DirectUpload, intent: Intent, plugin: Any) -> None:
    """Store the file under its own key, unless it lies there already."""
    whole, size, storage = upload.whole, upload.size, plugin.storage
    if upload.place and whole not in upload.parts:
        file: StoredFile = PlacedFile(storage, whole, size, label_of(plugin, upload))
    else:
        file = StoredFile(storage, [(whole, size)])
    with file:
        target.store(intent, file, KnownDigest(size, upload.found))


def _attach(request: Request, target: Target, prepared: Prepared) -> Finished:
    """Give the file to its owner, and write down what the client is answered, all in the present
    transaction.

    :raises UploadBusy: if another request has taken the lease meanwhile.
    """
    rows, files = plugin_of(request).rows, file_transaction(request)
    upload, holder = prepared.upload, prepared.holder
    # Leases come before other rows everywhere: another order could deadlock.
    if not rows.leases.renew(upload.id, holder):
        raise UploadBusy()
    finished = target.attach()
    kept = rows.links.linked([upload.whole])
    parts = rows.direct.take_parts(upload.id)
    for part in parts:
        files.undo(partial(rows.direct.add_part, part))
    left = tuple(key for key in upload.parts if key not in kept)
    ended = replace(
        upload, state=State.ATTACHED, result=finished.to_row(), parts=left, whole="", etags=()
    )
    rows.direct.save(ended)
    files.undo(partial(rows.direct.save, upload))
    if not rows.leases.give_back(upload.id, holder):
        raise UploadBusy()
    files.undo(partial(rows.leases.take, upload.id, holder))
    gone = dict.fromkeys(key for key in (*upload.keys, *(part.key for part in parts)))
    files.release([(key, False) for key in gone if key not in kept], keep_old=False)
    return finished


def discard(request: Request, upload: DirectUpload) -> bool:
    """Delete an upload and its bytes. Nothing changes if the file is attached. Return False if
    another request has deleted it.

    :raises UploadBusy: if other requests keep working on it.
    """
    rows, files = plugin_of(request).rows, file_transaction(request)
    if not rows.leases.seize(upload.id, uuid4().hex):
        raise UploadBusy()
    current = rows.direct.get(upload.id)
    if current is None or current.state is State.ATTACHED:
        rows.leases.drop(upload.id)
        return current is not None
    upload = current
    rows.direct.take(upload)
    files.undo(partial(rows.direct.save, upload))
    rows.leases.drop(upload.id)
    parts = rows.direct.take_parts(upload.id)
    for part in parts:
        files.undo(partial(rows.direct.add_part, part))
    gone = dict.fromkeys((*upload.keys, *(part.key for part in parts)))
    files.release([(key, False) for key in gone], keep_old=False)
    return True
