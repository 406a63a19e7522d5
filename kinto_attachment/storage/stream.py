"""Bytes that are sent to a storage in parts, while the next ones arrive."""

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Protocol

PART_BYTES = 8 * 1024 * 1024
"""Bytes of a part. The memory of a stream is that of four parts: one that fills, one that waits,
and two on their way."""

SPARE_BUFFERS = 4
"""Buffers of parts that a process keeps for the next stream: those of one stream. What ``malloc``
gets back from one thread, it seldom gives to another one, so each would take memory of its own."""

_spare: list[bytearray] = []


def _take_buffer() -> bytearray:
    """Return a buffer of :data:`PART_BYTES`."""
    try:
        return _spare.pop()
    except IndexError:
        return bytearray(PART_BYTES)


def _give_back(buffer: bytearray) -> None:
    """Keep a buffer for the next part or stream."""
    if len(_spare) < SPARE_BUFFERS and len(buffer) == PART_BYTES:
        _spare.append(buffer)


class PartUpload(Protocol):
    """An upload that a storage receives in parts. Its methods raise ``StorageUnavailable``."""

    def send(self, number: int, part: bytearray, is_last: bool) -> None:
        """Send a part.

        :param number: counts from 1.
        """

    def complete(self) -> None:
        """Store the parts under their key. All of them have been sent."""

    def cancel(self) -> None:
        """Give up the upload, and what the storage has kept of it. Errors are ignored."""


class Stream:
    """A stream as ``IStreamingStorage.stream`` returns it. Threads of its own send the parts, so
    that it waits for the storage only if that is slower than the writer.

    :param put: stores bytes that are no more than one part, in one request.
    :param start: begins an upload in parts. It is called once there is more than one.
    :param workers: how many parts may be on their way at the same time.
    """

    def __init__(
        self,
        put: Callable[[bytearray], None],
        start: Callable[[], PartUpload],
        workers: int,
    ):
        self._put = put
        self._start = start
        self._workers = workers
        self._buffer = bytearray()
        self._filled = 0
        self._upload: PartUpload | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._running: set[Future] = set()
        self._number = 0

    def write(self, chunk: Any) -> None:
        """Take the next bytes, of any number.

        :raises StorageUnavailable: if these or earlier ones cannot be sent.
        """
        left = memoryview(chunk)
        while left:
            if self._filled == PART_BYTES:
                self._send(is_last=False)
            self._buffer = self._buffer or _take_buffer()
            piece = left[: PART_BYTES - self._filled]
            self._buffer[self._filled : self._filled + len(piece)] = piece
            self._filled += len(piece)
            left = left[len(piece) :]

    def finish(self) -> None:
        """Store the bytes. When the call returns, they are durable.

        :raises BlobExists: if the key is taken and the storage is ``exclusive``.
        :raises StorageUnavailable: if the bytes cannot be stored.
        """
        try:
            if self._upload is None:
                self._put(self._take_part())
                return
            self._send(is_last=True)
            while self._running:
                self._collect()
            self._upload.complete()
        except BaseException:
            self.abort()
            raise
        self._release()

    def abort(self) -> None:
        """Drop the bytes, and have the storage drop what it has of them. What it cannot drop now is
        left to ``discard_unfinished``. Idempotent."""
        for future in self._running:
            future.cancel()
        self._release()  # a part that arrives after the upload is cancelled could stay for ever
        if self._upload is not None:
            self._upload.cancel()
            self._upload = None

    def _send(self, is_last: bool) -> None:
        """Have the full buffer sent, as soon as there is room for it."""
        if self._upload is None:
            self._upload = self._start()
            self._pool = ThreadPoolExecutor(self._workers, "kinto-attachment stream")
        self._collect(timeout=0)
        while len(self._running) > self._workers:
            self._collect()
        self._number += 1
        arguments = (self._upload, self._number, self._take_part(), is_last)
        self._running.add(self._pool.submit(_send, *arguments))

    def _take_part(self) -> bytearray:
        """Return the bytes in the buffer, which is empty afterwards."""
        part, self._buffer = self._buffer, bytearray()
        del part[self._filled :]
        self._filled = 0
        return part

    def _collect(self, timeout: float | None = None) -> None:
        """Wait for a part to arrive.

        :raises StorageUnavailable: if a part did not.
        """
        done, self._running = wait(self._running, timeout, FIRST_COMPLETED)
        for future in done:
            future.result()

    def _release(self) -> None:
        """Let go of the memory and the threads, once they have nothing on its way."""
        _give_back(self._buffer)
        self._buffer, self._filled = bytearray(), 0
        self._running = set()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


def _send(upload: PartUpload, number: int, part: bytearray, is_last: bool) -> None:
    """Send a part, and keep its buffer for the next one."""
    upload.send(number, part, is_last)
    _give_back(part)
