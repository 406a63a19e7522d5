"""Rewriting ``location`` in records after ``base_url`` has changed."""

from collections.abc import Iterator

from ..files.field import value_at, with_file
from ..files.key import quote_key
from ..files.ref import FieldRef
from ..finding import NO_PROGRESS, Finding, Progress
from ..rows.links import Link
from ..rows.paging import Row, find_owners, find_records
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
        links = [link for link in page if isinstance(link.ref, FieldRef)]
        rows = find_owners(server.list_all, [link.ref for link in links])
        for link in links:
            changed = _rebased(link, rows.get(link.ref.record), old, new)
            if changed and (dry_run or _rewrite(server, link, old, new)):
                location = value_at(link.ref, changed)["location"]
                yield Finding("rewritten", link.key, link.ref.uri, location)


def _rebased(link: Link, record: Row | None, old: str, new: str) -> Row | None:
    """Return the record with the new location of a file, or None if the location stays."""
    place, key = link.ref, link.key
    attachment = value_at(place, record)
    location = attachment.get("location") if isinstance(attachment, dict) else None
    if location not in (old + quote_key(key), old + key) or old == new:
        return None
    rest = {name: value for name, value in record.items() if name != "last_modified"}
    changed = {**attachment, "location": new + quote_key(key)}
    return {**rest, place.field: with_file(record[place.field], place, changed)}


def _rewrite(server: Server, link: Link, old: str, new: str) -> bool:
    """Rewrite the record of a link; return False if its location has changed since."""
    ref = link.ref.record

    def rewrite() -> bool:
        with server.plugin.rows.locks.hold(ref):
            record = find_records(server.records.list_all, [ref]).get(ref)
            changed = _rebased(link, record, old, new)
            if changed is None:
                return False
            server.records.update("record", ref.collection_uri, ref.record, changed)
            # Clients that were offline still have the old location.
            server.plugin.rows.former.add(link.ref, value_at(link.ref, record))
            return True

    return server.run(rewrite)
