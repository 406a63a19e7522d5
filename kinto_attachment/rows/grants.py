"""The principals that ``library init`` has granted a permission to write or create.

The name of the library's bucket is public, so a stranger may have made the bucket, or may make it
again after it was deleted. Only principals that an operator has named are to be trusted.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from kinto.core.storage.exceptions import ObjectNotFoundError

from .paging import Row, UnreadableRow, check_types, keyset, readable, unreadable

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
        """Return the principals that may write, and those that may create. A row that cannot be
        read grants nothing.

        :param library: the URI of the library's collection.
        """
        try:
            row = self._storage.get(GRANT_ROWS, f"{GRANTS_PARENT}{library}", "library")
        except ObjectNotFoundError:
            return set(), set()
        return next(readable([row], _principals), (set(), set()))

    def unreadable(self) -> Iterator[UnreadableRow]:
        """Yield every row that cannot be read."""
        list_all = partial(self._storage.list_all, GRANT_ROWS, f"{GRANTS_PARENT}/*")
        for rows in keyset(list_all):
            yield from unreadable(GRANT_ROWS, rows, _principals)

    def save(self, library: str, editors: Iterable[str], authors: Iterable[str]) -> None:
        """Write down which principals may write, and which may create. Idempotent."""
        row = {"editors": sorted(editors), "authors": sorted(authors)}
        self._storage.update(GRANT_ROWS, f"{GRANTS_PARENT}{library}", "library", row)


def _principals(row: Row) -> tuple[set[str], set[str]]:
    check_types(row, editors=list, authors=list)
    if not all(isinstance(each, str) for each in (*row["editors"], *row["authors"])):
        raise TypeError("a principal is not text")
    return set(row["editors"]), set(row["authors"])
