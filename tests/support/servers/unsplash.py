"""An imitation of the API of Unsplash and of the host of its images, and all that can be wrong.

As https://unsplash.com/documentation has it; both are one server here, as only the URL of the API
may be on this machine.
"""

import gzip
import json
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from tests.support.servers import free_port

KEY = "s3cret-access-key"
LIMIT = 5000  # requests an hour


@dataclass
class Request:
    path: str
    headers: Message


class Handler(BaseHTTPRequestHandler):
    """One request; ``answer`` and ``send`` are for those who write what is answered."""

    protocol_version = "HTTP/1.1"
    web: "Web"

    def do_GET(self) -> None:
        self.web.requests.append(Request(self.path, self.headers))
        with suppress(ConnectionError, ssl.SSLError):  # the client has had enough
            self.web.answer(self)
        self.close_connection = True

    def send(self, status: int, body: bytes = b"", **headers: Any) -> None:
        """Headers by their names in Python; None leaves one out."""
        headers = {"Content_Length": len(body), "Connection": "close", **headers}
        self.send_response(status)
        for name, value in headers.items():
            if value is not None:
                self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


class Web:
    """A server of 127.0.0.1, in threads.

    :param answer: what it does with a request.
    :param context: for TLS.
    :ivar requests: all that came.
    :ivar closing: set when it ends; who waits, waits for that.
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

    def __enter__(self) -> "Web":
        self._thread.start()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


# What can be wrong with an answer. Each makes a function for Web.answer, or a knob of Unsplash.


def says(status: int, body: bytes = b"", **headers: Any) -> Callable[[Handler], None]:
    return lambda handler: handler.send(status, body, **headers)


def redirects(location: str, status: int = 302) -> Callable[[Handler], None]:
    return says(status, Location=location)


def limited(status: int, text: bytes = b"Rate Limit Exceeded", remaining: int = 0, **headers: Any):
    """As the API is when it was asked too often: a text, and no JSON."""
    headers = {"X_Ratelimit_Limit": LIMIT, "X_Ratelimit_Remaining": remaining, **headers}
    return says(status, text, Content_Type="text/plain", **headers)


def truncated(body: bytes, missing: int = 1, **headers: Any) -> Callable[[Handler], None]:
    """It declares more bytes than come."""
    return says(200, body, Content_Length=len(body) + missing, **headers)


def overlong(body: bytes, more: int = 1, **headers: Any) -> Callable[[Handler], None]:
    """It declares fewer bytes than come."""
    return says(200, body, Content_Length=len(body) - more, **headers)


def gzipped(body: bytes, **headers: Any) -> Callable[[Handler], None]:
    """Whatever the client accepts."""
    return says(200, gzip.compress(body), Content_Encoding="gzip", **headers)


def endless(chunk: bytes = b"\xff" * 65536, **headers: Any) -> Callable[[Handler], None]:
    """In chunks, and for ever."""

    def answer(handler: Handler) -> None:
        handler.send(200, Content_Length=None, Transfer_Encoding="chunked", **headers)
        while not handler.web.closing.is_set():
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))

    return answer


def silent(handler: Handler) -> None:
    """Not even a header, ever."""
    handler.web.closing.wait()


def drips(raw: bytes, pause: float, rest: bytes = b"x") -> Callable[[Handler], None]:
    """At first so many bytes at once, then one byte each so many seconds, for ever."""

    def answer(handler: Handler) -> None:
        handler.wfile.write(raw)
        while not handler.web.closing.wait(pause):
            handler.wfile.write(rest)

    return answer


@dataclass
class FakePhoto:
    """A photo of the imitation.

    :param full: where its image is said to be; None for where it is.
    :param changes: of the JSON, by dotted names; :data:`MISSING` removes one.
    """

    id: str
    content: bytes
    width: int = 64
    height: int = 48
    mimetype: str = "image/jpeg"
    author: str = "Ada Lovelace"
    username: str = "ada"
    description: str | None = "A dog on a beach"
    alt: str | None = "brown dog running on sand"
    full: str | None = None
    changes: dict[str, Any] = field(default_factory=dict)


MISSING = object()
"""As a change of a photo: the field is left out."""


class Unsplash(Web):
    """
    ::

        with Unsplash() as server:
            server.add("Dwu85P9SOIk", jpeg, width=64, height=48)
            server.on_photo = limited(403)

    :ivar on_photo: what is answered instead of a photo's JSON; None for as it should be.
    :ivar on_download: likewise when a download is told.
    :ivar on_image: likewise instead of an image.
    :ivar tracked: ids of photos whose download was told.
    :ivar key: the access key that is right.
    :ivar left: requests until the rate limit.
    """

    def __init__(self, key: str = KEY) -> None:
        super().__init__(self._answer)
        self.key = key
        self.photos: dict[str, FakePhoto] = {}
        self.tracked: list[str] = []
        self.on_photo: Callable[[Handler], None] | None = None
        self.on_download: Callable[[Handler], None] | None = None
        self.on_image: Callable[[Handler], None] | None = None
        self.left = LIMIT

    def add(self, id: str, content: bytes, **about: Any) -> FakePhoto:
        self.photos[id] = photo = FakePhoto(id, content, **about)
        return photo

    @property
    def asked(self) -> list[str]:
        """The paths of all requests, without their queries."""
        return [urlsplit(request.path).path for request in self.requests]

    def image_url(self, id: str) -> str:
        return f"{self.url}/images/photo-{id}"

    def _answer(self, handler: Handler) -> None:
        parts = urlsplit(handler.path).path.split("/")[1:]
        if len(parts) == 2 and parts[0] == "images":
            return self._send_image(handler, parts[1].removeprefix("photo-"))
        if handler.headers["Authorization"] != f"Client-ID {self.key}":
            return self._send(
                handler, 401, {"errors": ["OAuth error: The access token is invalid"]}
            )
        if not self.left:
            return limited(403)(handler)
        self.left -= 1
        photo = self.photos.get(parts[1]) if len(parts) > 1 and parts[0] == "photos" else None
        if len(parts) == 2 and self.on_photo:
            return self.on_photo(handler)
        if len(parts) == 3 and self.on_download:
            return self.on_download(handler)
        if photo and len(parts) == 2:
            return self._send(handler, 200, self.to_json(photo))
        if photo and parts[2:] == ["download"]:
            self.tracked.append(photo.id)
            return self._send(handler, 200, {"url": self.image_url(photo.id)})
        return self._send(handler, 404, {"errors": ["Couldn't find Photo"]})

    def _send(self, handler: Handler, status: int, data: Any) -> None:
        handler.send(
            status,
            json.dumps(data).encode(),
            Content_Type="application/json",
            X_Ratelimit_Limit=LIMIT,
            X_Ratelimit_Remaining=self.left,
        )

    def _send_image(self, handler: Handler, id: str) -> None:
        photo = self.photos.get(id)
        if self.on_image:
            self.on_image(handler)
        elif photo:
            handler.send(200, photo.content, Content_Type=photo.mimetype)
        else:
            handler.send(404, b"Not found", Content_Type="text/plain")

    def to_json(self, photo: FakePhoto) -> dict[str, Any]:
        page = f"https://unsplash.com/photos/{photo.id}"
        api = f"{self.url}/photos/{photo.id}"
        full = photo.full or f"{self.image_url(photo.id)}?fm=jpg&q=85"
        data = {
            "id": photo.id,
            "slug": f"a-dog-on-a-beach-{photo.id}",
            "created_at": "2016-05-03T11:00:28-04:00",
            "updated_at": "2016-07-10T11:00:01-05:00",
            "width": photo.width,
            "height": photo.height,
            "color": "#6E633A",
            "blur_hash": "LFC$yHwc8^$yIAS$%M%00KxukYIp",
            "downloads": 1345,
            "likes": 24,
            "liked_by_user": False,
            "description": photo.description,
            "alt_description": photo.alt,
            "exif": {"make": None, "model": None},
            "location": {"name": None, "position": {"latitude": None, "longitude": None}},
            "tags": [{"title": "dog"}],
            "urls": {
                "raw": self.image_url(photo.id),
                "full": full,
                "regular": f"{full}&w=1080",
                "small": f"{full}&w=400",
                "thumb": f"{full}&w=200",
            },
            "links": {
                "self": api,
                "html": page,
                "download": f"{page}/download",
                "download_location": f"{api}/download?ixid=MnwxMTc4ODl8MHwxfA",
            },
            "user": {
                "id": "QPxL2MGqfrw",
                "username": photo.username,
                "name": photo.author,
                "links": {
                    "self": f"{self.url}/users/{photo.username}",
                    "html": f"https://unsplash.com/@{photo.username}",
                },
            },
        }
        for name, value in photo.changes.items():
            *path, last = name.split(".")
            place = data
            for step in path:
                place = place[step]
            if value is MISSING:
                del place[last]
            else:
                place[last] = value
        return data
