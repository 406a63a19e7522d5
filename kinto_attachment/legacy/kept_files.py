"""Old files that the existing plugin kept (``keep_old_files``).

That plugin recorded nothing about them. They are objects that no record names, and whose key fits
a collection that keeps old files.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from ..files.key import is_key
from ..files.ref import RecordRef
from ..finding import Finding
from ..rows import Rows
from ..rows.deletion import Rule
from ..rows.paging import pages
from ..settings import Settings
from ..storage import IStorage

KEPT = "kept"


class KeptFiles:
    """Old files that the existing plugin kept, and that are kept still.

    :param storage: the storage that has the files.
    """

    def __init__(self, settings: Settings, storage: IStorage, rows: Rows):
        self._settings = settings
        self._storage = storage
        self._rows = rows

    def keeps(self, ref: RecordRef) -> bool:
        """Return whether the collection of that record keeps old files."""
        return self._settings.policy(ref.bucket, ref.collection).keep_old_files

    def may_be_kept(self, key: str) -> bool:
        """Return whether the key fits a collection that keeps old files."""
        if not is_key(key):
            return False
        policies = self._settings.matching_policies(key)
        is_reserved = any(policy in self._settings.reserved_policies for policy in policies)
        return not is_reserved and any(policy.keep_old_files for policy in policies)

    def adopt(
        self,
        page: AbstractContextManager,
        linked: Callable[[list[str]], set[str]],
        dry_run: bool = False,
    ) -> Iterator[Finding]:
        """Write down all objects that look like kept files and that no record has, and yield
        ``kept`` for each. The storage is listed once, and only if a collection keeps old files.

        :param page: each ``with`` is one transaction.
        :param linked: returns those of the keys that a record has.
        :param dry_run: change nothing.
        """
        if not any(policy.keep_old_files for policy in self._settings.policies):
            return
        for stats in pages(self._storage.list()):
            keys = [stat.key for stat in stats if self.may_be_kept(stat.key)]
            with page:
                known = linked(keys)
                kept = [key for key in keys if key not in known]
                if not dry_run:
                    self.keep(kept)
            yield from (Finding(KEPT, key, detail="in no record") for key in kept)

    def keep(self, keys: list[str]) -> None:
        """Write down, within the caller's transaction, that these keys are kept."""
        self._rows.releases.add(keys, Rule.KEEP)
