"""Calls of ``fetch`` and ``get_json``, and a stopwatch for them."""

import io
import time

import pytest

from kinto_attachment.errors import RemoteFailed
from kinto_attachment.remote import Origin, fetch, get_json

CONTENT = b"\xff\xd8" + bytes(range(256)) * 100
PUBLIC = "93.184.215.14"


def fetched(web, path="/a.jpg", *, max_size=0, timeout=5, deadline=10, mimetype=""):
    """Fetch from a server whose origin is allowed; return the result and the bytes."""
    file = io.BytesIO()
    result = fetch(
        web.url + path,
        file,
        max_size=max_size,
        timeout=timeout,
        deadline=deadline,
        mimetype=mimetype,
        allowed=frozenset({Origin.of(web.url)}),
    )
    return result, file.getvalue()


def refused(url, allowed=frozenset()):
    """Fetch a URL that must be refused; return the error message."""
    with pytest.raises(RemoteFailed) as info:
        fetch(url, io.BytesIO(), max_size=0, timeout=1, deadline=2, allowed=allowed)
    return str(info.value)


class Stopwatch:
    """A context manager that measures how long its block takes.

    :ivar seconds: the duration, set when the block ends.
    """

    def __enter__(self):
        self._started = time.monotonic()
        return self

    def __exit__(self, *exc_info):
        self.seconds = time.monotonic() - self._started


def fetched_json(web, headers=None, deadline=5):
    """Return the JSON from an API whose origin is allowed."""
    allowed = frozenset({Origin.of(web.url)})
    return get_json(web.url, headers or {}, timeout=5, deadline=deadline, allowed=allowed)
