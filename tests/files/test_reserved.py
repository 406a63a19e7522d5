"""Names that the plugin uses for itself: a file that has one must not be in its way."""

import pytest

from kinto_attachment.errors import SettingError
from kinto_attachment.files.key import RESERVED
from kinto_attachment.legacy.pyramid_storage import IFileStorage
from kinto_attachment.settings import read_settings
from tests.support.site import ALICE

PLAIN = {
    "kinto.attachment.folder": "",
    "kinto.attachment.randomize": "false",
    "kinto.attachment.extensions": "any",
}


@pytest.fixture(params=["local", "seaweedfs"])
def make(request, make_server):
    return lambda **settings: make_server(request.param, **PLAIN, **settings)


@pytest.mark.parametrize("name", ["private", "Private", "_media", "__heartbeat__", ".private."])
def test_files_in_an_empty_folder(make, name):
    site = make()
    record = site.collection().record()
    record.upload(b"content", name, status=201)
    check_all_works(site)
    got = record.http.get(record.attachment_uri, headers=ALICE)
    assert got.body == b"content"
    assert record.data["attachment"]["filename"] == name
    other = site.collection().record()
    other.upload(b"another", name, status=201)
    assert other.http.get(other.attachment_uri, headers=ALICE).body == b"another"


@pytest.mark.parametrize("pattern", ["{record_id}", "{record_id}/{filename}", "{bucket_id}"])
def test_ids(make, pattern):
    site = make(**{"kinto.attachment.filename_pattern": pattern})
    site.http.put_json("/buckets/private", {}, headers=ALICE)
    site.http.put_json("/buckets/private/collections/c", {}, headers=ALICE)
    uri = "/buckets/private/collections/c/records/private"
    files = [("attachment", "a.txt", b"content")]
    site.http.post(f"{uri}/attachment", headers=ALICE, upload_files=files, status=201)
    check_all_works(site)
    assert site.http.get(f"{uri}/attachment", headers=ALICE).body == b"content"
    (key,) = [key for key in site.keys if not key.startswith("private/_media/")]
    assert key.startswith("private~")
    assert site.plugin.settings.makes(key)


def test_an_application(make):
    site = make()
    attachment = site.registry.getUtility(IFileStorage)
    with site.storage.spool() as file:
        file.write(b"content")
        file.flush()
        assert attachment.save_file(file, "private") == "private~"
    check_all_works(site)


def check_all_works(site) -> None:
    site.http.post("/media", b"media", headers=ALICE, status=201)
    assert site.http.get("/__heartbeat__").json["attachments"] is True


@pytest.mark.parametrize("name", sorted(RESERVED))
@pytest.mark.parametrize("below", ["", "/{bucket_id}"])
def test_settings(name, below):
    base = {"attachment.base_path": "/srv/files"}
    with pytest.raises(SettingError, match="attachment.folder: is reserved"):
        read_settings({**base, "attachment.folder": name + below})
    with pytest.raises(SettingError, match="attachment.resources.b.folder: is reserved"):
        read_settings({**base, "attachment.resources.b.folder": name.upper() + below})
    pattern = {"attachment.randomize": "false", "attachment.filename_pattern": name}
    with pytest.raises(SettingError, match="attachment.filename_pattern: is reserved"):
        read_settings({**base, **pattern})
