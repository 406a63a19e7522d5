"""``request.attachment`` where pyramid_storage is not installed."""

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import io, sys
sys.modules["pyramid_storage"] = None  # importing it fails

from pyramid.request import Request, apply_request_extensions
from kinto_attachment.storage.pyramid_storage import FileNotAllowed
from tests.support.site import Site

site = Site(**{
    "kinto.storage_backend": "kinto.core.storage.memory",
    "kinto.permission_backend": "kinto.core.permission.memory",
    "kinto.cache_backend": "kinto.core.cache.memory",
    "kinto.attachment.storage": "memory",
})
request = Request.blank("/")
request.registry = site.registry
apply_request_extensions(request)
key = request.attachment.save_file(io.BytesIO(b"content"), "a.txt", folder="app")
assert b"".join(site.storage.open(key)) == b"content"
try:
    request.attachment.save_file(io.BytesIO(b"content"), "a.exe")
except FileNotAllowed:
    print(key)
site.collection().record().upload(b"content")
"""


def test_it_works_without_the_package():
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=root, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "app/a.txt\n"), done.stderr
