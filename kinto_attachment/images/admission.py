"""Which requests may wait for an image that has to be made."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..errors import ResizeBusy


@dataclass(frozen=True)
class Applicant:
    """The client that asks for an image, and the image.

    :param image: identifies the original, whatever the size.
    :param client: identifies the client that asks for it.
    """

    image: str = ""
    client: str = ""


class Admission:
    """The requests of one process that make an image or wait for one, be it for a worker or for
    another request that makes the same image.

    Each of them holds a thread of the server, so their number is limited, and any further request
    is refused at once. Lower limits for one image and for one client leave places to the others.

    :param workers: how many requests make an image at the same time.
    :param queue: how many may wait beside them. One image may take half of these places, and one
        client three quarters.

    >>> admission = Admission(workers=1, queue=2)
    >>> with admission.admit(Applicant("a")), admission.admit(Applicant("a")):
    ...     with admission.admit(Applicant("b")):
    ...         pass
    ...     with admission.admit(Applicant("a")):
    ...         pass
    Traceback (most recent call last):
    kinto_attachment.errors.failures.ResizeBusy: 2 requests are already waiting for this image.
    """

    def __init__(self, workers: int, queue: int):
        self._in_all = workers + queue
        self._of_image = workers + queue - queue // 2
        self._of_client = workers + queue - queue // 4
        self._all = 0
        self._images: Counter[str] = Counter()
        self._clients: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def count(self) -> int:
        """How many requests there are now."""
        return self._all

    @contextmanager
    def admit(self, applicant: Applicant) -> Iterator[None]:
        """Count the request until the end of the block.

        :raises ResizeBusy: if there are too many, in all or for its image or its client.
        """
        with self._lock:
            self._check(applicant)
            self._count(applicant, 1)
        try:
            yield
        finally:
            with self._lock:
                self._count(applicant, -1)

    def _check(self, applicant: Applicant) -> None:
        if self._images[applicant.image] >= self._of_image:
            raise ResizeBusy(f"{self._of_image} requests are already waiting for this image.")
        if self._clients[applicant.client] >= self._of_client:
            raise ResizeBusy(f"{self._of_client} requests of this client are already waiting.")
        if self._all >= self._in_all:
            raise ResizeBusy(f"{self._in_all} requests are already waiting for images.")

    def _count(self, applicant: Applicant, number: int) -> None:
        self._all += number
        for counter, name in (
            (self._images, applicant.image),
            (self._clients, applicant.client),
        ):
            counter[name] += number
            if not counter[name]:
                del counter[name]
