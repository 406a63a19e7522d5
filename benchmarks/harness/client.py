"""One client on one connection, which has no cores but the server's and so does little."""

import http.client
import json
import os
import socket
import time
from base64 import b64encode
from collections.abc import Callable
from contextlib import closing
from typing import Any
from uuid import uuid4

from .process_stats import MIB

BLOCK = os.urandom(MIB)
BOUNDARY = "benchmark"
HEAD = (
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="attachment"; '
    'filename="file.pdf"\r\nContent-Type: application/pdf\r\n\r\n'
).encode()
TAIL = f"\r\n--{BOUNDARY}--\r\n".encode()
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
AUTHORIZATION = {"Authorization": "Basic " + b64encode(b"alice:secret").decode()}
BUCKET = "/v1/buckets/bench"

KEPT = 20
"""Seconds that a connection is used again; the servers give it up after 60."""

_buffer = memoryview(bytearray(MIB))


class Failed(Exception):
    """The server refused, or did not answer."""


class Client:
    """
    :param timeout: seconds.
    """

    def __init__(self, port: int, timeout: float = 600):
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
        self._used = time.monotonic()

    def request(self, method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
        """What is answered.

        :raises Failed:
        """
        if time.monotonic() - self._used > KEPT:
            self._connection.close()
        try:
            self._connection.request(method, path, body, {**AUTHORIZATION, **headers})
            response = self._connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise Failed(repr(error)) from error
        self._used = time.monotonic()
        if response.status >= 300:
            raise Failed(f"{method} {path}: {response.status} {answer[:500]!r}")
        return answer

    def json(self, method: str, path: str, data: dict[str, Any]) -> dict[str, Any]:
        body = json.dumps({"data": data}).encode()
        headers = {"Content-Type": "application/json"}
        return json.loads(self.request(method, path, body, **headers))["data"]

    def collection(self, name: str | None = None) -> str:
        """The path of a collection, made if it is not there."""
        path = f"{BUCKET}/collections/{name or uuid4().hex}"
        for parent in (BUCKET, path):
            self.json("PUT", parent, {})
        return path

    def upload(self, record: str, content: bytes) -> dict[str, Any]:
        """Attach that to the record of this path; the attachment."""
        body = HEAD + content + TAIL
        return json.loads(self.request("POST", f"{record}/attachment", body, **FORM))

    def send(self, path: str, size: int, *, form: bool) -> bytes:
        """Post ``size`` MiB, block by block; what is answered."""
        head, tail = (HEAD, TAIL) if form else (b"", b"")
        length = len(head) + size * MIB + len(tail)
        headers = {"Content-Length": str(length), **(FORM if form else {})}

        def blocks():
            yield head
            for _ in range(size):
                yield BLOCK
            yield tail

        self._connection.close()  # the server may have given it up meanwhile
        return self.request("POST", path, blocks(), **headers)


def fetch(port: int, path: str, length: int, start: int = 0, take: Callable | None = None) -> None:
    """Get a file of ``length`` bytes, or what of it is not before ``start``, into the same memory
    again and again.

    :param take: gets each piece.
    """
    headers = f"Host: 127.0.0.1\r\nAuthorization: {AUTHORIZATION['Authorization']}\r\n"
    if start:
        headers += f"Range: bytes={start}-\r\n"
    left = length - start
    with closing(socket.create_connection(("127.0.0.1", port), timeout=600)) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\n{headers}\r\n".encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += sock.recv(4096) or b"\r\n\r\n"
        head, _, first = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 206" if start else b"HTTP/1.1 200"), head
        if take:
            take(first)
        left -= len(first)
        while left and (received := sock.recv_into(_buffer)):
            left -= received
            if take:
                take(_buffer[:received])
    assert left == 0, f"{left} bytes are missing"
