"""Scripts that run in Node, with packages from npm, and do what a test says."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NODE, NPM = shutil.which("node"), shutil.which("npm")


def install(source: Path, folder: Path) -> Path:
    """Copy the scripts of a folder to another one, and install there what its ``package.json``
    names. Return the other folder."""
    for path in source.iterdir():
        if path.suffix in (".json", ".mjs", ".html"):
            shutil.copy(path, folder)
    command = [NPM, "install", "--no-audit", "--no-fund", "--ignore-scripts"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=300)
    return folder


class Script:
    """A running script. It reads a command on each line, and answers with its result on a line.

    ::

        script.do("sync", client="one", argument="manual")
    """

    def __init__(self, process: subprocess.Popen):
        self._process = process

    def do(self, command: str, **arguments: Any) -> Any:
        """Return the result of a command."""
        self.send(command, **arguments)
        answer = json.loads(self._process.stdout.readline() or '{"error": "the script has ended"}')
        assert "error" not in answer, answer["error"]
        return answer.get("result")

    def send(self, command: str, **arguments: Any) -> None:
        """Send a command after which the script ends."""
        self._process.stdin.write(f"{json.dumps({'command': command, **arguments})}\n")
        self._process.stdin.flush()

    def wait(self) -> int:
        """Wait until the script has ended, and return its status."""
        return self._process.wait(60)


@contextmanager
def running(script: Path, *arguments: str) -> Iterator[Script]:
    """Start a script, and end it with the block."""
    process = subprocess.Popen(
        [NODE, script.name, *arguments],
        cwd=script.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Script(process)
    finally:
        process.stdin.close()  # some scripts end what they have started
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
