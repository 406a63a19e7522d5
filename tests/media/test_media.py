"""The media store: keep a hash, get the bytes back."""

import json
import os
import secrets
import time
from base64 import b64encode
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from threading import Thread

import pytest
import transaction
from pyramid.exceptions import ConfigurationError

from kinto_attachment.errors import StorageUnavailable
from kinto_attachment.maintenance.fsck import fsck
from kinto_attachment.maintenance.gc import collect
from kinto_attachment.maintenance.server import Server
from kinto_attachment.media import verifier as verify
from kinto_attachment.media.store import MediaStore
from kinto_attachment.media.verifier import Verifier
from kinto_attachment.rows import paging
from kinto_attachment.rows import uploads as pending
from tests.conftest import in_thread
from tests.support.site import ALICE, BOB, Site

ALICE_ONLY = {
    "kinto.media_create_principals": "system.Authenticated",
    "kinto.media_read_principals": "",
}
PUBLIC = {"kinto.media_read_principals": "system.Everyone"}
JSON = {"Accept": "application/json"}


class Media:
    """The store of a site, as a client sees it."""

    def __init__(self, site: Site):
        self.site = site
        self.http = site.http

    def post(self, content, digest="", headers=ALICE, query="", **options):
        path = f"/media/{digest}{query}" if digest else f"/media{query}"
        return self.http.post(path, content, headers={**headers}, **options)

    def get(self, digest, headers=ALICE, **options):
        return self.http.get(f"/media/{digest}", headers={**headers}, **options)

    def delete(self, digest, headers=ALICE, **options):
        return self.http.delete(f"/media/{digest}", headers={**headers}, **options)

    def stat(self, hashes, headers=ALICE, **options):
        return self.http.post_json("/media/stat", hashes, headers={**headers}, **options)

    def verify(self):
        """What the background does, now; the kinds of its findings."""
        verifier = Verifier(self.site.registry.attachment_media, lambda: self.site.registry.metrics)
        return [finding.kind for finding in verifier.verify()]

    def keys(self, digest):
        """Of its bytes, in the storage."""
        return [stat.key for stat in self.site.storage.list() if stat.key.endswith(digest)]

    def pending(self):
        prefix = "private/_media-pending/"
        return [stat.key for stat in self.site.storage.list(prefix)]


@pytest.fixture(params=["local", "seaweedfs", pytest.param("gcs", marks=pytest.mark.slow)])
def files(request):
    return request.param


@pytest.fixture
def media(make_site, kinto, files):
    return Media(make_site(kinto, files))


def some(size=100):
    content = secrets.token_bytes(size)
    return content, sha256(content).hexdigest()


class TestPost:
    def test_the_answer_is_the_hash(self, media):
        content, digest = some()
        answer = media.post(content, status=201)
        assert (answer.text, answer.content_type) == (digest, "text/plain")
        assert answer.headers["Location"] == f"http://localhost/v1/media/{digest}"
        assert media.post(content, status=200).text == digest
        assert media.get(digest).body == content
        assert len(media.keys(digest)) == 1

    def test_as_json(self, media):
        content, digest = some()
        answer = media.post(content, headers={**ALICE, **JSON, "Content-Type": "image/png"})
        assert answer.json == {
            "hash": digest,
            "size": 100,
            "mimetype": "image/png",
            "verified": True,
            "location": f"http://localhost/v1/media/{digest}",
        }

    @pytest.mark.parametrize("declared", [None, "application/x-www-form-urlencoded"])
    def test_type_of_what_has_none(self, media, declared):
        headers = {**ALICE, **JSON, **({"Content-Type": declared} if declared else {})}
        content = b"\x89PNG\r\n\x1a\n" + secrets.token_bytes(20)
        assert media.post(content, headers=headers).json["mimetype"] == "image/png"

    def test_large_ones(self, media):
        content, digest = some(20 * 1024 * 1024)
        assert media.post(content).text == digest
        assert sha256(media.get(digest).body).hexdigest() == digest

    @pytest.mark.parametrize("method", ["post", "put"])
    def test_of_a_hash(self, media, method):
        content, digest = some()
        call = getattr(media.http, method)
        assert call(f"/media/{digest.upper()}", content, headers=ALICE, status=201).text == digest
        other, wrong = some()
        refused = call(f"/media/{digest}", other, headers=ALICE, status=400)
        assert refused.json["details"][0]["name"] == "hash"
        assert wrong in refused.json["message"]
        media.get(wrong, status=404)
        assert media.keys(wrong) == []

    @pytest.mark.parametrize("digest", ["abc", "g" * 64, "0" * 63, "0" * 65, "%20"])
    def test_of_what_is_no_hash(self, media, digest):
        for call in (media.http.post, media.http.put):
            call(f"/media/{digest}", b"content", headers=ALICE, status=400)
        media.get(digest, status=404)
        media.delete(digest, status=404)

    def test_nothing(self, media):
        answer = media.post(b"", status=400)
        assert "The body is empty." in answer.json["message"]
        media.post(b"", sha256(b"").hexdigest(), status=400)

    def test_a_form(self, media):
        refused = media.http.post(
            "/media", headers=ALICE, upload_files=[("file", "a.txt", b"content")], status=400
        )
        assert refused.json["details"][0]["name"] == "Content-Type"

    def test_too_much(self, make_site, kinto, files):
        media = Media(make_site(kinto, files, **{"kinto.attachment.max_size": "99"}))
        content, digest = some()
        assert media.post(content, status=413).json["errno"] == 113
        for query in ("?verify=false", "?verify=true"):
            media.post(content, digest, query=query, status=413)
        media.post(content[:99], status=201)
        assert media.keys(digest) == media.pending() == []

    def test_in_a_batch(self, media):
        content, digest = some()
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
        content, digest = some()

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
    def test_they_say_the_hash(self, media, name):
        (content, digest), (_, wrong) = some(), some()
        headers = {**ALICE, name: f"md5=:AAAA:, {self.of(digest)}"}
        assert media.post(content, headers=headers, status=201).text == digest
        headers = {**ALICE, name: self.of(wrong)}
        refused = media.post(content, headers=headers, status=400)
        assert refused.json["details"][0]["name"] == name
        media.get(wrong, status=404)

    def test_they_contradict_each_other(self, media):
        (content, digest), (_, wrong) = some(), some()
        for one, other in ((digest, wrong), (wrong, digest)):
            headers = {**ALICE, "Content-Digest": self.of(one), "Repr-Digest": self.of(other)}
            media.post(content, headers=headers, status=400)
            media.post(content, one, headers={**ALICE, "Repr-Digest": self.of(other)}, status=400)
        assert media.keys(digest) == []

    @pytest.mark.parametrize(
        "value", ["sha-256", "sha-256=abc", "sha-256=:AAAA:", "sha-256=:!:", "=", "sha-256=1,,"]
    )
    def test_malformed(self, media, value):
        media.post(b"content", headers={**ALICE, "Repr-Digest": value}, status=400)

    def test_of_an_algorithm_that_is_none_of_ours(self, media):
        content, digest = some()
        headers = {**ALICE, "Repr-Digest": "sha-512=:AAAA:"}
        assert media.post(content, headers=headers, status=201).text == digest

    def test_instead_of_a_hash_in_the_url(self, media):
        content, digest = some()
        headers = {**ALICE, "Repr-Digest": self.of(digest)}
        assert (
            media.post(content, headers=headers, query="?verify=false", status=202).text == digest
        )
        assert media.verify() == ["verified"]
        assert media.get(digest).body == content


class TestGet:
    def test_headers(self, media):
        content, digest = some()
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
        content, digest = some()
        media.post(content)
        part = media.get(digest, headers={**ALICE, "Range": "bytes=10-19"}, status=206)
        assert part.body == content[10:20]
        media.get(digest, headers={**ALICE, "Range": "bytes=100-"}, status=416)
        media.get(digest, headers={**ALICE, "If-None-Match": f'"{digest}"'}, status=304)

    def test_scripts_do_not_run(self, media):
        answer = media.post(
            b"<script>alert(1)</script>", headers={**ALICE, "Content-Type": "text/html"}
        )
        assert media.get(answer.text).headers["Content-Disposition"].startswith("attachment")

    def test_public(self, make_site, kinto, files):
        media = Media(make_site(kinto, files, **PUBLIC))
        content, digest = some()
        media.post(content)
        answer = media.get(digest, headers={})
        assert answer.body == content
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert media.keys(digest) == [f"_media/{digest[:2]}/{digest}"]

    def test_lost_bytes(self, media):
        content, digest = some()
        media.post(content)
        media.site.storage.delete(media.keys(digest))
        media.get(digest, status=404)
        media.post(content, status=200)
        assert media.get(digest).body == content

    def test_a_store_that_becomes_public(self, kinto_settings, file_settings, kinto, files):
        """What was stored before is found where it is."""
        if kinto == "memory":
            pytest.skip("forgets everything")
        settings = {**kinto_settings(kinto, fresh=True), **file_settings(files)}
        content, digest = some()
        private = Media(Site(**settings))
        private.post(content)
        private.site.close()
        public = Media(Site(**settings, **PUBLIC))
        assert public.get(digest, headers={}).body == content
        assert public.stat([digest], headers=BOB).json["present"] == [digest]
        public.delete(digest)
        public.get(digest, headers={}, status=404)
        public.site.close()


class TestPrincipals:
    def test_nobody_is_authenticated(self, media):
        content, digest = some()
        media.post(content)
        media.post(content, headers={}, status=401)
        media.get(digest, headers={}, status=401)
        media.delete(digest, headers={}, status=401)
        media.stat([digest], headers={}, status=401)

    def test_everybody_may_read_by_default(self, media):
        content, digest = some()
        media.post(content)
        assert media.get(digest, headers=BOB).body == content
        assert media.stat([digest], headers=BOB).json == {"present": [digest], "missing": []}

    def test_one_may_always_read_what_is_ones_own(self, make_site, kinto, files):
        media = Media(make_site(kinto, files, **ALICE_ONLY))
        (content, digest), (_, unknown) = some(), some()
        media.post(content, status=201)
        assert media.get(digest).body == content
        # Whether somebody has it is nobody's business.
        there, not_there = (
            media.get(each, headers=BOB, status=404).json for each in (digest, unknown)
        )
        assert {**there, "details": 0} == {**not_there, "details": 0}
        assert media.stat([digest], headers=BOB).json["missing"] == [digest]
        media.delete(digest, headers=BOB, status=404)
        # Storing it is, to all appearances, as if he was the first.
        assert media.post(content, headers=BOB, status=201).text == digest
        assert media.get(digest, headers=BOB).body == content
        assert len(media.keys(digest)) == 1

    def test_who_may_store(self, make_site, kinto, files):
        (alice,) = (make_site(kinto, files).http.get("/", headers=ALICE).json["user"]["id"],)
        settings = {"kinto.media_create_principals": alice}
        media = Media(make_site(kinto, files, **settings))
        content, digest = some()
        media.post(content, headers=BOB, status=403)
        media.post(content, digest, headers=BOB, query="?verify=false", status=403)
        media.post(content, status=201)
        assert media.get(digest, headers=BOB).body == content

    def test_nobody_may_store(self, make_site, kinto, files):
        media = Media(make_site(kinto, files, **{"kinto.media_create_principals": ""}))
        media.post(b"content", status=403)

    def test_anybody(self, make_site, kinto, files):
        everybody = {"kinto.media_create_principals": "system.Everyone", **PUBLIC}
        media = Media(make_site(kinto, files, **everybody))
        content, digest = some()
        media.post(content, headers={}, status=201)
        media.post(content, headers={}, status=200)
        assert media.get(digest, headers={}).body == content
        media.delete(digest, status=404)
        media.delete(digest, headers={}, status=204)
        media.get(digest, headers={}, status=404)


def test_what_others_say_of_the_same_bytes(make_server):
    """The oldest entry tells the type to whoever has none, and one's own to oneself."""
    media = Media(make_server("local", **PUBLIC))
    content, digest = some()
    media.post(content, headers={**ALICE, "Content-Type": "image/png"})
    for _ in range(3):
        media.post(content, headers={**BOB, "Content-Type": "application/x-evil"})
        media.post(content, headers={**ALICE, "Content-Type": "text/plain"}, status=200)
    assert media.get(digest, headers={}).content_type == "image/png"
    assert media.get(digest).content_type == "image/png"
    assert media.get(digest, headers=BOB).content_type == "application/x-evil"


def test_damaged_bytes_are_stored_again(make_server):
    media = Media(make_server("local"))
    content, digest = some()
    media.post(content)
    (key,) = media.keys(digest)
    os.truncate(media.site.storage.path(key), 10)
    media.get(digest, status=500)
    media.post(content, status=200)
    assert media.get(digest).body == content


def test_private_attachments_are_not_in_the_store(make_server):
    """Whatever their keys are; and a folder that is the store's is refused at start."""
    names = {"kinto.attachment.randomize": "false", "kinto.attachment.private": "true"}
    names |= {"kinto.attachment.folder": "media", "kinto.attachment.filename_pattern": "{hash}"}
    media = Media(make_server("local", **names))
    content, digest = some()
    media.site.collection().record().upload(content)
    media.get(digest, headers=BOB, status=404)
    assert media.stat([digest], headers=BOB).json["present"] == []
    for folder in ("_media", "_media/{bucket_id}", "_media-pending"):
        with pytest.raises(ConfigurationError, match="folder"):
            make_server("local", **{**names, "kinto.attachment.folder": folder})


def test_labels(make_server, monkeypatch):
    """What is not public says so, to storages that have ACLs."""
    for public in (False, True):
        media = Media(make_server("local", **(PUBLIC if public else {})))
        seen, put, compose = [], media.site.storage.put, media.site.storage.compose

        def watch_put(key, source, seen=seen, put=put):
            seen.append(("put", source.private))
            return put(key, source)

        def watch_compose(parts, key, label, seen=seen, compose=compose):
            seen.append(("compose", label.private))
            return compose(parts, key, label)

        monkeypatch.setattr(media.site.storage, "put", watch_put)
        monkeypatch.setattr(media.site.storage, "compose", watch_compose)
        media.post(some()[0])
        content, digest = some()
        media.post(content, digest, query="?verify=false")
        media.verify()
        assert seen == [("put", not public), ("put", True), ("compose", not public)]


class TestDelete:
    def test_only_ones_own(self, media):
        content, digest = some()
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

    def test_what_is_not_verified_yet(self, media):
        content, digest = some()
        media.post(content, digest, query="?verify=false", status=202)
        before = len(media.pending())
        media.delete(digest, headers=BOB, status=404)
        media.delete(digest, status=204)
        media.delete(digest, status=404)
        assert len(media.pending()) == before - 1
        assert media.verify() == []
        media.get(digest, status=404)


class TestStat:
    def test_which_are_there(self, media):
        (one, here), (_, gone) = some(), some()
        media.post(one)
        answer = media.stat([gone, here.upper(), here])
        assert answer.json == {"present": [here], "missing": [gone]}
        assert media.stat({"hashes": [here]}).json["present"] == [here]
        assert media.stat([]).json == {"present": [], "missing": []}

    def test_a_thousand(self, media):
        content, digest = some()
        media.post(content)
        others = [some(1)[1][:-4] + f"{index:04x}" for index in range(999)]
        answer = media.stat([*others, digest])
        assert answer.json["present"] == [digest]
        assert len(answer.json["missing"]) == 999
        media.stat([digest] * 1001, status=400)

    @pytest.mark.parametrize(
        "question",
        [b"[" * 100_000, "abc", b"", {"a": 1}, [1], ["abc"], [None], {"hashes": "a" * 64}],
    )
    def test_malformed(self, media, question):
        body = question if isinstance(question, bytes) else json.dumps(question).encode()
        media.http.post("/media/stat", body, headers=ALICE, status=400)

    def test_too_much(self, media):
        media.http.post("/media/stat", b"[" + b" " * 200_000 + b"]", headers=ALICE, status=413)


class TestLater:
    """``?verify=false``."""

    @pytest.mark.parametrize("flag", ["false", "no", "0", "FALSE"])
    def test_verified_in_the_background(self, media, flag):
        content, digest = some()
        answer = media.post(content, digest, query=f"?verify={flag}", status=202)
        assert answer.text == digest
        media.get(digest, status=404)
        assert media.stat([digest]).json["missing"] == [digest]
        assert media.verify() == ["verified"]
        assert media.get(digest).body == content
        assert media.verify() == media.pending() == []
        media.post(content, status=200)

    @pytest.mark.parametrize("flag", ["true", "yes", "1"])
    def test_at_once(self, media, flag):
        content, digest = some()
        media.post(content, digest, query=f"?verify={flag}", status=201)

    @pytest.mark.parametrize("flag", ["maybe", "", "2"])
    def test_unknown_flags(self, media, flag):
        content, digest = some()
        refused = media.post(content, digest, query=f"?verify={flag}", status=400)
        assert refused.json["details"][0]["name"] == "verify"

    def test_without_a_hash(self, media):
        media.post(b"content", query="?verify=false", status=400)

    def test_json_says_so(self, media):
        content, digest = some()
        headers = {**ALICE, **JSON}
        answer = media.post(content, digest, headers=headers, query="?verify=false", status=202)
        assert answer.json["verified"] is False
        assert media.verify() == ["verified"]

    def test_what_is_something_else_is_removed(self, media):
        (_, digest), (junk, other) = some(), some()
        media.post(junk, digest, query="?verify=false", status=202)
        assert media.verify() == ["refused"]
        for each in (digest, other):
            media.get(each, status=404)
            assert media.keys(each) == []
        assert media.pending() == []

    def test_junk_does_not_delay_the_true_owner(self, media):
        (content, digest), (junk, _) = some(), some()
        media.post(junk, digest, headers=BOB, query="?verify=false", status=202)
        media.post(content, digest, status=201)
        assert media.get(digest).body == content
        media.post(junk, digest, headers=BOB, query="?verify=false", status=202)
        assert media.verify() == ["refused", "refused"]
        assert media.get(digest).body == content

    def test_twice(self, media):
        content, digest = some()
        for headers in (ALICE, ALICE, BOB):
            media.post(content, digest, headers=headers, query="?verify=false", status=202)
        assert media.verify() == ["verified"] * 3
        media.delete(digest, status=204)
        assert media.get(digest, headers=BOB).body == content
        assert len(media.keys(digest)) == 1
        assert media.pending() == []

    def test_large_ones(self, media):
        content, digest = some(20 * 1024 * 1024)
        media.post(content, digest, query="?verify=false", status=202)
        assert media.verify() == ["verified"]
        assert sha256(media.get(digest).body).hexdigest() == digest

    def test_bytes_that_are_gone(self, media):
        content, digest = some()
        media.post(content, digest, query="?verify=false", status=202)
        media.site.storage.delete(media.pending())
        assert media.verify() == ["missing object"]
        media.get(digest, status=404)
        media.delete(digest, status=204)
        assert media.verify() == []

    def test_a_folder_that_is_not_mounted(self, make_server):
        """Nothing is refused for that."""
        media = Media(make_server("local"))
        content, digest = some()
        media.post(content, digest, query="?verify=false", status=202)
        folder = Path(media.site.storage.base_path)
        folder.rename(folder.with_name("elsewhere"))
        folder.mkdir()
        assert media.verify() == ["missing object"]
        assert [finding.kind for finding in fsck(media.site.server)] == ["missing object"]
        folder.rmdir()
        folder.with_name("elsewhere").rename(folder)
        assert media.verify() == ["verified"]
        assert media.get(digest).body == content

    def test_one_that_cannot_be_read(self, media, monkeypatch):
        """It does not stop the others."""
        uploads = [some() for _ in range(4)]
        for content, digest in uploads:
            media.post(content, digest, query="?verify=false", status=202)
        bad, original = media.pending()[0], media.site.storage.open

        def read(key, *bounds):
            if key == bad:
                raise StorageUnavailable(key, "[Errno 5] Input/output error")
            return original(key, *bounds)

        with monkeypatch.context() as patch:
            patch.setattr(media.site.storage, "open", read)
            assert sorted(media.verify()) == ["unreadable object"] + ["verified"] * 3
        assert media.verify() == ["verified"]

    def test_many_of_one_hash(self, media, monkeypatch):
        """More than a page."""
        monkeypatch.setattr(paging, "PAGE", 3)
        monkeypatch.setattr(verify, "BATCH", 2)
        (content, digest), (kept, other) = some(), some()
        for _ in range(5):
            media.post(content, digest, query="?verify=false", status=202)
        media.post(kept, other, query="?verify=false", status=202)
        media.delete(digest, status=204)
        assert media.verify() == ["verified"]
        media.get(digest, status=404)
        assert media.get(other).body == kept
        for _ in range(8):
            media.post(content, digest, query="?verify=false", status=202)
        assert media.verify() == ["verified"] * 8

    def test_what_another_one_finished(self, media, monkeypatch):
        content, digest = some()
        media.post(content, digest, query="?verify=false", status=202)
        original, left = MediaStore.confirm, [1]

        def verified(self, files, upload):
            if left:
                left.pop()
                in_thread(lambda: media.delete(digest, status=204))
            return original(self, files, upload)

        monkeypatch.setattr(MediaStore, "confirm", verified)
        assert media.verify() == []
        media.get(digest, status=404)
        assert media.pending() == []

    @pytest.mark.parametrize("entry", [False, True])
    def test_deleted_while_it_is_verified(self, make_site, files, monkeypatch, entry):
        """Whoever is told that it is gone cannot get it; neither waits for the other for ever."""
        media = Media(make_site("postgresql", files))
        content, digest = some()
        if entry:
            media.post(content)
        media.post(content, digest, query="?verify=false", status=202)
        original, threads, answers = MediaStore.keep, [], []

        def keep(self, *args):
            threads.append(Thread(target=lambda: answers.append(media.delete(digest, status="*"))))
            threads[-1].start()
            time.sleep(0.5)
            return original(self, *args)

        with monkeypatch.context() as patch:
            patch.setattr(MediaStore, "keep", keep)
            assert media.verify() == ["verified"]
        threads[0].join()
        assert [answer.status_int for answer in answers] == [204]
        media.get(digest, status=404)

    def test_leases(self, media, monkeypatch):
        content, digest = some()
        media.post(content, digest, query="?verify=false", status=202)
        store, run = media.site.registry.attachment_media, media.site.in_transaction
        (upload,) = run(lambda: list(store.plugin.rows.pending.all()))
        assert run(lambda: store.plugin.rows.pending.lease(upload, "one"))
        assert not run(lambda: store.plugin.rows.pending.lease(upload, "other"))
        assert not run(lambda: store.plugin.rows.pending.renew(upload, "other"))
        assert run(lambda: store.plugin.rows.pending.renew(upload, "one"))
        assert media.verify() == []
        # By the database's clock, half a minute later.
        monkeypatch.setattr(pending, "LEASE_SECONDS", -1)
        time.sleep(0.01)
        assert run(lambda: store.plugin.rows.pending.lease(upload, "other"))
        assert not run(lambda: store.plugin.rows.pending.renew(upload, "one"))
        run(lambda: store.plugin.rows.pending.give_back(upload, "one"))
        assert run(lambda: store.plugin.rows.pending.renew(upload, "other"))
        assert media.verify() == ["verified"]

    def test_type_is_kept(self, media):
        content, digest = some()
        headers = {**ALICE, "Content-Type": "audio/ogg"}
        media.post(content, digest, headers=headers, query="?verify=false", status=202)
        assert media.verify() == ["verified"]
        assert media.get(digest).content_type == "audio/ogg"

    def test_a_storage_that_is_down(self, media, monkeypatch):
        content, digest = some()
        media.post(content, digest, query="?verify=false", status=202)

        def fail(*args):
            raise StorageUnavailable("down")

        for call in ("open", "compose"):
            with monkeypatch.context() as patch:
                patch.setattr(media.site.storage, call, fail)
                assert media.verify() == ["unreadable object"]
                for more, other in [some() for _ in range(9)]:
                    media.post(more, other, query="?verify=false", status=202)
                with pytest.raises(StorageUnavailable):
                    media.verify()
            media.get(digest, status=404)
            for upload in media.site.in_transaction(lambda: list(media.site.rows.pending.all())):
                if upload.ref.digest != digest:
                    media.delete(upload.ref.digest, status=204)
        assert media.verify() == ["verified"]
        assert media.get(digest).body == content
        assert media.pending() == []


class TestOperations:
    @pytest.fixture
    def media(self, make_server, files):
        return Media(make_server(files))

    def gc(self, media, **options):
        options = {"older_than": timedelta(0), **options}
        return [finding.kind for finding in collect(media.site.server, **options)]

    def test_fsck_knows_what_it_has(self, media):
        content, digest = some()
        media.post(content)
        media.post(content, headers=BOB)
        media.post(content, digest, query="?verify=false")
        assert list(fsck(media.site.server, deep=True)) == []
        assert self.gc(media, offline=True) == []
        assert media.verify() == ["verified"]
        assert media.get(digest).body == content
        media.site.storage.delete(media.keys(digest))
        kinds = [finding.kind for finding in fsck(media.site.server)]
        assert kinds == ["missing object"] * 2

    def test_gc_takes_what_nobody_has(self, media):
        (content, digest), (kept, other) = some(), some()
        media.post(content)
        media.post(content, headers=BOB)
        media.post(kept)
        media.delete(digest)
        assert self.gc(media, offline=True) == []
        media.delete(digest, headers=BOB)
        assert self.gc(media, older_than=timedelta(hours=1)) == []
        assert self.gc(media, offline=True) == ["deleted"]
        assert media.keys(digest) == []
        assert media.get(other).body == kept
        media.post(content, status=201)
        assert media.get(digest).body == content

    def test_gc_takes_what_was_refused_halfway(self, media, monkeypatch):
        content, digest = some()

        def keep(*args):
            raise RuntimeError("lost")

        with monkeypatch.context() as patch:
            patch.setattr(MediaStore, "keep", keep)
            media.post(content, status=500)
        assert self.gc(media, offline=True) == ["deleted"]
        assert media.keys(digest) == []

    def test_flush(self, media):
        content, digest = some()
        media.post(content)
        media.post(content, digest, query="?verify=false")
        media.http.post("/__flush__", headers=ALICE)
        media.get(digest, status=404)
        assert media.pending() == []
        assert self.gc(media, offline=True) == ["deleted"]

    def test_no_connection_is_held_while_bytes_move(self, media, monkeypatch):
        site = media.site
        pool = site.registry.storage.client.session_factory.session_factory.kw["bind"].pool
        seen = []
        for name in ("spool", "put", "open", "compose", "delete"):
            original = getattr(site.storage, name)

            def watch(*args, name=name, original=original):
                seen.append((name, pool.checkedout()))
                return original(*args)

            monkeypatch.setattr(site.storage, name, watch)
        content, digest = some()
        media.post(content)
        media.get(digest)
        media.post(content, digest, query="?verify=false")
        media.verify()
        assert {count for _, count in seen} == {0}
        assert {name for name, _ in seen} == {"spool", "put", "open", "compose", "delete"}

    def test_metrics(self, media, monkeypatch):
        counted = []

        class Metrics:
            def count(self, key, count=1, unique=None):
                counted.append((key, count))

            def observe(self, key, value, labels=()):
                counted.append((key, value))

        (content, digest), (junk, _) = some(), some()
        media.post(content, digest, query="?verify=false")
        media.post(junk, digest, query="?verify=false")
        verifier = Verifier(media.site.registry.attachment_media, Metrics)
        assert verifier.count() == 2
        list(verifier.verify())
        assert verifier.count() == 0
        pending = "attachments.media.pending"
        assert counted[0] == (pending, 2) and counted[-1] == (pending, 0)
        verified, refused = "attachments.media.verified", "attachments.media.refused"
        assert sorted(counted[1:-1]) == [(refused, 1), (verified, 1)]


def test_attachments_by_hash_are_other_entries(make_server):
    """Each door has its own folder, and its own reasons to keep bytes."""
    by_hash = {"kinto.attachment.randomize": "false", "kinto.attachment.filename_pattern": "{hash}"}
    site = make_server("local", **by_hash)
    media, record = Media(site), site.collection().record()
    content, digest = some()
    record.upload(content)
    media.get(digest, status=404)
    media.post(content, status=201)
    record.detach()
    list(collect(Server.of(site.registry, transaction.manager), timedelta(0), offline=True))
    assert media.get(digest).body == content
    assert len(media.keys(digest)) == 1


class TestBackground:
    @pytest.fixture
    def media(self, make_server, monkeypatch):
        monkeypatch.setattr(verify, "IDLE_SECONDS", 0.05)
        return Media(make_server("local"))

    @pytest.fixture
    def background(self, media):
        registry = media.site.registry
        return verify.Background(
            lambda: Verifier(registry.attachment_media, lambda: registry.metrics)
        )

    def wait(self, condition):
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def test_goes_on_after_a_failure(self, media, background, monkeypatch):
        content, digest = some()
        media.post(content, digest, query="?verify=false")
        original, failures = media.site.storage.open, [StorageUnavailable("down"), OSError("odd")]

        def read(*args):
            if failures:
                raise failures.pop()
            return original(*args)

        monkeypatch.setattr(media.site.storage, "open", read)
        background.wake()
        self.wait(lambda: media.pending() == [])
        assert media.get(digest).body == content

    def test_ends_when_there_is_nothing_to_do(self, media, background):
        for _ in range(3):
            content, digest = some()
            media.post(content, digest, query="?verify=false")
            background.wake()
            self.wait(lambda: background._thread is None)
            assert media.get(digest).body == content

    def test_waits_for_what_somebody_else_is_at(self, media, background, monkeypatch):
        """And takes over when he dies."""
        content, digest = some()
        media.post(content, digest, query="?verify=false")
        store, run = media.site.registry.attachment_media, media.site.in_transaction
        (upload,) = run(lambda: list(store.plugin.rows.pending.all()))
        assert run(lambda: store.plugin.rows.pending.lease(upload, "the late"))
        background.wake()
        time.sleep(0.3)
        media.get(digest, status=404)
        monkeypatch.setattr(pending, "LEASE_SECONDS", -1)
        self.wait(lambda: media.pending() == [])
        assert media.get(digest).body == content

    def test_gives_up_after_a_while(self, media, background, monkeypatch):
        monkeypatch.setattr(verify, "IDLE_PASSES", 3)
        content, digest = some()
        media.post(content, digest, query="?verify=false")
        media.site.storage.delete(media.pending())
        background.wake()
        self.wait(lambda: background._thread is None)
        assert media.delete(digest).status_int == 204

    def test_a_thread_that_cannot_start(self, media, background, monkeypatch):
        content, digest = some()
        media.post(content, digest, query="?verify=false")

        def start(self):
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patch:
            patch.setattr(Thread, "start", start)
            background.wake()
        background.wake()
        self.wait(lambda: media.pending() == [])
        assert media.get(digest).body == content

    def test_looks_now_and_then(self, media, background, monkeypatch):
        content, digest = some()
        media.post(content, digest, query="?verify=false")
        background.look()
        self.wait(lambda: background._thread is None)
        assert media.get(digest).body == content
        content, digest = some()
        media.post(content, digest, query="?verify=false")
        background.look()
        assert background._thread is None
        monkeypatch.setattr(verify, "LOOK_SECONDS", 0)
        background.look()
        self.wait(lambda: background._thread is None)
        assert media.get(digest).body == content

    @pytest.mark.parametrize(
        "settings",
        [{}, {"kinto.readonly": "true", "kinto.attachment.media.verifier": "thread"}],
        ids=["none", "readonly"],
    )
    def test_is_off(self, make_server, settings):
        background = make_server("local", **settings).registry.attachment_media.background
        background.wake()
        assert background._thread is None
