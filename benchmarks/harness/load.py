"""Clients that request images as fast as they can. They run in a process of their own."""

import re
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from .competitors import fetch

CONNECTIONS, AT_ONCE = 4, 64


def ask_often(port: int, path: str, seconds: float) -> int:
    """Return how many responses arrive in so many seconds, on :data:`CONNECTIONS` persistent
    connections."""
    until = time.monotonic() + seconds
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        return sum(pool.map(lambda _: _ask_until(port, path, until), range(CONNECTIONS)))


def _ask_until(port: int, path: str, until: float) -> int:
    """Return how many responses arrive on one connection. An HTTP library would need as much CPU
    time as the server."""
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
    buffer, answers = bytearray(1024 * 1024), 0
    with socket.create_connection(("127.0.0.1", port), 60) as sock:
        while time.monotonic() < until:
            sock.sendall(request)
            received = sock.recv_into(buffer)
            while (end := buffer.find(b"\r\n\r\n", 0, received)) < 0:
                more = sock.recv_into(memoryview(buffer)[received:])
                if not more:
                    raise ConnectionError("the server closed the connection")
                received += more
            head = bytes(buffer[:end])
            assert head.startswith(b"HTTP/1.1 200 "), head
            remaining = int(re.search(rb"(?i)content-length: (\d+)", head)[1]) + end + 4 - received
            while remaining > 0:
                more = sock.recv_into(buffer, min(remaining, len(buffer)))
                if not more:
                    raise ConnectionError("the server closed the connection")
                remaining -= more
            answers += 1
    return answers


def ask_at_once(port: int, path: str) -> tuple[Counter, int]:
    """Send :data:`AT_ONCE` requests at the same time. Return how often each status came, and the
    largest number of bytes in a response."""
    start = threading.Barrier(AT_ONCE)

    def ask(number: int) -> tuple[int, bytes]:
        start.wait()
        return fetch(port, path)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(ask, range(AT_ONCE)))
    return Counter(status for status, _ in answers), max(len(body) for _, body in answers)
