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

from ..errors import CommandFailed
from ..files.blob import CHUNK
from ..files.ref import FieldRef, RecordRef
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
from .server_info import ServerInfo, check_url, find_server

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
        self._ref = RecordRef(bucket, collection, "")
        self._server_url = check_url(server_url)
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

    def record_url(self, ref: RecordRef) -> str:
        """Return the URL of a record."""
        return f"{self.url}/records/{quote(ref.record, safe='')}"

    def file_url(self, place: FieldRef) -> str:
        """Return the URL of the file at a place of a record."""
        return self.record_url(place.record) + place.url_path.removeprefix(place.record.uri)

    def use_collection(self, bucket: str, collection: str) -> None:
        """Become the client of that collection."""
        self._ref = RecordRef(bucket, collection, "")
        self._set_bucket(bucket)

    def is_collection(self, bucket: str, collection: str) -> bool:
        """Return whether this is the client of that collection."""
        return self._ref.path[:2] == (bucket, collection)

    @property
    def server_url(self) -> str:
        """The URL of the server with the version of its API, and without a slash at its end."""
        return self._server_url

    @property
    def collection_uri(self) -> str:
        """The URI of the collection: ``/buckets/{bucket}/collections/{collection}``."""
        return self._ref.collection_uri

    def find(self, ref: RecordRef) -> Found | None:
        """Return the current state of a record, or None if there is no such record.

        :raises TransferFailed: if the server refuses or fails.
        """
        if self.is_missing:
            return None
        response = self.request("GET", self.record_url(ref))
        if response.status_code == 404:
            return None
        data = json_of(check_response(response)).get("data") or {}
        return Found(response.headers.get("ETag", ""), data)

    def records(self) -> Iterator[list[dict[str, Any]]]:
        """Yield pages of all records of the collection.

        :raises TransferFailed: if the server fails.
        :raises CommandFailed: if the user may not read the collection, or if it does not exist.
        """
        # Sorted by id, a record that is written during the listing keeps its place.
        query = "" if self.is_missing else f"_limit={PAGE}&_sort=id"
        while query:
            url = f"{self.url}/records?{query}"
            response = self.persist(lambda url=url: self.request("GET", url))
            page = self._check_list(response).get("data")
            yield [record for record in page or [] if isinstance(record, dict)]
            # Only the query is used: behind a proxy, the server may not know its public host.
            query = urlsplit(response.headers.get("Next-Page", "")).query

    def connect(self, only_look: bool = False) -> ServerInfo:
        """Find the server, and return what it says about itself.

        Kinto creates the default bucket, and collections in it, at the first request that names
        them. It creates nothing if the bucket is addressed by its real id.

        :param only_look: make sure that further requests create nothing on the server.
        :raises CommandFailed: if the server does not answer, is not a Kinto server with this
            plugin, or does not know the user.
        """
        info = find_server(self._get_at_once, self._server_url)
        if self._authorization and not info.user:
            raise CommandFailed("The server does not know this user and password: check --auth")
        self._server_url = info.url
        self._set_bucket(self._ref.bucket)
        if only_look and self._ref.bucket == DEFAULT_BUCKET and info.own_bucket:
            self._set_bucket(info.own_bucket)
            response = self.persist(lambda: self.request("GET", self.url))
            # Users may read their own bucket, so a 403 also means that it does not exist yet.
            self.is_missing = response.status_code in (403, 404)
        return info

    def _get_at_once(self, url: str) -> requests.Response:
        """Send the first request. If nothing answers it, a second attempt would not help."""

        def get() -> requests.Response:
            try:
                return self.request("GET", url)
            except TryAgain as error:
                if error.__cause__:
                    raise TransferFailed(error.kind, error.detail, error.remedy) from error
                raise

        try:
            return self.persist(get)
        except TransferFailed as error:
            if not isinstance(error, TryAgain):
                why = f"There is no answer from {url} ({error.detail}): check --server, and that"
                raise CommandFailed(f"{why} the server is running") from error
            why = f"{url} does not work at present ({error.detail})"
            raise CommandFailed(f"{why}: ask its operator, or try again later") from error

    def check_list(self) -> None:
        """Check that the user may do anything with the records of the collection.

        :raises CommandFailed: if not, or if the collection does not exist.
        """
        if not self.is_missing:
            url = f"{self.url}/records?_limit=1&_fields=id"
            self._check_list(self.persist(lambda: self.request("GET", url)))

    def count(self) -> int | None:
        """Return how many records have a file; None if the server does not say."""
        if self.is_missing:
            return 0
        url = f"{self.url}/records?has_attachment=true"
        response = self.persist(lambda: self.request("HEAD", url))
        total = response.headers.get("Total-Objects", "")
        return int(total) if response.ok and total.isdecimal() else None

    def _check_list(self, response: requests.Response) -> dict[str, Any]:
        if response.status_code == 403:
            who = "This user" if self._authorization else "A client without --auth"
            raise CommandFailed(
                f"{who} may neither read {self.collection_uri} nor create records in it, or it "
                "does not exist: ask its owner for the permission, or check --bucket and "
                "--collection"
            )
        if response.status_code == 404:
            raise CommandFailed(
                f"There is no {self.collection_uri} on this server: check --bucket and "
                f"--collection ({reason(response)})"
            )
        return json_of(check_response(response))

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

    def persist(
        self, call: Callable[[], Result], position: Callable[[], int] = lambda: 0
    ) -> Result:
        """Return what ``call`` returns. Repeat the call if it raises :exc:`TryAgain`, up to
        :data:`ATTEMPTS` times.

        :param position: returns how far the transfer has got; attempts are counted from where it
            last moved.
        :raises TransferFailed: if the last attempt failed too, or ``call`` raised it.
        :raises Stopped: if the transfer was stopped.
        """
        attempt, reached = 1, position()
        while True:
            try:
                result = call()
            except TryAgain as error:
                if position() > reached:
                    attempt, reached, self._failures = 1, position(), 0
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
        self.is_missing = False

    def start(self) -> None:
        """Reset the client for a new upload or download."""
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
        raise ValueError("The authorization (--auth) must be USER:PASSWORD or Bearer TOKEN.")
    return f"Basic {b64encode(auth.encode()).decode()}"


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname or "", port
