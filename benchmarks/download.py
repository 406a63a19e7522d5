"""What a download costs the server, beside a bare program that hands the same file to it.

::

    python -m benchmarks.download [--size MIB] [--runs N] [--storage local|s3]

Server: gunicorn, gthread, one process, PostgreSQL. The rows are measured in turns and are medians;
CPU seconds and peak memory are the operating system's word on the serving process. With S3 there
are two floors: what streams the object, and what sends a local file.
"""

import json
import socket
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from hashlib import sha256
from pathlib import Path

from tests.servers import free_port
from tests.servers.wsgi import Gunicorn
from tests.site import SETTINGS, Site

from .machine import MIB, Runs, Worker, floor_server, kinto_settings, main, measure_in_turns
from .upload import AUTHORIZATION, BLOCK, RECORDS, send

BUFFER = memoryview(bytearray(MIB))
S3_ENV = {
    "AWS_ENDPOINT_URL_S3": "endpoint_url",
    "AWS_ACCESS_KEY_ID": "access_key",
    "AWS_SECRET_ACCESS_KEY": "secret_key",
    "AWS_DEFAULT_REGION": "region",
    "FLOOR_BUCKET": "bucket_name",
}


def fetch(
    port: int, path: str, length: int, start: int = 0, digest: Callable | None = None
) -> None:
    """Get a file of ``length`` bytes, or what of it is not before ``start``, into the same memory
    again and again: the client has no cores but the server's.

    :param digest: takes each piece.
    """
    headers = f"Host: 127.0.0.1\r\nAuthorization: {AUTHORIZATION}\r\n"
    if start:
        headers += f"Range: bytes={start}-\r\n"
    left = length - start
    with socket.create_connection(("127.0.0.1", port), timeout=600) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\n{headers}\r\n".encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += sock.recv(4096) or b"\r\n\r\n"
        head, _, first = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 206" if start else b"HTTP/1.1 200"), head
        if digest:
            digest(first)
        left -= len(first)
        while left and (received := sock.recv_into(BUFFER)):
            left -= received
            if digest:
                digest(BUFFER[:received])
    assert left == 0, f"{left} bytes are missing"


def digest_of(port: int, path: str, length: int, start: int) -> str:
    digest = sha256()
    fetch(port, path, length, start, digest.update)
    return digest.hexdigest()


def floors(stack: ExitStack, folder: Path, settings: dict[str, str]) -> dict[str, tuple[int, int]]:
    """Servers without Kinto, which have the files below their keys: process id and port, by the
    names of their rows."""
    aws = "kinto.attachment.aws."
    env = {name: settings.get(aws + option, "") for name, option in S3_ENV.items()}
    env["FLOOR_FOLDER"] = settings["kinto.attachment.base_path"]
    programs = {"floor": "send_file"}
    if env["FLOOR_BUCKET"]:
        programs = {"floor": "send_object", "floor, a local file": "send_file"}
    servers = {}
    for name, program in programs.items():
        port = free_port()
        servers[name] = (stack.enter_context(floor_server(program, folder, port, env)).pid, port)
    return servers


def upload(settings: dict[str, str], folder: Path, name: str, size: int) -> str:
    """Attach a file to a new record, and leave one for the floor; the path of that."""
    with Gunicorn(settings, folder) as kinto:
        answer = json.loads(send(kinto.port, f"{RECORDS}/{name}/attachment", size, form=True))
    key = answer["location"].removeprefix(SETTINGS["kinto.attachment.base_url"])
    path = Path(settings["kinto.attachment.base_path"]) / key
    if not path.exists():  # it is in S3
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.writelines(BLOCK for _ in range(size))
    return f"/{key}"


def run(folder: Path, size: int, runs: int, storage: str) -> Runs:
    whole, rest = sha256(), sha256(BLOCK[1:])
    for index in range(size):
        whole.update(BLOCK)
        rest.update(BLOCK if index else b"")
    with ExitStack() as stack:
        settings = kinto_settings(stack, folder, storage)
        Site(**settings)
        small, large = (upload(settings, folder, *file) for file in (("small", 1), ("large", size)))
        kinto = stack.enter_context(Gunicorn(settings, folder))
        rows = {}

        def add(names: dict[str, int], pid: int, port: int, small: str, large: str) -> None:
            """Rows of one server, and the first byte that each asks for."""
            # What is loaded at the first request is not the cost of a large one.
            for start in names.values():
                fetch(port, small, MIB, start)
            worker = Worker(pid)
            for name, start in names.items():
                expected = rest if start else whole
                assert digest_of(port, large, size * MIB, start) == expected.hexdigest()
                rows[name] = (worker, partial(fetch, port, large, size * MIB, start))

        for name, (pid, port) in floors(stack, folder, settings).items():
            add({name: 0}, pid, port, small, large)
        paths = (f"{RECORDS}/{name}/attachment" for name in ("small", "large"))
        add({"whole file": 0, "bytes=1-": 1}, kinto.pid, kinto.port, *paths)
        return measure_in_turns(rows, runs)


if __name__ == "__main__":
    main("Download", run, runs=31)
