"""What storages do alike."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import chain
from tempfile import TemporaryFile
from typing import BinaryIO, TypeVar

from ..errors import SettingError, StorageUnavailable
from ..files.key import check_key
from ..settings import Settings

Item = TypeVar("Item")
Result = TypeVar("Result")


class Storage:
    """A storage whose keys are joined to a URL.

    :ivar base_url: with its slash at the end, or empty.
    """

    base_url = ""

    def url(self, key: str) -> str:
        return self.base_url + check_key(key)


class RemoteStorage(Storage):
    """A storage on another machine: files are received in a folder of this one.

    :ivar spool_dir: the folder; the system's temporary one if it is empty.
    """

    spool_dir = ""

    def spool(self) -> BinaryIO:
        try:
            return TemporaryFile(dir=self.spool_dir or None)
        except OSError as error:
            raise StorageUnavailable("spool", str(error)) from error


def read_spool_dir(settings: Settings) -> str:
    """The setting.

    :raises SettingError: there is no such folder.
    """
    spool_dir = settings["spool_dir"]
    if spool_dir and not os.path.isdir(spool_dir):
        raise SettingError("attachment.spool_dir", f"{spool_dir} is not a folder")
    return spool_dir


def at_once(call: Callable[[Item], Result], items: Iterator[Item], workers: int) -> list[Result]:
    """Call it with each item as it comes, a few at once; what they returned, in no order. After
    the first that raised, no other is begun. One alone needs no thread.

    :param workers: how many at once; of the items, no more than these and the next are held.
    """
    results: list[Result] = []
    first, second = next(items, None), next(items, None)
    if second is None:
        return [] if first is None else [call(first)]
    items = chain([first, second], items)
    del first, second  # parts are large
    with ThreadPoolExecutor(workers) as pool:
        running: set[Future] = set()
        try:
            for item in items:
                running.add(pool.submit(call, item))
                del item
                if len(running) >= workers:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    results += [future.result() for future in done]
            results += [future.result() for future in running]
        finally:
            for future in running:
                future.cancel()
    return results
