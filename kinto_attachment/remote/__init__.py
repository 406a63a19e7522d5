"""Fetching from a URL that comes from outside, without server-side request forgery.

A server that fetches any URL gives access to the network that it is in
(https://owasp.org/www-community/attacks/Server_Side_Request_Forgery). Therefore a host name is
looked up once, all of its addresses must be on the public Internet, and the connection is made to
one of exactly these addresses. The owner of the name cannot substitute another address after the
check (DNS rebinding). Every redirect is checked in the same way.
"""

import json
import re
from dataclasses import dataclass
from datetime import datetime, timezone
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import Any, BinaryIO
from urllib.parse import urljoin

from ..errors import RemoteFailed, RemoteLimited, RemoteNotFound, StorageUnavailable, TooLarge
from ..files.blob import Digest
from ..files.mimetype import accept_mimetype
from .connection import Response, TimeLimit, ask
from .origin import Origin, is_public

__all__ = ["Answer", "Fetched", "Origin", "fetch", "get_json", "is_public", "retry_after"]

MAX_REDIRECTS = 5
MAX_JSON = 1024 * 1024
"""Bytes."""
MAX_RETRY_AFTER = 24 * 3600
"""Seconds."""

_REDIRECTS = {301, 302, 303, 307, 308}


@dataclass(frozen=True)
class Fetched:
    """What :func:`fetch` has received.

    :param digest: digest and number of the bytes.
    :param mimetype: the declared media type, in lower case and without parameters; empty if none
        is declared.
    :param url: the URL after all redirects.
    """

    digest: Digest
    mimetype: str
    url: str


@dataclass(frozen=True)
class Answer:
    """The response of an API, of any status.

    :param host: the host that sent it.
    :param body: the whole body if the status is 200; otherwise at most the first 4096 bytes.
    """

    host: str
    status: int
    headers: Message
    body: bytes

    def json(self) -> Any:
        """Return the parsed body.

        :raises RemoteFailed: if the body is not JSON.
        """
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise RemoteFailed(f"{self.host} answered with malformed JSON") from error


def fetch(
    url: str,
    into: BinaryIO,
    *,
    max_size: int,
    timeout: float,
    deadline: float,
    allowed: frozenset[Origin] = frozenset(),
    mimetype: str = "",
) -> Fetched:
    """Write the bytes at a URL to a file, in constant memory. After an error, the file may contain
    some of the bytes.

    :param into: the file, open for writing.
    :param max_size: the largest number of bytes; 0 for no limit.
    :param timeout: seconds that the server may be silent.
    :param deadline: seconds for everything, except the lookup of host names, which has the time
        limit of the system's resolver.
    :param allowed: origins that may have any address, even on this machine.
    :param mimetype: a prefix that the declared media type must have, such as ``image/``.
    :raises RemoteNotFound: if the status is 404 or 410.
    :raises RemoteLimited: if the status is 429.
    :raises RemoteTimeout: if a time limit is exceeded.
    :raises RemoteFailed: if the status is any other than 200, the URL is not acceptable, the host
        is not on the public Internet, the body has another media type, a content encoding, or
        another number of bytes than declared.
    :raises TooLarge: if there are more than ``max_size`` bytes, as soon as that is known.
    :raises StorageUnavailable: if the file cannot be written.

    ::

        fetch("https://photos.example/a.jpg", file, max_size=10**7, timeout=5, deadline=60)
    """
    limit = TimeLimit(timeout, deadline)
    accept = f"{mimetype}*" if mimetype.endswith("/") else mimetype or "*/*"
    for _ in range(MAX_REDIRECTS + 1):
        with ask(url, {"Accept": accept}, limit, allowed) as response:
            if response.status not in _REDIRECTS:
                _check_status(response)
                found = accept_mimetype(response.headers.get("Content-Type")) or ""
                if not found.startswith(mimetype):
                    raise RemoteFailed(
                        f"{response.host} sent {found or 'no media type'} instead of {accept}"
                    )
                digest = _save(response, into, max_size)
                return Fetched(digest, found, url)
            url = _redirected(response, url)
    raise RemoteFailed(f"{response.host} redirected more than {MAX_REDIRECTS} times")


def get_json(
    url: str,
    headers: dict[str, str],
    *,
    timeout: float,
    deadline: float,
    allowed: frozenset[Origin] = frozenset(),
) -> Answer:
    """Return the response of an API, whatever its status is. Redirects are not followed, because
    ``headers`` may contain credentials that only this API may see.

    The parameters are those of :func:`fetch`.

    :raises RemoteTimeout: if a time limit is exceeded.
    :raises RemoteFailed: as for :func:`fetch`, except for the status; and if the body has more than
        :data:`MAX_JSON` bytes.
    """
    headers = {"Accept": "application/json", **headers}
    with ask(url, headers, TimeLimit(timeout, deadline), allowed) as response:
        body = _whole(response) if response.status == 200 else response.error_body()
        return Answer(response.host, response.status, response.headers, body)


def retry_after(headers: Message) -> int | None:
    """Return the seconds of ``Retry-After`` (RFC 9110, section 10.2.3), at most
    :data:`MAX_RETRY_AFTER`; None if there is no such header, or it is malformed."""
    text = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return min(int(text), MAX_RETRY_AFTER)
    try:
        then = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    then = then if then.tzinfo else then.replace(tzinfo=timezone.utc)
    seconds = (then - datetime.now(timezone.utc)).total_seconds()
    return min(max(int(seconds) + 1, 1), MAX_RETRY_AFTER)


def _redirected(response: Response, url: str) -> str:
    """Return the URL that a redirect points to.

    :raises RemoteFailed: if it has no valid target, or leads from https to http.
    """
    location = response.headers.get("Location")
    if not location:
        raise RemoteFailed(f"{response.host} redirected without a location")
    try:
        target = urljoin(url, location)
    except ValueError as error:
        raise RemoteFailed(f"{response.host} redirected to a malformed URL") from error
    if response.origin.scheme == "https" and Origin.of(target).scheme != "https":
        raise RemoteFailed(f"{response.host} redirected from https to http")
    return target


def _check_status(response: Response) -> None:
    if response.status in (404, 410):
        raise RemoteNotFound(f"{response.host} has nothing at this URL")
    if response.status == 429:
        raise RemoteLimited(f"{response.host} is rate limited", retry_after(response.headers))
    if response.status != 200:
        raise RemoteFailed(f"{response.host} answered with status {response.status}")


def _save(response: Response, into: BinaryIO, max_size: int) -> Digest:
    if max_size and (response.declared or 0) > max_size:
        raise TooLarge(response.declared, max_size)
    digest = Digest()
    for chunk in response.chunks():
        digest.update(chunk)
        if max_size and digest.size > max_size:
            raise TooLarge(digest.size, max_size)
        try:
            into.write(chunk)
        except OSError as error:
            raise StorageUnavailable("spool", str(error)) from error
    return digest


def _whole(response: Response) -> bytes:
    body = bytearray()
    for chunk in response.chunks():
        body += chunk
        if len(body) > MAX_JSON:
            raise RemoteFailed(f"{response.host} answered with more than {MAX_JSON} bytes")
    return bytes(body)
