"""``POST`` and ``PUT`` of media that are verified at once."""

import secrets
from base64 import b64encode
from hashlib import sha256

import pytest

from kinto_attachment.errors import StorageUnavailable
from tests.support.media import JSON, MediaClient, random_content
from tests.support.site import ALICE


class TestPost:
    def test_the_answer_is_the_hash(self, media):
        content, digest = random_content()
        answer = media.post(content, status=201)
        assert (answer.text, answer.content_type) == (digest, "text/plain")
        assert answer.headers["Location"] == f"http://localhost/v1/media/{digest}"
        assert media.post(content, status=200).text == digest
        assert media.get(digest).body == content
        assert len(media.keys(digest)) == 1

    def test_the_answer_as_json(self, media):
        content, digest = random_content()
        answer = media.post(content, headers={**ALICE, **JSON, "Content-Type": "image/png"})
        assert answer.json == {
            "hash": digest,
            "size": 100,
            "mimetype": "image/png",
            "verified": True,
            "location": f"http://localhost/v1/media/{digest}",
        }

    @pytest.mark.parametrize("declared", [None, "application/x-www-form-urlencoded"])
    def test_the_type_is_sniffed_if_none_is_declared(self, media, declared):
        headers = {**ALICE, **JSON, **({"Content-Type": declared} if declared else {})}
        content = b"\x89PNG\r\n\x1a\n" + secrets.token_bytes(20)
        assert media.post(content, headers=headers).json["mimetype"] == "image/png"

    def test_a_large_body(self, media):
        content, digest = random_content(20 * 1024 * 1024)
        assert media.post(content).text == digest
        assert sha256(media.get(digest).body).hexdigest() == digest

    @pytest.mark.parametrize("method", ["post", "put"])
    def test_the_hash_in_the_url_is_verified(self, media, method):
        content, digest = random_content()
        call = getattr(media.http, method)
        assert call(f"/media/{digest.upper()}", content, headers=ALICE, status=201).text == digest
        other, wrong = random_content()
        refused = call(f"/media/{digest}", other, headers=ALICE, status=400)
        assert refused.json["details"][0]["name"] == "hash"
        assert wrong in refused.json["message"]
        media.get(wrong, status=404)
        assert media.keys(wrong) == []

    @pytest.mark.parametrize("digest", ["abc", "g" * 64, "0" * 63, "0" * 65, "%20"])
    def test_malformed_hashes_are_refused(self, media, digest):
        for call in (media.http.post, media.http.put):
            call(f"/media/{digest}", b"content", headers=ALICE, status=400)
        media.get(digest, status=404)
        media.delete(digest, status=404)

    def test_an_empty_body_is_refused(self, media):
        answer = media.post(b"", status=400)
        assert "The body is empty." in answer.json["message"]
        media.post(b"", sha256(b"").hexdigest(), status=400)

    def test_a_form_is_refused(self, media):
        refused = media.http.post(
            "/media", headers=ALICE, upload_files=[("file", "a.txt", b"content")], status=400
        )
        assert refused.json["details"][0]["name"] == "Content-Type"

    def test_a_body_over_the_limit_is_refused(self, make_site, kinto, files):
        media = MediaClient(make_site(kinto, files, **{"kinto.attachment.max_size": "99"}))
        content, digest = random_content()
        assert media.post(content, status=413).json["errno"] == 113
        for query in ("?verify=false", "?verify=true"):
            media.post(content, digest, query=query, status=413)
        media.post(content[:99], status=201)
        assert media.keys(digest) == media.pending() == []

    def test_batches_cannot_carry_media(self, media):
        content, digest = random_content()
        media.post(content)
        requests = [
            {"method": "POST", "path": "/v1/media", "body": {"a": 1}},
            {"method": "GET", "path": f"/v1/media/{digest}"},
            {"method": "POST", "path": "/v1/media/stat", "body": {"hashes": [digest]}},
            {"method": "DELETE", "path": f"/v1/media/{digest}"},
        ]
        answer = media.http.post_json("/batch", {"requests": requests}, headers=ALICE)
        assert [each["status"] for each in answer.json["responses"]] == [400, 400, 200, 204]

    def test_a_storage_that_fails(self, media, monkeypatch):
        content, digest = random_content()

        def put(key, source):
            raise StorageUnavailable(key, "down")

        with monkeypatch.context() as patch:
            patch.setattr(media.site.storage, "put", put)
            answer = media.post(content, status=503)
            media.post(content, digest, query="?verify=0", status=503)
        assert int(answer.headers["Retry-After"]) > 0
        media.get(digest, status=404)
        assert media.verify() == []
        media.post(content, status=201)


class TestDigestHeaders:
    def of(self, digest, algorithm="sha-256"):
        return f"{algorithm}=:{b64encode(bytes.fromhex(digest)).decode()}:"

    @pytest.mark.parametrize("name", ["Content-Digest", "Repr-Digest"])
    def test_the_hash_is_verified(self, media, name):
        (content, digest), (_, wrong) = random_content(), random_content()
        headers = {**ALICE, name: f"md5=:AAAA:, {self.of(digest)}"}
        assert media.post(content, headers=headers, status=201).text == digest
        headers = {**ALICE, name: self.of(wrong)}
        refused = media.post(content, headers=headers, status=400)
        assert refused.json["details"][0]["name"] == name
        media.get(wrong, status=404)

    def test_contradicting_digests_are_refused(self, media):
        (content, digest), (_, wrong) = random_content(), random_content()
        for one, other in ((digest, wrong), (wrong, digest)):
            headers = {**ALICE, "Content-Digest": self.of(one), "Repr-Digest": self.of(other)}
            media.post(content, headers=headers, status=400)
            media.post(content, one, headers={**ALICE, "Repr-Digest": self.of(other)}, status=400)
        assert media.keys(digest) == []

    @pytest.mark.parametrize(
        "value", ["sha-256", "sha-256=abc", "sha-256=:AAAA:", "sha-256=:!:", "=", "sha-256=1,,"]
    )
    def test_malformed_digests_are_refused(self, media, value):
        media.post(b"content", headers={**ALICE, "Repr-Digest": value}, status=400)

    def test_other_algorithms_are_ignored(self, media):
        content, digest = random_content()
        headers = {**ALICE, "Repr-Digest": "sha-512=:AAAA:"}
        assert media.post(content, headers=headers, status=201).text == digest

    def test_a_digest_replaces_the_hash_in_the_url(self, media):
        content, digest = random_content()
        headers = {**ALICE, "Repr-Digest": self.of(digest)}
        assert (
            media.post(content, headers=headers, query="?verify=false", status=202).text == digest
        )
        assert media.verify() == ["verified"]
        assert media.get(digest).body == content
