"""The fields of a record that have files, and what they say.

A field has one file, or is an ordered list of files. Its value describes them::

    {"cover": {"filename": "...", "hash": "...", ...},
     "pictures": [{"id": "5b0e...", "filename": "...", "hash": "...", ...}]}
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from uuid import uuid4

from .blob import Attachment
from .ref import ATTRIBUTE, FieldRef, RecordRef

RESERVED = frozenset(
    {
        *("data", "permissions", "id", "last_modified", "schema", "deleted"),
        *("attachments", "uploads", "links"),
    }
)
"""Names that no field can have: they mean something else in a record, a form or a URL."""

MAX_FILES = 1000
"""The most files that a list may have, whatever the settings say."""

Files = dict[FieldRef, dict[str, Any]]
"""What a record says about its files, by their places."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_ENTRY = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")


@dataclass(frozen=True)
class Field:
    """A field that a collection declares.

    :param is_list: whether it has any number of files, in an order.
    """

    name: str
    is_list: bool = False

    def __str__(self) -> str:
        return f"{self.name}[]" if self.is_list else self.name

    def new_place(self, record: RecordRef) -> FieldRef:
        """Return the place of the next file: in a list, that of a new entry."""
        return FieldRef(record, self.name, str(uuid4()) if self.is_list else "")

    @classmethod
    def parse(cls, text: str) -> "Field":
        """Return the field that an operator has declared.

        :raises ValueError: if no field can have that name.

        >>> Field.parse("cover"), Field.parse("pictures[]")
        (Field(name='cover', is_list=False), Field(name='pictures', is_list=True))
        """
        name = text.removesuffix("[]")
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{text!r} is not the name of a field: use up to 63 lowercase letters, digits and"
                " underscores, beginning with a letter; add [] for a list"
            )
        if name in RESERVED:
            reserved = ", ".join(sorted(RESERVED))
            raise ValueError(f"{text!r} is reserved, as are {reserved}: use another name")
        return cls(name, text != name)


Fields = Mapping[str, Field]
"""The fields that a collection declares, by their names."""

DEFAULT_FIELDS: Fields = MappingProxyType({ATTRIBUTE: Field(ATTRIBUTE)})
"""The fields of a collection for which no setting declares any."""


def is_entry_id(value: Any) -> bool:
    """Return whether an entry can have that id.

    >>> is_entry_id(str(uuid4())), is_entry_id("1"), is_entry_id(1)
    (True, False, False)
    """
    return isinstance(value, str) and _ENTRY.fullmatch(value) is not None


def files_of(ref: RecordRef, record: Mapping[str, Any] | None, names: Collection[str]) -> Files:
    """Return what a record says about its files.

    :param record: None if there is none.
    :param names: the declared fields, which count whatever they say. Other attributes count if
        they say what this plugin writes, because their field may have been declared before.
    """
    files: Files = {}
    for name, value in (record or {}).items():
        for entry, each in _entries(value):
            if name in names or (is_attachment(each) and is_field_name(name)):
                files[FieldRef(ref, name, entry)] = each
    return files


def is_field_name(text: str) -> bool:
    """Return whether a field can have that name.

    >>> is_field_name("pictures"), is_field_name("../x"), is_field_name("pictures[]")
    (True, False, False)
    """
    return text not in RESERVED and _NAME.fullmatch(text) is not None


def is_attachment(value: Any) -> bool:
    """Return whether this plugin can have written that value."""
    try:
        return bool(Attachment.from_json(value))
    except ValueError:
        return False


def value_at(place: FieldRef, record: Mapping[str, Any] | None) -> Any:
    """Return what a record says at a place; None if it says nothing there."""
    value = (record or {}).get(place.field)
    if isinstance(value, list) is not bool(place.entry):
        return None
    if not place.entry:
        return value
    return next((each for each in value if _is_entry(each, place.entry)), None)


def with_file(value: Any, place: FieldRef, file: dict[str, Any]) -> Any:
    """Return the value of a field once a file has its place: in the entry of that id, or in a new
    one at the end of the list.

    :param value: the value before; None for an empty list.

    >>> place = FieldRef(RecordRef("a", "b", "c"), "pictures", "2")
    >>> with_file([{"id": "1"}], place, {"id": "2"})
    [{'id': '1'}, {'id': '2'}]
    """
    if not place.entry:
        return file
    before = value or []
    after = [file if _is_entry(each, place.entry) else each for each in before]
    return after if file in after else [*after, file]


def without_entry(value: list[Any], entry: str) -> list[Any]:
    """Return a list without the entry of that id.

    >>> without_entry([{"id": "1"}, {"id": "2"}], "1")
    [{'id': '2'}]
    """
    return [each for each in value if not _is_entry(each, entry)]


def _entries(value: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the files in the value of a field, each with the id of its entry."""
    if isinstance(value, dict):
        yield "", value
    elif isinstance(value, list):
        for each in value:
            if isinstance(each, dict) and is_entry_id(each.get("id")):
                yield each["id"], each


def _is_entry(value: Any, entry: str) -> bool:
    return isinstance(value, dict) and value.get("id") == entry
