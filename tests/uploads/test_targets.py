"""What uploads become: files of other fields and of lists, media, and files of the library."""

from hashlib import sha256

import pytest

from tests.support.fields import FIELDS
from tests.support.library import jpeg
from tests.support.site import ALICE, BOB
from tests.support.tus import Uploads

FILES = {"local", "seaweedfs"}

LIBRARY = {"kinto.attachment.library.bucket": "resumed"}


class TestFields:
    @pytest.fixture
    def site(self, make_site, kinto, files):
        return make_site(kinto, files, **FIELDS)

    def test_single(self, site, record, staged):
        uploads = Uploads(site.http, f"{record.uri}/attachments/cover/uploads")
        created = uploads.create(5, b"hel")
        last = uploads.patch(created.headers["Location"], 3, b"lo")
        assert last.headers["Content-Location"].endswith(f"{record.uri}/attachments/cover")
        assert record.data["cover"]["hash"] == sha256(b"hello").hexdigest()
        assert site.http.get(f"{record.uri}/attachments/cover", headers=ALICE).body == b"hello"
        assert staged() == []

    def test_list(self, site, record):
        uploads = Uploads(site.http, f"{record.uri}/attachments/pictures/uploads")
        for content in (b"one", b"two"):
            created = uploads.create(3, content)
            where = created.headers["Location"]
            entry = created.json
            assert record.data["pictures"][-1] == entry
            location = created.headers["Content-Location"]
            assert location.endswith(f"/attachments/pictures/{entry['id']}")
            assert uploads.head(where).headers["Upload-Offset"] == "3"
        assert len(record.data["pictures"]) == 2

    def test_a_full_list(self, make_site, kinto, files):
        settings = {**FIELDS, "kinto.attachment.max_files": "1"}
        site = make_site(kinto, files, **settings)
        record = site.collection().record()
        uploads = Uploads(site.http, f"{record.uri}/attachments/pictures/uploads")
        first, second = (uploads.create(3).headers["Location"] for _ in range(2))
        uploads.patch(first, 0, b"one")
        uploads.patch(second, 0, b"two", status=400)
        uploads.create(3, status=400)
        assert uploads.offset(second) == 0
        assert len(record.data["pictures"]) == 1

    def test_undeclared(self, site, record):
        uploads = Uploads(site.http, f"{record.uri}/attachments/other/uploads")
        uploads.create(3, status=404)

    def test_default_bucket(self, site):
        record = "/buckets/default/collections/c/records/r"
        for where in ("attachment", "attachments/cover"):
            uploads = Uploads(site.http, f"{record}/{where}/uploads")
            created = uploads.create(5, b"hel")
            url = created.headers["Location"]
            assert url.partition("/v1")[2].startswith(uploads.base)
            assert uploads.offset(url) == 3
            uploads.patch(url, 3, b"lo")
        assert site.http.get(f"{record}/attachment", headers=ALICE).body == b"hello"


class TestStore:
    @pytest.fixture(params=[{}, LIBRARY], ids=["", "library"])
    def site(self, make_site, kinto, files, request):
        return make_site(kinto, files, **request.param)

    @pytest.fixture
    def uploads(self, site):
        return Uploads(site.http, "/media/uploads")

    def test_pieces(self, site, uploads, staged):
        content = b"media of the store"
        created = uploads.create(len(content), content[:5], target="store", filetype="text/plain")
        last = uploads.patch(created.headers["Location"], 5, content[5:])
        digest = sha256(content).hexdigest()
        assert last.headers["Content-Location"].endswith(f"/v1/media/{digest}")
        assert last.headers["ETag"] == f'"{digest}"'
        found = site.http.get(f"/media/{digest}", headers=ALICE)
        assert (found.body, found.content_type) == (content, "text/plain")
        assert staged() == []
        again = uploads.create(len(content), content, target="store")
        assert again.headers["Content-Location"] == last.headers["Content-Location"]

    def test_needs_no_filename(self, uploads):
        uploads.create(1, b"x", target="store", filename="")

    def test_empty(self, uploads):
        uploads.create(0, target="store", status=400)

    @pytest.mark.parametrize("values", [{"target": "shelf"}, {"target": "store", "data": "{}"}])
    def test_refused(self, uploads, values):
        uploads.create(1, status=400, **values)

    def test_anonymous(self, site):
        Uploads(site.http, "/media/uploads", {}).create(1, target="store", status=401)

    def test_of_others(self, site, uploads):
        url = uploads.create(5, b"hel", target="store").headers["Location"]
        bobs = Uploads(site.http, "/media/uploads", BOB)
        bobs.head(url, status=404)
        bobs.patch(url, 3, b"lo", status=404)
        bobs.delete(url, status=404)


class TestLibrary:
    @pytest.fixture
    def site(self, make_site, kinto, files):
        site = make_site(kinto, files, **LIBRARY)
        site.http.put_json("/buckets/resumed", {}, headers=ALICE, status="*")
        site.http.put_json("/buckets/resumed/collections/media", {}, headers=ALICE, status="*")
        return site

    @pytest.fixture
    def uploads(self, site):
        return Uploads(site.http, "/media/uploads")

    def test_image(self, site, uploads, staged):
        content = jpeg()
        url = uploads.create(len(content), content[:100], filename="a.jpg").headers["Location"]
        last = uploads.patch(url, 100, content[100:], status=200)
        facts = last.json
        assert last.headers["Upload-Offset"] == str(len(content))
        form = site.http.post(
            "/media", upload_files=[("file", "a.jpg", content)], headers=ALICE
        ).json
        varying = ("id", "url")
        assert {**facts, **dict.fromkeys(varying)} == {**form, **dict.fromkeys(varying)}
        created = site.http.post_json("/content/_media", {**facts, "alt": ""}, headers=ALICE)
        assert created.status_int == 201
        # For a client that the response did not reach.
        assert uploads.get(url).json["file"] == facts
        assert uploads.offset(url) == len(content)
        assert staged() == []

    def test_at_creation(self, uploads):
        created = uploads.create(5, b"hello")
        assert created.json["fileName"] == "a.txt"

    def test_without_permission(self, site):
        bobs = Uploads(site.http, "/media/uploads", BOB)
        bobs.create(5, status=403)
        bobs.create(5, target="store")
