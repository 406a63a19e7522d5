"""What the commands of an operator find and do, one line each."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Finding:
    """
    :param kind: what it is, in a few words that do not change: ``missing object``, ``deleted``...
    :param key: of the object that it is about, if there is one.
    :param record: the URI of the record, if there is one.
    :param detail: more, for people.
    :param remedy: what would mend it; empty for what needs no mending.

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
        return bool(self.remedy)

    def to_json(self) -> dict[str, Any]:
        """Without what is empty."""
        return {name: value for name, value in asdict(self).items() if value}

    def __str__(self) -> str:
        words = " ".join(filter(None, (self.record, self.key, self.detail)))
        return f"{self.kind}: {words}" + (f" ({self.remedy})" if self.remedy else "")
