"""Connections that somebody else can break off."""

import socket
import threading
from contextlib import suppress
from typing import Any
from weakref import WeakSet

from requests.adapters import HTTPAdapter

POOL = 32
"""Connections that are kept for the next request."""


class BreakableAdapter(HTTPAdapter):
    """The connections of a ``requests.Session``. ``break_off()`` ends them all, from any thread:
    whoever waits for bytes gets a ``ConnectionError`` at once, and not after the timeout.

    :param stopped: while it is set, new ones end as they begin.
    """

    def __init__(self, stopped: threading.Event) -> None:
        self._stopped = stopped
        self._sockets: WeakSet[socket.socket] = WeakSet()
        self._lock = threading.Lock()
        super().__init__(pool_maxsize=POOL)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self._watch(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **options: Any) -> Any:
        manager = super().proxy_manager_for(*args, **options)
        self._watch(manager)
        return manager

    def break_off(self) -> None:
        with self._lock:
            for sock in self._sockets:
                _shut(sock)

    def _watch(self, manager: Any) -> None:
        manager.pool_classes_by_scheme = {
            scheme: self._watched(kind) for scheme, kind in manager.pool_classes_by_scheme.items()
        }

    def _watched(self, pool: Any) -> Any:
        if hasattr(pool, "watched"):
            return pool
        adapter = self

        class Connection(pool.ConnectionCls):  # type: ignore[misc]
            def connect(self) -> None:
                super().connect()
                with adapter._lock:
                    adapter._sockets.add(self.sock)
                    if adapter._stopped.is_set():
                        _shut(self.sock)

        return type(pool.__name__, (pool,), {"ConnectionCls": Connection, "watched": True})


def _shut(sock: socket.socket) -> None:
    with suppress(OSError):  # closed already
        # Not TLS's own, which would take the socket from under who reads it.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
