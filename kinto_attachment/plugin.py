"""What all doors share, built once from the settings."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from pyramid.config import Configurator
from pyramid.events import ApplicationCreated
from pyramid.request import Request
from pyramid.settings import asbool

from .files.field import Fields, Files, files_of
from .files.ref import RecordRef
from .images.service import ImageService
from .legacy.adoption import LegacyRows
from .legacy.kept_files import KeptFiles
from .legacy.pyramid_storage import IFileStorage, PyramidStorage
from .metrics import Metrics
from .rows import Rows
from .settings import Settings, read_settings
from .storage import IStorage, open_storage, place_of
from .transactions.files import FileTransaction
from .transactions.ownership import OwnedStorage

logger = logging.getLogger(__name__)

VERSION = version("kinto-attachment")
URL = "https://github.com/Kinto/kinto-attachment/"
"""Where the capabilities of a server say that more is to be read."""

STORAGE_SETTINGS = ("gcloud.bucket_name", "aws.bucket_name", "base_path")
"""The settings each of which chooses a storage."""


@dataclass(frozen=True)
class Plugin:
    """The parts that every door works with: ``registry.attachment_plugin``.

    :param storage: where the bytes are.
    :param rows: what this plugin keeps in Kinto's storage.
    :param legacy: what kinto-attachment 0.x to 9.x left in Kinto's storage.
    :param is_readonly: whether Kinto refuses all writes.
    :param metrics: what the server measures.
    """

    settings: Settings
    storage: OwnedStorage
    rows: Rows
    legacy: LegacyRows
    is_readonly: bool
    metrics: Metrics

    def fields_of(self, ref: RecordRef) -> Fields:
        """Return the fields that the collection of a record declares."""
        return self.settings.policy(ref.bucket, ref.collection).fields

    def files_of(self, ref: RecordRef, record: Mapping[str, Any] | None) -> Files:
        """Return what a record says about its files. A field that is not declared any more counts,
        if it says what this plugin writes.

        :param record: None if there is none.
        """
        return files_of(ref, record, self.fields_of(ref))

    def begin(self, transaction_manager: Any) -> FileTransaction:
        """Return a data manager for the files of one transaction."""
        return FileTransaction(self.storage, self.rows, transaction_manager, self.metrics)


def plugin_of(request: Request) -> Plugin:
    """Return the plugin of the server that received the request."""
    return request.registry.attachment_plugin


def _tell_storage(settings: Settings, storage: IStorage) -> None:
    """Log where files are stored, and warn if the settings name several places."""
    place = f"{place_of(storage)} ({settings.storage} storage)"
    named = [name for name in STORAGE_SETTINGS if settings[name]]
    if settings["storage"] == "auto" and len(named) > 1:
        logger.warning(
            "Files are stored in %s, although the settings name several storages (%s). Remove those"
            " that you do not use, or set kinto.attachment.storage = %s.",
            place,
            ", ".join(named),
            settings.storage,
        )
    else:
        logger.info("Files are stored in %s.", place)


def includeme(config: Configurator) -> None:
    """Read the settings, open the storage, and set up what all doors share.

    :raises SettingError: if the settings are wrong.
    """
    registry, raw = config.registry, config.get_settings()
    settings = read_settings(raw)
    rows = Rows(registry.storage)
    storage = OwnedStorage(open_storage(settings), rows.identities)
    is_readonly = asbool(raw.get("readonly"))
    _tell_storage(settings, storage)
    kept = KeptFiles(settings, storage, rows)
    legacy = LegacyRows(rows, settings["base_url"], kept, settings)
    # Kinto's service does not exist yet.
    metrics = Metrics(lambda: getattr(registry, "metrics", None))
    breaker = getattr(storage.backend, "breaker", None)
    if breaker:
        breaker.on_event = lambda event: metrics.count("breaker", event=event)
    registry.attachment_plugin = Plugin(settings, storage, rows, legacy, is_readonly, metrics)
    registry.attachment_verifications = []  # of the doors
    registry.attachment_images = ImageService(settings, storage, rows, is_readonly, metrics)
    if hasattr(registry.storage, "client"):
        from .legacy.migration import AttachmentMigration  # PostgreSQL is an extra of Kinto

        config.add_migration(AttachmentMigration(legacy))
    registry.registerUtility(PyramidStorage(storage, settings, rows), IFileStorage)
    config.add_subscriber(lambda event: storage.warn(), ApplicationCreated)
    config.add_subscriber(lambda event: metrics.start(), ApplicationCreated)
    # kinto-attachment 0.x to 9.x used the name ``request.attachment``.
    config.add_request_method(
        lambda request: request.registry.getUtility(IFileStorage), "attachment", reify=True
    )
