"""Marking a storage as belonging to this database, whatever it belonged to before."""

from collections.abc import Callable, Iterator

from ..errors import ForeignStorage
from ..files.key import MARKER
from ..finding import Finding
from .server import Server


def adopt_storage(
    server: Server, confirm: Callable[[str], bool], *, dry_run: bool = False
) -> Iterator[Finding]:
    """Mark the storage as belonging to this database, so that ``gc`` deletes files that this
    database does not know. Yields ``adopted``, unless the storage is already marked so.

    :param confirm: is told which database the storage belongs to; returns whether the operator
        agrees.
    :param dry_run: ask nothing and change nothing.
    :raises ForeignStorage: if the operator does not agree.
    """
    storage = server.plugin.storage
    claim = storage.claim()
    if claim.is_settled:
        return
    if not dry_run:
        needs_consent = claim.is_foreign or claim.is_gone or not claim.is_adopted
        if needs_consent and not confirm(str(claim)):
            raise ForeignStorage(f"{claim} Nothing was changed.")
        storage.adopt()
    yield Finding("adopted", MARKER, detail=str(claim))
