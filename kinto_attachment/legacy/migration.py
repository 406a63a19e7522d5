"""What ``kinto migrate`` does for this plugin: the files of the existing one are adopted."""

import logging
from collections import Counter

import transaction
from kinto.core.storage.postgresql import PostgreSQLPluginMigration
from kinto.core.utils import sqlalchemy

from .adoption import LEFT_BEHIND, LegacyRows

logger = logging.getLogger(__name__)


class AttachmentMigration(PostgreSQLPluginMigration):
    """Kinto runs it once, as it writes down the version; ``kinto-attachment import`` at any time.

    ::

        config.add_migration(AttachmentMigration(legacy_rows))
    """

    name = "attachment"
    # Kinto takes a plugin that it has never seen for one of version 1.
    schema_version = 2

    def __init__(self, rows: LegacyRows):
        self._rows = rows

    def migrate_schema(self, start_version: int, dry_run: bool) -> None:
        if dry_run:
            with transaction.manager:
                found = self._rows.exist()
            logger.info(
                "Files of the existing plugin %s be adopted.", "would" if found else "need not"
            )
            return
        counts: Counter[str] = Counter()
        for finding in self._rows.adopt(transaction_manager=transaction.manager):
            counts[finding.kind] += 1
            if finding.kind == LEFT_BEHIND:
                logger.warning("%s", finding)
        logger.info("Files of the existing plugin: %s.", dict(counts) or "none")
        query = "INSERT INTO metadata (name, value) VALUES (:name, :version)"
        row = {"name": f"{self.name}_schema_version", "version": str(self.schema_version)}
        # Outside of a request nobody else commits.
        with self.client.connect(force_commit=True) as connection:
            connection.execute(sqlalchemy.text(query), row)
