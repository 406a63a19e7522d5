"""Failures of every storage call of a resumable upload: it goes on from the offset that it tells,
and the file is whole."""

import os

import pytest
import transaction

from kinto_attachment.maintenance.fsck import fsck
from kinto_attachment.maintenance.gc import collect
from kinto_attachment.maintenance.server import Server
from tests.support.site import ALICE, Site
from tests.support.tus import Uploads
from tests.system.test_faults import failing_call

CHUNK = 256 * 1024
CONTENT = os.urandom(2 * CHUNK + 100)


@pytest.fixture(params=["local", pytest.param("moto", marks=pytest.mark.slow)])
def faulty_files(request):
    return request.param


@pytest.fixture
def site(make_database, file_settings, faulty_files):
    size = {"kinto.attachment.uploads.segment_size": "256KiB"}
    site = Site(**make_database(), **file_settings(faulty_files), **size)
    yield site
    site.close()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_storage_calls(site, after):
    number = 1
    while True:
        record = site.collection().record()
        uploads = Uploads(site.http, f"{record.attachment_uri}/uploads")
        with failing_call(site.storage, number, after) as seen:
            created = uploads.http.post(
                uploads.base,
                CONTENT[:CHUNK],
                headers={
                    **ALICE,
                    "Tus-Resumable": "1.0.0",
                    "Upload-Length": str(len(CONTENT)),
                    "Upload-Metadata": "filename YS50eHQ=",
                    "Content-Type": "application/offset+octet-stream",
                },
                status="*",
            )
            if created.status_int == 201:
                url = created.headers["Location"]
                answer = uploads.patch(url, CHUNK, CONTENT[CHUNK:], status="*")
        if created.status_int == 201:
            assert answer.status_int in (204, 503), answer
            offset = uploads.offset(url)
            assert offset % CHUNK == 0 or offset == len(CONTENT)
            if offset < len(CONTENT):
                site.http.get(record.uri, headers=ALICE, status=404)
                uploads.patch(url, offset, CONTENT[offset:])
            record.check(CONTENT)
        else:
            assert created.status_int == 503
            for left in uploads.get(uploads.base).json:
                uploads.delete(f"{uploads.base}/{left['id']}")
        job = Server.of(site.registry, transaction.manager)
        list(collect(job, offline=True, force=True))
        assert list(fsck(job, deep=True)) == []
        linked = site.in_transaction(lambda: {link.key for link in site.links.all()})
        assert {stat.key for stat in site.storage.list()} == linked
        if len(seen) < number:
            break  # the upload makes no more calls
        number += 1
    assert number > 5
