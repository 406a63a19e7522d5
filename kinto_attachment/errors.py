"""Everything that can go wrong, as one tree. Nothing here knows HTTP.

::

    AttachmentError
    ├── SettingError            the ini file is wrong; the server must not start
    ├── Refused                 the request is at fault; nothing was changed
    │   ├── NotMultipart
    │   ├── MalformedForm       broken, truncated or oversized multipart
    │   ├── AttachmentMissing
    │   ├── FieldRefused        an unknown field, bad JSON, text sent as a file...
    │   ├── FilenameRefused
    │   ├── ContentRefused      the bytes contradict their type
    │   ├── TooLarge            the file is over ``max_size``
    │   │   └── BodyTooLarge    so is a body that is nothing but the file
    │   ├── EmptyBody           a file of no bytes, where there is no use for one
    │   ├── NotADigest          a hash is asked for that is none
    │   ├── DigestMismatch      the bytes are not those of the hash
    │   ├── NotInBatch          bytes have no place in JSON
    │   ├── MetadataForged      somebody else wrote the ``attachment`` attribute
    │   ├── ReplacedMeanwhile   a record was written with a file that is gone
    │   ├── SizeRefused         a size of an image that is not to be had
    │   └── ImageRefused        no image, or none that is safe to resize
    ├── ResizeError             an image could not be made, and it may go better next time
    │   ├── ResizeBusy          too many are being made
    │   └── WorkerLost          the process that made it ended, or was ended, before it was done
    ├── ImagingMissing          the extra that resizes images is not installed
    ├── RemoteError             another server, from which something was to be fetched
    │   ├── RemoteNotFound      it has no such thing
    │   ├── RemoteLimited       it was asked too often
    │   ├── RemoteTimeout       it is too slow
    │   └── RemoteFailed        it answers nonsense, refuses us, or is where nobody may ask
    ├── SweepRefused            storage and database do not belong together
    ├── NotImported             there are files that only the existing plugin's rows know
    └── StorageError            the place where the bytes are
        ├── KeyRefused          a key no storage may be asked for
        ├── BlobNotFound
        ├── BlobDamaged         other bytes than were stored
        ├── BlobExists
        └── StorageUnavailable  unreachable, out of space, refused us, too slow

``views.errors`` holds the one table from these to HTTP.
"""


class AttachmentError(Exception):
    """Root of all errors of this package."""


class SettingError(AttachmentError):
    """A setting is unknown, malformed or contradicts another one.

    >>> str(SettingError("attachment.max_size", "'ten' is not a number of bytes"))
    "attachment.max_size: 'ten' is not a number of bytes"
    """

    def __init__(self, key: str, reason: str):
        super().__init__(f"{key}: {reason}")
        self.key = key
        self.reason = reason


class Refused(AttachmentError):
    """The request is at fault.

    :param reason: one sentence for whoever sent it.
    :param field: the form field, header or attribute that is wrong.
    :param location: where it is: ``body``, ``header`` or ``path``.
    """

    location = "body"
    field = "attachment"

    def __init__(self, reason: str, field: str | None = None, location: str | None = None):
        super().__init__(reason)
        self.reason = reason
        self.field = field or self.field
        self.location = location or self.location


class NotMultipart(Refused):
    location = "header"
    field = "Content-Type"

    def __init__(self) -> None:
        super().__init__("Content-Type should be multipart/form-data")


class MalformedForm(Refused):
    pass


class AttachmentMissing(Refused):
    def __init__(self, field: str = "attachment") -> None:
        super().__init__(f"{field.capitalize()} missing.", field)


class FieldRefused(Refused):
    pass


class FilenameRefused(Refused):
    pass


class ContentRefused(Refused):
    """The bytes are not what the type says. Both are media types."""

    def __init__(self, mimetype: str, found: str):
        super().__init__(f"The file is no {mimetype}, it looks like {found}.")
        self.mimetype = mimetype
        self.found = found


class NotInBatch(Refused):
    location = "path"

    def __init__(self) -> None:
        super().__init__("The bytes of a file cannot be sent in a batch.")


class TooLarge(Refused):
    """The file is over the limit. ``size`` and ``limit`` are bytes."""

    def __init__(self, size: int, limit: int):
        super().__init__(f"File size ({size} bytes) exceeds the limit ({limit} bytes).")
        self.size = size
        self.limit = limit


class BodyTooLarge(TooLarge):
    field = "body"


class EmptyBody(Refused):
    field = "body"

    def __init__(self) -> None:
        super().__init__("The body is empty.")


class NotADigest(Refused):
    """No SHA-256 where one is wanted, in a URL, a header or a body."""


class DigestMismatch(Refused):
    """Both are SHA-256 in hex."""

    def __init__(self, wanted: str, found: str, field: str, location: str):
        super().__init__(f"The SHA-256 of the body is {found}, not {wanted}.", field, location)


class MetadataForged(Refused):
    def __init__(self) -> None:
        super().__init__("Attachment metadata cannot be modified.")


class ReplacedMeanwhile(Refused):
    def __init__(self) -> None:
        super().__init__("The attachment of this record was replaced meanwhile.")


class SizeRefused(Refused):
    location = "path"
    field = "size"


class ImageRefused(Refused):
    """The reason is a sentence about the image, for whoever asked for another size of it."""

    location = "path"
    field = "size"


class ResizeError(AttachmentError):
    """The image may be made if one asks again."""


class ResizeBusy(ResizeError):
    pass


class WorkerLost(ResizeError):
    pass


class ImagingMissing(AttachmentError):
    """``pip install "kinto-attachment[images]"``"""


class RemoteError(AttachmentError):
    """Something about another server; the message says what, without its secrets."""


class RemoteNotFound(RemoteError):
    pass


class RemoteLimited(RemoteError):
    """:param retry_after: seconds, as that server says; None if it does not."""

    def __init__(self, message: str, retry_after: int | None = None):
        super().__init__(message)
        self.retry_after = retry_after


class RemoteTimeout(RemoteError):
    pass


class RemoteFailed(RemoteError):
    pass


class SweepRefused(AttachmentError):
    """``gc`` deletes nothing where it might delete everything."""


class NotImported(AttachmentError):
    """A job would take files that the existing plugin's rows know for nobody's."""

    def __init__(self) -> None:
        super().__init__("There are files of the existing plugin: kinto-attachment import")


class StorageError(AttachmentError):
    """Something about one key in the storage."""

    def __init__(self, key: str, reason: str = ""):
        super().__init__(f"{key}: {reason}" if reason else key)
        self.key = key


class KeyRefused(StorageError):
    pass


class BlobNotFound(StorageError):
    pass


class BlobDamaged(StorageError):
    pass


class BlobExists(StorageError):
    pass


class StorageUnavailable(StorageError):
    pass
