"""``rebase``: the locations that it rewrites, on every file storage."""

from datetime import timedelta

import pytest
from kinto.core.storage.exceptions import IntegrityError

from kinto_attachment.maintenance.gc import collect
from kinto_attachment.maintenance.rebase import rebase
from tests.support.maintenance import check, findings
from tests.support.site import ALICE
from tests.support.threads import in_thread

FIELD_NAMES = {"attachment", "cover"}


class TestRebase:
    OLD, NEW = "https://cdn.example/files/", "https://other.example/"

    def test_locations_are_rewritten(self, site):
        collection = site.collection()
        records = [collection.record() for _ in range(3)]
        for record in records:
            record.upload(b"content", data={"family": "sans"})
        plain = collection.record()
        plain.put(family="serif")
        before = [record.data for record in (*records, plain)]
        assert len(findings(rebase(site.server, self.OLD, self.NEW, dry_run=True))) == 3
        assert [record.data for record in (*records, plain)] == before
        assert len(findings(rebase(site.server, self.OLD, self.NEW))) == 3
        for record, old in zip((*records, plain), before, strict=True):
            new = record.data
            if record is plain:
                assert new == old
                continue
            assert new["last_modified"] > old["last_modified"]
            location = old["attachment"]["location"].replace(self.OLD, self.NEW)
            expected = {**old, "attachment": {**old["attachment"], "location": location}}
            assert {**new, "last_modified": 0} == {**expected, "last_modified": 0}
        assert findings(rebase(site.server, self.OLD, self.NEW)) == []
        assert check(site, deep=True) == []

    def test_files_can_be_read_and_replaced_afterwards(self, site):
        record = site.collection().record()
        record.upload(b"content")
        findings(rebase(site.server, self.OLD, self.NEW))
        assert record.http.get(record.attachment_uri, headers=ALICE).body == b"content"
        record.upload(b"newer")
        record.check(b"newer")

    def test_relative_locations(self, make_server, files):
        site = make_server(files, **{"kinto.attachment.base_url": ""})
        record = site.collection().record()
        location = record.upload(b"content").json["location"]
        for old, new in (("", self.NEW), (self.NEW, self.OLD), (self.OLD, "")):
            assert len(findings(rebase(site.server, old, new))) == 1
            assert record.data["attachment"]["location"] == new + location
            assert findings(rebase(site.server, old, new)) == []

    def test_another_record_is_written_in_the_same_millisecond(self, make_server, monkeypatch):
        """Kinto's timestamps are unique in a collection, so one of them cannot be written."""
        site = make_server("local")
        record = site.collection().record()
        record.upload(b"content")
        former, conflicts = site.rows.former.add, iter([IntegrityError()] * 3)

        def conflicting(*arguments):
            former(*arguments)
            error = next(conflicts, None)
            if error:
                raise error

        monkeypatch.setattr(site.rows.former, "add", conflicting)
        assert len(findings(rebase(site.server, self.OLD, self.NEW))) == 1
        assert next(conflicts, None) is None
        assert record.data["attachment"]["location"].startswith(self.NEW)

    def test_a_write_meanwhile_is_not_lost(self, site, monkeypatch):
        record = site.collection().record()
        record.upload(b"content")
        update, threads, left = site.registry.storage.update, [], [1]

        def patch():
            record.http.patch_json(record.uri, {"data": {"family": "sans"}}, headers=ALICE)

        def update_while_patched(resource_name, *args, **kwargs):
            if resource_name == "record" and left:
                left.pop()
                threads.append(in_thread(patch, timeout=0.5))
            return update(resource_name, *args, **kwargs)

        monkeypatch.setattr(site.registry.storage, "update", update_while_patched)
        job = rebase(site.server, self.OLD, self.NEW)
        next(job)
        threads[0].join(30)
        findings(job)
        data = record.data
        assert (data["family"], data["attachment"]["location"][:21]) == ("sans", self.NEW[:21])


@pytest.mark.parametrize(
    "old, new",
    [
        ("https://cdn.example/files/", "https://new.example/files"),
        ("https://cdn.example/files", "https://new.example/files/"),
    ],
)
def test_a_rebase_without_a_slash(make_server, old, new):
    site = make_server("local")
    record = site.collection().record()
    record.upload(b"content")
    (key,) = site.keys
    assert len(list(rebase(site.server, old, new))) == 1
    assert record.data["attachment"]["location"] == f"https://new.example/files/{key}"
    assert list(collect(site.server, timedelta(0))) == []
    assert site.keys == [key]


def test_a_rebase_to_a_shorter_url(make_server):
    """The new locations still begin with the old base URL."""
    base_url, folder = "https://h.example/files/", "files/{collection_id}"
    site = make_server(
        "local", **{"kinto.attachment.base_url": base_url, "kinto.attachment.folder": folder}
    )
    record = site.collection().record()
    record.upload(b"content")
    (key,) = site.keys
    assert len(list(rebase(site.server, base_url, "https://h.example/"))) == 1
    assert record.data["attachment"]["location"] == f"https://h.example/{key}"
