"""Rewriting ``location`` in records, after ``base_url`` has changed."""

from collections.abc import Iterator
from typing import Any

from kinto.core.storage import Filter
from kinto.core.utils import COMPARISON

from ..finding import Finding
from ..guard import ATTRIBUTE
from . import Server
from .records import records_of


def rebase(server: Server, old: str, new: str, *, dry_run: bool = False) -> Iterator[Finding]:
    """Let every location that begins with ``old`` begin with ``new``. The records get a new
    timestamp, so that clients fetch them; there are no events and no entries in the history.

    It may run while the server does, and again.

    :param old: empty for relative locations.
    """
    found = True
    while found:
        # Kinto writes all of a record that it read before: who changed another attribute
        # meanwhile has brought the old location back.
        found = False
        for finding in _pass(server, old, new, dry_run):
            found = not dry_run
            yield finding


def _pass(server: Server, old: str, new: str, dry_run: bool) -> Iterator[Finding]:
    for collection_uri, page in records_of(server):
        for record in page:
            changed = _rebased(record, old, new)
            if changed and (dry_run or _rewrite(server, collection_uri, record["id"], old, new)):
                uri = f"{collection_uri}/records/{record['id']}"
                yield Finding("rewritten", record=uri, detail=changed[ATTRIBUTE]["location"])


def _rebased(record: dict[str, Any], old: str, new: str) -> dict[str, Any] | None:
    """The record with its new location; None if that is not to change."""
    attachment = record.get(ATTRIBUTE)
    location = attachment.get("location") if isinstance(attachment, dict) else None
    if not isinstance(location, str) or not location.startswith(old):
        return None
    if old == "" and "://" in location:
        return None  # not relative
    if location.startswith(new) and new.startswith(old) and new != old:
        return None  # done before
    location = new + location.removeprefix(old)
    if location == attachment["location"]:
        return None
    rest = {name: value for name, value in record.items() if name != "last_modified"}
    return {**rest, ATTRIBUTE: {**attachment, "location": location}}


def _rewrite(server: Server, collection_uri: str, record_id: str, old: str, new: str) -> bool:
    """Whether it was still to be done."""

    def rewrite() -> bool:
        _lock(server, collection_uri, record_id)
        only = [Filter("id", record_id, COMPARISON.EQ)]
        rows = server.records.list_all("record", collection_uri, filters=only)
        changed = _rebased(rows[0], old, new) if rows else None
        if changed is None:
            return False
        server.records.update("record", collection_uri, record_id, changed)
        return True

    return server.run(rewrite)


def _lock(server: Server, collection_uri: str, record_id: str) -> None:
    """Let who writes the record wait for us. Kinto's storage has no word for it."""
    client = getattr(server.records, "client", None)
    if client is None:
        return
    import sqlalchemy  # as PostgreSQL is an extra of Kinto

    query = (
        "SELECT 1 FROM objects WHERE id = :id AND parent_id = :parent "
        "AND resource_name = 'record' FOR UPDATE"
    )
    with client.connect() as connection:
        connection.execute(sqlalchemy.text(query), {"id": record_id, "parent": collection_uri})
