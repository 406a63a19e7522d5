"""Redirects of ``fetch``."""

import pytest

from kinto_attachment.errors import RemoteFailed
from tests.support.fetches import CONTENT, fetched
from tests.support.servers.web import redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_followed(web, status):
    def answer(handler):
        if handler.path == "/a.jpg":
            handler.send(status, b"there", Location="b/c.jpg?d")
        else:
            handler.send(200, CONTENT)

    web.answer = answer
    result, content = fetched(web)
    assert content == CONTENT
    assert result.url == web.url + "/b/c.jpg?d"


@pytest.mark.parametrize(("times", "followed"), [(5, True), (6, False)])
def test_at_most_five_redirects_are_followed(web, times, followed):
    def answer(handler):
        number = int(handler.path[1:])
        handler.send(*((302, b"") if number < times else (200, CONTENT)), Location=f"/{number + 1}")

    web.answer = answer
    if followed:
        assert fetched(web, "/0")[1] == CONTENT
    else:
        with pytest.raises(RemoteFailed, match="more than 5 times"):
            fetched(web, "/0")
        assert len(web.requests) == 6


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1:{port}/",
        "//127.0.0.1:{port}/",
        "http://localhost:{port}/",
        "http://[::1]:{port}/",
        "http://2130706433:{port}/",
        "http://127.0.0.1.:{port}/",
        "http://user@127.0.0.1:{port}/",
        "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.1/",
        "file:///etc/passwd",
        "ftp://photos.example/",
        "javascript:alert(1)",
        "http://[",
        "http://\xe9.example/",
        "",
        None,
    ],
)
def test_redirects_that_are_not_followed(web, elsewhere, location):
    web.answer = redirects(location and location.format(port=elsewhere.port))
    with pytest.raises(RemoteFailed):
        fetched(web)
    assert len(web.requests) == 1
    assert elsewhere.requests == []
