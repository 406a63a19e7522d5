"""The identity of a database: a random id that it writes into the storages that belong to it.

A copy of a database has to differ from the original: a staging server is restored from the dump of
a production server, and must not delete the files of that one.

* A dump that was restored elsewhere is told apart at once. The id of the row is made of what
  PostgreSQL itself calls the database, so that the copy finds no row of its own, and makes another
  one with another random id.
* A physical copy (a snapshot of the disk, ``pg_basebackup``) has the row, because PostgreSQL calls
  both the same. It is told apart as soon as ``gc`` has run in the original: each run writes a new
  nonce into the row and into the storage, which the row of the copy does not have.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import chain
from threading import Lock
from typing import Any
from uuid import uuid4

from kinto.core.storage.exceptions import ObjectNotFoundError, UnicityError

from .paging import Row, check_types, readable

IDENTITY_ROWS = "attachment-identity"
IDENTITY_PARENT = "/attachment-identity"

MAX_NONCES = 100
"""How many nonces a database remembers. It needs one for each storage that it has ever used, and
one for each mark that could not be written."""

_TABLE = "SELECT to_regclass('objects')::oid"
_MAY_ASK = "SELECT has_function_privilege('pg_control_system()', 'EXECUTE')"
_CLUSTER = "SELECT system_identifier FROM pg_control_system()"
_DATABASE = "SELECT oid FROM pg_database WHERE datname = current_database()"
_NAME = "SELECT current_database()"

_LOCK_ROW = (
    "SELECT 1 FROM objects WHERE id = :id AND parent_id = :parent "
    "AND resource_name = :rows FOR UPDATE"
)


@dataclass(frozen=True)
class Identity:
    """Which database this is.

    :param owner: the random id that its storages are marked with; empty if it has none yet.
    :param folders: the paths of the marks that it has made in folders of a server.
    :param nonces: what ``gc`` has added to its marks. Each nonce comes with the one before it in
        the same mark, which is still there if the process died before it could write the new one.
    """

    owner: str = ""
    folders: tuple[str, ...] = ()
    nonces: tuple[tuple[str, str], ...] = ()

    def has_made(self, owner: str, nonce: str) -> bool:
        """Return whether this database has made that mark.

        :param nonce: empty in a mark that ``gc`` has not renewed yet.
        """
        is_known = not nonce or any(nonce in pair for pair in self.nonces)
        return bool(owner) and owner == self.owner and is_known

    def renewed(self, before: str, nonce: str) -> "Identity":
        """Return the identity with a new nonce, which replaces the one that is in the mark now.

        >>> Identity("a").renewed("", "1").renewed("1", "2").renewed("2", "3").nonces
        (('3', '2'),)
        """
        others = tuple(pair for pair in self.nonces if pair[0] != before)
        return replace(self, nonces=(*others, (nonce, before))[-MAX_NONCES:])

    def with_folder(self, folder: str) -> "Identity":
        """Return the identity with one more folder."""
        return replace(self, folders=(*(each for each in self.folders if each != folder), folder))


class Identities:
    """The identity of the database. Every method works within the caller's transaction.

    :param storage: ``registry.storage``.
    """

    def __init__(self, storage: Any):
        self._storage = storage
        self._lock = Lock()

    @property
    def lasts(self) -> bool:
        """Whether the database outlives its server. One in memory has no identity, and cannot be
        the copy of another one."""
        return hasattr(self._storage, "client")

    def find(self) -> Identity:
        """Return the identity of this database; an empty one if it has none that can be read."""
        row_id = self._row_id()
        return self._find(row_id) if row_id else Identity()

    def get(self) -> Identity:
        """Return the identity of this database. The first call makes it, and makes a new one if it
        cannot be read: no storage belongs to the database then until an operator says so."""
        row_id = self._row_id()
        found = self._find(row_id)
        if found.owner:
            return found
        new = Identity(uuid4().hex)
        try:
            self._storage.create(IDENTITY_ROWS, IDENTITY_PARENT, {"id": row_id, **_row(new)})
        except UnicityError:  # it cannot be read, or another process has made it since
            found = self._find(row_id)
            if found.owner:
                return found
            self.save(new)
        return new

    def save(self, identity: Identity) -> None:
        """Write the identity of this database. Idempotent."""
        row_id = self._row_id()
        self._storage.update(IDENTITY_ROWS, IDENTITY_PARENT, row_id, _row(identity))

    def change(self, call: Callable[[Identity], Identity]) -> Identity:
        """Write what ``call`` returns for the present identity, and return it. Others that change
        it wait for the end of the caller's transaction."""
        self.get()
        with self._lock:
            self._lock_row()
            changed = call(self.get())
            self.save(changed)
        return changed

    def disconnect(self) -> None:
        """Close the unused connections to the database: a server may fork now, and its processes
        must not share one."""
        client = getattr(self._storage, "client", None)
        if client is not None:
            with client.connect(readonly=True) as session:
                session.get_bind().dispose()

    def _find(self, row_id: str) -> Identity:
        try:
            row = self._storage.get(IDENTITY_ROWS, IDENTITY_PARENT, row_id)
        except ObjectNotFoundError:
            return Identity()
        return next(readable([row], _identity), Identity())

    def _lock_row(self) -> None:
        client = getattr(self._storage, "client", None)
        if client is None:
            return
        import sqlalchemy  # here, because PostgreSQL is an optional extra of Kinto

        row = {"id": self._row_id(), "parent": IDENTITY_PARENT, "rows": IDENTITY_ROWS}
        with client.connect() as connection:
            connection.execute(sqlalchemy.text(_LOCK_ROW), row)

    def _row_id(self) -> str:
        """Return an id that a restored dump of this database does not have, or an empty string if
        the database has no tables yet.

        PostgreSQL gives a random identifier to each cluster, and a number to each database in it.
        Not every role may ask for the identifier. Without it, the numbers of two new clusters can
        be the same, so that the name of the database and the number of Kinto's table are added. If
        these are the same, too, a restored dump is not told apart from a physical copy.
        """
        client = getattr(self._storage, "client", None)
        if client is None:
            return "memory"
        import sqlalchemy  # here, because PostgreSQL is an optional extra of Kinto

        with client.connect(readonly=True) as connection:

            def ask(query: str) -> Any:
                return connection.execute(sqlalchemy.text(query)).scalar()

            if ask(_TABLE) is None:
                return ""
            queries = [_CLUSTER, _DATABASE] if ask(_MAY_ASK) else [_DATABASE, _TABLE, _NAME]
            return sha256(repr([ask(query) for query in queries]).encode()).hexdigest()


def _row(identity: Identity) -> Row:
    return {
        "owner": identity.owner,
        "folders": list(identity.folders),
        "nonces": [list(pair) for pair in identity.nonces],
    }


def _identity(row: Row) -> Identity:
    row = {"nonces": [], **row}
    check_types(row, owner=str, folders=list, nonces=list)
    nonces = tuple((new, before) for new, before in row["nonces"])
    if not all(isinstance(text, str) for text in (*row["folders"], *chain(*nonces))):
        raise TypeError("a folder or a nonce is not text")
    return Identity(row["owner"], tuple(row["folders"]), nonces)
