"""The media library under real servers: many at once, and images that were made to do harm."""

import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import psutil
import pytest
import requests
from PIL import Image

from tests.support.images import HOSTILE, encode, photo
from tests.support.library import Shelf, jpeg, settings
from tests.support.servers.wsgi import UWSGI, Gunicorn, GunicornProcesses
from tests.support.site import SETTINGS, Site

ALICE = ("alice", "secret")
MIB = 1024 * 1024
ROOT = Path(__file__).parents[2]
COUNTING = {"kinto.includes": f"{SETTINGS['kinto.includes']} tests.support.servers.counting"}
ANY = {"kinto.attachment.extensions": "any", "kinto.attachment.images.timeout": "30"}


@pytest.fixture
def serve(kinto_settings, file_settings, tmp_path):
    """A server of that kind, with a library."""

    def start(kind, files="local", **more):
        all_settings = {
            **kinto_settings("postgresql", fresh=True),
            **file_settings(files),
            **settings("site", **ANY),
            "kinto.storage_pool_size": "60",
            "kinto.storage_max_overflow": "10",
        }
        site = Site(**all_settings)
        Shelf(site)
        site.close()
        env = {"RESIZES": str(tmp_path / "resizes"), "PYTHONPATH": str(ROOT)}
        return kind({**all_settings, **more}, tmp_path, env)

    return start


def upload(server, content: bytes, filename: str) -> dict:
    form = {"file": (filename, content), "save": (None, "1")}
    answer = requests.post(f"{server.url}/media", files=form, auth=ALICE, timeout=60)
    assert answer.status_code == 201, answer.text
    return answer.json()


def image(server, facts: dict, size: str) -> requests.Response:
    url = f"{server.url}/image/{size}/{facts['id']}.{facts['extension']}"
    return requests.get(url, timeout=60)


@pytest.mark.parametrize("files", ["local", "seaweedfs"])
def test_many_first_requests_are_one_resize(serve, tmp_path, files):
    with serve(GunicornProcesses, files, **COUNTING) as server:
        facts = upload(server, encode(photo(2400, 1600), "JPEG"), "photo.jpg")
        with ThreadPoolExecutor(64) as pool:
            answers = list(pool.map(lambda _: image(server, facts, "800x0"), range(64)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert (tmp_path / "resizes").read_text().splitlines() == ["800x533"]


def test_hostile_images_do_no_harm(serve):
    with serve(Gunicorn) as server:
        image(server, upload(server, jpeg(), "photo.jpg"), "60x0")  # all is loaded that is needed
        (process,) = psutil.Process(server.pid).children()
        slowest, largest = ("", 0.0), ("", 0)
        for name, (make, _) in HOSTILE.items():
            facts = upload(server, make(), f"{name}.{name.partition('-')[0]}")
            started = time.monotonic()
            answer = image(server, facts, "320x0")
            slowest = max(slowest, (name, time.monotonic() - started), key=lambda each: each[1])
            assert 400 <= answer.status_code < 500, (name, answer.text)
            assert answer.json()["message"]
            largest = max(largest, (name, process.memory_info().rss), key=lambda each: each[1])
            assert requests.get(f"{server.url}/", timeout=10).ok
        assert slowest[1] < 2, slowest
        assert largest[1] < 300 * MIB, largest
        assert image(server, upload(server, jpeg(), "photo.jpg"), "30x0").ok


@pytest.mark.parametrize("kind", [Gunicorn, UWSGI])
def test_images_are_made_under_each(serve, kind):
    with serve(kind) as server:
        facts = upload(server, jpeg(1200, 800), "photo.jpg")
        answers = [image(server, facts, f"{width}x0") for width in (600, 300, 300)]
        sizes = [Image.open(BytesIO(answer.content)).size for answer in answers]
        assert sizes == [(600, 400), (300, 200), (300, 200)]
        (process,) = [
            child
            for child in psutil.Process(server.pid).children(recursive=True)
            if "images.worker" in " ".join(child.cmdline())
        ]
    process.wait(5)  # it ends with its server
