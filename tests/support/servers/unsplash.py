"""An imitation of the API of Unsplash and of the host of its images.

As https://unsplash.com/documentation has it; both are one server here, as only the URL of the API
may be on this machine.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from tests.support.servers.web import Handler, WebServer, says

KEY = "s3cret-access-key"
LIMIT = 5000  # requests an hour


def limited(status: int, text: bytes = b"Rate Limit Exceeded", remaining: int = 0, **headers: Any):
    """Answer as the API does after too many requests: with text, not JSON."""
    headers = {"X_Ratelimit_Limit": LIMIT, "X_Ratelimit_Remaining": remaining, **headers}
    return says(status, text, Content_Type="text/plain", **headers)


@dataclass
class FakePhoto:
    """A photo of the imitation.

    :param full: the URL of its image as the JSON has it; None for the right one.
    :param changes: new values in the JSON, by dotted names; :data:`MISSING` removes one.
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
"""A value of ``FakePhoto.changes``: the field is left out."""


class FakeUnsplash(WebServer):
    """
    ::

        with FakeUnsplash() as server:
            server.add("Dwu85P9SOIk", jpeg, width=64, height=48)
            server.on_photo = limited(403)

    :ivar on_photo: answers instead of a photo's JSON; None for the right answer.
    :ivar on_download: the same where the client reports a download.
    :ivar on_image: the same instead of an image.
    :ivar tracked: ids of the photos whose download the client reported.
    :ivar key: the access key that is accepted.
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
