"""All files of a record: ``GET`` and ``POST {record}/attachments``."""

from collections.abc import Iterable
from typing import Any

from kinto.core.authorization import DYNAMIC
from pyramid.request import Request

from ..files.field import is_attachment
from ..files.ref import FieldRef, RecordRef
from ..http.forms import FileField, Received
from .api import FILES
from .context import RecordContext
from .fields import declared_fields, linked_fields, policy_at, read_files
from .rules import rules_for
from .upload import file_field, receive
from .views import attach_form, describe_reading, service

files = service("attachments", FILES)


@files.get(permission=DYNAMIC)
def read(request: Request) -> dict[str, Any]:
    """Return what the record says in each field that has files."""
    context: RecordContext = request.context
    record = context.find_record()
    found = read_files(request, context.ref, record)
    shown = {place: value for place, value in found.items() if is_attachment(value)}
    names = {*declared_fields(request, context.ref)}
    if any(place.field not in names for place in shown):
        names |= linked_fields(request, context.ref, shown)
    shown = {place: value for place, value in shown.items() if place.field in names}
    describe_reading(request, context, record)
    return _by_field(shown.items())


@files.post(permission=DYNAMIC)
def upload(request: Request) -> dict[str, Any]:
    """Attach all files of a multipart form to the record, or none of them. Each file has the name
    of its field; the optional fields ``data`` and ``permissions`` are JSON objects for the record.

    Return the fields that were written, a list with its new entries only.
    """
    context: RecordContext = request.context
    context.check_preconditions()
    if context.current_object is not None:
        rules_for(request, context.ref).check_removable(context.ref)
    form = receive(
        request,
        context,
        _parts(request, context.ref),
        lambda received: _place_of(request, context.ref, received),
        several=True,
    )
    attach_form(request, context, form)
    return _by_field((stored.place, stored.value) for stored in form.files)


def _by_field(files: Iterable[tuple[FieldRef, Any]]) -> dict[str, Any]:
    """Return what a record says about files, by the names of their fields."""
    values: dict[str, Any] = {}
    for place, value in files:
        if place.entry:
            values.setdefault(place.field, []).append(value)
        else:
            values[place.field] = value
    return values


def _parts(request: Request, ref: RecordRef) -> dict[str, FileField]:
    """Return the fields that a form may have, by the names of their parts. Forms of PHP and Rails
    call a list ``pictures[]``."""
    parts = {}
    for declared in declared_fields(request, ref).values():
        policy = policy_at(request, FieldRef(ref, declared.name))
        accepted = file_field(declared.name, policy, policy.max_files if declared.is_list else 1)
        parts[declared.name] = parts[str(declared)] = accepted
    return parts


def _place_of(request: Request, ref: RecordRef, received: Received) -> FieldRef:
    """Return the place of a file that was received."""
    return declared_fields(request, ref)[received.field.name].new_place(ref)
