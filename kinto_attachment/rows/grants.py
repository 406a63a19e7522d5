"""The principals that ``library init`` has granted a permission to write or create.

The name of the library's bucket is public, so a stranger may have made the bucket, or may make it
again after it was deleted. Only principals that an operator has named are to be trusted.
"""

from collections.abc import Iterable
from typing import Any

from kinto.core.storage.exceptions import ObjectNotFoundError

GRANT_ROWS = "attachment-grant"
GRANTS_PARENT = "/attachment-grants"


class Grants:
    """Principals that an operator trusts, for each library. Every method works within the caller's
    transaction.

    :param storage: ``registry.storage``.
    """

    def __init__(self, storage: Any):
        self._storage = storage

    def of(self, library: str) -> tuple[set[str], set[str]]:
        """Return the principals that may write, and those that may create.

        :param library: the URI of the library's collection.
        """
        try:
            row = self._storage.get(GRANT_ROWS, f"{GRANTS_PARENT}{library}", "library")
        except ObjectNotFoundError:
            return set(), set()
        return set(row["editors"]), set(row["authors"])

    def save(self, library: str, editors: Iterable[str], authors: Iterable[str]) -> None:
        """Write down which principals may write, and which may create. Idempotent."""
        row = {"editors": sorted(editors), "authors": sorted(authors)}
        self._storage.update(GRANT_ROWS, f"{GRANTS_PARENT}{library}", "library", row)
