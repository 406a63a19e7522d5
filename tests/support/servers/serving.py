"""``make serve``, on a folder and a port of its own."""

import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import requests

from tests.support.servers import Process, free_port

ROOT = Path(__file__).parents[3]


class Serving:
    """What ``make serve`` runs.

    :ivar folder: what is copied of the clone, and ``var``, are in it. It is not below pytest's
        folder, which only its owner may enter: root runs PostgreSQL as another user.
    :ivar url: of the server, without its version.
    :ivar process: the server.
    """

    def __init__(self) -> None:
        self._temporary = TemporaryDirectory(prefix="kinto-serve-")
        self.folder = folder = Path(self._temporary.name)
        folder.chmod(0o755)
        for name in ("config", "scripts"):
            shutil.copytree(ROOT / name, folder / name)
        (folder / "docs").mkdir()
        shutil.copy(ROOT / "docs" / "0x0.jpg", folder / "docs")

    def __enter__(self) -> "Serving":
        self.start()
        return self

    def __exit__(self, *exc_info) -> None:
        self.process.stop()
        self._temporary.cleanup()

    def start(self) -> None:
        """Start it, on another port than before."""
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "scripts/serve.py"]
        env = {"PORT": str(port), "PYTHONWARNINGS": "ignore"}
        self.process = Process(command, self.folder, self._answers, env)

    def _answers(self) -> bool:
        try:
            return requests.get(f"{self.url}/v1/__heartbeat__", timeout=5).ok
        except requests.RequestException:
            return False
