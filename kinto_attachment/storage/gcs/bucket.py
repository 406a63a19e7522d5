"""One bucket of Google Cloud Storage: connections, retries and the translation of errors."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Lock
from typing import Any, NamedTuple

import google.auth
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

from ...errors import BlobExists, BlobNotFound, StorageUnavailable
from ...files.blob import CHUNK
from ...files.key import check_key
from ..circuit_breaker import CircuitBreaker

_CONNECTIONS = 50  # kept open: one for each thread of a large server

# Our errors for those of Google's libraries. The first class that fits decides.
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
    """Replace an error of Google's libraries by our own.

    :param key: the key that our error names.
    :param missing: the error for the status 404.
    :raises StorageError: as :data:`_ERRORS` says.
    """
    try:
        yield
    except tuple(_ERRORS) as error:
        ours = next(ours for theirs, ours in _ERRORS.items() if isinstance(error, theirs))
        raise (missing if ours is BlobNotFound else ours)(key, str(error)) from error


class _Connection(NamedTuple):
    """How one process reaches the bucket.

    :param pid: the id of the process.
    :param signer: the credentials that sign URLs; None if there are none.
    """

    pid: int
    client: Client
    session: AuthorizedSession
    signer: Signing | None


class Bucket:
    """A bucket. Each process reaches it through a client of its own.

    :param name: the name of the bucket.
    :param credentials: the path of the JSON file of a service account; empty for the default
        credentials. If the environment variable ``STORAGE_EMULATOR_HOST`` is set, requests carry
        no credentials.
    :param project: the id of the project; empty for the project of the credentials.
    :param timeout: seconds to wait for one response. Failed requests are repeated until 1.5 times
        as long has passed: calls fail after two timeouts if the service does not answer, and after
        one and a half if it refuses connections.
    :param create: whether to create the bucket if it is missing.
    :param acl: the predefined ACL of a created bucket; None for the default of the service.
    :param uniform: whether a created bucket has uniform bucket-level access.
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
        self.breaker = CircuitBreaker(patience=timeout / 2, pause=timeout)
        self._lock = Lock()
        self._connection: _Connection | None = None
        self._known_to_exist = False

    @property
    def limits(self) -> dict[str, Any]:
        """The time limits that every call of Google's library takes as arguments."""
        return {"timeout": self._timeout, "retry": self._retry}

    def blob(self, key: str) -> Blob:
        """Return the library's object for a key, whether or not the key exists.

        :raises KeyRefused: if the key is not valid.
        :raises StorageUnavailable: if there are no usable credentials.
        """
        return self.connect().client.bucket(self.name).blob(check_key(key))

    def blobs(self, prefix: str = "", limit: int | None = None) -> Iterator[Blob]:
        """Yield the objects whose key begins with ``prefix``, read a page at a time.

        :param limit: the maximum number of objects; None for all.
        :raises StorageUnavailable: if the bucket is missing or cannot be reached.
        """
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
        """Wrap one request: count it if it times out, and translate its errors.

        :param key: the key that an error names.
        :param missing: the error for the status 404.
        :raises StorageError: instead of any error of Google's libraries.
        """
        with self.breaker.call(key), translated(key, missing):
            yield

    @contextmanager
    def looking_for(self, key: str) -> Iterator[None]:
        """Wrap a call for which the status 404 may mean a missing object or a missing bucket. After
        a 404, ask whether the bucket exists, unless it is already known to exist.

        :raises StorageUnavailable: if the bucket is missing.
        """
        try:
            yield
        except BlobNotFound:
            if not self._known_to_exist:
                next(self.blobs(limit=1), None)
                self._known_to_exist = True
            raise

    def send(
        self, method: str, url: str, expected: Sequence[int], **kwargs: Any
    ) -> requests.Response:
        """Send a request, repeat it after a transient error, and return the response.

        Call this only within :meth:`call`, which translates the errors of the libraries.

        :param expected: the status codes that are no errors.
        """
        session = self.connect().session

        def send() -> requests.Response:
            response = session.request(method, url, timeout=self._timeout, **kwargs)
            if response.status_code not in expected:
                with response:
                    raise api.from_http_response(response)
            return response

        return self._retry(send)()

    def connect(self) -> _Connection:
        """Return the connection of this process, which shares no socket with its parent.

        :raises StorageUnavailable: if there are no usable credentials, or if the bucket is to be
            created and cannot be.
        """
        connection = self._connection
        if connection is None or connection.pid != os.getpid():
            with self._lock:
                connection = self._connection
                if connection is None or connection.pid != os.getpid():
                    connection = self._connection = self._open_connection()
        return connection

    def _open_connection(self) -> _Connection:
        # Without this variable the library fetches the bucket in a thread of its own, only to get
        # an attribute for traces. If the service does not answer, it keeps trying for minutes.
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
        """Return the credentials that sign URLs, or None. A service account with a private key
        can sign even if requests do not carry its credentials."""
        if isinstance(credentials, Signing):
            return credentials
        if self._credentials:
            return service_account.Credentials.from_service_account_file(self._credentials)
        return None

    def _create_bucket(self, client: Client) -> None:
        bucket = client.bucket(self.name)
        if self._uniform:
            bucket.iam_configuration.uniform_bucket_level_access_enabled = True
        # A conflict means that another process has just created the bucket.
        with self.call(self.name, missing=StorageUnavailable), suppress(api.Conflict):
            if not bucket.exists(**self.limits):
                client.create_bucket(bucket, predefined_acl=self._acl, **self.limits)


class ObjectChunks(Iterator[bytes]):
    """The bytes of a response, as an iterator of chunks. The connection returns to its pool after
    the last chunk, or when :meth:`close` is called.

    :param key: the key that errors name.
    :param response: a response whose body was not read yet; None for no bytes.
    :param length: the number of bytes.
    """

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
        """Close the response. No further chunks follow. Idempotent."""
        self._chunks = iter(())
        if self._response is not None:
            self._response.close()
