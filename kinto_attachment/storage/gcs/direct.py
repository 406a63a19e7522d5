"""What clients send to a bucket of Google Cloud Storage themselves."""

from base64 import b64decode
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from ...errors import StorageUnavailable
from ..staged import Arrived, SignedPut
from .bucket import Bucket, translated

MAX_EXPIRES = 7 * 24 * 3600
"""The maximum validity of a signed URL (V4) in seconds."""

_LENGTH = "x-goog-content-length-range"


def sign_put(bucket: Bucket, key: str, size: int, expires: int) -> SignedPut | None:
    """Return a signed request to store an object, or None if the credentials cannot sign.

    :param size: bytes; the storage accepts no other number.
    """
    blob, signer = bucket.blob(key), bucket.connect().signer
    if signer is None:
        return None
    headers = {_LENGTH: f"{size},{size}"}
    with translated(key):
        url = blob.generate_signed_url(
            version="v4",
            api_access_endpoint=blob.client.api_endpoint,
            credentials=signer,
            method="PUT",
            expiration=timedelta(seconds=min(expires, MAX_EXPIRES)),
            headers=dict(headers),
        )
    return SignedPut(url, headers)


def look(bucket: Bucket, key: str) -> Arrived:
    """Return what the bucket knows of an object.

    :raises BlobNotFound: if there is no such key.
    """
    blob = bucket.blob(key)
    with bucket.looking_for(key), bucket.call(key):
        blob.reload(**bucket.limits)
    # Clients know the entity tag of the XML API, which is the MD5.
    md5 = b64decode(blob.md5_hash).hex() if blob.md5_hash else ""
    return Arrived(blob.size, tuple(tag for tag in (md5, (blob.etag or "").strip('"')) if tag))


def allow_origins(bucket: Bucket, origins: Sequence[str], dry_run: bool) -> list[dict[str, Any]]:
    """Set the CORS rule of this plugin, and return all rules of the bucket. Such rules have no
    name: ours is the one with our headers.

    :raises StorageUnavailable: if the bucket cannot be reached.
    """
    rule = {
        "origin": list(origins),
        "method": ["GET", "HEAD", "PUT"],
        "responseHeader": ["Content-Type", "ETag", _LENGTH],
        "maxAgeSeconds": 3600,
    }
    described = bucket.connect().client.bucket(bucket.name)
    with bucket.call(bucket.name, missing=StorageUnavailable):
        described.reload(**bucket.limits)
        others = [
            each for each in described.cors if each.get("responseHeader") != rule["responseHeader"]
        ]
        described.cors = [*others, rule]
        if not dry_run:
            described.patch(**bucket.limits)
    return [*others, rule]
