"""Storage in a bucket of Google Cloud Storage.

Every object is created on the condition that its key is free, and its metadata contains a random
mark. If the response to a request is lost, the request is repeated, and the service may answer that
the key is taken. The mark then tells whether the first request took the key, or another upload.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import BinaryIO
from uuid import uuid4

from google.api_core import exceptions as api
from google.cloud.storage import Blob
from google.cloud.storage.acl import ACL
from google.oauth2 import service_account
from zope.interface import implementer

from ...errors import (
    BlobExists,
    BlobNotFound,
    KeyRefused,
    SettingError,
    StorageError,
    StorageUnavailable,
)
from ...files.blob import Label, Source
from ...files.key import check_key
from ...files.mimetype import DEFAULT_MIMETYPE
from ...settings import Settings
from .. import IStorage, Stat
from ..acl import OptionalACL
from ..base import RemoteStorage, at_once, read_spool_dir
from ..staged import IComposingStorage, ISigningStorage, IUnfinishedStorage
from .bucket import Bucket, ObjectChunks, Resumable, translated

PART_BYTES = 8 * 1024 * 1024
"""The maximum number of bytes sent in one request. A larger blob is sent in several requests. The
service requires a multiple of 256 KiB."""

MAX_COMPOSE = 32
"""The maximum number of objects that the service joins in one request."""

MAX_EXPIRES = 7 * 24 * 3600
"""The maximum validity of a signed URL (V4) in seconds."""

COMPOSING = ".kinto-attachment-compose/"
"""The prefix of the keys of the intermediate objects of :meth:`GoogleCloudStorage.compose`."""

# https://cloud.google.com/storage/docs/buckets#naming
_BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_DELETERS = 16  # simultaneous requests
_MARK = "upload"  # the name of the random mark in the metadata


@implementer(IStorage, IComposingStorage, ISigningStorage, IUnfinishedStorage)
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

    def _new_blob(self, key: str, mimetype: str = DEFAULT_MIMETYPE) -> Blob:
        blob = self._bucket.blob(key)
        blob.content_type = mimetype
        blob.metadata = {_MARK: uuid4().hex}
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
            with self._claiming(blob):
                blob.upload_from_string(
                    content,
                    content_type=blob.content_type,
                    predefined_acl=acl,
                    if_generation_match=0,
                    **self._bucket.limits,
                )

        self._optional_acl.send(acl, send)

    def _put_large(self, blob: Blob, source: Source, acl: str | None) -> None:
        def start(acl: str | None) -> str:
            with self._bucket.call(blob.name, missing=StorageUnavailable):
                return blob.create_resumable_upload_session(
                    content_type=blob.content_type,
                    size=source.size,
                    predefined_acl=acl,
                    if_generation_match=0,
                    checksum=None,
                    **self._bucket.limits,
                )

        url = self._optional_acl.send(acl, start)
        upload = Resumable(self._bucket, url, source.size)
        try:
            for start in range(0, source.size, PART_BYTES):
                part = _read(blob.name, source.file, min(PART_BYTES, source.size - start))
                with self._claiming(blob):
                    upload.put(blob, part)
        except BaseException:
            upload.cancel(blob.name)
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
            with self._bucket.looking_for(whole.name), self._claiming(whole, missing=BlobNotFound):
                self._bucket.send("POST", url, (200,), params=params, json=body).json()

        self._optional_acl.send(acl, send)

    def _delete(self, key: str) -> None:
        with suppress(BlobNotFound), self._bucket.looking_for(key), self._bucket.call(key):
            self._bucket.blob(key).delete(**self._bucket.limits)

    @contextmanager
    def _claiming(self, blob: Blob, missing: type = StorageUnavailable) -> Iterator[None]:
        """Wrap a request that creates an object. If an earlier attempt of the same request has
        taken the key, ignore that error.

        :param missing: the error for the status 404.
        :raises BlobExists: if another upload has taken the key.
        """
        try:
            with self._bucket.call(blob.name, missing):
                yield
        except BlobExists as error:
            if refuses_acl(error):
                raise
            found = self._bucket.blob(blob.name)
            # If the object has been deleted since, this upload has failed all the same.
            with self._bucket.call(blob.name, missing=BlobExists):
                found.reload(**self._bucket.limits)
            if (found.metadata or {}).get(_MARK) != blob.metadata[_MARK]:
                raise


def refuses_acl(error: StorageError) -> bool:
    """Return whether a request failed only because it had an ACL: the bucket has uniform access, or
    public access to it is prevented. Google's errors have no code for that, only texts."""
    cause = error.__cause__
    if not isinstance(cause, api.BadRequest | api.PreconditionFailed):
        return False
    try:
        # Not the message of the exception, which has the URL, and with it the key.
        text = str(cause.response.json()["error"]["message"]).lower()
    except (AttributeError, KeyError, TypeError, ValueError):
        return False
    refusals = ("uniform bucket-level access", "publicaccessprevention", "public access prevention")
    return any(refusal in text for refusal in refusals)


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
