"""Media that are verified later: ``?verify=false``, and the thread in the background."""

import time
from hashlib import sha256
from pathlib import Path
from threading import Thread

import pytest
from kinto.core.storage.exceptions import IntegrityError

from kinto_attachment.errors import StorageUnavailable
from kinto_attachment.maintenance.fsck import fsck
from kinto_attachment.media import verifier
from kinto_attachment.media.store import MediaStore
from kinto_attachment.media.verifier import Verifier
from kinto_attachment.rows import paging
from kinto_attachment.rows.uploads import leases
from tests.support.media import JSON, MediaClient, random_content
from tests.support.site import ALICE, BOB
from tests.support.threads import in_thread


class TestVerifyFalse:
    """``?verify=false``."""

    @pytest.mark.parametrize("flag", ["false", "no", "0", "FALSE"])
    def test_verified_in_the_background(self, media, flag):
        content, digest = random_content()
        answer = media.post(content, digest, query=f"?verify={flag}", status=202)
        assert answer.text == digest
        media.get(digest, status=404)
        assert media.stat([digest]).json["missing"] == [digest]
        assert media.verify() == ["verified"]
        assert media.get(digest).body == content
        assert media.verify() == media.pending() == []
        media.post(content, status=200)

    @pytest.mark.parametrize("flag", ["true", "yes", "1"])
    def test_verify_true_is_verified_at_once(self, media, flag):
        content, digest = random_content()
        media.post(content, digest, query=f"?verify={flag}", status=201)

    @pytest.mark.parametrize("flag", ["maybe", "", "2"])
    def test_unknown_flags_are_refused(self, media, flag):
        content, digest = random_content()
        refused = media.post(content, digest, query=f"?verify={flag}", status=400)
        assert refused.json["details"][0]["name"] == "verify"

    def test_a_hash_is_required(self, media):
        media.post(b"content", query="?verify=false", status=400)

    def test_json_says_so(self, media):
        content, digest = random_content()
        headers = {**ALICE, **JSON}
        answer = media.post(content, digest, headers=headers, query="?verify=false", status=202)
        assert answer.json["verified"] is False
        assert media.verify() == ["verified"]

    def test_an_upload_with_another_hash_is_removed(self, media):
        (_, digest), (junk, other) = random_content(), random_content()
        media.post(junk, digest, query="?verify=false", status=202)
        assert media.verify() == ["refused"]
        for each in (digest, other):
            media.get(each, status=404)
            assert media.keys(each) == []
        assert media.pending() == []

    def test_wrong_bytes_do_not_delay_the_right_ones(self, media):
        (content, digest), (junk, _) = random_content(), random_content()
        media.post(junk, digest, headers=BOB, query="?verify=false", status=202)
        media.post(content, digest, status=201)
        assert media.get(digest).body == content
        media.post(junk, digest, headers=BOB, query="?verify=false", status=202)
        assert media.verify() == ["refused", "refused"]
        assert media.get(digest).body == content

    def test_several_uploads_of_one_hash(self, media):
        content, digest = random_content()
        for headers in (ALICE, ALICE, BOB):
            media.post(content, digest, headers=headers, query="?verify=false", status=202)
        assert media.verify() == ["verified"] * 3
        media.delete(digest, status=204)
        assert media.get(digest, headers=BOB).body == content
        assert len(media.keys(digest)) == 1
        assert media.pending() == []

    def test_a_large_upload(self, media):
        content, digest = random_content(20 * 1024 * 1024)
        media.post(content, digest, query="?verify=false", status=202)
        assert media.verify() == ["verified"]
        assert sha256(media.get(digest).body).hexdigest() == digest

    def test_lost_bytes(self, media):
        content, digest = random_content()
        media.post(content, digest, query="?verify=false", status=202)
        media.site.storage.delete(media.pending())
        assert media.verify() == ["missing object"]
        media.get(digest, status=404)
        media.delete(digest, status=204)
        assert media.verify() == []

    def test_a_folder_that_is_not_mounted(self, make_server):
        """The missing bytes are no reason to refuse an upload."""
        media = MediaClient(make_server("local"))
        content, digest = random_content()
        media.post(content, digest, query="?verify=false", status=202)
        folder = Path(media.site.storage.base_path)
        folder.rename(folder.with_name("elsewhere"))
        folder.mkdir()
        assert media.verify() == ["unreadable object"]
        found = [finding.kind for finding in fsck(media.site.server)]
        assert found == ["missing marker"]
        folder.rmdir()
        folder.with_name("elsewhere").rename(folder)
        assert media.verify() == ["verified"]
        assert media.get(digest).body == content

    def test_an_unreadable_upload(self, media, monkeypatch):
        """The other uploads are verified nevertheless."""
        posted = [random_content() for _ in range(4)]
        for content, digest in posted:
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

    def test_many_uploads_of_one_hash(self, media, monkeypatch):
        """There are more uploads of a hash than rows in a page."""
        monkeypatch.setattr(paging, "PAGE", 3)
        monkeypatch.setattr(verifier, "BATCH", 2)
        (content, digest), (kept, other) = random_content(), random_content()
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

    def test_an_upload_that_is_deleted_before_it_is_confirmed(self, media, monkeypatch):
        content, digest = random_content()
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
        """A client whose deletion succeeds cannot read the entry any more, and neither request
        waits for the other for ever."""
        media = MediaClient(make_site("postgresql", files))
        content, digest = random_content()
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
        content, digest = random_content()
        media.post(content, digest, query="?verify=false", status=202)
        store, run = media.site.registry.attachment_media, media.site.in_transaction
        (upload,) = run(lambda: list(store.plugin.rows.pending.all()))
        assert run(lambda: store.plugin.rows.leases.take(upload.id, "one"))
        assert not run(lambda: store.plugin.rows.leases.take(upload.id, "other"))
        assert not run(lambda: store.plugin.rows.leases.renew(upload.id, "other"))
        assert run(lambda: store.plugin.rows.leases.renew(upload.id, "one"))
        assert media.verify() == []
        # As if half a minute had passed by the database's clock.
        monkeypatch.setattr(leases, "LEASE_SECONDS", -1)
        time.sleep(0.01)
        assert run(lambda: store.plugin.rows.leases.take(upload.id, "other"))
        assert not run(lambda: store.plugin.rows.leases.renew(upload.id, "one"))
        run(lambda: store.plugin.rows.leases.give_back(upload.id, "one"))
        assert run(lambda: store.plugin.rows.leases.renew(upload.id, "other"))
        assert media.verify() == ["verified"]

    def test_the_type_is_kept(self, media):
        content, digest = random_content()
        headers = {**ALICE, "Content-Type": "audio/ogg"}
        media.post(content, digest, headers=headers, query="?verify=false", status=202)
        assert media.verify() == ["verified"]
        assert media.get(digest).content_type == "audio/ogg"

    def test_a_storage_that_is_down(self, media, monkeypatch):
        content, digest = random_content()
        media.post(content, digest, query="?verify=false", status=202)

        def fail(*args):
            raise StorageUnavailable("down")

        for call in ("open", "compose"):
            with monkeypatch.context() as patch:
                patch.setattr(media.site.storage, call, fail)
                assert media.verify() == ["unreadable object"]
                for more, other in [random_content() for _ in range(9)]:
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


class TestBackground:
    @pytest.fixture
    def media(self, make_server, monkeypatch):
        monkeypatch.setattr(verifier, "IDLE_SECONDS", 0.05)
        monkeypatch.setattr(verifier, "IDLE_PASSES", 10_000)
        return MediaClient(make_server("local"))

    @pytest.fixture
    def background(self, media, monkeypatch):
        registry = media.site.registry
        background = verifier.Background(
            lambda: Verifier(registry.attachment_plugin, registry.attachment_verifications)
        )
        yield background
        monkeypatch.setattr(verifier, "IDLE_PASSES", 0)
        self.wait(lambda: background._thread is None)

    def wait(self, condition):
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def test_goes_on_after_a_failure(self, media, background, monkeypatch):
        content, digest = random_content()
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
            content, digest = random_content()
            media.post(content, digest, query="?verify=false")
            background.wake()
            self.wait(lambda: background._thread is None)
            assert media.get(digest).body == content

    def test_waits_for_a_lease_of_another_process(self, media, background, monkeypatch):
        """And takes over when that process dies."""
        content, digest = random_content()
        media.post(content, digest, query="?verify=false")
        store, run = media.site.registry.attachment_media, media.site.in_transaction
        (upload,) = run(lambda: list(store.plugin.rows.pending.all()))
        assert run(lambda: store.plugin.rows.leases.take(upload.id, "the late"))
        background.wake()
        time.sleep(0.3)
        media.get(digest, status=404)
        monkeypatch.setattr(leases, "LEASE_SECONDS", -1)
        self.wait(lambda: media.pending() == [])
        assert media.get(digest).body == content

    @pytest.mark.parametrize(
        ("kind", "step"), [("leases", "take"), ("pending", "take"), ("leases", "give_back")]
    )
    def test_another_process_writes_in_the_same_millisecond(self, media, monkeypatch, kind, step):
        """Kinto's timestamps are unique for each parent, so one of the rows cannot be written."""
        content, digest = random_content()
        media.post(content, digest, query="?verify=false", status=202)
        rows, conflicts = getattr(media.site.rows, kind), iter([IntegrityError()] * 3)
        original = getattr(rows, step)

        def conflicting(*arguments):
            error = next(conflicts, None)
            if error:
                raise error
            return original(*arguments)

        monkeypatch.setattr(rows, step, conflicting)
        assert media.verify() == ["verified"]
        assert next(conflicts, None) is None
        assert media.get(digest).body == content
        assert media.pending() == []

    def test_gives_up_after_some_idle_passes(self, media, background, monkeypatch):
        monkeypatch.setattr(verifier, "IDLE_PASSES", 3)
        content, digest = random_content()
        media.post(content, digest, query="?verify=false")
        media.site.storage.delete(media.pending())
        background.wake()
        self.wait(lambda: background._thread is None)
        assert media.delete(digest).status_int == 204

    def test_a_thread_that_cannot_start(self, media, background, monkeypatch):
        content, digest = random_content()
        media.post(content, digest, query="?verify=false")

        def start(self):
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patch:
            patch.setattr(Thread, "start", start)
            background.wake()
        background.wake()
        self.wait(lambda: media.pending() == [])
        assert media.get(digest).body == content

    def test_looks_for_uploads_now_and_then(self, media, background, monkeypatch):
        content, digest = random_content()
        media.post(content, digest, query="?verify=false")
        background.look()
        self.wait(lambda: background._thread is None)
        assert media.get(digest).body == content
        content, digest = random_content()
        media.post(content, digest, query="?verify=false")
        background.look()
        assert background._thread is None
        monkeypatch.setattr(verifier, "LOOK_SECONDS", 0)
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
