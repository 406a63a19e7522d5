"""The server that jobs work on."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from ..files.field import is_attachment
from ..files.ref import FieldRef, RecordRef, UploadRef
from ..media.store import MediaStore
from ..media.verification import Verification
from ..metrics import Metrics
from ..plugin import Plugin
from ..rows.paging import PAGE, Row
from ..transactions.restart import in_transaction

Item = TypeVar("Item")


@dataclass(frozen=True)
class Server:
    """A plugin with transactions of its own.

    :param verifications: what there is to verify.
    :param records: Kinto's storage (``registry.storage``).
    :param transaction_manager: each ``with`` is one transaction.
    """

    plugin: Plugin
    records: Any
    media: MediaStore
    verifications: Sequence[Verification]
    transaction_manager: Any

    @classmethod
    def of(cls, registry: Any, transaction_manager: Any) -> "Server":
        """Return the server that was set up with this registry."""
        return cls(
            registry.attachment_plugin,
            registry.storage,
            registry.attachment_media,
            registry.attachment_verifications,
            transaction_manager,
        )

    @property
    def metrics(self) -> Metrics:
        """What the server measures."""
        return self.plugin.metrics

    def has_upload(self, ref: UploadRef) -> bool:
        """Return whether the upload still waits to become an object of the library."""
        return self.run(lambda: self.plugin.rows.unclaimed.has(ref.id))

    def locations(self, records: Mapping[RecordRef, Row]) -> dict[FieldRef, str]:
        """Return what some records say about where the files of their declared fields are. Other
        attributes that look like that belong to other applications, or have links."""
        plugin = self.plugin
        return {
            place: value["location"]
            for ref, record in records.items()
            for place, value in plugin.files_of(ref, record).items()
            if place.field in plugin.fields_of(ref) and is_attachment(value)
        }

    def run(self, call: Callable[[], Item]) -> Item:
        """Return what ``call`` returns, called in a transaction of its own, and again after a
        conflict."""
        return in_transaction(self.transaction_manager, call)

    def list_all(self, resource_name: str, parent: str, **options: Any) -> list[Row]:
        """Read some of Kinto's own objects, in a transaction of its own."""
        return self.run(lambda: self.records.list_all(resource_name, parent, **options))

    def read(self, items: Iterator[Item]) -> Iterator[list[Item]]:
        """Yield pages of what an iterator reads from the database, each page in a transaction of
        its own."""
        while page := self.run(lambda: list(islice(items, PAGE))):
            yield page
