"""The same contract under every server, with a real client, over real sockets."""

import http.client
import json
import os
import secrets
import socket
import time
from contextlib import closing
from hashlib import sha256
from urllib.parse import urlsplit

import pytest
import requests

from tests.support.servers.wsgi import UWSGI, Gunicorn, GunicornSync, Waitress
from tests.support.site import Site

AUTH = ("alice", "secret")


@pytest.fixture(scope="module", params=[Gunicorn, GunicornSync, Waitress, UWSGI])
def server(request, kinto_settings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    settings = {
        **kinto_settings("postgresql", fresh=True),
        "kinto.attachment.base_path": str(folder / "files"),
        "kinto.attachment.max_size": str(64 * 1024 * 1024),
    }
    Site(**settings).close()  # creates the tables
    with request.param(settings, folder) as server:
        server.files = folder / "files"
        yield server


@pytest.fixture
def record(server):
    """The URL of a record that does not exist yet, in a collection that does."""
    collection = f"{server.url}/buckets/b{secrets.token_hex(8)}/collections/c"
    for parent in (collection.rpartition("/collections")[0], collection):
        requests.put(parent, auth=AUTH, timeout=60).raise_for_status()
    return f"{collection}/records/r"


def files_of(server, record):
    bucket = urlsplit(record).path.split("/")[3]
    folder = server.files / bucket
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_upload_replace_delete(server, record):
    for content, status in ((secrets.token_bytes(5_000_000), 201), (b"", 200), (b"x", 200)):
        form = {"attachment": ("font.pdf", content)}
        response = requests.post(f"{record}/attachment", files=form, auth=AUTH, timeout=60)
        assert response.status_code == status, response.text
        assert response.json()["hash"] == sha256(content).hexdigest()
        (path,) = files_of(server, record)
        assert path.read_bytes() == content
        assert (
            requests.get(record, auth=AUTH, timeout=60).headers["ETag"] == response.headers["ETag"]
        )
    response = requests.delete(f"{record}/attachment", auth=AUTH, timeout=60)
    assert (response.status_code, response.content) == (204, b"")
    assert files_of(server, record) == []


def test_chunked_body(server, record):
    content = secrets.token_bytes(700_000)

    def body():
        yield b'--XX\r\nContent-Disposition: form-data; name="attachment"; filename="a.pdf"\r\n\r\n'
        for start in range(0, len(content), 100_000):
            yield content[start : start + 100_000]
        yield b"\r\n--XX--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=XX"}
    response = requests.post(
        f"{record}/attachment", data=body(), headers=headers, auth=AUTH, timeout=60
    )
    assert response.status_code == 201, response.text
    assert response.json()["hash"] == sha256(content).hexdigest()


@pytest.mark.parametrize("size", [10, 3_000_000])
@pytest.mark.parametrize(
    "auth, headers, filename, status",
    [
        (None, {}, "a.pdf", 401),
        (("bob", "secret"), {}, "a.pdf", 403),
        (AUTH, {"If-Match": '"1"'}, "a.pdf", 412),
        (AUTH, {}, "a.exe", 400),
    ],
)
def test_clients_read_the_refusal_of_a_body_they_have_sent(
    server, record, size, auth, headers, filename, status
):
    requests.put(record, auth=AUTH, timeout=60).raise_for_status()
    form = {"attachment": (filename, bytes(size))}
    url = f"{record}/attachment"
    response = requests.post(url, files=form, headers=headers, auth=auth, timeout=60)
    assert response.status_code == status
    assert response.json()["code"] == status
    assert files_of(server, record) == []


def test_a_declared_length_over_the_limit(server, record):
    """The request is refused at once; the body is never sent."""
    head = (
        f"POST {urlsplit(record).path}/attachment HTTP/1.1\r\nHost: localhost\r\n"
        "Authorization: Basic YWxpY2U6c2VjcmV0\r\nConnection: close\r\n"
        f"Content-Type: multipart/form-data; boundary=XX\r\nContent-Length: {2**30 - 1}\r\n\r\n"
    )
    if isinstance(server, Waitress):
        head = head.replace(str(2**30 - 1), str(120 * 2**20))  # Waitress spools the body first
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(head.encode())
        if isinstance(server, Waitress):
            for _ in range(120):
                connection.sendall(bytes(2**20))
        else:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 400"), answer[:200]
    assert b"exceeds the limit" in answer


def test_a_client_that_disconnects(server, record):
    form = {"attachment": ("a.pdf", b"first")}
    requests.post(f"{record}/attachment", files=form, auth=AUTH, timeout=60).raise_for_status()
    before = files_of(server, record)
    head = (
        f"POST {urlsplit(record).path}/attachment HTTP/1.1\r\nHost: localhost\r\n"
        "Authorization: Basic YWxpY2U6c2VjcmV0\r\n"
        "Content-Type: multipart/form-data; boundary=XX\r\nContent-Length: 5000000\r\n\r\n"
        '--XX\r\nContent-Disposition: form-data; name="attachment"; filename="a.pdf"\r\n\r\n'
    )
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
            connection.sendall(head.encode() + bytes(1_000_000))
            time.sleep(0.2)
    deadline = time.monotonic() + 30
    while requests.get(record, auth=AUTH, timeout=60).status_code != 200:
        assert time.monotonic() < deadline
    time.sleep(0.5)
    assert files_of(server, record) == before
    assert before[0].read_bytes() == b"first"


def test_the_connection_is_kept_alive(server, record):
    if isinstance(server, GunicornSync | UWSGI):
        return  # they close it after each answer
    with requests.Session() as session:
        session.auth = AUTH
        for index in range(5):
            form = {"attachment": ("a.pdf", b"%d" % index)}
            status = session.post(f"{record}/attachment", files=form, timeout=60).status_code
            assert status == (200 if index else 201)
    # In one piece with its headers: a busy client might send the body too late to be awaited.
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
        headers = {"Authorization": "Basic YWxpY2U6c2VjcmV0"}
        path = urlsplit(record).path
        connection.request("POST", f"{path}/attachment", b"x", headers)
        refused = connection.getresponse()
        assert refused.status == 400 and refused.read()
        connection.request("GET", path, headers=headers)
        assert json.load(connection.getresponse())["data"]["attachment"]["size"] == 1


def test_heartbeat(server):
    assert requests.get(f"{server.url}/__heartbeat__", timeout=60).json()["attachments"] is True
    assert os.listdir(server.files / "__heartbeat__") == []
