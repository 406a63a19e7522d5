"""The values: bytes on their way in, bytes at rest, and what a record says of them."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any, BinaryIO
from urllib.parse import quote, unquote

from .errors import FilenameRefused
from .media_type import is_media

ATTRIBUTE = "attachment"
"""Of a record that has a file."""

CHUNK = 256 * 1024
"""Bytes a read or write. 16 KiB costs 1.7 times the CPU; larger ones only memory."""

MAX_FILENAME = 255
"""Characters of a filename, as the file systems it will be saved to have it."""

# SHA-256, lowercase hex.
_DIGEST = re.compile(r"[0-9a-f]{64}")
# Where the attachment of a record is served, in a URL.
_ATTACHMENT_URL = re.compile(
    r"(?:.*/)?v[0-9]+/buckets/([^/?#]+)/collections/([^/?#]+)/records/([^/?#]+)/attachment"
)


class Digest:
    """The SHA-256 and the length of bytes that pass by.

    :param hashed: False to leave the hash to somebody else: then there is only the length.

    >>> digest = Digest()
    >>> digest.update(b"abc")
    >>> digest.size, digest.hexdigest()[:8]
    (3, 'ba7816bf')
    """

    def __init__(self, hashed: bool = True) -> None:
        self._hash = sha256() if hashed else None
        self.size = 0

    def update(self, chunk: bytes) -> None:
        if self._hash:
            self._hash.update(chunk)
        self.size += len(chunk)

    def hexdigest(self) -> str:
        """64 characters of lowercase hex; none if it was not hashed."""
        return self._hash.hexdigest() if self._hash else ""


@dataclass(frozen=True)
class Label:
    """What an object in a storage says of itself, to those whom the storage serves it.

    :param filename: as the client named it.
    :param mimetype: our own judgement of the type.
    :param immutable: whether its key will never hold other bytes.
    :param private: whether nobody is to read it but through Kinto.
    """

    filename: str
    mimetype: str
    immutable: bool = False
    private: bool = False

    @property
    def disposition(self) -> str:
        """The ``Content-Disposition`` of the object."""
        return content_disposition(self.filename, is_media(self.mimetype))


@dataclass(frozen=True)
class Source:
    """Bytes on their way in, all of them received and spooled.

    :param file: readable and seekable; a storage reads it from its start.
    :param filename: as the client named it, already accepted.
    :param mimetype: our own judgement of the type.
    :param size: bytes.
    :param digest: SHA-256 of them, lowercase hex; empty if it is not known yet.
    :param immutable: whether the key they go to will never hold other bytes.
    :param private: whether nobody is to read them but through Kinto.
    """

    file: BinaryIO
    filename: str
    mimetype: str
    size: int
    digest: str
    immutable: bool = False
    private: bool = False

    @property
    def label(self) -> Label:
        return Label(self.filename, self.mimetype, self.immutable, self.private)

    def chunks(self) -> Iterator[bytes]:
        """All bytes from the start, :data:`CHUNK` at a time."""
        self.file.seek(0)
        while chunk := self.file.read(CHUNK):
            yield chunk

    def close(self) -> None:
        self.file.close()


@dataclass(frozen=True)
class Blob:
    """Bytes at rest: a key in a storage, with what is known about them."""

    key: str
    digest: str
    size: int
    mimetype: str


@dataclass(frozen=True)
class Attachment:
    """The value of the ``attachment`` attribute of a record.

    :param location: the storage key joined to ``base_url``; of a private one, the URL of the
        attachment below its record.
    """

    filename: str
    hash: str
    location: str
    mimetype: str
    size: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> "Attachment":
        """The attachment that such a value is, whatever else is in it.

        :raises ValueError: it is none of this plugin's, nor of the existing one's.
        """
        try:
            given = {name: kind(value[name]) for name, kind in cls.__annotations__.items()}
        except (KeyError, TypeError) as error:
            raise ValueError(f"no attachment: {error}") from error
        if not _DIGEST.fullmatch(given["hash"]) or given["size"] < 0:
            raise ValueError("no attachment: hash or size is malformed")
        return cls(**given)


@dataclass(frozen=True)
class RecordRef:
    """Which record, by the ids in its URL.

    >>> RecordRef("blog", "articles", "first").uri
    '/buckets/blog/collections/articles/records/first'
    """

    bucket: str
    collection: str
    record: str

    @property
    def path(self) -> tuple[str, str, str]:
        return (self.bucket, self.collection, self.record)

    @property
    def collection_uri(self) -> str:
        return f"/buckets/{self.bucket}/collections/{self.collection}"

    @property
    def uri(self) -> str:
        return f"{self.collection_uri}/records/{self.record}"

    @classmethod
    def attached_at(cls, location: str) -> "RecordRef | None":
        """The record whose attachment is served at that URL, if it is such a URL.

        >>> ref = RecordRef("blog", "articles", "first")
        >>> RecordRef.attached_at(f"https://kinto.example/v1{ref.uri}/attachment") == ref
        True
        >>> RecordRef.attached_at("https://cdn.example/blog/articles/a.png")
        """
        match = _ATTACHMENT_URL.fullmatch(location)
        return cls(*(unquote(part) for part in match.groups())) if match else None


@dataclass(frozen=True)
class MediaRef:
    """An entry of the media store: somebody keeps the bytes of a hash there.

    :param owner: the principal whose entry it is.
    :param digest: SHA-256, lowercase hex.

    >>> MediaRef("basicauth:ab/c", "e3b0").uri
    '/media/basicauth:ab%2Fc/e3b0'
    """

    owner: str
    digest: str

    @property
    def path(self) -> tuple[str, str, str]:
        """As that of records; but no bucket can have such an id."""
        return ("~media~", self.owner, self.digest)

    @property
    def uri(self) -> str:
        return f"/media/{quote(self.owner, safe=':')}/{self.digest}"


@dataclass(frozen=True)
class UploadRef:
    """A file that came for the media library, and that no record has yet.

    >>> UploadRef("38e4e0f8").uri
    '/uploads/38e4e0f8'
    """

    id: str

    @property
    def path(self) -> tuple[str, str, str]:
        return ("~upload~", "unclaimed", self.id)

    @property
    def uri(self) -> str:
        return f"/uploads/{self.id}"


Ref = RecordRef | MediaRef | UploadRef
"""Who has a blob."""


def read_ref(uri: str) -> Ref:
    """Whose URI it is.

    >>> read_ref("/media/basicauth:ab%2Fc/e3b0")
    MediaRef(owner='basicauth:ab/c', digest='e3b0')
    """
    _, kind, *parts = uri.split("/")
    if kind == "media":
        return MediaRef(unquote(parts[0]), parts[1])
    if kind == "uploads":
        return UploadRef(parts[0])
    return RecordRef(parts[0], parts[2], parts[4])


def is_digest(text: str) -> bool:
    """Whether it is a SHA-256 in lowercase hex."""
    return _DIGEST.fullmatch(text) is not None


def accept_filename(filename: str | None) -> str:
    """The filename of a form part, or the reason why it cannot be one.

    Any script is welcome. What could be taken for something else than the name of
    one file is not: RFC 7578, section 4.2.

    :raises FilenameRefused: empty, too long, a path, control characters.

    >>> accept_filename("façade 写真.jpg")
    'façade 写真.jpg'
    """
    filename = unicodedata.normalize("NFC", (filename or "").strip())
    if not filename:
        raise FilenameRefused("Filename is required.")
    if len(filename) > MAX_FILENAME:
        raise FilenameRefused(
            f"Filename is too long ({len(filename)} characters, {MAX_FILENAME} are allowed)."
        )
    if "/" in filename or "\\" in filename or filename in (".", ".."):
        raise FilenameRefused("Filename cannot be a path.")
    if any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in filename):
        raise FilenameRefused("Filename cannot contain control characters.")
    return filename


def extension_of(filename: str) -> str:
    """The last extension in lowercase, without its dot, ASCII letters and digits only.

    >>> extension_of("photo.JPG"), extension_of("README"), extension_of(".profile")
    ('jpg', '', '')
    """
    stem, dot, extension = filename.rpartition(".")
    if not stem.strip(".") or not re.fullmatch(r"[A-Za-z0-9]{1,16}", extension):
        return ""
    return extension.lower()


def safe_filename(filename: str) -> str:
    """A name of ASCII letters, digits, ``_``, ``-`` and ``.``, at most 100 characters.

    >>> safe_filename("mon été.PNG"), safe_filename("写真.png")
    ('mon_ete.PNG', 'file.png')
    """
    ascii_name = unicodedata.normalize("NFKD", filename).encode("ascii", "ignore").decode()
    stem, dot, extension = ascii_name.rpartition(".")
    if not dot:
        stem, extension = ascii_name, ""
    stem = re.sub(r"[^A-Za-z0-9_.-]", "", "_".join(stem.split())).strip("._")[:80]
    extension = re.sub(r"[^A-Za-z0-9]", "", extension)[:16]
    return f"{stem or 'file'}.{extension}" if extension else stem or "file"


def content_disposition(filename: str, inline: bool) -> str:
    """The value of ``Content-Disposition`` (RFC 6266).

    :param inline: whether browsers may show the file, and not only save it.

    >>> content_disposition("写真.png", inline=True)
    'inline; filename="file.png"; filename*=UTF-8\\'\\'%E5%86%99%E7%9C%9F.png'
    """
    filename = filename[:MAX_FILENAME]
    value = f'{"inline" if inline else "attachment"}; filename="{safe_filename(filename)}"'
    if safe_filename(filename) != filename:
        value += f"; filename*=UTF-8''{quote(filename, safe='', errors='replace')}"
    return value
