"""kinto.js in Node, as it runs in a browser, with its database in memory."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NODE, NPM = shutil.which("node"), shutil.which("npm")

_HERE = Path(__file__).parent


def install(folder: Path) -> Path:
    """Install kinto.js and kinto-http.js below a folder, and return the script that runs them."""
    for name in ("package.json", "client.mjs"):
        shutil.copy(_HERE / name, folder / name)
    command = [NPM, "install", "--no-audit", "--no-fund", "--ignore-scripts"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=300)
    return folder / "client.mjs"


class Browsers:
    """Clients of one collection, each with a database of its own.

    ::

        browsers.do("one", "create", {"id": "r", "title": "a"})
        browsers.do("one", "sync", "client_wins")
    """

    def __init__(self, process: subprocess.Popen):
        self._process = process

    def do(self, client: str, command: str, argument: Any = None) -> Any:
        """Return the result of one of the commands of client.mjs."""
        line = json.dumps({"client": client, "command": command, "argument": argument})
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert "error" not in answer, answer["error"]
        return answer.get("result")


@contextmanager
def browsers(script: Path, *arguments: str) -> Iterator[Browsers]:
    """Start Node, and end it with the block.

    :param arguments: URL of the server, bucket, collection, and the ``Authorization`` header.
    """
    process = subprocess.Popen(
        [NODE, script.name, *arguments],
        cwd=script.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Browsers(process)
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
