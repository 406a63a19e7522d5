"""``gc`` beside an upload that is in progress, whatever age the operator asks for."""

import os
import time
from datetime import timedelta

import pytest

from kinto_attachment.attachments import records
from kinto_attachment.maintenance import gc as gc_module
from kinto_attachment.maintenance.gc import MIN_AGE, collect
from kinto_attachment.transactions.files import FileTransaction
from kinto_attachment.transactions.streaming import StreamedFile
from tests.support.site import call_wsgi
from tests.support.streaming import (
    LARGE,
    check_nothing_is_left,
    content_of,
    failing,
    reservations,
    uploads,
    watched,
)
from tests.support.threads import in_thread

NOW = timedelta(0)


@pytest.fixture(params=["local", "seaweedfs"])
def site(request, make_server, monkeypatch):
    site = make_server(request.param)
    monkeypatch.setattr(gc_module, "MIN_AGE", MIN_AGE)  # make_server() sets it to 0
    return site


@pytest.mark.parametrize("older_than", [NOW, timedelta(minutes=59)])
@pytest.mark.parametrize("force", [False, True])
def test_an_upload_that_waits_for_a_lock(site, monkeypatch, older_than, force):
    record = site.collection().record()
    record.put()
    attach = records.attach

    def attach_late(*args, **options):
        in_thread(lambda: found.extend(collect(site.server, older_than, force=force)))
        return attach(*args, **options)

    found = []
    monkeypatch.setattr("kinto_attachment.attachments.views.attach", attach_late, raising=False)
    monkeypatch.setattr(records, "attach", attach_late)
    record.upload(b"content", status=200)
    assert found == []
    record.check(b"content")


def test_a_form_that_ends_long_after_its_file(site, monkeypatch):
    """The file is as young as its publication, not as its last byte."""
    spool, spools = site.storage.backend.spool, []

    def kept_spool():
        spools.append(spool())
        return spools[-1]

    monkeypatch.setattr(site.storage.backend, "spool", kept_spool)

    class SlowForm:
        parts = [
            b'--X\r\nContent-Disposition: form-data; name="attachment"; filename="a.txt"\r\n\r\n'
            b'content\r\n--X\r\nContent-Disposition: form-data; name="data"\r\n\r\n{"a"',
            b": 1}\r\n--X--\r\n",
        ]
        length = sum(map(len, parts))

        def __init__(self):
            self.parts = [*self.parts]

        def read(self, size=-1):
            if len(self.parts) == 1 and not spools[-1].closed:
                spools[-1].flush()
                two_hours_ago = time.time() - 2 * 3600
                os.utime(spools[-1].fileno(), (two_hours_ago, two_hours_ago))
            return self.parts.pop(0) if self.parts else b""

    attach = records.attach

    def attach_late(*args, **options):
        in_thread(lambda: found.extend(collect(site.server, NOW)))
        return attach(*args, **options)

    found = []
    monkeypatch.setattr(records, "attach", attach_late)
    site.collection().record().upload(b"another")  # gc refuses to run without any
    record = site.collection().record()
    answer = call_wsgi(
        record,
        {
            "REQUEST_METHOD": "POST",
            "CONTENT_TYPE": "multipart/form-data; boundary=X",
            "CONTENT_LENGTH": str(SlowForm.length),
            "wsgi.input": SlowForm(),
        },
    )
    assert answer.status_int == 201
    assert found == []
    record.check(b"content")


def test_offline_spares_nothing(site):
    site.collection().record().upload(b"content")
    site.put("b/fonts/38e4e0f8-1419-4a38-a3f3-a30f62ecc133.txt")
    assert list(collect(site.server, NOW)) == []
    (finding,) = collect(site.server, NOW, offline=True)
    assert finding.kind == "deleted"


class TestStreaming:
    """Uploads that the storage has in part, or whole, before their record is written."""

    @pytest.fixture(params=["moto", "seaweedfs", "gcs"])
    def site(self, request, make_server):
        # With gc.MIN_AGE = 0: the last byte may be much younger than the storage says.
        site = make_server(request.param)
        site.collection().record().upload(b"another")  # gc refuses to run without any
        return site

    def test_while_it_arrives(self, site):
        record, found, content = site.collection().record(), [], content_of(LARGE)

        def run_gc(name):
            in_thread(lambda: found.extend(collect(site.server, NOW)))

        with watched(site.storage, on_call=run_gc) as seen:
            record.upload(content)
        assert "finish" in seen and found == []
        record.check(content)

    def test_when_it_is_stored(self, site, monkeypatch):
        record, found, content = site.collection().record(), [], content_of(LARGE)
        attach = records.attach

        def attach_late(*args, **options):
            in_thread(lambda: found.extend(collect(site.server, NOW)))
            return attach(*args, **options)

        monkeypatch.setattr(records, "attach", attach_late)
        record.upload(content)
        assert found == []
        record.check(content)

    def test_a_process_that_died(self, site, monkeypatch):
        record = site.collection().record()
        # Nothing that comes after the last byte happens.
        monkeypatch.setattr(StreamedFile, "close", lambda file: None)
        monkeypatch.setattr(FileTransaction, "settle", lambda files: None)
        with watched(site.storage, on_call=failing("finish")):
            record.upload(content_of(LARGE), status=503)
        monkeypatch.undo()
        assert list(collect(site.server, NOW)) == []
        (key,) = uploads(site) or [None]
        assert len(reservations(site)) == 1
        found = [finding.key for finding in collect(site.server, NOW, offline=True)]
        assert found == ([key] if key else [])
        check_nothing_is_left(record)
