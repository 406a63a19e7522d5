"""A cache for public files that never change, kept by each server process for a few seconds.

It is a shared cache (RFC 9111, section 3) within the server. Any cache between the server and the
client may give the same responses for as long as ``Cache-Control`` allows; this one gives them for
a few seconds only. It holds what is needed to serve a file, such as its key and its type, but not
the bytes of the file.
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
from .slow_clients import guard_response
from .transfers import begin, transfer_of

MAX_RESPONSES = 10_000
"""Responses that a process remembers."""

MAX_URL = 300
"""Characters of a path with its query. Responses to longer ones are not remembered."""


class ResponseCache:
    """The cache of one process.

    :param seconds: how long a response is remembered; 0 to remember none.
    :param varies: the request headers that responses depend on, for ``Vary``.
    """

    def __init__(self, seconds: float, varies: tuple[str, ...]):
        self._seconds = seconds
        self._varies = varies
        self._known: OrderedDict[tuple, tuple[float, Download, str]] = OrderedDict()

    def put(self, request: Request, download: Download) -> None:
        """Remember what the request downloads, if it is public and immutable and the request is
        anonymous."""
        if not self._seconds:
            return
        control = download.cache_control
        is_public = "public" in control and "immutable" in control and _is_anonymous(request)
        transfer = transfer_of(request)  # None for HEAD
        if is_public and transfer and sum(map(len, _url(request))) <= MAX_URL:
            until = time.monotonic() + self._seconds
            self._known[self._key(request)] = (until, download, transfer.door)
            while len(self._known) > MAX_RESPONSES:
                self._known.popitem(last=False)

    def answer(self, request: Request) -> Response | None:
        """Return the response to the request if it is remembered, or None. Requests that fail, on a
        precondition for example, are left to the view."""
        key = self._key(request) if _is_anonymous(request) else None
        until, download, door = self._known.get(key, (0.0, None, ""))
        if download is None or time.monotonic() > until:
            return None
        transfer = begin(request, door, is_upload=False) if request.method == "GET" else None
        try:
            response = serve(request, download)
            self._known.move_to_end(key)
        except (AttachmentError, HTTPException, KeyError):
            return None  # KeyError: another thread has just dropped the response
        response.vary = self._varies
        if transfer:
            transfer.count(response.status_code)
        return response

    def _key(self, request: Request) -> tuple:
        return _url(request), preferred_formats(request) if "Accept" in self._varies else None


def execution_policy(environ: dict[str, Any], router: Any) -> Response:
    """Respond from the cache, or else as Pyramid does by default
    (``pyramid.interfaces.IExecutionPolicy``).

    This comes before everything that Kinto does for a request. Kinto neither logs nor counts the
    requests that the cache responds to. The metrics of downloads count them.
    """
    request = router.request_factory(environ)
    request.registry = router.registry
    answer = router.registry.attachment_cache.answer(request)
    if answer is None:
        return default_execution_policy(environ, router)
    silence = router.registry.attachment_plugin.settings["client.silence"]
    guard_response(environ, answer, silence)
    return answer


def _url(request: Request) -> tuple[str, str]:
    """Return the path and the query of a URL. The path is not decoded, because it may not be
    UTF-8."""
    environ = request.environ
    return environ.get("SCRIPT_NAME", "") + environ["PATH_INFO"], environ.get("QUERY_STRING", "")


def _is_anonymous(request: Request) -> bool:
    """Return whether this is a ``GET`` or ``HEAD`` whose response is the same for all clients. With
    ``Origin`` it is not, because Kinto adds CORS headers to the response. A request that announces
    a body is left to the tween that knows what to do with it."""
    personal = ("Authorization", "Cookie", "Origin")
    is_personal = any(name in request.headers for name in personal)
    has_body = request.headers.get("Content-Length", "0") != "0" or (
        "Transfer-Encoding" in request.headers
    )
    return request.method in ("GET", "HEAD") and not is_personal and not has_body
