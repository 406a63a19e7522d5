"""``DELETE /media/{hash}``."""

from tests.support.media import random_content
from tests.support.site import BOB


class TestDelete:
    def test_only_the_users_own_entry_is_deleted(self, media):
        content, digest = random_content()
        media.post(content)
        media.post(content, headers=BOB)
        media.delete(digest, status=204)
        media.delete(digest, status=404)
        assert media.get(digest).body == content  # bob's
        media.delete(digest, headers=BOB, status=204)
        media.get(digest, status=404)
        assert len(media.keys(digest)) == 1  # until gc
        media.post(content, status=201)
        assert media.get(digest).body == content

    def test_an_upload_that_is_not_verified_yet(self, media):
        content, digest = random_content()
        media.post(content, digest, query="?verify=false", status=202)
        before = len(media.pending())
        media.delete(digest, headers=BOB, status=404)
        media.delete(digest, status=204)
        media.delete(digest, status=404)
        assert len(media.pending()) == before - 1
        assert media.verify() == []
        media.get(digest, status=404)
