"""Answers of an API."""

import pytest

from kinto_attachment import remote
from kinto_attachment.errors import RemoteFailed
from tests.support.fetches import fetched_json
from tests.support.servers.web import endless, redirects, says


def test_a_json_answer(web):
    web.answer = says(200, b'{"a": [1]}', X_Left="7")
    answer = fetched_json(web, {"Authorization": "Client-ID k"})
    assert answer.json() == {"a": [1]}
    assert (answer.status, answer.headers["X-Left"]) == (200, "7")
    assert web.requests[0].headers["Authorization"] == "Client-ID k"
    assert web.requests[0].headers["Accept"] == "application/json"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff\xfe", b"<html>", b"[" * 100_000, b"9" * 5000 + b"x"]
)
def test_malformed_json_is_refused(web, body):
    web.answer = says(200, body)
    with pytest.raises(RemoteFailed, match="malformed"):
        fetched_json(web).json()


def test_the_size_of_json_is_limited(web):
    web.answer = says(200, b" " * (remote.MAX_JSON - 1) + b"1")
    assert fetched_json(web).json() == 1
    web.answer = says(200, b" " * remote.MAX_JSON + b"1")
    with pytest.raises(RemoteFailed, match="more than"):
        fetched_json(web)
    web.answer = endless(b" " * 65536)
    with pytest.raises(RemoteFailed, match="more than"):
        fetched_json(web)


def test_an_error_body_is_read_up_to_4_kib(web):
    web.answer = says(500, b"x" * 10**6)
    answer = fetched_json(web)
    assert (answer.status, answer.body) == (500, b"x" * 4096)


def test_a_redirect_is_not_followed(web, elsewhere):
    web.answer = redirects(elsewhere.url)
    assert fetched_json(web, {"Authorization": "Client-ID k"}).status == 302
    assert elsewhere.requests == []
