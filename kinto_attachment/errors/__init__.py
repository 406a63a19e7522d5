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
    │   ├── VersionRefused      the client does not speak tus, or another version of it
    │   ├── NotOffsetStream     the body of a resumable upload has another media type
    │   ├── OffsetRefused       bytes are sent for another offset than the next one
    │   ├── SendingStopped      the bytes of an upload arrive too slowly, or stop arriving
    │   ├── ChecksumMismatch    the bytes that arrived have another checksum than the client says
    │   ├── UploadFinished      bytes are sent to an upload that takes no more
    │   ├── UploadGone          the upload was not finished in time, or is damaged
    │   ├── PartsMissing        parts of a direct upload have not arrived
    │   ├── UploadRefused       the bytes of a direct upload are not acceptable, and are deleted
    │   ├── UploadBusy          another request is completing the same direct upload
    │   ├── SignatureRefused    the URL of a part is not valid, or not valid any more
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

from .failures import (
    BlobDamaged,
    BlobExists,
    BlobNotFound,
    CommandFailed,
    ForeignStorage,
    ImagingMissing,
    KeyRefused,
    NotImported,
    RemoteError,
    RemoteFailed,
    RemoteLimited,
    RemoteNotFound,
    RemoteTimeout,
    ResizeBusy,
    ResizeError,
    SettingError,
    StorageError,
    StorageUnavailable,
    SweepRefused,
    WorkerLost,
)
from .refused import (
    AttachmentMissing,
    BodyTooLarge,
    BoundaryRefused,
    ChecksumMismatch,
    ClientTooSlow,
    ContentEncoded,
    ContentRefused,
    DigestMismatch,
    EmptyBody,
    ExtensionRefused,
    FieldRefused,
    FilenameRefused,
    ImageRefused,
    JSONTooLarge,
    MalformedForm,
    MetadataForged,
    NotADigest,
    NotInBatch,
    NotMultipart,
    NotOffsetStream,
    OffsetRefused,
    PartsMissing,
    Refused,
    ReplacedMeanwhile,
    SendingStopped,
    SignatureRefused,
    SizeRefused,
    SourceReplaced,
    TooLarge,
    TooManyFiles,
    UploadBusy,
    UploadFinished,
    UploadGone,
    UploadRefused,
    VersionRefused,
)
from .root import AttachmentError

__all__ = [
    "AttachmentError",
    "AttachmentMissing",
    "BlobDamaged",
    "BlobExists",
    "BlobNotFound",
    "BodyTooLarge",
    "BoundaryRefused",
    "ChecksumMismatch",
    "ClientTooSlow",
    "CommandFailed",
    "ContentEncoded",
    "ContentRefused",
    "DigestMismatch",
    "EmptyBody",
    "ExtensionRefused",
    "FieldRefused",
    "FilenameRefused",
    "ForeignStorage",
    "ImageRefused",
    "ImagingMissing",
    "JSONTooLarge",
    "KeyRefused",
    "MalformedForm",
    "MetadataForged",
    "NotADigest",
    "NotImported",
    "NotInBatch",
    "NotMultipart",
    "NotOffsetStream",
    "OffsetRefused",
    "SendingStopped",
    "PartsMissing",
    "Refused",
    "RemoteError",
    "RemoteFailed",
    "RemoteLimited",
    "RemoteNotFound",
    "RemoteTimeout",
    "ReplacedMeanwhile",
    "ResizeBusy",
    "ResizeError",
    "SettingError",
    "SignatureRefused",
    "SizeRefused",
    "SourceReplaced",
    "StorageError",
    "StorageUnavailable",
    "SweepRefused",
    "TooLarge",
    "TooManyFiles",
    "UploadBusy",
    "UploadGone",
    "UploadFinished",
    "UploadRefused",
    "VersionRefused",
    "WorkerLost",
]
