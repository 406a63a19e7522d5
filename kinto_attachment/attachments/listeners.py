"""What happens to records happens to their files.

Kinto tells of changes by events, at the end of a request and within its transaction. They only
say what was meant: in a batch that met a conflict, earlier operations are rolled back although
their events come. So the listeners look at what is in the storage now.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from tempfile import TemporaryFile
from typing import Any, BinaryIO

from kinto.core.events import ACTIONS, ResourceChanged
from kinto.core.storage import Filter
from kinto.core.utils import COMPARISON
from kinto.events import ServerFlushed
from pyramid.config import Configurator
from pyramid.events import ApplicationCreated, ContextFound
from pyramid.request import Request

from ..errors import ReplacedMeanwhile
from ..files.blob import ATTRIBUTE, Attachment
from ..files.ref import RecordRef
from ..legacy.adoption import LEFT_BEHIND
from ..rows.deletion import Rule
from ..rows.links import Link
from ..rows.paging import PAGE, rows_of
from ..transactions.request import files_of, is_in_batch
from .attribute import check_still_linked, is_trusted_copy
from .records import attachment_of, find_key, key_in

FEW = 20
"""Records whose links are removed one by one; more are removed by the page."""


def install(config: Configurator) -> None:
    """Listen to everything that changes which records have files."""
    # After Kinto's own listeners, which delete the records of a deleted collection.
    config.add_subscriber(
        lambda event: config.registry.registerHandler(on_resource_changed, (ResourceChanged,)),
        ApplicationCreated,
    )
    config.add_subscriber(on_flush_requested, ContextFound)
    config.add_subscriber(on_server_flushed, ServerFlushed)


def on_resource_changed(event: ResourceChanged) -> None:
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
    """Let go the file of records that lost the attribute; take note of trusted copies."""
    lost, without = [], []
    for impacted in event.impacted_objects:
        new, old = impacted["new"], impacted.get("old") or {}
        attachment, before = new.get(ATTRIBUTE), old.get(ATTRIBUTE)
        ref = _ref(event, new["id"])
        if attachment is None:
            if before is not None:
                lost.append((ref, before))
            elif old:
                without.append(ref)
            continue
        if not isinstance(attachment, dict):
            continue  # from before this plugin
        if files_of(event.request).expects(ref, attachment):
            continue  # linked where it was written
        if is_trusted_copy(event.request) and attachment != before:
            _link_copy(event.request, ref, attachment)
        else:
            check_still_linked(event.request, ref, attachment)
    _release(event.request, lost)
    if without and is_in_batch(event.request):
        # There, a record may lose its file, be written, and get another one; in which order is not
        # told. What counts is how it ends.
        at_end = event.request.tm.get().addBeforeCommitHook
        at_end(_check_nothing_is_lost, (event.request, without))
    else:
        _check_nothing_is_lost(event.request, without)


def on_record_deleted(event: ResourceChanged) -> None:
    """Let go the files of deleted records. One by one, also those that had none when Kinto read
    them: an upload may have come in between. Of many, ``gc`` finds them."""
    deleted = [impacted["old"] for impacted in event.impacted_objects]
    lost = [
        (_ref(event, old["id"]), old.get(ATTRIBUTE))
        for old in deleted
        if old.get(ATTRIBUTE) is not None or len(deleted) <= FEW
    ]
    _release(event.request, lost)


def on_collection_deleted(event: ResourceChanged) -> None:
    bucket = event.payload["bucket_id"]
    for impacted in event.impacted_objects:
        _release_below(event.request, bucket, impacted["old"]["id"])


def on_bucket_deleted(event: ResourceChanged) -> None:
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
    request.bound_data["attachment.flushed"] = keys


def on_server_flushed(event: ServerFlushed) -> None:
    files = files_of(event.request)
    keys: BinaryIO = event.request.bound_data["attachment.flushed"]
    keys.seek(0)
    while lines := list(islice(keys, PAGE)):
        split = [line.decode().rstrip("\n").partition(" ") for line in lines]
        kept = [key for rule, _, key in split if rule == Rule.KEEP]
        event.request.registry.attachment_releases.add(kept, Rule.KEEP)
        gone = [(key, rule == Rule.SWEEP) for rule, _, key in split if rule != Rule.KEEP]
        files.release(gone, keep_old=False)


def _all_keys(request: Request) -> Iterator[tuple[Rule, str]]:
    registry = request.registry
    if registry.attachment_legacy.pending():
        for _ in registry.attachment_legacy.adopt():
            pass
    for link in registry.attachment_links.all():
        keep_old = registry.attachment_settings.policy_of(link.ref).keep_old_files
        yield Rule.of(link.shared, keep_old), link.key
    for release in registry.attachment_releases.all():
        for key in release.keys:
            yield release.rule, key
    for upload in registry.attachment_media.pending.all():
        yield Rule.DELETE, upload.key
    for variant in registry.attachment_variants.all():
        yield Rule.DELETE, variant.key


def _ref(event: ResourceChanged, record: str) -> RecordRef:
    return RecordRef(event.payload["bucket_id"], event.payload["collection_id"], record)


def _release_below(request: Request, bucket: str, collection: str | None = None) -> None:
    """Let go the files of all records below a collection or bucket that was deleted, even if
    it was created again in the same batch: records that are there are spared."""
    files, links = files_of(request), request.registry.attachment_links
    page: list[Link] = []
    while page := links.below(bucket, collection, page[-1] if page else None):
        # An upload that was committed after Kinto deleted the records that it saw: the record
        # is still there, and needs its bytes.
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
    """Delete those of these records whose collection is gone: Kinto leaves what is beyond
    ``storage_max_fetch_size`` where it is, for whoever makes a collection of that name again."""
    storage, gone = request.registry.storage, set()
    for bucket in {ref.bucket for ref in refs}:
        ids = {ref.collection for ref in refs if ref.bucket == bucket}
        only = [Filter("id", list(ids), COMPARISON.IN)]
        rows = storage.list_all("collection", f"/buckets/{bucket}", filters=only)
        missing = ids - {row["id"] for row in rows}
        gone |= {ref for ref in refs if ref.bucket == bucket and ref.collection in missing}
    for uri in {ref.collection_uri for ref in gone}:
        only = [Filter("id", [ref.record for ref in gone], COMPARISON.IN)]
        while storage.delete_all("record", uri, filters=only, with_deleted=False):
            pass  # not more than so many at once
    return gone


def _release_legacy(request: Request, keep_old: bool, *where: str | None) -> None:
    """Let go the files that only the existing plugin knew of, of records that are written by now.
    Only ``gc`` deletes them, as a copy that has no row may have them too."""
    legacy = request.registry.attachment_legacy
    if legacy.pending():
        gone = [found.key for found in legacy.adopt(*where) if found.kind == LEFT_BEHIND]
        files_of(request).release([(key, True) for key in gone if key], keep_old)


def _release(request: Request, lost: list[tuple[RecordRef, dict[str, Any] | None]]) -> None:
    """Let go the files of these records of one collection, those that really lost them."""
    files, links = files_of(request), request.registry.attachment_links
    for start in range(0, len(lost), PAGE):
        page = lost[start : start + PAGE]
        alive = _with_attachment(request, [ref for ref, _ in page])
        page = [(ref, before) for ref, before in page if ref not in alive]
        if not page:
            continue
        keep_old = _keeps_old(request, page[0][0])
        if len(page) > FEW:
            found = links.find([(ref, key_in(request.registry, before)) for ref, before in page])
            files.release(links.remove_links(found), keep_old)
            # The rest had another file by then than Kinto had read.
            done = {link.ref for link in found}
            page = [(ref, before) for ref, before in page if ref not in done]
        for ref, _ in page:
            files.unlink(ref, keep_old)
            _release_legacy(request, keep_old, ref.bucket, ref.collection, ref.record)


def _keeps_old(request: Request, ref: RecordRef) -> bool:
    return request.registry.attachment_settings.policy(ref.bucket, ref.collection).keep_old_files


def _with_attachment(request: Request, refs: Iterable[RecordRef]) -> set[RecordRef]:
    """Those of these records that are there, and have an attachment, now."""
    rows = rows_of(request.registry.storage.list_all, refs)
    return {ref for ref, row in rows.items() if row.get(ATTRIBUTE) is not None}


def _check_nothing_is_lost(request: Request, written: list[RecordRef]) -> None:
    """A write that read the record before its first upload, and waited for it, would take the
    attachment off without a word.

    :param written: records that had no attachment, and have none.
    :raises ReplacedMeanwhile: one of them still has a file.
    """
    links = request.registry.attachment_links
    linked = [ref for ref in written if links.of(ref)]
    alive = _with_attachment(request, linked)
    for ref in linked:
        if ref in alive:
            continue
        if links.rolls_back:
            raise ReplacedMeanwhile()
        files_of(request).unlink(ref, _keeps_old(request, ref))


def _link_copy(request: Request, ref: RecordRef, attachment: dict[str, Any]) -> None:
    """kinto-signer copied a record: its bytes now have one more reason to stay.

    :raises ReplacedMeanwhile: they had reasons, and have lost them all.
    """
    links = request.registry.attachment_links
    key = find_key(request.registry, attachment)
    if not key:
        return  # not below today's base_url: no key of ours
    others = [link for link in links.having(key) if link.ref != ref]
    for link in others:
        # Written again, and so locked: who is about to replace it waits for this copy.
        links.add(link)
    stale = [link for link in others if not link.is_of(attachment_of(request, link.ref))]
    links.remove_links(stale)
    if others and len(stale) == len(others):
        raise ReplacedMeanwhile()
    # Of a key that nobody is known to have only gc can tell whether somebody has it.
    shared = not others or any(link.shared for link in others)
    try:
        known = Attachment.from_json(attachment)
    except ValueError:
        return  # somebody else's attribute
    named = (known.filename, known.mimetype, known.size)
    copy = Link(ref, key, known.hash, shared, *named)
    files_of(request).link(copy, _keeps_old(request, ref), lambda: attachment)
