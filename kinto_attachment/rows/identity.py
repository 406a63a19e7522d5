"""The identity of a database: a random id that it writes into the storages that belong to it.

A copy of a database has to differ from the original: a staging server is restored from the dump of
a production server, and must not delete the files of that one. The id of the row is therefore made
of what PostgreSQL itself calls the database. A restored copy finds no row of its own, and makes
another one.
"""

from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from uuid import uuid4

from kinto.core.storage.exceptions import ObjectNotFoundError, UnicityError

from .paging import Row

IDENTITY_ROWS = "attachment-identity"
IDENTITY_PARENT = "/attachment-identity"


@dataclass(frozen=True)
class Identity:
    """Which database this is.

    :param owner: the random id that its storages are marked with.
    :param folders: the paths of the marks that it has made in folders of a server.
    """

    owner: str
    folders: tuple[str, ...] = ()


class Identities:
    """The identity of the database. Every method works within the caller's transaction.

    :param storage: ``registry.storage``.
    """

    def __init__(self, storage: Any):
        self._storage = storage

    def get(self) -> Identity:
        """Return the identity of this database. The first call makes it."""
        row_id = self._row_id()
        row = self._find(row_id)
        if row is None:
            new = {"id": row_id, "owner": uuid4().hex, "folders": []}
            try:
                row = self._storage.create(IDENTITY_ROWS, IDENTITY_PARENT, new)
            except UnicityError:  # another process has made it since
                row = self._storage.get(IDENTITY_ROWS, IDENTITY_PARENT, row_id)
        return Identity(row["owner"], tuple(row["folders"]))

    def save(self, identity: Identity) -> None:
        """Write the identity of this database. Idempotent."""
        row = {"owner": identity.owner, "folders": list(identity.folders)}
        self._storage.update(IDENTITY_ROWS, IDENTITY_PARENT, self._row_id(), row)

    def _find(self, row_id: str) -> Row | None:
        try:
            return self._storage.get(IDENTITY_ROWS, IDENTITY_PARENT, row_id)
        except ObjectNotFoundError:
            return None

    def _row_id(self) -> str:
        """Return an id that a restored copy of this database does not have: PostgreSQL gives a
        random identifier to each cluster, and a number to each database in it."""
        client = getattr(self._storage, "client", None)
        if client is None:
            return "memory"
        import sqlalchemy  # here, because PostgreSQL is an optional extra of Kinto

        may_ask = "SELECT has_function_privilege('pg_control_system()', 'EXECUTE')"
        cluster = "SELECT system_identifier FROM pg_control_system()"
        database = "SELECT oid FROM pg_database WHERE datname = current_database()"
        with client.connect(readonly=True) as connection:
            allowed = connection.execute(sqlalchemy.text(may_ask)).scalar()
            queries = [cluster, database] if allowed else [database]
            names = [connection.execute(sqlalchemy.text(query)).scalar() for query in queries]
        return sha256(repr(names).encode()).hexdigest()
