"""A web server that may be asked, one that may not, and a name server."""

import socket
from ipaddress import ip_address

import pytest

from kinto_attachment.remote import connection
from tests.support.fetches import CONTENT
from tests.support.servers.web import WebServer, says


@pytest.fixture
def web():
    """A server that tests allow to be asked."""
    with WebServer(says(200, CONTENT, Content_Type="image/jpeg; charset=x")) as server:
        yield server


@pytest.fixture
def elsewhere():
    """Another server of this machine, which no test allows to be asked."""
    with WebServer() as server:
        yield server


@pytest.fixture
def resolver(monkeypatch):
    """A name server.

    ``answers`` are given one after the other, the last one for ever; ``asked`` are the names that
    were looked up.
    """

    class Resolver:
        asked: list[str] = []
        answers: list[list[str]] = []

        def getaddrinfo(self, host, port, *args, **kwargs):
            self.asked.append(host)
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            family = {4: socket.AF_INET, 6: socket.AF_INET6}
            return [
                (
                    family[ip_address(address).version],
                    socket.SOCK_STREAM,
                    6,
                    "",
                    (address, port) if "." in address else (address, port, 0, 0),
                )
                for address in answer
            ]

    resolver = Resolver()
    resolver.asked, resolver.answers = [], []
    monkeypatch.setattr(socket, "getaddrinfo", resolver.getaddrinfo)
    return resolver


@pytest.fixture(autouse=True)
def internet(monkeypatch):
    """Public addresses, and the ports of this machine that stand in for them. A connection to any
    other public address fails the test."""
    played = {}

    def connect(self, address):
        if address[0] in played:
            address = ("127.0.0.1", played[address[0]])
        assert address[0] == "127.0.0.1", f"a test wants to connect to {address}"
        socket.socket.connect(self, address)

    monkeypatch.setattr(connection._Socket, "connect", connect, raising=False)
    return played


@pytest.fixture
def connected(internet, monkeypatch):
    """The addresses that were connected to; each refuses the connection."""
    addresses = []

    def connect(self, address):
        addresses.append(address[0])
        raise ConnectionRefusedError("refused")

    monkeypatch.setattr(connection._Socket, "connect", connect, raising=False)
    return addresses
