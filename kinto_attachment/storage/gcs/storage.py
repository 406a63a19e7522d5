"""Storage in a bucket of Google Cloud Storage.

Every object is created on the condition that its key is free, and its metadata contains a random
mark. If the response to a request is lost, the request is repeated, and the service may answer that
the key is taken. The mark then tells whether the first request took the key, or another upload.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, BinaryIO
from uuid import uuid4

from google.cloud.storage import Blob
from google.cloud.storage.acl import ACL
from google.oauth2 import service_account
from zope.interface import implementer

from ...errors import (
    BlobNotFound,
    KeyRefused,
    SettingError,
    StorageUnavailable,
)
from ...files.blob import Label, Source
from ...files.key import check_key
from ...files.mimetype import DEFAULT_MIMETYPE
from ...settings import Settings
from .. import IStorage, Stat
from ..acl import OptionalACL
from ..base import RemoteStorage, at_once, read_spool_dir
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
from .bucket import Bucket, ObjectChunks, translated
from .direct import MAX_EXPIRES
from .upload import MARK, ResumableUpload, claiming, refuses_acl

MAX_OBJECT_BYTES = 5 * 1024**4
"""Bytes of the largest object, 5 TiB."""

MAX_COMPOSE = 32
"""The maximum number of objects that the service joins in one request."""

COMPOSING = ".kinto-attachment-compose/"
"""The prefix of the keys of the intermediate objects of :meth:`GoogleCloudStorage.compose`."""

# https://cloud.google.com/storage/docs/buckets#naming
_BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_DELETERS = 16  # simultaneous requests


@implementer(IStorage, IComposingStorage, IReceivingStorage, IStreamingStorage, IUnfinishedStorage)
class GoogleCloudStorage(RemoteStorage):
    """A storage in a bucket of Google Cloud Storage.

    Methods without a docstring are documented in the interfaces.

    :param base_url: the URL below which clients find the objects, with a slash at its end.
    :param acl: the predefined ACL of new objects; None for the default of the bucket.
    :param cache_control: the ``Cache-Control`` of new objects that are not private. If it is
        empty, clients may cache a public object forever, provided that its key will never hold
        other bytes.
    :param spool_dir: the folder for incoming files; empty for the temporary folder of the system.

    >>> GoogleCloudStorage(Bucket("files"), base_url="https://cdn.example/").url("a/b.txt")
    'https://cdn.example/a/b.txt'
    """

    exclusive = True
    max_stream = MAX_OBJECT_BYTES

    def __init__(
        self,
        bucket: Bucket,
        *,
        base_url: str = "",
        acl: str | None = None,
        cache_control: str = "",
        spool_dir: str = "",
    ):
        self.base_url = base_url
        self.place = f"gs://{bucket.name}"
        self._bucket = bucket
        self._acl = acl
        self._optional_acl = OptionalACL(bucket.name, refuses_acl)
        self._cache_control = cache_control
        self.spool_dir = spool_dir

    @classmethod
    def from_settings(cls, settings: Settings) -> "GoogleCloudStorage":
        """Return the storage that the settings ``gcloud.*`` describe. This sends no request.

        :raises SettingError: if the name of the bucket, the credentials, an ACL or the spool
            folder is not valid.
        """
        credentials = settings["gcloud.credentials"]
        name = settings["gcloud.bucket_name"]
        if not _BUCKET_NAME.fullmatch(name):
            raise SettingError(
                "kinto.attachment.gcloud.bucket_name",
                f"{name!r} is not a valid name, use 3 to 222 of a-z, 0-9, '.', '_' and '-'",
            )
        if credentials:
            try:
                service_account.Credentials.from_service_account_file(credentials)
            except (OSError, ValueError) as error:
                raise SettingError("kinto.attachment.gcloud.credentials", str(error)) from error
        uniform = settings["gcloud.uniform_bucket_level_access"]
        acl, bucket_acl = _acl(settings, "gcloud.acl"), _acl(settings, "gcloud.auto_create_acl")
        bucket = Bucket(
            name,
            credentials=credentials,
            project=settings["gcloud.project"],
            timeout=settings["gcloud.timeout"],
            create=settings["gcloud.auto_create_bucket"],
            acl=None if uniform else bucket_acl,
            uniform=uniform,
        )
        return cls(
            bucket,
            base_url=settings["base_url"],
            acl=None if uniform else acl,
            cache_control=settings["gcloud.cache_control"],
            spool_dir=read_spool_dir(settings),
        )

    def put(self, key: str, source: Source) -> None:
        blob, acl = self._labelled(key, source.label)
        if source.digest:
            blob.metadata = {**blob.metadata, "sha256": source.digest}
        source.file.seek(0)
        if source.size <= PART_BYTES:
            self._put_small(blob, _read(key, source.file, source.size), acl)
        else:
            self._put_large(blob, source, acl)

    def stream(self, key: str, label: Label) -> Stream:
        blob, acl = self._labelled(key, label)
        return Stream(
            lambda content: self._put_small(blob, bytes(content), acl),
            lambda: self._begin(blob, acl),
            workers=1,  # a session takes its parts in their order
        )

    def open(self, key: str, start: int = 0, end: int | None = None) -> "ObjectChunks":
        blob = self._bucket.blob(key)
        if end is not None and end <= start:
            self.stat(key)
            return ObjectChunks(key)
        # The service would otherwise decompress an object that is stored compressed.
        headers = {"Accept-Encoding": "gzip"}
        expected: tuple[int, ...] = (200,)
        if start or end is not None:
            headers["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
            expected = (206, 416)  # 416: the range begins at the end of the object or beyond
        url = f"{blob.client.api_endpoint}/download/storage/v1{blob.path}?alt=media"
        with self._bucket.looking_for(key), self._bucket.call(key):
            # All bytes come in one response, and so from the same generation of the object.
            response = self._bucket.send("GET", url, expected, headers=headers, stream=True)
        if response.status_code == 416:
            response.close()
            return ObjectChunks(key)
        stored = response.headers.get("X-Goog-Stored-Content-Length", 0)
        length = int(response.headers.get("Content-Length", stored))
        return ObjectChunks(key, response, length)

    def stat(self, key: str) -> Stat:
        blob = self._bucket.blob(key)
        with self._bucket.looking_for(key), self._bucket.call(key):
            blob.reload(**self._bucket.limits)
        return Stat(key, blob.size, blob.time_created)

    def delete(self, keys: Iterable[str]) -> None:
        at_once(self._delete, map(check_key, keys), _DELETERS)

    def list(self, prefix: str = "") -> Iterator[Stat]:
        for blob in self._bucket.blobs(prefix):
            try:
                yield Stat(check_key(blob.name), blob.size, blob.time_created)
            except KeyRefused:
                continue  # an object of another application, whose name is not a valid key

    def discard_unfinished(
        self, before: datetime, is_ours: Callable[[str], bool], dry_run: bool = False
    ) -> Iterator[str]:
        # The service itself discards unfinished uploads after a week.
        for stat in self.list(COMPOSING):
            if stat.modified < before:
                if not dry_run:
                    self.delete([stat.key])
                yield stat.key

    def compose(self, parts: Iterable[str], key: str, label: Label) -> None:
        whole, acl = self._labelled(key, label)
        names = [check_key(part) for part in parts]
        if not names:
            self._put_small(whole, b"", acl)
            return
        intermediate: list[str] = []
        try:
            while len(names) > MAX_COMPOSE:
                groups = [names[i : i + MAX_COMPOSE] for i in range(0, len(names), MAX_COMPOSE)]
                names = [f"{COMPOSING}{uuid4().hex}" for _ in groups]
                intermediate += names
                for group, name in zip(groups, names, strict=True):
                    self._compose(group, self._new_blob(name))
            self._compose(names, whole, acl)
        finally:
            # discard_unfinished() deletes the objects that remain.
            with suppress(StorageUnavailable):
                self.delete(intermediate)

    def sign(
        self,
        key: str,
        method: str = "GET",
        expires: int = 3600,
        disposition: str | None = None,
        mimetype: str | None = None,
    ) -> str | None:
        blob = self._bucket.blob(key)
        signer = self._bucket.connect().signer
        if signer is None:
            return None
        with translated(key):
            return blob.generate_signed_url(
                version="v4",
                api_access_endpoint=blob.client.api_endpoint,
                credentials=signer,
                method=method,
                expiration=timedelta(seconds=min(expires, MAX_EXPIRES)),
                response_disposition=disposition if method == "GET" else None,
                response_type=mimetype if method == "GET" else None,
            )

    def sign_put(
        self,
        key: str,
        size: int,
        expires: int,
        digest: str = "",
    ) -> SignedPut | None:
        return direct.sign_put(self._bucket, key, size, expires)

    def look(self, key: str) -> Arrived:
        return direct.look(self._bucket, key)

    def proves_digests(self, key: str) -> bool:
        return False  # the service knows CRC-32C and MD5 only

    def allow_origins(
        self, origins: Sequence[str], dry_run: bool = False
    ) -> Sequence[dict[str, Any]]:
        return direct.allow_origins(self._bucket, origins, dry_run)

    def _new_blob(self, key: str, mimetype: str = DEFAULT_MIMETYPE) -> Blob:
        blob = self._bucket.blob(key)
        blob.content_type = mimetype
        blob.metadata = {MARK: uuid4().hex}
        return blob

    def _labelled(self, key: str, label: Label) -> tuple[Blob, str | None]:
        """Return a new blob that carries the label, and the predefined ACL to create it with."""
        blob = self._new_blob(key, label.mimetype)
        blob.content_disposition = label.disposition
        acl = None if label.private else self._acl
        if label.private:
            blob.cache_control = "private"  # even if the whole bucket is public
        elif self._cache_control:
            blob.cache_control = self._cache_control
        elif label.immutable and (acl or "").startswith("publicRead"):
            blob.cache_control = "public, max-age=31536000, immutable"
        return blob, acl

    def _put_small(self, blob: Blob, content: bytes, acl: str | None) -> None:
        def send(acl: str | None) -> None:
            with claiming(self._bucket, blob):
                blob.upload_from_string(
                    content,
                    content_type=blob.content_type,
                    predefined_acl=acl,
                    if_generation_match=0,
                    **self._bucket.limits,
                )

        self._optional_acl.send(acl, send)

    def _begin(self, blob: Blob, acl: str | None, size: int | None = None) -> ResumableUpload:
        """Begin an upload in several requests.

        :param size: the number of bytes; None if it is not known yet.
        """

        def start(acl: str | None) -> str:
            with self._bucket.call(blob.name, missing=StorageUnavailable):
                return blob.create_resumable_upload_session(
                    content_type=blob.content_type,
                    size=size,
                    predefined_acl=acl,
                    if_generation_match=0,
                    checksum=None,
                    **self._bucket.limits,
                )

        url = self._optional_acl.send(acl, start)
        return ResumableUpload(self._bucket, blob, url, size)

    def _put_large(self, blob: Blob, source: Source, acl: str | None) -> None:
        upload, missing = self._begin(blob, acl, source.size), source.size
        try:
            for number in range(1, 1 + -(-source.size // PART_BYTES)):
                part = _read(blob.name, source.file, min(PART_BYTES, missing))
                missing -= len(part)
                upload.send(number, part, is_last=not missing)
        except BaseException:
            upload.cancel()
            raise

    def _compose(self, names: Sequence[str], whole: Blob, acl: str | None = None) -> None:
        # ``Blob.compose`` has no parameter for the ACL.
        url = f"{whole.client.api_endpoint}/storage/v1{whole.path}/compose"
        parameters = {"ifGenerationMatch": 0}
        body = {
            "sourceObjects": [{"name": name} for name in names],
            "destination": {
                "contentType": whole.content_type,
                "contentDisposition": whole.content_disposition,
                "cacheControl": whole.cache_control,
                "metadata": whole.metadata,
            },
        }

        def send(acl: str | None) -> None:
            params = {**parameters, "destinationPredefinedAcl": acl}
            with (
                self._bucket.looking_for(whole.name),
                claiming(self._bucket, whole, missing=BlobNotFound),
            ):
                self._bucket.send("POST", url, (200,), params=params, json=body).json()

        self._optional_acl.send(acl, send)

    def _delete(self, key: str) -> None:
        with suppress(BlobNotFound), self._bucket.looking_for(key), self._bucket.call(key):
            self._bucket.blob(key).delete(**self._bucket.limits)


def _acl(settings: Settings, name: str) -> str | None:
    """Return the predefined ACL that a setting names, or None if the setting is empty.

    :raises SettingError: if there is no such ACL.
    """
    try:
        return ACL.validate_predefined(settings[name]) or None
    except ValueError as error:
        raise SettingError(f"kinto.attachment.{name}", str(error)) from error


def _read(key: str, file: BinaryIO, size: int) -> bytes:
    """Return the next ``size`` bytes of a file.

    :param key: the key that the error names.
    :raises StorageUnavailable: if the file ends before.
    """
    content = file.read(size)
    while len(content) < size:
        more = file.read(size - len(content))
        if not more:
            raise StorageUnavailable(key, "the source is shorter than its size says")
        content += more
    return content
