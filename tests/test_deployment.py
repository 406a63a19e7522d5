"""What the documentation says of production: the files of ``config/``, the Dockerfile, the unit of
systemd, and environment variables. Everything is started."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from configparser import ConfigParser
from importlib.metadata import distribution
from pathlib import Path

import pytest
import requests

from kinto_attachment.settings.table import SETTINGS
from tests.support.pages import ROOT, commands, program_of
from tests.support.servers import Process, free_port
from tests.support.servers.wsgi import BIN

ALICE = ("alice", "secret")


def starts_a_server(command: str) -> bool:
    return program_of(command) in ("gunicorn", "uwsgi", "granian") or "kinto start" in command


def answers_at(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/v1/__lbheartbeat__", timeout=5).ok
    except requests.RequestException:
        return False


def attach(port: int, content: bytes = b"content", name: str = "a.txt", where: str = "c"):
    url = f"http://127.0.0.1:{port}/v1/buckets/default/collections/{where}/records/r/attachment"
    return requests.post(url, files={"attachment": (name, content)}, auth=ALICE, timeout=60)


@pytest.fixture
def config(tmp_path) -> int:
    """Copy ``config/`` to the folder of the test, for another port, which is returned."""
    port = free_port()
    shutil.copytree(ROOT / "config", tmp_path / "config")
    for path in (tmp_path / "config").iterdir():
        text = path.read_text().replace("127.0.0.1:8888", f"127.0.0.1:{port}")
        text = text.replace("port = 8888", f"port = {port}")
        path.write_text(re.sub(r"(?m)^(kinto.attachment.base_path =).*", rf"\1 {tmp_path}/f", text))
    return port


class TestConfig:
    """The files in ``config/`` start as they are."""

    @pytest.mark.parametrize("name", ["kinto.ini", "local.ini", "s3.ini", "gcs.ini"])
    def test_ini_file_starts(self, name, config, tmp_path):
        command = [str(BIN / "kinto"), "start", "--ini", f"config/{name}"]
        with Process(command, tmp_path, lambda: answers_at(config)):
            root = requests.get(f"http://127.0.0.1:{config}/v1/", timeout=60).json()
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
        """Neither the pages nor another file in ``config/`` configures one."""
        for page in (ROOT / "docs").glob("*.rst"):
            assert "[server:main]" not in page.read_text()
        names = {path.name for path in (ROOT / "config").iterdir() if path.is_file()}
        others = {"kinto.ini", "local.ini", "s3.ini", "gcs.ini", "uwsgi.ini", "gunicorn.conf.py"}
        assert names == others | {"nginx.conf", "kinto.service", "wsgi.py"}

    @pytest.mark.parametrize(
        "command",
        dict.fromkeys(line for _, line in commands() if starts_a_server(line)),
    )
    def test_server_of_the_pages_starts(self, command, config, tmp_path):
        program = program_of(command)
        # Values of variables are tested below; --port is in no file.
        line = command.replace("/srv/files", f"{tmp_path}/f").replace("8888", str(config))
        line = re.sub(rf"(^| ){program} ", rf"\1exec {BIN / program} ", line, count=1)
        with Process(["bash", "-c", line], tmp_path, lambda: answers_at(config)):
            answer = attach(config)
            assert answer.status_code == 201, answer.text
            assert list((tmp_path / "f").rglob("*.txt"))

    def test_kinto_migrate(self, config, tmp_path):
        lines = {line for _, line in commands() if line.startswith("kinto migrate")}
        assert lines
        for line in lines:
            command = [str(BIN / "kinto"), *shlex.split(line)[1:]]
            done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stderr


class TestEnvironment:
    """What ``docs/install.rst`` says of environment variables."""

    VARIABLES = {
        "KINTO_ATTACHMENT_MAX_SIZE": "2kB",
        "ATTACHMENT_MAX_SIZE": "3kB",  # the one with KINTO_ counts
        "ATTACHMENT_FOLDER": "somewhere",
        "KINTO_ATTACHMENT_RESOURCES_DEFAULT_LARGE_FILES_MAX_SIZE": "4kB",
        "KINTO_ATTACHMENT_EXTENSIONS": "any",  # the ini file does not set it
        "KINTO_ATTACHMENT_AWS_SECRET_KEY": '"1e5"',
        "KINTO_ATTACHMENT_AWS_REGION": "1e5",
        "KINTO_PROJECT_NAME": "from the environment",  # Kinto has a default
    }

    def test_they_override_settings_of_the_ini_file(self, config, tmp_path):
        ini = tmp_path / "config" / "local.ini"
        added = ["aws.secret_key =", "aws.region =", "resources.default.large-files.max_size = 1"]
        lines = "".join(f"kinto.attachment.{line}\n" for line in added)
        ini.write_text(ini.read_text().replace("[app:main]\n", f"[app:main]\n{lines}"))
        command = [str(BIN / "kinto"), "start", "--ini", str(ini)]
        env = {**self.VARIABLES, "KINTO_ATTACHMENT_BASE_PATH": str(tmp_path / "other")}
        with Process(command, tmp_path, lambda: answers_at(config), env):
            root = requests.get(f"http://127.0.0.1:{config}/v1/", timeout=60).json()
            assert root["project_name"] == "from the environment"
            assert attach(config, b"x" * 2000).status_code == 201
            assert list((tmp_path / "other" / "somewhere").glob("*.txt"))
            assert not (tmp_path / "f").exists()
            assert "exceeds the limit (2000 bytes)" in attach(config, b"x" * 2001).text
            assert "extension is not allowed" in attach(config, name="a.exe").text

    def test_values_are_json_if_they_can_be(self, tmp_path):
        """The settings that no request shows, and those of a bucket that is not an alias."""
        program = (
            "import json, kinto, sys\n"
            "app = kinto.main({}, **json.loads(sys.argv[1]))\n"
            "settings = app.registry.attachment_plugin.settings\n"
            "print(json.dumps([settings['aws.secret_key'], settings['aws.region'],"
            " settings.policy('default', 'large-files').max_size]))\n"
        )
        given = {
            "kinto.includes": "kinto_attachment",
            "kinto.attachment.base_path": str(tmp_path),
            "kinto.attachment.aws.secret_key": "",
            "kinto.attachment.aws.region": "",
            "kinto.attachment.resources.default.large-files.max_size": "1",
        }
        command = [sys.executable, "-W", "ignore", "-c", program, json.dumps(given)]
        env = {**os.environ, **self.VARIABLES}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
        assert json.loads(done.stdout) == ["1e5", "100000.0", 4000], done.stderr

    def test_commands_read_them(self, config, tmp_path):
        env = {
            **os.environ,
            "KINTO_INI": str(tmp_path / "config" / "local.ini"),
            "KINTO_ATTACHMENT_MAX_SIZE": "many",
        }
        command = [str(BIN / "kinto-attachment"), "fsck"]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2
        assert "kinto.attachment.max_size: 'many' is not a size, such as" in done.stderr


class Dockerfile:
    """The instructions of the Dockerfile, in their order."""

    def __init__(self):
        text = re.sub(r"\\\n", "", (ROOT / "Dockerfile").read_text())
        self.lines = re.findall(r"(?m)^([A-Z]+) (.*)$", text)

    def all(self, name: str) -> list[str]:
        return [value for each, value in self.lines if each == name]


class TestDocker:
    """Its commands run in a folder that stands for the root of the image."""

    def inside(self, text: str, root: Path) -> str:
        """Return a command whose paths are those of the folder."""
        return re.sub(r"(?<![\w./])/(src|etc|var)\b", rf"{root}/\1", text)

    def test_it_serves_files(self, tmp_path):
        dockerfile, port = Dockerfile(), free_port()
        for name in ("etc", "var"):
            (tmp_path / name).mkdir()
        assert dockerfile.all("COPY") == [". /src"]
        (tmp_path / "src").symlink_to(ROOT)
        for line in dockerfile.all("RUN"):
            if line.startswith("pip "):
                self.check_pip(shlex.split(line))
            elif not line.startswith("chown ") or os.geteuid() == 0:
                subprocess.run(self.inside(line, tmp_path), shell=True, check=True, timeout=60)
        (command,) = map(json.loads, dockerfile.all("CMD"))
        command = [self.inside(word, tmp_path).replace("8888", str(port)) for word in command]
        env = dict(self.inside(line, tmp_path).split("=", 1) for line in dockerfile.all("ENV"))
        command[0] = str(BIN / command[0])
        with Process(command, tmp_path, lambda: answers_at(port), env):
            assert attach(port).status_code == 201
            (file,) = (tmp_path / "var/lib/kinto/files").rglob("*.txt")
            assert file.read_text() == "content"
        # As with `docker exec`: the command finds the ini file.
        env |= {"KINTO_ATTACHMENT_MAX_SIZE": "many"}
        command = [str(BIN / "kinto-attachment"), "fsck"]
        done = subprocess.run(
            command, env={**os.environ, **env}, capture_output=True, text=True, timeout=60
        )
        assert "kinto.attachment.max_size: 'many' is not a size" in done.stderr

    def check_pip(self, words: list[str]) -> None:
        """Check that everything exists that it installs: extras, and packages that are here."""
        setup = ConfigParser()
        setup.read(ROOT / "setup.cfg")
        assert words[:2] == ["pip", "install"]
        wanted = [word for word in words[2:] if not word.startswith("--")]
        assert wanted[0].startswith("/src[")
        for word in wanted:
            name, _, extras = word.rstrip("]").partition("[")
            known = setup["options.extras_require"]
            if name != "/src":
                known = distribution(name).metadata.get_all("Provides-Extra") or []
            assert set(filter(None, extras.split(","))) <= set(known), word

    @pytest.mark.slow
    @pytest.mark.timeout(900)
    def test_it_installs(self, tmp_path):
        (line,) = [line for line in Dockerfile().all("RUN") if line.startswith("pip ")]
        # Building leaves files in the folder of the sources.
        ignored = shutil.ignore_patterns(".git", ".venv", "build", "var", "*.egg-info")
        shutil.copytree(ROOT, tmp_path / "src", ignore=ignored)
        subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True, timeout=120)
        programs = tmp_path / "venv" / "bin"
        line = self.inside(f"{programs}/{line}", tmp_path).replace("--no-cache-dir ", "--quiet ")
        subprocess.run(line, shell=True, check=True, timeout=800)
        for command in ("gunicorn --version", "kinto version", "kinto-attachment --help"):
            subprocess.run([programs / command.split()[0], *command.split()[1:]], check=True)


class TestSystemd:
    @pytest.fixture
    def unit(self, config, tmp_path) -> Path:
        """The unit, for programs and files of this test."""
        (tmp_path / "config" / "local.ini").rename(tmp_path / "config" / "kinto.ini")
        text = (ROOT / "config" / "kinto.service").read_text()
        text = text.replace("/opt/kinto/bin", str(BIN)).replace("/etc/kinto", f"{tmp_path}/config")
        unit = tmp_path / "kinto.service"
        unit.write_text(text.replace("User=kinto", "User=root"))
        return unit

    def read(self, unit: Path) -> ConfigParser:
        parser = ConfigParser(interpolation=None)
        parser.optionxform = str
        parser.read(unit)
        return parser

    def test_systemd_understands_it(self, unit):
        assert set(self.read(unit)) == {"DEFAULT", "Unit", "Service", "Install"}
        if not shutil.which("systemd-analyze"):
            pytest.skip("systemd is not installed")
        command = ["systemd-analyze", "verify", str(unit)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 and str(unit.name) not in done.stderr, done.stderr

    def test_its_command_serves_files_and_tells_when_it_is_ready(self, unit, config, tmp_path):
        service = self.read(unit)["Service"]
        assert service["Type"] == "notify"
        address = str(tmp_path / "notify")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
            notified.bind(address)
            notified.settimeout(30)
            command, env = shlex.split(service["ExecStart"]), {"NOTIFY_SOCKET": address}
            with Process(command, tmp_path, lambda: answers_at(config), env):
                assert b"READY=1" in notified.recv(4096)
                assert attach(config).status_code == 201

    def test_it_may_write_where_the_pages_say(self):
        service = self.read(ROOT / "config" / "kinto.service")["Service"]
        page = (ROOT / "docs" / "production.rst").read_text()
        assert f"``/var/lib/{service['StateDirectory']}/files``" in page
        assert service["EnvironmentFile"].removeprefix("-") in page
        graceful = re.search(r"(?m)^graceful_timeout = (\d+)$", gunicorn_settings())[1]
        assert int(service["TimeoutStopSec"]) > int(graceful)


def gunicorn_settings() -> str:
    return (ROOT / "config" / "gunicorn.conf.py").read_text()
