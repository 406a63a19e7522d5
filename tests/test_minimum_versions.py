"""The lowest versions that ``setup.cfg`` allows install together, and work."""

import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import pytest
import requests
from PIL import Image

from tests.support.library import jpeg
from tests.support.servers.wsgi import Waitress

ROOT = Path(__file__).parent.parent
EXTRAS = ["s3", "gcs", "images", "pyramid_storage"]
AUTH = ("alice", "secret")

# pip downloads some hundred MiB if they are not in its cache.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def lowest_versions() -> dict[str, str]:
    """Return the lowest version that ``setup.cfg`` allows of each direct requirement."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = setup["options"]["install_requires"].splitlines()
    for extra in EXTRAS:
        lines += setup["options.extras_require"][extra].splitlines()
    found = {}
    for line in filter(None, lines):
        match = re.fullmatch(r"([\w.-]+)(?:\[\w+\])? >= ([\d.]+)", line)
        assert match, f"setup.cfg names no lowest version: {line}"
        found[match[1]] = match[2]
    return found


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def bin_folder(tmp_path_factory) -> Path:
    """The programs of a virtual environment with the lowest versions."""
    folder = tmp_path_factory.mktemp("lowest")
    # Building leaves files in the folder of the sources.
    for name in ("setup.cfg", "setup.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    for path in (*ROOT.glob("*.rst"), ROOT / "LICENSE", ROOT / "MANIFEST.in"):
        shutil.copy(path, folder)
    shutil.copytree(ROOT / "kinto_attachment", folder / "kinto_attachment")
    constraints = folder / "constraints.txt"
    constraints.write_text(
        "".join(f"{name}=={version}\n" for name, version in lowest_versions().items())
    )
    run(sys.executable, "-m", "venv", folder / "venv")
    programs = folder / "venv" / "bin"
    package = f"{folder}[{','.join(EXTRAS)}]"
    options = ["--quiet", "--disable-pip-version-check", "--constraint", str(constraints)]
    run(programs / "python", "-m", "pip", "install", *options, package)
    run(programs / "python", "-m", "pip", "check")
    return programs


@pytest.mark.parametrize("files", ["local", "seaweedfs", "gcs"])
def test_upload_range_and_resize(bin_folder, file_settings, files, tmp_path):
    class Oldest(Waitress):
        def command(self):
            return [str(bin_folder / "pserve"), str(self.ini)]

    content = jpeg(400, 300)
    (tmp_path / "photo.jpg").write_bytes(content)
    with Oldest(file_settings(files), tmp_path) as server:
        collection = f"{server.url}/buckets/b/collections/c"
        for parent in (f"{server.url}/buckets/b", collection):
            requests.put(parent, auth=AUTH, timeout=60).raise_for_status()
        where = ["--server", server.url, "--bucket", "b", "--collection", "c"]
        program = bin_folder / "kinto-attachment"
        run(program, "upload", *where, "--auth", ":".join(AUTH), tmp_path / "photo.jpg")
        (record,) = requests.get(f"{collection}/records", auth=AUTH, timeout=60).json()["data"]
        assert record["attachment"]["hash"] == sha256(content).hexdigest()

        url = f"{collection}/records/{record['id']}/attachment"
        part = requests.get(url, headers={"Range": "bytes=100-199"}, auth=AUTH, timeout=60)
        assert (part.status_code, part.content) == (206, content[100:200])
        small = requests.get(f"{url}/200x0", auth=AUTH, timeout=60)
        assert small.status_code == 200, small.text
        assert Image.open(BytesIO(small.content)).size == (200, 150)

        run(program, "download", *where, "--auth", ":".join(AUTH), tmp_path / "copy")
        (copy,) = [path for path in (tmp_path / "copy").rglob("*") if path.is_file()]
        assert copy.read_bytes() == content
