"""One bucket of S3: connections, the translation of errors, and what its server cannot do.

Servers with the API of S3 differ. Some buckets refuse ACLs, and some servers have no DeleteObjects.
Both show in the first request that needs them, and are remembered.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from ...errors import BlobNotFound, StorageError, StorageUnavailable
from ...files.blob import CHUNK
from ...files.key import check_key
from ..acl import OptionalACL
from ..circuit_breaker import CircuitBreaker

logger = logging.getLogger(__name__)

NOT_FOUND = {"NoSuchKey", "NotFound", "404"}
"""The error codes of S3 for a missing object."""

UNAVAILABLE = (BotoCoreError, HTTPError, KeyError, ValueError, OSError)
"""The errors of the libraries for anything but an error code in S3's answer. A ``KeyError`` means
that the answer is incomplete, a ``ValueError`` that it is malformed, and an ``OSError`` that the
connection was cut."""

# Our errors for those of the libraries: by the error code of S3's answer, else by class.
_ERRORS: dict[str | type[Exception], type[StorageError]] = {
    **dict.fromkeys(NOT_FOUND, BlobNotFound),
    ClientError: StorageUnavailable,
    **dict.fromkeys(UNAVAILABLE, StorageUnavailable),
}

NO_ACL = {"AccessControlListNotSupported", "AccessDenied", "NotImplemented", "InvalidArgument"}
"""The error codes of a request that may succeed without its ACL: the bucket has no ACLs, blocks
public ones, or its server knows none (Cloudflare R2; Google, with uniform access)."""

NO_DELETE_OBJECTS = {
    *("NotImplemented", "501", "MethodNotAllowed", "405"),
    *("MissingContentMD5", "InvalidRequest", "InvalidDigest", "BadDigest", "400"),
}
"""The error codes of a server that has no DeleteObjects (Google), or that wants a ``Content-MD5``,
which boto3 does not send any more (older versions of MinIO and Ceph)."""

CONNECTIONS = 50
"""The number of connections kept open: one for each thread of a large server."""


@contextmanager
def translated(key: str, missing: type[StorageError] = StorageUnavailable) -> Iterator[None]:
    """Replace an error of the libraries by our own.

    :param key: the key that our error names.
    :param missing: the error for a 404. Only a call that reads a blob may pass ``BlobNotFound``:
        for a call that writes, a 404 means that the bucket is missing or that the server does not
        speak S3.
    :raises StorageError: as :data:`_ERRORS` says.
    """
    try:
        yield
    except (ClientError, *UNAVAILABLE) as error:
        reason = (
            str(error) if isinstance(error, ClientError) else f"{type(error).__name__}: {error}"
        )
        kinds = (_code(error), *type(error).__mro__)
        ours = next(_ERRORS[kind] for kind in kinds if kind in _ERRORS)
        raise (missing if ours is BlobNotFound else ours)(key, reason) from error


def _code(error: BaseException | None) -> str:
    """Return the error code of S3's answer, or nothing if there was no answer."""
    return error.response["Error"]["Code"] if isinstance(error, ClientError) else ""


def code_of(error: StorageError) -> str:
    """Return the error code of S3's answer that our error stands for, or nothing."""
    return _code(error.__cause__)


class Chunks(Iterator[bytes]):
    """The bytes of an answer, as an iterator of chunks. The answer is closed after the last chunk,
    after an error, or when :meth:`close` is called.

    :param key: the key that errors name.
    :param body: the body of the answer; None for no bytes.
    :param length: the number of bytes.
    """

    def __init__(self, key: str, body: Any = None, length: int = 0):
        self._key = key
        self._body = body
        self.length = length

    def __next__(self) -> bytes:
        if self._body is None:
            raise StopIteration
        try:
            with translated(self._key):
                chunk = self._body.read(CHUNK)
        except StorageUnavailable:
            self.close()
            raise
        if not chunk:
            self.close()
            raise StopIteration
        return chunk

    def close(self) -> None:
        """Close the answer. No further chunks follow. Idempotent."""
        if self._body is not None:
            self._body.close()
            self._body = None


class Bucket:
    """A bucket. Each process reaches it through a client of its own.

    :param name: the name of an existing bucket.
    :param options: arguments of ``boto3``'s client: ``endpoint_url``, ``region_name``...
    :param config: arguments of ``botocore.config.Config``: timeouts, retries, addressing.
    """

    def __init__(self, name: str, options: dict[str, Any], config: dict[str, Any]):
        self.name = name
        self._options = options
        self._config = Config(max_pool_connections=CONNECTIONS, **config)
        timeout = self._config.read_timeout
        self.breaker = CircuitBreaker(patience=timeout / 2, pause=timeout)
        self._client: tuple[int, Any] | None = None
        self._lock = Lock()
        self._acl = OptionalACL(name, lambda error: code_of(error) in NO_ACL, by_key=True)
        self._deletes_many = True

    @property
    def client(self) -> Any:
        """The boto3 client of this process. Each process has its own, because connections cannot
        be shared with a parent.

        :raises StorageUnavailable: if boto3 cannot create the client.
        """
        if self._client is None or self._client[0] != os.getpid():
            with self._lock:
                if self._client is None or self._client[0] != os.getpid():
                    with translated(self.name):
                        session = boto3.session.Session()
                        client = session.client("s3", config=self._config, **self._options)
                    self._client = (os.getpid(), client)
        return self._client[1]

    @property
    def sends_checksums(self) -> bool:
        """Whether uploads carry checksums that the server compares."""
        return self._config.request_checksum_calculation != "when_required"

    @contextmanager
    def call(self, key: str, missing: type[StorageError] = StorageUnavailable) -> Iterator[None]:
        """Wrap one request: count it if it times out, and translate its errors.

        :param key: the key that an error names.
        :param missing: the error for a 404, see :func:`translated`.
        """
        with self.breaker.call(key), translated(key, missing):
            yield

    def create(
        self,
        call: str,
        key: str,
        acl: str,
        *,
        missing: type[StorageError] = StorageUnavailable,
        **arguments: Any,
    ) -> Any:
        """Send a request that makes an object, and return its answer.

        :param call: the name of the method of boto3's client.
        :param acl: the canned ACL, see :class:`~kinto_attachment.storage.acl.OptionalACL`.
        :param missing: the error for a 404, see :func:`translated`.
        :param arguments: further arguments of the method.
        """

        def send(acl: str | None) -> Any:
            more = {"ACL": acl} if acl else {}
            with self.call(key, missing):
                return getattr(self.client, call)(Bucket=self.name, Key=key, **arguments, **more)

        return self._acl.send(acl, send)

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects, in one request where the server can. A missing object is no error."""
        if self._deletes_many:
            try:
                self._delete_many(keys)
                return
            except StorageUnavailable as error:
                if code_of(error) not in NO_DELETE_OBJECTS:
                    raise
                reason = error
        for key in keys:
            self._delete_one(key)
        with self._lock:
            is_new, self._deletes_many = self._deletes_many, False
        if is_new:
            logger.warning("Objects are deleted one by one: %s", reason)

    def _delete_one(self, key: str) -> None:
        try:
            with translated(key, missing=BlobNotFound):
                self.client.delete_object(Bucket=self.name, Key=check_key(key))
        except BlobNotFound:
            return

    def _delete_many(self, keys: Sequence[str]) -> None:
        objects = [{"Key": check_key(key)} for key in keys]
        with translated(keys[0]):
            answer = self.client.delete_objects(
                Bucket=self.name, Delete={"Objects": objects, "Quiet": True}
            )
        for error in answer.get("Errors", ()):
            if error.get("Code") not in NOT_FOUND:
                raise StorageUnavailable(error.get("Key", ""), error.get("Message", ""))
