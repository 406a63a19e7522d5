"""Moving the bytes to another storage while the server runs."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from mimetypes import guess_type
from typing import Any

from ..blob import Source
from ..errors import BlobExists, BlobNotFound
from ..finding import Finding
from ..links import Link
from ..media_type import DEFAULT_MIMETYPE, accept_mimetype
from ..releases import Rule
from ..rows import pages
from ..storage import IStorage
from . import Keys, Server
from .fsck import RESTORE

AGAIN = "run it again"


def copy(
    server: Server,
    target: IStorage,
    *,
    dry_run: bool = False,
    on_bytes: Callable[[int], None] = lambda count: None,
) -> Iterator[Finding]:
    """Copy every file that a record has, or that is kept, under the same key; each is read back and
    its hash compared. What is there already is not copied again, so that it can be interrupted,
    and run again for what came meanwhile.

    :param target: where to.
    :param on_bytes: is told how many bytes were copied.
    """
    copier = _Copier(server, target, dry_run, on_bytes)
    with closing(Keys()) as copied:
        for page in server.read(server.links.all()):
            for link in page:
                yield from copier.copy(_Wanted.of(server, link), copied)
        for page in server.read(server.releases.all()):
            for release in page:
                for key in release.keys if release.rule is Rule.KEEP else ():
                    yield from copier.copy(_Wanted(key), copied)
        yield from copier.take_back(copied)


@dataclass(frozen=True)
class _Wanted:
    """A blob, and what its object is to say of it."""

    key: str
    digest: str = ""
    filename: str = ""
    mimetype: str = ""
    immutable: bool = True
    private: bool = False
    record: str = ""

    @classmethod
    def of(cls, server: Server, link: Link) -> "_Wanted":
        policy = server.settings.policy(link.ref.bucket, link.ref.collection)
        return cls(
            link.key,
            link.digest,
            link.filename,
            accept_mimetype(link.mimetype) or "",
            policy.template.unique or policy.template.shared,
            policy.private,
            link.ref.uri,
        )

    def source(self, file: Any, size: int, digest: str) -> Source:
        name = self.filename or self.key.rpartition("/")[2]
        mimetype = self.mimetype or guess_type(name)[0] or DEFAULT_MIMETYPE
        return Source(file, name, mimetype, size, digest, self.immutable, self.private)


class _Copier:
    def __init__(
        self, server: Server, target: IStorage, dry_run: bool, on_bytes: Callable[[int], None]
    ):
        self._server = server
        self._target = target
        self._dry_run = dry_run
        self._on_bytes = on_bytes

    def copy(self, wanted: _Wanted, copied: Keys) -> Iterator[Finding]:
        if self._is_there(wanted):
            return
        if self._dry_run:
            yield Finding("copied", wanted.key, wanted.record)
            return
        try:
            problem = self._copy(wanted)
        except BlobNotFound:
            if self._is_needed(wanted.key):
                yield Finding("missing object", wanted.key, wanted.record, remedy=RESTORE)
            return
        if problem:
            yield Finding("wrong bytes", wanted.key, wanted.record, problem, RESTORE)
            return
        copied.add([(wanted.key, 0)])
        yield Finding("copied", wanted.key, wanted.record)

    def _is_there(self, wanted: _Wanted) -> bool:
        try:
            size = self._target.stat(wanted.key).size
            if wanted.immutable and size == self._server.storage.stat(wanted.key).size:
                return True  # an object is whole, or not there
            return wanted.digest == self._digest(self._target, wanted.key)
        except BlobNotFound:
            return False

    def _copy(self, wanted: _Wanted) -> str:
        """What is wrong with it; empty if all is well.

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
                return f"SHA-256 is {found}, not {wanted.digest}"
            spool.flush()
            source = wanted.source(spool, size, found)
            try:
                self._target.put(wanted.key, source)
            except BlobExists:
                # Under a name that was another file's.
                self._target.delete([wanted.key])
                self._target.put(wanted.key, source)
        arrived = self._digest(self._target, wanted.key)
        if arrived != found:
            self._target.delete([wanted.key])
            return f"the copy has the SHA-256 {arrived}, not {found}"
        return ""

    def _digest(self, storage: IStorage, key: str) -> str:
        digest = sha256()
        with closing(storage.open(key)) as chunks:
            for chunk in chunks:
                digest.update(chunk)
        return digest.hexdigest()

    def _is_needed(self, key: str) -> bool:
        return key in self._server.run(lambda: self._server.links.linked([key]))

    def take_back(self, copied: Keys) -> Iterator[Finding]:
        """What lost its record while it was copied."""
        links = self._server.links
        for page in self._server.read(self._server.releases.all()):
            for release in page:
                if release.rule is Rule.KEEP:
                    copied.remove(release.keys)
        for page in pages(copied):
            keys = [key for key, _ in page]
            linked = self._server.run(lambda keys=keys: links.linked(keys))
            gone = [key for key in keys if key not in linked]
            self._target.delete(gone)
            for key in gone:
                yield Finding("deleted", key, detail="its record is gone")
