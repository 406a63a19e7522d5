"""What clients send to a bucket of S3 themselves: signed requests, and whether to trust them."""

import logging
import os
from base64 import b64decode, b64encode
from collections.abc import Sequence
from hashlib import sha256
from threading import Lock
from typing import Any

from ...errors import BlobNotFound, StorageUnavailable
from ..staged import Arrived, SignedPut
from .bucket import Bucket, code_of, translated

logger = logging.getLogger(__name__)

CORS_ID = "kinto-attachment"
"""The id of the CORS rule that this plugin makes."""


def sign_put(bucket: Bucket, key: str, size: int, expires: int, digest: str) -> SignedPut:
    """Return a signed request to store an object.

    :param size: bytes; the storage accepts no other number.
    :param digest: the SHA-256 of the bytes in hex; empty for any.
    """
    parameters, headers = {"Bucket": bucket.name, "Key": key, "ContentLength": size}, {}
    if digest:
        parameters["ChecksumSHA256"] = headers["x-amz-checksum-sha256"] = _in_base64(digest)
    with translated(key):
        url = bucket.client.generate_presigned_url(
            "put_object", Params=parameters, ExpiresIn=expires
        )
    return SignedPut(url, headers)


def look(bucket: Bucket, key: str) -> Arrived:
    """Return what the bucket knows of an object.

    :raises BlobNotFound: if there is no such key.
    """
    with bucket.call(key, missing=BlobNotFound):
        head = bucket.client.head_object(Bucket=bucket.name, Key=key, ChecksumMode="ENABLED")
        checksum = head.get("ChecksumSHA256", "")
        # That of a multipart upload is made of those of its parts, and ends with their number.
        is_whole = checksum and head.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT"
        digest = b64decode(checksum).hex() if is_whole and "-" not in checksum else ""
        return Arrived(head["ContentLength"], (head["ETag"].strip('"'),), digest)


class DigestProof:
    """Whether the server of a bucket refuses bytes with another SHA-256 than the signed one, and
    tells the SHA-256 afterwards. It is tried out once in each process: some servers, and all
    imitations, accept anything."""

    def __init__(self, bucket: Bucket):
        self._bucket = bucket
        self._lock = Lock()
        self._known: tuple[int, bool] = (0, False)

    def __call__(self, key: str) -> bool:
        """Return whether the server proves digests.

        :param key: of the objects to try it with.
        :raises StorageUnavailable: if the server cannot be reached.
        """
        process, proves = self._known
        if process == os.getpid():
            return proves
        with self._lock:
            process, proves = self._known
            if process == os.getpid():
                return proves
            proves = self._try(key)
            self._known = (os.getpid(), proves)
        if not proves:
            logger.info(
                "%s does not prove the SHA-256 of uploads: direct uploads are read after they have"
                " arrived.",
                self._bucket.name,
            )
        return proves

    def _try(self, key: str) -> bool:
        content = b"kinto-attachment"
        digest, other = sha256(content).hexdigest(), sha256(b"other bytes").hexdigest()
        try:
            if self._accepts(key, content, other):
                return False
            return self._accepts(key, content, digest) and look(self._bucket, key).digest == digest
        finally:
            self._bucket.delete([key])

    def _accepts(self, key: str, content: bytes, digest: str) -> bool:
        """Send bytes with a SHA-256, and return whether the server takes them.

        :raises StorageUnavailable: if it does not say.
        """
        try:
            checksum = _in_base64(digest)
            self._bucket.create("put_object", key, "", Body=content, ChecksumSHA256=checksum)
        except StorageUnavailable as error:
            if not code_of(error) or _status_of(error) >= 500:
                raise
            return False
        return True


def allow_origins(
    bucket: Bucket, origins: Sequence[str], dry_run: bool = False
) -> Sequence[dict[str, Any]]:
    """Set the CORS rule of this plugin, and return all rules of the bucket."""
    rule = {
        "ID": CORS_ID,
        "AllowedOrigins": list(origins),
        "AllowedMethods": ["GET", "HEAD", "PUT"],
        "AllowedHeaders": ["*"],
        "ExposeHeaders": ["ETag"],
        "MaxAgeSeconds": 3600,
    }
    rules = [each for each in _rules(bucket) if each.get("ID") != CORS_ID]
    rules.append(rule)
    if not dry_run:
        with bucket.call(bucket.name):
            bucket.client.put_bucket_cors(
                Bucket=bucket.name, CORSConfiguration={"CORSRules": rules}
            )
    return rules


def _rules(bucket: Bucket) -> Sequence[dict[str, Any]]:
    try:
        with bucket.call(bucket.name):
            return bucket.client.get_bucket_cors(Bucket=bucket.name)["CORSRules"]
    except StorageUnavailable as error:
        if code_of(error) == "NoSuchCORSConfiguration":
            return []
        raise


def _status_of(error: StorageUnavailable) -> int:
    """Return the HTTP status of S3's answer that our error stands for."""
    return error.__cause__.response["ResponseMetadata"]["HTTPStatusCode"]


def _in_base64(digest: str) -> str:
    return b64encode(bytes.fromhex(digest)).decode()
