"""Errors of requests that are wrong, and changed nothing."""

from collections.abc import Iterable, Sequence

from .root import AttachmentError


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


class VersionRefused(Refused):
    """``Tus-Resumable`` is missing, or names another version than the server speaks: ``known``."""

    location = "header"
    field = "Tus-Resumable"

    def __init__(self, version: str, known: str) -> None:
        found = f"not {version[:100]!r}" if version else "which is missing"
        super().__init__(f"Tus-Resumable must be {known}, {found}.")


class NotOffsetStream(Refused):
    """The body of a resumable upload has another media type than bytes of a file: ``known``."""

    location = "header"
    field = "Content-Type"

    def __init__(self, mimetype: str, known: str) -> None:
        super().__init__(f"Content-Type must be {known}, not {mimetype[:100]!r}.")


class OffsetRefused(Refused):
    """Bytes are sent for another offset than the next one, or two clients send the same bytes.

    :param offset: the offset that the client says; None if it says none.
    :param next_offset: that of the next byte; None if it is not known.
    """

    location = "header"
    field = "Upload-Offset"

    def __init__(self, offset: int | None, next_offset: int | None = None) -> None:
        if next_offset is None:
            super().__init__("Another request has sent the bytes of this offset: ask for it again.")
        else:
            super().__init__(f"Upload-Offset must be {next_offset}, not {offset}.")


class SendingStopped(Refused):
    """Not all bytes that a client wanted to send to an upload have arrived.

    Clients of tus take a 408 or a 400 as final. After a 409, they ask how far the upload is, and go
    on.
    """

    location = "body"
    field = "body"

    def __init__(self, cause: Refused) -> None:
        super().__init__(f"{cause} Ask for the offset, and send the rest.")


class ChecksumMismatch(Refused):
    """The bytes that arrived have another checksum than the client says. They were dropped."""

    location = "header"
    field = "Upload-Checksum"

    def __init__(self, algorithm: str) -> None:
        super().__init__(f"The body has another {algorithm} checksum: send it again.")


class UploadFinished(Refused):
    """Bytes are sent to an upload that takes no more: it is finished, or joins other uploads."""

    location = "path"
    field = "upload"

    def __init__(self) -> None:
        super().__init__("This upload takes no more bytes.")


class UploadGone(Refused):
    """The upload was not finished in time, or bytes of it are lost: its sender has to begin again.

    :param reason: one sentence for the client.
    """

    location = "path"
    field = "upload"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)


class PartsMissing(Refused):
    """Parts of a direct upload have not arrived, or others than the client says.

    :param numbers: those of the parts.
    """

    field = "parts"

    def __init__(self, numbers: Sequence[int]) -> None:
        listed = ", ".join(map(str, numbers[:20])) + (", ..." if len(numbers) > 20 else "")
        super().__init__(f"These parts of the upload are not there: {listed}. Send them again.")


class UploadRefused(Refused):
    """The bytes of a direct upload are not acceptable, and are deleted. The upload has ended."""


class UploadBusy(Refused):
    """Another request is completing the same direct upload."""

    location = "path"
    field = "upload"

    def __init__(self) -> None:
        super().__init__("Another request is completing this upload: ask again.")


class SignatureRefused(Refused):
    """The URL of a part is not one that this server has signed, or has expired."""

    location = "querystring"
    field = "signature"

    def __init__(self, reason: str = "This URL is not valid: ask for the upload again.") -> None:
        super().__init__(reason)


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
