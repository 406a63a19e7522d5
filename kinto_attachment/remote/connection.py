"""One GET, over a connection to an address that was judged, and no longer than a patience lasts.

The transport is :mod:`http.client` on a socket of our own: it follows no redirect, decodes no
body, asks no proxy and looks up no name.
"""

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any

from ..errors import RemoteFailed, RemoteTimeout
from ..files.blob import CHUNK
from .origin import Origin, is_public, split

LINGER = 1.0
"""Seconds for a server to close the connection, as it was asked to, after the last byte."""
MAX_COMPLAINT = 4096
"""Bytes that are read of an answer that is no success."""


class Patience:
    """How long to wait, from now on.

    :param timeout: seconds for each thing that is waited for.
    :param deadline: seconds for all of it.
    """

    def __init__(self, timeout: float, deadline: float) -> None:
        self._timeout = timeout
        self._end = time.monotonic() + deadline

    def left(self) -> float:
        """Seconds to wait for whatever comes next."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline has passed")
        return min(self._timeout, left)


class _Patient:
    """A socket that waits for bytes as long as its patience lasts: a time-out alone begins anew
    with each byte that drips in, of a header as of a body."""

    patience: Patience

    def recv_into(self, *args: Any) -> int:
        self.settimeout(self.patience.left())
        return super().recv_into(*args)


class _Socket(_Patient, socket.socket):
    pass


class _TLSSocket(_Patient, ssl.SSLSocket):
    pass


class Response:
    """What a server answers.

    :ivar declared: the bytes of the body; None if they come in chunks, or until it ends.
    """

    def __init__(self, origin: Origin, response: HTTPResponse, sock: _Patient) -> None:
        self.origin = origin
        self.status = response.status
        self.headers = response.headers
        self.declared = response.length
        self._response = response
        self._sock = sock

    @property
    def host(self) -> str:
        return self.origin.host

    def chunks(self) -> Iterator[bytes]:
        """All bytes, as the server has them.

        :raises RemoteFailed: they are encoded, not told the number of, so that they may be cut
            short, or not as many.
        """
        if self.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
            raise RemoteFailed(f"{self.host} sends an encoding that it was not asked for")
        if self.declared is None and not self._response.chunked:
            raise RemoteFailed(f"{self.host} does not say how much it sends")
        self._response.length = None  # or nothing that comes after is ever seen
        size = 0
        while (self.declared is None or size < self.declared) and (
            chunk := self._response.read1(CHUNK)
        ):
            size += len(chunk)
            yield chunk
        if self.declared is not None and (size != self.declared or self._goes_on()):
            raise RemoteFailed(f"{self.host} does not send the {self.declared} bytes it declares")

    def _goes_on(self) -> bool:
        self._sock.patience = Patience(LINGER, LINGER)
        try:
            return bool(self._response.read1(1))
        except OSError:  # it keeps the connection open, or breaks it: nothing came
            return False

    def complaint(self) -> bytes:
        """The first bytes of an answer that is no success."""
        return self._response.read(MAX_COMPLAINT)


@contextmanager
def ask(
    url: str, headers: dict[str, str], patience: Patience, allowed: frozenset[Origin]
) -> Iterator[Response]:
    """The answer to a GET; then everything is closed.

    :param allowed: whom to ask wherever they are; others only on the public Internet.
    :raises RemoteTimeout:
    :raises RemoteFailed: no such URL is asked for, it cannot be, or what answers is not HTTP.
    """
    origin, target = split(url)
    headers = {
        "Host": origin.netloc,
        "User-Agent": "kinto-attachment",
        "Accept-Encoding": "identity",
        "Connection": "close",
        **headers,
    }
    with _translated(origin.host), closing(_connect(origin, patience, allowed)) as sock:
        connection = HTTPConnection(origin.host, origin.port)
        connection.sock = sock
        connection.request("GET", target, headers=headers)
        with closing(connection.getresponse()) as response:
            yield Response(origin, response, sock)


@contextmanager
def _translated(host: str) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise RemoteTimeout(f"{host} is too slow") from error
    except OSError as error:
        raise RemoteFailed(f"{host} cannot be asked ({error})") from error
    except HTTPException as error:
        # Without its text, which is the server's, and may be what it was sent.
        kind = type(error).__name__
        raise RemoteFailed(f"{host} sends what is cut short, or no HTTP ({kind})") from None


def _connect(origin: Origin, patience: Patience, allowed: frozenset[Origin]) -> _Patient:
    """A connection to one of the addresses of the host, all of which are judged."""
    addresses = socket.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
    if origin not in allowed and not all(is_public(address[0]) for *_, address in addresses):
        raise RemoteFailed(f"{origin.host} is not on the public Internet")
    failure = OSError("it has no address")
    for family, kind, protocol, _, address in addresses:
        sock = _Socket(family, kind, protocol)
        try:
            sock.settimeout(patience.left())
            sock.connect(address)
            sock.settimeout(patience.left())
            sock = _encrypted(sock, origin.host) if origin.scheme == "https" else sock
        except OSError as error:
            sock.close()
            failure = error
        else:
            sock.patience = patience
            return sock
    raise failure


def _encrypted(sock: _Socket, host: str) -> _TLSSocket:
    """The certificate has to be the name's, whatever address was connected to."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    context.sslsocket_class = _TLSSocket
    return context.wrap_socket(sock, server_hostname=host)
