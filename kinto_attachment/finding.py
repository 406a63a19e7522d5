"""What the commands report: findings, one a line, and how far they are."""

from dataclasses import asdict, dataclass, replace
from typing import Any
from urllib.parse import unquote

PLANNED = {
    "adopted": "would adopt",
    "allowed": "would allow",
    "copied": "would copy",
    "created": "would create",
    "deleted": "would delete",
    "downloaded": "would download",
    "expired": "would expire",
    "kept": "would keep",
    "left behind": "would leave behind",
    "refused": "would be refused",
    "released": "would release",
    "removed": "would remove",
    "reordered": "would reorder",
    "rewritten": "would rewrite",
    "updated": "would update",
    "uploaded": "would upload",
}
"""What a dry run says instead of a kind that says that something was done."""


@dataclass(frozen=True)
class Finding:
    """One thing that a command has found or done.

    :param kind: what it is, such as ``missing object`` or ``deleted``. These words never change,
        because scripts compare them.
    :param key: the key of the object concerned; empty if there is none.
    :param record: the URI of the record or media entry concerned; empty if there is none.
    :param detail: further information for people.
    :param remedy: what the operator can do about it; empty if nothing is wrong.

    >>> Finding("orphan object", "blog/a.png", remedy="kinto-attachment gc").is_problem
    True
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

    def planned(self) -> "Finding":
        """Return the finding as a dry run reports it.

        >>> Finding("deleted", "blog/a.png").planned().kind
        'would delete'
        """
        return replace(self, kind=PLANNED.get(self.kind, self.kind))

    def to_json(self) -> dict[str, Any]:
        """Return the fields that are not empty."""
        return {name: value for name, value in asdict(self).items() if value}


class Progress:
    """How far a command is. This class ignores it; the command line draws a bar. Several threads
    may call the methods at the same time.

    :ivar is_shown: whether a terminal shows it. If not, a command need not count its work first.
    """

    is_shown = False

    def begin(self, what: str) -> None:
        """Report that another part of the work begins, whose files and bytes are counted anew.

        :param what: what is counted, such as ``records``.
        """

    def expect(self, files: int, size: int | None = None) -> None:
        """Report work that lies ahead, in addition to what was reported before.

        :param size: bytes of these files; None if they are not known yet.
        """

    def expect_bytes(self, files: int, size: int) -> None:
        """Report the bytes of files that were expected without them."""

    def add_bytes(self, count: int) -> None:
        """Report bytes that were transferred or read."""

    def add_files(self, files: int = 1, size: int = 0, moved: int = 0) -> None:
        """Report files that are done.

        :param size: the bytes that were expected for them.
        :param moved: the bytes that were reported with :meth:`add_bytes` for them: fewer if a file
            was skipped, more if it was sent twice.
        """


NO_PROGRESS = Progress()
"""For callers that do not want to know."""


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
        is_nested = len(uri.split("/")) > 7  # the URI of a field goes on behind that of its record
        return f"{backup}, or DELETE {uri}" + ("" if is_nested else "/attachment")
    if uri.startswith("/media/"):
        owner, _, digest = uri.removeprefix("/media/").partition("/")
        return f"{backup}, or DELETE /media/{digest} as {unquote(owner)}"
    return f"{backup}, or wait until the upload expires" if uri else backup
