"""What an operator does to the files of a whole server: each job a generator of findings.

Nothing is held while bytes move, and nothing grows with the number of files: rows are read a page
at a time, each page in a transaction of its own, and what has to be remembered is in a file.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from ..files.ref import UploadRef
from ..legacy.adoption import LegacyRows
from ..media.store import MediaStore
from ..rows.deletion import Claims, Releases
from ..rows.links import Links
from ..rows.paging import PAGE
from ..rows.uploads import PendingUploads, UnclaimedUploads
from ..rows.variants import Variants
from ..settings import Settings
from ..storage import IStorage

Item = TypeVar("Item")


@dataclass(frozen=True)
class Server:
    """The parts of a server that jobs work on.

    :param storage: where the files are.
    :param records: Kinto's storage (``registry.storage``).
    :param transaction_manager: each ``with`` is one transaction of its own.
    :param metrics: gives Kinto's metrics service.
    """

    settings: Settings
    storage: IStorage
    records: Any
    links: Links
    releases: Releases
    claims: Claims
    variants: Variants
    unclaimed: UnclaimedUploads
    media: MediaStore
    legacy: LegacyRows
    transaction_manager: Any
    metrics: Callable[[], Any]

    @classmethod
    def of(cls, registry: Any, transaction_manager: Any) -> "Server":
        """The server that was set up with this registry."""
        return cls(
            registry.attachment_settings,
            registry.attachment_storage,
            registry.storage,
            registry.attachment_links,
            registry.attachment_releases,
            registry.attachment_claims,
            registry.attachment_variants,
            registry.attachment_unclaimed,
            registry.attachment_media,
            registry.attachment_legacy,
            transaction_manager,
            lambda: registry.metrics,
        )

    @property
    def pending(self) -> PendingUploads:
        """What the media store has not verified yet."""
        return self.media.pending

    def has_upload(self, ref: UploadRef) -> bool:
        """Whether it waits for the media library."""
        return self.run(lambda: self.unclaimed.get(ref.id)) is not None

    def kept_keys(self) -> Iterator[list[str]]:
        """Pages of the keys of what has a row, but no link: what nobody has verified yet, other
        sizes of images, and what was let go. Some come twice."""
        for page in self.read(self.pending.all()):
            yield [upload.key for upload in page]
        for page in self.read(self.variants.all()):
            yield [variant.key for variant in page]
        for page in self.read(self.releases.all()):
            yield [key for release in page for key in release.keys]

    def run(self, call: Callable[[], Item]) -> Item:
        """What it returns, called in a transaction of its own."""
        with self.transaction_manager:
            return call()

    def rows(self, resource_name: str, parent: str, **options: Any) -> list[dict[str, Any]]:
        """Some of Kinto's own objects, read in a transaction of their own."""
        return self.run(lambda: self.records.list_all(resource_name, parent, **options))

    def read(self, items: Iterator[Item]) -> Iterator[list[Item]]:
        """Pages of what comes from the database, each read in a transaction of its own."""
        while page := self.run(lambda: list(islice(items, PAGE))):
            yield page
