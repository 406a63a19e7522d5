"""Jobs of the operator, and what they find."""

from datetime import timedelta
from uuid import uuid4

from kinto_attachment.maintenance.fsck import fsck
from kinto_attachment.maintenance.gc import collect

NOW = timedelta(0)


def findings(job) -> list[tuple[str, str, str]]:
    """Run a job; return kind, key and record of each finding."""
    return sorted((finding.kind, finding.key, finding.record) for finding in job)


def change(record, **values):
    """Change the attachment of a record by hand."""
    storage, data = record.site.registry.storage, record.data
    data["attachment"].update(values)
    record.site.in_transaction(
        lambda: storage.update("record", record.collection.uri, record.id, data)
    )


def check(site, **options):
    """Return what ``fsck`` finds."""
    return findings(fsck(site.server, **options))


def gc(site, older_than=NOW, **options):
    """Return what ``gc`` does."""
    return findings(collect(site.server, older_than, **options))


def orphan(record) -> str:
    """Return a key like those of the record, which no record has."""
    return f"{record.collection.bucket}/fonts/{uuid4()}.txt"
