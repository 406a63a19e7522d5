"""The client of the Unsplash API: its requests, and what it makes of any answer."""

import hashlib
import io
import json
import logging
import re
import time
import traceback
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from kinto_attachment.errors import (
    AttachmentError,
    RemoteError,
    RemoteFailed,
    RemoteLimited,
    RemoteNotFound,
    RemoteTimeout,
    TooLarge,
)
from kinto_attachment.remote import unsplash
from kinto_attachment.remote.unsplash import Photo, Unsplash, read_id
from tests.support.fetches import PUBLIC
from tests.support.servers import free_port
from tests.support.servers.unsplash import KEY, MISSING, FakePhoto, FakeUnsplash, limited
from tests.support.servers.web import (
    WebServer,
    drips,
    endless,
    gzipped,
    overlong,
    redirects,
    says,
    silent,
    truncated,
)

ID = "Dwu85P9SOIk"


def make_jpeg(width=64, height=48):
    file = io.BytesIO()
    Image.radial_gradient("L").resize((width, height)).save(file, "JPEG")
    return file.getvalue()


JPEG = make_jpeg()


@pytest.fixture
def server():
    with FakeUnsplash() as server:
        server.add(ID, JPEG)
        yield server


@pytest.fixture
def elsewhere():
    """Another server of this machine, which the client must not ask."""
    with WebServer(says(200, JPEG, Content_Type="image/jpeg")) as server:
        yield server


@pytest.fixture
def client(server):
    return Unsplash(server.url, KEY, max_size=10**6, timeout=5, deadline=10)


def download(client, id=ID):
    file = io.BytesIO()
    return client.download(client.photo(id), file), file.getvalue()


def fails(error, call, *args):
    with pytest.raises(error) as info:
        call(*args)
    assert type(info.value) is error
    told = "".join(traceback.format_exception(info.value))
    assert KEY not in told and KEY not in repr(info.value)
    return info.value


# Photos and downloads.


def test_a_photo(client, server):
    assert client.photo(ID) == Photo(
        id=ID,
        author="Ada Lovelace",
        description="A dog on a beach",
        alt="brown dog running on sand",
        width=64,
        height=48,
        download_location=f"{server.url}/photos/{ID}/download?ixid=MnwxMTc4ODl8MHwxfA",
        url=f"{server.url}/images/photo-{ID}?fm=jpg&q=85",
    )
    (request,) = server.requests
    assert request.path == f"/photos/{ID}"
    assert request.headers["Authorization"] == f"Client-ID {KEY}"
    assert request.headers["Accept-Version"] == "v1"
    assert server.tracked == []


def test_a_download(client, server):
    fetched, content = download(client)
    assert content == JPEG
    assert Image.open(io.BytesIO(content)).size == (64, 48)
    assert fetched.digest.hexdigest() == hashlib.sha256(JPEG).hexdigest()
    assert (fetched.digest.size, fetched.mimetype) == (len(JPEG), "image/jpeg")


def test_a_download_is_reported_before_it_begins(client, server):
    download(client)
    assert server.tracked == [ID]
    told, image = server.requests[1:]
    assert told.path == f"/photos/{ID}/download?ixid=MnwxMTc4ODl8MHwxfA"
    assert told.headers["Authorization"] == f"Client-ID {KEY}"
    assert image.path == f"/images/photo-{ID}?fm=jpg&q=85"


def test_the_key_is_not_sent_with_the_request_for_the_image(client, server):
    download(client)
    image = server.requests[2]
    assert image.headers["Authorization"] is None
    assert KEY not in str(image.headers) + image.path


def test_missing_descriptions_are_empty(client, server):
    server.add(ID, JPEG, description=None, alt=None)
    photo = client.photo(ID)
    assert (photo.description, photo.alt) == ("", "")


@pytest.mark.parametrize("path", ["/", "/unsplash", "/a/b/"])
def test_the_api_may_be_below_a_path(server, path):
    client = Unsplash(server.url + path, KEY, max_size=0, timeout=5)
    fails(RemoteNotFound, client.photo, ID) if len(path) > 1 else client.photo(ID)
    assert server.asked == [f"{path.rstrip('/')}/photos/{ID}"]


# Ids.


@pytest.mark.parametrize(
    ("text", "id"),
    [
        (ID, ID),
        ("a-dog-on-a-beach-Dwu85P9SOIk", ID),
        ("hwSYHLXoP-Q", "hwSYHLXoP-Q"),
        ("brown-dog-hwSYHLXoP-Q", "hwSYHLXoP-Q"),
        ("x--bcdefghijk", "-bcdefghijk"),
        ("a", "a"),
        ("a" * 64, "a" * 64),
        ("word-" * 40 + ID, ID),
    ],
)
def test_ids_and_slugs(text, id):
    assert read_id(text) == id


@pytest.mark.parametrize(
    "text",
    [
        "",
        "random",
        "a" * 65,
        "word-" * 60 + ID,
        "../users/ada",
        "..",
        ".",
        "a/b",
        "a%2fb",
        "a?b",
        "a#b",
        "a b",
        "a\n",
        "é",
        "１２３",
        f"{ID}\n",
        "/",
        "https://unsplash.com/photos/Dwu85P9SOIk",
    ],
)
def test_an_invalid_id_is_not_asked_for(client, server, text):
    fails(RemoteNotFound, client.photo, text)
    assert server.requests == []


@given(st.text(max_size=80))
def test_any_text_is_an_id_or_refused(text):
    try:
        id = read_id(text)
    except RemoteNotFound:
        return
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", id, re.ASCII) and text.endswith(id)


# Errors of the API.


def test_an_unknown_photo(client):
    fails(RemoteNotFound, client.photo, "AAAAAAAAAAA")


def test_a_wrong_key(server):
    client = Unsplash(server.url, "not-" + KEY, max_size=0, timeout=5)
    error = fails(RemoteFailed, client.photo, ID)
    assert "refused the access key" in str(error)


@pytest.mark.parametrize(
    "answer",
    [
        limited(403),
        limited(403, b"", 0),
        limited(403, b"Rate Limit Exceeded", 3),
        limited(403, b'{"errors": ["rate limit exceeded"]}', 3),
        limited(429),
        limited(429, b"", 5),
    ],
)
def test_a_rate_limit(client, server, answer, monkeypatch):
    monkeypatch.setattr(unsplash.time, "time", lambda: 7200 * 100 + 3540.5)
    server.on_photo = answer
    assert fails(RemoteLimited, client.photo, ID).retry_after == 60


def test_the_rate_limit_is_reached_during_a_download(client, server):
    server.left = 1
    photo = client.photo(ID)
    fails(RemoteLimited, client.download, photo, io.BytesIO())
    assert server.tracked == [] and len(server.requests) == 2


def test_a_rate_limit_with_retry_after(client, server):
    server.on_photo = limited(403, Retry_After="17")
    assert fails(RemoteLimited, client.photo, ID).retry_after == 17
    server.on_photo = limited(429, Retry_After=formatdate(time.time() + 90, usegmt=True))
    assert 88 <= fails(RemoteLimited, client.photo, ID).retry_after <= 91
    server.on_photo = limited(429, Retry_After="soon")
    assert 1 <= fails(RemoteLimited, client.photo, ID).retry_after <= 3600


@pytest.mark.parametrize(
    "answer",
    [
        says(403, b'{"errors": ["forbidden"]}', X_Ratelimit_Remaining=4999),
        says(403, b"no"),
        says(400, b"{}"),
        says(500, b"{}"),
        says(502, b"<html>"),
        says(503, b"Rate Limit Exceeded", Retry_After=5),
        says(204),
        says(206, b"{}"),
        redirects("/photos/other"),
        gzipped(b"{}"),
        truncated(b"{}"),
        overlong(b"{}  "),
        endless(b" " * 65536),
        says(200),
        says(200, b"garbage"),
        says(200, b"\xff\xfe\xfd"),
        says(200, b"[" * 100_000),
        says(200, b"null"),
        says(200, b"[]"),
        says(200, b'"photo"'),
        says(200, b"{}"),
        lambda handler: handler.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n"),
        lambda handler: None,
    ],
)
def test_a_failing_api(client, server, answer):
    server.on_photo = answer
    fails(RemoteFailed, client.photo, ID)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (name, value)
        for name, values in {
            "id": [MISSING, None, 7, "AAAAAAAAAAA", ""],
            "width": [MISSING, None, "64", 64.0, True, 0, -1, 10**9, 10**30],
            "height": [MISSING, None, "48"],
            "description": [7, [], "\0", "\ud800"],
            "alt_description": [7, {}],
            "user": [MISSING, None, [], "Ada"],
            "user.name": [MISSING, None, 7, "a\0b"],
            "links": [MISSING, None],
            "links.download_location": [MISSING, None, 7, "/photos/x/download", "file:///x"],
            "urls": [MISSING, None, []],
            "urls.full": [MISSING, None, 7, "file:///etc/passwd", "http://a:b@images.example/"],
        }.items()
        for value in values
    ],
)
def test_fields_that_are_missing_or_wrong(client, server, name, value):
    server.add(ID, JPEG, changes={name: value})
    fails(RemoteFailed, client.photo, ID)
    assert len(server.requests) == 1


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
)


@given(st.data())
def test_any_json_is_a_photo_or_refused(data):
    server = FakeUnsplash()
    server._server.server_close()
    photo = server.to_json(FakePhoto(ID, JPEG))
    place = photo
    while isinstance(place, dict):
        name = data.draw(st.sampled_from(sorted(place)))
        if not isinstance(place[name], dict) or data.draw(st.booleans()):
            place[name] = data.draw(json_values)
            break
        place = place[name]
    try:
        found = Photo.from_json(json.loads(json.dumps(photo)))
    except RemoteFailed:
        return
    assert found.width > 0 and found.height > 0
    json.dumps(vars(found), ensure_ascii=False).encode()


def test_a_slow_api(server):
    client = Unsplash(server.url, KEY, max_size=0, timeout=0.2)
    for answer in (silent, drips(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n", 0.05)):
        server.on_photo = answer
        began = time.monotonic()
        fails(RemoteTimeout, client.photo, ID)
        assert time.monotonic() - began < 3


def test_an_api_that_refuses_connections():
    client = Unsplash(f"http://127.0.0.1:{free_port()}", KEY, max_size=0, timeout=1)
    fails(RemoteFailed, client.photo, ID)


# Errors of a download.


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (says(404), RemoteNotFound),
        (limited(403), RemoteLimited),
        (limited(429), RemoteLimited),
        (says(401), RemoteFailed),
        (says(500), RemoteFailed),
    ],
)
def test_nothing_is_downloaded_if_the_report_fails(client, server, answer, error):
    server.on_download = answer
    fails(error, download, client)
    assert not any(path.startswith("/images") for path in server.asked)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (says(404), RemoteNotFound),
        (says(429, Retry_After="9"), RemoteLimited),
        (says(403), RemoteFailed),
        (says(500), RemoteFailed),
        (says(200, JPEG), RemoteFailed),
        (says(200, b"<html>", Content_Type="text/html"), RemoteFailed),
        (says(200, JPEG, Content_Type="application/octet-stream"), RemoteFailed),
        (says(200, JPEG, Content_Type="imagejpeg"), RemoteFailed),
        (says(200, b"", Content_Type="image/jpeg"), RemoteFailed),
        (gzipped(JPEG, Content_Type="image/jpeg"), RemoteFailed),
        (truncated(JPEG, Content_Type="image/jpeg"), RemoteFailed),
        (overlong(JPEG, Content_Type="image/jpeg"), RemoteFailed),
        (endless(Content_Type="image/jpeg"), TooLarge),
        (says(200, JPEG, Content_Length=10**9, Content_Type="image/jpeg"), TooLarge),
        (redirects("http://169.254.169.254/latest/meta-data/"), RemoteFailed),
        (redirects("http://10.0.0.1/"), RemoteFailed),
        (redirects("http://[::1]/"), RemoteFailed),
        (redirects("file:///etc/passwd"), RemoteFailed),
        (redirects(f"/images/photo-{ID}"), RemoteFailed),  # to itself, for ever
    ],
)
def test_an_image_that_cannot_be_fetched(client, server, answer, error):
    server.on_image = answer
    fails(error, download, client)
    assert server.tracked == [ID]


def test_a_slow_image(server):
    client = Unsplash(server.url, KEY, max_size=0, timeout=0.2, deadline=0.4)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: 9999\r\n\r\n"
    for answer in (silent, drips(head, 0.05)):
        server.on_image = answer
        began = time.monotonic()
        fails(RemoteTimeout, download, client)
        assert time.monotonic() - began < 3


def test_an_image_of_exactly_the_limit_is_allowed(server):
    client = Unsplash(server.url, KEY, max_size=len(JPEG), timeout=5)
    assert download(client)[1] == JPEG
    client = Unsplash(server.url, KEY, max_size=len(JPEG) - 1, timeout=5)
    fails(TooLarge, download, client)


@pytest.mark.parametrize(
    "full",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.1/a.jpg",
        "http://127.0.0.1:{port}/a.jpg",
        "http://localhost:{port}/a.jpg",
        "http://[::1]:{port}/a.jpg",
        "https://127.0.0.1/a.jpg",
    ],
)
def test_an_image_at_a_private_address_is_refused(client, server, elsewhere, full):
    server.add(ID, JPEG, full=full.format(port=elsewhere.port))
    error = fails(RemoteFailed, download, client)
    assert "public Internet" in str(error)
    assert elsewhere.requests == []


def test_a_redirect_to_another_port_is_refused(client, server, elsewhere):
    server.on_image = redirects(f"{elsewhere.url}/a.jpg")
    fails(RemoteFailed, download, client)
    assert elsewhere.requests == []


def test_a_redirect_of_the_image_host_to_itself_is_followed(client, server):
    server.add("AAAAAAAAAAA", JPEG)

    def answer(handler):
        server.on_image = None
        redirects("/images/photo-AAAAAAAAAAA")(handler)

    server.on_image = answer
    fetched, content = download(client)
    assert content == JPEG and fetched.url == server.image_url("AAAAAAAAAAA")


# The key.


@pytest.mark.parametrize(
    "location", [f"http://{PUBLIC}", "{server}1", "http://localhost:{port}", "https://{host}"]
)
def test_a_download_is_reported_to_the_api_only(client, server, elsewhere, internet, location):
    internet[PUBLIC] = elsewhere.port
    host = f"127.0.0.1:{server.port}"
    location = location.format(server=server.url, port=server.port, host=host)
    server.add(ID, JPEG, changes={"links.download_location": f"{location}/photos/x/download"})
    fails(RemoteFailed, download, client)
    assert elsewhere.requests == [] and len(server.requests) == 1


@pytest.mark.parametrize("knob", ["on_photo", "on_download"])
def test_the_key_follows_no_redirect(client, server, elsewhere, internet, knob):
    internet[PUBLIC] = elsewhere.port
    for target in (f"http://{PUBLIC}/", "/photos/AAAAAAAAAAA"):
        setattr(server, knob, redirects(target))
        fails(RemoteFailed, download, client)
    assert elsewhere.requests == []
    assert "/photos/AAAAAAAAAAA" not in server.asked


def test_the_key_is_not_sent_to_another_image_host(client, server, elsewhere, internet):
    internet[PUBLIC] = elsewhere.port
    server.add(ID, JPEG, full=f"http://{PUBLIC}/a.jpg")
    assert download(client)[1] == JPEG
    (request,) = elsewhere.requests
    assert request.headers["Host"] == PUBLIC
    assert KEY not in str(request.headers) + request.path


def test_the_key_is_not_logged_or_repeated_in_errors(client, server, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    server.on_photo = says(401, KEY.encode())  # not even when the API repeats it
    error = fails(RemoteFailed, client.photo, ID)
    server.on_photo = lambda handler: handler.wfile.write(KEY.encode() + b"\r\n")
    fails(RemoteFailed, client.photo, ID)
    server.on_photo = None
    download(client)
    assert isinstance(error, RemoteError) and isinstance(error, AttachmentError)
    assert KEY not in repr(client) + str(client)
    assert KEY not in caplog.text + "".join(capfd.readouterr())


@pytest.mark.parametrize("key", ["", " ", "a b", "a\r\nX: y", "é", "a\n"])
def test_malformed_keys(key):
    with pytest.raises(ValueError) as info:
        Unsplash("https://api.unsplash.com", key, max_size=0, timeout=1)
    assert not key.strip() or key not in str(info.value)


@pytest.mark.parametrize(
    "url", ["", "api.unsplash.com", "ftp://x.example", "https://u:p@x.example"]
)
def test_malformed_urls(url):
    with pytest.raises(ValueError):
        Unsplash(url, KEY, max_size=0, timeout=1)
