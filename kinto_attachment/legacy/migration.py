"""The hook for ``kinto migrate``: it adopts the files of the existing plugin."""

import logging
from collections import Counter

import transaction
from kinto.core.storage.postgresql import PostgreSQLPluginMigration
from kinto.core.utils import sqlalchemy

from .adoption import LEFT_BEHIND, LegacyRows

logger = logging.getLogger(__name__)


class AttachmentMigration(PostgreSQLPluginMigration):
    """The migration that adopts the files of the existing plugin. It stores its version, so Kinto
    runs it once. The command ``kinto-attachment import`` does the same at any time.

    ::

        config.add_migration(AttachmentMigration(legacy_rows))
    """

    name = "attachment"
    # Kinto assumes version 1 for an unknown plugin, and would not migrate it to version 1.
    schema_version = 2

    def __init__(self, rows: LegacyRows):
        self._rows = rows

    def migrate_schema(self, start_version: int, dry_run: bool) -> None:
        """Adopt the files, and store the version."""
        if dry_run:
            with transaction.manager:
                exist = self._rows.exist()
            logger.info(
                "Files of kinto-attachment 0.x to 9.x that would be imported: %s.",
                "some" if exist else "none",
            )
            return
        counts: Counter[str] = Counter()
        for finding in self._rows.adopt(transaction_manager=transaction.manager):
            counts[finding.kind] += 1
            if finding.kind == LEFT_BEHIND:
                logger.warning("%s", finding)
        logger.info("Imported from kinto-attachment 0.x to 9.x: %s.", dict(counts) or "none")
        query = "INSERT INTO metadata (name, value) VALUES (:name, :version)"
        row = {"name": f"{self.name}_schema_version", "version": str(self.schema_version)}
        # There is no request here that commits at its end.
        with self.client.connect(force_commit=True) as connection:
            connection.execute(sqlalchemy.text(query), row)
