"""Uploads and downloads of all doors: what is measured of them, and what the log says."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pyramid.config import Configurator
from pyramid.events import BeforeTraversal
from pyramid.request import Request
from pyramid.response import Response

from ..metrics import Metrics
from ..transactions.request import is_in_batch, outermost

_KEY = "kinto_attachment.transfer"
"""In the WSGI environment of the outermost request: the :class:`Transfer`."""

_UPLOADED = {200: "updated", 201: "created", 202: "pending"}
_DOWNLOADED = {200: "sent", 206: "sent", 304: "unchanged", 307: "redirected"}

Door = str | Callable[[Request], str]
"""The name of a door, or a function that tells it from the request."""


@dataclass
class Transfer:
    """A file that a request sends or asks for, or several files that it sends.

    :param door: one of :data:`~kinto_attachment.metrics.DOORS`.
    :ivar files: the size in bytes and the SHA-256 of each file, as far as they are known.
    :ivar storage_seconds: how long the storage took so far.
    :ivar status: that to count a success as; None for that of the response.
    """

    metrics: Metrics
    door: str
    is_upload: bool
    started: float = field(default_factory=time.monotonic)
    files: list[tuple[int, str | None]] = field(default_factory=list)
    storage_seconds: float = 0.0
    status: int | None = None

    def finish(self, request: Request, response: Response) -> None:
        """Count the result, and tell Kinto's log ``request.summary`` of the file."""
        milliseconds = round(self.storage_seconds * 1000)
        request.log_context(
            attachment_size=sum(size for size, _ in self.files) if self.files else None,
            hash=self.files[0][1] if len(self.files) == 1 else None,
            storage_ms=milliseconds if self.files else None,
        )
        is_success = response.status_code < 300
        self.count(self.status if self.status and is_success else response.status_code)

    def count(self, status: int) -> None:
        """Count the result.

        :param status: that of the response.
        """
        results = _UPLOADED if self.is_upload else _DOWNLOADED
        result = results.get(status, "failed" if status >= 500 else "refused")
        name = "uploads" if self.is_upload else "downloads"
        self.metrics.count(name, door=self.door, result=result)
        if self.is_upload:
            for size, _ in self.files if status < 300 else ():
                self.metrics.observe("received_bytes", size, door=self.door)
            self.metrics.time("upload_seconds", self._seconds, door=self.door)

    def sent(self, size: int) -> None:
        """Observe a download that this server has sent.

        :param size: bytes that were sent.
        """
        self.metrics.observe("sent_bytes", size, door=self.door)
        self.metrics.time("download_seconds", self._seconds, door=self.door)

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self.started


def includeme(config: Configurator) -> None:
    """Watch the routes that the doors name with :func:`watch`."""
    config.registry.attachment_transfers = {}
    # Before the context, which may refuse the request already.
    config.add_subscriber(_begin, BeforeTraversal)


def watch(config: Configurator, door: Door, uploads: Any = (), downloads: Any = ()) -> None:
    """Measure the transfers of a door.

    :param uploads: ``(service, method)`` of each route that takes a file.
    :param downloads: services whose ``GET`` serves a file.
    """
    watched = config.registry.attachment_transfers
    watched.update({(service.name, method): (door, True) for service, method in uploads})
    watched.update({(service.name, "GET"): (door, False) for service in downloads})


def begin(request: Request, door: str, is_upload: bool) -> Transfer:
    """Return a new transfer, which is that of the request from now on."""
    metrics: Metrics = request.registry.attachment_plugin.metrics
    transfer = Transfer(metrics, door, is_upload)
    outermost(request).environ[_KEY] = transfer
    return transfer


def transfer_of(request: Request) -> Transfer | None:
    """Return the transfer of the request, or None if it is none, as in a batch."""
    return outermost(request).environ.get(_KEY)


def note_file(request: Request, size: int, digest: str | None) -> None:
    """Note which file the request transfers. An upload may have several. A download that found its
    file replaced notes the next one instead.

    :param digest: its SHA-256 in hex; None if it is not known yet.
    """
    transfer = transfer_of(request)
    if transfer:
        others = transfer.files if transfer.is_upload else []
        transfer.files = [*others, (size, digest)]


def forget_transfer(request: Request) -> None:
    """Measure nothing of the request: the response is about files, and has none."""
    outermost(request).environ.pop(_KEY, None)


@contextmanager
def storage_time(request: Request) -> Iterator[None]:
    """Count the time of the block as that of the storage."""
    started = time.monotonic()
    try:
        yield
    finally:
        transfer = transfer_of(request)
        if transfer:
            transfer.storage_seconds += time.monotonic() - started


def _begin(event: BeforeTraversal) -> None:
    request = event.request
    service = request.current_service
    watched = request.registry.attachment_transfers
    door, is_upload = watched.get((getattr(service, "name", None), request.method), (None, False))
    # A batch has one response for all its operations, and files cannot be in it. A request that is
    # repeated after a conflict comes here again.
    if door is None or is_in_batch(request) or transfer_of(request):
        return
    measure(request, door if isinstance(door, str) else door(request), is_upload)


def measure(request: Request, door: str, is_upload: bool) -> None:
    """Measure a transfer from now on until the request is answered."""
    begin(request, door, is_upload)
    # Kinto writes the summary of a request after these callbacks.
    outermost(request).add_response_callback(_finish)


def note_status(request: Request, status: int) -> None:
    """Note with which status a form would be answered, if this request is answered with another."""
    transfer = transfer_of(request)
    if transfer:
        transfer.status = status


def _finish(request: Request, response: Response) -> None:
    transfer = transfer_of(request)
    if transfer:
        transfer.finish(request, response)
