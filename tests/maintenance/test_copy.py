"""``migrate``: the copies that it makes, on every file storage."""

import secrets
from uuid import uuid4

import pytest

from kinto_attachment.maintenance.migrate import copy
from tests.support.maintenance import findings


class TestCopy:
    @pytest.fixture(params=["local", "seaweedfs", pytest.param("gcs", marks=pytest.mark.slow)])
    def target(self, request, make_site):
        return make_site("memory", request.param, **{"kinto.app": uuid4().hex}).storage

    def run(self, site, target, **options):
        return findings(copy(site.server, target, **options))

    def test_copies_the_files_of_records(self, site, target):
        collection = site.collection()
        contents = {}
        for number in range(4):
            record = collection.record()
            content = secrets.token_bytes(1000 * number)
            contents[site.key(record.upload(content, f"a{number}.pdf").json["location"])] = content
        assert {kind for kind, _, _ in self.run(site, target, dry_run=True)} == {"copied"}
        assert list(target.list()) == []
        assert [key for _, key, _ in self.run(site, target)] == sorted(contents)
        for key, content in contents.items():
            assert b"".join(target.open(key)) == content
        assert self.run(site, target) == []

    def test_goes_on_after_an_interruption(self, site, target):
        collection = site.collection()
        for _ in range(3):
            collection.record().upload(b"content")
        job = copy(site.server, target)
        next(job)
        job.close()
        assert len(list(target.list())) == 1
        collection.record().upload(b"meanwhile")
        assert len(self.run(site, target)) == 3

    def test_a_file_that_is_replaced_meanwhile(self, site, target):
        record = site.collection().record()
        record.upload(b"first")
        job = copy(site.server, target)
        next(job)
        record.upload(b"second")
        assert list(job) == []
        assert len(self.run(site, target)) == 1
        assert set(site.keys) < {stat.key for stat in target.list()}  # gc there takes the other

    def test_damaged_files_are_not_copied(self, site, target):
        record = site.collection().record()
        record.upload(b"content")
        (key,) = site.keys
        site.storage.delete([key])
        assert self.run(site, target) == [("missing object", key, record.place.uri)]
        site.put(key, b"CONTENT")
        assert self.run(site, target) == [("wrong bytes", key, record.place.uri)]
        assert list(target.list()) == []

    def test_kept_files_are_copied(self, make_server, files, target):
        site = make_server(files, **{"kinto.attachment.keep_old_files": "true"})
        record = site.collection().record()
        record.upload(b"first")
        record.upload(b"second")
        assert len(self.run(site, target)) == 2
        assert sorted(stat.key for stat in target.list()) == site.keys
