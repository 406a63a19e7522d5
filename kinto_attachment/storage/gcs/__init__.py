"""Storage in a bucket of Google Cloud Storage."""

from .bucket import Bucket
from .storage import GoogleCloudStorage

__all__ = ["Bucket", "GoogleCloudStorage"]
