"""tus-js-client and Uppy, in Node and in Chromium."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support import node

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def install(folder: Path) -> Path:
    """Install the clients below a folder, and return the folder."""
    return node.install(Path(__file__).parent, folder)


@contextmanager
def client(folder: Path) -> Iterator[node.Script]:
    """Start client.mjs: tus-js-client in Node."""
    with node.running(folder / "client.mjs") as script:
        yield script


@contextmanager
def browser(folder: Path) -> Iterator[node.Script]:
    """Start browser.mjs: a page with tus-js-client and Uppy, in Chromium."""
    with node.running(folder / "browser.mjs", CHROMIUM) as script:
        yield script
