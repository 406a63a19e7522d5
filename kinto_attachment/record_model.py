"""Kinto's model of records, for a request that writes one of them: it asks nothing in vain.

For each write of an object Kinto makes its resource two times, and a model for each. Each asks
for the timestamp of the collection, which only lists show; so does the event afterwards, when the
write has just made it. An object that is not there is looked for three times, and its permissions
are read again for an answer that no client sees. All that were 10 of 21 statements of an upload.

A resource may have another model (``default_model``), but there is no way to say so for one
request: :func:`install` makes it so, once in a process. All other requests have Kinto's own.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from kinto.core.resource.model import Model
from kinto.core.storage.exceptions import ObjectNotFoundError
from kinto.views.records import Record
from pyramid.request import Request

_MAKE = "attachment_record_model"
"""On the request: what makes its models. Kinto makes the first of them before it knows the user."""


def write_one(request: Request, missing: str | None, refuses_second: bool) -> None:
    """From here on that request is one that writes one record, and whose answer is not sent.

    :param missing: the id of the record, if it is not there; creating it finds out whether that
        is still so.
    :param refuses_second: the storage raises ``UnicityError`` for an id that is there, even if
        it is not told to look.
    """
    setattr(request, _MAKE, partial(RecordModel, missing, refuses_second))


class RecordModel(Model):
    """Of the one record that a request writes, for all that Kinto does for that request."""

    def __init__(self, missing: str | None, refuses_second: bool, **kwargs: Any):
        super().__init__(**kwargs)
        self._missing = missing
        self._refuses_second = refuses_second
        self._writes = False
        self._timestamp: int | None = None

    def timestamp(self, parent_id: str | None = None) -> int:
        return self._timestamp or super().timestamp(parent_id)

    def get_object(self, object_id: str, parent_id: str | None = None) -> dict[str, Any]:
        if object_id == self._missing:
            raise ObjectNotFoundError(object_id)
        return super().get_object(object_id, parent_id)

    def create_object(self, obj: dict[str, Any], parent_id: str | None = None) -> dict[str, Any]:
        self._writes, made = True, self.modified_field not in obj
        if self._missing and self._refuses_second:
            del obj[self.id_field]  # Kinto looks for what has an id, though the INSERT does too
            self.id_generator = lambda: self._missing
        return self._written(super().create_object(obj, parent_id), made)

    def update_object(self, obj: dict[str, Any], parent_id: str | None = None) -> dict[str, Any]:
        self._writes, made = True, self.modified_field not in obj
        return self._written(super().update_object(obj, parent_id), made)

    def _written(self, obj: dict[str, Any], made: bool) -> dict[str, Any]:
        # What the storage makes is the latest of the collection; what a client says may not be.
        if made:
            self._timestamp = obj[self.modified_field]
        return obj

    def _annotate(self, obj: dict[str, Any], perm_object_id: str) -> dict[str, Any]:
        return obj if self._writes else super()._annotate(obj, perm_object_id)


def install() -> None:
    """Have Kinto's record resource use it where :func:`write_one` said so; again does nothing."""
    if Record.default_model is Model:  # another plugin's knows better what it does
        Record.default_model = property(_default_model)


def _default_model(resource: Record) -> Callable[..., Model]:
    make = getattr(resource.request, _MAKE, None)
    if make is None:
        return Model
    resource.timestamp = None  # of the collection: Kinto asks for it next, and nobody reads it
    return make
