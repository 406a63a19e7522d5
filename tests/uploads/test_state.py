"""What ``GET {upload}`` tells about an upload."""

from uuid import uuid4

import pytest

from tests.support.site import ALICE
from tests.support.tus import Uploads

FILES = ["local"]


class TestFile:
    """A client whose last response was lost learns what has become of the file."""

    def test_of_a_record(self, site):
        record = site.collection().record()
        uploads = Uploads(record.http, f"{record.attachment_uri}/uploads")
        url = uploads.create(5).headers["Location"]
        assert uploads.get(url).json["file"] is None
        sent = uploads.patch(url, 0, b"hello")
        found = uploads.get(url)
        assert found.json["state"] == "attached"
        assert found.json["file"] == record.data["attachment"]
        assert found.headers["ETag"] == sent.headers["ETag"]

    @pytest.fixture
    def library(self, make_site, kinto):
        bucket = f"b{uuid4().hex}"
        site = make_site(kinto, "local", **{"kinto.attachment.library.bucket": bucket})
        for uri in (f"/buckets/{bucket}", f"/buckets/{bucket}/collections/media"):
            site.http.put_json(uri, {}, headers=ALICE)
        return Uploads(site.http, "/media/uploads")

    def test_of_the_library(self, library):
        url = library.create(5, target="library").headers["Location"]
        sent = library.patch(url, 0, b"hello", status=200)
        assert library.get(url).json["file"] == sent.json
        assert sent.json["fileName"] == "a.txt"
