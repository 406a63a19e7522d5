"""Rows of version 8, written by hand."""

import tracemalloc
from contextlib import closing
from hashlib import sha256
from itertools import islice

import psycopg2
import pytest
import transaction

from kinto_attachment.files.ref import FieldRef, RecordRef
from kinto_attachment.finding import Finding
from kinto_attachment.legacy import adoption
from kinto_attachment.legacy.adoption import LegacyRows
from kinto_attachment.rows.links import Link
from tests.support.legacy import adopt, every_link, keeps_nothing, old_file
from tests.support.site import Site


class TestRows:
    """Rows written by hand, on both of Kinto's storages."""

    @pytest.fixture
    def site(self, kinto, kinto_settings, file_settings):
        return Site(**kinto_settings(kinto, fresh=True), **file_settings("local"))

    @pytest.fixture
    def rows(self, site):
        return LegacyRows(site.rows, "https://cdn.example/files/", keeps_nothing(site))

    @pytest.fixture(params=adoption.RESOURCE_NAMES)
    def write(self, request, site):
        def write(ref: RecordRef, key: str, **changes) -> None:
            row = {
                "location": key,
                "bucket_uri": f"/buckets/{ref.bucket}",
                "collection_uri": ref.collection_uri,
                "record_uri": ref.uri,
            }
            site.in_transaction(
                lambda: site.registry.storage.create(
                    request.param, adoption.PARENT, {**row, **changes}
                )
            )

        return write

    @pytest.fixture
    def unlinked(self, site):
        """Make records whose file is not linked; each call returns the record and the key."""
        collection = site.collection()

        def make() -> tuple[RecordRef, str]:
            record = collection.record()
            record.upload()
            ref = RecordRef(collection.bucket, "fonts", record.id)
            site.in_transaction(lambda: site.links.remove(ref))
            return ref, site.key(record.data["attachment"]["location"])

        return make

    def adopt(self, site, rows, *scope):
        return site.in_transaction(lambda: list(rows.adopt(*scope)))

    def test_rows_of_both_formats_are_adopted(self, site, rows, write, unlinked):
        assert not site.in_transaction(rows.exist)
        ref, key = unlinked()
        write(ref, key)
        assert site.in_transaction(rows.exist)
        assert self.adopt(site, rows) == [Finding("adopted", key, ref.uri)]
        digest = sha256(b"--fake--").hexdigest()
        assert site.in_transaction(lambda: site.links.of(FieldRef(ref))) == [
            Link(FieldRef(ref), key, digest)
        ]
        assert not site.in_transaction(rows.exist)

    def test_a_record_that_is_already_linked(self, site, rows, write):
        record = site.collection().record()
        record.upload()
        ref = RecordRef(record.collection.bucket, "fonts", record.id)
        write(ref, site.key(record.data["attachment"]["location"]))
        assert self.adopt(site, rows) == []
        assert not site.in_transaction(rows.exist)
        record.check(b"--fake--")

    def test_rows_without_a_record_of_that_file_are_left_behind(self, site, rows, write, unlinked):
        ref, key = unlinked()
        gone = RecordRef("none", "such", "record")
        write(ref, "another/key.png")
        write(gone, "gone/key.png")
        found = self.adopt(site, rows)
        assert set(found) == {
            Finding("adopted", key, ref.uri),
            Finding("left behind", "another/key.png", ref.uri, "it has another attachment"),
            Finding("left behind", "gone/key.png", gone.uri, "the record is gone"),
        }

    @pytest.mark.parametrize("changes", [{"location": None}, {"record_uri": 7}, {"record_uri": ""}])
    def test_a_row_without_a_location_or_record(self, site, rows, write, changes):
        write(RecordRef("a", "b", "c"), "a/b.png", **changes)
        assert [finding.kind for finding in self.adopt(site, rows)] == ["left behind"]
        assert not site.in_transaction(rows.exist)

    def test_two_records_of_one_file(self, site, rows, write, unlinked):
        (one, key), (other, _) = unlinked(), unlinked()
        storage = site.registry.storage
        with transaction.manager:
            attachment = storage.get("record", one.collection_uri, one.record)["attachment"]
            changed = {"attachment": attachment}
            storage.update("record", other.collection_uri, other.record, changed)
        for ref in (one, other):
            write(ref, key)
        self.adopt(site, rows, one.bucket, one.collection, one.record)
        links = site.in_transaction(lambda: site.links.having(key))
        assert [(link.ref.record, link.shared) for link in links] == [(one, True)]
        self.adopt(site, rows)
        links = site.in_transaction(lambda: site.links.having(key))
        assert {(link.ref.record, link.shared) for link in links} == {(one, True), (other, True)}

    @pytest.mark.parametrize("base_url", ["", "https://cdn.example/files/"])
    def test_a_copy_of_a_linked_file(self, site, rows, write, unlinked, base_url):
        (ref, key), (other, _) = unlinked(), unlinked()
        storage = site.registry.storage
        with transaction.manager:
            attachment = storage.get("record", ref.collection_uri, ref.record)["attachment"]
            site.links.add(Link(ref, key, attachment["hash"]))
            changed = {"attachment": {**attachment, "location": base_url + key}}
            storage.update("record", other.collection_uri, other.record, changed)
        write(ref, key)
        self.adopt(site, rows)
        links = site.in_transaction(lambda: site.links.having(key))
        assert {(link.ref.record, link.shared) for link in links} == {(ref, True), (other, True)}

    def test_a_row_written_after_the_records_were_read(
        self, site, rows, write, unlinked, monkeypatch
    ):
        ref, key = unlinked()
        write(ref, key)
        monkeypatch.setattr(adoption._Adoption, "_unlinked", lambda *args: iter(()))
        assert self.adopt(site, rows) == [Finding("adopted", key, ref.uri)]


class TestOtherBaseURLs:
    """Locations below another base URL than today's, or below a path."""

    @pytest.mark.parametrize(
        "base_url", ["//cdn.example/files/", "/files/", "https://old.example/"]
    )
    def test_a_file_is_adopted(self, make_server, base_url):
        site = make_server("local")
        ref, key = old_file(site, base_url=base_url)
        assert adopt(site) == [Finding("adopted", key, ref.uri)]
        assert [link.key for link in every_link(site)] == [key]


MANY = """
INSERT INTO objects (deleted, parent_id, resource_name, id, last_modified, data)
SELECT false, made.parent, made.name, made.id, from_epoch(1500000000000 + i), made.data::jsonb
  FROM generate_series(1, {count}) AS i,
  LATERAL (SELECT 'b/c' || i % 20 || '/' || i || '.png' AS key,
                  '/buckets/b/collections/c' || i % 20 AS uri) AS its,
  LATERAL (VALUES
    (its.uri, 'record', 'r' || i, jsonb_build_object('attachment', jsonb_build_object(
       'filename', 'a.png', 'mimetype', 'image/png', 'size', 4, 'hash', repeat('e3b0', 16),
       'location', 'https://cdn.example/files/' || its.key))),
    ('__attachments__', '', md5(i::text), jsonb_build_object(
       'location', its.key, 'bucket_uri', '/buckets/b', 'collection_uri', its.uri,
       'record_uri', its.uri || '/records/r' || i))
  ) AS made (parent, name, id, data);
INSERT INTO objects (deleted, parent_id, resource_name, id, last_modified, data)
SELECT false, '/buckets/b', 'collection', 'c' || i, from_epoch(1500000000000 + i), '{{}}'
  FROM generate_series(0, 19) AS i;
INSERT INTO objects (deleted, parent_id, resource_name, id, last_modified, data)
VALUES (false, '', 'bucket', 'b', from_epoch(1500000000000), '{{}}');
"""


@pytest.mark.slow
def test_many_rows_in_constant_memory(kinto_settings, file_settings):
    """Adopting all rows takes hardly more memory than adopting the first of them."""
    settings = kinto_settings("postgresql", fresh=True)
    site = Site(**settings, **file_settings("local"))
    with closing(psycopg2.connect(settings["kinto.storage_url"])) as connection:
        connection.cursor().execute(MANY.format(count=20_000))
        connection.commit()
    rows = LegacyRows(site.rows, "https://cdn.example/files/", keeps_nothing(site))
    findings = rows.adopt(transaction_manager=transaction.manager)
    tracemalloc.start()
    try:
        found = sum(1 for _ in islice(findings, 3_000))
        _, first = tracemalloc.get_traced_memory()
        found += sum(1 for _ in findings)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == 20_000
    assert not site.in_transaction(rows.exist)
    assert peak < 1.5 * first
