"""What the server measures, for Kinto's metrics service.

Kinto's service counts, observes and times; it has no gauges. What would be a gauge is therefore
observed each time it is known, so that ``_sum`` and ``_count`` of a Prometheus summary give its
mean over any period, or is counted as events, such as calls that an open circuit breaker refused.

No label has values that clients choose.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any

DOORS = ("attachments", "media", "library", "unsplash")
"""Where files come in, and go out except for ``unsplash``."""

_UPLOADED = ("created", "updated", "pending", "refused", "failed")
_DOWNLOADED = ("sent", "unchanged", "redirected", "refused", "failed")
_IMAGES = ("made", "kept", "refused", "busy", "failed")


@dataclass(frozen=True)
class Metric:
    """A metric.

    :param name: its name, to which Kinto's plugin for Prometheus adds a prefix and a suffix.
    :param kind: ``counter``, ``summary`` or ``histogram``.
    :param meaning: what it says, for operators.
    :param labels: the possible values of its labels.
    """

    name: str
    kind: str
    meaning: str
    labels: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def series(self) -> Iterator[list[tuple[str, str]]]:
        """All combinations of labels.

        >>> list(Metric("a", "counter", "", {"event": ("opened", "closed")}).series)
        [[('event', 'opened')], [('event', 'closed')]]
        """
        for values in product(*self.labels.values()):
            yield list(zip(self.labels, values, strict=True))


METRICS = (
    Metric(
        "attachments.uploads",
        "counter",
        "Requests that send a file, by their result: created (201); updated (200: the file of a"
        " record was replaced, or the media store knew the bytes); pending (202: to be verified);"
        " refused (4xx); failed (5xx).",
        {"door": DOORS, "result": _UPLOADED},
    ),
    Metric("attachments.received_bytes", "summary", "Size of each stored file.", {"door": DOORS}),
    Metric(
        "attachments.upload_seconds",
        "histogram",
        "Time from the start of a request that sends a file to its response.",
        {"door": DOORS},
    ),
    Metric(
        "attachments.downloads",
        "counter",
        "Requests for a file, by their result: sent (200 and 206); unchanged (304); redirected to"
        " the storage (307); refused (4xx); failed (5xx).",
        {"door": DOORS[:3], "result": _DOWNLOADED},
    ),
    Metric(
        "attachments.sent_bytes",
        "summary",
        "Bytes of each response that this server sends itself, not nginx or the storage.",
        {"door": DOORS[:3]},
    ),
    Metric(
        "attachments.download_seconds",
        "histogram",
        "Time from the start of a request for a file to the end of such a response.",
        {"door": DOORS[:3]},
    ),
    Metric(
        "attachments.images",
        "counter",
        "Requests for an image at another size, by their result: made; kept (it was made before);"
        " refused (the image is broken or too large); busy (too many are being made); failed.",
        {"result": _IMAGES},
    ),
    Metric(
        "attachments.images_waiting",
        "summary",
        "Requests of a process that make an image or wait for one, whenever another one comes.",
    ),
    Metric(
        "attachments.image_seconds", "histogram", "Time to make an image, with the wait for it."
    ),
    Metric(
        "attachments.verifications",
        "counter",
        "Uploads with ?verify=false, and large direct uploads, whose bytes were hashed: verified;"
        " refused (other bytes, now removed); failed (the bytes cannot be read, which is tried"
        " again).",
        {"result": ("verified", "refused", "failed")},
    ),
    Metric(
        "attachments.pending_verifications",
        "summary",
        "Uploads that wait to be verified, whenever a verifier has looked for them.",
    ),
    Metric(
        "attachments.resumable",
        "counter",
        "Resumable uploads: begun; completed (their file was attached); deleted by their sender;"
        " expired.",
        {"event": ("begun", "completed", "deleted", "expired")},
    ),
    Metric(
        "attachments.direct",
        "counter",
        "Direct uploads: begun; completed (their file was attached); refused (other bytes than"
        " announced, now removed); deleted by their sender; expired.",
        {"event": ("begun", "completed", "refused", "deleted", "expired")},
    ),
    Metric(
        "attachments.breaker",
        "counter",
        "Events of the circuit breaker of S3 or Google Cloud Storage: opened; closed; refused (a"
        " call that failed at once because the breaker is open).",
        {"event": ("opened", "closed", "refused")},
    ),
    Metric(
        "attachments.deletions",
        "counter",
        "Files that are no longer needed: deleted (right after the request that released them);"
        " late (by gc); left (their deletion failed or is not allowed now: gc has to do it).",
        {"result": ("deleted", "late", "left")},
    ),
)
"""Every metric of this plugin."""


class Metrics:
    """The metrics of one process.

    :param service: returns Kinto's metrics service (``kinto.core.metrics.IMetricsService``), which
        does not exist before the server is set up; None for no metrics.

    >>> Metrics().count("breaker", event="opened")
    """

    def __init__(self, service: Callable[[], Any] = lambda: None):
        self._service = service
        # Kinto's plugin for Prometheus makes a metric when it is first used, and fails if two
        # threads do so at once.
        self._lock = threading.Lock()

    def count(self, name: str, by: int = 1, **labels: str) -> None:
        """Count events.

        :param name: that of a metric in :data:`METRICS`, without ``attachments.``.
        :param by: how many.
        """
        self._call("count", name, by, unique=list(labels.items()) or None)

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Observe a value."""
        self._call("observe", name, value, labels=list(labels.items()))

    def time(self, name: str, seconds: float, **labels: str) -> None:
        """Observe how long something took."""
        self._call("timer", name, value=seconds, labels=list(labels.items()))

    def start(self) -> None:
        """Begin each counter at zero. Prometheus sees no increase in a series that begins with the
        first event."""
        for metric in METRICS:
            if metric.kind == "counter":
                for labels in metric.series:
                    self._call("count", metric.name.partition(".")[2], 0, unique=labels)

    def _call(self, method: str, name: str, *args: Any, **options: Any) -> None:
        service = self._service()
        if service is not None:
            with self._lock:
                getattr(service, method)(f"attachments.{name}", *args, **options)
