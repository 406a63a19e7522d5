"""A server, a collection of its own for each test, and a client of it."""

from contextlib import contextmanager

import pytest

from kinto_attachment.transfer import client as client_module
from tests.support.http_record import HTTPRecord
from tests.support.servers.proxy import Proxy
from tests.support.servers.wsgi import Gunicorn
from tests.support.transfers import client_of


@pytest.fixture(scope="package")
def server(file_settings, tmp_path_factory):
    settings = {
        **file_settings("local"),
        "kinto.attachment.extensions": "any",
        "kinto.attachment.fields": "attachment pictures[]",
        "kinto.attachment.library.bucket": "site",
        "kinto.attachment.uploads.segment_size": "1MiB",
        "kinto.attachment.resources.picky.extensions": "images",
        "kinto.attachment.resources.small.max_size": "1000",
    }
    with Gunicorn(settings, tmp_path_factory.mktemp("transfer")) as server:
        yield server


@pytest.fixture
def record(server):
    """A record that does not exist yet, in a collection of its own."""
    return HTTPRecord(server)


@pytest.fixture
def client(record):
    with client_of(record) as client:
        yield client


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Repeat requests at once."""
    monkeypatch.setattr(client_module, "FIRST_WAIT", 0.01)


@pytest.fixture
def hostile(record):
    """A client behind a proxy that misbehaves."""

    @contextmanager
    def start(misbehave, certificate=None):
        with (
            Proxy(record.server.url, misbehave, certificate) as proxy,
            client_of(record, url=proxy.url) as client,
        ):
            yield proxy, client

    return start
