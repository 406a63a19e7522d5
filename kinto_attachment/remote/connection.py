"""One GET over a connection to a verified address, within a time limit.

The transport is :mod:`http.client` on a socket of our own: it follows no redirects, decodes no
bodies, uses no proxy, and looks up no names.
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
"""Seconds to wait after the last byte for the server to close the connection."""
MAX_ERROR_BODY = 4096
"""Bytes that are read of the body of an error response."""


class TimeLimit:
    """The time limits of one request; the deadline counts from now on.

    :param timeout: seconds for each single wait.
    :param deadline: seconds for everything.
    """

    def __init__(self, timeout: float, deadline: float) -> None:
        self._timeout = timeout
        self._end = time.monotonic() + deadline

    def remaining(self) -> float:
        """Return the seconds that the next wait may take.

        :raises TimeoutError: if the deadline has passed.
        """
        remaining = self._end - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("the deadline has passed")
        return min(self._timeout, remaining)


class _LimitedSocket:
    """A socket whose reads respect a time limit. A socket timeout alone would not: it starts again
    with every byte, and a server can send a header or a body byte by byte."""

    limit: TimeLimit

    def recv_into(self, *args: Any) -> int:
        self.settimeout(self.limit.remaining())
        return super().recv_into(*args)


class _Socket(_LimitedSocket, socket.socket):
    pass


class _TLSSocket(_LimitedSocket, ssl.SSLSocket):
    pass


class Response:
    """The response of a server.

    :ivar declared: the ``Content-Length`` in bytes; None if there is none.
    """

    def __init__(self, origin: Origin, response: HTTPResponse, sock: _LimitedSocket) -> None:
        self.origin = origin
        self.status = response.status
        self.headers = response.headers
        self.declared = response.length
        self._response = response
        self._sock = sock

    @property
    def host(self) -> str:
        """The host that sent the response."""
        return self.origin.host

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes of the body.

        :raises RemoteFailed: if the body has a content encoding, or its number of bytes is not
            declared or not the declared one. A body of undeclared length may be truncated.
        """
        if self.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
            raise RemoteFailed(f"{self.host} sent a content encoding that was not requested")
        if self.declared is None and not self._response.chunked:
            raise RemoteFailed(f"{self.host} did not declare how many bytes it sends")
        self._response.length = None  # otherwise http.client hides surplus bytes
        size = 0
        while (self.declared is None or size < self.declared) and (
            chunk := self._response.read1(CHUNK)
        ):
            size += len(chunk)
            yield chunk
        if self.declared is not None and (size != self.declared or self._sends_more()):
            raise RemoteFailed(f"{self.host} did not send the declared {self.declared} bytes")

    def _sends_more(self) -> bool:
        self._sock.limit = TimeLimit(LINGER, LINGER)
        try:
            return bool(self._response.read1(1))
        except OSError:  # nothing arrived: the connection stays open, or broke
            return False

    def error_body(self) -> bytes:
        """Return the first :data:`MAX_ERROR_BODY` bytes of the body of an error response."""
        return self._response.read(MAX_ERROR_BODY)


@contextmanager
def ask(
    url: str, headers: dict[str, str], limit: TimeLimit, allowed: frozenset[Origin]
) -> Iterator[Response]:
    """Send a GET, yield the response, and close the connection.

    :param headers: of the request; they replace the default ones.
    :param allowed: origins that may have any address. All others must be on the public Internet.
    :raises RemoteTimeout: if the time limit is exceeded.
    :raises RemoteFailed: if the URL is not acceptable, the host cannot be reached or is not on the
        public Internet, or the response is not valid HTTP.
    """
    origin, target = split(url)
    headers = {
        "Host": origin.netloc,
        "User-Agent": "kinto-attachment",
        "Accept-Encoding": "identity",
        "Connection": "close",
        **headers,
    }
    with _translated(origin.host), closing(_connect(origin, limit, allowed)) as sock:
        connection = HTTPConnection(origin.host, origin.port)
        connection.sock = sock
        connection.request("GET", target, headers=headers)
        with closing(connection.getresponse()) as response:
            yield Response(origin, response, sock)


@contextmanager
def _translated(host: str) -> Iterator[None]:
    """Translate the errors of sockets and of :mod:`http.client`."""
    try:
        yield
    except TimeoutError as error:
        raise RemoteTimeout(f"{host} did not answer in time") from error
    except OSError as error:
        raise RemoteFailed(f"{host} cannot be reached: {error.strerror or error}") from error
    except HTTPException as error:
        # The server wrote the text of this error, and may repeat our credentials in it.
        kind = type(error).__name__
        raise RemoteFailed(f"{host} sent a truncated or malformed response ({kind})") from None


def _connect(origin: Origin, limit: TimeLimit, allowed: frozenset[Origin]) -> _LimitedSocket:
    """Return a connection to one of the addresses of a host, all of which are checked."""
    addresses = socket.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
    if origin not in allowed and not all(is_public(address[0]) for *_, address in addresses):
        raise RemoteFailed(f"{origin.host} is not on the public Internet")
    failure = OSError("the host has no address")
    for family, kind, protocol, _, address in addresses:
        sock = _Socket(family, kind, protocol)
        try:
            sock.settimeout(limit.remaining())
            sock.connect(address)
            sock.settimeout(limit.remaining())
            sock = _encrypted(sock, origin.host) if origin.scheme == "https" else sock
        except OSError as error:
            sock.close()
            failure = error
        else:
            sock.limit = limit
            return sock
    raise failure


def _encrypted(sock: _Socket, host: str) -> _TLSSocket:
    """Return the socket with TLS. The certificate must be valid for the host name, whatever
    address the socket is connected to."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    context.sslsocket_class = _TLSSocket
    return context.wrap_socket(sock, server_hostname=host)
