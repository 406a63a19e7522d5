"""Storage in a bucket of S3, or of another server with the same API."""

from .storage import S3FileStorage

__all__ = ["S3FileStorage"]
