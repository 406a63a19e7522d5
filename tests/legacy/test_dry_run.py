"""The dry run of the import."""

from contextlib import closing
from uuid import uuid4

import psycopg2
import pytest
import transaction

from kinto_attachment.files.ref import RecordRef
from tests.support.legacy import KEEP, adopt, old_file, write_row
from tests.support.site import Collection
from tests.support.threads import in_thread


class TestDryRun:
    """``kinto-attachment import --dry-run``."""

    @pytest.fixture(params=["true", "false"])
    def site(self, request, make_server):
        return make_server("local", **KEEP, **{"kinto.transaction_per_request": request.param})

    def test_finds_the_same_and_changes_nothing(self, site):
        one, _ = old_file(site)
        old_file(site)
        copy = RecordRef(one.bucket, "fonts", "copy")
        storage = site.registry.storage

        def write_copy():
            attachment = storage.get("record", one.collection_uri, one.record)["attachment"]
            storage.create("record", copy.collection_uri, {"id": "copy", "attachment": attachment})

        site.in_transaction(write_copy)
        write_row(site, RecordRef("none", "such", "record"), "older/name.txt")
        site.put(f"blog/fonts/{uuid4()}.txt")
        before = self.rows(site)
        would = adopt(site, dry_run=True)
        assert self.rows(site) == before
        assert sorted(map(str, would)) == sorted(map(str, adopt(site)))
        assert {f.record for f in would if f.detail == "shared"} == {one.uri, copy.uri}
        assert self.rows(site) != before

    def rows(self, site) -> list:
        with closing(psycopg2.connect(site.settings["kinto.storage_url"])) as connection:
            cursor = connection.cursor()
            cursor.execute("SELECT * FROM objects ORDER BY 1, 2, 3")
            return [str(row) for row in cursor.fetchall()]

    def test_does_not_block_uploads(self, site):
        (ref, _), _ = old_file(site), old_file(site)
        job = site.server.plugin.legacy.adopt(transaction_manager=transaction.manager, dry_run=True)
        next(job)
        record = Collection(site, ref.bucket, "fonts").record(ref.record)
        uploading = in_thread(lambda: record.upload(b"new"), timeout=20)
        assert not uploading.is_alive()
        list(job)
