"""Direct uploads when several requests come at once, and when the storage is down."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from kinto_attachment.errors import StorageUnavailable
from tests.support.direct import DirectUploads, digest
from tests.support.site import ALICE

FILES = {"local", "seaweedfs"}

CONTENT = b"hello world"


@pytest.fixture
def completion(site):
    """The module that completes uploads. It may not be imported before Kinto is set up."""
    from kinto_attachment.uploads.direct import completion

    return completion


@pytest.fixture
def direct(record):
    return DirectUploads(record.http, f"{record.attachment_uri}/uploads")


class TestAtOnce:
    def complete_at_once(self, direct, described, count=4):
        barrier = threading.Barrier(count)

        def complete(_):
            barrier.wait()
            return direct.complete(described, status="*")

        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(complete, range(count)))

    @pytest.mark.parametrize("is_known", [False, True])
    def test_complete(self, record, direct, staged, is_known):
        known = {"hash": digest(CONTENT)} if is_known else {}
        for _ in range(3):
            described = direct.send(CONTENT, **known)
            answers = self.complete_at_once(direct, described)
            assert {answer.status_int for answer in answers} <= {200, 201}
            assert len({answer.body for answer in answers}) == 1
            assert len({answer.headers["ETag"] for answer in answers}) == 1
            record.check(CONTENT)
        assert staged() == []

    def test_complete_of_a_list(self, make_site, kinto, files):
        site = make_site(kinto, files, **{"kinto.attachment.fields": "pictures[]"})
        record = site.collection().record()
        direct = DirectUploads(site.http, f"{record.uri}/attachments/pictures/uploads")
        for count in (1, 2):
            answers = self.complete_at_once(direct, direct.send(CONTENT))
            assert {answer.status_int for answer in answers} == {201}
            assert len(record.data["pictures"]) == count

    def test_complete_and_delete(self, record, direct, staged):
        for _ in range(5):
            described = direct.send(CONTENT)
            with ThreadPoolExecutor(2) as pool:
                done = pool.submit(direct.complete, described, "*")
                gone = pool.submit(direct.delete, described, "*")
            assert gone.result().status_int in (204, 404, 409)
            status = done.result().status_int
            assert status in (200, 201, 202, 404, 409)
            if status in (200, 201):
                content = record.http.get(record.attachment_uri, headers=ALICE).body
                assert content == CONTENT
        assert staged() == []

    def test_complete_while_another_one_takes_long(
        self, site, record, direct, monkeypatch, completion
    ):
        monkeypatch.setattr(completion, "WAIT_SECONDS", 0.2)
        described = direct.send(CONTENT)
        rows = site.rows.leases
        assert site.in_transaction(lambda: rows.take(described["id"], "other"))
        again = direct.complete(described, status=202)
        assert again.headers["Retry-After"]
        site.in_transaction(lambda: rows.drop(described["id"]))
        direct.complete(described)
        record.check(CONTENT)

    def test_a_lease_that_is_lost_before_the_record_is_written(
        self, site, record, direct, monkeypatch, completion
    ):
        """Another request has taken over: the first one writes nothing."""
        described = direct.send(CONTENT)
        rows, original = site.rows.leases, completion._store

        def store(*args):
            original(*args)
            site.in_transaction(lambda: rows.drop(described["id"]))
            assert site.in_transaction(lambda: rows.take(described["id"], "other"))

        with monkeypatch.context() as patch:
            patch.setattr(completion, "_store", store)
            direct.complete(described, status=409)
        record.http.get(record.uri, headers=ALICE, status=404)
        site.in_transaction(lambda: rows.drop(described["id"]))
        direct.complete(described)
        record.check(CONTENT)


class TestStorageDown:
    """A 503 at each step; and again, later, everything works."""

    @pytest.fixture
    def down(self, site, monkeypatch):
        def fail(*args, **options):
            raise StorageUnavailable("down")

        class Down:
            def __init__(self, *calls):
                self.calls = calls

            def __enter__(self):
                self.patch = monkeypatch.context()
                patch = self.patch.__enter__()
                for call in self.calls:
                    patch.setattr(site.storage, call, fail)

            def __exit__(self, *exc_info):
                self.patch.__exit__(*exc_info)

        return Down

    @pytest.mark.parametrize("is_known", [False, True])
    def test_each_step(self, site, record, direct, down, staged, is_known):
        known = {"hash": digest(CONTENT)} if is_known else {}
        signs = site.plugin.settings.storage == "s3"
        if signs:
            with down("sign_put", "proves_digests"):
                direct.create(len(CONTENT), status=503, **known)
        described = direct.create(len(CONTENT), **known).json
        if signs:
            with down("sign_put"):
                direct.get(described, status=503)
            with down("look"):
                direct.get(described, status=503)
        else:
            for call in ("put", "spool"):
                with down(call):
                    direct.put(described, CONTENT, status=503)
        direct.put(described, CONTENT)
        # In the order in which they are needed: what has succeeded once is not done again.
        copied = ("look", "open", "compose", "stat")  # the storage has proven the hash
        joined = ("look", "compose", "stat", "open")
        calls = (copied if is_known else joined) if signs else ("open",)
        for call in calls:
            with down(call):
                refused = direct.complete(described, status=503)
                assert refused.headers["Retry-After"]
            assert direct.get(described).json["state"] == "open"
            record.http.get(record.uri, headers=ALICE, status=404)
        direct.complete(described)
        record.check(CONTENT)
        assert staged() == []

    def test_deletion(self, site, record, direct, staged):
        """Bytes that cannot be deleted now are left to gc."""
        described = direct.send(CONTENT)
        original, failures = site.storage.delete, [1]

        def delete(keys):
            if failures and failures.pop():
                raise StorageUnavailable("down")
            original(keys)

        site.storage.delete = delete
        try:
            direct.delete(described)
        finally:
            del site.storage.delete
        direct.get(described, status=404)
