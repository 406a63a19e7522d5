"""Kinto under the usual WSGI servers, each in a process of its own."""

import sys
from pathlib import Path

import requests

from tests.support.servers import Process, free_port
from tests.support.site import SETTINGS

BIN = Path(sys.executable).parent

MEMORY = {
    f"kinto.{kind}_backend": f"kinto.core.{kind}.memory"
    for kind in ("storage", "permission", "cache")
}

INI = """\
[app:main]
use = egg:kinto
{settings}

[server:main]
use = egg:waitress
listen = 127.0.0.1:{port}
threads = 16

[loggers]
keys = root

[handlers]
keys = console

[formatters]
keys = plain

[logger_root]
level = WARNING
handlers = console

[handler_console]
class = StreamHandler
args = (sys.stderr,)
formatter = plain

[formatter_plain]
format = %(asctime)s %(levelname)s %(name)s %(message)s
"""


def write_ini(path: Path, settings: dict[str, str]) -> Path:
    """Write an ini file for the commands, and return its path."""
    lines = "\n".join(f"{key} = {value}" for key, value in settings.items())
    path.write_text(INI.format(settings=lines.replace("%", "%%"), port=0))
    return path


class KintoServer:
    """
    :param settings: of the ini file, over those of :mod:`tests.support.site` and memory storages.
    :param folder: for the ini file and the log.
    :ivar url: with the version prefix.
    """

    def __init__(self, settings: dict[str, str], folder: Path, env: dict[str, str] | None = None):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.ini = Path(folder) / f"kinto-{self.port}.ini"
        lines = (f"{key} = {value}" for key, value in {**SETTINGS, **MEMORY, **settings}.items())
        # PasteDeploy interpolates.
        text = INI.format(settings="\n".join(lines).replace("%", "%%"), port=self.port)
        self.ini.write_text(text)
        self._process = Process(self.command(), Path(folder), self._answers, env)
        self.pid = self._process.pid
        self.log = self._process.log

    def command(self) -> list[str]:
        raise NotImplementedError

    def _answers(self) -> bool:
        try:
            return requests.get(f"{self.url}/__lbheartbeat__", timeout=5).ok
        except requests.RequestException:
            return False

    def stop(self, *args) -> None:
        self._process.stop(*args)

    def __enter__(self) -> "KintoServer":
        return self

    def __exit__(self, *exc_info) -> None:
        self.stop()


class Gunicorn(KintoServer):
    workers, threads, worker_class = 1, 8, "gthread"

    def command(self) -> list[str]:
        options = f"--workers {self.workers} --worker-class {self.worker_class} --timeout 120"
        options += " --keep-alive 75"  # as in config/gunicorn.conf.py
        options += " --no-control-socket"  # the socket would be in the home directory
        if self.worker_class == "gthread":
            options += f" --threads {self.threads}"
        bind = ["--bind", f"127.0.0.1:{self.port}"]
        return [str(BIN / "gunicorn"), "--paste", str(self.ini), *bind, *options.split()]


class GunicornSync(Gunicorn):
    worker_class = "sync"


class Gunicorn16(Gunicorn):
    """Gunicorn with as many threads as ``config/gunicorn.conf.py`` sets."""

    threads = 16


class GunicornProcesses(Gunicorn):
    """Two processes of many threads."""

    workers, threads = 2, 50


class Waitress(KintoServer):
    def command(self) -> list[str]:
        return [str(BIN / "pserve"), str(self.ini)]


class UWSGI(KintoServer):
    def command(self) -> list[str]:
        options = "--master --die-on-term --enable-threads --threads 8 --socket-timeout 60"
        return [
            str(BIN / "uwsgi"),
            *("--http-socket", f"127.0.0.1:{self.port}", "--ini-paste", str(self.ini)),
            *options.split(),
        ]
