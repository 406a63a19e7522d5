"""What a server says about itself at the root of its API."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import requests

from ..errors import CommandFailed
from .responses import LOGIN, REDIRECTED, reason

EXAMPLE = "such as https://kinto.example/v1"

_VERSION = re.compile(r"/(v\d+)/?")


@dataclass(frozen=True)
class ServerInfo:
    """A server, and what its plugins tell clients.

    :param url: the URL of its API, with the version and without a slash at its end.
    :param user: the id of the user whose credentials were sent; empty if it knows no such user.
    :param own_bucket: the id of this user's default bucket; empty if there is none.
    :param attachments: the capability ``attachments``.
    :param library: the bucket and the collection of the media library; None if there is none.
    """

    url: str
    user: str = ""
    own_bucket: str = ""
    attachments: dict[str, Any] = field(default_factory=dict)
    library: tuple[str, str] | None = None

    @property
    def max_size(self) -> int:
        """Bytes of the largest file that the server accepts in general; 0 for no limit."""
        size = self.attachments.get("max_size")
        return size if isinstance(size, int) else 0

    @property
    def extensions(self) -> set[str] | None:
        """The extensions that the server accepts in general; None for any, or if unknown."""
        found = self.attachments.get("extensions")
        return set(map(str, found)) if isinstance(found, list) else None

    @property
    def takes_resumable(self) -> bool:
        """Whether the server takes resumable uploads."""
        return self.attachments.get("resumable") is True

    @property
    def can_be_asked(self) -> bool:
        """Whether the server refuses a form with an unknown field before it stores the file:
        version 10 and later do."""
        major = str(self.attachments.get("version", "")).partition(".")[0]
        return major.isdecimal() and int(major) >= 10


def check_url(url: str) -> str:
    """Return the URL of a server without slashes at its end.

    :raises ValueError: if it is malformed, or has a user or a password in it. The message does not
        repeat a password.

    >>> check_url("https://kinto.example/v1/")
    'https://kinto.example/v1'
    """
    if "@" in url:
        raise ValueError(f"The URL of the server (--server) must not contain a user: {LOGIN}")
    try:
        parts = urlsplit(url)
        is_valid = bool(parts.hostname) and parts.scheme in ("http", "https") and parts.port != 0
    except ValueError:  # of Python, about the port or the brackets of an IPv6 address
        is_valid = False
    if not is_valid:
        raise ValueError(f"{url!r} is not the URL of a server, {EXAMPLE}")
    return url.rstrip("/")


def find_server(get: Callable[[str], requests.Response], url: str) -> ServerInfo:
    """Return what the server says about itself. If ``url`` lacks the version of the API, take the
    version that the server redirects to.

    :param get: sends a ``GET`` request and does not follow redirects.
    :param url: as the user has given it, without a slash at its end.
    :raises CommandFailed: if it is not a Kinto server with this plugin.
    """
    response = get(f"{url}/")
    if response.status_code in REDIRECTED:
        target = response.headers.get("Location", "")
        version = _VERSION.fullmatch(urlsplit(target).path)
        if not version or url.endswith(f"/{version[1]}"):
            raise CommandFailed(
                f"{url} redirects to {target}: give that URL as --server, {EXAMPLE}"
            )
        url = f"{url}/{version[1]}"
        response = get(f"{url}/")
    if not response.ok:
        raise CommandFailed(
            f"{url} is not the URL of a Kinto server (it answers {reason(response)}): give another "
            f"--server, {EXAMPLE}"
        )
    return _read(response, url)


def _read(response: requests.Response, url: str) -> ServerInfo:
    try:
        root = response.json()
        capabilities, user = dict(root["capabilities"]), dict(root.get("user") or {})
    except (ValueError, LookupError, TypeError, AttributeError):
        raise CommandFailed(
            f"{url} is not a Kinto server: give another --server, {EXAMPLE}"
        ) from None
    attachments, library = capabilities.get("attachments"), capabilities.get("media_library")
    if not isinstance(attachments, dict):
        raise CommandFailed(
            f"The server at {url} has no attachments: its operator has to add kinto_attachment to "
            "kinto.includes"
        )
    ids = None
    if isinstance(library, dict):
        ids = str(library.get("bucket")), str(library.get("collection"))
    name, bucket = str(user.get("id") or ""), str(user.get("bucket") or "")
    return ServerInfo(url, name, bucket, attachments, ids)
