"""Clients that are slow, silent, or send a body that the server never reads.

A thread of the server that waits for a client answers no other client. Three limits keep such waits
short, whatever the route:

* A body that is read must arrive at a minimum rate, and without long silences; otherwise the
  response is a 408.
* A refusal is sent before the rest of the body is looked at. Many clients read the response only
  after they have sent everything, so the rest is then read and dropped, as long as it arrives
  quickly, and up to a limit.
* The connection of a request whose body was not read to its end is closed, and not used again.

The limits have to be set on the client's socket, which only gunicorn hands over. waitress receives
a body before it calls the application; with uWSGI, nginx or ``socket-timeout`` has to set them.
"""

import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

from pyramid.registry import Registry
from pyramid.request import Request
from pyramid.response import Response

from ..errors import ClientTooSlow
from ..settings import Settings

DRAIN_BYTES = 8 * 1024 * 1024
"""How much of an unread body is dropped at most."""

DRAIN_SECONDS = 5.0
"""How long that may take in all."""

DRAIN_START_SECONDS = 0.02
"""A client that is sending has bytes on the way. The first ones have to arrive within this time."""

DRAIN_SLICE_SECONDS = 0.25
DRAIN_SLICE_BYTES = 16 * 1024
"""Dropping ends if fewer bytes than this arrive within one time slice."""


class GuardedInput:
    """``wsgi.input`` of one request: counts what is read, and limits the wait for it.

    :param environ: the WSGI environment, whose input is replaced by this object.
    :param silence: seconds in which the client has to send something.
    :param rate: bytes a second that it has to send on average; 0 for any.
    :param window: seconds of waiting for the client over which that average is taken.
    """

    def __init__(self, environ: dict[str, Any], silence: float, rate: int, window: float):
        self._input = environ["wsgi.input"]
        length = environ.get("CONTENT_LENGTH") or ""
        # gunicorn sets wsgi.input_terminated for every request, even one without a body.
        chunked = "HTTP_TRANSFER_ENCODING" in environ
        self._left: int | None = int(length) if length.isdigit() else None if chunked else 0
        self._silence = silence
        self._rate = rate
        self._window = window
        self._waited = 0.0
        self._window_bytes = 0
        self._unreader = _unreader_of(self._input)
        if self._unreader is not None:
            self._receive = self._unreader.chunk
            self._unreader.chunk = self._receive_in_time
        environ["wsgi.input"] = self

    @property
    def has_socket(self) -> bool:
        """Whether the server hands over the client's socket."""
        return self._unreader is not None

    @property
    def is_finished(self) -> bool:
        """Whether the client has nothing left to send. Unknown for a chunked body until its end."""
        return self._left == 0

    def read(self, size: int = -1) -> bytes:
        """Return that many bytes, or fewer at the end.

        :raises ClientTooSlow: if the client is silent, or slower than the minimum rate.
        """
        return self._counted(self._input.read(size), size)

    def readline(self, size: int = -1) -> bytes:
        """Return a line, or the part of it that fits."""
        line = self._input.readline(size)
        return self._counted(line, len(line) or 1)

    def readlines(self, hint: int = -1) -> list[bytes]:
        """Return all lines."""
        return list(self)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def _counted(self, data: bytes, wanted: int) -> bytes:
        if self._left is not None:
            self._left = max(0, self._left - len(data))
        elif wanted < 0 or len(data) < wanted:
            self._left = 0  # the end of a chunked body
        return data

    def _receive_in_time(self, *args: Any) -> bytes:
        """Receive the next bytes from the client's socket. Only the time spent waiting for the
        client counts: a slow disk of ours is not the client's fault."""
        silent = 0.0
        while True:
            started = time.monotonic()
            patience = min(self._silence - silent, self._window - self._waited)
            try:
                data = self._with_timeout(patience, *args)
            except TimeoutError:
                data = None
            waited = time.monotonic() - started
            silent += waited
            self._waited += waited
            self._window_bytes += len(data or b"")
            self._check_rate()
            if data is not None:
                return data
            if silent >= self._silence:
                raise ClientTooSlow(f"Nothing arrived for {self._silence:g} seconds.")

    def _check_rate(self) -> None:
        """
        :raises ClientTooSlow: if the client was too slow over a whole window.
        """
        if self._waited < self._window:
            return
        if self._window_bytes < self._rate * self._waited:
            raise ClientTooSlow(f"Fewer than {self._rate} bytes a second arrived.")
        self._waited, self._window_bytes = 0.0, 0

    def _with_timeout(self, seconds: float, *args: Any) -> bytes:
        sock: socket.socket = self._unreader.sock
        before = sock.gettimeout()
        sock.settimeout(max(seconds, 0.001))
        try:
            return self._receive(*args)
        finally:
            sock.settimeout(before)

    def drain(self) -> None:
        """Read and drop what the client is still sending, within narrow limits. Does nothing where
        the server does not hand over the socket."""
        if self._unreader is None or self.is_finished:
            return
        deadline = time.monotonic() + DRAIN_SECONDS
        try:
            dropped = len(self._with_timeout(DRAIN_START_SECONDS))
            while 0 < dropped < DRAIN_BYTES and time.monotonic() < deadline:
                slice_end, arrived = time.monotonic() + DRAIN_SLICE_SECONDS, 0
                while arrived < DRAIN_SLICE_BYTES:
                    data = self._with_timeout(slice_end - time.monotonic())
                    if not data:
                        return
                    arrived += len(data)
                dropped += arrived
        except OSError:
            return  # too slow, or gone: the connection is closed either way

    def close(self) -> None:
        """Give the connection back as it was; have the server close it if the client may still send
        something."""
        if self._unreader is None:
            return
        self._unreader.__dict__.pop("chunk", None)
        if not self.is_finished:
            # gunicorn would otherwise wait for the rest, to use the connection again.
            self._input.failed = True
            with suppress(OSError):
                self._unreader.sock.shutdown(socket.SHUT_RD)


class _Drained:
    """The body of a response, after which the rest of the request is dropped.

    A server calls ``close`` when the response has been sent (PEP 3333).
    """

    def __init__(self, app_iter: Iterable[bytes], body: GuardedInput):
        self._app_iter = app_iter
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._app_iter)

    def close(self) -> None:
        try:
            if hasattr(self._app_iter, "close"):
                self._app_iter.close()
        finally:
            self._body.drain()
            self._body.close()


def tween_factory(handler: Callable, registry: Registry) -> Callable[[Request], Response]:
    """Return the tween. It is the outermost one, so that it sees every body and every response."""
    settings: Settings = registry.attachment_plugin.settings
    limits = (settings["client.silence"], settings["client.min_rate"], settings["client.window"])

    def tween(request: Request) -> Response:
        body = GuardedInput(request.environ, *limits)
        response: Response = handler(request)
        if body.is_finished or not body.has_socket:
            body.close()
            return response
        if request.method in ("GET", "HEAD"):
            body.close()  # no client needs to send a body here: the rest is not awaited
        else:
            response.app_iter = _Drained(response.app_iter, body)
        return response

    return tween


def _unreader_of(body: Any) -> Any:
    """Return gunicorn's reader of the client's socket, or None on other servers."""
    reader = getattr(body, "reader", None)
    unreader = getattr(reader, "unreader", None)
    if unreader is None:
        unreader = getattr(getattr(reader, "req", None), "unreader", None)  # a chunked body
    has_socket = isinstance(getattr(unreader, "sock", None), socket.socket)
    return unreader if has_socket and hasattr(unreader, "chunk") else None
