"""What an upload costs the server, beside a bare program that does only the I/O.

::

    python -m benchmarks.upload [--size MIB] [--runs N] [--storage local|s3]

Server: gunicorn, gthread, one process, PostgreSQL. The rows are measured in turns and are medians;
CPU seconds and peak memory are the operating system's word on the serving process.
"""

import argparse
import http.client
import os
import statistics
import sys
import tempfile
import time
from base64 import b64encode
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path

import psutil

from tests.servers import Process, free_port, is_listening
from tests.servers.postgresql import PostgreSQL
from tests.servers.s3 import SeaweedFS
from tests.servers.wsgi import BIN, Gunicorn
from tests.site import Site

ROOT = Path(__file__).resolve().parent.parent
MIB = 1024 * 1024
BLOCK = os.urandom(MIB)
BOUNDARY = "benchmark"
HEAD = (
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="attachment"; '
    'filename="large.pdf"\r\nContent-Type: application/pdf\r\n\r\n'
).encode()
TAIL = f"\r\n--{BOUNDARY}--\r\n".encode()
AUTHORIZATION = "Basic " + b64encode(b"alice:secret").decode()


class Worker:
    """The process of gunicorn that serves."""

    def __init__(self, pid: int):
        (self._process,) = psutil.Process(pid).children()

    def cpu(self) -> float:
        times = self._process.cpu_times()
        return times.user + times.system

    def rss(self) -> float:
        """MiB at this moment."""
        return self._process.memory_info().rss / MIB

    def peak(self) -> float:
        """MiB at most, since the last :meth:`forget_peak`."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024

    def forget_peak(self) -> None:
        Path(f"/proc/{self._process.pid}/clear_refs").write_text("5")  # proc(5)


def send(port: int, method: str, path: str, size: int, form: bool) -> tuple[int, bytes]:
    """Send ``size`` MiB, block by block."""
    head, tail = (HEAD, TAIL) if form else (b"", b"")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    connection.putrequest(method, path)
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
    return response.status, body


def measure(worker: Worker, upload) -> dict[str, float]:
    idle, cpu = worker.rss(), worker.cpu()
    worker.forget_peak()
    started = time.monotonic()
    upload()
    seconds = time.monotonic() - started
    return {"cpu": worker.cpu() - cpu, "memory": worker.peak() - idle, "seconds": seconds}


def floor_server(folder: Path, port: int) -> Process:
    options = f"--workers 1 --worker-class gthread --threads 8 --timeout 600 -b 127.0.0.1:{port}"
    command = [str(BIN / "gunicorn"), "benchmarks.floor:application", *options.split()]
    env = {"FLOOR_FOLDER": str(folder), "PYTHONPATH": str(ROOT)}
    return Process(command, folder, lambda: is_listening(port), env)


def report(rows: dict[str, list[dict[str, float]]], size: int, storage: str) -> None:
    print(f"\nUpload of {size} MiB, {storage}, gunicorn gthread; medians of {len(rows['floor'])}\n")
    print(f"{'':24}{'CPU s':>8}{'x floor':>9}{'MiB over idle':>15}{'MiB/s':>8}")
    floor = statistics.median(run["cpu"] for run in rows["floor"])
    for name, runs in rows.items():
        cpu, memory, seconds = (
            statistics.median(run[key] for run in runs) for key in ("cpu", "memory", "seconds")
        )
        print(f"{name:24}{cpu:8.2f}{cpu / floor:9.2f}{memory:15.1f}{size / seconds:8.0f}")


def kinto_settings(stack: ExitStack, folder: Path, storage: str) -> dict[str, str]:
    """Settings of a Kinto on a PostgreSQL of its own, with its files where asked for."""
    url = stack.enter_context(PostgreSQL(folder)).create_database()
    settings = {
        "kinto.storage_backend": "kinto.core.storage.postgresql",
        "kinto.storage_url": url,
        "kinto.permission_backend": "kinto.core.permission.postgresql",
        "kinto.permission_url": url,
        "kinto.attachment.base_path": str(folder / "files"),
    }
    if storage == "s3":
        server = stack.enter_context(SeaweedFS(folder))
        s3 = server.settings(server.bucket())
        settings.update({f"kinto.{key}": value for key, value in s3.items()})
    return settings


def run(folder: Path, size: int, runs: int, storage: str) -> dict[str, list[dict[str, float]]]:
    digest = sha256()
    for _ in range(size):
        digest.update(BLOCK)
    path = "/v1/buckets/default/collections/c/records/r/attachment"
    port = free_port()
    with ExitStack() as stack:
        settings = kinto_settings(stack, folder, storage)
        Site(**settings)
        floor = stack.enter_context(floor_server(folder, port))
        kinto = stack.enter_context(Gunicorn(settings, folder))

        def upload_floor(size=size):
            status, body = send(port, "POST", "/", size, form=False)
            assert status == 200
            return body

        def upload_kinto(size=size):
            status, body = send(kinto.port, "POST", path, size, form=True)
            assert status in (200, 201), body
            return body

        # What is loaded at the first request is not the cost of a large one.
        upload_floor(1)
        upload_kinto(9)
        assert upload_floor().decode() == digest.hexdigest()
        assert digest.hexdigest() in upload_kinto().decode()
        rows = {"floor": [], "kinto-attachment": []}
        for _ in range(runs):
            rows["floor"].append(measure(Worker(floor.pid), upload_floor))
            rows["kinto-attachment"].append(measure(Worker(kinto.pid), upload_kinto))
        return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=1024, help="MiB of the file")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--storage", choices=["local", "s3"], default="local")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCHMARK_FOLDER")) as folder:
        rows = run(Path(folder), options.size, options.runs, options.storage)
    report(rows, options.size, options.storage)
    return 0


if __name__ == "__main__":
    sys.exit(main())
