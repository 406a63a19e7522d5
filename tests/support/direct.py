"""A client of direct uploads for tests, which sends exactly what it is told to."""

from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

import requests

from tests.support.site import ALICE


class DirectUploads:
    """The direct uploads below one path of a site.

    :param http: WebTest's application.
    :param base: the path, with ``/uploads`` at its end.
    """

    def __init__(self, http: Any, base: str, headers: dict[str, str] = ALICE):
        self.http = http
        self.base = base
        self.headers = headers

    def create(self, size: int, status: int = 201, headers: dict | None = None, **more: Any) -> Any:
        """Announce a file, and return the response.

        :param more: further members of the JSON; None leaves one out.
        """
        body = {"filename": "a.txt", "size": size, **more}
        body = {name: value for name, value in body.items() if value is not None}
        sent = {**self.headers, **(headers or {})}
        return self.http.post_json(self.base, body, headers=sent, status=status)

    def put(self, described: dict, content: bytes, status: int | None = 200, **headers) -> Any:
        """Send bytes to where a description says, and return the response.

        :param described: the description of an upload, or of a part.
        :param status: the expected one; None for any.
        """
        url, sent = described["url"], {**described["headers"], **headers}
        if urlsplit(url).netloc.partition(":")[0] == "localhost":  # WebTest's server: our own
            path = url.partition("/v1")[2]
            expected = "*" if status is None else status
            return self.http.put(path, content, headers=sent, status=expected)
        response = requests.put(url, data=content, headers=sent, timeout=30)
        response.status_int = response.status_code
        assert status in (None, response.status_code), response.text
        return response

    def send(self, content: bytes, **more: Any) -> dict[str, Any]:
        """Announce a file and send its bytes. Return its description."""
        described = self.create(len(content), **more).json
        for part in described.get("parts", [{**described, "offset": 0}]):
            size = part["size"]
            self.put(part, content[part["offset"] : part["offset"] + size])
        return described

    def complete(self, described: dict, status: int | str = 201, headers=None, parts=None) -> Any:
        """Complete an upload, and return the response."""
        path, sent = path_of(described["complete"]), {**self.headers, **(headers or {})}
        if parts is None:
            return self.http.post(path, headers=sent, status=status)
        return self.http.post_json(path, {"parts": parts}, headers=sent, status=status)

    def get(self, described: dict, status: int = 200, headers=None) -> Any:
        sent = {**self.headers, **(headers or {})}
        return self.http.get(self.url(described), headers=sent, status=status)

    def delete(self, described: dict, status: int = 204, headers=None) -> Any:
        sent = {**self.headers, **(headers or {})}
        return self.http.delete(self.url(described), headers=sent, status=status)

    def url(self, described: dict) -> str:
        return f"{self.base}/{described['id']}"


def path_of(url: str) -> str:
    """Return the path of a URL of the site, as WebTest takes it."""
    return url.partition("/v1")[2]


def digest(content: bytes) -> str:
    return sha256(content).hexdigest()
