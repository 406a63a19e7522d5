"""Direct uploads: the client sends the bytes to the storage, and says when they are there.

The bytes arrive in one *part* or in several, each an object of its own. If the storage signs URLs,
the row of the upload names these objects from the start, whether or not they exist. If this server
receives the parts, each has a row as soon as it has arrived. A part that is sent again has an
object and a row of its own, because another request may be reading the first one.

``complete`` makes the *whole* of the parts: one object to which no URL leads. Its SHA-256 is that
of the file, and the object becomes the file, or is copied to the key of the file.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from secrets import token_hex
from typing import Any

from kinto.core.storage import Filter
from kinto.core.utils import COMPARISON

from ...files.blob import is_digest
from ...files.key import check_key
from ...files.ref import FieldRef, read_ref
from ..paging import (
    Row,
    UnreadableRow,
    check_types,
    delete_rows,
    keyset,
    readable,
    scan,
    unreadable,
)
from .intent import HEADER_TEXT, UPLOAD_ID, Intent, new_upload_id

DIRECT_ROWS = "attachment-direct"
DIRECT_PARENT = "/attachment-direct"
PART_ROWS = "attachment-part"
PARTS_PARENT = "/attachment-parts"


class State(str, Enum):
    """How far a direct upload is."""

    OPEN = "open"
    """The client sends the bytes."""
    VERIFYING = "verifying"
    """The client has said that all bytes are there. They are hashed, or were hashed."""
    REFUSED = "refused"
    """The bytes were not those that the client had announced, and are deleted."""
    ATTACHED = "attached"
    """The file has its owner."""


@dataclass(frozen=True)
class DirectUpload:
    """An upload whose bytes the client sends to the storage.

    :param intent: what it is to become.
    :param size: in bytes, as the client announced it.
    :param digest: the SHA-256 that the client announced, in lowercase hex; empty if none.
    :param part_size: the bytes of each part but the last one.
    :param place: the URI of the owner, if the whole may be stored under a key of that owner before
        its hash is known; otherwise empty.
    :param mimetype: the media type that the stored file is expected to have.
    :param parts: the keys to which signed URLs lead; none if this server receives the bytes.
    :param proven: whether the storage refuses other bytes than those with the announced SHA-256.
    :param secret: what this server signs its own URLs with.
    :param etags: the entity tags of the parts when the client said that they were there.
    :param whole: the key of the whole file; empty before there is any.
    :param found: the SHA-256 of the whole; empty until it is known.
    :param refusal: why it was refused: ``reason`` and ``field``; None if it was not.
    :param result: once the file is attached, what the client was answered; None before.
    :param modified: when the row was written, in milliseconds since 1970; 0 before that.
    """

    intent: Intent
    size: int
    digest: str
    part_size: int
    place: str = ""
    mimetype: str = ""
    parts: tuple[str, ...] = ()
    proven: bool = False
    state: State = State.OPEN
    etags: tuple[str, ...] = ()
    whole: str = ""
    found: str = ""
    refusal: dict[str, Any] | None = None
    result: dict[str, Any] | None = None
    modified: int = 0
    secret: str = field(default_factory=lambda: token_hex(32))
    id: str = field(default_factory=new_upload_id)

    @property
    def count(self) -> int:
        """The number of its parts."""
        return max(1, -(-self.size // self.part_size))

    def span(self, number: int) -> tuple[int, int]:
        """Return the offset and the size of a part, in bytes. The first part has the number 1."""
        offset = (number - 1) * self.part_size
        return offset, min(self.part_size, self.size - offset)

    @property
    def keys(self) -> list[str]:
        """The keys that belong to the upload, whether or not anything is stored there."""
        return list(dict.fromkeys(key for key in (*self.parts, self.whole) if key))


@dataclass(frozen=True)
class Part:
    """A part that this server has received. There are several of one number if the client has sent
    it again.

    :param upload: the id of the upload.
    :param number: that of the part, from 1 on.
    :param digest: the SHA-256 of its bytes, in lowercase hex, which is also its entity tag.
    :param modified: when the row was written, in milliseconds since 1970; 0 before that.
    """

    upload: str
    number: int
    key: str
    size: int
    digest: str
    modified: int = 0
    nonce: str = field(default_factory=lambda: token_hex(8))


class DirectUploads:
    """Direct uploads, and the parts of them that this server has received.

    :param storage: ``registry.storage``.
    """

    def __init__(self, storage: Any):
        self._storage = storage

    def save(self, upload: DirectUpload) -> DirectUpload:
        """Write the upload down, or replace what was written before. Return it with its date."""
        names = ("size", "digest", "part_size", "place", "mimetype", "proven", "secret", "whole")
        row = {name: getattr(upload, name) for name in (*names, "found", "refusal", "result")}
        row |= {"intent": upload.intent.to_row(), "state": upload.state.value}
        row |= {"parts": list(upload.parts), "etags": list(upload.etags)}
        saved = self._storage.update(DIRECT_ROWS, _parent(upload.id), upload.id, row)
        return replace(upload, modified=saved["last_modified"])

    def has(self, upload_id: str) -> bool:
        """Return whether there is a row of that upload, even one that cannot be read."""
        return bool(self._storage.list_all(DIRECT_ROWS, _parent(upload_id)))

    def get(self, upload_id: str) -> DirectUpload | None:
        """Return the upload, or None if there is none of that id."""
        if not UPLOAD_ID.fullmatch(upload_id):  # it may be anything that a client has sent
            return None
        rows = self._storage.list_all(DIRECT_ROWS, _parent(upload_id))
        return next(readable(rows, _upload), None)

    def take(self, upload: DirectUpload) -> bool:
        """Delete the row; return False if another request did. Rows of parts remain."""
        parent = _parent(upload.id)
        return bool(self._storage.delete_all(DIRECT_ROWS, parent, with_deleted=False))

    def all(self) -> Iterator[DirectUpload]:
        """Yield all of them, read a page at a time."""
        yield from readable(scan(self._storage, DIRECT_ROWS, DIRECT_PARENT), _upload)

    def verifying(self) -> Iterator[DirectUpload]:
        """Yield those whose bytes are there and not hashed yet, read a page at a time."""
        list_all = partial(self._storage.list_all, DIRECT_ROWS, f"{DIRECT_PARENT}/*")
        waiting = Filter("state", State.VERIFYING.value, COMPARISON.EQ)
        rows = (row for page in keyset(list_all, waiting) for row in page)
        yield from (each for each in readable(rows, _upload) if not each.found)

    def add_part(self, part: Part) -> None:
        """Write a part down."""
        row = {"key": part.key, "size": part.size, "digest": part.digest}
        row_id = f"{part.upload}-{part.number:05d}-{part.nonce}"
        parent = f"{PARTS_PARENT}/{part.upload}/{part.nonce}"
        self._storage.update(PART_ROWS, parent, row_id, row)

    def parts(self, upload_id: str) -> list[Part]:
        """Return the parts of an upload that have arrived, in the order of their numbers. Of one
        number, the one that was sent last comes last."""
        list_all = partial(self._storage.list_all, PART_ROWS, f"{PARTS_PARENT}/{upload_id}/*")
        found = readable((row for page in keyset(list_all) for row in page), _part)
        return sorted(found, key=lambda part: (part.number, part.modified))

    def take_parts(self, upload_id: str) -> list[Part]:
        """Delete the rows of the parts of an upload, and return what they said."""
        parts = self.parts(upload_id)
        delete_rows(self._storage, PART_ROWS, f"{PARTS_PARENT}/{upload_id}/*")
        return parts

    def all_parts(self) -> Iterator[Part]:
        """Yield the parts of all uploads, read a page at a time."""
        yield from readable(scan(self._storage, PART_ROWS, PARTS_PARENT), _part)

    def unreadable(self) -> Iterator[UnreadableRow]:
        """Yield every row that cannot be read."""
        for name, parent, read in (
            (DIRECT_ROWS, DIRECT_PARENT, _upload),
            (PART_ROWS, PARTS_PARENT, _part),
        ):
            yield from unreadable(name, scan(self._storage, name, parent), read)


def _parent(upload_id: str) -> str:
    return f"{DIRECT_PARENT}/{upload_id}"


def _upload(row: Row) -> DirectUpload:
    texts = ("digest", "place", "mimetype", "secret", "whole", "found", "state")
    check_types(row, size=int, part_size=int, proven=bool, parts=list, etags=list)
    check_types(row, **dict.fromkeys(texts, str), refusal=dict | None, result=dict | None)
    if not all(isinstance(tag, str) for tag in row["etags"]):
        raise TypeError("an entity tag is not text")
    if row["size"] < 0 or row["part_size"] < 1 or not UPLOAD_ID.fullmatch(row["id"]):
        raise ValueError("size, part_size or id is malformed")
    if not all(is_digest(row[name]) for name in ("digest", "found") if row[name]):
        raise ValueError("digest or found is malformed")
    if row["place"] and not isinstance(read_ref(row["place"]), FieldRef):
        raise ValueError("place is malformed")
    refusal, result = row["refusal"], row["result"]
    if refusal is not None:
        check_types(refusal, reason=str, field=str)
    if result is not None:
        headers = dict.fromkeys(("url", "etag", "location", "modified"), str)
        check_types(result, status=int, body=dict, **headers)
        if not all(HEADER_TEXT.fullmatch(result[name]) for name in headers):
            raise ValueError("result is malformed")
    state = State(row["state"])
    if (state is State.ATTACHED) != (result is not None):
        raise ValueError("state and result contradict each other")
    return DirectUpload(
        intent=Intent.from_row(row.get("intent")),
        size=row["size"],
        digest=row["digest"],
        part_size=row["part_size"],
        place=row["place"],
        mimetype=row["mimetype"],
        parts=tuple(check_key(key) for key in row["parts"]),
        proven=row["proven"],
        state=state,
        etags=tuple(row["etags"]),
        whole=check_key(row["whole"]) if row["whole"] else "",
        found=row["found"],
        refusal=refusal,
        result=result,
        modified=row["last_modified"],
        secret=row["secret"],
        id=row["id"],
    )


def _part(row: Row) -> Part:
    check_types(row, key=str, size=int, digest=str)
    upload, number, nonce = row["id"].split("-")
    if row["size"] < 0 or not is_digest(row["digest"]):
        raise ValueError("size or digest is malformed")
    return Part(
        upload=upload,
        number=int(number),
        key=check_key(row["key"]),
        size=row["size"],
        digest=row["digest"],
        modified=row["last_modified"],
        nonce=nonce,
    )
