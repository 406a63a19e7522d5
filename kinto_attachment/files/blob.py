"""The values: bytes on their way in, bytes at rest, and what a record says of them."""

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any, BinaryIO

from .filename import content_disposition
from .mimetype import is_media

ATTRIBUTE = "attachment"
"""Of a record that has a file."""

CHUNK = 256 * 1024
"""Bytes a read or write. 16 KiB costs 1.7 times the CPU; larger ones only memory."""

# SHA-256, lowercase hex.
_DIGEST = re.compile(r"[0-9a-f]{64}")


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


def is_digest(text: str) -> bool:
    """Whether it is a SHA-256 in lowercase hex."""
    return _DIGEST.fullmatch(text) is not None
