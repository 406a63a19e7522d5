"""Copying the files to another storage while the server runs.

The server may already use the other storage. Nothing is deleted there, therefore: ``gc`` finds what
loses its record while it is copied. A file that is there stays, unless it was stored before its key
was given to the file that is to be copied: then an earlier run has left it.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from mimetypes import guess_type
from typing import Any
from uuid import uuid4

from ..errors import BlobExists, BlobNotFound, NotImported, SettingError
from ..files.blob import ATTRIBUTE, Attachment, Digest, Source
from ..files.key import HEARTBEAT
from ..files.mimetype import DEFAULT_MIMETYPE, accept_mimetype
from ..finding import Finding
from ..rows import KeyKind
from ..rows.deletion import Rule
from ..rows.key_index import KeyIndex
from ..rows.links import Link
from ..rows.paging import Row, find_records, records_of
from ..settings import Settings
from ..settings.policy import Policy
from ..storage import IStorage, Stat
from .fsck import RESTORE
from .server import Server

COPY_AGAIN = "delete the copy, and run migrate again"
MOVE_AWAY = "run migrate again; if the conflict stays, compare both files, and delete the wrong one"
ADOPT = "kinto-attachment import"

ATTEMPTS = 3
"""How often a key may be given to another file while it is copied."""


def copy(
    server: Server,
    target: IStorage,
    *,
    dry_run: bool = False,
    on_bytes: Callable[[int], None] = lambda count: None,
) -> Iterator[Finding]:
    """Copy every file that has an owner or is kept, under the same key. Each copy is read back and
    its hash compared.

    What is there already is not copied again, so a run can be interrupted, and repeated for what
    came meanwhile. Where a key never holds other bytes, the size tells whether the copy is there;
    ``fsck --deep`` reads them all.

    :param target: the other storage. An object is written there as a test, and deleted.
    :param on_bytes: is told how many bytes were copied.
    :raises NotImported: if there are files that only rows of the existing plugin know.
    :raises SettingError: if both storages are the same place.
    """
    if server.run(server.plugin.legacy.exist):
        raise NotImported()
    if _is_same(server.plugin.storage, target):
        raise SettingError("--to", "is the storage that the files are in")
    copier = _Copier(server, target, dry_run, on_bytes)
    with closing(KeyIndex()) as linked:
        last = ""
        for page in server.read(server.plugin.rows.links.all()):
            linked.add((link.ref.uri, 0) for link in page)
            for link in page:
                if link.key != last:  # in the order of the keys
                    yield from copier.copy_linked(link)
                last = link.key
        for key in _other_keys(server):
            yield from copier.copy_other(key)
        yield from _without_link(server, linked)


def _is_same(storage: IStorage, target: IStorage) -> bool:
    """Return whether an object that is put into the one is in the other. Only this recognises all
    names of a place."""
    key, content = f"{HEARTBEAT}/{uuid4().hex}.txt", b"kinto-attachment migrate\n"
    digest = Digest.of([content]).hexdigest()
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


def _other_keys(server: Server) -> Iterator[str]:
    """Yield the keys of unchecked uploads and of kept files. Variants are made again."""
    for page in server.read(server.plugin.rows.unlinked_keys()):
        for known in page:
            if known.kind is KeyKind.PENDING or known.rule is Rule.KEEP:
                yield known.key


def _without_link(server: Server, linked: KeyIndex) -> Iterator[Finding]:
    """Report records whose files were not copied, because they have no link.

    :param linked: URIs of the records that had a link.
    """
    for records in records_of(server.list_all):
        refs = [ref for ref, row in records.items() if _location(row)]
        known = linked.find([ref.uri for ref in refs])
        for ref in refs:
            if ref.uri in known:
                continue
            # The file may have been detached since, or replaced.
            row = find_records(server.list_all, [ref]).get(ref, {})
            links = server.run(partial(server.plugin.rows.links.of, ref))
            if _location(row) and not links:
                yield Finding("record without link", "", ref.uri, _location(row), ADOPT)


def _location(row: Row) -> str:
    try:
        return Attachment.from_json(row.get(ATTRIBUTE)).location
    except ValueError:
        return ""  # no attachment, or another application's attribute


@dataclass(frozen=True)
class _Wanted:
    """A blob to copy, and what its object will say about itself.

    :param digest: SHA-256; empty if it is unknown.
    :param size: bytes; None if it is unknown.
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
            key=link.key,
            digest=link.digest,
            size=link.size,
            filename=link.filename,
            mimetype=accept_mimetype(link.mimetype) or "",
            immutable=_is_immutable(link.key, [policy]),
            private=policy.private,
            record=link.ref.uri,
        )

    @classmethod
    def other(cls, settings: Settings, key: str) -> "_Wanted":
        """Return what to copy under a key that has no owner any more. It is private if it may have
        been."""
        matching_policies = settings.matching_policies(key)
        private = any(policy.private for policy in matching_policies or settings.policies)
        return cls(key, immutable=_is_immutable(key, matching_policies), private=private)

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
        """Copy the file of a link. A problem may only mean that the key is free by now, or that
        another file has it."""
        for _ in range(ATTEMPTS):
            finding = self._copy(_Wanted.linked(self._server.plugin.settings, link))
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
        """Copy a file that no record has. If it is gone, no record misses it."""
        finding = self._copy(_Wanted.other(self._server.plugin.settings, key))
        if finding and finding.kind != "missing object":
            yield finding

    def _linked(self, key: str) -> list[Link]:
        return self._server.run(lambda: self._server.plugin.rows.links.having(key))

    def _copy(self, wanted: _Wanted) -> Finding | None:
        """Copy a file, and report it; return None if there was nothing to do."""
        try:
            if self._is_there(wanted):
                return None
            if self._dry_run:
                self._server.plugin.storage.stat(wanted.key)
                return Finding("copied", wanted.key, wanted.record)
            return self._transfer(wanted)
        except BlobNotFound:
            return Finding("missing object", wanted.key, wanted.record, remedy=RESTORE)

    def _is_there(self, wanted: _Wanted) -> bool:
        """Return whether the copy is there.

        :raises BlobNotFound: if the file is in neither storage.
        """
        try:
            found = self._target.stat(wanted.key).size
        except BlobNotFound:
            return False
        if wanted.immutable:
            size = wanted.size
            if size is None:
                size = self._server.plugin.storage.stat(wanted.key).size
            return found == size
        digest = wanted.digest or _hash(self._server.plugin.storage, wanted.key)
        return digest == _hash(self._target, wanted.key)

    def _transfer(self, wanted: _Wanted) -> Finding:
        """Copy the bytes, read them back, and report it.

        :raises BlobNotFound: if the file is gone.
        """
        digest = Digest()
        chunks = self._server.plugin.storage.open(wanted.key)
        with closing(chunks), self._target.spool() as spool:
            for chunk in chunks:
                digest.update(chunk)
                spool.write(chunk)
                self._on_bytes(len(chunk))
            found = digest.hexdigest()
            if found != (wanted.digest or found):
                detail = f"SHA-256 is {found}, not {wanted.digest}"
                return Finding("wrong bytes", wanted.key, wanted.record, detail, RESTORE)
            spool.flush()
            if not self._put(wanted, wanted.source(spool, digest.size, found)):
                detail = "another file has this key there"
                return Finding("conflict", wanted.key, wanted.record, detail, MOVE_AWAY)
        arrived = _hash(self._target, wanted.key)
        if arrived != found:
            if self._server.plugin.settings.makes_once(wanted.key):
                self._target.delete([wanted.key])  # no upload stores this key
            detail = f"the copy has the SHA-256 {arrived}, not {found}"
            return Finding("wrong bytes", wanted.key, wanted.record, detail, COPY_AGAIN)
        return Finding("copied", wanted.key, wanted.record)

    def _put(self, wanted: _Wanted, source: Source) -> bool:
        """Store the copy; return False if another file, which may be needed, has its place."""
        try:
            there = self._target.stat(wanted.key)
        except BlobNotFound:
            pass
        else:
            if _hash(self._target, wanted.key) == source.digest:
                return True  # an upload has stored it since
            if not self._is_outdated(wanted, there):
                return False
            self._target.delete([wanted.key])
        try:
            self._target.put(wanted.key, source)
        except BlobExists:
            return False
        return True

    def _is_outdated(self, wanted: _Wanted, there: Stat) -> bool:
        """Return whether the object was stored before its key was given to the wanted file. An
        upload that is under way stores its file after that."""
        links = self._linked(wanted.key)
        since = min((link.modified for link in links), default=0) / 1000
        is_wanted = bool(links) and all(link.digest == wanted.digest for link in links)
        return is_wanted and there.modified < datetime.fromtimestamp(since, timezone.utc)


def _hash(storage: IStorage, key: str) -> str:
    """Return the SHA-256 of a stored object.

    :raises BlobNotFound: if there is no such object.
    """
    return Digest.of(storage.open(key)).hexdigest()
