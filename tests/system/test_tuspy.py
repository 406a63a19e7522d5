"""tuspy, the Python client of tus."""

import asyncio
import gc
import json
import random
import secrets
import time
import warnings
from hashlib import sha256

import pytest
import requests
from tusclient.client import TusClient
from tusclient.exceptions import TusCommunicationError, TusUploadFailed
from tusclient.storage.filestorage import FileStorage

from tests.support.http_record import ALICE, BOB, HTTPRecord
from tests.support.servers.nginx import NGINX, Nginx
from tests.support.servers.outage import FaultyProxy
from tests.support.tus import basic

MIB = 1024 * 1024
SIZE = 5 * MIB + 17
CHUNK = MIB


@pytest.fixture(autouse=True)
def left_open():
    """tuspy closes neither its files nor its connections. Close them here, without a warning in a
    later test."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def record(two_processes):
    return HTTPRecord(two_processes)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("films") / "film.mp4"
    path.write_bytes(secrets.token_bytes(SIZE))
    return path


@pytest.fixture
def line(two_processes):
    with FaultyProxy(two_processes.port) as line:
        yield line


@pytest.fixture
def urls(tmp_path):
    storage = FileStorage(str(tmp_path / "urls.json"))
    yield storage
    storage.close()


def client_of(url: str, user: tuple[str, str] = ALICE) -> TusClient:
    return TusClient(f"{url}/uploads", headers=basic(user))


def through(line: FaultyProxy, record: HTTPRecord) -> str:
    """Return the URL of the attachment behind the proxy."""
    return record.url.replace(f":{record.server.port}", f":{line.port}")


def uploader_of(client: TusClient, film, **options):
    metadata = {"filename": "film.mp4", "filetype": "video/mp4"}
    options = {"metadata": metadata, "chunk_size": CHUNK, **options}
    return client.uploader(str(film), **options)


def wait_for_bytes(client: TusClient) -> dict:
    """Return the state of the only upload, once the server has kept what had arrived of it."""
    deadline = time.monotonic() + 30
    headers = {"Tus-Resumable": "1.0.0"}
    while True:
        (upload,) = requests.get(client.url, auth=ALICE, headers=headers, timeout=30).json()
        if upload["offset"] or time.monotonic() > deadline:
            return upload
        time.sleep(0.05)


def check(record: HTTPRecord, film) -> dict:
    """Check that the record has the file, and return the attributes of the record."""
    content = film.read_bytes()
    data = requests.get(record.record, auth=ALICE, timeout=30).json()["data"]
    assert data["attachment"]["hash"] == sha256(content).hexdigest()
    assert data["attachment"]["size"] == len(content)
    assert data["attachment"]["filename"] == film.name
    assert record.get().content == content
    return data


def test_in_chunks(record, film):
    uploader_of(client_of(record.url), film).upload()
    assert check(record, film)["attachment"]["mimetype"] == "video/mp4"


def test_in_one_piece(record, film):
    uploader = client_of(record.url).uploader(str(film), metadata={"filename": "film.mp4"})
    uploader.upload()
    check(record, film)


def test_asyncio(record, film):
    uploader = client_of(record.url).async_uploader(
        str(film), chunk_size=CHUNK, metadata={"filename": "film.mp4"}
    )
    asyncio.run(uploader.upload())
    check(record, film)


def test_empty_file(record, tmp_path):
    path = tmp_path / "empty.txt"
    path.touch()
    metadata = {"filename": "empty.txt"}
    client_of(record.url).uploader(str(path), metadata=metadata).upload()
    check(record, path)


def test_attributes_and_permissions_of_the_record(record, film):
    metadata = {
        "filename": "film.mp4",
        "data": json.dumps({"title": "Ein schöner Film"}),
        "permissions": json.dumps({"read": ["system.Everyone"]}),
    }
    uploader_of(client_of(record.url), film, metadata=metadata).upload()
    assert check(record, film)["title"] == "Ein schöner Film"
    assert record.get(auth=None).status_code == 200


def test_checksums(record, film):
    uploader_of(client_of(record.url), film, upload_checksum=True).upload()
    check(record, film)


def test_line_breaks_at_random_bytes(record, film, line):
    points = [random.randrange(CHUNK) for _ in range(8)]
    line.cut_at(*points)
    uploader = uploader_of(client_of(through(line, record)), film, retries=30, retry_delay=0.01)
    uploader.upload()
    check(record, film)


def test_another_process_resumes(record, film, urls):
    """It finds the URL of the upload in a file, and asks the server how far the upload is."""
    client = client_of(record.url)
    first = uploader_of(client, film, store_url=True, url_storage=urls)
    first.upload(stop_at=2 * MIB)
    second = uploader_of(client, film, store_url=True, url_storage=urls)
    assert (second.url, second.offset) == (first.url, 2 * MIB)
    second.upload()
    check(record, film)
    # After that, it takes the upload for done.
    assert uploader_of(client, film, store_url=True, url_storage=urls).offset == SIZE


def test_broken_chunk_is_kept(record, film, line):
    """What has arrived of a chunk need not be sent again."""
    line.cut_at(3 * MIB)
    client = client_of(through(line, record))
    with pytest.raises(TusUploadFailed):
        uploader_of(client, film, chunk_size=SIZE).upload()
    upload = wait_for_bytes(client)
    assert 0 < upload["offset"] <= 3 * MIB
    url = f"{client.url}/{upload['id']}"
    uploader = uploader_of(client, film, url=url)
    assert uploader.offset == upload["offset"]
    uploader.upload()
    check(record, film)


@pytest.mark.skipif(not NGINX, reason="nginx is not installed")
def test_behind_nginx(record, film, tmp_path):
    """nginx passes on what has arrived of a chunk, and the URLs of uploads lead through it."""
    files = record.server.settings["kinto.attachment.base_path"]
    with Nginx(record.server.port, files, tmp_path) as nginx, FaultyProxy(nginx.port) as line:
        line.cut_at(3 * MIB)
        client = client_of(through(line, record))
        with pytest.raises(TusUploadFailed):
            uploader_of(client, film, chunk_size=SIZE).upload()
        upload = wait_for_bytes(client)
        assert upload["offset"] > 0
        uploader = uploader_of(client, film, url=f"{client.url}/{upload['id']}")
        uploader.upload()
        check(record, film)
        again = uploader_of(client, film)
        again.upload()
        assert again.url.startswith(client.url)


def test_other_users(record, film):
    uploader = uploader_of(client_of(record.url), film)
    uploader.upload(stop_at=MIB)
    bob = client_of(record.url, BOB)
    with pytest.raises(TusCommunicationError) as refused:
        uploader_of(bob, film).upload()
    assert refused.value.status_code == 403
    with pytest.raises(TusCommunicationError) as refused:
        uploader_of(bob, film, url=uploader.url)
    assert refused.value.status_code == 403
    # A user with write permission can send files, but not continue another user's upload.
    record.share("system.Authenticated", uri=record.bucket, permission="write")
    with pytest.raises(TusCommunicationError) as refused:
        uploader_of(bob, film, url=uploader.url)
    assert refused.value.status_code == 404
    uploader.upload()
    check(record, film)


@pytest.mark.parametrize("target", ["store", "library"])
def test_media(two_processes, film, target):
    client = client_of(f"{two_processes.url}/media")
    uploader = uploader_of(client, film, metadata={"filename": "film.mp4", "target": target})
    uploader.upload()
    content = film.read_bytes()
    if target == "store":
        url = uploader.request.response_headers["content-location"]
        assert url == f"{two_processes.url}/media/{sha256(content).hexdigest()}"
    else:
        facts = json.loads(uploader.request.response_content)
        assert (facts["fileName"], facts["size"]) == ("film.mp4", SIZE)
        url = f"{two_processes.url}/{facts['url']}"
    assert requests.get(url, auth=ALICE, timeout=30).content == content


@pytest.mark.slow
def test_many_breaks(record, tmp_path, line):
    """The file is whole after a hundred of them."""
    film = tmp_path / "film.mp4"
    film.write_bytes(secrets.token_bytes(64 * MIB))
    line.cut_at(*(random.randrange(2 * MIB) for _ in range(100)))
    client = client_of(through(line, record))
    uploader = uploader_of(client, film, chunk_size=3 * MIB, retries=500, retry_delay=0.01)
    uploader.upload()
    check(record, film)
