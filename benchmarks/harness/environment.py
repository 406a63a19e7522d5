"""The environment of a run: a database server, an object store, and the servers to measure.

Each server is started when it is first needed, and runs until the end.
"""

import shutil
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import uuid4

import psycopg2
from kinto import main as kinto_main
from sqlalchemy.engine import make_url

from tests.support.servers import Process, free_port, is_listening
from tests.support.servers.postgresql import PostgreSQL
from tests.support.servers.s3 import SeaweedFS
from tests.support.servers.wsgi import Gunicorn

from . import statements
from .client import Client
from .process_stats import WorkerPool

ROOT = Path(__file__).resolve().parents[2]
KINTO, EXISTING, OURS = "Kinto, no plugin", "existing plugin", "kinto-attachment"
INCLUDES = {KINTO: "", EXISTING: "kinto_attachment", OURS: "kinto_attachment"}
GTHREAD = "--worker-class gthread --timeout 120 --keep-alive 60 --no-control-socket"


def command(python: Path | str, port: int, workers: int, threads: int) -> list[str]:
    """Return the gunicorn command, which is the same for all servers."""
    options = [*GTHREAD.split(), "--workers", str(workers), "--threads", str(threads)]
    return [str(python), "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", *options]


class Kinto(Gunicorn):
    """A Kinto server under gunicorn.

    :param name: ``KINTO``, ``EXISTING`` or ``OURS``.
    :param python: the Python interpreter that has it.
    :param folder: a folder with a copy of :mod:`benchmarks.harness.statements`.
    :param s3: the object store that has the files; None if they are in a folder.
    :ivar files: that folder.
    :ivar database: the URL of the database.
    :ivar statements: a log of the SQL statements, if ``statements`` is included.
    """

    def __init__(
        self,
        name: str,
        python: Path | str,
        settings: dict[str, str],
        folder: Path,
        workers: int,
        threads: int,
        s3: SeaweedFS | None = None,
    ):
        self.s3 = s3
        self.name, self.settings, self._python = name, settings, python
        self.workers, self.threads = workers, threads
        self.files = Path(settings["kinto.attachment.base_path"])
        self.database = settings["kinto.storage_url"]
        self.statements = folder / f"statements-{uuid4().hex}"
        # Only this folder: the one of this program has another plugin of the same name.
        env = {"PYTHONPATH": str(folder), "STATEMENTS": str(self.statements)}
        super().__init__(settings, folder, env)
        self.client = Client(self.port)

    def command(self) -> list[str]:
        (*start,) = command(self._python, self.port, self.workers, self.threads)
        return [*start, "--paste", str(self.ini)]


class Floor(Process):
    """A program of :mod:`benchmarks.harness.baseline`, under the same gunicorn as Kinto.

    :param folder: the folder of its files (``FLOOR_FOLDER``).
    """

    def __init__(self, program: str, folder: Path, **env: str):
        self.port = free_port()
        start = command(sys.executable, self.port, 1, 8)
        env = {"PYTHONPATH": str(ROOT), "FLOOR_FOLDER": str(folder), **env}
        program = f"benchmarks.harness.baseline:{program}"
        super().__init__([*start, program], folder, lambda: is_listening(self.port), env)
        self.client = Client(self.port)


class Environment:
    """The servers of a run.

    :param stack: ends the servers at the end of the run.
    :param folder: the folder of all files.
    :param existing: the Python interpreter that has the existing plugin; None if that could not be
        installed.
    :param quick: whether to use smaller sizes.
    """

    def __init__(self, stack: ExitStack, folder: Path, existing: Path | None, quick: bool):
        self.folder, self.quick = folder, quick
        self._stack = stack
        self._pythons = {KINTO: sys.executable, EXISTING: existing, OURS: sys.executable}
        self._servers: dict[tuple, Kinto] = {}
        self._creating = Lock()
        shutil.copy(str(statements.__file__), folder)

    def pick(self, full: int, quick: int) -> int:
        """Return one of two sizes: ``quick`` in a quick run, otherwise ``full``."""
        return quick if self.quick else full

    @property
    def plugins(self) -> list[str]:
        """The names of the plugins that are installed."""
        return [name for name in (EXISTING, OURS) if self._pythons[name]]

    @property
    def kintos(self) -> list[str]:
        """The names of all Kinto servers, first the one without a plugin."""
        return [KINTO, *self.plugins]

    def make_folder(self) -> Path:
        """Create a new folder."""
        folder = self.folder / uuid4().hex
        folder.mkdir()
        return folder

    def server(
        self,
        name: str,
        storage: str = "local",
        *,
        workers: int = 1,
        threads: int = 8,
        role: str = "",
        includes: str = "",
    ) -> Kinto:
        """Return a Kinto server with a database of its own; start it if necessary.

        :param storage: ``local`` or ``s3``.
        :param role: distinguishes servers that differ only in their data.
        :param includes: further ``kinto.includes``.
        """
        key = (name, storage, workers, threads, role)
        if key not in self._servers:
            settings = self.settings(storage, f"{INCLUDES[name]} {includes}")
            python = self._pythons[name]
            s3 = self.s3 if storage == "s3" else None
            server = Kinto(name, python, settings, self.folder, workers, threads, s3)
            self._servers[key] = self._stack.enter_context(server)
        return self._servers[key]

    def servers(self, **options: Any) -> dict[str, Kinto]:
        """Return a server for each name in :attr:`kintos`. They are started at the same time. The
        options are those of :meth:`server`."""
        _ = self._template  # create it once, before the threads do
        with ThreadPoolExecutor() as pool:
            started = pool.map(lambda name: self.server(name, **options), self.kintos)
            return dict(zip(self.kintos, started, strict=True))

    def stop(self) -> None:
        """Stop all Kinto servers."""
        stop_all(self._servers.values())

    def floor(self, program: str, folder: Path | None = None, **env: str) -> Floor:
        """Start a program of :mod:`benchmarks.harness.baseline`."""
        return self._stack.enter_context(Floor(program, folder or self.make_folder(), **env))

    def settings(self, storage: str, includes: str) -> dict[str, str]:
        """Return the settings of a server with a new database and an empty storage."""
        url = self._create_database()
        settings = {
            "kinto.includes": includes,
            "kinto.storage_backend": "kinto.core.storage.postgresql",
            "kinto.storage_url": url,
            "kinto.permission_backend": "kinto.core.permission.postgresql",
            "kinto.permission_url": url,
            "kinto.attachment.base_path": str(self.make_folder()),
        }
        if storage == "s3":
            s3 = self.s3.settings(self.s3.bucket())
            settings.update({f"kinto.{key}": value for key, value in s3.items()})
        return settings

    @cached_property
    def s3(self) -> SeaweedFS:
        """The object store, which is started when it is first needed."""
        return self._stack.enter_context(SeaweedFS(self.make_folder()))

    @cached_property
    def _postgresql(self) -> str:
        return start_postgresql(self._stack, self.make_folder()).url

    @cached_property
    def _template(self) -> str:
        """The name of a template database with the tables of Kinto."""
        postgresql = self._postgresql
        _execute(postgresql, "CREATE DATABASE kinto ENCODING 'UTF8' TEMPLATE template0")
        url = _database(postgresql, "kinto")
        settings = {
            f"kinto.{kind}_{key}": value
            for kind in ("storage", "permission")
            for key, value in (("backend", f"kinto.core.{kind}.postgresql"), ("url", url))
        }
        registry = kinto_main({}, **settings).registry
        for backend in (registry.storage, registry.permission):
            backend.initialize_schema()
            backend.client.session_factory.session_factory.kw["bind"].dispose()
        return "kinto"

    def _create_database(self) -> str:
        name = f"kinto_{uuid4().hex}"
        with self._creating:
            _execute(self._postgresql, f"CREATE DATABASE {name} TEMPLATE {self._template}")
        return _database(self._postgresql, name)


def stop_all(servers: Iterable[Gunicorn]) -> None:
    """Stop servers at the same time, because each takes a second."""
    with ThreadPoolExecutor() as pool:
        for stopped in [pool.submit(server.stop) for server in servers]:
            stopped.result()


def start_postgresql(stack: ExitStack, folder: Path) -> PostgreSQL:
    """Start a PostgreSQL server that syncs to the disk, as in production."""
    server = stack.enter_context(PostgreSQL(folder))
    # The server of the tests does not.
    for option in ("fsync", "full_page_writes"):
        _execute(server.url, f"ALTER SYSTEM SET {option} = on")
    _execute(server.url, "SELECT pg_reload_conf()")
    return server


def _execute(url: str, statement: str) -> None:
    connection = psycopg2.connect(url)
    try:
        connection.autocommit = True  # CREATE DATABASE and ALTER SYSTEM need it
        with connection.cursor() as cursor:
            cursor.execute(statement)
    finally:
        connection.close()


def _database(url: str, name: str) -> str:
    return make_url(url).set(database=name).render_as_string(hide_password=False)


def workers_of(server: Kinto | Floor) -> WorkerPool:
    """Return the worker processes of a server."""
    return WorkerPool(server.pid)
