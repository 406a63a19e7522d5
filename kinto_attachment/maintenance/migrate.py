"""Copying the files to another storage while the server runs.

The server may already use the other storage, so nothing that a server may have stored there is
deleted or overwritten. Only an object that is older than the link of the file is replaced: it is
the copy of an earlier file, left by an earlier run. A file that loses its record while it is copied
becomes an orphan in the other storage, and ``gc`` deletes it later.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from mimetypes import guess_type
from typing import Any
from uuid import uuid4

from ..errors import BlobExists, BlobNotFound, NotImported, SettingError
from ..files.blob import Digest, Source
from ..files.key import HEARTBEAT, MARKER
from ..files.mimetype import DEFAULT_MIMETYPE, accept_mimetype
from ..finding import NO_PROGRESS, Finding, Progress, restoring
from ..rows import KeyKind
from ..rows.deletion import Rule
from ..rows.key_index import KeyIndex
from ..rows.links import Link
from ..rows.paging import find_records, pages, records_of
from ..settings import Settings
from ..settings.policy import Policy
from ..storage import IStorage, Stat
from ..transactions.ownership import OwnedStorage
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
    progress: Progress = NO_PROGRESS,
) -> Iterator[Finding]:
    """Copy every file that has an owner or is kept, under the same key. Each copy is read back, and
    its hash is checked.

    Files that are already in the other storage are not copied again. So an interrupted run can be
    repeated, and another run copies what was uploaded in the meantime. If the bytes of a key never
    change, an object of the right size counts as a copy; only ``fsck --deep`` reads all bytes.

    Yields ``copied`` for each file that is, or would be, copied; with a remedy ``missing object``,
    ``wrong bytes``, ``conflict`` and ``record without link``.

    :param target: the other storage. A test object is written there, and deleted.
    :param dry_run: copy nothing, and write no test object: the same storage is then recognised only
        if both ini files call it the same.
    :param progress: is told of the files, and of the bytes that are copied.
    :raises NotImported: if there are files that only rows of the existing plugin know.
    :raises SettingError: if both storages are the same.
    :raises ForeignStorage: if the other storage belongs to another database.
    """
    if server.run(server.plugin.legacy.exist):
        raise NotImported()
    owned = OwnedStorage.of(target, server.plugin.rows.identities)
    owned.check_is_ours(dry_run)
    is_same = _has_same_place if dry_run else _is_same
    if is_same(server.plugin.storage, owned.inner):
        raise SettingError("--to", "this is the storage that has the files already")
    copier = _Copier(server, target, dry_run, progress)
    if progress.is_shown:  # this reads rows of the database, and asks neither storage
        for page in server.read(server.plugin.rows.links.one_of_each_key()):
            progress.expect(len(page), sum(link.size or 0 for link in page))
    with closing(KeyIndex()) as linked:
        last = ""
        for page in server.read(server.plugin.rows.links.all()):
            linked.add((link.ref.uri, 0) for link in page)
            for link in page:
                if link.key != last:  # links are read in the order of their keys
                    yield from copier.copy_linked(link)
                last = link.key
        for key in _other_keys(server):
            yield from copier.copy_other(key)
        yield from _without_link(server, linked)


def _is_same(storage: IStorage, target: IStorage) -> bool:
    """Return whether an object that is put into one storage is in the other one, too. The settings
    do not tell: one storage may have several URLs or paths."""
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


def _has_same_place(storage: IStorage, target: IStorage) -> bool:
    """Return whether two storages are the same as far as one can tell without writing anything: the
    same folder, or a bucket that both settings call the same."""
    if hasattr(storage, "path") and hasattr(target, "path"):
        own, other = (each.path(MARKER).removesuffix(MARKER) for each in (storage, target))
        if os.path.exists(own) and os.path.exists(other):
            return os.path.samefile(own, other)
        return os.path.realpath(own) == os.path.realpath(other)
    if not hasattr(storage, "place"):  # one of another package may have none
        return False
    return storage.place == getattr(target, "place", None)


def _other_keys(server: Server) -> Iterator[str]:
    """Yield the keys of unverified uploads and of kept files. Variants are not copied, because the
    server makes them again."""
    for page in server.read(server.plugin.rows.unlinked_keys()):
        for known in page:
            if known.kind is KeyKind.PENDING or known.rule is Rule.KEEP:
                yield known.key


def _without_link(server: Server, linked: KeyIndex) -> Iterator[Finding]:
    """Report records with a file and without a link to it: these files were not copied.

    :param linked: URIs of the places that had a link.
    """
    for records in records_of(server.list_all):
        for page in pages(server.locations(records)):
            known = linked.find([place.uri for place in page])
            for place in page:
                if place.uri in known:
                    continue
                # The file may have been removed or replaced since.
                now = server.locations(find_records(server.list_all, [place.record]))
                links = server.run(partial(server.plugin.rows.links.of, place))
                if place in now and not links:
                    yield Finding("record without link", "", place.uri, now[place], ADOPT)


@dataclass(frozen=True)
class _Wanted:
    """A file to copy, and the metadata of its copy.

    :param digest: SHA-256; empty if unknown.
    :param size: bytes; None if unknown.
    :param filename: the name for downloads; empty to use the one in the key.
    :param mimetype: the media type; empty to guess it from the name.
    :param immutable: whether the bytes of the key never change.
    :param private: whether clients may read the file through Kinto only.
    :param record: the URI of its owner, for findings; empty if it has none.
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
        """Return what to copy for a link."""
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
        """Return what to copy for a key without an owner. The copy is private if any collection
        that may have had the file is."""
        matching_policies = settings.matching_policies(key)
        private = any(policy.private for policy in matching_policies or settings.policies)
        return cls(key, immutable=_is_immutable(key, matching_policies), private=private)

    def source(self, file: Any, size: int, digest: str) -> Source:
        """Return the spooled bytes with this metadata."""
        name = self.filename or self.key.rpartition("/")[2]
        mimetype = self.mimetype or guess_type(name)[0] or DEFAULT_MIMETYPE
        return Source(file, name, mimetype, size, digest, self.immutable, self.private)


def _is_immutable(key: str, policies: Iterable[Policy]) -> bool:
    templates = [policy.template for policy in policies if policy.template.makes(key)]
    return bool(templates) and all(template.unique or template.shared for template in templates)


class _Copier:
    """One run."""

    def __init__(self, server: Server, target: IStorage, dry_run: bool, progress: Progress):
        self._server = server
        self._target = target
        self._dry_run = dry_run
        self._progress = progress
        self._moved = 0

    def copy_linked(self, link: Link) -> Iterator[Finding]:
        """Copy the file of a link, and report it.

        The key may lose its link, or get the link of another file, while it is copied. Therefore a
        problem is reported only if the key still belongs to the same file; another file is copied
        instead.
        """
        expected, self._moved = link.size or 0, 0
        yield from self._copy_linked(link)
        self._progress.add_files(1, expected, self._moved)

    def _copy_linked(self, link: Link) -> Iterator[Finding]:
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
        """Copy a file that no record has. It is not a problem if that file is gone."""
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
            return Finding(
                "missing object", wanted.key, wanted.record, remedy=restoring(wanted.record)
            )

    def _is_there(self, wanted: _Wanted) -> bool:
        """Return whether the target has the copy.

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
                self._progress.add_bytes(len(chunk))
                self._moved += len(chunk)
            found = digest.hexdigest()
            if found != (wanted.digest or found):
                detail = f"SHA-256 is {found}, not {wanted.digest}"
                return Finding(
                    "wrong bytes", wanted.key, wanted.record, detail, restoring(wanted.record)
                )
            spool.flush()
            if not self._put(wanted, wanted.source(spool, digest.size, found)):
                detail = "the other storage has another file under this key"
                return Finding("conflict", wanted.key, wanted.record, detail, MOVE_AWAY)
        arrived = _hash(self._target, wanted.key)
        if arrived != found:
            if self._server.plugin.settings.makes_once(wanted.key):
                self._target.delete([wanted.key])  # no upload can be storing this key
            detail = f"the copy has the SHA-256 {arrived}, not {found}"
            return Finding("wrong bytes", wanted.key, wanted.record, detail, COPY_AGAIN)
        return Finding("copied", wanted.key, wanted.record)

    def _put(self, wanted: _Wanted, source: Source) -> bool:
        """Store the copy; return False if another file, which may be needed, has its key."""
        try:
            there = self._target.stat(wanted.key)
        except BlobNotFound:
            pass
        else:
            if _hash(self._target, wanted.key) == source.digest:
                return True  # an upload has stored the same bytes since
            if not self._is_outdated(wanted, there):
                return False
            self._target.delete([wanted.key])
        try:
            self._target.put(wanted.key, source)
        except BlobExists:
            return False
        return True

    def _is_outdated(self, wanted: _Wanted, there: Stat) -> bool:
        """Return whether an object was stored before its key was given to the wanted file. An
        upload that is still in progress stores its file after that."""
        links = self._linked(wanted.key)
        since = min((link.modified for link in links), default=0) / 1000
        is_wanted = bool(links) and all(link.digest == wanted.digest for link in links)
        return is_wanted and there.modified < datetime.fromtimestamp(since, timezone.utc)


def _hash(storage: IStorage, key: str) -> str:
    """Return the SHA-256 of a stored object.

    :raises BlobNotFound: if there is no such object.
    """
    return Digest.of(storage.open(key)).hexdigest()
