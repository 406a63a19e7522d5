"""``make serve``, on a folder and a port of its own."""

import shutil
import sys
from pathlib import Path

import requests

from tests.support.servers import Process, free_port

ROOT = Path(__file__).parents[3]


class Serving:
    """What ``make serve`` runs.

    :param folder: what is copied of the clone, and ``var``, are in it.
    :ivar url: of the server, without its version.
    :ivar process: the server.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        for name in ("config", "scripts"):
            shutil.copytree(ROOT / name, folder / name)
        (folder / "docs").mkdir()
        shutil.copy(ROOT / "docs" / "0x0.jpg", folder / "docs")

    def __enter__(self) -> "Serving":
        self.start()
        return self

    def __exit__(self, *exc_info) -> None:
        self.process.stop()

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
