"""Uploaded files in a real browser: at most they are shown, and no script in them runs."""

import re
import shutil
import subprocess
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.support.http_record import HTTPRecord
from tests.support.servers.wsgi import Gunicorn

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed")

SCRIPT = "(window.parent || window).postMessage('ran NAME', '*')"
HTML = f"<!DOCTYPE html><title>a</title><script>{SCRIPT}</script>"
SVG = (
    f'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>{SCRIPT}</script></svg>'
)

# name: (content, the type that the upload claims)
FILES = {
    "page.html": (HTML, "text/html"),
    "page.xhtml": (HTML.replace("<!DOCTYPE html>", ""), "application/xhtml+xml"),
    "picture.svg": (SVG, "image/svg+xml"),
    "picture.png": (HTML, "image/png"),
    "paper.pdf": (HTML, "application/pdf"),
    "notes.txt": (HTML, "text/plain"),
    "unknown": (HTML, "application/octet-stream"),
    "script.js": (SCRIPT, "text/javascript"),
    "module.mjs": (SCRIPT, "application/javascript"),
    "data.json": (SCRIPT, "application/json"),
}

PAGE = """\
<!DOCTYPE html>
<body>
<script>
addEventListener("message", (event) => {{
    const found = document.createElement("p");
    found.textContent = event.data;
    document.body.append(found);
}});
</script>
{elements}
</body>
"""

ELEMENTS = """\
<iframe src="{url}"></iframe>
<object data="{url}"></object>
<embed src="{url}">
<script src="{url}"></script>
<script type="module" src="{url}"></script>
"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def show(tmp_path_factory):
    """Show a page that embeds these URLs in every way; return the scripts that ran."""
    folder = tmp_path_factory.mktemp("page")
    for name, (content, _) in FILES.items():
        (folder / name).write_text(content.replace("NAME", name))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}"

    def show(urls: list[str]) -> set[str]:
        elements = "".join(ELEMENTS.format(url=url) for url in urls)
        (folder / "page-of-all.html").write_text(PAGE.format(elements=elements))
        command = [
            CHROMIUM,
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *(f"--user-data-dir={folder}/profile", "--virtual-time-budget=8000", "--dump-dom"),
            f"{base}/page-of-all.html",
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100)
        assert "</html>" in done.stdout, done.stderr
        return set(re.findall(r"<p>ran (.*?)</p>", done.stdout))

    show.base = base
    yield show
    server.shutdown()


@pytest.fixture(scope="module")
def server(file_settings, tmp_path_factory):
    settings = {**file_settings("local"), "kinto.attachment.extensions": "any"}
    with Gunicorn(settings, tmp_path_factory.mktemp("browser")) as server:
        yield server


def test_no_script_runs(server, show):
    urls = []
    for name, (content, mimetype) in FILES.items():
        record = HTTPRecord(server)
        record.upload(content.replace("NAME", name).encode(), name, mimetype)
        record.share("system.Everyone")
        assert record.get(auth=None).status_code == 200
        urls += [record.url, f"{record.url}?download"]
    assert show(urls) == set()


def test_scripts_run_on_another_server(show):
    """The scripts do run where the headers of the plugin are missing."""
    ran = show([f"{show.base}/{name}" for name in ("page.html", "picture.svg", "script.js")])
    assert ran == {"page.html", "picture.svg", "script.js"}
