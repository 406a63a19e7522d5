"""HTTP connections that another thread can close."""

import socket
import threading
from contextlib import suppress
from typing import Any
from weakref import WeakSet

from requests.adapters import HTTPAdapter

POOL = 32
"""Connections that are kept open for further requests."""


class BreakableAdapter(HTTPAdapter):
    """The connections of a ``requests.Session``, which :meth:`break_off` shuts down from any
    thread. A thread that waits for bytes then gets a ``ConnectionError`` at once, not only after
    the timeout.

    :param stopped: while it is set, new connections are shut down as soon as they are open.
    """

    def __init__(self, stopped: threading.Event) -> None:
        self._stopped = stopped
        self._sockets: WeakSet[socket.socket] = WeakSet()
        self._lock = threading.Lock()
        super().__init__(pool_maxsize=POOL)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        """Create the pools of direct connections; called by requests."""
        super().init_poolmanager(*args, **options)
        self._watch(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **options: Any) -> Any:
        """Return the pools of connections through a proxy; called by requests."""
        manager = super().proxy_manager_for(*args, **options)
        self._watch(manager)
        return manager

    def break_off(self) -> None:
        """Shut down all open connections."""
        with self._lock:
            for sock in self._sockets:
                _shut(sock)

    def _watch(self, manager: Any) -> None:
        manager.pool_classes_by_scheme = {
            scheme: self._watched(kind) for scheme, kind in manager.pool_classes_by_scheme.items()
        }

    def _watched(self, pool: Any) -> Any:
        """Return a subclass of a pool whose connections register their sockets here."""
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
    with suppress(OSError):  # already closed
        # SSLSocket.shutdown() would discard the TLS state that another thread is reading with.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
