"""What a form would have been answered with."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Finished:
    """A file that has its owner.

    :param status: what a form would have been answered with.
    :param url: where the file is served; empty if it has no URL yet.
    :param etag: the value of the header; empty if there is none.
    :param body: what a form would have been answered with; None for nothing.
    :param location: the value of the header of that answer; empty if it had none.
    :param modified: the value of its ``Last-Modified``; empty if it had none.
    """

    status: int
    url: str = ""
    etag: str = ""
    body: Any = None
    location: str = ""
    modified: str = ""

    def to_row(self) -> dict[str, Any]:
        """Return it as part of a row."""
        return asdict(self)

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> "Finished":
        """Return it as it was written down."""
        return cls(**{name: row.get(name) for name in cls.__annotations__})
