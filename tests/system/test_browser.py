"""Files in a real browser: the form of the documentation sends several of them, and no script in an
uploaded one runs."""

import re
import shutil
import subprocess
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests

from tests.support.http_record import HTTPRecord
from tests.support.pages import ROOT, SERVER, examples_of
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


FORM_PAGE = """\
<!DOCTYPE html>
<body>
{form}
<script>
const form = document.forms[0];
const choose = (name, ...filenames) => {{
    const chosen = new DataTransfer();
    filenames.forEach((filename) => chosen.items.add(new File([filename], filename)));
    form.elements[name].files = chosen.files;
}};
choose("cover", "cover.jpg");
choose("pictures", "one.jpg", "two.jpg", "three.jpg", "four.jpg");
(async () => {{
    {submit}
}})();
</script>
</body>
"""

SHOP = "/buckets/shop"
LAMP = f"{SHOP}/collections/products/records/lamp"
AUTH = ("alice", "secret")


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

    def show_page(page: str) -> str:
        (folder / "page-of-all.html").write_text(page)
        command = [
            CHROMIUM,
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *(f"--user-data-dir={folder}/profile", "--virtual-time-budget=8000", "--dump-dom"),
            f"{base}/page-of-all.html",
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100)
        assert "</html>" in done.stdout, done.stderr
        return done.stdout

    def show(urls: list[str]) -> set[str]:
        elements = "".join(ELEMENTS.format(url=url) for url in urls)
        return set(re.findall(r"<p>ran (.*?)</p>", show_page(PAGE.format(elements=elements))))

    show.base, show.page = base, show_page
    yield show
    server.shutdown()


@pytest.fixture(scope="module")
def server(file_settings, tmp_path_factory):
    settings = {
        **file_settings("local"),
        "kinto.attachment.extensions": "any",
        "kinto.attachment.resources.shop.products.fields": "attachment cover pictures[]",
    }
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


@pytest.mark.parametrize("how", ["form", "script"])
def test_form_of_the_documentation_sends_five_files(server, show, how):
    """The browser sends it itself where everyone may write, and a script with credentials."""
    everyone = {"permissions": {"write": ["system.Everyone"]} if how == "form" else {}}
    requests.delete(f"{server.url}{SHOP}", auth=AUTH, timeout=30)
    for uri in (SHOP, f"{SHOP}/collections/products"):
        requests.put(f"{server.url}{uri}", json=everyone, auth=AUTH, timeout=30).raise_for_status()
    found = examples_of(ROOT / "docs" / "fields.rst")
    (form,) = (each.code for each in found if each.language == "html")
    (script,) = (each.code for each in found if each.language == "javascript")
    submit = script if how == "script" else "form.querySelector('button').click();"
    page = FORM_PAGE.format(form=form, submit=submit).replace(f"{SERVER}/v1", server.url)
    show.page(page)
    answer = requests.get(f"{server.url}{LAMP}", auth=AUTH, timeout=30)
    assert answer.status_code == 200, answer.text
    data = answer.json()["data"]
    assert data["name"] == ("Lamp" if how == "form" else "Desk lamp")
    assert data["cover"]["filename"] == "cover.jpg"
    names = ["one.jpg", "two.jpg", "three.jpg", "four.jpg"]
    assert [picture["filename"] for picture in data["pictures"]] == names
    for picture in data["pictures"]:
        url = f"{server.url}{LAMP}/attachments/pictures/{picture['id']}"
        assert requests.get(url, auth=AUTH, timeout=30).text == picture["filename"]
