"""Files that everybody may see, and that never change, remembered by a process for some seconds.

A shared cache (RFC 9111, section 3) within the server: what it answers is what any cache between
it and the client may answer, for as long as ``Cache-Control`` says; here it is a few seconds. Only
where a file is and what is told of it is remembered, not its bytes.
"""

import time
from collections import OrderedDict
from typing import Any

from pyramid.httpexceptions import HTTPException
from pyramid.request import Request
from pyramid.response import Response
from pyramid.router import default_execution_policy

from ..errors import AttachmentError
from .downloads import Download, serve
from .requests import preferred_formats

MAX_RESPONSES = 10_000
"""Answers that are remembered."""

MAX_URL = 300
"""Characters of a URL that is."""


class ResponseCache:
    """
    :param seconds: how long something is remembered; 0 for not at all.
    :param varies: headers that answers depend on.
    """

    def __init__(self, seconds: float, varies: tuple[str, ...]):
        self._seconds = seconds
        self._varies = varies
        self._known: OrderedDict[tuple, tuple[float, Download]] = OrderedDict()

    def put(self, request: Request, download: Download) -> None:
        """Remember it, if it is public and immutable."""
        if not self._seconds:
            return
        kept = download.cache_control
        is_everybodys = "public" in kept and "immutable" in kept and _is_anybodys(request)
        if is_everybodys and len(request.path_qs) <= MAX_URL:
            self._known[self._key(request)] = (time.monotonic() + self._seconds, download)
            while len(self._known) > MAX_RESPONSES:
                self._known.popitem(last=False)

    def answer(self, request: Request) -> Response | None:
        """The answer, if it is remembered. Everything unusual is left to the usual way."""
        key = self._key(request) if _is_anybodys(request) else None
        until, download = self._known.get(key, (0.0, None))
        if download is None or time.monotonic() > until:
            return None
        try:
            response = serve(request, download)
            self._known.move_to_end(key)
        except (AttachmentError, HTTPException, KeyError):
            return None  # KeyError: another thread has just made room
        response.vary = self._varies
        return response

    def _key(self, request: Request) -> tuple:
        return request.path_qs, preferred_formats(request) if "Accept" in self._varies else None


def execution_policy(environ: dict[str, Any], router: Any) -> Response:
    """Before everything that Kinto does for a request, its log and metrics too
    (``pyramid.interfaces.IExecutionPolicy``)."""
    request = router.request_factory(environ)
    request.registry = router.registry
    answer = router.registry.attachment_cache.answer(request)
    return answer or default_execution_policy(environ, router)


def _is_anybodys(request: Request) -> bool:
    """Whether nothing in the request says who it is from. Other origins want headers of CORS."""
    says = ("Authorization", "Cookie", "Origin")
    return request.method in ("GET", "HEAD") and not any(name in request.headers for name in says)
