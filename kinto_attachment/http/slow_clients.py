"""Clients that are slow, silent, or send a body that the server never reads.

A thread of the server that waits for a client answers no other client. These limits keep such waits
short and few, whatever the route:

* A body that is read must arrive at a minimum rate, and without long silences; otherwise the
  response is a 408.
* Kinto reads a JSON body before it knows who sends it, and within a transaction, which may lock
  rows. For Kinto's routes, the body is therefore read here, before the transaction begins. Only a
  few requests may wait for such a body at the same time (``client.queue``), and only for a few
  seconds.
* The views of this plugin read a body after the permission was checked; they call
  :meth:`GuardedInput.trust`.
* A refusal is sent before the rest of the body is looked at. Many clients read the response only
  after they have sent everything, so the rest is then read and dropped, as long as it arrives
  quickly, and up to a limit. The same few places are for these requests.
* The connection of a request whose body was not read to its end is closed, and not used again.
* A client that stops reading its response loses the connection.

The limits have to be set on the client's socket, which only gunicorn hands over. waitress receives
a body before it calls the application; with uWSGI, nginx or ``socket-timeout`` has to set them.
"""

import math
import re
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from io import BytesIO
from threading import BoundedSemaphore
from typing import Any

from pyramid.registry import Registry
from pyramid.request import Request
from pyramid.response import Response

from ..errors import ClientTooSlow, MalformedForm, Refused
from ..files.blob import CHUNK
from ..settings import Settings
from .requests import is_decimal, receiving
from .responses import error_view

OUR_ROUTES = re.compile(
    r"(/v\d+)?/((media|content|unsplash|image|original|internal|attachments)(/|$)"
    r"|buckets/[^/]+/collections/[^/]+/records/[^/]+/attachment)"
)
"""Paths whose views read the body by themselves."""

STRANGER_GRACE_SECONDS = 0.05
"""How long a request may wait for its body without one of the places: the body usually follows the
headers at once."""

STRANGER_SECONDS = 10.0
"""How long such a request may wait for its body in all."""

DRAIN_BYTES = 8 * 1024 * 1024
"""How much of an unread body is dropped at most."""

DRAIN_SECONDS = 5.0
"""How long that may take in all."""

DRAIN_START_SECONDS = 0.25
"""A client that is sending has bytes on the way. The first ones have to arrive within this time."""

DRAIN_SLICE_SECONDS = 0.25
DRAIN_SLICE_BYTES = 16 * 1024
"""Dropping ends if fewer bytes than this arrive within one time slice."""

FILE_PATIENCE = 4
"""How many times longer a client may take until ``sendfile`` goes on. The kernel calls a socket
writable only when a third of its buffer is free, which may be more than a megabyte."""


class GuardedInput:
    """``wsgi.input`` of one request: counts what is read, and limits the wait for it.

    :param environ: the WSGI environment, whose input is replaced by this object.
    :param silence: seconds in which the client has to send something.
    :param rate: bytes a second that it has to send on average; 0 for any.
    :param window: seconds of waiting for the client over which that average is taken.
    :param places: for the requests that wait without a known permission.
    """

    def __init__(
        self,
        environ: dict[str, Any],
        silence: float,
        rate: int,
        window: float,
        places: BoundedSemaphore,
    ):
        self._input = environ["wsgi.input"]
        length = environ.get("CONTENT_LENGTH") or ""
        # gunicorn sets wsgi.input_terminated for every request, even one without a body.
        chunked = "HTTP_TRANSFER_ENCODING" in environ
        self._left: int | None = int(length) if is_decimal(length) else None if chunked else 0
        self._silence = silence
        self._rate = rate
        self._window = window
        self._waited = 0.0
        self._window_bytes = 0
        self._places = places
        self._has_place = False
        self._failure: Exception | None = None
        self._stranger_waited: float | None = 0.0
        self._unreader = _unreader_of(self._input)
        if self._unreader is not None:
            self._receive = self._unreader.chunk
            self._unreader.chunk = self._receive_or_end
        self._environ = environ
        environ["wsgi.input"] = self
        # WebOb would otherwise expect that it can seek in the input.
        environ["webob.is_body_seekable"] = False

    @property
    def has_socket(self) -> bool:
        """Whether the server hands over the client's socket."""
        return self._unreader is not None

    @property
    def is_finished(self) -> bool:
        """Whether the client has nothing left to send. Unknown for a chunked body until its end."""
        return self._left == 0

    def read(self, size: int = -1) -> bytes:
        """Return that many bytes, or fewer at the end, or before an error: the next call raises it.

        :raises ClientTooSlow: if the client is silent, or slower than the minimum rate.
        """
        return self._counted(self._read(self._input.read, size), size)

    def readline(self, size: int = -1) -> bytes:
        """Return a line, or the part of it that fits."""
        line = self._read(self._input.readline, size)
        return self._counted(line, len(line) or 1)

    def readlines(self, hint: int = -1) -> list[bytes]:
        """Return all lines."""
        return list(self)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def read_ahead(self) -> None:
        """Read the whole body into memory, and leave it there to those who come after.

        :raises ClientTooSlow: if it does not arrive in time.
        :raises MalformedForm: if the client closes the connection.
        """
        content = bytearray()
        with receiving("body"):
            while chunk := self.read(CHUNK if self._left is None else min(CHUNK, self._left)):
                content += chunk
        if not self.is_finished:
            raise MalformedForm("The client closed the connection before the end.", "body")
        self._environ.pop("HTTP_TRANSFER_ENCODING", None)
        self._environ["CONTENT_LENGTH"] = str(len(content))
        self._environ["wsgi.input"] = BytesIO(content)
        # Or WebOb copies it, to a temporary file if it is over 10 KiB.
        self._environ["webob.is_body_seekable"] = True

    def trust(self) -> None:
        """From here on, let the client be as slow as the settings allow: it may send this body."""
        self._stranger_waited = None
        self._give_place_back()

    def _read(self, read: Callable[[int], bytes], size: int) -> bytes:
        """Call a method of the server's input. gunicorn drops what it has received when the socket
        fails, so it is told that the body ends there."""
        try:
            data = b"" if self._failure else read(size)
        except Exception:
            if not self._failure:
                raise
            data = b""
        if data or not self._failure:
            return data
        raise self._failure

    def _counted(self, data: bytes, wanted: int) -> bytes:
        if self._left is not None:
            self._left = max(0, self._left - len(data))
        elif wanted < 0 or len(data) < wanted:
            self._left = 0  # the end of a chunked body
        if self.is_finished:
            self._give_place_back()
        return data

    def _receive_or_end(self, *args: Any) -> bytes:
        """Receive the next bytes; none after an error, which :meth:`_read` raises later."""
        try:
            return self._receive_in_time(*args)
        except (OSError, ClientTooSlow) as error:
            self._failure = error
        return b""

    def _receive_in_time(self, *args: Any) -> bytes:
        """Receive the next bytes from the client's socket. Only the time spent waiting for the
        client counts: a slow disk of ours is not the client's fault."""
        silent = 0.0
        while True:
            started = time.monotonic()
            patience = min(
                self._silence - silent, self._window - self._waited, self._stranger_patience()
            )
            try:
                data = self._with_timeout(patience, *args)
            except TimeoutError:
                data = None
            waited = time.monotonic() - started
            silent += waited
            self._waited += waited
            if self._stranger_waited is not None:
                self._stranger_waited += waited
            self._window_bytes += len(data or b"")
            self._check_rate()
            if data is not None:
                return data
            if silent >= self._silence:
                raise ClientTooSlow(f"Nothing arrived for {self._silence:g} seconds.")

    def _stranger_patience(self) -> float:
        """Return how many seconds more the request may wait.

        :raises ClientTooSlow: if the time is up, or if all places are taken.
        """
        waited = self._stranger_waited
        if waited is None:
            return math.inf
        if waited < STRANGER_GRACE_SECONDS:
            return STRANGER_GRACE_SECONDS - waited
        if not self._take_place():
            raise ClientTooSlow("Too many requests are already waiting for their bodies.")
        if waited >= STRANGER_SECONDS:
            raise ClientTooSlow(f"The body did not arrive within {STRANGER_SECONDS:g} seconds.")
        return STRANGER_SECONDS - waited

    def _take_place(self) -> bool:
        self._has_place = self._has_place or self._places.acquire(blocking=False)
        return self._has_place

    def _give_place_back(self) -> None:
        if self._has_place:
            self._has_place = False
            self._places.release()

    def _check_rate(self) -> None:
        """Compare what arrived with the minimum rate, once a whole window is over.

        :raises ClientTooSlow: if the client was slower.
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
        the server does not hand over the socket, or if all places are taken."""
        if self._unreader is None or self.is_finished or not self._take_place():
            return
        deadline = time.monotonic() + DRAIN_SECONDS
        until, has_begun, dropped = time.monotonic() + DRAIN_START_SECONDS, False, 0

        def receive(*args: Any) -> bytes:
            nonlocal until, has_begun
            data = self._with_timeout(until - time.monotonic(), *args)
            if not has_begun:
                until, has_begun = time.monotonic() + DRAIN_SLICE_SECONDS, True
            return data

        self._unreader.chunk, self._failure = receive, None
        try:
            # Not beyond the end of the body: the next request may follow at once.
            while not self.is_finished and dropped < DRAIN_BYTES and time.monotonic() < deadline:
                size = (
                    DRAIN_SLICE_BYTES if self._left is None else min(DRAIN_SLICE_BYTES, self._left)
                )
                data = self.read(size)
                if not data:
                    return
                dropped += len(data)
                until = time.monotonic() + DRAIN_SLICE_SECONDS
        except (OSError, Refused):
            return  # too slow, or gone: the connection is closed either way

    def close(self) -> None:
        """Give the connection back as it was; have the server close it if the client may still send
        something."""
        self._give_place_back()
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
    places = BoundedSemaphore(settings["client.queue"])

    def tween(request: Request) -> Response:
        body = GuardedInput(request.environ, *limits, places)
        is_safe = request.method in ("GET", "HEAD", "OPTIONS")
        try:
            if not (body.is_finished or is_safe or OUR_ROUTES.match(request.environ["PATH_INFO"])):
                body.read_ahead()
            response: Response = handler(request)
        except Refused as error:
            response = error_view(error, request)
        except BaseException:
            body.close()
            raise
        if body.is_finished or not body.has_socket:
            body.close()
            guard_response(request.environ, response, settings["client.silence"])
            return response
        if is_safe:
            body.close()  # no client needs to send a body here: the rest is not awaited
        else:
            response.app_iter = _Drained(response.app_iter, body)
        return response

    return tween


def guard_response(environ: dict[str, Any], response: Response, silence: float) -> None:
    """Limit how long the client of a request can hold a thread while its response is sent.

    The connection is closed if the client reads nothing for so many seconds. Only its silences are
    limited, not the whole time. Does nothing where the server does not hand over the socket.

    :param environ: of a request whose body was read, or that has none.
    :param silence: seconds.
    """
    sock = environ.get("gunicorn.socket")
    if not isinstance(sock, socket.socket):
        return
    with suppress(OSError):
        if isinstance(response.app_iter, environ.get("wsgi.file_wrapper", ())):
            # ``socket.sendfile`` applies it to each wait.
            sock.settimeout(silence * FILE_PATIENCE)
        else:
            # ``socket.sendall`` would apply a timeout to the whole chunk, the kernel to each wait.
            seconds, fraction = divmod(silence, 1)
            timeout = struct.pack("@ll", int(seconds), int(fraction * 1_000_000))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
        is_closed = "close" in environ.get("HTTP_CONNECTION", "").lower()
        if is_closed or environ.get("SERVER_PROTOCOL") == "HTTP/1.0":
            # gunicorn would otherwise wait on its main thread until the client closes its side.
            sock.shutdown(socket.SHUT_RD)


def _unreader_of(body: Any) -> Any:
    """Return gunicorn's reader of the client's socket, or None on other servers."""
    reader = getattr(body, "reader", None)
    unreader = getattr(reader, "unreader", None)
    if unreader is None:
        unreader = getattr(getattr(reader, "req", None), "unreader", None)  # a chunked body
    has_socket = isinstance(getattr(unreader, "sock", None), socket.socket)
    return unreader if has_socket and hasattr(unreader, "chunk") else None
