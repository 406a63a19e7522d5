"""Storage in a bucket of S3, or of another server with the same API."""

from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import chain, islice
from typing import Any

from zope.interface import implementer

from ...errors import BlobNotFound, StorageUnavailable
from ...files.blob import Label, Source
from ...files.key import check_key
from ...settings import Settings
from .. import IStorage, Stat
from ..base import RemoteStorage, at_once, read_spool_dir
from ..circuit_breaker import CircuitBreaker
from ..staged import (
    Arrived,
    IComposingStorage,
    IReceivingStorage,
    IStreamingStorage,
    IUnfinishedStorage,
    SignedPut,
)
from ..stream import PART_BYTES, Stream
from . import direct
from .bucket import Bucket, Chunks, code_of, translated
from .multipart import (
    COPY_BYTES,
    DELETE_KEYS,
    MAX_PARTS,
    WORKERS,
    Part,
    compose_parts,
    read_exactly,
    read_parts,
)
from .upload import MultipartUpload

_STREAM_WORKERS = 2

# The error codes of S3 for a range that begins at the end of the object or beyond.
_EMPTY_RANGE = {"InvalidRange", "416"}


@implementer(IStorage, IComposingStorage, IReceivingStorage, IStreamingStorage, IUnfinishedStorage)
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
    max_stream = MAX_PARTS * PART_BYTES

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
        self.bucket = Bucket(bucket_name, options or {}, config or {})
        endpoint = (options or {}).get("endpoint_url") or "s3:/"
        self.place = f"{endpoint}/{bucket_name}"
        self._acl = acl
        self._proves_digests = direct.DigestProof(self.bucket)
        self.spool_dir = spool_dir

    @property
    def breaker(self) -> CircuitBreaker:
        """The circuit breaker of the bucket."""
        return self.bucket.breaker

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
        """The boto3 client of this process, see :class:`Bucket`."""
        return self.bucket.client

    def put(self, key: str, source: Source) -> None:
        check_key(key)
        if source.size > PART_BYTES:
            self._put_parts(key, read_parts(source), source.label)
            return
        source.file.seek(0)
        body = read_exactly(source.file, source.size + 1)
        if len(body) != source.size:
            raise StorageUnavailable(
                "spool", f"the file has {len(body)} bytes instead of {source.size}"
            )
        checksum = {}
        if self.bucket.sends_checksums and source.digest:
            checksum["ChecksumSHA256"] = b64encode(bytes.fromhex(source.digest)).decode()
        self._create("put_object", key, source.label, Body=body, **checksum)

    def stream(self, key: str, label: Label) -> Stream:
        check_key(key)
        return Stream(
            lambda content: self._create("put_object", key, label, Body=content),
            lambda: self._begin(key, label),
            _STREAM_WORKERS,
        )

    def open(self, key: str, start: int = 0, end: int | None = None) -> Chunks:
        check_key(key)
        if end is not None and end <= start:
            self.stat(key)
            return Chunks(key)
        bounds = {"Range": f"bytes={start}-{'' if end is None else end - 1}"}
        try:
            with self.bucket.call(key, missing=BlobNotFound):
                answer = self.client.get_object(
                    Bucket=self.bucket_name, Key=key, **(bounds if start or end else {})
                )
                return Chunks(key, answer["Body"], answer["ContentLength"])
        except StorageUnavailable as error:
            if code_of(error) in _EMPTY_RANGE:
                return Chunks(key)
            raise

    def stat(self, key: str) -> Stat:
        check_key(key)
        with self.bucket.call(key, missing=BlobNotFound):
            head = self.client.head_object(Bucket=self.bucket_name, Key=key)
            return Stat(key, head["ContentLength"], head["LastModified"])

    def delete(self, keys: Iterable[str]) -> None:
        keys = iter(keys)
        pages = iter(lambda: list(islice(keys, DELETE_KEYS)), [])
        first = next(pages, None)
        if first is None:
            return
        # Requests that time out at the same time count as one failure.
        with self.bucket.breaker.call(first[0]):
            at_once(self.bucket.delete, chain([first], pages), WORKERS)

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
        if sum(size for _, size in sizes) == 0:
            self._create("put_object", key, label, Body=b"")
            return
        if len(sizes) == 1 and sizes[0][1] <= COPY_BYTES:
            self._copy(sizes[0][0], key, label)
            return
        self._put_parts(key, compose_parts(self.open, self.bucket_name, sizes), label)

    def _copy(self, source: str, key: str, label: Label) -> None:
        """Copy a blob in one request, where a multipart upload takes three."""
        copied = {"Bucket": self.bucket_name, "Key": source}
        arguments = {"CopySource": copied, "MetadataDirective": "REPLACE", "missing": BlobNotFound}
        self._create("copy_object", key, label, **arguments)

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

    def sign_put(
        self,
        key: str,
        size: int,
        expires: int,
        digest: str = "",
    ) -> SignedPut:
        return direct.sign_put(self.bucket, check_key(key), size, expires, digest)

    def look(self, key: str) -> Arrived:
        return direct.look(self.bucket, check_key(key))

    def proves_digests(self, key: str) -> bool:
        return self._proves_digests(check_key(key))

    def allow_origins(
        self, origins: Sequence[str], dry_run: bool = False
    ) -> Sequence[dict[str, Any]]:
        return direct.allow_origins(self.bucket, origins, dry_run)

    def _create(self, call: str, key: str, label: Label, **arguments: Any) -> Any:
        """Send a request that makes an object with that label, see :meth:`Bucket.create`."""
        acl, headers = self._describe(label)
        return self.bucket.create(call, key, acl, **headers, **arguments)

    def _describe(self, label: Label) -> tuple[str, dict[str, str]]:
        """Return the canned ACL of an object with that label, and further arguments of boto3."""
        acl = "" if label.private else self._acl
        headers = {"ContentType": label.mimetype, "ContentDisposition": label.disposition}
        if label.immutable and acl.startswith("public"):
            headers["CacheControl"] = "public, max-age=31536000, immutable"
        return acl, headers

    def _begin(self, key: str, label: Label) -> MultipartUpload:
        """Begin a multipart upload of an object with that label."""
        checksum = MultipartUpload.checksum(self.bucket)
        answer = self._create("create_multipart_upload", key, label, **checksum)
        return MultipartUpload(self.bucket, key, answer)

    def _put_parts(self, key: str, parts: Iterator[Part], label: Label) -> None:
        """Send a multipart upload, and abort it if anything fails."""
        upload = self._begin(key, label)
        try:
            at_once(lambda each: upload.send_part(*each), enumerate(parts, start=1), WORKERS)
            upload.complete()
        except BaseException:
            upload.cancel()
            raise
