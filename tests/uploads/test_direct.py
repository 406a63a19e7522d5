"""Direct uploads to records: the bytes go to the storage, and the file is that of a form."""

import pytest

from tests.support.direct import DirectUploads, digest
from tests.support.google_account import make_private_key, write_account
from tests.support.site import ALICE

CONTENT = b"hello world"


@pytest.fixture
def direct(record):
    return DirectUploads(record.http, f"{record.attachment_uri}/uploads")


@pytest.fixture(params=["", "hash"])
def known(request):
    """What the client says of the hash of CONTENT."""
    return {"hash": digest(CONTENT)} if request.param else {}


class TestOnePart:
    def test_attaches(self, site, record, direct, staged, known):
        created = direct.create(len(CONTENT), **known)
        described = created.json
        assert created.headers["Location"].endswith(direct.url(described))
        assert described["method"] == "PUT" and described["size"] == len(CONTENT)
        assert direct.get(described).json["state"] == "open"
        put = direct.put(described, CONTENT)
        done = direct.complete(described)
        attachment = record.check(CONTENT)
        assert done.json == attachment
        assert done.headers["ETag"] == f'"{record.data["last_modified"]}"'
        assert done.headers["Location"].endswith(record.uri)
        assert done.headers["Last-Modified"]
        assert attachment["filename"] == "a.txt" and attachment["mimetype"] == "text/plain"
        assert staged() == []
        assert put.headers.get("ETag") or site.plugin.settings.storage == "gcs"

    def test_again(self, record, direct, known):
        described = direct.send(CONTENT, **known)
        first = direct.complete(described)
        for _ in range(2):
            again = direct.complete(described)
            assert again.body == first.body
            for name in ("ETag", "Location", "Last-Modified"):
                assert again.headers[name] == first.headers[name]
        record.check(CONTENT)
        found = direct.get(described).json
        assert found["state"] == "attached" and found["parts"] == []
        direct.delete(described)
        record.check(CONTENT)
        direct.complete(described)

    def test_updates(self, record, direct, known):
        record.upload(b"before", "b.txt")
        described = direct.send(CONTENT, data={"family": "sans"}, **known)
        direct.complete(described, status=200)
        record.check(CONTENT)
        assert record.data["family"] == "sans"

    def test_empty(self, record, direct):
        described = direct.send(b"")
        direct.complete(described)
        record.check(b"")

    def test_not_there(self, record, direct, known):
        described = direct.create(len(CONTENT), **known).json
        missing = direct.complete(described, status=409)
        assert missing.json["details"][0]["name"] == "parts"
        assert direct.get(described).json["state"] == "open"
        direct.put(described, CONTENT)
        direct.complete(described)
        record.check(CONTENT)


class TestParts:
    """A file that is larger than ``direct.part_size``."""

    SIZE = 7 * 1024 * 1024 + 5  # S3 joins parts of 5 MiB and more by itself

    @pytest.fixture(params=["4", "6MiB"])
    def site(self, make_site, kinto, files, request):
        return make_site(kinto, files, **{"kinto.attachment.direct.part_size": request.param})

    @pytest.fixture
    def content(self, site):
        size = site.plugin.settings["direct.part_size"]
        return CONTENT if size == 4 else bytes(range(256)) * (self.SIZE // 256) + b"abcde"

    def test_attaches(self, site, record, direct, staged, content):
        described = direct.create(len(content), hash=digest(content)).json
        parts = described["parts"]
        assert described["part_size"] == site.plugin.settings["direct.part_size"]
        assert "url" not in described
        assert [part["number"] for part in parts] == [*range(1, len(parts) + 1)]
        assert sum(part["size"] for part in parts) == len(content)
        named = []
        for part in reversed(parts):
            end = part["offset"] + part["size"]
            etag = direct.put(part, content[part["offset"] : end]).headers.get("ETag")
            named.append({"number": part["number"], "etag": etag})
        if site.plugin.settings.storage == "gcs":  # the fake sends no ETag
            named = None
        direct.complete(described, parts=named)
        record.check(content)
        assert staged() == []

    def test_missing(self, record, direct, content):
        described = direct.create(len(content)).json
        last = described["parts"][-1]
        direct.put(last, content[last["offset"] :])
        refused = direct.complete(described, status=409)
        assert "1" in refused.json["message"]
        found = direct.get(described).json
        assert found["state"] == "open"
        assert "url" not in found["parts"][-1] and "url" in found["parts"][0]
        for part in found["parts"][:-1]:
            direct.put(part, content[part["offset"] : part["offset"] + part["size"]])
        direct.complete(described)
        record.check(content)

    def test_sent_again(self, site, record, direct, content, staged):
        if site.plugin.settings.storage == "gcs":
            pytest.skip("the fake sends no ETag")
        described = direct.send(content)
        first = described["parts"][0]
        other = b"#" * first["size"]
        right = direct.put(first, content[: first["size"]]).headers["ETag"]
        wrong = direct.put(first, other).headers["ETag"]
        assert right != wrong
        is_own = "/v1/attachments/uploads/" in first["url"]
        if not is_own:  # the storage has the last one only
            named = [{"number": 1, "etag": right}]
            assert direct.complete(described, status=409, parts=named)
            direct.put(first, content[: first["size"]])
        direct.complete(described, parts=[{"number": 1, "etag": right}])
        record.check(content)
        assert staged() == []

    def test_deleted(self, direct, content, staged):
        described = direct.send(content)
        assert staged()
        direct.delete(described)
        assert staged() == []
        direct.get(described, status=404)
        direct.delete(described, status=404)
        direct.complete(described, status=404)


class TestRefused:
    """The bytes are not those that were announced."""

    def check_gone(self, record, direct, described, staged, name):
        for _ in range(2):
            refused = direct.complete(described, status=400)
            assert refused.json["details"][0]["name"] == name
        found = direct.get(described).json
        assert found["state"] == "refused" and found["reason"]
        assert staged() == [] == record.collection.keys
        record.http.get(record.uri, headers=ALICE, status=404)
        direct.delete(described)
        direct.get(described, status=404)

    def test_another_hash(self, site, record, direct, staged):
        described = direct.create(len(CONTENT), hash=digest(CONTENT)).json
        put = direct.put(described, b"jello world", status=None)
        if put.status_int == 400:  # the storage refuses it
            direct.complete(described, status=409)
            direct.put(described, CONTENT)
            direct.complete(described)
            record.check(CONTENT)
        else:
            self.check_gone(record, direct, described, staged, "hash")

    def test_another_size(self, record, direct, staged):
        described = direct.create(len(CONTENT)).json
        put = direct.put(described, CONTENT + b"!", status=None)
        if put.status_int >= 400:  # the server or the storage refuses it
            direct.complete(described, status=409)
            direct.put(described, CONTENT)
            direct.complete(described)
            record.check(CONTENT)
        else:
            self.check_gone(record, direct, described, staged, "size")

    def test_another_content(self, make_site, kinto, files, staged):
        site = make_site(kinto, files, **{"kinto.attachment.check_content": "true"})
        record = site.collection().record()
        direct = DirectUploads(site.http, f"{record.attachment_uri}/uploads")
        for known in ({}, {"hash": digest(b"<html>")}):
            described = direct.send(b"<html>", filename="a.png", **known)
            self.check_gone(record, direct, described, lambda: [], "attachment")

    def test_markup_that_says_it_is_an_image(self, record, direct, site):
        content = b"<html><script>alert(1)</script>"
        described = direct.send(content, filename="a.png", hash=digest(content))
        assert direct.complete(described).json["mimetype"] == "application/octet-stream"
        record.check(content)


class TestSwappedBytes:
    """A URL that is still good cannot change what was attached."""

    def test_after_complete(self, record, direct, known):
        described = direct.send(CONTENT, **known)
        direct.complete(described)
        for content in (b"jello world", CONTENT):
            direct.put(described, content, status=None)
            assert record.http.get(record.attachment_uri, headers=ALICE).body == CONTENT
            assert direct.complete(described).json["hash"] == digest(CONTENT)

    def test_while_verifying(self, site, record, direct, monkeypatch):
        described = direct.send(CONTENT)
        storage, swapped = site.storage, []
        original = storage.open

        def read(*args):
            if not swapped:
                swapped.append(direct.put(described, b"jello world", status=None))
            return original(*args)

        monkeypatch.setattr(storage, "open", read)
        direct.complete(described)
        assert swapped
        record.check(CONTENT)

    def test_while_they_are_joined(self, site, record, direct, monkeypatch, staged):
        described = direct.send(CONTENT)
        if "/v1/attachments/uploads/" in described["url"]:
            pytest.skip("each part that this server receives is another object")
        original = site.storage.compose

        def compose(*args):
            direct.put(described, b"jello world")
            return original(*args)

        monkeypatch.setattr(site.storage, "compose", compose)
        refused = direct.complete(described, status=400)
        assert refused.json["details"][0]["name"] == "parts"
        assert direct.get(described).json["state"] == "refused"
        assert staged() == [] == record.collection.keys


class TestSignedByGoogle:
    """The fake server checks no signatures: other bytes may arrive, and are refused."""

    @pytest.fixture
    def files(self):
        return "gcs"

    @pytest.fixture
    def site(self, make_site, kinto, account):
        return make_site(kinto, "gcs", **{"kinto.attachment.gcloud.credentials": account})

    @pytest.fixture(scope="class")
    def account(self, tmp_path_factory):
        path = tmp_path_factory.mktemp("account") / "account.json"
        return str(write_account(path, make_private_key()))

    def test_attaches(self, record, direct, staged, known):
        described = direct.send(CONTENT, **known)
        assert "X-Goog-Signature" in described["url"]
        direct.complete(described)
        record.check(CONTENT)
        direct.put(described, b"jello world")
        record.check(CONTENT)
        direct.complete(described)

    @pytest.mark.parametrize("content", [b"jello world", b"hello", CONTENT + b"!"])
    def test_other_bytes(self, record, direct, staged, content):
        described = direct.create(len(CONTENT), hash=digest(CONTENT)).json
        direct.put(described, content)
        direct.complete(described, status=400)
        assert direct.get(described).json["state"] == "refused"
        assert staged() == [] == record.collection.keys
