"""A client of one collection of a Kinto server."""

import random
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote, urljoin, urlsplit

import requests
from urllib3.exceptions import HTTPError

from ..files.blob import CHUNK
from ..files.ref import RecordRef
from .connections import BreakableAdapter
from .responses import (
    ENDED,
    REDIRECTED,
    REMEDIES,
    TRY_AGAIN,
    Stopped,
    TransferFailed,
    TryAgain,
    check_response,
    in_short,
    json_of,
    reason,
    retry_after,
)

Result = TypeVar("Result")

PAGE = 200
"""Records in one page of a listing."""

ATTEMPTS = 6
"""How often each step of a transfer is attempted."""
FIRST_WAIT = 0.5
"""Seconds before the second attempt. The wait doubles with each further attempt."""
LONGEST_WAIT = 120.0
"""Seconds. If the server asks for a longer wait, there is no further attempt."""
SILENT = 10
"""Consecutive failed files after which each further file gets one attempt only."""

CONNECT_TIMEOUT = 10.0
"""Seconds."""
REDIRECTS = 5
"""Requests for one file, redirects included."""

DEFAULT_BUCKET = "default"
"""The name under which each user finds their own bucket."""


@dataclass(frozen=True)
class Found:
    """A record of the collection.

    :param etag: the ``ETag`` of the record, for ``If-Match``.
    :param data: its attributes.
    """

    etag: str
    data: dict[str, Any]


class Client:
    """A client of one collection. It serves one :func:`upload` or :func:`download` at a time.

    :param server_url: URL of the server with its version, such as ``https://kinto.example/v1``.
    :param auth: ``user:password``, ``Bearer TOKEN``, or None. It is sent to this server only.
    :param timeout: seconds after which a silent connection is closed.
    :raises ValueError: if ``server_url`` or ``auth`` is malformed.

    >>> Client("https://kinto.example/v1/", "blog", "pictures").url
    'https://kinto.example/v1/buckets/blog/collections/pictures'
    """

    def __init__(
        self,
        server_url: str,
        bucket: str,
        collection: str,
        auth: str | None = None,
        timeout: float = 120.0,
    ):
        parts = urlsplit(server_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise ValueError(
                f"{server_url!r} is not the URL of a server, such as https://kinto.example/v1"
            )
        self._ref = RecordRef(bucket, collection, "")
        self._server_url = server_url.rstrip("/")
        self._set_bucket(bucket)
        self._authorization = _authorization(auth)
        self._timeout = (CONNECT_TIMEOUT, timeout)
        self._stopped = threading.Event()
        self._connections = BreakableAdapter(self._stopped)
        self._session = requests.Session()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, self._connections)
        self._failures = 0

    def ref(self, record: str) -> RecordRef:
        """Return the reference to a record of the collection.

        :param record: the id of the record.
        """
        return RecordRef(self._ref.bucket, self._ref.collection, record)

    def attachment_url(self, ref: RecordRef) -> str:
        """Return the URL of the attachment of a record."""
        return f"{self.url}/records/{quote(ref.record, safe='')}/attachment"

    @property
    def collection_uri(self) -> str:
        """The URI of the collection: ``/buckets/{bucket}/collections/{collection}``."""
        return self._ref.collection_uri

    def find(self, ref: RecordRef) -> Found | None:
        """Return the current state of a record, or None if there is no such record.

        :raises TransferFailed: if the server refuses or fails.
        """
        if self._is_missing:
            return None
        response = self.request("GET", f"{self.url}/records/{quote(ref.record, safe='')}")
        if response.status_code == 404:
            return None
        data = json_of(check_response(response)).get("data") or {}
        return Found(response.headers.get("ETag", ""), data)

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield all records of the collection, read a page at a time.

        :raises TransferFailed: if the server refuses or fails.
        """
        # Sorted by id, a record that is written during the listing keeps its place.
        query = "" if self._is_missing else f"_limit={PAGE}&_sort=id"
        while query:
            url = f"{self.url}/records?{query}"
            response = self.persist(lambda url=url: self.request("GET", url))
            page = json_of(check_response(response)).get("data")
            yield from (record for record in page or [] if isinstance(record, dict))
            # Only the query is used: behind a proxy, the server may not know its public host.
            query = urlsplit(response.headers.get("Next-Page", "")).query

    def only_look(self) -> None:
        """Make sure that further requests create nothing on the server.

        Kinto creates the default bucket, and collections in it, at the first request that names
        them. It creates nothing if the bucket is addressed by its real id, so that is used from
        here on.

        :raises TransferFailed: if the server refuses or fails.
        """
        if self._ref.bucket != DEFAULT_BUCKET:
            return
        response = self.persist(lambda: self.request("GET", f"{self._server_url}/"))
        bucket = (json_of(check_response(response)).get("user") or {}).get("bucket")
        if not bucket:
            return  # an anonymous user has no default bucket
        self._set_bucket(bucket)
        response = self.persist(lambda: self.request("GET", self.url))
        # Users may read their own bucket, so a 403 also means that it does not exist yet.
        self._is_missing = response.status_code in (403, 404)

    def open(self, url: str, headers: dict[str, str]) -> requests.Response:
        """Send a ``GET`` for an attachment, follow redirects, and return the response. Its body
        is not read yet.

        :raises TransferFailed: if there are too many redirects, or the request is malformed.
        :raises TryAgain: if the connection fails, the server is busy, or a signed URL of the
            storage has expired.
        :raises Stopped: if the transfer was stopped.
        """
        for _ in range(REDIRECTS):
            is_own = _origin(url) == _origin(self.url)
            if not is_own:  # a storage has ETags of its own
                headers = {name: text for name, text in headers.items() if name != "If-Range"}
            response = self.request("GET", url, headers=headers, stream=True)
            if response.status_code not in REDIRECTED:
                break
            response.close()
            url = urljoin(url, response.headers.get("Location", ""))
        else:
            raise TransferFailed("refused", "too many redirects", REMEDIES[500])
        if not is_own and response.status_code in ENDED:
            with response:
                raise TryAgain(f"the storage answered {response.status_code}", kind="refused")
        return response

    def chunks(self, response: requests.Response) -> Iterator[bytes]:
        """Yield the body of a response as it arrives.

        :raises TryAgain: if the connection breaks.
        :raises Stopped: if the transfer was stopped.
        """
        try:
            # The iterator of requests loses a partial chunk when the connection breaks.
            while chunk := response.raw.read1(CHUNK, decode_content=True):
                self.go_on()
                yield chunk
        except HTTPError as error:
            self.go_on()
            raise TryAgain(in_short(error)) from error

    def request(self, method: str, url: str, **options: Any) -> requests.Response:
        """Send a request and return the response. Redirects are not followed.

        :param options: further arguments of ``requests.Session.request``.
        :raises TransferFailed: if the request cannot be sent at all.
        :raises TryAgain: if the connection fails, or the status is in :data:`TRY_AGAIN`.
        :raises Stopped: if the transfer was stopped.
        """
        self.go_on()

        def authorize(request: requests.PreparedRequest) -> requests.PreparedRequest:
            if self._authorization and _origin(url) == _origin(self.url):
                request.headers["Authorization"] = self._authorization
            return request

        try:
            response = self._session.request(
                method,
                url,
                auth=authorize,  # always, or requests would read ~/.netrc
                timeout=self._timeout,
                allow_redirects=False,
                **options,
            )
        except (requests.ConnectionError, requests.Timeout) as error:
            self.go_on()
            raise TryAgain(in_short(error)) from error
        except requests.RequestException as error:
            remedy = "check the URL of the server"
            raise TransferFailed("failed", in_short(error), remedy) from error
        if response.status_code in TRY_AGAIN:
            with response:
                raise TryAgain(reason(response), retry_after(response))
        return response

    def persist(self, call: Callable[[], Result]) -> Result:
        """Return what ``call`` returns. Repeat the call if it raises :exc:`TryAgain`, up to
        :data:`ATTEMPTS` times.

        :raises TransferFailed: if the last attempt failed too, or ``call`` raised it.
        :raises Stopped: if the transfer was stopped.
        """
        attempt = 1
        while True:
            try:
                result = call()
            except TryAgain as error:
                last = ATTEMPTS if self._failures < SILENT else 1
                wait = error.after
                if wait is None:
                    wait = FIRST_WAIT * 2 ** (attempt - 1) * random.uniform(0.75, 1.25)
                if attempt >= last or wait > LONGEST_WAIT:
                    self._failures += 1
                    raise
                attempt += 1
                if self._stopped.wait(wait):
                    raise Stopped() from error
            else:
                self._failures = 0
                return result

    def go_on(self) -> None:
        """Return if the transfer should continue.

        :raises Stopped: if it was stopped.
        """
        if self._stopped.is_set():
            raise Stopped()

    def _set_bucket(self, bucket: str) -> None:
        uri = RecordRef(bucket, self._ref.collection, "").collection_uri
        self.url = self._server_url + quote(uri)
        self._is_missing = False

    def start(self) -> None:
        """Reset the client for a new upload or download."""
        self._set_bucket(self._ref.bucket)
        self._stopped.clear()
        self._failures = 0

    def stop(self) -> None:
        """End every transfer of this client at once, from any thread."""
        self._stopped.set()
        self._connections.break_off()

    def close(self) -> None:
        """Close the connections that are kept for further requests."""
        self._session.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.close()


def _authorization(auth: str | None) -> str | None:
    """Return the value of the ``Authorization`` header.

    >>> _authorization("alice:secret"), _authorization("Bearer abc")
    ('Basic YWxpY2U6c2VjcmV0', 'Bearer abc')
    """
    if not auth:
        return None
    if auth.lower().startswith("bearer "):
        return auth
    if ":" not in auth:
        raise ValueError("The authorization must be user:password or Bearer TOKEN.")
    return f"Basic {b64encode(auth.encode()).decode()}"


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname or "", port
