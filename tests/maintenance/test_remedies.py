"""What ``fsck`` advises mends what it found."""

import pytest

from kinto_attachment.finding import restoring
from kinto_attachment.maintenance.fsck import fsck
from tests.support.legacy import adopt
from tests.support.maintenance import change, check, gc
from tests.support.site import ALICE

FIELD_NAMES = {"attachment", "cover"}


@pytest.mark.parametrize("lost", ["once", "never"])
def test_record_without_link(request, make_server, files, lost):
    """A link that is gone, with or without a trace of it, while the file is still there."""
    site = make_server(files)
    record = site.collection().record()
    record.upload(b"content")
    storage, where = site.registry.storage, ("attachment-link", "/attachment-links/*")
    site.in_transaction(lambda: storage.delete_all(*where, with_deleted=lost == "once"))
    ((kind, _, uri),) = [found for found in check(site) if found[0] == "record without link"]
    assert uri == record.place.uri
    assert [finding.kind for finding in adopt(site)] == ["adopted"]
    assert check(site) == []
    body = {"data": {"title": "edited"}}
    assert record.http.patch_json(record.uri, body, headers=ALICE).json["data"]["title"] == "edited"
    assert record.http.get(record.attachment_uri, headers=ALICE).body == b"content"
    record.upload(b"another")
    record.check(b"another")


def test_private_record_without_link(make_server):
    """Its location does not say which file it is, so the file is uploaded again."""
    site = make_server("local", **{"kinto.attachment.private": "true"})
    record = site.collection().record()
    record.upload(b"content")
    storage, where = site.registry.storage, ("attachment-link", "/attachment-links/*")
    site.in_transaction(lambda: storage.delete_all(*where))
    found = {finding.kind: finding for finding in fsck(site.server)}
    assert set(found) == {"record without link", "orphan object"}
    assert found["record without link"].remedy == restoring(record.place.uri)
    record.upload(b"content")
    gc(site)
    assert check(site) == []
    record.http.patch_json(record.uri, {"data": {"title": "edited"}}, headers=ALICE)
    assert record.http.get(record.attachment_uri, headers=ALICE).body == b"content"


def test_wrong_location(make_server):
    """No old ``base_url`` explains it, so ``rebase`` does not mend it."""
    site = make_server("local")
    record = site.collection().record()
    record.upload(b"content")
    change(record, location="https://cdn.example/files/other.txt")
    (finding,) = fsck(site.server)
    assert (finding.kind, finding.remedy) == (
        "wrong location",
        f"upload the file again: POST {record.place.url_path}",
    )
    record.upload(b"content")
    assert check(site) == []
    record.check(b"content")
