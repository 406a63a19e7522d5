"""The output of the operator's commands: one finding a line."""

from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import unquote


@dataclass(frozen=True)
class Finding:
    """One thing that a command has found or done.

    :param kind: what it is, such as ``missing object`` or ``deleted``. These words never change,
        because scripts compare them.
    :param key: the key of the object concerned; empty if there is none.
    :param record: the URI of the record or media entry concerned; empty if there is none.
    :param detail: further information for people.
    :param remedy: what the operator can do about it; empty if nothing is wrong.

    >>> str(Finding("orphan object", "blog/a.png", remedy="kinto-attachment gc"))
    'orphan object: blog/a.png (kinto-attachment gc)'
    """

    kind: str
    key: str = ""
    record: str = ""
    detail: str = ""
    remedy: str = ""

    @property
    def is_problem(self) -> bool:
        """Whether something is wrong that the operator has to repair."""
        return bool(self.remedy)

    def to_json(self) -> dict[str, Any]:
        """Return the fields that are not empty."""
        return {name: value for name, value in asdict(self).items() if value}

    def __str__(self) -> str:
        words = " ".join(filter(None, (self.record, self.key, self.detail)))
        return f"{self.kind}: {words}" + (f" ({self.remedy})" if self.remedy else "")


def restoring(uri: str) -> str:
    """Return what the operator can do about lost or damaged bytes.

    :param uri: the URI of their owner; empty if they have none.

    >>> restoring("/buckets/a/collections/b/records/c")
    'restore it from a backup, or DELETE /buckets/a/collections/b/records/c/attachment'
    >>> restoring("/media/basicauth:ab/e3b0")
    'restore it from a backup, or DELETE /media/e3b0 as basicauth:ab'
    """
    backup = "restore it from a backup"
    if uri.startswith("/buckets/"):
        return f"{backup}, or DELETE {uri}/attachment"
    if uri.startswith("/media/"):
        owner, _, digest = uri.removeprefix("/media/").partition("/")
        return f"{backup}, or DELETE /media/{digest} as {unquote(owner)}"
    return f"{backup}, or wait until the upload expires" if uri else backup
