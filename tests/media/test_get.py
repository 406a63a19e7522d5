"""``GET /media/{hash}``."""

import os
from base64 import b64encode

import pytest
from pyramid.exceptions import ConfigurationError

from tests.support.media import PUBLIC, MediaClient, random_content
from tests.support.site import ALICE, BOB, Site


class TestGet:
    def test_headers(self, media):
        content, digest = random_content()
        media.post(content, headers={**ALICE, "Content-Type": "image/png"})
        answer = media.get(digest)
        assert answer.headers["ETag"] == f'"{digest}"'
        assert answer.headers["Cache-Control"] == "private, max-age=31536000, immutable"
        repr_digest = b64encode(bytes.fromhex(digest)).decode()
        assert answer.headers["Repr-Digest"] == f"sha-256=:{repr_digest}:"
        assert answer.content_type == "image/png"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "sandbox" in answer.headers["Content-Security-Policy"]
        head = media.http.head(f"/media/{digest}", headers=ALICE)
        assert (head.body, head.headers["Content-Length"]) == (b"", "100")

    def test_ranges_and_conditions(self, media):
        content, digest = random_content()
        media.post(content)
        part = media.get(digest, headers={**ALICE, "Range": "bytes=10-19"}, status=206)
        assert part.body == content[10:20]
        media.get(digest, headers={**ALICE, "Range": "bytes=100-"}, status=416)
        media.get(digest, headers={**ALICE, "If-None-Match": f'"{digest}"'}, status=304)

    def test_html_is_an_attachment(self, media):
        answer = media.post(
            b"<script>alert(1)</script>", headers={**ALICE, "Content-Type": "text/html"}
        )
        assert media.get(answer.text).headers["Content-Disposition"].startswith("attachment")

    def test_a_public_store(self, make_site, kinto, files):
        media = MediaClient(make_site(kinto, files, **PUBLIC))
        content, digest = random_content()
        media.post(content)
        answer = media.get(digest, headers={})
        assert answer.body == content
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert media.keys(digest) == [f"_media/{digest[:2]}/{digest}"]

    def test_lost_bytes_can_be_stored_again(self, media):
        content, digest = random_content()
        media.post(content)
        media.site.storage.delete(media.keys(digest))
        media.get(digest, status=404)
        media.post(content, status=200)
        assert media.get(digest).body == content

    def test_a_store_that_becomes_public(self, kinto_settings, file_settings, kinto, files):
        """Media that were stored before are found where they are."""
        if kinto == "memory":
            pytest.skip("forgets everything")
        settings = {**kinto_settings(kinto, fresh=True), **file_settings(files)}
        content, digest = random_content()
        private = MediaClient(Site(**settings))
        private.post(content)
        private.site.close()
        public = MediaClient(Site(**settings, **PUBLIC))
        assert public.get(digest, headers={}).body == content
        assert public.stat([digest], headers=BOB).json["present"] == [digest]
        public.delete(digest)
        public.get(digest, headers={}, status=404)
        public.site.close()


def test_each_principal_gets_the_type_it_declared(make_server):
    """Each principal gets the type of its own entry, and any other that of the oldest entry."""
    media = MediaClient(make_server("local", **PUBLIC))
    content, digest = random_content()
    media.post(content, headers={**ALICE, "Content-Type": "image/png"})
    for _ in range(3):
        media.post(content, headers={**BOB, "Content-Type": "application/x-evil"})
        media.post(content, headers={**ALICE, "Content-Type": "text/plain"}, status=200)
    assert media.get(digest, headers={}).content_type == "image/png"
    assert media.get(digest).content_type == "image/png"
    assert media.get(digest, headers=BOB).content_type == "application/x-evil"


def test_damaged_bytes_are_stored_again(make_server):
    media = MediaClient(make_server("local"))
    content, digest = random_content()
    media.post(content)
    (key,) = media.keys(digest)
    os.truncate(media.site.storage.path(key), 10)
    media.get(digest, status=500)
    media.post(content, status=200)
    assert media.get(digest).body == content


def test_private_attachments_are_not_in_the_store(make_server):
    """Not even if their keys look alike; and a folder of the store's own is refused at start."""
    names = {"kinto.attachment.randomize": "false", "kinto.attachment.private": "true"}
    names |= {"kinto.attachment.folder": "media", "kinto.attachment.filename_pattern": "{hash}"}
    media = MediaClient(make_server("local", **names))
    content, digest = random_content()
    media.site.collection().record().upload(content)
    media.get(digest, headers=BOB, status=404)
    assert media.stat([digest], headers=BOB).json["present"] == []
    for folder in ("_media", "_media/{bucket_id}", "_media-pending"):
        with pytest.raises(ConfigurationError, match="folder"):
            make_server("local", **{**names, "kinto.attachment.folder": folder})
