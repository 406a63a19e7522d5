"""One bucket of Google Cloud Storage: connections, repetitions, and errors in our words."""

import base64
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Lock
from typing import Any, NamedTuple

import google.auth
import google_crc32c
import requests
import urllib3
from google.api_core import exceptions as api
from google.auth.credentials import AnonymousCredentials, Credentials, Signing
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import AuthorizedSession, Request
from google.cloud.storage import Blob, Client
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from google.cloud.storage.retry import DEFAULT_RETRY
from google.oauth2 import service_account
from requests.adapters import HTTPAdapter

from ..errors import BlobExists, BlobNotFound, StorageUnavailable
from ..files.blob import CHUNK
from ..files.key import check_key
from .circuit_breaker import CircuitBreaker

_CONNECTIONS = 50  # kept open, one a thread of a large server

# The first that fits.
_ERRORS = {
    api.NotFound: BlobNotFound,
    api.PreconditionFailed: BlobExists,
    api.GoogleAPIError: StorageUnavailable,
    InvalidResponse: StorageUnavailable,
    DataCorruption: StorageUnavailable,
    GoogleAuthError: StorageUnavailable,
    requests.RequestException: StorageUnavailable,
    urllib3.exceptions.HTTPError: StorageUnavailable,
}


@contextmanager
def translated(key: str, missing: type = BlobNotFound) -> Iterator[None]:
    """What Google's libraries say, in our words. ``missing`` is for the answer 404."""
    try:
        yield
    except tuple(_ERRORS) as error:
        ours = next(ours for theirs, ours in _ERRORS.items() if isinstance(error, theirs))
        raise (missing if ours is BlobNotFound else ours)(key, str(error)) from error


class _Connection(NamedTuple):
    pid: int
    client: Client
    session: AuthorizedSession
    signer: Signing | None


class Bucket:
    """One bucket, reached by one client a process.

    :param credentials: path of a service account's JSON; default credentials without. Where
        ``STORAGE_EMULATOR_HOST`` is set nobody needs any.
    :param timeout: seconds to wait for one answer. What fails is repeated until one and a half of
        that are over: a silence is given up after two time-outs, a refusal after one and a half.
    :param create: whether to make the bucket if it is missing, with the access ``acl`` or,
        if ``uniform``, with uniform access.
    """

    def __init__(
        self,
        name: str,
        *,
        credentials: str = "",
        project: str = "",
        timeout: float = 10,
        create: bool = False,
        acl: str | None = None,
        uniform: bool = False,
    ):
        self.name = name
        self._credentials = credentials
        self._project = project
        self._create = create
        self._acl = acl
        self._uniform = uniform
        self._timeout = timeout
        self._retry = DEFAULT_RETRY.with_timeout(1.5 * timeout).with_delay(0.2, 2)
        self._breaker = CircuitBreaker(patience=timeout / 2, pause=timeout)
        self._lock = Lock()
        self._connection: _Connection | None = None
        self._seen = False

    @property
    def limits(self) -> dict[str, Any]:
        """What every call of Google's library is given."""
        return {"timeout": self._timeout, "retry": self._retry}

    def blob(self, key: str) -> Blob:
        return self.connect().client.bucket(self.name).blob(check_key(key))

    def blobs(self, prefix: str = "", limit: int | None = None) -> Iterator[Blob]:
        """Those whose key begins so, a page at a time."""
        client = self.connect().client
        fields = "items(name,size,timeCreated),nextPageToken"
        found = client.list_blobs(
            self.name, max_results=limit, prefix=prefix or None, fields=fields, **self.limits
        )
        blobs = iter(found)
        while True:
            with self.call(prefix or self.name, missing=StorageUnavailable):
                blob = next(blobs, None)
            if blob is None:
                return
            yield blob

    @contextmanager
    def call(self, key: str, missing: type = BlobNotFound) -> Iterator[None]:
        """Around one request: time-outs are counted, and what is raised is in our words."""
        with self._breaker.call(key), translated(key, missing):
            yield

    @contextmanager
    def looking_for(self, key: str) -> Iterator[None]:
        """Around the calls of which 404 is the answer for objects and for buckets; once it is
        asked which."""
        try:
            yield
        except BlobNotFound:
            if not self._seen:
                next(self.blobs(limit=1), None)
                self._seen = True
            raise

    def send(
        self, method: str, url: str, expected: Sequence[int], **kwargs: Any
    ) -> requests.Response:
        """The answer to a request that may be repeated, if its status is as expected."""
        session = self.connect().session

        def send() -> requests.Response:
            response = session.request(method, url, timeout=self._timeout, **kwargs)
            if response.status_code not in expected:
                with response:
                    raise api.from_http_response(response)
            return response

        return self._retry(send)()

    def connect(self) -> _Connection:
        """The connection of this process: no socket is shared with a parent."""
        connection = self._connection
        if connection is None or connection.pid != os.getpid():
            with self._lock:
                connection = self._connection
                if connection is None or connection.pid != os.getpid():
                    connection = self._connection = self._open_connection()
        return connection

    def _open_connection(self) -> _Connection:
        # Else the library looks at the bucket from a thread of its own, for minutes if nobody
        # answers; all it finds is an attribute for traces.
        os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
        try:
            credentials, project = self._find_credentials()
            session = AuthorizedSession(credentials, auth_request=Request(requests.Session()))
            for scheme in ("https://", "http://"):
                session.mount(scheme, HTTPAdapter(pool_maxsize=_CONNECTIONS))
            client = Client(self._project or project, credentials, _http=session)
            signer = self._find_signer(credentials)
        except (OSError, ValueError, GoogleAuthError) as error:
            raise StorageUnavailable(self.name, str(error)) from error
        if self._create:
            self._create_bucket(client)
        return _Connection(os.getpid(), client, session, signer)

    def _find_credentials(self) -> tuple[Credentials, str | None]:
        if os.environ.get("STORAGE_EMULATOR_HOST"):
            return AnonymousCredentials(), None
        if self._credentials:
            credentials = service_account.Credentials.from_service_account_file(
                self._credentials, scopes=Client.SCOPE
            )
            return credentials, credentials.project_id
        return google.auth.default(scopes=Client.SCOPE)

    def _find_signer(self, credentials: Credentials) -> Signing | None:
        """Who can sign URLs: a service account with its key, also where it does not log in."""
        if isinstance(credentials, Signing):
            return credentials
        if self._credentials:
            return service_account.Credentials.from_service_account_file(self._credentials)
        return None

    def _create_bucket(self, client: Client) -> None:
        bucket = client.bucket(self.name)
        if self._uniform:
            bucket.iam_configuration.uniform_bucket_level_access_enabled = True
        # A conflict: another worker was faster.
        with self.call(self.name, missing=StorageUnavailable), suppress(api.Conflict):
            if not bucket.exists(**self.limits):
                client.create_bucket(bucket, predefined_acl=self._acl, **self.limits)


class Resumable:
    """An upload in several requests; nothing is stored before the last.
    https://cloud.google.com/storage/docs/performing-resumable-uploads#chunked-upload

    :param url: of the session.
    :param size: bytes, of all parts.
    """

    def __init__(self, bucket: Bucket, url: str, size: int):
        self._bucket = bucket
        self._url = url
        self._size = size
        self._sent = 0
        self._checksum = google_crc32c.Checksum()

    def put(self, blob: Blob, part: bytes) -> None:
        """Send the next bytes: :data:`PART_BYTES` of them, or the last."""
        start, self._sent = self._sent, self._sent + len(part)
        self._checksum.update(part)
        digest = base64.b64encode(self._checksum.digest()).decode()
        last = self._sent == self._size
        # A service that knows this header refuses other bytes by itself.
        headers = {"X-Goog-Hash": f"crc32c={digest}"} if last else {}
        while start < self._sent:
            headers["Content-Range"] = f"bytes {start}-{self._sent - 1}/{self._size}"
            response = self._bucket.send(
                "PUT",
                self._url,
                (200, 201, 308) if last else (308,),
                data=part[start - self._sent :],
                headers=headers,
            )
            if response.status_code != 308:
                self._verify(blob, response.json(), digest)
                return
            # It may have kept less than it was sent.
            kept = int(response.headers.get("Range", "-0").rpartition("-")[2]) + 1
            if not start < kept <= self._sent - last:
                raise StorageUnavailable(blob.name, f"{kept} bytes were kept of {self._sent}")
            start = kept

    def cancel(self, key: str) -> None:
        # What cannot be cancelled ends by itself, after a week.
        with suppress(StorageUnavailable), self._bucket.call(key):
            self._bucket.connect().session.delete(self._url, timeout=self._bucket.limits["timeout"])

    def _verify(self, blob: Blob, stored: dict[str, Any], digest: str) -> None:
        if stored.get("crc32c") != digest:
            made = {"if_generation_match": stored["generation"], **self._bucket.limits}
            self._bucket.blob(blob.name).delete(**made)
            raise StorageUnavailable(blob.name, "other bytes arrived than were sent")


class ObjectChunks(Iterator[bytes]):
    """Bytes of one answer, whose connection is given back at its end or by :meth:`close`.
    Without an answer there are none."""

    def __init__(self, key: str, response: requests.Response | None = None, length: int = 0):
        self._key = key
        self.length = length
        self._response = response
        self._chunks: Iterator[bytes] = iter(())
        if response is not None:
            self._chunks = response.raw.stream(CHUNK, decode_content=False)

    def __next__(self) -> bytes:
        with translated(self._key):
            return next(self._chunks)

    def close(self) -> None:
        self._chunks = iter(())
        if self._response is not None:
            self._response.close()
