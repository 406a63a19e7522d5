"""A web server of 127.0.0.1, in threads, and answers that are wrong in every way."""

import gzip
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.servers import free_port


@dataclass
class Request:
    path: str
    headers: Message


class Handler(BaseHTTPRequestHandler):
    """One request; answers call :meth:`send`, or write to ``wfile`` themselves."""

    protocol_version = "HTTP/1.1"
    web: "WebServer"

    def do_GET(self) -> None:
        self.web.requests.append(Request(self.path, self.headers))
        with suppress(ConnectionError, ssl.SSLError):  # the client has had enough
            self.web.answer(self)
        self.close_connection = True

    def send(self, status: int, body: bytes = b"", **headers: Any) -> None:
        """Send a response. Headers are named as in Python; None leaves one out."""
        headers = {"Content_Length": len(body), "Connection": "close", **headers}
        self.send_response(status)
        for name, value in headers.items():
            if value is not None:
                self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


class WebServer:
    """A web server of 127.0.0.1, in threads.

    :param answer: answers a request; it may be replaced at any time.
    :param context: for TLS.
    :ivar requests: all that were received.
    :ivar closing: set when the server stops; answers that wait, wait for it.
    """

    def __init__(
        self,
        answer: Callable[[Handler], None] | None = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.answer = answer or (lambda handler: handler.send(200, b"here"))
        self.requests: list[Request] = []
        self.closing = threading.Event()
        self.port = free_port()
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self.port}"
        handler = type("Handler", (Handler,), {"web": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        self._server.handle_error = lambda *_: None  # of clients that break a handshake off
        if context:
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> "WebServer":
        self._thread.start()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


# Each returns a function for WebServer.answer, or for one of those of FakeUnsplash.


def says(status: int, body: bytes = b"", **headers: Any) -> Callable[[Handler], None]:
    return lambda handler: handler.send(status, body, **headers)


def redirects(location: str, status: int = 302) -> Callable[[Handler], None]:
    return says(status, Location=location)


def truncated(body: bytes, missing: int = 1, **headers: Any) -> Callable[[Handler], None]:
    """Declare more bytes than are sent."""
    return says(200, body, Content_Length=len(body) + missing, **headers)


def overlong(body: bytes, more: int = 1, **headers: Any) -> Callable[[Handler], None]:
    """Declare fewer bytes than are sent."""
    return says(200, body, Content_Length=len(body) - more, **headers)


def gzipped(body: bytes, **headers: Any) -> Callable[[Handler], None]:
    """Compress the body, whatever the client accepts."""
    return says(200, gzip.compress(body), Content_Encoding="gzip", **headers)


def endless(chunk: bytes = b"\xff" * 65536, **headers: Any) -> Callable[[Handler], None]:
    """Send chunks for ever."""

    def answer(handler: Handler) -> None:
        handler.send(200, Content_Length=None, Transfer_Encoding="chunked", **headers)
        while not handler.web.closing.is_set():
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))

    return answer


def silent(handler: Handler) -> None:
    """Send nothing at all."""
    handler.web.closing.wait()


def drips(raw: bytes, pause: float, rest: bytes = b"x") -> Callable[[Handler], None]:
    """Send some bytes at once, then ``rest`` again and again, ``pause`` seconds apart, for ever."""

    def answer(handler: Handler) -> None:
        handler.wfile.write(raw)
        while not handler.web.closing.wait(pause):
            handler.wfile.write(rest)

    return answer
