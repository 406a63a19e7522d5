"""Those who look at images, in a process of their own: many at once, as fast as they can."""

import re
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from .competitors import fetch

CONNECTIONS, AT_ONCE = 4, 64


def ask_often(port: int, path: str, seconds: float) -> int:
    """How many answers there are in that time, on a few connections that stay open."""
    until = time.monotonic() + seconds
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        return sum(pool.map(lambda _: _ask_until(port, path, until), range(CONNECTIONS)))


def _ask_until(port: int, path: str, until: float) -> int:
    """Without a library: they take as long as the server."""
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
    buffer, answers = bytearray(1024 * 1024), 0
    with socket.create_connection(("127.0.0.1", port), 60) as sock:
        while time.monotonic() < until:
            sock.sendall(request)
            received = sock.recv_into(buffer)
            while (end := buffer.find(b"\r\n\r\n", 0, received)) < 0:
                received += sock.recv_into(memoryview(buffer)[received:])
            head = bytes(buffer[:end])
            assert head.startswith(b"HTTP/1.1 200 "), head
            left = int(re.search(rb"(?i)content-length: (\d+)", head)[1]) + end + 4 - received
            while left > 0:
                left -= sock.recv_into(buffer, min(left, len(buffer)))
            answers += 1
    return answers


def ask_at_once(port: int, path: str) -> tuple[Counter, int]:
    """The statuses, and the bytes of an answer."""
    start = threading.Barrier(AT_ONCE)

    def ask(number: int) -> tuple[int, bytes]:
        start.wait()
        return fetch(port, path)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(ask, range(AT_ONCE)))
    return Counter(status for status, _ in answers), max(len(body) for _, body in answers)
