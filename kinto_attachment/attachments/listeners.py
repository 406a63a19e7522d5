"""What happens to records happens to their files.

Kinto announces changes by events, at the end of a request and within its transaction. An event only
says what was meant: when a batch runs into a conflict, its earlier operations are rolled back
although their events come. The listeners therefore look at what is in the storage now.

The steps of a deletion::

    link removed, release written -> commit -> bytes deleted -> release dropped
"""

from collections.abc import Iterable, Iterator
from functools import partial, wraps
from itertools import islice
from tempfile import TemporaryFile
from typing import BinaryIO

from kinto.core.events import ACTIONS, EventCollectorDrain, ResourceChanged
from kinto.core.storage import Filter
from kinto.core.utils import COMPARISON
from kinto.events import ServerFlushed
from pyramid.config import Configurator
from pyramid.events import ApplicationCreated, ContextFound
from pyramid.request import Request

from ..errors import ReplacedMeanwhile, SourceReplaced
from ..files.blob import ATTRIBUTE, Attachment
from ..files.key import is_key
from ..files.ref import RecordRef
from ..legacy.adoption import LEFT_BEHIND
from ..plugin import plugin_of
from ..rows.deletion import Rule
from ..rows.links import Link
from ..rows.paging import PAGE, delete_rows, find_records, find_rows, pages
from ..transactions.request import file_transaction, is_in_batch
from ..transactions.retry import check_at_end
from .attribute import FEW, check_still_linked, is_trusted_copy, remember, remember_deleted
from .records import attachment_of, find_key, key_in

Lost = list[tuple[RecordRef, dict | None]]
"""Records that lost their file, with the attachment that they had when Kinto read them."""


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
    """Release the files of records that lost the attribute; link trusted copies."""
    lost, without = [], []
    is_copy = is_trusted_copy(event.request)
    for impacted in event.impacted_objects:
        new, old = impacted["new"], impacted.get("old") or {}
        attachment, before = new.get(ATTRIBUTE), old.get(ATTRIBUTE)
        # With ``Response-Behavior: light`` or ``diff`` Kinto tells the changes only.
        ref = _ref(event, new.get("id") or old["id"])
        if is_copy and attachment != before:
            remember(event.request, ref, before)
        if attachment is None:
            if before is not None:
                lost.append((ref, before))
            elif old:
                without.append(ref)
            continue
        if not isinstance(attachment, dict):
            continue  # from before this plugin
        if file_transaction(event.request).expects(ref, attachment):
            continue  # attach() links it
        if is_copy and attachment != before:
            _link_copy(event.request, ref, attachment)
        else:
            check_still_linked(event.request, ref, attachment)
    _release(event.request, lost)
    if without and is_in_batch(event.request):
        # In a batch, a record may lose its file, be written, and get another one, and the events
        # do not tell the order. Only the end counts.
        check_at_end(event.request, partial(_check_nothing_is_lost, event.request, without))
    else:
        _check_nothing_is_lost(event.request, without)


def on_record_deleted(event: ResourceChanged) -> None:
    """Release the files of deleted records. Of a few records, also of those that had no file when
    Kinto read them: an upload may have come in between. Of many, ``gc`` finds those."""
    deleted = [impacted["old"] for impacted in event.impacted_objects]
    if is_trusted_copy(event.request):
        remember_deleted(event.request, *_parent_of(event), deleted)
    lost = [
        (_ref(event, old["id"]), old.get(ATTRIBUTE))
        for old in deleted
        if old.get(ATTRIBUTE) is not None or len(deleted) <= FEW
    ]
    _release(event.request, lost)


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
    files, rows = file_transaction(request), plugin_of(request).rows
    links = rows.links
    for number, page in enumerate(links.below(bucket, collection)):
        if not number:
            rows.former.add_all(bucket, collection)
        # A record is still there if an upload was committed after Kinto deleted the records that
        # it saw.
        alive = _with_attachment(request, [link.ref for link in page])
        alive -= _bury(request, alive)
        for keep_old in (False, True):
            gone = [
                link
                for link in page
                if link.ref not in alive and _keeps_old(request, link.ref) is keep_old
            ]
            files.release(links.remove_links(gone), keep_old)
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


def _release(request: Request, lost: Lost) -> None:
    """Release the files of those of these records, all of one collection, that really lost them."""
    files, plugin = file_transaction(request), plugin_of(request)
    links = plugin.rows.links
    for page in pages(lost):
        alive = _with_attachment(request, [ref for ref, _ in page])
        page = [(ref, before) for ref, before in page if ref not in alive]
        if not page:
            continue
        keep_old = _keeps_old(request, page[0][0])
        if len(page) > FEW:
            found = links.find([(ref, key_in(plugin, before)) for ref, before in page])
            files.release(links.remove_links(found), keep_old)
            # The others had another file by then than Kinto had read.
            done = {link.ref for link in found}
            page = [(ref, before) for ref, before in page if ref not in done]
        for ref, _ in page:
            files.unlink(ref, keep_old)
            _release_legacy(request, keep_old, ref.bucket, ref.collection, ref.record)


def _keeps_old(request: Request, ref: RecordRef) -> bool:
    return plugin_of(request).settings.policy(ref.bucket, ref.collection).keep_old_files


def _with_attachment(request: Request, refs: Iterable[RecordRef]) -> set[RecordRef]:
    """Return those of these records that exist and have an attachment now."""
    rows = find_records(request.registry.storage.list_all, refs)
    return {ref for ref, row in rows.items() if row.get(ATTRIBUTE) is not None}


def _check_nothing_is_lost(request: Request, written: list[RecordRef]) -> None:
    """Handle a write that read the record before its first upload and was stored after that upload,
    which has silently removed the attachment. Refuse the write or, if Kinto's storage cannot roll
    back, release the file.

    :param written: records that had no attachment, and have none.
    :raises ReplacedMeanwhile: if one of them still has a file.
    """
    rows = plugin_of(request).rows
    linked = [ref for ref in written if rows.links.of(ref)]
    alive = _with_attachment(request, linked)
    for ref in linked:
        if ref in alive:
            continue
        if rows.rolls_back:
            raise ReplacedMeanwhile()
        file_transaction(request).unlink(ref, _keeps_old(request, ref))


def _link_copy(request: Request, ref: RecordRef, attachment: dict) -> None:
    """Link a record that kinto-signer has copied, so that the bytes stay for it too.

    :raises SourceReplaced: if the bytes had owners, and have lost them all.
    """
    plugin = plugin_of(request)
    links = plugin.rows.links
    key = find_key(plugin, attachment)
    if not key:
        return  # not below today's base_url: not a key of ours
    others = [link for link in links.having(key) if link.ref != ref]
    for link in others:
        # Writing the row locks it: a request that is about to replace the file waits for this copy.
        links.add(link)
    stale = [link for link in others if not link.is_of(attachment_of(request, link.ref))]
    links.remove_links(stale)
    if others and len(stale) == len(others):
        raise SourceReplaced()
    # Of a key without a known owner, only gc can tell whether it has one.
    shared = not others or any(link.shared for link in others)
    try:
        known = Attachment.from_json(attachment)
    except ValueError:
        return  # another application's attribute
    copy = Link.of(ref, key, known, shared)
    file_transaction(request).link(copy, _keeps_old(request, ref), lambda: attachment)
