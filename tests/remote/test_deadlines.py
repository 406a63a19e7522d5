"""``fetch`` ends in time, however slow the server is."""

import io
import time

import pytest

from kinto_attachment.errors import RemoteTimeout
from kinto_attachment.remote import Origin, connection, fetch, get_json
from tests.support.fetches import PUBLIC, Stopwatch, fetched
from tests.support.servers.web import drips, endless, silent


def test_no_response_in_time(web):
    web.answer = silent
    with Stopwatch() as watch, pytest.raises(RemoteTimeout):
        fetched(web, timeout=0.2)
    assert 0.2 <= watch.seconds < 3


def test_silence_in_the_middle_of_the_body(web):
    def answer(handler):
        handler.send(200, b"some", Content_Length=1000)
        silent(handler)

    web.answer = answer
    with Stopwatch() as watch, pytest.raises(RemoteTimeout):
        fetched(web, timeout=0.2)
    assert 0.2 <= watch.seconds < 3


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
DRIPS = {
    "body": drips(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", 0.05),
    "status line": drips(b"HTTP/1.1 200 ", 0.05),
    "header": drips(b"HTTP/1.1 200 OK\r\nX: ", 0.05),
    "headers": drips(b"HTTP/1.1 200 OK\r\n", 0.05, b"X: y\r\n"),
    "continues": drips(b"", 0.05, b"HTTP/1.1 100 Continue\r\n\r\n"),
    "chunk": drips(CHUNKED + b"ffff\r\n", 0.05),
    "chunk size": drips(CHUNKED, 0.05, b"0"),
    "chunks": drips(CHUNKED, 0.05, b"1\r\nx\r\n"),
    "trailer": drips(CHUNKED + b"0\r\n", 0.05, b"X: y\r\n"),
    "complaint": drips(b"HTTP/1.1 500 No\r\nContent-Length: 9999\r\n\r\n", 0.05),
}


@pytest.mark.parametrize("what", DRIPS)
def test_a_dripping_response_ends_at_the_deadline(web, what):
    web.answer = DRIPS[what]
    with Stopwatch() as watch, pytest.raises(RemoteTimeout):
        if what == "complaint":  # fetch() reads no body of an error, get_json() does
            get_json(web.url, {}, timeout=5, deadline=0.4, allowed=frozenset({Origin.of(web.url)}))
        else:
            fetched(web, timeout=5, deadline=0.4)
    assert 0.4 <= watch.seconds < 3


def test_an_endless_body_ends_at_the_deadline(web):
    web.answer = endless()
    with Stopwatch() as watch, pytest.raises(RemoteTimeout):
        fetched(web, deadline=0.4)
    assert watch.seconds < 3


def test_redirects_share_the_deadline(web):
    def answer(handler):
        handler.web.closing.wait(0.15)
        handler.send(302, Location="/again")

    web.answer = answer
    with pytest.raises(RemoteTimeout):
        fetched(web, deadline=0.4)
    assert len(web.requests) <= 3


def test_connecting_ends_at_the_deadline(resolver, internet, monkeypatch):
    def connect(self, address):
        time.sleep(self.gettimeout())
        raise TimeoutError("timed out")

    monkeypatch.setattr(connection._Socket, "connect", connect, raising=False)
    resolver.answers = [[PUBLIC] * 50]
    with Stopwatch() as watch, pytest.raises(RemoteTimeout):
        fetch("http://photos.example/", io.BytesIO(), max_size=0, timeout=0.1, deadline=0.35)
    assert 0.3 < watch.seconds < 3
