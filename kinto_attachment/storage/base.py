"""What several storages share."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import chain
from tempfile import TemporaryFile
from typing import BinaryIO, TypeVar

from ..errors import SettingError, StorageUnavailable
from ..files.blob import CHUNK
from ..files.key import check_key, quote_key
from ..settings import Settings

Item = TypeVar("Item")
Result = TypeVar("Result")


class Storage:
    """A storage whose URLs consist of a base URL and a key.

    :ivar base_url: the base URL with a slash at its end, or empty.
    """

    base_url = ""

    def url(self, key: str) -> str:
        """Return the URL of a key, percent-encoded.

        :raises KeyRefused: if the key is not valid.
        """
        return self.base_url + quote_key(check_key(key))


class RemoteStorage(Storage):
    """A storage on another machine. Uploads are first received in a folder of this machine.

    :ivar spool_dir: the path of that folder; empty for the temporary folder of the system.
    """

    spool_dir = ""

    def spool(self) -> BinaryIO:
        """Return a new temporary file on this machine.

        :raises StorageUnavailable: if the file cannot be created.
        """
        try:
            return TemporaryFile(dir=self.spool_dir or None)
        except OSError as error:
            raise StorageUnavailable("spool", str(error)) from error


class FileChunks(Iterator[bytes]):
    """The bytes of one range of an open file, as an iterator of chunks. The file is closed after
    the last chunk, or when :meth:`close` is called.

    :param key: the key that errors name.
    :param start: the offset of the first byte.
    :param end: the offset after the last byte; None for the end of the file.
    :ivar length: the number of bytes in the range.
    :ivar file: the open file, positioned at the start of the range.
    """

    def __init__(self, key: str, file: BinaryIO, start: int, end: int | None):
        self._key = key
        self.file = file
        size = os.fstat(file.fileno()).st_size
        start = min(start, size)
        self.length = self._left = max(0, min(size if end is None else end, size) - start)
        file.seek(start)

    def __next__(self) -> bytes:
        if not self._left:
            self.close()
            raise StopIteration
        try:
            chunk = self.file.read(min(CHUNK, self._left))
        except OSError as error:
            raise StorageUnavailable(self._key, str(error)) from error
        if not chunk:
            self.close()
            raise StorageUnavailable(self._key, "the file became shorter while it was read")
        self._left -= len(chunk)
        return chunk

    def close(self) -> None:
        """Close the file. No further chunks follow. Idempotent."""
        self._left = 0
        self.file.close()


def read_spool_dir(settings: Settings) -> str:
    """Return the setting ``spool_dir``.

    :raises SettingError: if there is no such folder.
    """
    spool_dir = settings["spool_dir"]
    if spool_dir and not os.path.isdir(spool_dir):
        raise SettingError("kinto.attachment.spool_dir", f"{spool_dir} is not an existing folder")
    return spool_dir


def at_once(call: Callable[[Item], Result], items: Iterator[Item], workers: int) -> list[Result]:
    """Call a function with each item, several items at a time, and return the results in any
    order.

    If a call raises, no further call starts, and the exception is raised again once the calls
    that are running have ended. A single item needs no thread: the caller's is used.

    :param call: the function; several threads call it at the same time.
    :param items: the arguments, read as they are needed: at most ``workers`` + 1 are in memory.
    :param workers: the maximum number of simultaneous calls.
    """
    results: list[Result] = []
    first, second = next(items, None), next(items, None)
    if second is None:
        return [] if first is None else [call(first)]
    items = chain([first, second], items)
    del first, second  # an item can be megabytes of an upload
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
