"""Kinto's model of records, without the SQL statements that an upload does not need.

To write one object, Kinto creates its resource twice, each time with a model of its own. Both read
the timestamp of the collection, which is needed for lists only. The event after the write reads it
again, although the write has just determined it. An object that does not exist is looked up three
times, and the permissions of a written object are read back for a response that no client sees.
These were 10 of the 21 statements of an upload.

Kinto lets a resource class choose its model (``default_model``), but not for a single request.
:func:`install` therefore replaces that attribute, once in a process. Only the requests that were
passed to :func:`write_one` get the model of this module; all others get Kinto's own.
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

from ...files.ref import RecordRef

_WRITE = "attachment_write"

Row = dict[str, Any]


@dataclass
class Write:
    """One write of one record, by a subrequest whose response is not sent to the client.

    :param ref: the record.
    :param missing: whether the record did not exist when it was read last. It is not looked up
        again: creating it fails if another request has created it since.
    :param refuses_second: whether the storage raises ``UnicityError`` for an id that exists, even
        if it was not asked to look it up first.
    :param is_undone: whether the write is undone by hand if the transaction fails.
    :ivar old: the record before the write, if it may be undone; None if it was not read.
    :ivar new: the record as it is written; None before the write, and after a write that failed
        because the id exists.
    """

    ref: RecordRef
    missing: bool = False
    refuses_second: bool = False
    is_undone: bool = False
    old: Row | None = None
    new: Row | None = None

    def is_of(self, object_id: Any, parent_id: str) -> bool:
        """Return whether the object is the record that is written."""
        return (object_id, parent_id) == (self.ref.record, self.ref.collection_uri)


def write_one(request: Request, write: Write) -> None:
    """Give the request the model of this module, for one write.

    :param request: a subrequest that has not been invoked yet.
    """
    setattr(request, _WRITE, write)


class RecordModel(Model):
    """The model of records for one request. The request has two of them, which share the write,
    because Kinto creates its resource twice."""

    def __init__(self, write: Write, **kwargs: Any):
        super().__init__(**kwargs)
        self._write = write
        self._timestamp: int | None = None
        self._is_writing = False

    def timestamp(self, parent_id: str | None = None) -> int:
        """Return the timestamp of the collection, from memory if the write has determined it."""
        if self._timestamp is None or parent_id not in (None, self.parent_id):
            return super().timestamp(parent_id)
        return self._timestamp

    def get_object(self, object_id: str, parent_id: str | None = None) -> Row:
        """Return the object; do not look up the record if it is known to be missing.

        :raises ObjectNotFoundError: if the object does not exist.
        """
        if not self._write.is_of(object_id, parent_id or self.parent_id):
            return super().get_object(object_id, parent_id)
        if self._write.missing:
            raise ObjectNotFoundError(object_id)
        found = super().get_object(object_id, parent_id)
        if not self._write.is_undone:
            return found
        self._write.old = deepcopy(found)  # Kinto changes the record in place
        del self._write.old[self.permissions_field]
        return found

    def create_object(self, obj: Row, parent_id: str | None = None) -> Row:
        """Create the object and return it; do not look for the record first if it is known to be
        missing.

        :raises UnicityError: if an object of this id exists.
        """
        object_id, id_generator = obj.get(self.id_field), self.id_generator
        if not self._write.is_of(object_id, parent_id or self.parent_id):
            return super().create_object(obj, parent_id)
        if self._write.missing and self._write.refuses_second:
            # Kinto looks up an object that is given with its id, although the INSERT would fail
            # anyway. An id from the generator is not looked up.
            del obj[self.id_field]
            self.id_generator = lambda: object_id
        try:
            return self._written(super().create_object, obj, parent_id)
        finally:
            self.id_generator = id_generator

    def update_object(self, obj: Row, parent_id: str | None = None) -> Row:
        """Store the object and return it."""
        if not self._write.is_of(obj.get(self.id_field), parent_id or self.parent_id):
            return super().update_object(obj, parent_id)
        return self._written(super().update_object, obj, parent_id)

    def _written(self, call: Callable[..., Row], obj: Row, parent_id: str | None) -> Row:
        """Store the record with one of Kinto's methods, and remember what the write determines."""
        # A date that the storage sets is the latest of the collection, and thus its timestamp. A
        # date that the client sends may be older than others.
        is_dated_by_storage = self.modified_field not in obj
        if not is_dated_by_storage:
            super().timestamp()  # as in Kinto, a collection has one before its first record
        self._is_writing, self._write.new = True, dict(obj)
        try:
            written = call(obj, parent_id)
        except UnicityError:
            self._write.new = None
            raise
        finally:
            self._is_writing = False
        self._write.missing = False
        if is_dated_by_storage:
            self._timestamp = written[self.modified_field]
        return written

    def _annotate(self, obj: Row, perm_object_id: str) -> Row:
        if not self._is_writing:
            return super()._annotate(obj, perm_object_id)
        # No client sees this response. Kinto shows no permissions to readers either.
        return {**obj, self.permissions_field: {}}


class _DefaultModel:
    """The attribute ``default_model`` of Kinto's resource. It is Kinto's model, or ours if the
    request was passed to :func:`write_one`."""

    def __get__(self, resource: Record | None, owner: type | None = None) -> Callable[..., Model]:
        write = getattr(resource.request, _WRITE, None) if resource else None
        return partial(RecordModel, write) if write else Model


class _Timestamp:
    """The attribute ``timestamp`` of Kinto's resource, read on demand.

    Kinto's ``Resource.__init__`` reads the attribute, which costs a statement. With our model, that
    first access returns None, and only a later one asks the storage.

    :param read: Kinto's own function, which takes the resource.
    """

    def __init__(self, read: Callable[[Record], int]):
        self._read = read

    def __get__(self, resource: Record | None, owner: type | None = None) -> Any:
        if resource is None:
            return self
        model = resource.model
        if isinstance(model, RecordModel) and model.get_permission_object_id is None:
            return None  # ``Resource.__init__``, which is still running, sets it at its end
        resource.timestamp = timestamp = self._read(resource)
        return timestamp


def install() -> None:
    """Let Kinto's resource of records use this module's model where :func:`write_one` asks for it.
    Idempotent."""
    if Record.__dict__.get("default_model") is None and Record.default_model is Model:
        Record.default_model = _DefaultModel()
        Record.timestamp = _Timestamp(Record.timestamp.wrapped)
