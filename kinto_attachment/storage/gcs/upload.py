"""Creating an object of Google Cloud Storage, in one request or in several."""

import base64
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import google_crc32c
from google.api_core import exceptions as api
from google.cloud.storage import Blob

from ...errors import BlobExists, StorageError, StorageUnavailable
from .bucket import Bucket

MARK = "upload"
"""The name of the random mark in the metadata of an object."""


@contextmanager
def claiming(bucket: Bucket, blob: Blob, missing: type = StorageUnavailable) -> Iterator[None]:
    """Wrap a request that creates an object. If an earlier attempt of the same request has taken
    the key, ignore that error.

    :param missing: the error for the status 404.
    :raises BlobExists: if another upload has taken the key.
    """
    try:
        with bucket.call(blob.name, missing):
            yield
    except BlobExists as error:
        if refuses_acl(error):
            raise
        found = bucket.blob(blob.name)
        # If the object has been deleted since, this upload has failed all the same.
        with bucket.call(blob.name, missing=BlobExists):
            found.reload(**bucket.limits)
        if (found.metadata or {}).get(MARK) != blob.metadata[MARK]:
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


class ResumableUpload:
    """An upload in several requests, of which the last one stores the object:
    https://cloud.google.com/storage/docs/performing-resumable-uploads#chunked-upload

    :param blob: the object.
    :param url: the URL of the upload session.
    :param size: the number of bytes of all parts; None if it is not known yet.
    """

    def __init__(self, bucket: Bucket, blob: Blob, url: str, size: int | None = None):
        self._bucket = bucket
        self._blob = blob
        self._url = url
        self._size = size
        self._sent = 0
        self._checksum = google_crc32c.Checksum()

    def send(self, number: int, part: bytes | bytearray, is_last: bool) -> None:
        """Send the next part. The last one stores the object.

        :param number: counts from 1.
        :param part: a multiple of 256 KiB bytes, except for the last part.
        :raises BlobExists: if another upload has taken the key.
        :raises StorageUnavailable: if the service cannot be reached, accepts too few bytes, or
            stores other ones.
        """
        with claiming(self._bucket, self._blob):
            self._send(bytes(part), is_last)

    def complete(self) -> None:
        """Do nothing: the last part has stored the object."""

    def cancel(self) -> None:
        """Give up the upload. Errors are ignored: the service discards the upload after a week."""
        with suppress(StorageUnavailable), self._bucket.call(self._blob.name):
            self._bucket.connect().session.delete(self._url, timeout=self._bucket.limits["timeout"])

    def _send(self, part: bytes, is_last: bool) -> None:
        start, self._sent = self._sent, self._sent + len(part)
        self._checksum.update(part)
        digest = base64.b64encode(self._checksum.digest()).decode()
        # A service that supports this header does not store bytes with another checksum.
        headers = {"X-Goog-Hash": f"crc32c={digest}"} if is_last else {}
        size = self._sent if is_last else self._size or "*"
        while start < self._sent:
            headers["Content-Range"] = f"bytes {start}-{self._sent - 1}/{size}"
            response = self._bucket.send(
                "PUT",
                self._url,
                (200, 201, 308) if is_last else (308,),
                data=part[start - self._sent :],
                headers=headers,
            )
            if response.status_code != 308:
                self._verify(response.json(), digest)
                return
            # The service may have kept only some of the bytes. The others are sent again.
            # Without the header it has kept none (the session would have to start again).
            last_kept = response.headers.get("Range", "bytes=0--1").partition("-")[2]
            kept = int(last_kept) + 1
            if not start < kept <= self._sent - is_last:
                raise StorageUnavailable(
                    self._blob.name,
                    f"the service confirmed {kept} bytes after {self._sent} were sent",
                )
            start = kept

    def _verify(self, stored: dict[str, Any], digest: str) -> None:
        """Delete the stored object if its checksum is wrong.

        :param stored: the object as the service describes it.
        :param digest: the CRC-32C of the bytes that were sent, in base64.
        :raises StorageUnavailable: if the object was deleted.
        """
        if stored.get("crc32c") != digest:
            generation = {"if_generation_match": stored["generation"], **self._bucket.limits}
            self._bucket.blob(self._blob.name).delete(**generation)
            raise StorageUnavailable(
                self._blob.name, "the stored bytes had a wrong checksum and were deleted"
            )
