"""Every exception of the package, in one tree.

::

    AttachmentError
    ├── SettingError            a setting is wrong: the server must not start
    ├── Refused                 the request is wrong: it changed nothing
    │   ├── NotMultipart        the body is not ``multipart/form-data``
    │   ├── ContentEncoded      the body is compressed
    │   ├── MalformedForm       the body is broken or cut short, or its fields are too large
    │   │   └── BoundaryRefused its boundary is missing or wrong
    │   ├── AttachmentMissing   the form contains no file
    │   ├── FieldRefused        a field, parameter or attribute is unknown or has a wrong value
    │   ├── FilenameRefused     the filename is malformed, or its extension is not allowed
    │   │   └── ExtensionRefused  its extension is not allowed here
    │   ├── ContentRefused      the first bytes of the file contradict its media type
    │   ├── TooLarge            the file of a form is larger than ``max_size``
    │   │   └── BodyTooLarge    the same for the media store and the library
    │   │       └── JSONTooLarge  a JSON body is larger than its limit
    │   ├── EmptyBody           the body contains no bytes, but the media store needs some
    │   ├── ClientTooSlow       the body arrives too slowly, or stops arriving
    │   ├── NotADigest          a SHA-256 is malformed, or is missing where one is needed
    │   ├── DigestMismatch      the body has another SHA-256, or the client sent two different ones
    │   ├── NotInBatch          a batch contains an upload or a download
    │   ├── MetadataForged      a client tried to write the ``attachment`` attribute itself
    │   ├── ReplacedMeanwhile   a write would bring back an attachment that was replaced or removed
    │   │   └── SourceReplaced  the same for a copy whose source was replaced
    │   ├── SizeRefused         this server does not make images of the requested size
    │   └── ImageRefused        the file is not an image, or is not safe to resize
    ├── ResizeError             an image cannot be resized now, but perhaps later
    │   ├── ResizeBusy          no worker becomes free in time, or the server is read-only
    │   └── WorkerLost          the worker process ended, or was stopped, before it was done
    ├── ImagingMissing          the extra that resizes images is not installed
    ├── RemoteError             fetching from another server failed
    │   ├── RemoteNotFound      the other server does not have what was requested
    │   ├── RemoteLimited       the other server has received too many requests from us
    │   ├── RemoteTimeout       the other server did not respond in time
    │   └── RemoteFailed        its response is an error or invalid, or its address is not public
    ├── SweepRefused            ``gc`` would delete so much that storage and database may not match
    │   └── ForeignStorage      the storage belongs to another database
    ├── NotImported             files of an older kinto-attachment must be imported first
    ├── CommandFailed           a command cannot do its work at all
    └── StorageError            an operation on one key of the file storage failed
        ├── KeyRefused          the key is not one that storages accept
        ├── BlobNotFound        no bytes are stored under the key
        ├── BlobDamaged         the stored bytes are not those that were uploaded
        ├── BlobExists          bytes are already stored under the key
        └── StorageUnavailable  the storage is unreachable, full or too slow, or denies access

Nothing here knows HTTP: :mod:`kinto_attachment.http.responses` holds the one table from these
errors to HTTP responses.
"""

from collections.abc import Iterable


class AttachmentError(Exception):
    """Root of all errors of this package."""


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


class Refused(AttachmentError):
    """The request is wrong, and changed nothing.

    :param reason: one sentence for the client.
    :param field: the name of the form field, header, parameter or attribute that is wrong.
    :param location: where the field is: ``body``, ``header``, ``path`` or ``querystring``.
    """

    location = "body"
    field = "attachment"

    def __init__(self, reason: str, field: str | None = None, location: str | None = None):
        super().__init__(reason)
        self.reason = reason
        self.description = reason
        """The reason, or more of it than fits into a message that clients match on."""
        self.field = field or self.field
        self.location = location or self.location


class NotMultipart(Refused):
    """The ``Content-Type`` of the request is not ``multipart/form-data``."""

    location = "header"
    field = "Content-Type"

    def __init__(self) -> None:
        super().__init__("Content-Type should be multipart/form-data")


class ContentEncoded(Refused):
    """The body is compressed, and the hash would be that of the compressed bytes."""

    location = "header"
    field = "Content-Encoding"

    def __init__(self, encoding: str) -> None:
        super().__init__(
            f"Content-Encoding {encoding[:100]!r} is not supported: send the bytes as they are."
        )


class MalformedForm(Refused):
    """The body is broken or cut short, or its fields are too large."""

    field = "body"


class BoundaryRefused(MalformedForm):
    """The boundary of a form is missing, too long, or not ASCII."""

    def __init__(self, boundary: str) -> None:
        super().__init__(f"Invalid boundary in multipart form: {boundary[:100]!r}", "boundary")


class AttachmentMissing(Refused):
    """The form contains no file.

    :param field: the name of the form field that should contain it.
    :param chosen: False if the form has the field, but its user has chosen no file for it.
    """

    def __init__(self, field: str = "attachment", chosen: bool = True) -> None:
        reason = "" if chosen else " No file was chosen."
        super().__init__(f"{field.capitalize()} missing.{reason}", field)


class FieldRefused(Refused):
    """A field, parameter or attribute is unknown or has a wrong value."""


class FilenameRefused(Refused):
    """The filename is missing or malformed, or its extension is not allowed."""


class ExtensionRefused(FilenameRefused):
    """The extension of the filename is not allowed here.

    :param extension: without its dot; empty if there is none.
    :param accepted: those that are.
    """

    def __init__(self, extension: str, accepted: Iterable[str]):
        super().__init__("File extension is not allowed.")
        wrong = f"Extension {extension[:32]!r} is not allowed" if extension else "There is none"
        self.description = f"{wrong}; accepted are {', '.join(sorted(accepted))}."


class ContentRefused(Refused):
    """The first bytes of the file contradict its media type.

    :param mimetype: the media type that the file should have.
    :param found: the media type that its first bytes indicate.
    """

    def __init__(self, mimetype: str, found: str):
        super().__init__(f"The type of the file is {mimetype}, but its bytes look like {found}.")
        self.mimetype = mimetype
        self.found = found


class NotInBatch(Refused):
    """The request is part of a batch, whose JSON cannot contain the bytes of a file."""

    location = "path"

    def __init__(self) -> None:
        super().__init__("A file cannot be sent in a batch: make this request on its own.")


class TooLarge(Refused):
    """The file is larger than the limit.

    :param size: the size in bytes, as far as it is known.
    :param limit: the largest accepted size in bytes.
    """

    def __init__(self, size: int, limit: int):
        super().__init__(f"File size ({size} bytes) exceeds the limit ({limit} bytes).")
        self.size = size
        self.limit = limit


class BodyTooLarge(TooLarge):
    """A file for the media store or the library is larger than its limit.

    :param field: the form field that contains the file; ``body`` if the body is the file.
    """

    def __init__(self, size: int, limit: int, field: str = "body"):
        super().__init__(size, limit)
        self.field = field


class JSONTooLarge(BodyTooLarge):
    """A JSON body is larger than its limit."""

    def __init__(self, size: int, limit: int):
        super().__init__(size, limit)
        self.reason = f"The body ({size} bytes) exceeds the limit ({limit} bytes)."
        self.description = self.reason
        self.args = (self.reason,)


class EmptyBody(Refused):
    """The body contains no bytes."""

    field = "body"

    def __init__(self) -> None:
        super().__init__("The body is empty. Send the bytes of the file.")


class ClientTooSlow(Refused):
    """The client is silent for too long, or sends less than the minimum rate."""

    field = "body"


class NotADigest(Refused):
    """A SHA-256 in a URL, a header or a body is malformed, or is missing where one is needed."""


class DigestMismatch(Refused):
    """The body has another SHA-256 than the client says, or the client says two different ones.

    :param wanted: the SHA-256 in the field, in hex.
    :param found: another SHA-256, in hex.
    :param where: what has that one: ``the body``, or the name of another field.
    """

    def __init__(self, wanted: str, found: str, field: str, location: str, where: str = "the body"):
        reason = f"{field} says {wanted}, but {where} has {found}."
        super().__init__(f"SHA-256 mismatch: {reason}", field, location)


class MetadataForged(Refused):
    """A client tried to write what a record says in a field about its files."""

    def __init__(self, field: str = "attachment") -> None:
        super().__init__("Attachment metadata cannot be modified.", field)


class TooManyFiles(Refused):
    """A field that is a list would have more files than it may: ``most``."""

    def __init__(self, field: str, most: int) -> None:
        super().__init__(f"{field} may have up to {most} files.", field)


class ReplacedMeanwhile(Refused):
    """A write would bring back an attachment that was replaced or removed since it was read.

    :param unlinked: the URI of the place, if it has no file at all.
    """

    def __init__(self, unlinked: str = "", field: str = "attachment") -> None:
        reason = "The attachment of this record was replaced meanwhile: read the record again."
        super().__init__(reason, field)
        self.unlinked = unlinked


class SourceReplaced(ReplacedMeanwhile):
    """A trusted copy names bytes whose last owner is gone. Repeating the request does not help,
    because the copy would name them again."""


class SizeRefused(Refused):
    """This server does not make images of the requested size."""

    location = "path"
    field = "size"


class ImageRefused(Refused):
    """The file is not an image, or is not safe to resize.

    :param reason: a sentence about the image, for the client that requested another size of it.
    """

    location = "path"
    field = "size"


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
