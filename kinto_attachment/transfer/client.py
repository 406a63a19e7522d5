"""One collection of a server, as its clients see it."""

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
    check,
    in_short,
    json_of,
    reason,
    retry_after,
)

Answer = TypeVar("Answer")

PAGE = 200
"""Records asked for at once."""

ATTEMPTS = 6
FIRST_WAIT = 0.5
"""Seconds before the second attempt; twice as long before each one after it."""
LONGEST_WAIT = 120.0
"""Seconds: a server that asks for more is left alone."""
SILENT = 10
"""Files in a row that nothing could be done for, after which one attempt each will do."""

CONNECT_TIMEOUT = 10.0
REDIRECTS = 5

DEFAULT_BUCKET = "default"
"""What everybody calls a bucket of their own."""


@dataclass(frozen=True)
class Found:
    """A record: its version, as preconditions have it, and its attributes."""

    etag: str
    data: dict[str, Any]


class Client:
    """One collection. It serves one :func:`upload` or :func:`download` at a time.

    :param server_url: with the version, as ``https://kinto.example/v1``.
    :param auth: ``user:password``, ``Bearer TOKEN``, or None. No other host ever sees it.
    :param timeout: seconds of silence after which a connection is given up.
    :raises ValueError: that is no such URL, or no such authorization.

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
            raise ValueError(f"{server_url!r} is no URL such as https://kinto.example/v1")
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
        return RecordRef(self._ref.bucket, self._ref.collection, record)

    def attachment_url(self, ref: RecordRef) -> str:
        return f"{self.url}/records/{quote(ref.record, safe='')}/attachment"

    @property
    def collection_uri(self) -> str:
        return self._ref.collection_uri

    def find(self, ref: RecordRef) -> Found | None:
        """The record as it is now, None if there is none.

        :raises TransferFailed:
        """
        if self._is_nowhere:
            return None
        response = self.request("GET", f"{self.url}/records/{quote(ref.record, safe='')}")
        if response.status_code == 404:
            return None
        return Found(response.headers.get("ETag", ""), json_of(check(response)).get("data") or {})

    def records(self) -> Iterator[dict[str, Any]]:
        """All records of the collection, read a page at a time.

        :raises TransferFailed:
        """
        # Records that are written meanwhile keep their place in this order.
        query = "" if self._is_nowhere else f"_limit={PAGE}&_sort=id"
        while query:
            url = f"{self.url}/records?{query}"
            response = self.persist(lambda url=url: self.request("GET", url))
            page = json_of(check(response)).get("data")
            yield from (record for record in page or [] if isinstance(record, dict))
            # The server may think that it is called otherwise than we call it.
            query = urlsplit(response.headers.get("Next-Page", "")).query

    def only_look(self) -> None:
        """Let the server make nothing: it makes the default bucket, and its collections, for
        whoever looks there. By its own name it is only found.

        :raises TransferFailed:
        """
        if self._ref.bucket != DEFAULT_BUCKET:
            return
        response = self.persist(lambda: self.request("GET", f"{self._server_url}/"))
        bucket = (json_of(check(response)).get("user") or {}).get("bucket")
        if not bucket:
            return  # somebody unknown, who has none
        self._set_bucket(bucket)
        answer = self.persist(lambda: self.request("GET", self.url))
        # It would be theirs: what they may not see is not there.
        self._is_nowhere = answer.status_code in (403, 404)

    def open(self, url: str, headers: dict[str, str]) -> requests.Response:
        """The answer to a ``GET`` of an attachment, from wherever the server sends us for it; its
        bytes are not read yet. A signed URL that has ended is worth another try.

        :raises TransferFailed:
        """
        for _ in range(REDIRECTS):
            is_own = _origin(url) == _origin(self.url)
            if not is_own:  # storages have entity tags of their own
                headers = {name: text for name, text in headers.items() if name != "If-Range"}
            response = self.request("GET", url, headers=headers, stream=True)
            if response.status_code not in REDIRECTED:
                break
            response.close()
            url = urljoin(url, response.headers.get("Location", ""))
        else:
            raise TransferFailed("refused", "one redirection after the other", REMEDIES[500])
        if not is_own and response.status_code in ENDED:
            with response:
                raise TryAgain(f"the storage says {response.status_code}", kind="refused")
        return response

    def chunks(self, response: requests.Response) -> Iterator[bytes]:
        """The bytes of the answer, as they come.

        :raises TryAgain: the connection broke.
        :raises Stopped:
        """
        try:
            # requests' own iterator drops what it has of a chunk when the connection breaks.
            while chunk := response.raw.read1(CHUNK, decode_content=True):
                self.go_on()
                yield chunk
        except HTTPError as error:
            self.go_on()
            raise TryAgain(in_short(error)) from error

    def request(self, method: str, url: str, **options: Any) -> requests.Response:
        """The answer, unless it is that one should try again.

        :raises TransferFailed: no answer.
        :raises TryAgain: none yet.
        :raises Stopped:
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
                auth=authorize,  # even if there is nothing to add: ~/.netrc would be asked
                timeout=self._timeout,
                allow_redirects=False,
                **options,
            )
        except (requests.ConnectionError, requests.Timeout) as error:
            self.go_on()
            raise TryAgain(in_short(error)) from error
        except requests.RequestException as error:
            raise TransferFailed("failed", in_short(error), "look whether the URL is right") from (
                error
            )
        if response.status_code in TRY_AGAIN:
            with response:
                raise TryAgain(reason(response), retry_after(response))
        return response

    def persist(self, call: Callable[[], Answer]) -> Answer:
        """What it returns, called again while it asks for that, a bounded number of times.

        :raises TransferFailed: it did not help.
        :raises Stopped:
        """
        attempt = 1
        while True:
            try:
                answer = call()
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
                return answer

    def go_on(self) -> None:
        """
        :raises Stopped: there is no reason to.
        """
        if self._stopped.is_set():
            raise Stopped()

    def _set_bucket(self, bucket: str) -> None:
        uri = RecordRef(bucket, self._ref.collection, "").collection_uri
        self.url = self._server_url + quote(uri)
        self._is_nowhere = False

    def start(self) -> None:
        self._set_bucket(self._ref.bucket)
        self._stopped.clear()
        self._failures = 0

    def stop(self) -> None:
        """Whatever is under way ends now."""
        self._stopped.set()
        self._connections.break_off()

    def close(self) -> None:
        self._session.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.close()


def _authorization(auth: str | None) -> str | None:
    """The header.

    >>> _authorization("alice:secret"), _authorization("Bearer abc")
    ('Basic YWxpY2U6c2VjcmV0', 'Bearer abc')
    """
    if not auth:
        return None
    if auth.lower().startswith("bearer "):
        return auth
    if ":" not in auth:
        raise ValueError("The authorization is neither user:password nor Bearer TOKEN.")
    return f"Basic {b64encode(auth.encode()).decode()}"


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname or "", port
