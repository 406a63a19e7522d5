"""``request.attachment``: its files stay, and it works where pyramid_storage is not installed."""

import io
import subprocess
import sys
from pathlib import Path

import transaction

from kinto_attachment.legacy.pyramid_storage import IFileStorage
from kinto_attachment.maintenance.fsck import fsck
from kinto_attachment.maintenance.gc import collect

SCRIPT = """
import io, sys
sys.modules["pyramid_storage"] = None  # importing it fails

from pyramid.request import Request, apply_request_extensions
from kinto_attachment.legacy.pyramid_storage import FileNotAllowed
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


def test_gc_and_fsck_know_its_files(make_server):
    """No record names them, although their keys look like ours."""
    site = make_server("local", **{"kinto.attachment.folder": ""})
    attachment = site.registry.getUtility(IFileStorage)
    with transaction.manager:
        key = attachment.save_file(io.BytesIO(b"content"), "a.txt", randomize=True)
    site.collection().record().upload(b"other")
    assert list(fsck(site.server)) == []
    assert list(collect(site.server, offline=True, force=True)) == []
    assert b"".join(site.storage.open(key)) == b"content"
