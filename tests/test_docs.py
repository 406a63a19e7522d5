"""The examples of the documentation run, and its pages build."""

import json
import os
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
from configparser import ConfigParser
from hashlib import sha256
from html import unescape
from pathlib import Path

import pytest
import requests

from kinto_attachment.cli.parser import parse
from kinto_attachment.settings import read_settings
from kinto_attachment.settings.setting import INI_PREFIX
from kinto_attachment.settings.table import SETTINGS, TOPICS
from tests.support import images, node, tus_js
from tests.support.library import jpeg
from tests.support.pages import (
    PAGES,
    ROOT,
    SERVER,
    Example,
    commands,
    examples,
    examples_of,
    normalized,
    program_of,
)
from tests.support.servers.serving import Serving
from tests.support.servers.wsgi import BIN

PICTURE = (ROOT / "docs" / "0x0.jpg").read_bytes()
ALICE = ("alice", "secret")


class TestPages:
    """What the pages say, and what Sphinx makes of it."""

    def test_every_language_is_run_by_a_test(self):
        found = {each.language for page in PAGES for each in examples_of(page)}
        run = {"bash", "shell", "python", "javascript", "ini", "nginx"}
        # test_api_pages.py reads the YAML, and system/test_browser.py sends the form.
        assert found <= run | {"json", "text", "console", "yaml", "html"}
        # These need root or Docker. test_deployment.py runs what they install and start.
        for each in examples("console"):
            for line in re.sub(r"\\\n", "", each.code).splitlines():
                prompt, program, *words = line.split()
                assert prompt in ("#", "$")
                assert program in ("useradd", "mkdir", "cp", "systemctl", "docker", "sudo"), line
                assert program != "cp" or (ROOT / words[0]).is_file(), line

    def test_readme_is_short_and_renders_anywhere(self):
        """On a package index, too: that has docutils, and not Sphinx."""
        readme = (ROOT / "README.rst").read_text()
        assert len(readme.splitlines()) <= 250
        text = f"{readme}\n{(ROOT / 'CHANGELOG.rst').read_text()}"
        command = [sys.executable, "-m", "docutils", "--halt=2", "-", os.devnull]
        run(command, ROOT, input=text)
        links = re.findall(r"<((?!https?:)[^>`]+)>`_", readme)
        assert len(links) > 10
        for link in links:
            assert (ROOT / link).is_file(), link

    @pytest.fixture(scope="class")
    def built(self, tmp_path_factory) -> Path:
        """The pages as ``make docs`` builds them, in another folder."""
        (line,) = re.findall(r"(?m)^\t\$\(BIN\)/(python -m sphinx .*) build/docs$", makefile())
        folder = tmp_path_factory.mktemp("docs")
        assert {"--fail-on-warning", "--nitpicky"} <= set(line.split())
        run([*line.replace("python", sys.executable, 1).split(), str(folder)], ROOT)
        return folder

    def test_settings_are_generated_from_the_table(self, built):
        html = (built / "settings.html").read_text()
        page = text_of(html)
        ids = re.findall(r'id="confval-([^"]+)"', html)
        assert len(ids) == len(SETTINGS) == len(set(ids))
        assert [page.index(f"{title}¶") for title in TOPICS] == sorted(
            page.index(f"{title}¶") for title in TOPICS
        )
        names = [setting.name for setting in SETTINGS]
        entries = re.split(r"(?m)^\s*([a-z][a-z_.]+)¶\s*$", page)[1:]
        assert entries[::2] == names
        for setting, entry in zip(SETTINGS, entries[1::2], strict=True):
            entry = " ".join(entry.split())
            unit = f", in {setting.parse.unit}" if setting.parse.unit else ""
            scope = "server, bucket or collection" if setting.per_resource else "server"
            for part in (
                f"Type: {plain(setting.parse.type)}{unit}. Default: {setting.default or 'empty'}.",
                plain(setting.help),
                f"Scope: {scope}.",
                f"Older name: {setting.alias}." if setting.alias else "",
            ):
                assert part in entry, part

    def test_settings_are_written_nowhere_else(self):
        source = (ROOT / "docs" / "settings.rst").read_text()
        assert ".. settings-list::" in source
        for setting in SETTINGS:
            assert setting.help not in source and f"confval:: {setting.name}" not in source

    BROKEN = {
        ":doc:`nowhere`": "unknown document: 'nowhere'",
        ":ref:`nowhere`": "undefined label: 'nowhere'",
        ":confval:`max_sise`": "reference target not found: max_sise",
        ":file:`config/nowhere.ini`": "no such file in the clone: config/nowhere.ini",
        "`text <../config/nowhere.nginx>`__": "no such file in the clone: ../config/nowhere.nginx",
        ".. image:: nowhere.svg\n   :alt: x": "image file not readable: nowhere.svg",
    }

    def test_broken_links_fail_the_build(self, tmp_path):
        for name in ("conf.py", "_extensions"):
            (tmp_path / name).symlink_to(ROOT / "docs" / name)
        whole = ":confval:`max_size` :file:`config/nginx.conf` `text <index.rst>`__"
        text = "\n\n".join(["Title\n=====", ".. settings-list::", whole, *self.BROKEN])
        (tmp_path / "index.rst").write_text(f"{text}\n")
        options = ["--fail-on-warning", "--nitpicky", "--quiet", "-D", "html_theme=basic"]
        command = [sys.executable, "-m", "sphinx", *options, str(tmp_path), str(tmp_path / "out")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode != 0
        warnings = re.findall("WARNING: (.*)", done.stderr)
        assert len(warnings) == len(self.BROKEN), done.stderr
        for warning in self.BROKEN.values():
            assert any(warning in each for each in warnings), warning


def makefile() -> str:
    return (ROOT / "Makefile").read_text()


def plain(text: str) -> str:
    """A text without its markup."""
    return " ".join(text.replace("``", "").split())


def text_of(html: str) -> str:
    return unescape(re.sub(r"<[^>]+>", "", html.replace("</dt>", "</dt>\n"))).replace("\u2019", "'")


class TestIni:
    @pytest.mark.parametrize("example", examples("ini"), ids=lambda each: each.place)
    def test_example_is_understood(self, example):
        parser = ConfigParser(interpolation=None)
        parser.read_string(f"[app:main]\n{example.code}")
        settings = {
            name.removeprefix("kinto."): value for name, value in parser["app:main"].items()
        }
        has_storage = any("base_path" in name or "bucket_name" in name for name in settings)
        base = {} if has_storage else {"attachment.storage": "memory"}
        assert read_settings({**base, **settings})

    def test_every_setting_that_a_page_names_exists(self):
        known = {setting.name for setting in SETTINGS} | {each.alias for each in SETTINGS}
        for page in PAGES:
            for name in re.findall(
                rf"``{re.escape(INI_PREFIX)}([a-z_.]+)(?: =)?``", page.read_text()
            ):
                last = name.rpartition(".")[2]
                assert name in known or last in known or name == "storage.", (page.name, name)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Serving() as server:
        yield server


@pytest.fixture
def here(server, tmp_path):
    """A clone, as far as the examples use it. The server knows no records of alice."""
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    requests.delete(f"{server.url}/v1/buckets/default", auth=ALICE, timeout=60)
    return tmp_path


def run(command: list[str], folder: Path, **options) -> str:
    env = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, **options
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A page in Chromium on which the user has chosen a picture, and packages from npm."""
    if not (node.NODE and node.NPM and tus_js.CHROMIUM):
        pytest.skip("Node or Chromium is not installed")
    with tus_js.browser(tus_js.install(tmp_path_factory.mktemp("npm"))) as script:
        yield script


class TestExamples:
    """A reader follows each page from its beginning to its end."""

    @pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
    def test_page_works_as_pasted(self, server, here, page, request):
        found = examples_of(page)

        def in_browser(code: str, folder: Path) -> str:
            script = request.getfixturevalue("browser")
            script.do("visit")
            script.do("choose", path=str(ROOT / "docs" / "0x0.jpg"))
            return script.do("run", code=code)

        for number, example in enumerate(found):
            if example.language == "python" and SERVER not in example.code:
                continue
            how = {"bash": in_bash, "python": in_python, "javascript": in_node}.get(
                example.language
            )
            if how is in_node and example.code.startswith("import "):
                how = in_browser
            if how and not example.is_output:
                following = found[number + 1 : number + 2]
                shown = next((each.code for each in following if each.is_output), None)
                follow(server, here, example, how, shown)

    def test_each_door_has_an_example_with_its_output_in_the_readme(self):
        found = examples_of(ROOT / "README.rst")
        shown = [
            before.code for before, each in zip(found, found[1:], strict=False) if each.is_output
        ]
        for route in ("/attachment", "/v1/media/", "-F 'file=@", "/v1/image/"):
            assert any(route in code for code in shown), route

    @pytest.mark.parametrize(
        "example",
        [each for each in examples("python") if SERVER not in each.code],
        ids=lambda each: each.place,
    )
    def test_python_of_ones_own_storage(self, tmp_path, example):
        (tmp_path / "test_mine.py").write_text(example.code)
        output = run([sys.executable, "-m", "pytest", "-q", "test_mine.py"], tmp_path)
        assert re.search(r"\d\d passed", output)

    def test_json_is_what_is_answered(self, server, here):
        """Also where a page shows it for another request than the one before."""
        fields = {"filename", "hash", "location", "mimetype", "size"}
        shown = [json.loads(each.code) for each in examples("json")]
        attached = [each for each in shown if "filename" in each and "hash" in each]
        # An entry of a list has an id, too.
        assert attached and all(each.keys() - {"id"} == fields for each in attached)
        form = {"file": ("photo.jpg", PICTURE)}
        answer = requests.post(f"{server.url}/v1/media", files=form, auth=ALICE, timeout=60).json()
        uploaded = [each for each in shown if "fileName" in each]
        assert uploaded and all(each.keys() == answer.keys() for each in uploaded)

    def test_variants_of_the_library_are_accepted(self, server):
        shown = [each for each in map(json.loads, codes("json")) if each.keys() == {"variants"}][0]
        form = {"file": ("photo.jpg", jpeg(1600, 1200))}
        v1 = f"{server.url}/v1"
        media = requests.post(f"{v1}/media", files=form, auth=ALICE, timeout=60).json()
        answer = requests.post(
            f"{v1}/content/_media", json={**media, **shown}, auth=ALICE, timeout=60
        )
        assert answer.status_code == 201, answer.text
        part = requests.get(f"{v1}/image/120x0/{media['id']}/lake.jpg/variant/sun", timeout=60)
        assert images.decode(part.content).size == (120, 90)


def codes(language: str) -> list[str]:
    return [each.code for each in examples(language)]


def in_bash(code: str, folder: Path) -> str:
    if "curl" in code and not shutil.which("curl"):
        pytest.skip("curl is not installed")
    code = code.replace("http --auth", "http --ignore-stdin --check-status --auth")
    return run(["bash", "-euc", code.replace("curl ", "curl -sS --fail ")], folder)


def in_python(code: str, folder: Path) -> str:
    return run([sys.executable, "-c", code], folder)


def in_node(code: str, folder: Path) -> str:
    if not shutil.which("node"):
        pytest.skip("node is not installed")
    (folder / "example.js").write_text(f"{FORM}(async () => {{\n{code}}})();\n")
    output = run(["node", "example.js"], folder)
    if "new FormData(form)" not in code:
        assert "location" in output and f"{len(PICTURE)} image/jpeg" in output
    return output


# The <form> of a page, with files that the user has chosen. Node has FormData, and no <form>.
FORM = """\
const { readFileSync } = require("fs");
const file_of = (name) =>
    new File([readFileSync(`docs/${name}`)], name, { type: "image/jpeg" });
const pictures = ["0x0.jpg", "0x90.jpg", "120x120.jpg", "320x80.jpg"].map(file_of);
const form = { elements: { attachment: { files: pictures } } };
class FormData extends globalThis.FormData {
    constructor(form) {
        super();
        if (form) {
            this.append("cover", file_of("320x0.jpg"));
            pictures.forEach((picture) => this.append("pictures", picture));
        }
    }
}
"""


def follow(server, here: Path, example: Example, how, shown: str | None) -> None:
    """Run an example, and compare what it prints, stores and writes with what the page says."""
    code = example.code
    output = how(code.replace(SERVER, server.url), here)
    if shown is not None:
        assert normalized(output, server.url) == normalized(shown, SERVER), example.place
    if "copy.jpg" in code:
        assert (here / "copy.jpg").read_bytes() == PICTURE, example.place
        (here / "copy.jpg").unlink()
    if "small.jpg" in code:
        width = int(re.search(r"/([1-9]\d*)x0\b", code)[1])
        assert images.decode((here / "small.jpg").read_bytes()).size[0] == width
    record = re.search(r"/v1/buckets/default/collections/\w+/records/\w+", code)
    if "DELETE" in code or "remove_attachment" in code:
        assert attachment(server, record) is None, example.place
    elif "attachment" in code and "/attachments" not in code and "upload.txt" not in code:
        assert attachment(server, record)["hash"] == sha256(PICTURE).hexdigest(), example.place
        assert attachment(server, record)["mimetype"] in code or ";type=" not in code
    elif "Accept:application/json" in code:
        assert json.loads(output)["hash"] == sha256(PICTURE).hexdigest()


def attachment(server, record: re.Match | None) -> dict | None:
    path = record[0] if record else "/v1/buckets/default/collections/assets/records/c2ce1975"
    answer = requests.get(f"{server.url}{path}", auth=ALICE, timeout=60)
    return answer.json().get("data", {}).get("attachment")


class TestCommands:
    """Those that an operator types. ``test_deployment.py`` starts the servers among them."""

    STARTED = ("gunicorn", "uwsgi", "granian")

    @pytest.mark.parametrize("place, command", commands())
    def test_command_is_understood(self, place, command):
        program, *words = shlex.split(command[command.index(program_of(command)) :])
        if program == "kinto-attachment":
            assert parse(words).command == words[0]
        elif program == "pip":
            assert words[0] == "install"
            extras = setup_cfg()["options.extras_require"]
            for names in re.findall(r"(?:^| )\.\[([\w,]+)\]", " ".join(words)):
                assert set(names.split(",")) <= set(extras)
        elif program == "make":
            assert re.search(rf"(?m)^{words[0]}:", makefile())
        elif program == "kinto":
            assert words[0] in ("start", "migrate")
        elif program == ".":
            assert words == ["activate"]
        elif program == "shtab":
            (path,) = (word for word in words if word.startswith("kinto_attachment."))
            assert pkgutil.resolve_name(path)().prog == words[words.index("--prog") + 1]
        else:
            assert program in (*self.STARTED, "mkdir") or words[:2] == ["-m", "venv"], place

    def test_nothing_is_installed_from_an_index_that_does_not_have_it(self):
        for page in (
            *PAGES,
            *(ROOT / "config").iterdir(),
            *(ROOT / "kinto_attachment").rglob("*.py"),
        ):
            assert not re.search(r"pip install [\"']?kinto-attachment\b", page.read_text()), page

    def test_commands_work_with_the_ini_file_of_make_serve(self, server):
        found = [command for _, command in commands() if "--ini var/kinto.ini" in command]
        assert found
        for command in found:
            if "fsck" in command:
                run([str(BIN / "kinto-attachment"), *shlex.split(command)[1:]], server.folder)

    def test_nginx_example_is_in_the_configuration(self):
        configuration = (ROOT / "config" / "nginx.conf").read_text()
        found = examples("nginx")
        assert found
        for line in "".join(each.code for each in found).splitlines():
            directive = " ".join(line.partition("#")[0].split())
            if directive.endswith(";"):
                assert directive in " ".join(configuration.split()), directive


def setup_cfg() -> ConfigParser:
    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser
