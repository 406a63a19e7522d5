"""Version 8, in a virtual environment of its own, as both have the same import name."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.servers.wsgi import Gunicorn

REUSE = "KINTO_ATTACHMENT_EXISTING"
"""Environment variable: the python of a virtual environment that has version 8."""

REQUIREMENTS = ["kinto-attachment==8.0.0", "kinto[postgresql]", "gunicorn", "setuptools<81"]

# Copies records as kinto-signer does, if a header asks for it.
COPIER = """\
from pyramid.events import NewRequest


def includeme(config):
    config.add_subscriber(copy, NewRequest)


def copy(event):
    if event.request.headers.get("X-Copy"):
        event.request._attachment_auto_save = True
"""


class NotInstalled(Exception):
    """Version 8 could not be installed; the message tells why."""


def find_python(folder: Path) -> Path:
    """Return the python that has version 8, and install it in that folder if there is none.

    :raises NotInstalled: if pip fails.
    """
    if os.environ.get(REUSE):
        return Path(os.environ[REUSE])
    python = Path(folder) / "bin" / "python"
    installed, expected = Path(folder) / "installed", f"{sys.version} {folder} {REQUIREMENTS}"
    if installed.exists() and installed.read_text() == expected:
        return python
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", *REQUIREMENTS],
    ):
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
        except (OSError, subprocess.SubprocessError) as error:
            raise NotInstalled(getattr(error, "stderr", "") or error) from error
    installed.write_text(expected)
    return python


class ExistingPlugin(Gunicorn):
    """A Kinto with version 8, whose database is migrated.

    :param python: of its virtual environment.
    :ivar ini: for this plugin as well.
    """

    def __init__(self, python: Path, settings: dict[str, str], folder: Path):
        self._python = python
        (Path(folder) / "copier.py").write_text(COPIER)
        super().__init__(settings, folder, {"PYTHONPATH": str(folder)})

    def command(self) -> list[str]:
        kinto = [str(self._python.parent / "kinto"), "migrate", "--ini", str(self.ini)]
        env = {**os.environ, "PYTHONPATH": str(self.ini.parent)}
        subprocess.run(kinto, check=True, capture_output=True, env=env, timeout=120)
        _, *options = super().command()
        return [str(self._python), "-m", "gunicorn", *options]
