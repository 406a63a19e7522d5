"""Storage in a bucket of S3, or of another server with the same API."""

import os
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import chain, islice
from threading import Lock
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError
from zope.interface import implementer

from ..errors import BlobNotFound, StorageError, StorageUnavailable
from ..files.blob import CHUNK, Label, Source
from ..files.key import check_key
from ..settings import Settings
from . import IStorage, Stat
from .base import RemoteStorage, at_once, read_spool_dir
from .circuit_breaker import CircuitBreaker
from .s3_multipart import (
    COPY_BYTES,
    DELETE_KEYS,
    PART_BYTES,
    WORKERS,
    compose_parts,
    read_parts,
    send_all,
)
from .staged import IComposingStorage, ISigningStorage, IUnfinishedStorage

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
        code, reason = None, f"{type(error).__name__}: {error}"
        if isinstance(error, ClientError):
            code, reason = error.response["Error"]["Code"], str(error)
        ours = next(_ERRORS[kind] for kind in (code, *type(error).__mro__) if kind in _ERRORS)
        raise (missing if ours is BlobNotFound else ours)(key, reason) from error


class S3Chunks(Iterator[bytes]):
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


CONNECTIONS = 50
"""The number of connections kept open: one for each thread of a large server."""

# The error codes of S3 for a range that begins at the end of the object or beyond.
_EMPTY_RANGE = {"InvalidRange", "416"}


@implementer(IStorage, IComposingStorage, ISigningStorage, IUnfinishedStorage)
class S3FileStorage(RemoteStorage):
    """A storage in a bucket of S3, or of another server with the same API.

    Methods without a docstring are documented in the interfaces. The storage is not exclusive,
    because conditional writes are not reliable: they race on SeaweedFS and Swift, and Ceph ignores
    the condition.

    :param bucket_name: the name of an existing bucket.
    :param options: arguments of ``boto3``'s client: ``endpoint_url``, ``region_name``...
    :param config: arguments of ``botocore.config.Config``: timeouts, retries, addressing.
    :param acl: the canned ACL of new objects; empty for the default of the bucket.
    :param base_url: the URL below which clients find the objects, with a slash at its end.
    :param spool_dir: the folder for incoming files; empty for the temporary folder of the system.

    >>> S3FileStorage("files", base_url="https://cdn.example/").url("a/b.txt")
    'https://cdn.example/a/b.txt'
    """

    exclusive = False

    def __init__(
        self,
        bucket_name: str,
        options: dict[str, Any] | None = None,
        config: dict[str, Any] | None = None,
        acl: str = "",
        base_url: str = "",
        spool_dir: str = "",
    ):
        self.bucket_name = bucket_name
        self.base_url = base_url
        self._options = options or {}
        self._config = Config(max_pool_connections=CONNECTIONS, **(config or {}))
        timeout = self._config.read_timeout
        self._breaker = CircuitBreaker(patience=timeout / 2, pause=timeout)
        self._acl = acl
        self.spool_dir = spool_dir
        self._client: tuple[int, Any] | None = None
        self._lock = Lock()

    @classmethod
    def from_settings(cls, settings: Settings) -> "S3FileStorage":
        """Return the storage that the settings ``aws.*`` describe. This sends no request.

        :raises SettingError: if the spool folder does not exist.
        """
        endpoint_url = settings["aws.endpoint_url"]
        if settings["aws.host"]:
            scheme = "https" if settings["aws.is_secure"] else "http"
            port = f":{settings['aws.port']}" if settings["aws.port"] else ""
            endpoint_url = f"{scheme}://{settings['aws.host']}{port}"
        # Amazon's signed URLs name the region only if the bucket is part of the host name:
        # https://github.com/boto/boto3/issues/3015. If the name of the bucket contains a dot, no
        # certificate covers that host name.
        is_auto = endpoint_url or "." in settings["aws.bucket_name"]
        style = "auto" if is_auto else "virtual"
        return cls(
            settings["aws.bucket_name"],
            options={
                "aws_access_key_id": settings["aws.access_key"] or None,
                "aws_secret_access_key": settings["aws.secret_key"] or None,
                "region_name": settings["aws.region"] or None,
                "endpoint_url": endpoint_url or None,
            },
            config={
                "connect_timeout": settings["aws.timeout"],
                "read_timeout": settings["aws.timeout"],
                "retries": {
                    "total_max_attempts": 1 + settings["aws.num_retries"],
                    "mode": "standard",
                },
                "request_checksum_calculation": settings["aws.request_checksum_calculation"],
                "response_checksum_validation": "when_required",
                "signature_version": "s3v4",
                "s3": {"addressing_style": "path" if settings["aws.use_path_style"] else style},
            },
            acl=settings["aws.acl"],
            base_url=settings["base_url"],
            spool_dir=read_spool_dir(settings),
        )

    @property
    def client(self) -> Any:
        """The boto3 client of this process. Each process has its own, because connections cannot
        be shared with a parent.

        :raises StorageUnavailable: if boto3 cannot create the client.
        """
        if self._client is None or self._client[0] != os.getpid():
            with self._lock:
                if self._client is None or self._client[0] != os.getpid():
                    with translated(self.bucket_name):
                        session = boto3.session.Session()
                        client = session.client("s3", config=self._config, **self._options)
                    self._client = (os.getpid(), client)
        return self._client[1]

    @contextmanager
    def _call(self, key: str, missing: type[StorageError] = StorageUnavailable) -> Iterator[None]:
        """Wrap one request: count it if it times out, and translate its errors.

        :param key: the key that an error names.
        :param missing: the error for a 404, see :func:`translated`.
        """
        with self._breaker.call(key), translated(key, missing):
            yield

    def put(self, key: str, source: Source) -> None:
        check_key(key)
        headers = self._headers(source.label)
        if source.size > PART_BYTES:
            self._put_parts(key, read_parts(source), headers)
            return
        body = b"".join(source.chunks())
        if len(body) != source.size:
            raise StorageUnavailable(
                "spool", f"the file has {len(body)} bytes instead of {source.size}"
            )
        if self._sends_checksums and source.digest:
            headers["ChecksumSHA256"] = b64encode(bytes.fromhex(source.digest)).decode()
        with self._call(key):
            self.client.put_object(Bucket=self.bucket_name, Key=key, Body=body, **headers)

    def open(self, key: str, start: int = 0, end: int | None = None) -> "S3Chunks":
        check_key(key)
        if end is not None and end <= start:
            self.stat(key)
            return S3Chunks(key)
        bounds = {"Range": f"bytes={start}-{'' if end is None else end - 1}"}
        try:
            with self._call(key, missing=BlobNotFound):
                answer = self.client.get_object(
                    Bucket=self.bucket_name, Key=key, **(bounds if start or end else {})
                )
                return S3Chunks(key, answer["Body"], answer["ContentLength"])
        except StorageUnavailable as error:
            cause = error.__cause__
            if isinstance(cause, ClientError) and (cause.response["Error"]["Code"] in _EMPTY_RANGE):
                return S3Chunks(key)
            raise

    def stat(self, key: str) -> Stat:
        check_key(key)
        with self._call(key, missing=BlobNotFound):
            head = self.client.head_object(Bucket=self.bucket_name, Key=key)
            return Stat(key, head["ContentLength"], head["LastModified"])

    def delete(self, keys: Iterable[str]) -> None:
        keys = iter(keys)
        pages = iter(lambda: list(islice(keys, DELETE_KEYS)), [])
        first = next(pages, None)
        if first is None:
            return
        # Requests that time out at the same time count as one failure.
        with self._breaker.call(first[0]):
            at_once(self._delete_page, chain([first], pages), WORKERS)

    def _delete_page(self, keys: Sequence[str]) -> None:
        objects = [{"Key": check_key(key)} for key in keys]
        with translated(keys[0]):
            answer = self.client.delete_objects(
                Bucket=self.bucket_name, Delete={"Objects": objects, "Quiet": True}
            )
        for error in answer.get("Errors", ()):
            if error.get("Code") not in NOT_FOUND:
                raise StorageUnavailable(error.get("Key", ""), error.get("Message", ""))

    def list(self, prefix: str = "") -> Iterator[Stat]:
        pages = self.client.get_paginator("list_objects_v2")
        with translated(prefix):
            for page in pages.paginate(Bucket=self.bucket_name, Prefix=prefix):
                for found in page.get("Contents", ()):
                    yield Stat(found["Key"], found["Size"], found["LastModified"])

    def discard_unfinished(
        self, before: datetime, is_ours: Callable[[str], bool], dry_run: bool = False
    ) -> Iterator[str]:
        pages = self.client.get_paginator("list_multipart_uploads")
        with translated(self.bucket_name):
            for page in pages.paginate(Bucket=self.bucket_name):
                for upload in page.get("Uploads", ()):
                    if upload["Initiated"] < before and is_ours(upload["Key"]):
                        where = {"Key": upload["Key"], "UploadId": upload["UploadId"]}
                        if not dry_run:
                            self.client.abort_multipart_upload(Bucket=self.bucket_name, **where)
                        yield upload["Key"]

    def compose(self, parts: Iterable[str], key: str, label: Label) -> None:
        check_key(key)
        sizes = [(part, self.stat(part).size) for part in parts]
        headers = self._headers(label)
        if sum(size for _, size in sizes) == 0:
            with self._call(key):
                self.client.put_object(Bucket=self.bucket_name, Key=key, Body=b"", **headers)
            return
        if len(sizes) == 1 and sizes[0][1] <= COPY_BYTES:
            self._copy(sizes[0][0], key, headers)
            return
        self._put_parts(key, compose_parts(self.open, self.bucket_name, sizes), headers)

    def _copy(self, source: str, key: str, headers: dict[str, str]) -> None:
        """Copy a blob in one request, where a multipart upload takes three."""
        copied = {"CopySource": {"Bucket": self.bucket_name, "Key": source}, **headers}
        where = {"Bucket": self.bucket_name, "Key": key, "MetadataDirective": "REPLACE"}
        with self._call(key, missing=BlobNotFound):
            self.client.copy_object(**where, **copied)

    def sign(
        self,
        key: str,
        method: str = "GET",
        expires: int = 3600,
        disposition: str | None = None,
        mimetype: str | None = None,
    ) -> str | None:
        parameters = {"Bucket": self.bucket_name, "Key": check_key(key)}
        if method == "GET" and disposition is not None:
            parameters["ResponseContentDisposition"] = disposition
        if method == "GET" and mimetype is not None:
            parameters["ResponseContentType"] = mimetype
        call = {"GET": "get_object", "HEAD": "head_object", "PUT": "put_object"}[method]
        with translated(key):
            return self.client.generate_presigned_url(call, Params=parameters, ExpiresIn=expires)

    @property
    def _sends_checksums(self) -> bool:
        return self._config.request_checksum_calculation != "when_required"

    def _headers(self, label: Label) -> dict[str, str]:
        headers = {"ContentType": label.mimetype, "ContentDisposition": label.disposition}
        if label.private:
            return headers
        if self._acl:
            headers["ACL"] = self._acl
        if label.immutable and self._acl.startswith("public"):
            headers["CacheControl"] = "public, max-age=31536000, immutable"
        return headers

    def _put_parts(self, key: str, parts: Iterator[dict[str, Any]], headers: dict) -> None:
        """Send a multipart upload, and abort it if anything fails. boto3's own multipart upload
        takes 2 to 10 times the memory."""
        where = {"Bucket": self.bucket_name, "Key": key}
        checksum = {"ChecksumAlgorithm": "CRC32"} if self._sends_checksums else {}
        with self._call(key):
            upload = self.client.create_multipart_upload(**where, **headers, **checksum)
            where["UploadId"] = upload["UploadId"]

        def send(number: int, part: dict[str, Any]) -> dict[str, Any]:
            copied = part.get("CopySource")
            with self._call(key, missing=BlobNotFound if copied else StorageUnavailable):
                if copied:
                    copying = self.client.upload_part_copy(**where, PartNumber=number, **part)
                    answer = copying["CopyPartResult"]
                else:
                    answer = self.client.upload_part(**where, PartNumber=number, **part, **checksum)
                sums = {name: answer[name] for name in ("ChecksumCRC32",) if name in answer}
                return {"PartNumber": number, "ETag": answer["ETag"], **sums}

        try:
            sent = send_all(send, parts)
            with self._call(key):
                self.client.complete_multipart_upload(**where, MultipartUpload={"Parts": sent})
        except BaseException:
            self._abort(where)
            raise

    def _abort(self, where: dict[str, str]) -> None:
        """Abort a multipart upload, because of an error that the caller raises. An upload that
        cannot be aborted now is left to ``gc``; it is not an object."""
        try:
            with self._call(where["Key"]):
                self.client.abort_multipart_upload(**where)
        except StorageUnavailable:
            return
