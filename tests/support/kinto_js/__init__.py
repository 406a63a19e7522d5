"""kinto.js in Node, as it runs in a browser, with its database in memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support import node


def install(folder: Path) -> Path:
    """Install kinto.js and kinto-http.js below a folder, and return the script that runs them."""
    return node.install(Path(__file__).parent, folder) / "client.mjs"


class Browsers:
    """Clients of one collection, each with a database of its own.

    ::

        browsers.do("one", "create", {"id": "r", "title": "a"})
        browsers.do("one", "sync", "client_wins")
    """

    def __init__(self, script: node.Script):
        self._script = script

    def do(self, client: str, command: str, argument: Any = None) -> Any:
        """Return the result of one of the commands of client.mjs."""
        return self._script.do(command, client=client, argument=argument)


@contextmanager
def browsers(script: Path, *arguments: str) -> Iterator[Browsers]:
    """Start Node, and end it with the block.

    :param arguments: URL of the server, bucket, collection, and the ``Authorization`` header.
    """
    with node.running(script, *arguments) as running:
        yield Browsers(running)
