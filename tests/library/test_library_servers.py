"""The media library behind real servers: many clients at a time, and hostile images."""

import itertools
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import psutil
import pytest
import requests
from PIL import Image

from tests.support.images import HOSTILE, encode, photo
from tests.support.library import MediaLibrary, jpeg, settings
from tests.support.selection import mostly
from tests.support.servers.wsgi import UWSGI, Gunicorn, Gunicorn16, GunicornProcesses
from tests.support.site import SETTINGS, Site

ALICE = ("alice", "secret")
MIB = 1024 * 1024
ROOT = Path(__file__).parents[2]
COUNTING = {"kinto.includes": f"{SETTINGS['kinto.includes']} tests.support.servers.counting"}
ANY = {"kinto.attachment.extensions": "any", "kinto.attachment.images.timeout": "30"}

CLIENTS = 48
"""Clients that flood the server."""

SECONDS = 6.0
"""How long another client measures its own requests meanwhile."""


@pytest.fixture
def serve(kinto_settings, file_settings, tmp_path):
    """Return a function that starts a server of a kind, with a media library."""

    def start(kind, files="local", **more):
        all_settings = {
            **kinto_settings("postgresql", fresh=True),
            **file_settings(files),
            **settings("site", **ANY),
            "kinto.storage_pool_size": "60",
            "kinto.storage_max_overflow": "10",
        }
        site = Site(**all_settings)
        MediaLibrary(site)
        site.close()
        env = {"RESIZES": str(tmp_path / "resizes"), "PYTHONPATH": str(ROOT)}
        return kind({**all_settings, **more}, tmp_path, env)

    return start


def upload(server, content: bytes, filename: str) -> dict:
    form = {"file": (filename, content), "save": (None, "1")}
    response = requests.post(f"{server.url}/media", files=form, auth=ALICE, timeout=60)
    assert response.status_code == 201, response.text
    return response.json()


def image(server, facts: dict, size: str) -> requests.Response:
    url = f"{server.url}/image/{size}/{facts['id']}.{facts['extension']}"
    return requests.get(url, timeout=60)


@pytest.mark.parametrize("files", mostly(["local", "seaweedfs"], {"local"}))
def test_simultaneous_first_requests_share_one_resize(serve, tmp_path, files):
    # One process may get all 64 requests, and must not refuse any.
    all_wait = {"kinto.attachment.images.queue": "128"}
    with serve(GunicornProcesses, files, **COUNTING, **all_wait) as server:
        facts = upload(server, encode(photo(2400, 1600), "JPEG"), "photo.jpg")
        with ThreadPoolExecutor(64) as pool:
            responses = list(pool.map(lambda _: image(server, facts, "800x0"), range(64)))
    assert {response.status_code for response in responses} == {200}
    assert len({response.content for response in responses}) == 1
    assert (tmp_path / "resizes").read_text().splitlines() == ["800x533"]


def test_hostile_images_do_no_harm(serve):
    with serve(Gunicorn) as server:
        image(server, upload(server, jpeg(), "photo.jpg"), "60x0")  # The server loads all modules.
        (process,) = psutil.Process(server.pid).children()
        slowest, largest = ("", 0.0), ("", 0)
        for name, (make, _) in HOSTILE.items():
            facts = upload(server, make(), f"{name}.{name.partition('-')[0]}")
            started = time.monotonic()
            response = image(server, facts, "320x0")
            slowest = max(slowest, (name, time.monotonic() - started), key=lambda each: each[1])
            assert 400 <= response.status_code < 500, (name, response.text)
            assert response.json()["message"]
            largest = max(largest, (name, process.memory_info().rss), key=lambda each: each[1])
            assert requests.get(f"{server.url}/", timeout=10).ok
        assert slowest[1] < 2, slowest
        assert largest[1] < 300 * MIB, largest
        assert image(server, upload(server, jpeg(), "photo.jpg"), "30x0").ok


@pytest.mark.parametrize("kind", [Gunicorn, UWSGI])
def test_images_are_resized_under_each_server(serve, kind):
    with serve(kind) as server:
        facts = upload(server, jpeg(1200, 800), "photo.jpg")
        responses = [image(server, facts, f"{width}x0") for width in (600, 300, 300)]
        sizes = [Image.open(BytesIO(response.content)).size for response in responses]
        assert sizes == [(600, 400), (300, 200), (300, 200)]
        (worker,) = [
            child
            for child in psutil.Process(server.pid).children(recursive=True)
            if "images.worker" in " ".join(child.cmdline())
        ]
    worker.wait(5)  # The worker ends with its server.


class Flood:
    """Clients that keep requesting a large image, in ever new sizes.

    :param same: whether all clients request the same size until the server has made it, and then
        the next one. Otherwise each request is for another size.
    :ivar statuses: the number of responses of each status.
    :ivar refusals: the seconds that each 503 took.
    """

    def __init__(self, server, facts: dict, same: bool):
        self._server, self._facts, self._same = server, facts, same
        self._widths, self._over = itertools.count(4000, -1), threading.Event()
        self._width = next(self._widths)
        self.statuses: Counter[int] = Counter()
        self.refusals: list[float] = []
        self._errors: list[Exception] = []
        self._threads = [threading.Thread(target=self._flood) for _ in range(CLIENTS)]

    def __enter__(self) -> "Flood":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        assert not self._errors

    def _flood(self) -> None:
        try:
            self._request_images()
        except Exception as error:
            self._errors.append(error)

    def _request_images(self) -> None:
        while not self._over.is_set():
            width = self._width if self._same else next(self._widths)
            started = time.monotonic()
            response = image(self._server, self._facts, f"{width}x0")
            self.statuses[response.status_code] += 1
            if response.status_code == 503:
                self.refusals.append(time.monotonic() - started)
                self._over.wait(0.2)
            elif width == self._width:
                self._width = next(self._widths)


@pytest.mark.parametrize("same", [False, True], ids=["many-sizes", "one-size"])
def test_other_clients_do_not_wait(serve, record_property, same):
    with serve(Gunicorn16) as server:
        large = encode(Image.new("RGB", (7000, 7000), (200, 30, 30)), "PNG", compress_level=1)
        large = upload(server, large, "a.png")
        small = upload(server, encode(photo(900, 600), "PNG"), "b.png")
        image(server, small, "60x0")
        durations, thumbnails = [], []
        with Flood(server, large, same) as flood:
            time.sleep(1)
            end = time.monotonic() + SECONDS
            for width in itertools.count(61):
                if time.monotonic() > end:
                    break
                started = time.monotonic()
                assert image(server, small, "60x0").status_code == 200
                assert requests.get(f"{server.url}/", auth=ALICE, timeout=60).ok
                durations.append(time.monotonic() - started)
                if width % 20 == 0:  # a size that does not exist yet
                    started = time.monotonic()
                    assert image(server, small, f"{width}x0").status_code == 200
                    thumbnails.append(time.monotonic() - started)
        at_once = sorted(flood.refusals)[len(flood.refusals) * 9 // 10]
        seconds = (max(durations), thumbnails, at_once, dict(flood.statuses))
        record_property("seconds", seconds)
        print(seconds)
    assert flood.statuses.keys() == {200, 503}
    # Without limits, each request of this client would wait for all images requested before.
    assert sorted(durations)[len(durations) // 2] < 1.5
    # A new thumbnail waits for the image that the worker is making.
    assert max(thumbnails) < 10
    # Those that wait for the large image may be refused in the end; all others are at once.
    assert at_once < 2
