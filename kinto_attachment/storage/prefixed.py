"""A part of a storage: several databases share one storage, each below a prefix of its own."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

from zope.interface import directlyProvides, providedBy

from ..files.blob import MAX_UPLOAD_TIME, Label, Source
from ..files.key import check_key
from . import IStorage, Stat, place_of
from .staged import Arrived, SignedPut
from .stream import Stream


class StorageProxy:
    """A storage that passes every call on to another one, whatever interfaces that one provides.
    Subclasses change some of the calls.

    :param storage: the other storage.
    """

    def __init__(self, storage: IStorage):
        self._storage = storage
        directlyProvides(self, providedBy(storage))

    @property
    def backend(self) -> IStorage:
        """The storage that does the work, behind any number of proxies."""
        return getattr(self._storage, "backend", self._storage)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)


class PrefixedStorage(StorageProxy):
    """What is below a prefix in another storage, as a storage of its own.

    Methods without a docstring are documented in the interfaces.

    :param storage: the other storage. Its ``base_url`` contains the prefix already.
    :param prefix: the text before every key, with a slash at its end.
    """

    def __init__(self, storage: IStorage, prefix: str):
        super().__init__(storage)
        self._prefix = prefix
        self.place = f"{place_of(storage)}/{prefix}"
        if hasattr(storage, "path"):
            self.path = lambda key: storage.path(self._full(key))

    def _full(self, key: str) -> str:
        return self._prefix + check_key(key)

    def _own(self, stat: Stat) -> Stat:
        return replace(stat, key=stat.key.removeprefix(self._prefix))

    def put(self, key: str, source: Source) -> None:
        self._storage.put(self._full(key), source)

    def open(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        return self._storage.open(self._full(key), start, end)

    def stat(self, key: str) -> Stat:
        return self._own(self._storage.stat(self._full(key)))

    def delete(self, keys: Iterable[str]) -> None:
        self._storage.delete(map(self._full, keys))

    def list(self, prefix: str = "") -> Iterator[Stat]:
        return map(self._own, self._storage.list(self._prefix + prefix))

    def compose(self, parts: Iterable[str], key: str, label: Label) -> None:
        self._storage.compose([self._full(part) for part in parts], self._full(key), label)

    def stream(self, key: str, label: Label) -> Stream:
        return self._storage.stream(self._full(key), label)

    def sign(self, key: str, *args: Any, **options: Any) -> str | None:
        return self._storage.sign(self._full(key), *args, **options)

    def sign_put(self, key: str, *args: Any, **options: Any) -> SignedPut | None:
        return self._storage.sign_put(self._full(key), *args, **options)

    def look(self, key: str) -> Arrived:
        return self._storage.look(self._full(key))

    def proves_digests(self, key: str) -> bool:
        return self._storage.proves_digests(self._full(key))

    def discard_unfinished(
        self, before: datetime, is_ours: Callable[[str], bool], dry_run: bool = False
    ) -> Iterator[str]:
        def is_below(key: str) -> bool:
            own = key.removeprefix(self._prefix)
            return own != key and is_ours(own)

        # What has no key yet may be an upload of another database, whose server is running.
        before = min(before, datetime.now(timezone.utc) - MAX_UPLOAD_TIME)
        return self._storage.discard_unfinished(before, is_below, dry_run)
