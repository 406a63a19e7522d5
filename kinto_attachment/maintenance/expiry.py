"""Dropping uploads that were not finished in time. Their bytes are released, not deleted: that is
left to the rest of ``gc``."""

import time
from collections.abc import Iterator, Sequence
from functools import partial
from uuid import uuid4

from ..finding import Finding
from ..rows.deletion import Rule
from ..rows.paging import database_time
from ..rows.uploads import DirectUpload, ResumableUpload, State, Unclaimed
from ..uploads.resumable import expires_at
from .server import Server


def expire_uploads(server: Server, dry_run: bool = False) -> Iterator[Finding]:
    """Drop uploads to the media library that did not become objects in time, resumable uploads to
    which no bytes came for too long, and direct uploads that were not completed in time. Yield
    ``expired`` for each.

    An upload has expired if the clock of the database, which has dated the rows, and that of this
    machine agree: either may be wrong.

    :param dry_run: change nothing.
    """
    now = min(server.run(lambda: database_time(server.records)), int(time.time() * 1000))
    yield from _expire_unclaimed(server, now, dry_run)
    yield from _expire_resumable(server, now, dry_run)
    yield from _expire_direct(server, now, dry_run)
    if not dry_run:
        _drop_strays(server)


def _expire_unclaimed(server: Server, now: int, dry_run: bool) -> Iterator[Finding]:
    rows, old = server.plugin.rows, now - server.plugin.settings["library.unclaimed_ttl"] * 1000

    def expire(upload: Unclaimed) -> bool:
        taken = rows.unclaimed.take(upload)  # unless a request is claiming it at this moment
        for key, shared in rows.links.remove(upload.ref) if taken else ():
            rows.releases.add([key], Rule.of(shared, keep_old=False))
        return taken

    for page in server.read(rows.unclaimed.all()):
        for upload in page:
            if upload.modified < old and (dry_run or server.run(partial(expire, upload))):
                name = str(upload.facts.get("fileName", ""))
                yield Finding("expired", "", upload.ref.uri, name)


def _expire_resumable(server: Server, now: int, dry_run: bool) -> Iterator[Finding]:
    rows = server.plugin.rows

    def expire(upload: ResumableUpload) -> bool:
        last = rows.resumable.last(upload.id)
        if expires_at(server.plugin, upload, last) * 1000 >= now:
            return False  # bytes have come
        if not dry_run:
            if not rows.resumable.take(upload):
                return False
            _release(server, upload.id)
        return True

    for page in server.read(rows.resumable.all()):
        for upload in page:
            if server.run(partial(expire, upload)) and upload.result is None:
                if not dry_run:
                    server.metrics.count("resumable", event="expired")
                yield Finding("expired", "", upload.intent.base, upload.intent.filename)


def _expire_direct(server: Server, now: int, dry_run: bool) -> Iterator[Finding]:
    """Drop direct uploads. Until then, a URL that was still valid may have made objects again that
    had been deleted."""
    rows, old = server.plugin.rows, now - server.plugin.settings["uploads.ttl"] * 1000
    holder = uuid4().hex

    def expire(upload: DirectUpload) -> bool:
        if not rows.leases.take(upload.id, holder):
            return False  # it is being completed at this moment
        current = rows.direct.get(upload.id)
        if current is None or current.modified >= old:
            rows.leases.drop(upload.id)
            return False
        rows.direct.take(upload)
        rows.leases.drop(upload.id)
        _release_direct(server, upload.id, upload.keys)
        return True

    for page in server.read(rows.direct.all()):
        for upload in page:
            if upload.modified >= old or not (dry_run or server.run(partial(expire, upload))):
                continue
            if upload.state in (State.OPEN, State.VERIFYING):
                if not dry_run:
                    server.metrics.count("direct", event="expired")
                yield Finding("expired", "", upload.intent.base, upload.intent.filename)


def _release_direct(server: Server, upload_id: str, keys: Sequence[str] = ()) -> None:
    """Delete the rows of the parts of an upload, and release their bytes and those of other
    keys."""
    rows = server.plugin.rows
    parts = rows.direct.take_parts(upload_id)
    rows.releases.add(dict.fromkeys((*keys, *(part.key for part in parts))), Rule.DELETE)


def _drop_strays(server: Server) -> None:
    """Release segments and parts that were stored while their upload was finished or deleted."""
    direct = server.plugin.rows.direct

    def release_stray(upload_id: str) -> None:
        upload = direct.get(upload_id)
        has_ended = upload is not None and upload.state in (State.ATTACHED, State.REFUSED)
        if has_ended or not direct.has(upload_id):
            _release_direct(server, upload_id)

    for page in server.read(direct.all_parts()):
        for upload_id in sorted({part.upload for part in page}):
            server.run(partial(release_stray, upload_id))
    rows = server.plugin.rows.resumable
    for page in server.read(rows.all_segments()):
        for upload_id in sorted({segment.upload for segment in page if segment.key}):
            server.run(partial(_release_strays, server, upload_id))


def _release_strays(server: Server, upload_id: str) -> None:
    rows = server.plugin.rows.resumable
    upload = rows.get(upload_id)
    is_finished = upload is not None and upload.result is not None
    if is_finished or not rows.has(upload_id):
        _release(server, upload_id)


def _release(server: Server, upload_id: str) -> None:
    """Delete the rows of an upload's segments, and release their bytes."""
    rows = server.plugin.rows
    segments = rows.resumable.take_segments(upload_id)
    rows.releases.add([segment.key for segment in segments], Rule.DELETE)
