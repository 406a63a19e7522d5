"""What a kind of collection may add to the attachments of its records.

The media library registers such rules (``registry.attachment_rules``). This door asks the rules of
a collection at six points, and knows of no library itself::

    POST {record}/attachment     declared_type -> accept -> facts
    DELETE {record}/attachment   check_removable
    every write of a record      before_write -> Kinto's process_object -> after_write
"""

from typing import Any

from pyramid.request import Request

from ..files.blob import Source
from ..files.ref import RecordRef
from ..http.forms import Received


class CollectionRules:
    """The rules of collections that add nothing; others override some of the methods."""

    def applies_to(self, ref: RecordRef) -> bool:
        """Return whether these are the rules of the record's collection."""
        return True

    def declared_type(self, received: Received) -> str | None:
        """Return the media type that a file claims to have, before our own judgement."""
        return received.declared_type

    def accept(self, source: Source, received: Received) -> Source:
        """Return the source with whatever these rules know better, or refuse it."""
        return source

    def facts(self, ref: RecordRef, source: Source, received: Received) -> dict[str, Any]:
        """Return attributes that the record gets besides its attachment."""
        return {}

    def check_removable(self, ref: RecordRef) -> None:
        """Refuse to replace or remove the file of a record that exists.

        :raises FieldRefused: if the file has to stay.
        """

    def before_write(
        self, request: Request, ref: RecordRef, new: dict[str, Any], old: dict[str, Any] | None
    ) -> Any:
        """Complete or refuse a record that is about to be written, before Kinto compares it with
        the schema.

        :param new: the record, which may be changed in place.
        :param old: as it is now; None for a new record.
        :returns: anything but None if these rules vouch for the attachment of the record; it is
            given to :meth:`after_write`. None if the attachment is checked as everywhere.
        """
        return None

    def after_write(
        self, request: Request, ref: RecordRef, prepared: Any, new: dict[str, Any]
    ) -> None:
        """Finish what :meth:`before_write` has prepared, after Kinto has accepted the record."""


_PLAIN = CollectionRules()


def rules_for(request: Request, ref: RecordRef) -> CollectionRules:
    """Return the rules of the record's collection."""
    rules = (rules for rules in request.registry.attachment_rules if rules.applies_to(ref))
    return next(rules, _PLAIN)
