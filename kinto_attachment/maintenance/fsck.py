"""Whether records, links and objects agree: what is wrong, where, and what would mend it."""

from collections.abc import Callable, Iterator
from contextlib import closing
from hashlib import sha256
from typing import Any

from kinto.core.storage import Filter
from kinto.core.utils import COMPARISON

from ..blob import Attachment, RecordRef
from ..errors import BlobNotFound
from ..finding import Finding
from ..guard import ATTRIBUTE
from ..links import Link
from ..rows import pages
from . import Keys, Server
from .records import records_of, without_record

RESTORE = "restore it from a backup, or DELETE {record}/attachment"


def check(
    server: Server,
    *,
    deep: bool = False,
    on_bytes: Callable[[int], None] = lambda count: None,
) -> Iterator[Finding]:
    """Every link has its bytes, every record with an attachment its link, every object is known.

    It may run while the server does: what looks wrong is looked at again before it is told.

    :param deep: read all bytes, and compare their hashes.
    :param on_bytes: is told how many bytes were read.
    """
    with closing(Keys()) as objects, closing(Keys()) as known:
        for page in pages(server.storage.list()):
            objects.add((stat.key, stat.size) for stat in page)
        for page in server.read(server.releases.all()):
            known.add((key, 0) for release in page for key in release.keys)
        for page in server.read(server.links.every()):
            known.add((link.key, 0) for link in page)
            yield from _check_links(server, page, objects)
        for collection_uri, page in records_of(server):
            yield from _check_records(server, collection_uri, page, objects)
        for page in pages(objects):
            yield from _check_objects(server, [key for key, _ in page], known)
        if deep:
            for page in server.read(server.links.all()):
                for link in page:
                    yield from _check_bytes(server, link, on_bytes)


def _check_links(server: Server, links: list[Link], objects: Keys) -> Iterator[Finding]:
    there = objects.find([link.key for link in links])
    for link in links:
        if link.key not in there and not _is_stored(server, link.key) and _is_link(server, link):
            yield Finding("missing object", link.key, link.ref.uri, remedy=RESTORE)
    for link in without_record(server, links):
        if _is_link(server, link) and without_record(server, [link]):
            yield Finding(
                "link without record", link.key, link.ref.uri, remedy="kinto-attachment gc"
            )


def _is_stored(server: Server, key: str) -> bool:
    try:
        server.storage.stat(key)
    except BlobNotFound:
        return False
    return True


def _is_link(server: Server, link: Link) -> bool:
    return link in server.run(lambda: server.links.of(link.ref))


def _check_records(
    server: Server, collection_uri: str, records: list[dict[str, Any]], objects: Keys
) -> Iterator[Finding]:
    _, _, bucket, _, collection = collection_uri.split("/")
    refs = {}
    for record in records:
        try:
            attachment = Attachment.from_json(record.get(ATTRIBUTE))
        except ValueError:
            continue  # none, or none of ours
        refs[RecordRef(bucket, collection, record["id"])] = attachment
    links: dict[RecordRef, list[Link]] = {}
    if refs:
        for link in server.run(lambda: server.links.find((ref, "") for ref in refs)):
            links.setdefault(link.ref, []).append(link)
    for ref, attachment in refs.items():
        of = next((link for link in links.get(ref, ()) if link.is_of(attachment.to_json())), None)
        if of is None:
            if _lacks_link(server, ref):
                yield Finding(
                    "record without link",
                    record=ref.uri,
                    detail=attachment.location,
                    remedy="kinto-attachment import",
                )
        else:
            size = objects.find([of.key]).get(of.key, attachment.size)
            if size != attachment.size and _is_link(server, of):
                detail = f"{size} bytes, not {attachment.size}"
                yield Finding("wrong size", of.key, ref.uri, detail, RESTORE)


def _lacks_link(server: Server, ref: RecordRef) -> bool:
    """Whether it has an attachment without a link, now."""

    only = [Filter("id", ref.record, COMPARISON.EQ)]
    rows = server.rows("record", ref.collection_uri, filters=only)
    attachment = rows[0].get(ATTRIBUTE) if rows else None
    links = server.run(lambda: server.links.of(ref))
    return attachment is not None and not any(link.is_of(attachment) for link in links)


def _check_objects(server: Server, keys: list[str], known: Keys) -> Iterator[Finding]:
    has_row = known.find(keys)
    keys = [key for key in keys if key not in has_row]
    linked = server.run(lambda: server.links.linked(keys)) if keys else set()
    for key in keys:
        # Linked since, or gone since.
        if key not in linked and _is_stored(server, key):
            yield Finding("orphan object", key, remedy="kinto-attachment gc")


def _check_bytes(server: Server, link: Link, on_bytes: Callable[[int], None]) -> Iterator[Finding]:
    digest = sha256()
    try:
        chunks = server.storage.open(link.key)
    except BlobNotFound:
        return  # told, or gone since
    with closing(chunks):
        for chunk in chunks:
            digest.update(chunk)
            on_bytes(len(chunk))
    found = digest.hexdigest()
    if found != link.digest and _is_link(server, link):
        detail = f"SHA-256 is {found}, not {link.digest}"
        yield Finding("wrong bytes", link.key, link.ref.uri, detail, RESTORE)
