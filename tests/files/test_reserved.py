"""Names that the plugin uses for itself: a file that has one must not be in its way."""

import re
from hashlib import sha256
from itertools import count

import pytest
import transaction

from kinto_attachment.errors import SettingError
from kinto_attachment.files.key import MARKER, RESERVED
from kinto_attachment.legacy.pyramid_storage import IFileStorage
from kinto_attachment.settings import read_settings
from tests.support.site import ALICE

DIGEST = sha256(b"content").hexdigest()
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


class TestFoldersOfOthers:
    """On a local storage, a file is in the way of a folder. No upload makes such a file."""

    @pytest.fixture
    def start(self, make_server):
        """Start a server whose buckets have settings of their own; return a function that posts a
        file to a bucket and returns the key."""

        def start(files="local", **settings):
            resources = {f"kinto.attachment.resources.{name}": settings[name] for name in settings}
            site = make_server(files, **PLAIN, **resources)
            records, before = count(), {*site.keys, MARKER}

            def upload(bucket, name):
                for uri in (f"/buckets/{bucket}", f"/buckets/{bucket}/collections/c"):
                    site.http.put_json(uri, {}, headers=ALICE)
                uri = f"/buckets/{bucket}/collections/c/records/r{next(records)}/attachment"
                files = [("attachment", name, b"content")]
                site.http.post(uri, headers=ALICE, upload_files=files, status=201)
                assert site.http.get(uri, headers=ALICE).body == b"content"
                (key,) = set(site.keys) - before
                before.add(key)
                assert site.plugin.settings.makes(key)
                return key

            upload.site = site
            return upload

        return start

    @pytest.mark.parametrize(
        "setting, value, bucket, name, other",
        [
            ("blog.folder", "blog/files", "any", "blog", "a.txt"),
            ("blog.folder", "blog/files", "any", "Blog", "a.txt"),
            ("blog.folder", "any/name/files", "any", "name", "a.txt"),
            ("blog.folder", "{bucket_id}", "any", "blog", "a.txt"),
            ("private.folder", "{bucket_id}", "any", "private", "a.txt"),
            ("blog.filename_pattern", "{shard}/{hash}", "any", DIGEST[:2], "a.txt"),
            ("blog.filename_pattern", "{filename}/{hash}", "any", "a.zip", "a.zip"),
            ("blog.filename_pattern", "{record_id}/{filename}", "any", "r2", "a.txt"),
        ],
    )
    def test_no_file_is_in_their_way(self, start, setting, value, bucket, name, other):
        own = {"any.folder": "any"} if value.startswith("any/") else {}
        upload = start(**{setting: value}, **own)
        stem, dot, extension = name.partition(".")
        assert upload(bucket, name).rpartition("/")[2].startswith(f"{stem}~")
        assert upload(bucket, name).endswith(dot + extension)  # the name is taken
        upload(setting.partition(".")[0], other)

    def test_other_names_stay(self, start):
        settings = {"blog.folder": "blog/files", "blog.filename_pattern": "{shard}/{hash}"}
        upload = start(**settings, **{"deep.folder": "blog"})
        for name in ("a.txt", "README", "blog.txt", "abc", "files"):
            assert upload("any", name) == name
        assert upload("deep", "a.txt") == "blog/a.txt"
        assert upload("blog", "a.txt") == f"blog/files/{DIGEST[:2]}/{DIGEST}"

    @pytest.mark.parametrize("pattern", ["{filename}", "{hash}{extension}"])
    def test_names_of_uuids_and_hashes_stay(self, start, pattern):
        names = {"any.randomize": "true", "any.filename_pattern": pattern}
        upload = start(**names, **{"blog.folder": "{bucket_id}/{collection_id}"})
        assert "~" not in upload("any", "a.txt")
        assert ("~" in upload("any", "README")) == (pattern != "{filename}")

    def test_names_in_a_bucket(self, start):
        upload = start("seaweedfs", **{"blog.folder": "{bucket_id}"})
        assert upload("any", "README") == "README~"
        assert upload("any", "a.txt") == "a.txt"
        assert re.fullmatch("a-[0-9a-f]{8}.txt", upload("any", "a.txt"))

    def test_an_application(self, start):
        upload = start(**{"blog.folder": "blog/files"})
        attachment = upload.site.registry.getUtility(IFileStorage)
        with upload.site.storage.spool() as file, transaction.manager:
            file.write(b"content")
            file.flush()
            assert attachment.save_file(file, "blog") == "blog~"
            assert attachment.save_file(file, "files", folder="blog") == "blog/files~"
