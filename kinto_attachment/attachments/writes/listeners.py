"""What happens to records happens to their files.

Kinto announces changes by events, at the end of a request and within its transaction. An event only
says what was meant: when a batch runs into a conflict, its earlier operations are rolled back
although their events come. The listeners therefore look at what is in the storage now.

The steps of a deletion::

    link removed, release written -> commit -> bytes deleted -> release dropped
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial, wraps
from itertools import islice
from tempfile import TemporaryFile
from typing import Any, BinaryIO

from kinto.core.events import ACTIONS, EventCollectorDrain, ResourceChanged
from kinto.core.storage import Filter
from kinto.core.utils import COMPARISON
from kinto.events import ServerFlushed
from pyramid.config import Configurator
from pyramid.events import ApplicationCreated, ContextFound
from pyramid.request import Request

from ...errors import ReplacedMeanwhile
from ...files.field import Files
from ...files.key import is_key
from ...files.ref import FieldRef, RecordRef
from ...legacy.adoption import LEFT_BEHIND
from ...plugin import plugin_of
from ...rows.deletion import Rule
from ...rows.links import Link
from ...rows.paging import PAGE, delete_rows, find_records, find_rows, pages
from ...transactions.request import file_transaction, is_in_batch
from ...transactions.retry import check_at_end
from ..fields import has_other_fields, is_declared, links_of, policy_at, read_files
from ..records import key_in
from .copies import link_copies
from .guard import FEW, check_still_linked, is_trusted_copy, remember_deleted

Lost = list[tuple[RecordRef, Files]]
"""Records that lost files, with what they said about them when Kinto read them."""

Written = tuple[RecordRef, set[FieldRef], list[Link] | None]
"""A record, the places that had files before it was written or have them now, and its links; None
if they are still to be read."""


def install(config: Configurator) -> None:
    """Listen to everything that changes which records have files."""
    _tell_parents()
    # After Kinto's own listeners, which delete the records of a deleted collection.
    config.add_subscriber(
        lambda event: config.registry.registerHandler(on_resource_changed, (ResourceChanged,)),
        ApplicationCreated,
    )
    config.add_subscriber(on_flush_requested, ContextFound)
    config.add_subscriber(on_server_flushed, ServerFlushed)


def _tell_parents() -> None:
    """Have Kinto tell the parent of the objects of an event, for :func:`_parent_of`. Idempotent."""
    following = EventCollectorDrain.__next__
    if getattr(following, "tells_parents", False):
        return

    @wraps(following)
    def told(self: EventCollectorDrain) -> tuple:
        event = following(self)
        self.event_collector.parent_id = event[2]
        return event

    told.tells_parents = True
    EventCollectorDrain.__next__ = told


def _parent_of(event: ResourceChanged) -> tuple[str, str]:
    """Return the bucket of the impacted objects, and the collection if they are records.

    The payload may name others: when kinto-signer restores a collection from the one that it was
    published to, its events are those of the published records.
    """
    match event.request.bound_data["resource_events"].parent_id.split("/"):
        case ["", "buckets", bucket, "collections", collection]:
            return bucket, collection
        case ["", "buckets", bucket]:
            return bucket, ""
    return event.payload.get("bucket_id", ""), event.payload.get("collection_id", "")


def on_resource_changed(event: ResourceChanged) -> None:
    """Call the listener for the kind of object, and for what happened to it."""
    deleted = event.payload["action"] == ACTIONS.DELETE.value
    listener = {
        ("record", False): on_record_written,
        ("record", True): on_record_deleted,
        ("collection", True): on_collection_deleted,
        ("bucket", True): on_bucket_deleted,
    }.get((event.payload["resource_name"], deleted))
    if listener:
        listener(event)


def on_record_written(event: ResourceChanged) -> None:
    """Release the files that records lost; link trusted copies."""
    request, unsure = event.request, []
    written = [_Change.of(event, impacted) for impacted in event.impacted_objects]
    alive = _files_now(request, [change.ref for change in written if change.gone])
    for change in written:
        change.keep(alive.get(change.ref, {}))
    for change in written:
        ref, now, before = change.ref, change.now, change.before
        places = {*now, *before}
        nested = has_other_fields(request, ref, places)
        if nested and file_transaction(request).holds(ref) and not is_in_batch(request):
            # No other request has written the record since this one read it. So the cost does not
            # grow with the entries of a list.
            continue
        kept = now
        if now:
            expects = file_transaction(request).expects  # attach() links these files
            kept = {place: value for place, value in now.items() if not expects(place, value)}
        if is_trusted_copy(request):
            kept = link_copies(request, kept, before)
        links = links_of(request, ref, places) if kept else None
        check_still_linked(request, kept, links or ())
        if change.had_record and (nested or not (now or change.gone)):
            unsure.append((ref, places, None if is_in_batch(request) else links))
    _release(request, [(each.ref, each.gone) for each in written if each.gone], alive)
    if unsure and is_in_batch(request):
        # In a batch, a record may lose its file, be written, and get another one, and the events
        # do not tell the order. Only the end counts.
        check_at_end(request, partial(_check_nothing_is_lost, request, unsure))
    else:
        _check_nothing_is_lost(request, unsure)


@dataclass
class _Change:
    """One write of a record, as its event tells it.

    :param now: what the record says about its files.
    :param before: what it said when Kinto read it.
    :param gone: what it says no longer.
    :param had_record: whether there was a record before.
    """

    ref: RecordRef
    now: Files
    before: Files
    gone: Files
    had_record: bool

    @classmethod
    def of(cls, event: ResourceChanged, impacted: dict[str, Any]) -> "_Change":
        new, old = impacted["new"], impacted.get("old") or {}
        ref = _ref(event, new.get("id") or old["id"])
        now, before = (read_files(event.request, ref, record) for record in (new, old))
        gone = {place: value for place, value in before.items() if place not in now}
        return cls(ref, now, before, gone, bool(old))

    def keep(self, there: Files) -> None:
        """Take back what is not gone: with ``Response-Behavior: light`` or ``diff`` Kinto tells the
        changes only.

        :param there: what the record says after all.
        """
        for place in [place for place in self.gone if place in there]:
            self.now[place] = there[place]
            del self.gone[place]


def on_record_deleted(event: ResourceChanged) -> None:
    """Release the files of deleted records. Of a few records, also of those that had no file when
    Kinto read them: an upload may have come in between. Of many, ``gc`` finds those."""
    request, deleted = event.request, [impacted["old"] for impacted in event.impacted_objects]
    if is_trusted_copy(request):
        remember_deleted(request, *_parent_of(event), deleted)
    records = ((_ref(event, old["id"]), old) for old in deleted)
    found = [(ref, read_files(request, ref, old)) for ref, old in records]
    lost = [(ref, files) for ref, files in found if files or len(deleted) <= FEW]
    alive = _files_now(request, [ref for ref, _ in lost])
    _release(request, lost, alive, deleted=True)


def on_collection_deleted(event: ResourceChanged) -> None:
    """Release the files of all records of deleted collections."""
    bucket, _ = _parent_of(event)
    for impacted in event.impacted_objects:
        _release_below(event.request, bucket, impacted["old"]["id"])


def on_bucket_deleted(event: ResourceChanged) -> None:
    """Release the files of all records of deleted buckets."""
    for impacted in event.impacted_objects:
        _release_below(event.request, impacted["old"]["id"])


def on_flush_requested(event: ContextFound) -> None:
    """Remember all keys before ``POST /__flush__`` deletes their rows: its event comes after."""
    request = event.request
    route = request.matched_route
    if route is None or route.name != "flush" or request.method != "POST":
        return
    # A file: there may be millions. Keys have no line breaks.
    keys = TemporaryFile("w+b")
    request.add_finished_callback(lambda request: keys.close())
    for rule, key in _all_keys(request):
        keys.write(f"{rule.value} {key}\n".encode())
    plugin = plugin_of(request)
    request.bound_data["attachment.flushed"] = keys, plugin.rows.identities.get()


def on_server_flushed(event: ServerFlushed) -> None:
    """Release all keys that were remembered. The database keeps its identity: its storage is still
    its own."""
    files = file_transaction(event.request)
    keys: BinaryIO
    keys, identity = event.request.bound_data["attachment.flushed"]
    plugin_of(event.request).rows.identities.save(identity)
    keys.seek(0)
    while lines := list(islice(keys, PAGE)):
        split = [line.decode().rstrip("\n").partition(" ") for line in lines]
        kept = [key for rule, _, key in split if rule == Rule.KEEP]
        plugin_of(event.request).rows.releases.add(kept, Rule.KEEP)
        gone = [(key, rule == Rule.SWEEP) for rule, _, key in split if rule != Rule.KEEP]
        files.release(gone, keep_old=False)


def _all_keys(request: Request) -> Iterator[tuple[Rule, str]]:
    """Yield every key of the server, with what becomes of it."""
    plugin = plugin_of(request)
    if plugin.legacy.remain():
        for _ in plugin.legacy.adopt():
            pass
    for known in plugin.rows.known_keys():
        keep_old = known.link and plugin.settings.policy_of(known.link.ref).keep_old_files
        yield Rule.KEEP if keep_old else known.rule, known.key


def _ref(event: ResourceChanged, record: str) -> RecordRef:
    return RecordRef(*_parent_of(event), record)


def _release_below(request: Request, bucket: str, collection: str | None = None) -> None:
    """Release the files of all records below a deleted collection or bucket. Records that exist
    keep theirs: the collection may have been created again in the same batch."""
    rows = plugin_of(request).rows
    for number, page in enumerate(rows.links.below(bucket, collection)):
        if not number:
            rows.former.add_all(bucket, collection)
        # A record is still there if an upload was committed after Kinto deleted the records that
        # it saw.
        alive = _files_now(request, [link.ref.record for link in page])
        buried = _bury(request, {*alive})
        gone = [
            link
            for link in page
            if link.ref.record in buried or link.ref not in alive.get(link.ref.record, ())
        ]
        _unlink(request, gone)
    keep_old = _keeps_old(request, RecordRef(bucket, collection or "", ""))
    _release_legacy(request, keep_old, bucket, collection)


def _bury(request: Request, refs: set[RecordRef]) -> set[RecordRef]:
    """Delete those of these records whose collection is gone, and return them: Kinto leaves
    records beyond ``storage_max_fetch_size``, for a later collection of that name to show."""
    storage, gone = request.registry.storage, set()
    for bucket in {ref.bucket for ref in refs}:
        ids = {ref.collection for ref in refs if ref.bucket == bucket}
        list_buckets = partial(storage.list_all, "bucket", "")
        list_collections = partial(storage.list_all, "collection", f"/buckets/{bucket}")
        # Kinto may leave collections too, when it deletes their bucket.
        found = find_rows(list_collections, ids) if find_rows(list_buckets, [bucket]) else {}
        missing = ids - found.keys()
        gone |= {ref for ref in refs if ref.bucket == bucket and ref.collection in missing}
    for uri in {ref.collection_uri for ref in gone}:
        ids = [ref.record for ref in gone if ref.collection_uri == uri]
        only = Filter("id", ids, COMPARISON.IN)
        delete_rows(storage, "record", uri, only, most=len(ids))
    return gone


def _release_legacy(request: Request, keep_old: bool, *where: str | None) -> None:
    """Release the files that only the existing plugin knew, of records that are written by now.
    Only ``gc`` deletes them, because a copy of the record, which has no row, may have them too."""
    legacy = plugin_of(request).legacy
    if legacy.remain():
        gone = [found.key for found in legacy.adopt(*where) if found.kind == LEFT_BEHIND]
        keys = [(key, True) for key in gone if is_key(key)]
        file_transaction(request).release(keys, keep_old)


def _release(
    request: Request, lost: Lost, alive: dict[RecordRef, Files], *, deleted: bool = False
) -> None:
    """Release the files that these records, all of one collection, really lost.

    :param alive: what they say now.
    :param deleted: whether the records are deleted, and lost everything that they had.
    """
    for page in pages(lost):
        still_lost: Lost = []
        for ref, files in page:
            now = alive.get(ref, {})
            gone = {place: value for place, value in files.items() if place not in now}
            if gone or (deleted and not files and not now):
                still_lost.append((ref, gone))
        if len(page) > FEW:
            still_lost = _unlink_known(request, still_lost)
        for ref, files in still_lost:
            _unlink_record(request, ref, files, alive.get(ref, {}), deleted)


def _unlink_known(request: Request, lost: Lost) -> Lost:
    """Release the files of many records whose keys are known, and return the others: they had
    another file by then than Kinto had read."""
    plugin = plugin_of(request)
    pairs = [(place, key_in(plugin, value)) for _, files in lost for place, value in files.items()]
    found = plugin.rows.links.find(pairs)
    _unlink(request, found)
    done = {link.ref for link in found}
    left = (
        (ref, {p: v for p, v in files.items() if p not in done and is_declared(request, p)})
        for ref, files in lost
    )
    return [(ref, files) for ref, files in left if files]


def _unlink_record(
    request: Request, ref: RecordRef, lost: Files, alive: Files, deleted: bool
) -> None:
    """Release the files that one record lost.

    :param alive: what it says now.
    """
    nested = has_other_fields(request, ref, lost)
    if nested and (deleted or len(lost) > FEW):
        links = links_of(request, ref, lost)
        _unlink(request, [each for each in links if each.ref in lost or (deleted and not alive)])
    else:
        for place in lost or [FieldRef(ref)]:
            keep_old = policy_at(request, place).keep_old_files
            file_transaction(request).unlink(place, keep_old)
    _release_legacy(request, _keeps_old(request, ref), ref.bucket, ref.collection, ref.record)


def _unlink(request: Request, links: list[Link]) -> None:
    """Release what these links, all of one bucket, give to records."""
    for keep_old in (False, True):
        kept = [link for link in links if policy_at(request, link.ref).keep_old_files is keep_old]
        file_transaction(request).unlink_all(kept, keep_old)


def _keeps_old(request: Request, ref: RecordRef) -> bool:
    return policy_at(request, FieldRef(ref)).keep_old_files


def _files_now(request: Request, refs: Iterable[RecordRef]) -> dict[RecordRef, Files]:
    """Return what those of these records that exist and have files now say about them."""
    rows = find_records(request.registry.storage.list_all, refs)
    found = {ref: read_files(request, ref, row) for ref, row in rows.items()}
    return {ref: files for ref, files in found.items() if files}


def _check_nothing_is_lost(request: Request, written: list[Written]) -> None:
    """Handle a write that read the record before an upload and was stored after that upload, which
    has silently removed the file. Refuse the write or, if Kinto's storage cannot roll back, release
    the file.

    :raises ReplacedMeanwhile: if a record has a file in another place.
    """
    unknown = [
        link
        for ref, places, links in written
        for link in (links_of(request, ref, places) if links is None else links)
        if link.ref not in places
    ]
    alive = _files_now(request, {link.ref.record for link in unknown}) if unknown else {}
    for link in unknown:
        if link.ref in alive.get(link.ref.record, ()):
            continue
        if plugin_of(request).rows.rolls_back:
            raise ReplacedMeanwhile(field=link.ref.field)
        file_transaction(request).unlink(link.ref, policy_at(request, link.ref).keep_old_files)
