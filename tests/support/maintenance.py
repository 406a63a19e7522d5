"""Jobs of the operator, and their findings."""

from datetime import timedelta
from uuid import uuid4

from kinto_attachment.maintenance.fsck import fsck
from kinto_attachment.maintenance.gc import collect

NOW = timedelta(0)


def findings(job) -> list[tuple[str, str, str]]:
    """Run a job; return ``(kind, key, record)`` of each finding."""
    return sorted((finding.kind, finding.key, finding.record) for finding in job)


def change(record, **values):
    """Change the attachment of a record directly in Kinto's storage."""
    row = record.row
    row[record.field].update(values)
    record.write_row(row)


def check(site, **options):
    """Run ``fsck``; return its findings."""
    return findings(fsck(site.server, **options))


def gc(site, older_than=NOW, **options):
    """Run ``gc``; return its findings."""
    return findings(collect(site.server, older_than, **options))


def orphan(record) -> str:
    """Return a key like those of the record that belongs to no record."""
    return f"{record.collection.bucket}/fonts/{uuid4()}.txt"
