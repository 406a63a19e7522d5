"""What a storage and a database say of each other: the mark, and what follows from it."""

import json
from dataclasses import dataclass

from ..rows.identity import Identity

ADOPT_STORAGE = "kinto-attachment adopt-storage"


@dataclass(frozen=True)
class Mark:
    """What is written in a storage.

    :param owner: the id of its database; empty if the mark cannot be understood.
    :param nonce: what the last ``gc`` has added; empty before the first one.
    :param is_adopted: False if the storage had files before it was marked, and no operator has
        adopted it since.
    """

    owner: str
    nonce: str = ""
    is_adopted: bool = True

    def to_json(self) -> bytes:
        """Return the content of the marker."""
        found = {"owner": self.owner, "nonce": self.nonce, "adopted": self.is_adopted}
        return json.dumps(found).encode()

    @classmethod
    def from_json(cls, content: bytes) -> "Mark":
        """Return what the content of a marker says."""
        try:
            found = json.loads(content)
            nonce, is_adopted = found.get("nonce", ""), found.get("adopted", True)
            return cls(str(found["owner"]), str(nonce), bool(is_adopted))
        except (ValueError, KeyError, TypeError, AttributeError):
            return cls("")


@dataclass(frozen=True)
class Claim:
    """What a storage and a database say of each other.

    :param own: the identity of the database.
    :param mark: the mark of the storage, or None.
    :param folder: the path of the marker in the file system of this server, or an empty string.
    :param is_empty: whether there is neither a mark nor a file.
    """

    own: Identity
    mark: Mark | None
    folder: str
    is_empty: bool

    @property
    def is_foreign(self) -> bool:
        """Whether the storage belongs to another database, which may be a copy of this one."""
        return self.mark is not None and not self.own.has_made(self.mark.owner, self.mark.nonce)

    @property
    def is_gone(self) -> bool:
        """Whether a folder was marked once, and is not any more."""
        return self.mark is None and self.folder in self.own.folders

    @property
    def is_missing(self) -> bool:
        """Whether a folder is gone, or is empty although this database has marked another one. The
        latter may be a folder that is still to be filled; nothing can be read from it."""
        is_unused = self.is_empty and bool(self.folder and self.own.folders)
        return self.is_gone or is_unused

    @property
    def is_adopted(self) -> bool:
        """Whether files that this database does not know can only be its own."""
        return self.mark.is_adopted if self.mark else self.is_empty

    @property
    def is_settled(self) -> bool:
        """Whether both know of each other, and no operator has anything to decide."""
        known = not self.folder or self.folder in self.own.folders
        return known and self.mark is not None and not self.is_foreign and self.is_adopted

    @property
    def remedy(self) -> str:
        """What an operator can do about it."""
        if self.is_missing:
            return (
                "mount its file system; run kinto-attachment adopt-storage only if the folder is "
                "to be a new storage"
            )
        return ADOPT_STORAGE

    def __str__(self) -> str:
        if self.mark and self.is_foreign:
            if self.mark.owner and self.mark.owner == self.own.owner:
                return "The file storage belongs to a copy of this database, or this is the copy."
            owner = self.mark.owner
            whose = f"the database {owner}" if owner else "an unknown database"
            this = f", and this is {self.own.owner}" if self.own.owner else ", and not to this one"
            return f"The file storage belongs to {whose}{this}."
        if self.is_gone:
            return f"{self.folder} has disappeared: is its file system mounted?"
        if self.is_missing:
            return f"{self.folder} is missing: is its file system mounted?"
        whose = "this database" if self.mark else "no database"
        if not self.is_adopted:
            return f"The file storage belongs to {whose}, and had files before it was marked."
        return f"The file storage belongs to {whose}."
