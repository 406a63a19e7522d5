"""Rewriting ``location`` in records after ``base_url`` has changed."""

from collections.abc import Iterator
from typing import Any

from ..files.blob import ATTRIBUTE
from ..files.key import quote_key
from ..finding import NO_PROGRESS, Finding, Progress
from ..rows.links import Link
from ..rows.paging import find_records
from ..settings.parsers import parse_url
from .server import Server


def rebase(
    server: Server,
    old: str,
    new: str,
    *,
    dry_run: bool = False,
    progress: Progress = NO_PROGRESS,
) -> Iterator[Finding]:
    """Replace ``old`` by ``new`` in every location that is ``old`` followed by a key. Yields
    ``rewritten`` for each record that is, or would be, changed.

    The records get a new timestamp, so that clients fetch them again. There are no events and no
    history entries. It can run while the server does. Idempotent.

    :param old: the old ``base_url`` as in an ini file; empty for relative locations.
    :param new: the new one.
    :param dry_run: change nothing.
    :param progress: is told of the files.
    :raises ValueError: if one of them is not a URL.
    """
    old, new = parse_url(old), parse_url(new)
    found = True
    while found:
        # Kinto writes a whole record, which it has read before. A request that changed another
        # attribute may therefore have restored an old location, so repeat until none is left.
        found = False
        progress.begin("files of records")
        for finding in _pass(server, old, new, dry_run, progress):
            found = not dry_run
            yield finding


def _pass(
    server: Server, old: str, new: str, dry_run: bool, progress: Progress
) -> Iterator[Finding]:
    for page in server.read(server.plugin.rows.links.all()):
        progress.add_files(len(page))
        rows = find_records(server.list_all, [link.ref for link in page])
        for link in page:
            changed = _rebased(rows.get(link.ref), link.key, old, new)
            if changed and (dry_run or _rewrite(server, link, old, new)):
                location = changed[ATTRIBUTE]["location"]
                yield Finding("rewritten", link.key, link.ref.uri, location)


def _rebased(record: dict[str, Any] | None, key: str, old: str, new: str) -> dict[str, Any] | None:
    """Return the record with its new location, or None if the location stays."""
    attachment = (record or {}).get(ATTRIBUTE)
    location = attachment.get("location") if isinstance(attachment, dict) else None
    if location not in (old + quote_key(key), old + key) or old == new:
        return None
    rest = {name: value for name, value in record.items() if name != "last_modified"}
    return {**rest, ATTRIBUTE: {**attachment, "location": new + quote_key(key)}}


def _rewrite(server: Server, link: Link, old: str, new: str) -> bool:
    """Rewrite the record of a link; return False if its location has changed since."""
    uri, record_id = link.ref.collection_uri, link.ref.record

    def rewrite() -> bool:
        with server.plugin.rows.locks.hold(link.ref):
            rows = find_records(server.records.list_all, [link.ref])
            changed = _rebased(rows.get(link.ref), link.key, old, new)
            if changed is None:
                return False
            server.records.update("record", uri, record_id, changed)
            # Clients that were offline still have the old location.
            server.plugin.rows.former.add(link.ref, rows[link.ref][ATTRIBUTE])
            return True

    return server.run(rewrite)
