"""The README lists all settings, and its examples run."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from configparser import ConfigParser
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
import requests

from kinto_attachment.cli.parser import parse
from kinto_attachment.settings import read_settings
from kinto_attachment.settings.table import SETTINGS
from tests.support import images
from tests.support.library import jpeg
from tests.support.servers import Process, free_port
from tests.support.servers.wsgi import BIN

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.rst").read_text()
SERVER = "http://127.0.0.1:8888"


def examples(language: str) -> list[str]:
    """The code blocks of one language, without their indent."""
    blocks, lines = [], README.splitlines()
    for number, line in enumerate(lines):
        if line.strip() != f".. code-block:: {language}":
            continue
        indent = len(line) - len(line.lstrip())
        block = []
        for code in lines[number + 1 :]:
            if code.strip() and len(code) - len(code.lstrip()) <= indent:
                break
            block.append(code[indent + 4 :])
        blocks.append("\n".join(block).strip() + "\n")
    return blocks


def test_every_language_is_run_by_a_test():
    languages = set(re.findall(r"code-block:: (\w+)", README))
    assert languages == {"bash", "ini", "javascript", "json", "nginx", "python", "shell"}


class TestSettings:
    def rows(self) -> dict[str, tuple[str, str, str]]:
        table = README.partition("\nAll settings\n")[2].partition("\nAPI\n")[0]
        rows = {}
        for row in table.split("   * - ``")[1:]:
            cells = [" ".join(cell.split()) for cell in row.split("\n     -")]
            rows[cells[0].partition("``")[0]] = tuple(cells[1:])
        return rows

    def test_table_lists_each(self):
        expected = {
            setting.name: (
                f"``{setting.default}``" if setting.default else "",
                "yes" if setting.per_resource else "",
                setting.help,
            )
            for setting in SETTINGS
        }
        assert self.rows() == expected

    def test_table_names_the_older_names(self):
        for setting in SETTINGS:
            if setting.alias:
                assert f"``{setting.name}``, ``{setting.alias}``" in README

    @pytest.mark.parametrize("example", examples("ini"))
    def test_example_is_understood(self, example):
        parser = ConfigParser(interpolation=None)
        parser.read_string(f"[app:main]\n{example}")
        settings = {
            name.removeprefix("kinto."): value for name, value in parser["app:main"].items()
        }
        has_storage = any("base_path" in name or "bucket_name" in name for name in settings)
        base = {} if has_storage else {"attachment.storage": "memory"}
        assert read_settings({**base, **settings})


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """``make serve``, on a folder and a port of its own."""
    folder = tmp_path_factory.mktemp("serve")
    for name in ("config", "scripts"):
        shutil.copytree(ROOT / name, folder / name)
    port = free_port()
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return requests.get(f"{url}/v1/__heartbeat__", timeout=5).ok
        except requests.RequestException:
            return False

    command = [sys.executable, "scripts/serve.py"]
    env = {"PORT": str(port), "PYTHONWARNINGS": "ignore"}
    process = Process(command, folder, answers, env)
    yield SimpleNamespace(url=url, process=process, folder=folder)
    process.stop()


@pytest.fixture
def here(server, tmp_path):
    """A folder with a picture, where the examples are run."""
    (tmp_path / "background.jpg").write_bytes(os.urandom(100_000))
    (tmp_path / "photo.jpg").write_bytes(jpeg(120, 80))
    record = f"{server.url}/v1/buckets/default/collections/assets/records/c2ce1975"
    requests.delete(record, auth=("alice", "secret"), timeout=60)
    return tmp_path


def run(command: list[str], folder: Path, **options) -> str:
    env = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, **options
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def attachment(server) -> dict | None:
    record = f"{server.url}/v1/buckets/default/collections/assets/records/c2ce1975"
    answer = requests.get(record, auth=("alice", "secret"), timeout=60)
    return answer.json().get("data", {}).get("attachment")


def test_make_serve_prints_a_line_that_works(server):
    printed = server.process.log.read_text()
    (line,) = re.findall(r"^ *(curl .*)$", printed, re.MULTILINE)
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
    answer = run(["bash", "-c", line], server.folder)
    location = re.search(r'"location": ?"([^"]+)"', answer)[1]
    file = requests.get(location, timeout=60)
    assert file.ok and file.content
    assert file.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in file.headers["Content-Security-Policy"]


def ask(server, line: str) -> bytes:
    """Send a request line as it is, and return the whole answer."""
    with socket.create_connection(("127.0.0.1", urlsplit(server.url).port), timeout=30) as sock:
        sock.sendall(f"{line} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode("latin-1"))
        return b"".join(iter(lambda: sock.recv(65536), b""))


SPELLINGS = [
    "/files/private/{key}",
    "/files/./private/{key}",
    "/files/././private/{key}",
    "/files/x/../private/{key}",
    "/files/default/../private/{key}",
    "/files/%2e/private/{key}",
    "/files/x/%2e%2e/private/{key}",
    "/files/%2E%2Fprivate/{key}",
    "/files//private/{key}",
    "/files/%2fprivate/{key}",
    "/files/private%2f{key}",
    "/files/%70rivate/{key}",
    "/files/private/./{key}",
    "/files/private//{key}",
    "//files/private/{key}",
    "/files/../files/private/{key}",
    "/./files/private/{key}",
    "/files/.\\private\\{key}",
    "/files/%5cprivate/{key}",
    "/files/%c0%ae/private/{key}",
    "/files/\xff/../private/{key}",
    "/files/%00/../private/{key}",
    "/files/PRIVATE/{key}",
    "/files/link/{key}",
    "http://a/files/./private/{key}",
]


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_make_serve_hides_private_files(server, spelling, method):
    content = os.urandom(1000)
    media, user = f"{server.url}/v1/media", ("alice", "secret")
    digest = requests.post(media, content, auth=user, timeout=60).text
    files = server.folder / "var" / "files"
    (path,) = files.rglob(digest)
    link = files / "link"
    if not link.is_symlink():
        link.symlink_to("private")
    answer = ask(server, f"{method} {spelling.format(key=path.relative_to(files / 'private'))}")
    # Kinto redirects what does not begin with the version of its API.
    assert re.match(rb"HTTP/1.1 (307|400|404) ", answer), answer[:500]
    assert content not in answer


def test_make_serve_serves_public_files(server):
    record = f"{server.url}/v1/buckets/default/collections/assets/records/public"
    form = {"attachment": ("a b.svg", b"<svg/>", "image/svg+xml")}
    location = requests.post(
        f"{record}/attachment", files=form, auth=("alice", "secret"), timeout=60
    ).json()["location"]
    answer = requests.get(location, headers={"Range": "bytes=1-3"}, timeout=60)
    assert (answer.status_code, answer.content) == (206, b"svg")
    assert answer.headers["Content-Disposition"].startswith("attachment")
    assert requests.post(location, timeout=60).status_code == 405
    for key in ("", "missing", "%ff", "%00", "x" * 2000, "__kinto-attachment__", ".."):
        assert ask(server, f"GET /files/{key}").startswith(b"HTTP/1.1 404 "), key


@pytest.mark.parametrize("example", examples("bash"))
def test_command(server, here, example):
    if example.startswith("curl") and not shutil.which("curl"):
        pytest.skip("curl is not installed")
    if "uploaded.json" in example:
        check_library(server, here, example)
        return
    if "/v1/media" in example:
        check_media(server, here, example)
        return
    downloads = "copy.jpg" in example
    if "DELETE" in example or downloads:
        form = {"attachment": ("a.jpg", b"x" * 100_000)}
        record = f"{server.url}/v1/buckets/default/collections/assets/records/c2ce1975"
        requests.post(f"{record}/attachment", files=form, auth=("alice", "secret"), timeout=60)
    command = example.replace(SERVER, server.url)
    command = command.replace("http --auth", "http --ignore-stdin --check-status --auth")
    output = run(["bash", "-c", command.replace("curl ", "curl -sS --fail ")], here)
    if "DELETE" in example:
        assert attachment(server) is None
    elif downloads:
        assert (here / "copy.jpg").read_bytes() == b"x" * 100_000
    else:
        assert attachment(server)["filename"] == "background.jpg"
        assert attachment(server)["hash"] in output


def check_library(server, here, example):
    """The second step needs the first."""
    first, second = (each for each in examples("bash") if "uploaded.json" in each)
    for command in dict.fromkeys((first, example)):
        command = command.replace(SERVER, server.url).replace("curl ", "curl -sS --fail ")
        output = run(["bash", "-c", command], here)
    uploaded = json.loads((here / "uploaded.json").read_text())
    assert (uploaded["width"], uploaded["height"]) == (120, 80)
    if example == second:
        assert json.loads(output)["data"]["id"] == uploaded["id"]


def check_media(server, here, example):
    content = (here / "background.jpg").read_bytes()
    command = example.replace(SERVER, server.url).replace(
        "http --auth", "http --ignore-stdin --auth"
    )
    output = run(["bash", "-c", command.replace("curl ", "curl -sS --fail ")], here)
    if "copy.jpg" in example:
        assert (here / "copy.jpg").read_bytes() == content
    else:
        assert json.loads(output)["hash"] == sha256(content).hexdigest()


@pytest.mark.parametrize("example", [code for code in examples("python") if SERVER in code])
def test_python(server, here, example):
    run([sys.executable, "-c", example.replace("127.0.0.1:8888", server.url[7:])], here)
    if "/image/" in example:
        assert images.decode((here / "copy.jpg").read_bytes()).size == (120, 80)
        return
    if "kinto_http" in example:
        assert attachment(server) is None
    elif "/v1/media" not in example:
        assert attachment(server)["filename"] == "background.jpg"
    assert (here / "copy.jpg").read_bytes() == (here / "background.jpg").read_bytes()


@pytest.mark.parametrize("example", [code for code in examples("python") if SERVER not in code])
def test_python_of_ones_own_storage(tmp_path, example):
    (tmp_path / "test_mine.py").write_text(example)
    output = run([sys.executable, "-m", "pytest", "-q", "test_mine.py"], tmp_path)
    assert re.search(r"\d\d passed", output)


@pytest.mark.parametrize("example", examples("javascript"))
def test_javascript(server, here, example):
    if not shutil.which("node"):
        pytest.skip("node is not installed")
    program = (
        'const { readFileSync } = require("fs");\n'
        'const file_ = new Blob([readFileSync("background.jpg")], { type: "image/jpeg" });\n'
        "const form = { elements: { attachment: { files: [file_] } } };\n"
        "(async () => {\n" + example.replace(SERVER, server.url) + "})();\n"
    )
    (here / "example.js").write_text(program)
    output = run(["node", "example.js"], here)
    assert "location" in output
    assert "100000 image/jpeg" in output
    assert attachment(server)["mimetype"] == "image/jpeg"


def test_json_is_what_is_answered(server, here):
    attached, uploaded = map(json.loads, examples("json"))
    assert set(attached) == {
        "filename", "hash", "location", "mimetype", "size",
    }  # fmt: skip
    form = {"file": (here / "photo.jpg").open("rb")}
    answer = requests.post(
        f"{server.url}/v1/media", files=form, auth=("alice", "secret"), timeout=9
    )
    assert answer.json().keys() == uploaded.keys()


def test_extras_are_there():
    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg")
    install = next(block for block in examples("shell") if block.startswith("pip"))
    for extra in re.findall(r"\[(\w+)\]", install):
        assert extra in parser["options.extras_require"]


@pytest.mark.parametrize(
    "example", [block for block in examples("shell") if block.startswith("kinto-attachment")]
)
def test_command_of_operators_is_understood(example):
    program, *arguments = shlex.split(example)
    assert parse(arguments).command in example


def test_nginx_example_is_in_the_configuration():
    configuration = (ROOT / "config" / "nginx.conf").read_text()
    (example,) = examples("nginx")
    for line in example.splitlines():
        directive = " ".join(line.partition("#")[0].split())
        if directive.endswith(";"):
            assert directive in " ".join(configuration.split()), directive


class TestConfig:
    """The files in ``config/`` start as they are."""

    @pytest.mark.parametrize("name", ["kinto.ini", "local.ini", "s3.ini", "gcs.ini"])
    def test_ini_file_starts(self, name, tmp_path):
        port = free_port()
        text = (ROOT / "config" / name).read_text()
        text = text.replace("port = 8888", f"port = {port}").replace("%(here)s/..", str(tmp_path))
        (tmp_path / name).write_text(text)
        command = [str(BIN / "kinto"), "start", "--ini", name]
        with Process(command, tmp_path, lambda: answers_at(port)):
            root = requests.get(f"http://127.0.0.1:{port}/v1/", timeout=60).json()
            assert root["capabilities"]["attachments"]["base_url"]

    @pytest.mark.parametrize(
        "path",
        ["config/kinto.ini", "config/local.ini", "config/s3.ini", "config/gcs.ini"]
        + ["config/uwsgi.ini", "config/gunicorn.conf.py", "scripts/serve.py"],
    )
    def test_images_leave_threads_for_others(self, path):
        text = (ROOT / path).read_text()
        (threads,) = re.findall(r"(?m)^ *threads ?= ?(\d+),?$", text)
        defaults = {setting.name: setting.default for setting in SETTINGS}
        held = 0
        for name in ("images.queue", "images.workers"):
            set_here = re.findall(rf"(?m)^kinto\.attachment\.{name} = (\d+)$", text)
            held += int(set_here[0] if set_here else defaults[name])
        assert int(threads) > 2 * held

    def test_every_server_is_checked_for_its_threads(self):
        """Neither the README nor another file in ``config/`` configures one."""
        assert "[server:main]" not in README
        names = {path.name for path in (ROOT / "config").iterdir()}
        others = {"kinto.ini", "local.ini", "s3.ini", "gcs.ini", "uwsgi.ini", "gunicorn.conf.py"}
        assert names == others | {"nginx.conf"}

    @pytest.mark.parametrize(
        "example",
        [block for block in examples("shell") if block.startswith(("gunicorn", "uwsgi"))],
    )
    def test_server_starts(self, example, tmp_path):
        port = free_port()
        shutil.copytree(ROOT / "config", tmp_path / "config")
        for path in (tmp_path / "config").iterdir():
            text = path.read_text().replace("127.0.0.1:8888", f"127.0.0.1:{port}")
            path.write_text(
                re.sub(r"(?m)^(kinto.attachment.base_path =).*", rf"\1 {tmp_path}/f", text)
            )
        program, *arguments = example.split()
        with Process([str(BIN / program), *arguments], tmp_path, lambda: answers_at(port)):
            url = f"http://127.0.0.1:{port}/v1/buckets/default/collections/c/records/r/attachment"
            form = {"attachment": ("a.txt", b"content")}
            answer = requests.post(url, files=form, auth=("alice", "secret"), timeout=60)
            assert answer.status_code == 201, answer.text


def answers_at(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/v1/__lbheartbeat__", timeout=5).ok
    except requests.RequestException:
        return False
