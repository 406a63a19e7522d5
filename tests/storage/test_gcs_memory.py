"""The memory that a large upload and download take."""

import json
import os
import subprocess
import sys
import threading
from base64 import b64encode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import google_crc32c

from kinto_attachment.storage.gcs.storage import PART_BYTES


class FakeBucket(BaseHTTPRequestHandler):
    """An imitation of Google Cloud Storage with one large object of zeros, which it does not keep.
    (fake-gcs-server hashes the whole object again with every part.)"""

    protocol_version = "HTTP/1.1"
    size = 256 * 1024 * 1024

    def do_POST(self):
        type(self).checksum = google_crc32c.Checksum()
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(200, b"{}", Location=f"http://{self.headers['Host']}/upload")

    def do_PUT(self):
        left = int(self.headers["Content-Length"])
        while left:
            content = self.rfile.read(min(left, 1024 * 1024))
            self.checksum.update(content)
            left -= len(content)
        end = int(self.headers["Content-Range"].partition("-")[2].partition("/")[0])
        if end + 1 < self.size:
            self.answer(308, b"", Range=f"bytes=0-{end}")
        else:
            digest = b64encode(self.checksum.digest()).decode()
            self.answer(200, json.dumps({"crc32c": digest}).encode())

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(self.size))
        self.end_headers()
        for _ in range(self.size // PART_BYTES):
            self.wfile.write(bytes(PART_BYTES))

    def answer(self, status, body, **headers):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        """Log nothing."""


MEMORY = """
from kinto_attachment.files.blob import Source
from kinto_attachment.settings import read_settings
from kinto_attachment.storage import open_storage

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) // 1024

SIZE = 256 * 1024 * 1024
storage = open_storage(read_settings({
    "attachment.storage": "gcs", "attachment.gcloud.bucket_name": "files",
}))
with storage.spool() as file:
    storage.sign("a")  # connects
    file.truncate(SIZE)
    before = peak()
    storage.put("a", Source(file, "a", "text/plain", SIZE, "00"))
    stored = peak()
    size = sum(map(len, storage.open("a")))
print(size, stored - before, peak() - stored)
"""


def test_memory_is_constant():
    with ThreadingHTTPServer(("127.0.0.1", 0), FakeBucket) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        done = subprocess.run(
            [sys.executable, "-c", MEMORY],
            env={**os.environ, "STORAGE_EMULATOR_HOST": url},
            capture_output=True,
            text=True,
            timeout=60,
        )
        server.shutdown()
    assert done.returncode == 0, done.stderr
    size, put, read = map(int, done.stdout.split())
    assert size == FakeBucket.size
    assert put < 30 and read < 30, f"{put} MiB to put, {read} MiB to read"
