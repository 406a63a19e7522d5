"""A TCP proxy to another server that can fail in every way."""

import contextlib
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator

from tests.support.servers import free_port

BLOCK = 64 * 1024
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with a RST


class FaultyProxy:
    """Passes TCP connections on to a port of 127.0.0.1, until a test lets it fail.

    ::

        with FaultyProxy(server.port) as line:
            line.silence()   # connections are accepted, and nothing is ever said
            line.recover()

    :ivar up: bytes that clients have sent since the last change.
    """

    def __init__(self, target: int):
        self._target = target
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self._flowing = threading.Event()
        self.recover()

    # Failures.

    def refuse(self) -> None:
        """Refuse connections, and reset those that are open."""
        self._change()
        self._stop_listening()
        self._cut_all()

    def silence(self, after: int = 0, down: bool = False) -> None:
        """Pass nothing from now on, or after so many bytes from the clients (or to them). What is
        sent meanwhile arrives after the recovery, as with a broken network."""
        self._change(stall=(after, down))

    def move(self, target: int) -> None:
        """Pass new connections on to another port."""
        self._target = target

    def answer(self, status: int, code: str) -> None:
        """Answer every request with this error, in a format that fits S3 and Google."""
        self._change(answer=(status, code))
        self._cut_all()

    def cut(self, after: int, down: bool = False) -> None:
        """Reset connections after so many bytes from the clients, or to them."""
        self._change(cut=(after, down))

    def cut_at(self, *points: int) -> None:
        """Reset all connections each time that the clients have sent so many bytes more."""
        self._change(points=points)

    def slow(self, rate: int) -> None:
        """Pass so many bytes a second on each connection."""
        self._change(rate=rate)

    def recover(self) -> None:
        self._change()
        if self._listener is None:
            self._listen()

    # Implementation.

    def _change(self, stall=None, answer=None, cut=None, rate=0, points=()) -> None:
        self._points = list(points)
        self._stall, self._answer, self._cut, self._rate = stall, answer, cut, rate
        self.up = self.down = 0
        if stall == (0, False):
            self._flowing.clear()
        else:
            self._flowing.set()

    def _listen(self) -> None:
        listener = socket.create_server(("127.0.0.1", self.port), backlog=200)
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _stop_listening(self) -> None:
        listener, self._listener = self._listener, None
        if listener:
            listener.shutdown(socket.SHUT_RDWR)  # wakes up the accepting thread
            listener.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with self._kept(client), contextlib.suppress(OSError):
            if self._answer:
                self._refuse_requests(client, *self._answer)
                return
            self._flowing.wait()
            server = socket.create_connection(("127.0.0.1", self._target))
            with self._kept(server):
                back = threading.Thread(target=self._pump, args=(server, client, True))
                back.start()
                self._pump(client, server, False)
                back.join()

    @contextlib.contextmanager
    def _kept(self, connection: socket.socket) -> Iterator[None]:
        with self._lock:
            self._open.add(connection)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()

    def _cut_all(self) -> None:
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    self._reset(connection)

    def _reset(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        connection.shutdown(socket.SHUT_RDWR)

    def _pump(self, source: socket.socket, sink: socket.socket, down: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(min(BLOCK, self._rate // 10 or BLOCK)):
                if self._rate:
                    time.sleep(len(data) / self._rate)
                self._count(len(data), down)
                self._flowing.wait()
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
            return
        for connection in (source, sink):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _count(self, length: int, down: bool) -> None:
        with self._lock:
            self.up += length * (not down)
            self.down += length * down
            passed = self.down if down else self.up
            is_cut = bool(self._cut) and down == self._cut[1] and passed > self._cut[0]
            if not down and self._points and passed > self._points[0]:
                is_cut, self.up = True, 0
                del self._points[0]
        if self._stall and down == self._stall[1] and passed > self._stall[0]:
            self._flowing.clear()
        if is_cut:
            self._cut_all()
            raise ConnectionResetError

    def _refuse_requests(self, client: socket.socket, status: int, code: str) -> None:
        client.settimeout(30)
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code></Error>".encode()
        head = (
            f"HTTP/1.1 {status} {code}\r\nContent-Type: application/xml\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        request = b""
        while b"\r\n\r\n" not in request:
            more = client.recv(BLOCK)
            if not more:
                return
            request += more
        client.sendall(head.encode() + body)
        client.shutdown(socket.SHUT_WR)
        # Closing with unread bytes would reset the connection before the response.
        while select.select([client], [], [], 1)[0] and client.recv(BLOCK):
            pass

    def __enter__(self) -> "FaultyProxy":
        return self

    def __exit__(self, *exc_info) -> None:
        self._stop_listening()
        self._flowing.set()
        self._cut_all()
