"""``gc`` beside an upload that is in progress, whatever age the operator asks for."""

import os
import time
from datetime import timedelta

import pytest

from kinto_attachment.attachments import records
from kinto_attachment.maintenance import gc as gc_module
from kinto_attachment.maintenance.gc import MIN_AGE, collect
from tests.support.site import call_wsgi
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
            if len(self.parts) == 1:
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
