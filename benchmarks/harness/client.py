"""An HTTP client with one connection. It does as little as possible, because it runs on the cores
of the server."""

import http.client
import json
import os
import socket
import time
from base64 import b64encode
from collections.abc import Callable
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit
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
TUS = {"Tus-Resumable": "1.0.0"}
BUCKET = "/v1/buckets/bench"

REUSE_SECONDS = 20
"""Seconds for which an idle connection is used again. The servers close it after 60 seconds."""

_buffer = memoryview(bytearray(MIB))


class Failed(Exception):
    """The server refused the request, or did not answer."""


class Client:
    """A client of a server on 127.0.0.1.

    :param timeout: seconds.
    :ivar sent: when the last byte of :meth:`send` was sent, by the monotonic clock.
    """

    def __init__(self, port: int, timeout: float = 600):
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
        self._used = self.sent = time.monotonic()

    def request(self, method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
        """Send a request, and return the body of the response.

        :raises Failed: if the server does not answer, or with a status of 300 or more.
        """
        if time.monotonic() - self._used > REUSE_SECONDS:
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
        """Send a Kinto object, and return the one in the response."""
        body = json.dumps({"data": data}).encode()
        headers = {"Content-Type": "application/json"}
        return json.loads(self.request(method, path, body, **headers))["data"]

    def collection(self, name: str | None = None) -> str:
        """Create a collection if necessary, and return its path.

        :param name: its id; random by default.
        """
        path = f"{BUCKET}/collections/{name or uuid4().hex}"
        for parent in (BUCKET, path):
            self.json("PUT", parent, {})
        return path

    def upload(self, record: str, content: bytes) -> dict[str, Any]:
        """Attach a file to a record, and return the attachment."""
        body = HEAD + content + TAIL
        return json.loads(self.request("POST", f"{record}/attachment", body, **FORM))

    def send(self, path: str, size: int, *, form: bool, rate: float = 0) -> bytes:
        """Post ``size`` MiB, block by block, and return the body of the response.

        :param form: whether to wrap the bytes in a form.
        :param rate: MB/s at most; 0 for no limit.
        """
        head, tail = (HEAD, TAIL) if form else (b"", b"")
        length = len(head) + size * MIB + len(tail)
        headers = {"Content-Length": str(length), **(FORM if form else {})}

        def blocks():
            yield head
            started = time.monotonic()
            for number in range(size):
                due = started + number * MIB / (rate * 1e6) if rate else 0
                time.sleep(max(0, due - time.monotonic()))
                yield BLOCK
            yield tail
            self.sent = time.monotonic()

        self._connection.close()  # the server may have closed it in the meantime
        return self.request("POST", path, blocks(), **headers)

    def send_resumable(self, path: str, size: int, chunk: int) -> None:
        """Upload ``size`` MiB with tus, in requests of ``chunk`` MiB.

        :param path: of the uploads of an attachment.
        """
        self._connection.close()
        begin = {"Upload-Length": str(size * MIB), "Upload-Metadata": "filename ZmlsZS5wZGY="}
        url = self._exchange("POST", path, b"", {**TUS, **begin})["Location"]
        where = urlsplit(url).path
        for offset in range(0, size, chunk):
            count = min(chunk, size - offset)
            headers = {
                **TUS,
                "Upload-Offset": str(offset * MIB),
                "Content-Type": "application/offset+octet-stream",
                "Content-Length": str(count * MIB),
            }
            self._exchange("PATCH", where, (BLOCK for _ in range(count)), headers)

    def _exchange(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Any:
        """Send a request, and return the headers of the response."""
        self._connection.request(method, path, body, {**AUTHORIZATION, **headers})
        response = self._connection.getresponse()
        answer = response.read()
        if response.status >= 300:
            raise Failed(f"{method} {path}: {response.status} {answer[:500]!r}")
        return response.headers


def fetch(port: int, path: str, length: int, start: int = 0, take: Callable | None = None) -> None:
    """Download a file into the same buffer again and again.

    :param length: bytes of the whole file.
    :param start: the first byte to request.
    :param take: is called with each piece.
    """
    headers = f"Host: 127.0.0.1\r\nAuthorization: {AUTHORIZATION['Authorization']}\r\n"
    if start:
        headers += f"Range: bytes={start}-\r\n"
    remaining = length - start
    with closing(socket.create_connection(("127.0.0.1", port), timeout=600)) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\n{headers}\r\n".encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += sock.recv(4096) or b"\r\n\r\n"
        head, _, first = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 206" if start else b"HTTP/1.1 200"), head
        if take:
            take(first)
        remaining -= len(first)
        while remaining and (received := sock.recv_into(_buffer)):
            remaining -= received
            if take:
                take(_buffer[:received])
    assert remaining == 0, f"{remaining} bytes are missing"
