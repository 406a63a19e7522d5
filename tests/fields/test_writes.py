"""What clients may write in the fields of a record: rearrange, let go, but not invent."""

import json
import time
from uuid import uuid4

import pytest

from tests.support.fields import FIELDS, NAMES, PRIVATE, check_whole, form, get, pictures, put, send
from tests.support.site import ALICE, batch

FILES = {"local"}


@pytest.fixture(
    params=[
        pytest.param(FIELDS, id="public"),
        pytest.param(PRIVATE, id="private", marks=pytest.mark.slow),
    ]
)
def site(make_site, kinto, files, request):
    return make_site(kinto, files, **request.param)


class TestWrites:
    """The record may rearrange, and let go, but not invent."""

    WRITES = {
        "put": lambda record, value, **o: put(record, pictures=value, **o),
        "patch": lambda record, value, **o: record.http.patch_json(
            record.uri, {"data": {"pictures": value}}, headers=ALICE, **o
        ),
        "merge": lambda record, value, **o: record.http.patch_json(
            record.uri,
            {"data": {"pictures": value}},
            headers={**ALICE, "Content-Type": "application/merge-patch+json"},
            **o,
        ),
        "json-patch": lambda record, value, **o: record.http.patch_json(
            record.uri,
            [{"op": "add", "path": "/data/pictures", "value": value}],
            headers={**ALICE, "Content-Type": "application/json-patch+json"},
            **o,
        ),
        "plural": lambda record, value, **o: record.http.post_json(
            f"{record.collection.uri}/records",
            {"data": {"id": record.id, "pictures": value}},
            headers=ALICE,
            **o,
        ),
    }

    @pytest.fixture(params=WRITES)
    def write(self, request):
        return self.WRITES[request.param]

    def test_reorder(self, record, write):
        one, two, three = pictures(record, *NAMES)
        write(record, [three, one, two])
        if write is not self.WRITES["plural"]:  # which returns the record that exists
            assert record.data["pictures"] == [three, one, two]
        check_whole(record)

    @pytest.mark.parametrize("how", ["put", "patch", "merge", "json-patch"])
    def test_leave_out(self, record, how):
        one, two, three = pictures(record, *NAMES)
        self.WRITES[how](record, [three, one])
        assert record.data["pictures"] == [three, one]
        check_whole(record)
        self.WRITES[how](record, [])
        assert record.data["pictures"] == []
        assert record.collection.keys == []

    @pytest.mark.parametrize("how", ["put", "patch", "merge"])
    def test_null(self, record, how):
        pictures(record, *NAMES)
        send(record, "cover")
        self.WRITES[how](record, None)
        assert record.data.get("pictures") is None
        assert len(record.collection.keys) == (0 if how == "put" else 1)

    def test_put_without_the_fields(self, record):
        pictures(record, *NAMES)
        send(record, "cover")
        put(record, family="sans")
        assert record.collection.keys == []
        assert record.collection.releases == []

    def test_patch_of_something_else(self, record):
        entries = pictures(record, *NAMES)
        record.http.patch_json(record.uri, {"data": {"family": "x"}}, headers=ALICE)
        assert record.data["pictures"] == entries
        check_whole(record)

    FORGED = {
        "added": lambda one, two, other: [one, two, {**one, "id": str(uuid4())}],
        "without id": lambda one, two, other: [one, {k: v for k, v in two.items() if k != "id"}],
        "altered": lambda one, two, other: [one, {**two, "size": 1}],
        "renamed": lambda one, two, other: [one, {**two, "filename": "b.exe"}],
        "relocated": lambda one, two, other: [one, {**two, "location": one["location"]}],
        "more members": lambda one, two, other: [one, {**two, "alt": "x"}],
        "twice": lambda one, two, other: [one, two, one],
        "exchanged ids": lambda one, two, other: [
            {**one, "id": two["id"]},
            {**two, "id": one["id"]},
        ],
        "of another record": lambda one, two, other: [one, two, other],
        "a number": lambda one, two, other: [1],
        "an id": lambda one, two, other: [one["id"]],
        "nested": lambda one, two, other: [[one]],
        "an object": lambda one, two, other: {"0": one},
        "text": lambda one, two, other: "x",
        "null": lambda one, two, other: [one, None],
    }

    @pytest.mark.parametrize("forged", FORGED)
    @pytest.mark.parametrize("how", ["put", "patch", "merge", "json-patch"])
    def test_forged(self, record, how, forged):
        one, two = pictures(record, "one.txt", "two.txt")
        [other] = pictures(record.collection.record(), "other.txt")
        before = record.snapshot()
        answer = self.WRITES[how](record, self.FORGED[forged](one, two, other), status=400)
        assert answer.json["message"].endswith("Attachment metadata cannot be modified.")
        assert answer.json["details"][0]["name"] == "pictures"
        assert record.snapshot() == before

    @pytest.mark.parametrize(
        "operation",
        [
            {"op": "replace", "path": "/data/pictures/0/size", "value": 1},
            {"op": "remove", "path": "/data/pictures/0/hash"},
            {"op": "add", "path": "/data/pictures/0/size/x", "value": 1},
            {"op": "add", "path": "/data/pictures/-", "value": {}},
            {"op": "copy", "from": "/data/pictures/0", "path": "/data/pictures/-"},
            {"op": "copy", "from": "/data/pictures/0", "path": "/data/cover"},
            {"op": "copy", "from": "/data/cover", "path": "/data/attachment"},
            {"op": "move", "from": "/data/pictures/0", "path": "/data/notes"},
            {"op": "move", "from": "/data/pictures/0/hash", "path": "/data/cover/hash"},
            {"op": "add", "path": "/data/cover/x", "value": 1},
            {"op": "replace", "path": "/data/cover", "value": []},
            {"op": "replace", "path": "/data/pictures/7", "value": {}},
        ],
        ids=lambda operation: f"{operation['op']}-{operation['path']}",
    )
    def test_forged_by_a_json_patch(self, record, operation):
        pictures(record, "one.txt", "two.txt")
        send(record, "cover")
        before = record.snapshot()
        headers = {**ALICE, "Content-Type": "application/json-patch+json"}
        record.http.patch_json(record.uri, [operation], headers=headers, status=400)
        assert record.snapshot() == before

    @pytest.mark.parametrize(
        "data",
        [
            {"pictures": {"0": {"size": 1}}},
            {"cover": {"size": 1}},
            {"cover": {"size": {"x": 1}}},
            {"cover": {"x": {"y": 1}}},
            {"cover": {"hash": None}},
            {"family": {"x": 1}},
        ],
        ids=str,
    )
    def test_forged_by_a_merge_patch(self, record, data):
        pictures(record, "one.txt", "two.txt")
        send(record, "cover")
        record.http.patch_json(record.uri, {"data": {"family": "sans"}}, headers=ALICE)
        before = record.snapshot()
        headers = {**ALICE, "Content-Type": "application/merge-patch+json"}
        record.http.patch_json(record.uri, {"data": data}, headers=headers, status=400)
        assert record.snapshot() == before

    @pytest.mark.parametrize("forged", FORGED)
    def test_forged_in_a_batch_and_on_creation(self, record, forged):
        one, two = pictures(record, "one.txt", "two.txt")
        value = self.FORGED[forged](one, two, one)
        before = record.snapshot()
        new = record.collection.record()
        answer = batch(
            record,
            ("PATCH", record.uri, {"data": {"pictures": self.FORGED[forged](one, two, one)}}),
            ("PUT", new.uri, {"data": {"pictures": value}}),
            ("POST", f"{record.collection.uri}/records", {"data": {"pictures": value}}),
        )
        assert [each["status"] for each in answer.json["responses"]][1:] == [400, 400]
        assert record.snapshot() == before

    def test_moved_to_another_field(self, record):
        [one] = pictures(record, "one.txt")
        cover = send(record, "cover").json
        before = record.snapshot()
        for data in (
            {"pictures": [], "notes": [one]},
            {"pictures": [one], "notes": [one], "cover": cover},
            {"pictures": [one, {"id": str(uuid4()), **cover}]},
            {"cover": {k: v for k, v in one.items() if k != "id"}},
            {"attachment": cover},
            {"cover": []},
            {"cover": [cover]},
        ):
            put(record, status=400, **data)
        assert record.snapshot() == before

    def test_outdated_entries(self, record):
        """What was lost counts as not there, and what was replaced as it is now."""
        one, two, three = pictures(record, *NAMES)
        url = f"{record.uri}/attachments/pictures"
        record.http.delete(f"{url}/{one['id']}", headers=ALICE)
        new = send(record, f"pictures/{two['id']}", b"new", "new.txt", "put").json
        put(record, pictures=[three, two, one])
        assert record.data["pictures"] == [three, new]
        check_whole(record)
        put(record, pictures=[{**one, "size": 0}, three], status=400)
        put(record, pictures=[two, new], status=400)
        put(record, pictures=[one])
        assert record.data["pictures"] == []
        assert record.collection.keys == []

    def test_many_outdated_entries(self, record):
        entries = pictures(record, *(f"{number}.txt" for number in range(25)))
        put(record, pictures=[])
        [new] = pictures(record, "new.txt")
        put(record, pictures=[*entries, new])
        assert record.data["pictures"] == [new]
        other = record.collection.record()
        [forged] = pictures(other, "other.txt")
        put(record, pictures=[*entries, forged], status=400)

    def test_outdated_single(self, record):
        before = send(record, "cover", b"first").json
        now = send(record, "cover", b"second", status=200).json
        put(record, cover=before)
        assert record.data["cover"] == now
        put(record)
        put(record, cover=before)
        assert "cover" not in record.data

    def test_numbers_in_another_spelling(self, record):
        [one] = pictures(record, "one.txt")
        text = json.dumps({"data": {"pictures": [{**one, "size": 0}]}})
        body = text.replace('"size": 0', f'"size": {one["size"]}.0')
        headers = {**ALICE, "Content-Type": "application/json"}
        record.http.put(record.uri, body, headers=headers)
        assert record.http.get(record.uri, headers=ALICE).text.count(".0") == 0

    def test_deletions_of_every_kind(self, site):
        for where in ("record", "records", "collection", "bucket"):
            record = site.collection().record()
            pictures(record, *NAMES)
            form(record, ("cover", "a.txt", b"1"), ("attachment", "b.txt", b"2"))
            bucket = f"/buckets/{record.collection.bucket}"
            uris = {"records": f"{record.collection.uri}/records", "bucket": bucket}
            uris |= {"record": record.uri, "collection": record.collection.uri}
            record.http.delete(uris[where], headers=ALICE)
            assert record.collection.keys == [], where
            assert record.collection.links == []
            assert record.collection.releases == []

    def test_a_record_that_is_deleted_and_created_again(self, record):
        entries = pictures(record, *NAMES)
        record.http.delete(record.uri, headers=ALICE)
        put(record, pictures=entries)
        assert record.data["pictures"] == []
        assert record.collection.keys == []


class TestLookalikes:
    """Attributes that describe files, and are no fields."""

    def test_names_that_no_field_can_have(self, record):
        """Such a name may be the end of the URL of an entry."""
        [one] = pictures(record, "one.txt")
        others = [record.collection.record() for _ in range(24)]
        alike = {name: value for name, value in one.items() if name != "id"}
        name = f"pictures/{one['id']}"
        record.http.patch_json(record.uri, {"data": {name: alike}}, headers=ALICE)
        for other in others:
            other.put(foo=alike)
        changes = [("PATCH", other.uri, {"data": {"foo": None}}) for other in others]
        batch(record, *changes, ("PATCH", record.uri, {"data": {name: None}}))
        assert get(record, f"/pictures/{one['id']}").body == b"one.txt"
        check_whole(record)

    def test_are_not_remembered(self, record):
        [one] = pictures(record.collection.record(), "one.txt")
        alike = {name: value for name, value in one.items() if name != "id"}
        record.put(avatar=alike)
        record.http.delete(record.uri, headers=ALICE)
        record.put(avatar={**alike, "size": 7})
        assert record.data["avatar"]["size"] == 7
        assert get(record).json == {}


class TestUnusual:
    def test_a_list_that_was_no_field(self, make_site, kinto, files):
        """What the attribute had before stays, and cannot be multiplied."""
        plain = make_site(kinto, files, **{"kinto.attachment.fields": "attachment"})
        if kinto == "memory":
            pytest.skip("two sites share no memory")
        collection = plain.collection()
        before = ["a.png", {"x": 1}, 5]
        collection.record("r").put(pictures=before, cover={"x": 1})
        site = make_site(kinto, files, **FIELDS)
        record = type(collection)(site, collection.bucket, "fonts").record("r")
        [one] = pictures(record, "one.txt")
        assert record.data["pictures"] == [*before, one]
        assert get(record).json == {"pictures": [one]}
        assert get(record, "/pictures").json == [one]
        get(record, "/cover", status=404)
        put(record, pictures=[5, one, "a.png"])
        put(record, pictures=[5, 5, one], status=400)
        put(record, pictures=["b.png", one], status=400)
        check_whole(record)

    def test_many_forged_entries(self, record):
        """They are refused at the first, however many files the record has lost."""
        pictures(record, *(f"{number}.txt" for number in range(25)))
        put(record, pictures=[])
        location = "a/" * 511 + "b"
        forged = {"filename": "a", "hash": "0" * 64, "location": location, "mimetype": "a/b"}
        for count in (900, 2000):
            entries = [{"id": str(uuid4()), "size": 1, **forged} for _ in range(count)]
            before = time.process_time()
            put(record, pictures=entries, status=400)
            assert time.process_time() - before < 2

    def test_room_made_by_data(self, make_site, kinto, files):
        settings = {**FIELDS, "kinto.attachment.max_files": "3"}
        record = make_site(kinto, files, **settings).collection().record()
        one, *_ = pictures(record, *NAMES)
        form(record, ("pictures", "new.txt", b"new"), data={"pictures": [one]}, status=200)
        assert [each["filename"] for each in record.data["pictures"]] == ["one.txt", "new.txt"]
        check_whole(record)

    def test_outdated_lists_called_attachment(self, make_site, kinto, files):
        fields = {"kinto.attachment.fields": "attachment[]"}
        record = make_site(kinto, files, **fields).collection().record()
        entries = [record.upload(b"%d" % number).json for number in range(25)]
        put(record, attachment=[])
        put(record, attachment=entries)
        assert record.data["attachment"] == []

    def test_a_small_fetch_size(self, make_site, files):
        settings = {**FIELDS, "kinto.storage_max_fetch_size": "5"}
        record = make_site("postgresql", files, **settings).collection().record()
        entries = pictures(record, *(f"{number}.txt" for number in range(12)))
        for entry in entries:
            url = f"{record.uri}/attachments/pictures/{entry['id']}"
            record.http.delete(url, headers=ALICE)
        put(record, pictures=entries)
        assert record.data["pictures"] == []

    def test_a_list_that_becomes_a_single_field(self, make_site, file_settings):
        place = file_settings("local")
        collection = make_site("postgresql", "local", **place, **FIELDS).collection()
        one, two, three = pictures(collection.record("r"), *NAMES)
        fields = {"kinto.attachment.fields": "pictures"}
        site = make_site("postgresql", "local", **place, **fields)
        record = type(collection)(site, collection.bucket, "fonts").record("r")
        put(record, pictures=[three, one])
        url = f"{record.uri}/attachments/pictures/{one['id']}"
        record.http.delete(url, headers=ALICE, status=204)
        assert record.data["pictures"] == [three]
        check_whole(record)
        send(record, "pictures", b"single", status=200)
        assert len(record.collection.keys) == 1


@pytest.mark.parametrize("behaviour", ["light", "diff"])
@pytest.mark.parametrize("field", ["cover", "attachment", "pictures"])
def test_a_partial_response_beside_a_deletion(
    make_site, files, between_read_and_write, behaviour, field
):
    """Kinto tells the listeners the changes only."""
    settings = {**FIELDS, "kinto.includes": "kinto_attachment"}
    record = make_site("postgresql", files, **settings).collection().record()
    send(record, field)
    record.http.patch_json(record.uri, {"data": {"family": "x"}}, headers=ALICE)
    uri = f"{record.uri}/attachments/{field}"
    headers = {**ALICE, "Response-Behavior": behaviour}
    between_read_and_write(lambda: record.http.delete(uri, headers=ALICE))
    record.http.patch_json(record.uri, {"data": {"family": "y"}}, headers=headers)
    assert field not in record.data
    assert record.data["family"] == "y"
    assert record.collection.keys == []
