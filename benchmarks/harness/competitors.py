"""Alternatives to this plugin: thumbor in a virtual environment of its own, and plain Pillow.

The virtual environments are created in the folder ``BENCHMARK_FOLDER``, and used again from there.
"""

import http.client
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from tests.support.servers import Process, free_port, is_listening

QUALITY = 80
THUMBOR = ("thumbor==7.8.0", "setuptools<81")

_ROOT = Path(__file__).resolve().parents[2]
# The defaults of thumbor, except for what would cost it time: copies of originals and progressive
# JPEGs.
_THUMBOR = """\
LOADER = "thumbor.loaders.file_loader"
FILE_LOADER_ROOT_PATH = {originals!r}
STORAGE = "thumbor.storages.no_storage"
RESULT_STORAGE = "thumbor.result_storages.file_storage"
RESULT_STORAGE_FILE_STORAGE_ROOT_PATH = {results!r}
RESULT_STORAGE_STORES_UNSAFE = True
ALLOW_UNSAFE_URL = True
AUTO_WEBP = False
QUALITY = {quality}
PROGRESSIVE_JPEG = False
"""


def make_virtualenv(name: str, *requirements: str) -> Path | None:
    """Return the Python interpreter of a virtual environment with these requirements. Create it if
    necessary. If that fails, print why and return None. The environment variable
    ``BENCHMARK_{NAME}`` names an interpreter to use instead.

    ::

        python = make_virtualenv("thumbor", "thumbor==7.8.0")
    """
    given = os.environ.get(f"BENCHMARK_{name.upper()}")
    if given:
        return Path(given)
    cache = Path(os.environ.get("BENCHMARK_FOLDER") or tempfile.gettempdir())
    folder = cache / "alternatives" / name
    python, made_of = folder / "bin" / "python", folder / "made-of"
    wanted = "\n".join([sys.version.split()[0], *requirements])
    if made_of.exists() and made_of.read_text() == wanted:
        return python
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for command in ([sys.executable, "-m", "venv", "--clear", str(folder)], [*pip, *requirements]):
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=900)
        except (OSError, subprocess.SubprocessError) as error:
            output = (getattr(error, "stderr", None) or str(error)).strip()
            print(f"{name} cannot be installed: {output.splitlines()[-1]}")
            return None
    made_of.write_text(wanted)
    return python


class ImageServer:
    """A server that resizes images.

    :ivar port: its port on 127.0.0.1.
    """

    port: int

    def add(self, name: str, content: bytes) -> str:
        """Add an image, and return its name on the server."""
        raise NotImplementedError

    def path(self, image: str, width: int) -> str:
        """Return the path of an image at a width in pixels."""
        raise NotImplementedError

    def get(self, image: str, width: int) -> tuple[int, bytes]:
        """Request an image at a width in pixels; return the status and the body."""
        return fetch(self.port, self.path(image, width))


def fetch(port: int, path: str) -> tuple[int, bytes]:
    """Send a GET to 127.0.0.1; return the status and the body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("GET", path)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, body


class Thumbor(Process, ImageServer):
    """thumbor in one process, with originals in one folder and results in another.

    :param python: the Python interpreter that has thumbor.
    """

    def __init__(self, python: Path, folder: Path):
        self.port = free_port()
        self._originals = folder / "originals"
        self._originals.mkdir()
        conf = folder / "thumbor.conf"
        paths = {"originals": str(self._originals), "results": str(folder / "results")}
        conf.write_text(_THUMBOR.format(**paths, quality=QUALITY))
        options = ["--ip", "127.0.0.1", "--port", str(self.port), "--conf", str(conf)]
        command = [str(python), "-m", "thumbor.server", *options]
        super().__init__(command, folder, lambda: is_listening(self.port))

    def add(self, name: str, content: bytes) -> str:
        (self._originals / name).write_bytes(content)
        return name

    def path(self, image: str, width: int) -> str:
        return f"/unsafe/{width}x0/{image}"


class Pillow:
    """A process that reads an image file and writes a resized one, as in every tutorial.

    :param draft: whether the JPEG decoder may already reduce the size (``Image.draft``).
    """

    def __init__(self, folder: Path, *, draft: bool):
        self._folder, self._draft = folder, draft
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"from {__name__} import _resize_all as r; r()",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=_ROOT,
        )
        self.pid = self._process.pid

    def add(self, name: str, content: bytes) -> str:
        (self._folder / name).write_bytes(content)
        return name

    def get(self, image: str, width: int) -> tuple[int, bytes]:
        """Resize an image; return 200 and the bytes of the new file."""
        target = self._folder / f"{width}-{image}"
        job = [str(self._folder / image), str(target), width, self._draft]
        print(json.dumps(job), file=self._process.stdin, flush=True)
        if not self._process.stdout.readline():
            raise RuntimeError("the process that runs Pillow has ended")
        return 200, target.read_bytes()

    def __enter__(self) -> "Pillow":
        return self

    def __exit__(self, *exc_info) -> None:
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


def _resize_all() -> None:
    """Resize the images that are listed on stdin; the main loop of the process."""
    for line in sys.stdin:
        source, target, width, draft = json.loads(line)
        with Image.open(source) as image:
            size = (width, round(image.height * width / image.width))
            if draft:
                image.draft("RGB", size)
            image.resize(size, Image.Resampling.LANCZOS).save(target, quality=QUALITY)
        print("made", flush=True)
