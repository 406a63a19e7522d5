"""The fields of a record: which ones its collection declares, and which files are in them."""

from collections.abc import Iterable, Mapping
from typing import Any

from pyramid.request import Request

from ..files.field import Fields, Files
from ..files.ref import FieldRef, RecordRef
from ..plugin import plugin_of
from ..rows.links import Link
from ..settings.policy import Policy


def policy_at(request: Request, place: FieldRef) -> Policy:
    """Return what the settings say about the files of a field."""
    return plugin_of(request).settings.policy_of(place)


def declared_fields(request: Request, ref: RecordRef) -> Fields:
    """Return the fields that the collection of a record declares."""
    return plugin_of(request).fields_of(ref)


def is_declared(request: Request, place: FieldRef) -> bool:
    """Return whether the collection declares the field of a file."""
    return place.field in declared_fields(request, place.record)


def read_files(request: Request, ref: RecordRef, record: Mapping[str, Any] | None) -> Files:
    """Return what a record says about its files; see :meth:`Plugin.files_of`."""
    return plugin_of(request).files_of(ref, record)


def has_other_fields(request: Request, ref: RecordRef, places: Iterable[FieldRef] = ()) -> bool:
    """Return whether a record may have files in other fields than ``attachment``. If not, a server
    makes no statement for them.

    :param places: where the record has files, or had them.
    """
    policy = plugin_of(request).settings.policy(ref.bucket, ref.collection)
    return not policy.has_default_fields or any(place.is_nested for place in places)


def links_of(request: Request, ref: RecordRef, places: Iterable[FieldRef] = ()) -> list[Link]:
    """Return the links of all files of a record.

    :param places: where the record has files, or had them.
    """
    nested = has_other_fields(request, ref, places)
    return plugin_of(request).rows.links.of_record(ref, nested)


def linked_fields(request: Request, ref: RecordRef, places: Iterable[FieldRef]) -> set[str]:
    """Return the names of the fields that have files of a record, whatever is declared now.

    :param places: where the record has files, or had them.
    """
    return {link.ref.field for link in links_of(request, ref, places)}
