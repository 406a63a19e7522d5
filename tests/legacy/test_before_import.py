"""A server before the import: old files are found when they are replaced or deleted."""

import pytest
import transaction

from kinto_attachment.errors import AttachmentError
from kinto_attachment.maintenance.gc import collect
from kinto_attachment.maintenance.server import Server
from tests.support.legacy import adopt, old_file
from tests.support.site import ALICE, Collection, Site


class TestBeforeTheImport:
    """A server that knows old files by their rows only."""

    @pytest.fixture
    def record(self, make_database, file_settings):
        settings = {**make_database(), **file_settings("local")}
        site = Site(**settings)
        collection = site.collection()
        record = collection.record()
        record.upload(b"old")
        (link,) = site.in_transaction(lambda: list(site.links.all()))
        row = {
            "location": link.key,
            "bucket_uri": f"/buckets/{collection.bucket}",
            "collection_uri": collection.uri,
            "record_uri": record.uri,
        }

        def make_it_old():
            site.links.remove(link.ref)
            site.links.forget(2**52)
            site.registry.storage.create("", "__attachments__", row)

        site.in_transaction(make_it_old)
        site.close()
        site = Site(**settings)  # it has looked for old rows when it started
        yield Collection(site, collection.bucket, "fonts").record(record.id)
        site.close()

    def test_an_old_file_can_be_read(self, record):
        assert record.http.get(record.attachment_uri, headers=ALICE).body == b"old"

    def test_an_old_file_can_be_replaced(self, record, caplog):
        record.upload(b"new", status=200)
        record.check(b"new")
        assert "Files of kinto-attachment 0.x to 9.x are not imported yet" in caplog.text
        assert not record.site.in_transaction(record.site.plugin.legacy.exist)

    @pytest.mark.parametrize("how", ["detach", "record", "records", "collection", "bucket"])
    def test_an_old_file_can_be_deleted(self, record, how):
        bucket = f"/buckets/{record.collection.bucket}"
        uri = {
            "detach": record.attachment_uri,
            "record": record.uri,
            "records": f"{record.collection.uri}/records",
            "collection": record.collection.uri,
            "bucket": bucket,
        }[how]
        (key,) = record.collection.keys
        record.http.delete(uri, headers=ALICE)
        assert record.collection.releases == [("sweep", key)]
        server = Server.of(record.site.registry, transaction.manager)
        list(collect(server, offline=True))
        assert record.collection.keys == []

    def test_gc_refuses_to_run(self, record):
        server = Server.of(record.site.registry, transaction.manager)
        with pytest.raises(AttachmentError, match="kinto-attachment import"):
            list(collect(server, offline=True, force=True))
        assert len(record.collection.keys) == 1

    def test_a_file_of_older_settings_can_be_read(self, make_server):
        """A name of older settings: only the row proves that the file is that of this record."""
        site = make_server("local")
        ref, key = old_file(site, "elsewhere/a-photo.txt")
        other = Collection(site, ref.bucket, "fonts").record("other")
        attachment = site.in_transaction(
            lambda: site.registry.storage.get("record", ref.collection_uri, ref.record)
        )["attachment"]
        site.in_transaction(
            lambda: site.registry.storage.create(
                "record", ref.collection_uri, {"id": "other", "attachment": attachment}
            )
        )
        record = Collection(site, ref.bucket, "fonts").record(ref.record)
        assert site.http.get(record.attachment_uri, headers=ALICE).body == b"an old file"
        assert site.http.get(other.attachment_uri, headers=ALICE, status=404)
        adopt(site)
        for each in (record, other):
            assert site.http.get(each.attachment_uri, headers=ALICE).body == b"an old file"
