"""Kinto's model of records, for a request that writes one of them: it asks nothing in vain.

For each write of an object Kinto makes its resource two times, and a model for each. Each asks
for the timestamp of the collection, which only lists show; so does the event afterwards, when the
write has just made it. An object that is not there is looked for three times, and its permissions
are read again for an answer that no client sees. All that were 10 of 21 statements of an upload.

A resource may have another model (``default_model``), but there is no way to say so for one
request: :func:`install` makes it so, once in a process. All other requests have Kinto's own.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

from kinto.core.resource.model import Model
from kinto.core.storage.exceptions import ObjectNotFoundError, UnicityError
from kinto.views.records import Record
from pyramid.request import Request

from ..files.ref import RecordRef

_WRITE = "attachment_write"

Row = dict[str, Any]


@dataclass
class Write:
    """One write of one record, by a request whose answer is not sent.

    :param missing: the record is not there; creating it finds out whether that is still so.
    :param refuses_second: the storage raises ``UnicityError`` for an id that is there, even if
        it is not told to look.
    :ivar old: the record as it was found; None if it was not.
    :ivar new: the record as it is written; None until then, and if it is not.
    """

    ref: RecordRef
    missing: bool = False
    refuses_second: bool = False
    old: Row | None = None
    new: Row | None = None

    def is_of(self, object_id: Any, parent_id: str) -> bool:
        return (object_id, parent_id) == (self.ref.record, self.ref.collection_uri)


def write_one(request: Request, write: Write) -> None:
    """From here on that request is one that does this write."""
    setattr(request, _WRITE, write)


class RecordModel(Model):
    """For all that Kinto does for the request. There are two of them: Kinto makes the first one
    before it knows the user."""

    def __init__(self, write: Write, **kwargs: Any):
        super().__init__(**kwargs)
        self._write = write
        self._timestamp: int | None = None
        self._is_writing = False

    def timestamp(self, parent_id: str | None = None) -> int:
        if self._timestamp is None or parent_id not in (None, self.parent_id):
            return super().timestamp(parent_id)
        return self._timestamp

    def get_object(self, object_id: str, parent_id: str | None = None) -> Row:
        if not self._write.is_of(object_id, parent_id or self.parent_id):
            return super().get_object(object_id, parent_id)
        if self._write.missing:
            raise ObjectNotFoundError(object_id)
        found = super().get_object(object_id, parent_id)
        self._write.old = deepcopy(found)  # changes are made in place
        del self._write.old[self.permissions_field]
        return found

    def create_object(self, obj: Row, parent_id: str | None = None) -> Row:
        object_id, id_generator = obj.get(self.id_field), self.id_generator
        if not self._write.is_of(object_id, parent_id or self.parent_id):
            return super().create_object(obj, parent_id)
        if self._write.missing and self._write.refuses_second:
            del obj[self.id_field]  # Kinto looks for what has an id, though the INSERT does too
            self.id_generator = lambda: object_id
        try:
            return self._written(super().create_object, obj, parent_id)
        finally:
            self.id_generator = id_generator

    def update_object(self, obj: Row, parent_id: str | None = None) -> Row:
        if not self._write.is_of(obj.get(self.id_field), parent_id or self.parent_id):
            return super().update_object(obj, parent_id)
        return self._written(super().update_object, obj, parent_id)

    def _written(self, call: Callable[..., Row], obj: Row, parent_id: str | None) -> Row:
        # What the storage makes is the latest of the collection; what a client says may not be.
        is_made = self.modified_field not in obj
        if not is_made:
            super().timestamp()  # a collection has one before its first record, as Kinto has it
        self._is_writing, self._write.new = True, dict(obj)
        try:
            written = call(obj, parent_id)
        except UnicityError:
            self._write.new = None
            raise
        finally:
            self._is_writing = False
        self._write.missing = False
        if is_made:
            self._timestamp = written[self.modified_field]
        return written

    def _annotate(self, obj: Row, perm_object_id: str) -> Row:
        if not self._is_writing:
            return super()._annotate(obj, perm_object_id)
        return {**obj, self.permissions_field: {}}  # as for who may not see them


class _DefaultModel:
    """What makes the model of a resource: Kinto's class, or ours for the write of its request."""

    def __get__(self, resource: Record | None, owner: type | None = None) -> Callable[..., Model]:
        write = getattr(resource.request, _WRITE, None) if resource else None
        return partial(RecordModel, write) if write else Model


class _Timestamp:
    """Of the collection, as Kinto asks for it; but not as soon as the resource is made, if that
    is all that is done with it.

    :param ask: Kinto's own.
    """

    def __init__(self, ask: Callable[[Record], int]):
        self._ask = ask

    def __get__(self, resource: Record | None, owner: type | None = None) -> Any:
        if resource is None:
            return self
        model = resource.model
        if isinstance(model, RecordModel) and model.get_permission_object_id is None:
            return None  # its ``__init__`` is not over
        resource.timestamp = timestamp = self._ask(resource)
        return timestamp


def install() -> None:
    """Have Kinto's record resource use it where :func:`write_one` said so; again does nothing."""
    if Record.__dict__.get("default_model") is None and Record.default_model is Model:
        Record.default_model = _DefaultModel()
        Record.timestamp = _Timestamp(Record.timestamp.wrapped)
