"""Rows and files as version 8 left them, written directly into the storages."""

from hashlib import sha256
from uuid import uuid4

import transaction

from kinto_attachment.files.ref import RecordRef
from kinto_attachment.finding import Finding
from kinto_attachment.legacy import adoption
from kinto_attachment.legacy.kept_files import KeptFiles
from kinto_attachment.rows.links import Link
from kinto_attachment.settings import read_settings
from tests.support.site import Site

KEEP = {"kinto.attachment.keep_old_files": "true"}


def keeps_nothing(site: Site) -> KeptFiles:
    """Return ``KeptFiles`` that finds none, whatever the settings of the site say."""
    return KeptFiles(read_settings({"attachment.storage": "memory"}), site.storage, site.rows)


def write_row(site: Site, ref: RecordRef, key: str) -> None:
    """Write the row in which version 8 recorded a file."""
    row = {
        "location": key,
        "bucket_uri": f"/buckets/{ref.bucket}",
        "collection_uri": ref.collection_uri,
        "record_uri": ref.uri,
    }
    site.in_transaction(lambda: site.registry.storage.create("", adoption.PARENT, row))


def old_file(
    site: Site, key: str = "", base_url: str = "https://cdn.example/files/"
) -> tuple[RecordRef, str]:
    """Write a record, its file and its row as version 8 left them; return the record and the key.

    :param key: the key of the file; by default one that version 8 would have made.
    """
    ref = RecordRef(site.collection().bucket, "fonts", "r")
    key = key or f"{ref.bucket}/fonts/{uuid4()}.txt"
    content = b"an old file"
    site.put(key, content)
    attachment = {
        "filename": "a.txt",
        "hash": sha256(content).hexdigest(),
        "location": f"{base_url}{key}",
        "mimetype": "text/plain",
        "size": len(content),
    }
    record = {"id": ref.record, "attachment": attachment}
    storage = site.registry.storage
    site.in_transaction(lambda: storage.create("record", ref.collection_uri, record))
    write_row(site, ref, key)
    return ref, key


def adopt(site: Site, **options) -> list[Finding]:
    """Adopt the rows of version 8; return the findings."""
    rows = site.server.plugin.legacy
    return list(rows.adopt(transaction_manager=transaction.manager, **options))


def every_link(site: Site) -> list[Link]:
    return site.in_transaction(lambda: list(site.links.all()))
