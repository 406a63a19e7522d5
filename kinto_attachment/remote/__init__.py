"""Fetch what is at a URL that somebody else has chosen, and be led nowhere by it.

A server that fetches any URL is a door into the network it stands in
(https://owasp.org/www-community/attacks/Server_Side_Request_Forgery). So a name is looked up once,
every address it has must be on the public Internet, and the connection is made to one of those
addresses: who controls the name cannot give another one after the check.
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
from .connection import Patience, Response, ask
from .origin import Origin, is_public

__all__ = ["Answer", "Fetched", "Origin", "fetch", "get_json", "is_public", "retry_after"]

MAX_REDIRECTS = 5
MAX_JSON = 1024 * 1024
MAX_RETRY_AFTER = 24 * 3600

_REDIRECTS = {301, 302, 303, 307, 308}


@dataclass(frozen=True)
class Fetched:
    """What came.

    :param digest: of the bytes.
    :param mimetype: as the server says, lowercase without parameters; empty if it does not.
    :param url: where it was in the end, after redirects.
    """

    digest: Digest
    mimetype: str
    url: str


@dataclass(frozen=True)
class Answer:
    """An answer of an API, of any status.

    :param body: all of it with status 200, else its first few bytes.
    """

    host: str
    status: int
    headers: Message
    body: bytes

    def json(self) -> Any:
        """
        :raises RemoteFailed: it is none.
        """
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise RemoteFailed(f"{self.host} answers with malformed JSON") from error


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
    """Write the bytes at a URL to a file, in constant memory; on errors some may be written.

    :param max_size: bytes; 0 for any.
    :param timeout: seconds that the server may be silent.
    :param deadline: seconds in which all must be done. Only the look-up of names has a time limit
        of its own, the resolver's.
    :param allowed: whom to ask wherever they are, even on this machine.
    :param mimetype: what the type of the bytes has to begin with, as the server says.
    :raises RemoteNotFound: 404 and 410.
    :raises RemoteLimited: 429.
    :raises RemoteTimeout:
    :raises RemoteFailed: another status, fewer or more bytes than were declared, an encoding,
        another type, or an address that nobody is to be led to.
    :raises TooLarge: as soon as it is known.
    :raises StorageUnavailable: the file takes no more.

    ::

        fetch("https://photos.example/a.jpg", file, max_size=10**7, timeout=5, deadline=60)
    """
    patience = Patience(timeout, deadline)
    accept = f"{mimetype}*" if mimetype.endswith("/") else mimetype or "*/*"
    for _ in range(MAX_REDIRECTS + 1):
        with ask(url, {"Accept": accept}, patience, allowed) as response:
            if response.status not in _REDIRECTS:
                _check_status(response)
                found = accept_mimetype(response.headers.get("Content-Type")) or ""
                if not found.startswith(mimetype):
                    raise RemoteFailed(f"{response.host} sends {found or 'no type'}, no {accept}")
                digest = _save(response, into, max_size)
                return Fetched(digest, found, url)
            url = _redirected(response, url)
    raise RemoteFailed(f"{response.host} redirects more than {MAX_REDIRECTS} times")


def get_json(
    url: str,
    headers: dict[str, str],
    *,
    timeout: float,
    deadline: float,
    allowed: frozenset[Origin] = frozenset(),
) -> Answer:
    """Ask an API; its caller judges the status. Redirects are not followed, as ``headers`` may
    hold what is for nobody else.

    :raises RemoteTimeout:
    :raises RemoteFailed: as of :func:`fetch`; and more than :data:`MAX_JSON` bytes.
    """
    headers = {"Accept": "application/json", **headers}
    with ask(url, headers, Patience(timeout, deadline), allowed) as response:
        body = _whole(response) if response.status == 200 else response.complaint()
        return Answer(response.host, response.status, response.headers, body)


def retry_after(headers: Message) -> int | None:
    """The seconds that ``Retry-After`` says, at most a day; None if it says nothing (RFC 9110,
    section 10.2.3)."""
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
    """Where to ask instead; it is judged as any URL."""
    location = response.headers.get("Location")
    if not location:
        raise RemoteFailed(f"{response.host} redirects to nowhere")
    try:
        target = urljoin(url, location)
    except ValueError as error:
        raise RemoteFailed(f"{response.host} redirects to no URL") from error
    if response.origin.scheme == "https" and Origin.of(target).scheme != "https":
        raise RemoteFailed(f"{response.host} redirects to http")
    return target


def _check_status(response: Response) -> None:
    if response.status in (404, 410):
        raise RemoteNotFound(f"{response.host} has no such thing")
    if response.status == 429:
        raise RemoteLimited(f"{response.host} was asked too often", retry_after(response.headers))
    if response.status != 200:
        raise RemoteFailed(f"{response.host} answers {response.status}")


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
            raise RemoteFailed(f"{response.host} answers with more than {MAX_JSON} bytes")
    return bytes(body)
