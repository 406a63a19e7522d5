"""What direct uploads become: files of other fields and of lists, media, and files of the
library."""

from base64 import b64encode
from uuid import uuid4

import pytest

from tests.support.direct import DirectUploads, digest
from tests.support.fields import FIELDS
from tests.support.library import jpeg
from tests.support.site import ALICE, BOB

FILES = {"local", "seaweedfs"}

LIBRARY = {"kinto.attachment.library.bucket": "direct"}

CONTENT = b"hello world"


class TestFields:
    @pytest.fixture
    def site(self, make_site, kinto, files):
        return make_site(kinto, files, **FIELDS)

    def test_single(self, site, record, staged):
        direct = DirectUploads(site.http, f"{record.uri}/attachments/cover/uploads")
        done = direct.complete(direct.send(CONTENT))
        assert done.json == record.data["cover"]
        assert done.headers["Location"].endswith(record.uri)
        assert site.http.get(f"{record.uri}/attachments/cover", headers=ALICE).body == CONTENT
        assert staged() == []

    def test_list(self, site, record, staged):
        direct = DirectUploads(site.http, f"{record.uri}/attachments/pictures/uploads")
        uploads = [direct.send(CONTENT, hash=digest(CONTENT)), direct.send(b"other")]
        for described in uploads:
            done = direct.complete(described)
            entry = record.data["pictures"][-1]
            assert done.json == entry
            where = f"{record.uri}/attachments/pictures/{entry['id']}"
            assert done.headers["Location"].endswith(where)
            again = direct.complete(described)
            assert again.json == entry
        assert len(record.data["pictures"]) == 2
        assert staged() == []

    def test_default_bucket_of_a_new_user(self, site):
        """The URLs in the responses are those that the user can use."""
        headers = {"Authorization": f"Basic {b64encode(uuid4().hex.encode() + b':x').decode()}"}
        record = "/buckets/default/collections/c/records/r"
        direct = DirectUploads(site.http, f"{record}/attachment/uploads", headers)
        described = direct.send(CONTENT)
        assert "/buckets/default/" in described["complete"]
        direct.complete(described)
        assert site.http.get(f"{record}/attachment", headers=headers).body == CONTENT

    def test_a_full_list(self, make_site, kinto, files):
        settings = {**FIELDS, "kinto.attachment.max_files": "1"}
        site = make_site(kinto, files, **settings)
        record = site.collection().record()
        direct = DirectUploads(site.http, f"{record.uri}/attachments/pictures/uploads")
        first, second = direct.send(CONTENT), direct.send(b"other")
        direct.complete(first)
        direct.complete(second, status=400)
        direct.create(11, status=400)
        assert direct.get(second).json["state"] == "open"
        assert len(record.data["pictures"]) == 1

    def test_undeclared(self, site, record):
        direct = DirectUploads(site.http, f"{record.uri}/attachments/other/uploads")
        direct.create(11, status=404)

    def test_default_bucket(self, site):
        record = "/buckets/default/collections/c/records/r"
        for where in ("attachment", "attachments/cover"):
            direct = DirectUploads(site.http, f"{record}/{where}/uploads")
            described = direct.send(CONTENT)
            assert direct.get(described).json["state"] == "open"
            path = f"{direct.url(described)}/complete"
            done = direct.http.post(path, headers=ALICE)
            assert done.json["hash"] == digest(CONTENT)
        assert site.http.get(f"{record}/attachment", headers=ALICE).body == CONTENT


class TestNames:
    """Keys that need the hash, or that may be taken."""

    @pytest.mark.parametrize(
        "pattern", ["{hash}{extension}", "{filename}", "{datetime}-{rid}-{filename}", "{uuid}"]
    )
    @pytest.mark.parametrize("randomize", ["true", "false"])
    def test_patterns(self, make_site, kinto, files, pattern, randomize, staged):
        settings = {"filename_pattern": pattern, "randomize": randomize}
        site = make_site(kinto, files, **{f"kinto.attachment.{k}": v for k, v in settings.items()})
        collection = site.collection()
        for known in ({}, {"hash": digest(CONTENT)}):
            record = collection.record()
            direct = DirectUploads(site.http, f"{record.attachment_uri}/uploads")
            direct.complete(direct.send(CONTENT, **known))
            attachment = record.data["attachment"]
            assert attachment["hash"] == digest(CONTENT)
            assert site.read(attachment["location"]) == CONTENT
        assert [key for key in site.keys if key.startswith("private/_uploads/")] == []
        assert collection.keys == sorted(set(collection.links))

    def test_private(self, make_site, kinto, files):
        site = make_site(kinto, files, **{"kinto.attachment.private": "true"})
        record = site.collection().record()
        direct = DirectUploads(site.http, f"{record.attachment_uri}/uploads")
        for known in ({}, {"hash": digest(CONTENT)}):
            direct.complete(direct.send(CONTENT, **known), status="*")
            assert record.http.get(record.attachment_uri, headers=ALICE).body == CONTENT
            assert record.collection.keys == record.collection.links
            assert all(key.startswith("private/") for key in record.collection.keys)


class TestStore:
    @pytest.fixture(params=[{}, LIBRARY], ids=["", "library"])
    def site(self, make_site, kinto, files, request):
        return make_site(kinto, files, **request.param)

    @pytest.fixture
    def direct(self, site):
        return DirectUploads(site.http, "/media/uploads")

    @pytest.mark.parametrize("is_known", [False, True])
    def test_attaches(self, site, direct, staged, is_known):
        content = f"media of the store {uuid4()}".encode()
        known = {"hash": digest(content)} if is_known else {}
        described = direct.send(content, target="store", **known)
        done = direct.complete(described)
        assert done.text == digest(content)
        assert done.headers["Location"].endswith(f"/media/{digest(content)}")
        assert done.headers["ETag"] == f'"{digest(content)}"'
        as_json = direct.complete(described, headers={"Accept": "application/json"}).json
        assert as_json["size"] == len(content) and as_json["verified"] is True
        assert site.http.get(f"/media/{digest(content)}", headers=ALICE).body == content
        direct.complete(direct.send(content, target="store"), status=200)
        assert staged() == []

    def test_refused(self, direct):
        direct.create(0, target="store", status=400)
        direct.create(1, target="cellar", status=400)
        direct.create(1, target="store", data={}, status=400)
        DirectUploads(direct.http, direct.base, {}).create(1, target="store", status=401)


class TestLibrary:
    @pytest.fixture
    def site(self, make_site, kinto, files):
        site = make_site(kinto, files, **LIBRARY)
        site.http.put_json("/buckets/direct", {}, headers=ALICE)
        site.http.put_json("/buckets/direct/collections/media", {}, headers=ALICE)
        return site

    @pytest.fixture
    def direct(self, site):
        return DirectUploads(site.http, "/media/uploads")

    @pytest.mark.parametrize("is_known", [False, True])
    def test_attaches(self, site, direct, staged, is_known):
        content = jpeg()
        known = {"hash": digest(content)} if is_known else {}
        described = direct.send(content, filename="sun.jpg", **known)
        facts = direct.complete(described).json
        assert facts["fileName"] == "sun.jpg" and facts["mimeType"] == "image/jpeg"
        assert facts["width"] > 0
        assert direct.complete(described).json == facts
        assert site.http.get(f"/{facts['url']}", headers=ALICE).body == content
        assert staged() == []

    def test_permissions(self, site, direct, staged):
        bobs = DirectUploads(direct.http, direct.base, BOB)
        bobs.create(5, status=403)
        bobs.create(5, target="library", status=403)
        bobs.complete(bobs.send(b"bob's", target="store"), status="*")
        DirectUploads(direct.http, direct.base, {}).create(5, status=401)
