"""Principals that may store, read and delete media."""

from tests.support.media import PUBLIC, MediaClient, random_content
from tests.support.site import ALICE, BOB

ALICE_ONLY = {
    "kinto.media_create_principals": "system.Authenticated",
    "kinto.media_read_principals": "",
}


class TestPrincipals:
    def test_anonymous_requests_are_refused(self, media):
        content, digest = random_content()
        media.post(content)
        media.post(content, headers={}, status=401)
        media.get(digest, headers={}, status=401)
        media.delete(digest, headers={}, status=401)
        media.stat([digest], headers={}, status=401)

    def test_every_user_may_read_by_default(self, media):
        content, digest = random_content()
        media.post(content)
        assert media.get(digest, headers=BOB).body == content
        assert media.stat([digest], headers=BOB).json == {"present": [digest], "missing": []}

    def test_each_user_reads_only_their_own_entries(self, make_site, kinto, files):
        media = MediaClient(make_site(kinto, files, **ALICE_ONLY))
        (content, digest), (_, unknown) = random_content(), random_content()
        media.post(content, status=201)
        assert media.get(digest).body == content
        # The answer does not reveal whether another principal has stored it.
        there, not_there = (
            media.get(each, headers=BOB, status=404).json for each in (digest, unknown)
        )
        assert {**there, "details": 0} == {**not_there, "details": 0}
        assert media.stat([digest], headers=BOB).json["missing"] == [digest]
        media.delete(digest, headers=BOB, status=404)
        # Bob stores the same bytes, and cannot tell that he is not the first.
        assert media.post(content, headers=BOB, status=201).text == digest
        assert media.get(digest, headers=BOB).body == content
        assert len(media.keys(digest)) == 1

    def test_only_create_principals_may_store(self, make_site, kinto, files):
        (alice,) = (make_site(kinto, files).http.get("/", headers=ALICE).json["user"]["id"],)
        settings = {"kinto.media_create_principals": alice}
        media = MediaClient(make_site(kinto, files, **settings))
        content, digest = random_content()
        media.post(content, headers=BOB, status=403)
        media.post(content, digest, headers=BOB, query="?verify=false", status=403)
        media.post(content, status=201)
        assert media.get(digest, headers=BOB).body == content

    def test_no_create_principals(self, make_site, kinto, files):
        media = MediaClient(make_site(kinto, files, **{"kinto.media_create_principals": ""}))
        media.post(b"content", status=403)

    def test_a_store_for_everyone(self, make_site, kinto, files):
        everybody = {"kinto.media_create_principals": "system.Everyone", **PUBLIC}
        media = MediaClient(make_site(kinto, files, **everybody))
        content, digest = random_content()
        media.post(content, headers={}, status=201)
        media.post(content, headers={}, status=200)
        assert media.get(digest, headers={}).body == content
        media.delete(digest, status=404)
        media.delete(digest, headers={}, status=204)
        media.get(digest, headers={}, status=404)
