"""What the sender of an upload wants: known before the first byte, used after the last one."""

import re
from dataclasses import asdict, dataclass
from secrets import token_hex
from typing import Any

from ..paging import Row, check_types

UPLOAD_ID = re.compile(r"[0-9a-f]{32}")
"""The id of an upload."""

HEADER_TEXT = re.compile(r"[ -~]*")
"""Text that a header may have."""


def new_upload_id() -> str:
    """Return a random id of 128 bits, in hex. Clients cannot guess those of other users."""
    return token_hex(16)


@dataclass(frozen=True)
class Intent:
    """What an upload is to become.

    :param base: the path below which it was created, without the version prefix, such as
        ``/buckets/blog/collections/articles/records/first/attachment`` or ``/media``.
    :param owner: the principal that sends it.
    :param filename: already accepted; empty where none is needed.
    :param mimetype: the media type that the sender declared; empty if none.
    :param data: further attributes of the record; None if there are none.
    :param permissions: the permissions of the record; None if the sender gave none.
    :param if_match: the value of the header; empty if there was none.
    :param if_none_match: the same.
    :param target: ``library`` or ``store``, for a base that serves both; otherwise empty.
    """

    base: str
    owner: str
    filename: str = ""
    mimetype: str = ""
    data: dict[str, Any] | None = None
    permissions: dict[str, Any] | None = None
    if_match: str = ""
    if_none_match: str = ""
    target: str = ""

    def to_row(self) -> Row:
        """Return the intent as part of a row."""
        return asdict(self)

    @classmethod
    def from_row(cls, value: Any) -> "Intent":
        """Return the intent that is part of a row.

        :raises TypeError: if it is not as :meth:`to_row` returns it.
        """
        texts = ("base", "owner", "filename", "mimetype", "if_match", "if_none_match", "target")
        if not isinstance(value, dict):
            raise TypeError("the intent is not an object")
        check_types(value, **dict.fromkeys(texts, str))
        objects = {name: value.get(name) for name in ("data", "permissions")}
        if not all(isinstance(each, dict | None) for each in objects.values()):
            raise TypeError("data or permissions is not an object")
        return cls(**{name: value[name] for name in texts}, **objects)
