"""A client of tus 1.0 for tests, which sends exactly what it is told to."""

from base64 import b64encode
from typing import Any

from tests.support.site import ALICE

VERSION = {"Tus-Resumable": "1.0.0"}
STREAM = "application/offset+octet-stream"


def encode(values: dict[str, str]) -> str:
    """Return metadata as ``Upload-Metadata`` has it."""
    return ",".join(f"{key} {b64encode(text.encode()).decode()}" for key, text in values.items())


def basic(user: tuple[str, str]) -> dict[str, str]:
    """Return the header that authenticates a user, for clients that take headers only."""
    return {"Authorization": f"Basic {b64encode(':'.join(user).encode()).decode()}"}


class Uploads:
    """The uploads below one path of a site.

    :param http: WebTest's application.
    :param base: the path, with ``/uploads`` at its end.
    """

    def __init__(self, http: Any, base: str, headers: dict[str, str] = ALICE):
        self.http = http
        self.base = base
        self.headers = headers

    def create(
        self,
        length: int | None,
        content: bytes | None = None,
        headers: dict | None = None,
        status: int = 201,
        **metadata: str,
    ) -> Any:
        """Create an upload, and return the response.

        :param length: in bytes; None to say it later.
        :param content: the first bytes.
        :param metadata: as it is in the end; the name of the file is ``a.txt`` unless it says so.
        """
        size = {"Upload-Defer-Length": "1"} if length is None else {"Upload-Length": str(length)}
        values = {"filename": "a.txt", **metadata}
        sent = {**self.headers, **VERSION, **size, "Upload-Metadata": encode(values)}
        if content is not None:
            sent["Content-Type"] = STREAM
        sent = {name: value for name, value in {**sent, **(headers or {})}.items() if value}
        return self.http.request(
            self.base, method="POST", body=content or b"", headers=sent, status=status
        )

    def patch(
        self,
        url: str,
        offset: int,
        content: bytes,
        headers: dict | None = None,
        status: int | str = 204,
    ) -> Any:
        """Send bytes, and return the response."""
        sent = {**self.headers, **VERSION, "Upload-Offset": str(offset), "Content-Type": STREAM}
        sent = {name: value for name, value in {**sent, **(headers or {})}.items() if value}
        return self.http.request(
            self._path(url), method="PATCH", body=content, headers=sent, status=status
        )

    def head(self, url: str, status: int = 200, headers: dict | None = None) -> Any:
        sent = {**self.headers, **VERSION, **(headers or {})}
        return self.http.head(self._path(url), headers=sent, status=status)

    def offset(self, url: str) -> int:
        return int(self.head(url).headers["Upload-Offset"])

    def get(self, url: str, status: int = 200) -> Any:
        return self.http.get(self._path(url), headers={**self.headers, **VERSION}, status=status)

    def delete(self, url: str, status: int = 204, headers: dict | None = None) -> Any:
        sent = {**self.headers, **VERSION, **(headers or {})}
        return self.http.delete(self._path(url), headers=sent, status=status)

    def _path(self, url: str) -> str:
        return url.partition("/v1")[2] or url
