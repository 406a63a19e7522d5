"""The attribute on the record: only the plugin writes it."""

from contextlib import contextmanager

import pytest
from sqlalchemy import event, text

from tests.support.site import ALICE, Site

FIELD_NAMES = {"attachment", "cover"}

FILES = {"local"}

MERGE = {**ALICE, "Content-Type": "application/merge-patch+json"}
JSON_PATCH = {**ALICE, "Content-Type": "application/json-patch+json"}
FORGED = {
    "filename": "a.txt",
    "hash": "00",
    "location": "https://cdn.example/files/x",
    "mimetype": "text/plain",
    "size": 1,
}


def check_forged(response) -> None:
    assert response.status_int == 400
    assert response.json["message"] == "Attachment metadata cannot be modified."
    assert response.json["details"][0]["name"] == "attachment"


@pytest.mark.parametrize("value", [FORGED, {}, "text", 1, [], {"location": None}, False])
class TestForged:
    def test_on_create(self, record, value):
        check_forged(
            record.http.put_json(
                record.uri, {"data": {"attachment": value}}, headers=ALICE, status="*"
            )
        )
        assert record.snapshot()[0] == 404
        plural = record.uri.rpartition("/")[0]
        body = {"data": {"id": record.id, "attachment": value}}
        check_forged(record.http.post_json(plural, body, headers=ALICE, status="*"))
        assert record.snapshot() == (404, None, None, None, [], [], [])

    @pytest.mark.parametrize("before", ["with", "without"])
    def test_on_update(self, record, value, before):
        record.upload(b"real") if before == "with" else record.put(family="sans")
        snapshot = record.snapshot()
        body = {"data": {"attachment": value}}
        for method in ("put_json", "patch_json"):
            call = getattr(record.http, method)
            check_forged(call(record.uri, body, headers=ALICE, status="*"))
            assert record.snapshot() == snapshot


class TestAltered:
    @pytest.fixture
    def record(self, record):
        record.upload(b"real", data={"family": "sans"})
        return record

    @pytest.mark.parametrize(
        "change", [{"size": 0}, {"size": 4.5}, {"size": "4"}, {"extra": 1}, {"hash": None}]
    )
    def test_by_merge_patch(self, record, change):
        before = record.snapshot()
        body = {"data": {"attachment": change}}
        check_forged(record.http.patch_json(record.uri, body, headers=MERGE, status="*"))
        assert record.snapshot() == before

    @pytest.mark.parametrize(
        "operation",
        [
            {"op": "replace", "path": "/data/attachment/location", "value": "x"},
            {"op": "remove", "path": "/data/attachment/hash"},
            {"op": "add", "path": "/data/attachment/extra", "value": 1},
            {"op": "copy", "from": "/data/family", "path": "/data/attachment"},
        ],
    )
    def test_by_json_patch(self, record, operation):
        before = record.snapshot()
        check_forged(
            record.http.patch_json(record.uri, [operation], headers=JSON_PATCH, status="*")
        )
        assert record.snapshot() == before

    def test_in_a_batch_fails_alone(self, record):
        requests = [
            {"method": "PATCH", "path": record.uri, "body": {"data": {"attachment": FORGED}}},
            {"method": "PATCH", "path": record.uri, "body": {"data": {"family": "serif"}}},
        ]
        body = {"requests": requests}
        answers = record.http.post_json("/batch", body, headers=ALICE).json["responses"]
        assert [answer["status"] for answer in answers] == [400, 200]
        assert answers[0]["body"]["message"] == "Attachment metadata cannot be modified."
        record.check(b"real")

    def test_by_another_records_attachment(self, record):
        other = record.collection.record()
        other.upload(b"other")
        body = {"data": {"attachment": other.data["attachment"]}}
        check_forged(record.http.patch_json(record.uri, body, headers=ALICE, status="*"))


class TestUnchanged:
    @pytest.fixture
    def record(self, record):
        record.upload(b"real", data={"family": "sans"})
        return record

    def test_by_put_of_the_whole_record(self, record):
        record.put(**{**record.data, "family": "serif"})
        assert record.data["family"] == "serif"
        record.check(b"real")

    def test_by_patch(self, record):
        for data in ({"family": "serif"}, {"attachment": record.data["attachment"]}):
            record.http.patch_json(record.uri, {"data": data}, headers=ALICE)
            record.check(b"real")

    def test_by_merge_patch(self, record):
        for change in ({"family": "serif"}, {"attachment": {"size": 4}}):
            record.http.patch_json(record.uri, {"data": change}, headers=MERGE)
            record.check(b"real")

    def test_by_json_patch(self, record):
        operation = {"op": "replace", "path": "/data/family", "value": "serif"}
        record.http.patch_json(record.uri, [operation], headers=JSON_PATCH)
        record.check(b"real")

    def test_by_permissions(self, record):
        body = {"permissions": {"read": ["system.Everyone"]}}
        record.http.patch_json(record.uri, body, headers=ALICE)
        record.http.put_json(record.uri, body, headers=ALICE)
        record.check(b"real")


class TestDetached:
    """Writing the record without the attribute detaches the file, like ``DELETE``."""

    @pytest.fixture
    def record(self, record):
        record.upload(b"real", data={"family": "sans"})
        return record

    def check(self, record):
        assert record.data.get("attachment") is None
        assert record.snapshot()[3:] == (None, [], [], [])
        record.upload(b"again", status=200)
        record.check(b"again")

    def test_by_put_without_it(self, record):
        record.put(family="serif")
        assert "attachment" not in record.data
        self.check(record)

    def test_by_put_of_null(self, record):
        record.put(attachment=None)
        self.check(record)

    def test_by_patch_of_null(self, record):
        body = {"data": {"attachment": None}}
        record.http.patch_json(record.uri, body, headers=ALICE)
        self.check(record)

    def test_by_merge_patch_of_null(self, record):
        body = {"data": {"attachment": None}}
        record.http.patch_json(record.uri, body, headers=MERGE)
        self.check(record)

    def test_by_json_patch(self, record):
        operation = {"op": "remove", "path": "/data/attachment"}
        record.http.patch_json(record.uri, [operation], headers=JSON_PATCH)
        self.check(record)

    def test_null_without_a_file_changes_nothing(self, record):
        other = record.collection.record()
        other.put(attachment=None)
        other.upload(b"x", status=200)
        assert other.data["attachment"]["size"] == 1


class TestAfterManyFiles:
    """A record that has had thousands of files, each of which has left a tombstone."""

    COUNT = 3000
    TOMBSTONES = text(
        "INSERT INTO objects (id, parent_id, resource_name, last_modified, data, deleted)"
        " SELECT 'own:gone/' || number, parent_id, resource_name,"
        " last_modified - number * INTERVAL '1 second', '{\"deleted\": true}', TRUE"
        f" FROM objects, generate_series(1, {COUNT}) AS number"
        " WHERE resource_name = 'attachment-link' AND NOT deleted"
    )
    UNLINK = text("DELETE FROM objects WHERE resource_name = 'attachment-link' AND NOT deleted")

    @pytest.fixture
    def make_record(self, make_server):
        """Return a function that makes the record, and may remove the link of its present file, as
        a lost race does: only then the tombstones count."""

        def make(linked=True, **settings):
            record = make_server("local", **settings).collection().record()
            record.upload()
            with engine_of(record.site).begin() as connection:
                assert connection.execute(self.TOMBSTONES).rowcount == self.COUNT
                if not linked:
                    connection.execute(self.UNLINK)
            return record

        return make

    @pytest.mark.parametrize("linked", [True, False], ids=["linked", "unlinked"])
    @pytest.mark.parametrize("private", ["true", "false"], ids=["private", "public"])
    def test_a_change_reads_few_rows(self, make_record, linked, private):
        record = make_record(linked, **{"kinto.attachment.private": private})
        # A private file without a link may be any that the record has lost.
        status = 409 if private == "true" and not linked else 200
        body = {"data": {"family": "sans"}}
        with rows_read(record.site) as counts:
            record.http.patch_json(record.uri, body, headers=ALICE, status=status)
        assert 0 < sum(counts) < 50

    def test_a_download_reads_few_rows(self, make_record):
        record = make_record()
        date = record.http.get(record.attachment_uri, headers=ALICE).headers["Last-Modified"]
        headers = {**ALICE, "Range": "bytes=0-1", "If-Range": date}
        with rows_read(record.site) as counts:
            record.http.get(record.attachment_uri, headers=headers, status=200)
        assert 0 < sum(counts) < 50


def engine_of(site):
    return site.registry.storage.client.session_factory.session_factory.kw["bind"]


@contextmanager
def rows_read(site):
    """Yield a list of how many rows each statement of the block returns."""
    counts = []

    def remember(connection, cursor, *_):
        counts.append(max(cursor.rowcount, 0))

    event.listen(engine_of(site), "after_cursor_execute", remember)
    yield counts
    event.remove(engine_of(site), "after_cursor_execute", remember)


class TestFromBefore:
    """Records that are older than this plugin, or than its settings."""

    @pytest.mark.parametrize("value", ["see page 3", 3, ["a"], {"location": None}, {"a": 1}])
    def test_attribute_of_another_kind(self, record, value):
        record.put(family="sans")
        record.write_row({**record.row, record.field: value})
        record.http.patch_json(record.uri, {"data": {"family": "serif"}}, headers=ALICE)
        assert record.data["attachment"] == value
        record.upload(b"real", status=200)
        record.check(b"real")

    def test_another_base_url_than_before(self, make_database, file_settings, files, field_name):
        settings = {"field": field_name, **make_database(), **file_settings(files)}
        record = Site(**settings).collection().record()
        location = record.upload(b"content").json["location"]
        for base_url in ("", "https://other.example/"):
            site = Site(**settings, **{"kinto.attachment.base_url": base_url})
            body = {"data": {"family": base_url}}
            site.http.patch_json(record.uri, body, headers=ALICE)
            got = site.http.get(record.uri, headers=ALICE).json["data"]
            assert got["attachment"]["location"] == location
        site.http.delete(record.uri, headers=ALICE)
        assert record.collection.keys == record.collection.links == []
