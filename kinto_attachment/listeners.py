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
from kinto.core.storage import Filter, exceptions
from kinto.core.utils import COMPARISON
from kinto.events import ServerFlushed
from pyramid.config import Configurator
from pyramid.events import ContextFound
from pyramid.request import Request

from .blob import RecordRef
from .errors import ReplacedMeanwhile
from .guard import ATTRIBUTE, is_trusted_copy
from .links import PAGE, Link, Rule
from .transaction import files_of

FEW = 20
"""Records whose links are removed one by one; more are removed by the page."""


def install(config: Configurator) -> None:
    """Listen to everything that changes which records have files."""
    written, deleted = (ACTIONS.CREATE, ACTIONS.UPDATE), (ACTIONS.DELETE,)
    for listener, actions, resource in (
        (on_record_written, written, "record"),
        (on_record_deleted, deleted, "record"),
        (on_collection_deleted, deleted, "collection"),
        (on_bucket_deleted, deleted, "bucket"),
    ):
        config.add_subscriber(
            listener, ResourceChanged, for_actions=actions, for_resources=(resource,)
        )
    config.add_subscriber(on_flush_requested, ContextFound)
    config.add_subscriber(on_server_flushed, ServerFlushed)


def on_record_written(event: ResourceChanged) -> None:
    """Let go the file of records that lost the attribute; take note of trusted copies."""
    lost = []
    for impacted in event.impacted_objects:
        new, old = impacted["new"], impacted.get("old") or {}
        attachment, before = new.get(ATTRIBUTE), old.get(ATTRIBUTE)
        ref = _ref(event, new["id"])
        if attachment is None:
            if before is not None:
                lost.append((ref, before))
            continue
        location = attachment.get("location")
        if files_of(event.request).expects(ref, location):
            continue  # linked where it was written
        if is_trusted_copy(event.request) and attachment != before:
            _link_copy(event.request, ref, attachment)
        else:
            _check_still_linked(event.request, ref, location)
    _release(event.request, lost)


def on_record_deleted(event: ResourceChanged) -> None:
    _release(
        event.request,
        [
            (_ref(event, impacted["old"]["id"]), impacted["old"][ATTRIBUTE])
            for impacted in event.impacted_objects
            if impacted["old"].get(ATTRIBUTE) is not None
        ],
    )


def on_collection_deleted(event: ResourceChanged) -> None:
    bucket = event.payload["bucket_id"]
    for impacted in event.impacted_objects:
        collection = impacted["old"]["id"]
        if not _exists(event.request, "collection", f"/buckets/{bucket}", collection):
            _release_below(event.request, bucket, collection)


def on_bucket_deleted(event: ResourceChanged) -> None:
    for impacted in event.impacted_objects:
        bucket = impacted["old"]["id"]
        if not _exists(event.request, "bucket", "", bucket):
            _release_below(event.request, bucket)


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
    files, links = files_of(event.request), event.request.registry.attachment_links
    keys: BinaryIO = event.request.bound_data["attachment.flushed"]
    keys.seek(0)
    while lines := list(islice(keys, PAGE)):
        split = [line.decode().rstrip("\n").partition(" ") for line in lines]
        kept = [key for rule, _, key in split if rule == Rule.KEEP]
        for _ in links.release(kept, Rule.KEEP):
            pass
        # Nobody else has anything now: a key that was shared may go like any other.
        gone = [(key, False) for rule, _, key in split if rule != Rule.KEEP]
        files.release(gone, keep_old=False)


def _all_keys(request: Request) -> Iterator[tuple[Rule, str]]:
    registry = request.registry
    for link in registry.attachment_links.all():
        policy = registry.attachment_settings.policy(link.ref.bucket, link.ref.collection)
        yield Rule.KEEP if policy.keep_old_files else Rule.DELETE, link.key
    for release in registry.attachment_links.releases():
        for key in release.keys:
            yield release.rule, key


def _ref(event: ResourceChanged, record: str) -> RecordRef:
    return RecordRef(event.payload["bucket_id"], event.payload["collection_id"], record)


def _exists(request: Request, resource_name: str, parent_id: str, object_id: str) -> bool:
    try:
        request.registry.storage.get(resource_name, parent_id, object_id)
    except exceptions.ObjectNotFoundError:
        return False
    return True


def _release_below(request: Request, bucket: str, collection: str | None = None) -> None:
    files, links = files_of(request), request.registry.attachment_links
    keep_old = request.registry.attachment_settings.policy(bucket, collection or "").keep_old_files
    for removed in links.remove_below(bucket, collection):
        files.release(removed, keep_old)


def _release(request: Request, lost: list[tuple[RecordRef, dict[str, Any]]]) -> None:
    """Let go the files of these records of one collection, those that really lost them."""
    for start in range(0, len(lost), PAGE // 2):
        page = lost[start : start + PAGE // 2]
        ref = page[0][0]
        settings = request.registry.attachment_settings
        keep_old = settings.policy(ref.bucket, ref.collection).keep_old_files
        files, links = files_of(request), request.registry.attachment_links
        still = _with_attachment(request, [ref for ref, _ in page])
        page = [(ref, before) for ref, before in page if ref not in still]
        if len(page) > FEW:
            by_key = {_key(request, before): ref for ref, before in page}
            removed = links.remove_keys(ref, by_key)
            files.release(removed, keep_old)
            # Those whose file was replaced since the event's data was read.
            done = {by_key[key] for key, _ in removed}
            page = [(ref, before) for ref, before in page if ref not in done]
        for ref, _ in page:
            files.unlink(ref, keep_old)


def _with_attachment(request: Request, refs: Iterable[RecordRef]) -> set[RecordRef]:
    """Those of these records, of one collection, that have an attachment now."""
    by_id = {ref.record: ref for ref in refs}
    if not by_id:
        return set()
    records = request.registry.storage.list_all(
        "record",
        next(iter(by_id.values())).collection_uri,
        filters=[Filter("id", list(by_id), COMPARISON.IN)],
    )
    return {by_id[row["id"]] for row in records if row.get(ATTRIBUTE) is not None}


def _key(request: Request, attachment: dict[str, Any]) -> str:
    """The key in a location, as ``base_url`` is today."""
    location = str(attachment.get("location", ""))
    return location.removeprefix(request.registry.attachment_settings["base_url"])


def _link_copy(request: Request, ref: RecordRef, attachment: dict[str, Any]) -> None:
    """kinto-signer copied a record: its bytes now have one more reason to stay."""
    key = _key(request, attachment)
    links = request.registry.attachment_links
    link = Link(ref, key, str(attachment.get("hash", "")), links.is_shared(key))
    keep_old = request.registry.attachment_settings.policy(ref.bucket, ref.collection)
    files_of(request).link(link, keep_old.keep_old_files)


def _check_still_linked(request: Request, ref: RecordRef, location: str) -> None:
    """Refuse a write that was made from a copy of the record older than its present file.

    Kinto reads the record, merges, and writes all of it: a PATCH of something else that waited for
    an upload would bring back the attachment from before.
    """
    key = _key(request, {"location": location})
    keys = {link.key for link in request.registry.attachment_links.of(ref)}
    if keys and not any(location.endswith(linked) for linked in keys) and key not in keys:
        raise ReplacedMeanwhile()
