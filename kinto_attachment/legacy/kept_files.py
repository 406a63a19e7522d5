"""What the existing plugin kept of files that were replaced or deleted (``keep_old_files``).

It left no row of them: all that tells is a name that this server's settings would give, in a
storage whose other files records have.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

from ..files.ref import RecordRef
from ..finding import Finding
from ..rows.deletion import Releases, Rule
from ..rows.links import Links
from ..rows.paging import pages
from ..settings import Settings
from ..storage import IStorage

KEPT = "kept"


class KeptFiles:
    """
    :param storage: where the files are.
    """

    def __init__(self, settings: Settings, storage: IStorage, links: Links, releases: Releases):
        self._settings = settings
        self._storage = storage
        self._links = links
        self._releases = releases

    def keeps(self, ref: RecordRef) -> bool:
        """Whether old files of its collection stay."""
        return self._settings.policy(ref.bucket, ref.collection).keep_old_files

    def is_one(self, key: str) -> bool:
        """Whether its name says that it may be one."""
        settings, makers = self._settings, self._settings.makers(key)
        of_media = any(policy in settings.apart for policy in makers)
        return not of_media and any(policy.keep_old_files for policy in makers)

    def adopt(self, page: AbstractContextManager, trial: Any = None) -> Iterator[Finding]:
        """Write down that they are kept: of all objects those that no record has. The storage is
        listed once, if anybody's old files are kept.

        :param page: each ``with`` is one transaction.
        :param trial: change nothing; what would be linked is in there.
        """
        if not any(policy.keep_old_files for policy in self._settings.policies):
            return
        for stats in pages(self._storage.list()):
            keys = [stat.key for stat in stats if self.is_one(stat.key)]
            known = trial.find(keys) if trial is not None else {}
            with page:
                linked = self._links.linked(keys)
                kept = [key for key in keys if key not in linked and key not in known]
                if trial is None:
                    self.keep(kept)
            yield from (Finding(KEPT, key, detail="in no record") for key in kept)

    def keep(self, keys: list[str]) -> None:
        """Write down, within the caller's transaction, that these are kept."""
        self._releases.add(keys, Rule.KEEP)
