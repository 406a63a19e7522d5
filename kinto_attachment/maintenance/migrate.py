"""Moving the bytes to another storage while the server runs.

The server may run on the other storage by then. So nothing is deleted there: what lost its record
while it was copied is left to ``gc``. A file that is there stays, unless it came before its key was
given to the one that is to be copied: then it is of an earlier run.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timezone
from hashlib import sha256
from mimetypes import guess_type
from typing import Any
from uuid import uuid4

from ..errors import BlobExists, BlobNotFound, NotImported, SettingError
from ..files.blob import ATTRIBUTE, Attachment, Source
from ..files.key import HEARTBEAT
from ..files.mimetype import DEFAULT_MIMETYPE, accept_mimetype
from ..files.ref import RecordRef
from ..finding import Finding
from ..rows.deletion import Rule
from ..rows.links import Link
from ..rows.paging import Row, records_of, rows_of
from ..settings import Settings
from ..settings.policy import Policy
from ..storage import IStorage, Stat
from .fsck import RESTORE
from .key_index import Keys
from .server import Server

COPY_AGAIN = "delete it there, and run it again"
MOVE_AWAY = "run it again; if it stays, look which of both is wanted, and delete the other"
ADOPT = "kinto-attachment import"

TRIES = 3
"""How often a key may be given to another file while it is copied."""


def copy(
    server: Server,
    target: IStorage,
    *,
    dry_run: bool = False,
    on_bytes: Callable[[int], None] = lambda count: None,
) -> Iterator[Finding]:
    """Copy every file that a record has, or that is kept, under the same key; each is read back and
    its hash compared. What is there already is not copied again, so that it can be interrupted,
    and run again for what came meanwhile. Of files whose keys never hold other bytes the size tells
    that they are there; :func:`~kinto_attachment.maintenance.fsck.check` reads them all.

    :param target: where to. An object of its own is written there, and deleted.
    :param on_bytes: is told how many bytes were copied.
    :raises NotImported: there are files that only rows of the existing plugin know.
    :raises SettingError: the files are there already.
    """
    if server.run(server.legacy.exist):
        raise NotImported()
    if _is_same(server.storage, target):
        raise SettingError("--to", "the files are in this storage already")
    copier = _Copier(server, target, dry_run, on_bytes)
    with closing(Keys()) as linked:
        last = ""
        for page in server.read(server.links.every()):
            linked.add((link.ref.uri, 0) for link in page)
            for link in page:
                if link.key != last:  # in the order of the keys
                    yield from copier.copy_linked(link)
                last = link.key
        for key in _others(server):
            yield from copier.copy_other(key)
        yield from _without_link(server, linked)


def _is_same(storage: IStorage, target: IStorage) -> bool:
    """Whether what is put in the one is in the other: nothing else knows all names of a place."""
    key, content = f"{HEARTBEAT}/{uuid4().hex}.txt", b"kinto-attachment migrate\n"
    digest = sha256(content).hexdigest()
    with target.spool() as file:
        file.write(content)
        file.flush()
        source = Source(file, "migrate.txt", "text/plain", len(content), digest)
        target.put(key, source)
    try:
        storage.stat(key)
    except BlobNotFound:
        return False
    finally:
        target.delete([key])
    return True


def _others(server: Server) -> Iterator[str]:
    """The keys of what is not verified yet, and of what is kept."""
    for page in server.read(server.pending.all()):
        yield from (upload.key for upload in page)
    for page in server.read(server.releases.all()):
        for release in page:
            yield from release.keys if release.rule is Rule.KEEP else ()


def _without_link(server: Server, linked: Keys) -> Iterator[Finding]:
    """Records whose files nobody knew to copy.

    :param linked: URIs of those that had a link.
    """
    for uri, rows in records_of(server.rows):
        _, _, bucket, _, collection = uri.split("/")
        refs = [RecordRef(bucket, collection, row["id"]) for row in rows if _location(row)]
        known = linked.find([ref.uri for ref in refs])
        for ref in refs:
            if ref.uri in known:
                continue
            # Detached since, or attached again.
            row = rows_of(server.rows, [ref]).get(ref, {})
            if _location(row) and not server.run(lambda ref=ref: server.links.of(ref)):
                yield Finding("record without link", "", ref.uri, _location(row), ADOPT)


def _location(row: Row) -> str:
    try:
        return Attachment.from_json(row.get(ATTRIBUTE)).location
    except ValueError:
        return ""  # none, or none of ours


@dataclass(frozen=True)
class _Wanted:
    """A blob, and what its object is to say of it.

    :param digest: empty, and the size None, if they are not known.
    """

    key: str
    digest: str = ""
    size: int | None = None
    filename: str = ""
    mimetype: str = ""
    immutable: bool = False
    private: bool = False
    record: str = ""

    @classmethod
    def linked(cls, settings: Settings, link: Link) -> "_Wanted":
        policy = settings.policy_of(link.ref)
        return cls(
            link.key,
            link.digest,
            link.size,
            link.filename,
            accept_mimetype(link.mimetype) or "",
            _is_immutable(link.key, [policy]),
            policy.private,
            link.ref.uri,
        )

    @classmethod
    def other(cls, settings: Settings, key: str) -> "_Wanted":
        """It is no longer told whose it was: private, if it may have been."""
        makers = settings.makers(key)
        private = any(policy.private for policy in makers or settings.policies)
        return cls(key, immutable=_is_immutable(key, makers), private=private)

    def source(self, file: Any, size: int, digest: str) -> Source:
        name = self.filename or self.key.rpartition("/")[2]
        mimetype = self.mimetype or guess_type(name)[0] or DEFAULT_MIMETYPE
        return Source(file, name, mimetype, size, digest, self.immutable, self.private)


def _is_immutable(key: str, policies: Iterable[Policy]) -> bool:
    templates = [policy.template for policy in policies if policy.template.makes(key)]
    return bool(templates) and all(template.unique or template.shared for template in templates)


class _Copier:
    def __init__(
        self, server: Server, target: IStorage, dry_run: bool, on_bytes: Callable[[int], None]
    ):
        self._server = server
        self._target = target
        self._dry_run = dry_run
        self._on_bytes = on_bytes

    def copy_linked(self, link: Link) -> Iterator[Finding]:
        """What is wrong may be so because the key is free, or another file's, by now."""
        for _ in range(TRIES):
            finding = self._copy(_Wanted.linked(self._server.settings, link))
            if finding is None or not finding.is_problem:
                break
            links = self._linked(link.key)
            if not links:
                return
            if link.digest in {other.digest for other in links}:
                break
            link = links[0]
        if finding:
            yield finding

    def copy_other(self, key: str) -> Iterator[Finding]:
        """What no record has. Of what is gone, nobody misses it."""
        finding = self._copy(_Wanted.other(self._server.settings, key))
        if finding and finding.kind != "missing object":
            yield finding

    def _linked(self, key: str) -> list[Link]:
        return self._server.run(lambda: self._server.links.having(key))

    def _copy(self, wanted: _Wanted) -> Finding | None:
        """What was done; None if there was nothing to do."""
        try:
            if self._is_there(wanted):
                return None
            if self._dry_run:
                self._server.storage.stat(wanted.key)
                return Finding("copied", wanted.key, wanted.record)
            return self._transfer(wanted)
        except BlobNotFound:
            return Finding("missing object", wanted.key, wanted.record, remedy=RESTORE)

    def _is_there(self, wanted: _Wanted) -> bool:
        """
        :raises BlobNotFound: it is nowhere.
        """
        try:
            found = self._target.stat(wanted.key).size
        except BlobNotFound:
            return False
        if wanted.immutable:
            size = wanted.size
            if size is None:
                size = self._server.storage.stat(wanted.key).size
            return found == size
        digest = wanted.digest or _digest(self._server.storage, wanted.key)
        return digest == _digest(self._target, wanted.key)

    def _transfer(self, wanted: _Wanted) -> Finding:
        """
        :raises BlobNotFound: it is not there.
        """
        digest, size = sha256(), 0
        chunks = self._server.storage.open(wanted.key)
        with closing(chunks), self._target.spool() as spool:
            for chunk in chunks:
                digest.update(chunk)
                size += len(chunk)
                spool.write(chunk)
                self._on_bytes(len(chunk))
            found = digest.hexdigest()
            if found != (wanted.digest or found):
                detail = f"SHA-256 is {found}, not {wanted.digest}"
                return Finding("wrong bytes", wanted.key, wanted.record, detail, RESTORE)
            spool.flush()
            if not self._put(wanted, wanted.source(spool, size, found)):
                detail = "another file has this key there"
                return Finding("conflict", wanted.key, wanted.record, detail, MOVE_AWAY)
        arrived = _digest(self._target, wanted.key)
        if arrived != found:
            if self._server.settings.makes_once(wanted.key):
                self._target.delete([wanted.key])  # which nobody else stores; the size is right
            detail = f"the copy has the SHA-256 {arrived}, not {found}"
            return Finding("wrong bytes", wanted.key, wanted.record, detail, COPY_AGAIN)
        return Finding("copied", wanted.key, wanted.record)

    def _put(self, wanted: _Wanted, source: Source) -> bool:
        """Whether it is there now: not in the place of what somebody may want."""
        try:
            there = self._target.stat(wanted.key)
        except BlobNotFound:
            pass
        else:
            if _digest(self._target, wanted.key) == source.digest:
                return True  # stored since
            if not self._is_outdated(wanted, there):
                return False
            self._target.delete([wanted.key])
        try:
            self._target.put(wanted.key, source)
        except BlobExists:
            return False
        return True

    def _is_outdated(self, wanted: _Wanted, there: Stat) -> bool:
        """Whether what is there came before its key was given to the file that is wanted, and
        still is. An upload under way stores its file after that."""
        links = self._linked(wanted.key)
        since = min((link.modified for link in links), default=0) / 1000
        is_wanted = bool(links) and all(link.digest == wanted.digest for link in links)
        return is_wanted and there.modified < datetime.fromtimestamp(since, timezone.utc)


def _digest(storage: IStorage, key: str) -> str:
    """
    :raises BlobNotFound:
    """
    digest = sha256()
    with closing(storage.open(key)) as chunks:
        for chunk in chunks:
            digest.update(chunk)
    return digest.hexdigest()
