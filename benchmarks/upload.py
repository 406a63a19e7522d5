"""What an upload costs the server, beside a bare program that does only the I/O.

::

    python -m benchmarks.upload [--size MIB] [--runs N] [--storage local|s3]

Server: gunicorn, gthread, one process, PostgreSQL. The rows are measured in turns and are medians;
CPU seconds and peak memory are the operating system's word on the serving process.
"""

import http.client
import os
from base64 import b64encode
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path

from tests.servers import free_port
from tests.servers.wsgi import Gunicorn
from tests.site import Site

from .machine import MIB, Runs, Worker, floor_server, kinto_settings, main, measure_in_turns

BLOCK = os.urandom(MIB)
BOUNDARY = "benchmark"
HEAD = (
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="attachment"; '
    'filename="large.pdf"\r\nContent-Type: application/pdf\r\n\r\n'
).encode()
TAIL = f"\r\n--{BOUNDARY}--\r\n".encode()
AUTHORIZATION = "Basic " + b64encode(b"alice:secret").decode()
RECORDS = "/v1/buckets/default/collections/c/records"


def send(port: int, path: str, size: int, *, form: bool) -> bytes:
    """Post ``size`` MiB, block by block; what is answered."""
    head, tail = (HEAD, TAIL) if form else (b"", b"")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    connection.putrequest("POST", path)
    connection.putheader("Authorization", AUTHORIZATION)
    if form:
        connection.putheader("Content-Type", f"multipart/form-data; boundary={BOUNDARY}")
    connection.putheader("Content-Length", str(len(head) + size * MIB + len(tail)))
    connection.endheaders()
    connection.send(head)
    for _ in range(size):
        connection.send(BLOCK)
    connection.send(tail)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    assert response.status in (200, 201), body
    return body


def run(folder: Path, size: int, runs: int, storage: str) -> Runs:
    digest = sha256()
    for _ in range(size):
        digest.update(BLOCK)
    port = free_port()
    with ExitStack() as stack:
        settings = kinto_settings(stack, folder, storage)
        Site(**settings)
        env = {"FLOOR_FOLDER": str(folder)}
        floor = stack.enter_context(floor_server("receive", folder, port, env))
        kinto = stack.enter_context(Gunicorn(settings, folder))

        def upload_floor(size=size):
            return send(port, "/", size, form=False)

        def upload_kinto(size=size):
            return send(kinto.port, f"{RECORDS}/r/attachment", size, form=True)

        # What is loaded at the first request is not the cost of a large one.
        upload_floor(1)
        upload_kinto(9)
        rows = {
            "floor": (Worker(floor.pid), upload_floor),
            "kinto-attachment": (Worker(kinto.pid), upload_kinto),
        }
        assert upload_floor().decode() == digest.hexdigest()
        assert digest.hexdigest() in upload_kinto().decode()
        return measure_in_turns(rows, runs)


if __name__ == "__main__":
    main("Upload", run, runs=3)
