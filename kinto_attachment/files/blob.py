"""Bytes on their way in, bytes at rest, and what a record says about them."""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass
from datetime import timedelta
from hashlib import sha256
from typing import Any, BinaryIO

from .filename import content_disposition
from .mimetype import is_media

CHUNK = 256 * 1024
"""Bytes per read or write. 16 KiB costs 1.7 times the CPU; more only costs memory."""

MAX_UPLOAD_TIME = timedelta(hours=1)
"""What is younger may belong to an upload that is in progress: no upload takes longer from the last
byte that it receives to the commit of its record."""

# SHA-256, lowercase hex.
_DIGEST = re.compile(r"[0-9a-f]{64}")


def canonical_json(value: Any) -> str:
    """Return the JSON of a value, the same for values that are equal as JSON: the order of keys
    does not matter, nor whether a whole number is written as ``5`` or ``5.0``. ``1`` and ``true``
    differ.

    >>> canonical_json({"size": 5.0, "hash": "e3b0"})
    '{"hash": "e3b0", "size": 5}'
    """
    return json.dumps(_with_integers(value), sort_keys=True)


def _with_integers(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _with_integers(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_with_integers(each) for each in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


class Digest:
    """The SHA-256 and the length of a stream of bytes.

    :param hashed: False to count the bytes only, when they are hashed elsewhere.

    >>> digest = Digest()
    >>> digest.update(b"abc")
    >>> digest.size, digest.hexdigest()[:8]
    (3, 'ba7816bf')
    """

    def __init__(self, hashed: bool = True) -> None:
        self._hash = sha256() if hashed else None
        self.size = 0

    @classmethod
    def of(
        cls, chunks: Iterable[bytes], on_bytes: Callable[[int], None] = lambda count: None
    ) -> "Digest":
        """Read all chunks, as ``IStorage.open`` returns them, and close them.

        :param on_bytes: is told the length of each chunk.

        >>> digest = Digest.of(iter([b"a", b"bc"]))
        >>> digest.size, digest.hexdigest()[:8]
        (3, 'ba7816bf')
        """
        digest = cls()
        with closing(chunks) if hasattr(chunks, "close") else nullcontext():
            for chunk in chunks:
                digest.update(chunk)
                on_bytes(len(chunk))
        return digest

    def update(self, chunk: bytes) -> None:
        """Add the next bytes."""
        if self._hash:
            self._hash.update(chunk)
        self.size += len(chunk)

    def hexdigest(self) -> str:
        """Return 64 characters of lowercase hex, or an empty string if nothing was hashed."""
        return self._hash.hexdigest() if self._hash else ""


@dataclass(frozen=True)
class Label:
    """What an object in a storage tells the clients that the storage itself serves.

    :param filename: as the client named it.
    :param mimetype: our own judgement of the type.
    :param immutable: whether its key will never hold other bytes.
    :param private: whether it may be read through Kinto only.
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
    """Bytes on their way in: received completely, and spooled.

    :param file: readable and seekable; a storage reads it from its start.
    :param filename: as the client named it, already accepted.
    :param mimetype: our own judgement of the type.
    :param size: bytes.
    :param digest: SHA-256 of the bytes, lowercase hex; empty if it is not known yet.
    :param immutable: whether the key they go to will never hold other bytes.
    :param private: whether they may be read through Kinto only.
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
        """What the stored object says about itself."""
        return Label(self.filename, self.mimetype, self.immutable, self.private)

    def chunks(self) -> Iterator[bytes]:
        """Yield all bytes from the start, :data:`CHUNK` at a time."""
        self.file.seek(0)
        while chunk := self.file.read(CHUNK):
            yield chunk

    def close(self) -> None:
        """Close the file."""
        self.file.close()


@dataclass(frozen=True)
class Blob:
    """Bytes at rest: a key in a storage, and what is known about the bytes.

    :param digest: SHA-256, lowercase hex.
    :param size: bytes.
    """

    key: str
    digest: str
    size: int
    mimetype: str


@dataclass(frozen=True)
class Attachment:
    """The value of a field of a record.

    :param hash: SHA-256 of the bytes, lowercase hex.
    :param location: the storage key joined to ``base_url``; for a private file, the URL of the
        attachment below its record.
    :param size: bytes.
    """

    filename: str
    hash: str
    location: str
    mimetype: str
    size: int

    def to_json(self) -> dict[str, Any]:
        """Return the value as Kinto stores it."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> "Attachment":
        """Return the attachment that a record's value describes; further members are ignored.

        :raises ValueError: if neither this plugin nor an earlier one can have written the value.
        """
        if not isinstance(value, dict):
            raise ValueError("not an attachment: not an object")
        given = {name: value.get(name) for name in cls.__annotations__}
        for name, kind in cls.__annotations__.items():
            if type(given[name]) is not kind:
                raise ValueError(f"not an attachment: {name} is not of the type {kind.__name__}")
        if not is_digest(given["hash"]) or given["size"] < 0:
            raise ValueError("not an attachment: hash or size is malformed")
        return cls(**given)


def is_digest(text: str) -> bool:
    """Return whether the text is a SHA-256 in lowercase hex."""
    return _DIGEST.fullmatch(text) is not None
