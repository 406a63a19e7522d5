"""What ``fetch`` returns, and which responses it refuses."""

import datetime
import hashlib
import io
import socket
import tracemalloc
from email.message import Message
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinto_attachment.errors import (
    RemoteFailed,
    RemoteLimited,
    RemoteNotFound,
    StorageUnavailable,
    TooLarge,
)
from kinto_attachment.remote import Origin, connection, fetch, retry_after
from tests.support.fetches import CONTENT, Stopwatch, fetched, refused
from tests.support.servers import free_port
from tests.support.servers.web import endless, gzipped, overlong, says, silent, truncated

# What is returned.


def test_the_bytes_digest_type_and_url(web):
    result, content = fetched(web)
    assert content == CONTENT
    assert result.digest.size == len(CONTENT)
    assert result.digest.hexdigest() == hashlib.sha256(CONTENT).hexdigest()
    assert result.mimetype == "image/jpeg"
    assert result.url == web.url + "/a.jpg"


def test_the_request_line_and_headers(web):
    fetched(web, "/a.jpg?b=c&d#e", mimetype="image/")
    (request,) = web.requests
    assert request.path == "/a.jpg?b=c&d"
    assert request.headers["Host"] == f"127.0.0.1:{web.port}"
    assert request.headers["Accept-Encoding"] == "identity"
    assert request.headers["Accept"] == "image/*"
    assert request.headers["Connection"] == "close"
    assert len(request.headers.get_all("Host")) == 1


def test_no_path_is_the_root(web):
    fetched(web, "")
    fetched(web, "?q")
    assert [request.path for request in web.requests] == ["/", "/?q"]


def test_a_missing_content_type_is_empty(web):
    web.answer = says(200, CONTENT)
    assert fetched(web)[0].mimetype == ""


def test_chunked_encoding(web):
    def answer(handler):
        handler.send(200, Content_Length=None, Transfer_Encoding="chunked")
        for start in range(0, len(CONTENT), 1000):
            chunk = CONTENT[start : start + 1000]
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        handler.wfile.write(b"0\r\n\r\n")

    web.answer = answer
    assert fetched(web)[1] == CONTENT


def test_chunks_that_end_too_early_are_refused(web):
    def answer(handler):
        handler.send(200, Content_Length=None, Transfer_Encoding="chunked")
        handler.wfile.write(b"5\r\nhello\r\n")

    web.answer = answer
    with pytest.raises(RemoteFailed):
        fetched(web)


def test_an_empty_body(web):
    web.answer = says(200)
    assert fetched(web)[0].digest.size == 0


def test_memory_is_constant(web):
    block, blocks = b"\xa5" * 2**20, 200

    def answer(handler):
        handler.send(200, Content_Length=len(block) * blocks)
        for _ in range(blocks):
            handler.wfile.write(block)

    class Counter(io.RawIOBase):
        size = 0

        def write(self, chunk):
            self.size += len(chunk)
            return len(chunk)

    web.answer = answer
    counter = Counter()
    tracemalloc.start()
    try:
        result = fetch(
            web.url,
            counter,
            max_size=0,
            timeout=5,
            deadline=60,
            allowed=frozenset({Origin.of(web.url)}),
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert result.digest.size == counter.size == len(block) * blocks
    assert peak < 3 * 2**20


def test_a_full_disk_is_storage_unavailable(web):
    class Full(io.RawIOBase):
        def write(self, chunk):
            raise OSError(28, "No space left on device")

    with pytest.raises(StorageUnavailable):
        fetch(
            web.url,
            Full(),
            max_size=0,
            timeout=5,
            deadline=5,
            allowed=frozenset({Origin.of(web.url)}),
        )


def test_proxies_of_the_environment_are_not_used(web, elsewhere, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, elsewhere.url)
    assert fetched(web)[1] == CONTENT
    assert elsewhere.requests == []


# How many bytes, and of which type.


def test_a_body_of_exactly_the_limit_is_allowed(web):
    assert fetched(web, max_size=len(CONTENT))[1] == CONTENT


def test_too_large_as_declared(web):
    def answer(handler):
        handler.send(200, Content_Length=10**12)
        silent(handler)

    web.answer = answer
    with Stopwatch() as watch, pytest.raises(TooLarge) as info:
        fetched(web, max_size=1000)
    assert (info.value.size, info.value.limit) == (10**12, 1000)
    assert watch.seconds < 3


def test_too_large_as_counted(web):
    web.answer = endless()
    file = io.BytesIO()
    with pytest.raises(TooLarge):
        fetch(
            web.url,
            file,
            max_size=10**6,
            timeout=5,
            deadline=10,
            allowed=frozenset({Origin.of(web.url)}),
        )
    assert len(file.getvalue()) <= 10**6


@pytest.mark.parametrize("missing", [1, 10**6])
def test_fewer_bytes_than_declared(web, missing):
    web.answer = truncated(CONTENT, missing)
    with pytest.raises(RemoteFailed, match="did not send"):
        fetched(web)


@pytest.mark.parametrize("more", [1, len(CONTENT) - 1, len(CONTENT)])
def test_more_bytes_than_declared(web, more):
    web.answer = overlong(CONTENT, more)
    with pytest.raises(RemoteFailed, match="did not send"):
        fetched(web)


def test_a_connection_that_stays_open_after_the_body(web, monkeypatch):
    def answer(handler):
        handler.send(200, CONTENT)
        silent(handler)

    monkeypatch.setattr(connection, "LINGER", 0.1)
    web.answer = answer
    assert fetched(web)[1] == CONTENT


@pytest.mark.parametrize("length", [None, "many", "-1"])
def test_a_body_of_unknown_length_is_refused(web, length):
    web.answer = says(200, CONTENT, Content_Length=length)
    with pytest.raises(RemoteFailed, match="how many bytes"):
        fetched(web)


def test_a_content_encoding_is_refused(web):
    web.answer = gzipped(bytes(10**6))
    with pytest.raises(RemoteFailed, match="encoding"):
        fetched(web, max_size=10**5)


def test_a_wrong_type_is_refused_before_the_body(web):
    def answer(handler):
        handler.send(200, Content_Type="text/html", Content_Length=10**6)
        silent(handler)

    web.answer = answer
    with Stopwatch() as watch, pytest.raises(RemoteFailed, match="text/html"):
        fetched(web, mimetype="image/")
    assert watch.seconds < 3


# Other responses.


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (404, RemoteNotFound),
        (410, RemoteNotFound),
        (429, RemoteLimited),
        (204, RemoteFailed),
        (206, RemoteFailed),
        (304, RemoteFailed),
        (400, RemoteFailed),
        (401, RemoteFailed),
        (403, RemoteFailed),
        (500, RemoteFailed),
        (503, RemoteFailed),
    ],
)
def test_other_statuses(web, status, error):
    web.answer = says(status, b"no" if status not in (204, 304) else b"")
    with pytest.raises(error) as info:
        fetched(web)
    assert type(info.value) is error


def test_a_rate_limit_with_and_without_retry_after(web):
    web.answer = says(429, Retry_After="17")
    with pytest.raises(RemoteLimited) as info:
        fetched(web)
    assert info.value.retry_after == 17
    web.answer = says(429)
    with pytest.raises(RemoteLimited) as info:
        fetched(web)
    assert info.value.retry_after is None


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 abc def\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70000,
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 101 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello world",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_malformed_http_is_refused(web, raw):
    web.answer = lambda handler: handler.wfile.write(raw)
    with pytest.raises(RemoteFailed):
        fetched(web)


def test_a_refused_connection():
    url = f"http://127.0.0.1:{free_port()}"
    assert "cannot be reached" in refused(url, frozenset({Origin.of(url)}))


def test_an_unknown_host_name(monkeypatch):
    def getaddrinfo(*args, **kwargs):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert "Name or service not known" in refused("http://photos.example/")


def seconds_said(text):
    headers = Message()
    headers["Retry-After"] = text
    return retry_after(headers)


def test_retry_after():
    now = datetime.datetime.now(datetime.timezone.utc)
    assert seconds_said("120") == 120
    assert seconds_said(" 0 ") == 0
    assert seconds_said("999999999") == 86400
    later = format_datetime(now + datetime.timedelta(seconds=90), usegmt=True)
    assert 88 <= seconds_said(later) <= 91
    assert seconds_said("Sun, 06 Nov 1994 08:49:37 GMT") == 1
    assert seconds_said("Fri, 31 Dec 9999 23:59:59 GMT") == 86400
    assert retry_after(Message()) is None


@given(st.text(st.characters(codec="ascii", exclude_characters="\r\n")))
def test_retry_after_of_any_text(text):
    seconds = seconds_said(text)
    assert seconds is None or 0 <= seconds <= 86400
