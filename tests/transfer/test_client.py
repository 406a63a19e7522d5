"""What a client refuses to start with."""

import pytest

from kinto_attachment.transfer.client import Client


@pytest.mark.parametrize(
    "url", ["kinto.example/v1", "ftp://a/v1", "http:///v1", "https://a:b@c/v1"]
)
def test_malformed_urls_are_refused(url):
    with pytest.raises(ValueError):
        Client(url, "b", "c")


def test_malformed_authorization_is_refused():
    with pytest.raises(ValueError):
        Client("https://kinto.example/v1", "b", "c", "alice")
