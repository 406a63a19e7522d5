"""Errors of everything that fails but the request: settings, storages, other servers, commands."""

from .root import AttachmentError


class SettingError(AttachmentError):
    """A setting is unknown or malformed, or conflicts with another one.

    :param key: the full name of the setting in the ini file, or the name of a command's option.
    :param reason: what is wrong with it and what is accepted. The message puts the key before it.

    >>> str(SettingError("kinto.attachment.max_size", "'ten' is not a size, such as 10MB"))
    "kinto.attachment.max_size: 'ten' is not a size, such as 10MB"
    """

    def __init__(self, key: str, reason: str):
        super().__init__(f"{key}: {reason}")
        self.key = key
        self.reason = reason


class ResizeError(AttachmentError):
    """An image cannot be resized now. A later request may succeed."""


class ResizeBusy(ResizeError):
    """No worker becomes free in time, or the server is read-only."""


class WorkerLost(ResizeError):
    """The worker process ended, or was stopped, before it was done."""


class ImagingMissing(AttachmentError):
    """The extra ``[images]``, which resizes images, is not installed."""


class RemoteError(AttachmentError):
    """Fetching from another server failed. The message says why, and contains no secrets."""


class RemoteNotFound(RemoteError):
    """The other server does not have what was requested."""


class RemoteLimited(RemoteError):
    """The other server has received too many requests from us.

    :param retry_after: the seconds after which that server accepts requests again; None if it does
        not say.
    """

    def __init__(self, message: str, retry_after: int | None = None):
        super().__init__(message)
        self.retry_after = retry_after


class RemoteTimeout(RemoteError):
    """The other server did not respond in time."""


class RemoteFailed(RemoteError):
    """The response of the other server is an error or invalid, or its address is not public."""


class SweepRefused(AttachmentError):
    """``gc`` would delete so much that storage and database may not match."""


class ForeignStorage(SweepRefused):
    """The file storage belongs to another database, which may need what is in it."""


class NotImported(AttachmentError):
    """Files of an older kinto-attachment are not imported yet, so that a job would miss their
    owners."""

    def __init__(self) -> None:
        super().__init__(
            "Files of kinto-attachment 0.x to 9.x are not imported yet: run kinto-attachment import"
            " first."
        )


class CommandFailed(AttachmentError):
    """A command cannot do its work at all. The message says why, and what to do about it."""


class StorageError(AttachmentError):
    """An operation on one key of the file storage failed.

    :param key: the key, or what stands for it in the message, such as ``spool``.
    :param reason: what went wrong; empty if the class says it all.
    """

    def __init__(self, key: str, reason: str = ""):
        super().__init__(f"{key}: {reason}" if reason else key)
        self.key = key


class KeyRefused(StorageError):
    """The key is not one that storages accept."""


class BlobNotFound(StorageError):
    """No bytes are stored under the key."""


class BlobDamaged(StorageError):
    """The stored bytes are not those that were uploaded."""


class BlobExists(StorageError):
    """Bytes are already stored under the key."""


class StorageUnavailable(StorageError):
    """The storage is unreachable, full or too slow, or denies access."""
