"""Files that everybody may see, and that never change, remembered by a process for some seconds.

A shared cache (RFC 9111, section 3) within the server: what it answers is what any cache between
it and the client may answer, for as long as ``Cache-Control`` says; here it is a few seconds. Only
where a file is and what is told of it is remembered, not its bytes.
"""

import time
from collections import OrderedDict
from collections.abc import Callable

from pyramid.httpexceptions import HTTPException
from pyramid.registry import Registry
from pyramid.request import Request
from pyramid.response import Response

from .errors import AttachmentError
from .serving import Download, serve

SIZE = 10_000
"""Answers that are remembered."""


class SharedCache:
    """
    :param seconds: how long something is remembered; 0 for not at all.
    :param varies: whether answers depend on ``Accept``.
    """

    def __init__(self, seconds: float, varies: bool):
        self._seconds = seconds
        self._varies = varies
        self._known: OrderedDict[tuple[str, str], tuple[float, Download]] = OrderedDict()

    def get(self, request: Request) -> Download | None:
        if not _is_anybodys(request):
            return None
        until, download = self._known.get(self._key(request), (0.0, None))
        return download if time.monotonic() < until else None

    def put(self, request: Request, download: Download) -> None:
        """Remember it, if it is public and immutable."""
        kept = download.cache_control
        if self._seconds and "public" in kept and "immutable" in kept and _is_anybodys(request):
            self._known[self._key(request)] = (time.monotonic() + self._seconds, download)
            while len(self._known) > SIZE:
                self._known.popitem(last=False)

    def answer(self, request: Request) -> Response | None:
        """The answer, if it is remembered. Everything unusual is left to the usual way."""
        download = self.get(request)
        if download is None:
            return None
        try:
            response = serve(request, download)
        except (AttachmentError, HTTPException):
            return None
        if self._varies:
            response.vary = ["Accept"]
        return response

    def _key(self, request: Request) -> tuple[str, str]:
        return request.path_qs, request.headers.get("Accept", "") if self._varies else ""


def tween_factory(handler: Callable, registry: Registry) -> Callable[[Request], Response]:
    """Around everything else that Kinto does for a request."""

    def tween(request: Request) -> Response:
        return registry.attachment_cache.answer(request) or handler(request)

    return tween


def _is_anybodys(request: Request) -> bool:
    """Whether nothing in the request says who it is from. Other origins want headers of CORS."""
    says = ("Authorization", "Cookie", "Origin")
    return request.method in ("GET", "HEAD") and not any(name in request.headers for name in says)
