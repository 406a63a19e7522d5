"""The values: bytes on their way in, bytes at rest, and how they are named."""

import re
import string
import unicodedata
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any, BinaryIO
from urllib.parse import quote
from uuid import uuid4

from .errors import FilenameRefused, KeyRefused, SettingError

CHUNK = 256 * 1024
"""Bytes a read or write. 16 KiB costs 1.7 times the CPU; larger ones only memory."""

MAX_FILENAME = 255
"""Characters of a filename, as the file systems it will be saved to have it."""

MAX_KEY = 1024
"""Bytes of a key in UTF-8, the limit of S3 and GCS."""

# What a browser shows without running anything of it.
_INLINE = re.compile(r"(audio|video)/|image/(avif|bmp|gif|jpeg|png|tiff|webp)$")
# RFC 6838 names of a media type and its subtype.
_MIMETYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}")

DEFAULT_MIMETYPE = "application/octet-stream"


class Digest:
    """The SHA-256 and the length of bytes that pass by.

    >>> digest = Digest()
    >>> digest.update(b"abc")
    >>> digest.size, digest.hexdigest()[:8]
    (3, 'ba7816bf')
    """

    def __init__(self) -> None:
        self._hash = sha256()
        self.size = 0

    def update(self, chunk: bytes) -> None:
        self._hash.update(chunk)
        self.size += len(chunk)

    def hexdigest(self) -> str:
        """64 characters of lowercase hex."""
        return self._hash.hexdigest()


@dataclass(frozen=True)
class Source:
    """Bytes on their way in, all of them received, hashed and spooled.

    :param file: readable and seekable; a storage reads it from its start.
    :param filename: as the client named it, already accepted.
    :param mimetype: our own judgement of the type.
    :param size: bytes.
    :param digest: SHA-256 of them, lowercase hex.
    :param immutable: whether the key they go to will never hold other bytes.
    """

    file: BinaryIO
    filename: str
    mimetype: str
    size: int
    digest: str
    immutable: bool = False

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

    :param location: the storage key joined to ``base_url``.
    """

    filename: str
    hash: str
    location: str
    mimetype: str
    size: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


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
    def collection_uri(self) -> str:
        return f"/buckets/{self.bucket}/collections/{self.collection}"

    @property
    def uri(self) -> str:
        return f"{self.collection_uri}/records/{self.record}"


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


def accept_mimetype(mimetype: str | None) -> str | None:
    """A media type in lowercase without parameters, or None when it is not one.

    >>> accept_mimetype("Text/Plain; charset=utf-8"), accept_mimetype("nonsense")
    ('text/plain', None)
    """
    mimetype = (mimetype or "").partition(";")[0].strip().lower()
    return mimetype if _MIMETYPE.fullmatch(mimetype) else None


def content_disposition(filename: str, mimetype: str) -> str:
    """The value of ``Content-Disposition`` for stored bytes (RFC 6266).

    ``inline`` only for what a browser can show without running it.

    >>> content_disposition("写真.png", "image/png")
    'inline; filename="file.png"; filename*=UTF-8\\'\\'%E5%86%99%E7%9C%9F.png'
    """
    disposition = "inline" if _INLINE.match(mimetype) else "attachment"
    value = f'{disposition}; filename="{safe_filename(filename)}"'
    if safe_filename(filename) != filename:
        value += f"; filename*=UTF-8''{quote(filename, safe='')}"
    return value


def check_key(key: str) -> str:
    """The same key, when it names a place below the root of a storage.

    :raises KeyRefused: empty, longer than 1024 bytes, absolute, with empty, ``.`` or
        ``..`` segments, backslashes or control characters.

    >>> check_key("blog/articles/photo.jpg")
    'blog/articles/photo.jpg'
    """
    try:
        size = len(key.encode("utf-8"))
    except UnicodeEncodeError:
        raise KeyRefused(ascii(key), "not Unicode text") from None
    if not 0 < size <= MAX_KEY:
        raise KeyRefused(key[:80], f"{size} bytes where 1 to {MAX_KEY} are allowed")
    if any(segment in ("", ".", "..") for segment in key.split("/")):
        raise KeyRefused(key, "not a relative path")
    if "\\" in key or any(ord(char) < 32 or ord(char) == 127 for char in key):
        raise KeyRefused(ascii(key), "backslash or control character")
    return key


class KeyTemplate:
    """How the keys of one bucket or collection are made.

    :param folder: a path with ``{bucket_id}`` and ``{collection_id}``.
    :param pattern: the name below it, of ``{uuid}``, ``{hash}``, ``{filename}``,
        ``{extension}`` (with its dot), ``{record_id}``, ``{bucket_id}``, ``{collection_id}``.
    :raises SettingError: for any other placeholder, or a path that leaves the root.

    >>> template = KeyTemplate("{bucket_id}", "{hash}{extension}")
    >>> next(template.keys(RecordRef("blog", "a", "b"), "x.PNG", "e3b0"))
    'blog/e3b0.png'
    """

    FOLDER = frozenset({"bucket_id", "collection_id"})
    PATTERN = FOLDER | {"record_id", "uuid", "hash", "filename", "extension"}

    def __init__(self, folder: str, pattern: str):
        folder = folder.strip("/")
        _check_template("folder", folder, self.FOLDER)
        _check_template("filename_pattern", pattern, self.PATTERN)
        if not pattern:
            raise SettingError("filename_pattern", "cannot be empty")
        if folder:
            pattern = f"{folder}/{pattern}"
        self._template = pattern
        fields = set(_placeholders(pattern))
        self.shared = "hash" in fields
        """Whether two files may have one key: only when they have the same bytes."""
        self.unique = "uuid" in fields
        """Whether no two files ever have one key."""

    def keys(self, ref: RecordRef, filename: str, digest: str) -> Iterator[str]:
        """The key wanted, then others like it (``a.jpg``, ``a-1f0c33d2.jpg``), without end,
        for when it is taken."""
        extension = extension_of(filename)
        values = {
            "bucket_id": ref.bucket,
            "collection_id": ref.collection,
            "record_id": ref.record,
            "hash": digest,
            "extension": f".{extension}" if extension else "",
            "filename": safe_filename(filename),
        }
        yield check_key(self._template.format_map({**values, "uuid": str(uuid4())}))
        while True:
            key = self._template.format_map({**values, "uuid": str(uuid4())})
            folder, slash, name = key.rpartition("/")
            stem, dot, extension = name.partition(".")
            yield check_key(f"{folder}{slash}{stem}-{uuid4().hex[:8]}{dot}{extension}")


def _placeholders(template: str) -> Iterator[str]:
    return (name for _, name, _, _ in string.Formatter().parse(template) if name is not None)


def _check_template(setting: str, template: str, known: frozenset[str]) -> None:
    try:
        unknown = sorted(set(_placeholders(template)) - known)
    except ValueError as error:
        raise SettingError(setting, f"{template!r}: {error}") from error
    if any(spec or conversion for _, _, spec, conversion in string.Formatter().parse(template)):
        # {hash:.8} would be one name for many files.
        raise SettingError(setting, f"{template!r}: placeholders take no format")
    if unknown:
        allowed = ", ".join(f"{{{name}}}" for name in sorted(known))
        raise SettingError(setting, f"unknown placeholder {{{unknown[0]}}}, use {allowed}")
    if template:
        try:
            check_key(template.format_map(dict.fromkeys(known, "x")))
        except (KeyRefused, ValueError, IndexError, AttributeError) as error:
            raise SettingError(setting, f"{template!r} is not a relative path: {error}") from error
