"""Fields of a record: single files, and lists of files."""

import json
from uuid import UUID, uuid4

import pytest

from tests.support.fields import (
    FIELDS,
    NAMES,
    PRIVATE,
    check_whole,
    filenames,
    form,
    get,
    pictures,
    put,
    send,
)
from tests.support.images import size_of
from tests.support.library import jpeg
from tests.support.site import ALICE, ATTRIBUTES, BOB


@pytest.fixture(scope="module")
def field_name():
    """These tests name their fields themselves."""
    return "attachment"


FILES = {"local", "seaweedfs"}


@pytest.fixture(params=[FIELDS, PRIVATE], ids=["public", "private"])
def site(make_site, kinto, files, request):
    return make_site(kinto, files, **request.param)


class TestForm:
    def test_several_fields_at_once(self, record):
        answer = form(
            record,
            ("pictures", "b.txt", b"second"),
            ("cover", "a.txt", b"first"),
            ("pictures[]", "c.txt", b"third"),
            ("attachment", "d.txt", b"fourth"),
            data={"family": "sans"},
            permissions={"read": ["system.Everyone"]},
            status=201,
        )
        written = answer.json
        assert set(written) == {"cover", "pictures", "attachment"}
        assert set(written["cover"]) == ATTRIBUTES
        assert [entry["filename"] for entry in written["pictures"]] == ["b.txt", "c.txt"]
        assert all(set(entry) == {"id", *ATTRIBUTES} for entry in written["pictures"])
        assert all(UUID(entry["id"]) for entry in written["pictures"])
        data = record.data
        assert answer.headers["ETag"] == f'"{data["last_modified"]}"'
        assert answer.headers["Location"].endswith(record.uri)
        assert {name: data[name] for name in written} == written
        assert data["family"] == "sans"
        assert record.http.get(record.uri, headers=BOB)
        check_whole(record)

    def test_new_entries_only(self, record):
        pictures(record, "one.txt")
        answer = form(record, ("pictures", "two.txt", b"two"), status=200)
        assert [entry["filename"] for entry in answer.json["pictures"]] == ["two.txt"]
        assert filenames(record) == ["one.txt", "two.txt"]
        check_whole(record)

    def test_an_empty_choice_among_others(self, record):
        form(record, ("cover", "", b""), ("pictures", "one.txt", b"1"), status=201)
        assert list(get(record).json) == ["pictures"]

    @pytest.mark.parametrize(
        "parts, data, field",
        [
            ([("other", "a.txt", b"1"), ("cover", "b.txt", b"2")], {}, "other"),
            ([("cover[]", "a.txt", b"1")], {}, "cover[]"),
            ([("cover", "a.txt", b"1"), ("cover", "b.txt", b"2")], {}, "cover"),
            ([("pictures", "a.txt", b"1"), ("cover", "b.exe", b"2")], {}, "cover"),
            ([("pictures", "a.txt", b"1"), ("pictures", "b.exe", b"2")], {}, "pictures"),
            ([("cover", "a.txt", b"1")], {"data": []}, "data"),
            ([], {"data": {"family": "sans"}}, "attachments"),
            ([("cover", "", b"")], {}, "attachments"),
        ],
    )
    def test_all_or_nothing(self, record, parts, data, field):
        pictures(record, "one.txt")
        before = record.snapshot()
        answer = form(record, *parts, status=400, **data)
        assert [detail["name"] for detail in answer.json["details"]] == [field]
        assert record.snapshot() == before

    def test_schema(self, site):
        schema = {"type": "object", "properties": {"cover": False}}
        record = site.collection(schema=schema).record()
        form(record, ("pictures", "a.txt", b"1"), ("cover", "b.txt", b"2"), status=400)
        record.http.get(record.uri, headers=ALICE, status=404)
        assert record.collection.keys == []

    def test_data_that_carries_the_list(self, record):
        one, two, three = pictures(record, *NAMES)
        data = {"pictures": [three, one], "cover": {"hash": "forged"}}
        form(record, ("pictures", "four.txt", b"4"), ("cover", "c.txt", b"c"), data=data)
        assert filenames(record) == ["three.txt", "one.txt", "four.txt"]
        check_whole(record)

    def test_data_with_a_forged_entry(self, record):
        [one] = pictures(record, "one.txt")
        before = record.snapshot()
        for forged in ({**one, "size": 1}, {**one, "id": str(uuid4())}, "x", [one], None):
            data = {"pictures": [one, forged]}
            answer = form(record, ("pictures", "b.txt", b"2"), data=data, status=400)
            assert answer.json["details"][0]["name"] == "pictures"
        assert record.snapshot() == before

    def test_permissions(self, record):
        pictures(record, "one.txt")
        before = record.snapshot()
        form(record, ("cover", "a.txt", b"1"), headers=BOB, status=403)
        form(record, ("cover", "a.txt", b"1"), headers={"Authorization": ""}, status=401)
        assert record.snapshot() == before

    def test_if_match(self, record):
        pictures(record, "one.txt")
        etag = get(record).headers["ETag"]
        form(record, ("pictures", "two.txt", b"2"), headers={"If-Match": etag})
        answer = form(record, ("cover", "b.txt", b"2"), headers={"If-Match": etag}, status=412)
        assert answer.headers["ETag"] != etag
        new = {"If-None-Match": "*"}
        form(record, ("cover", "b.txt", b"2"), headers=new, status=412)
        assert list(get(record).json) == ["pictures"]
        check_whole(record)


class TestLimits:
    SETTINGS = {**FIELDS, "kinto.attachment.max_files": "3"}

    @pytest.fixture
    def site(self, make_site, kinto, files):
        return make_site(kinto, files, **self.SETTINGS)

    def test_max_files(self, record):
        pictures(record, "one.txt", "two.txt")
        before = record.snapshot()
        files = [("pictures", name, b"x") for name in ("a.txt", "b.txt")]
        for answer in (
            form(record, *files, status=400),
            form(record, *files, *files, status=400),
            form(record, *[("pictures", "a.txt", b"x")] * 5, status=400),
        ):
            assert answer.json["details"][0]["name"] == "pictures"
            assert "up to 3 files" in answer.json["message"]
        assert record.snapshot() == before
        pictures(record, "three.txt")
        answer = send(record, "pictures", status=400)
        assert answer.json["details"][0]["name"] == "pictures"
        check_whole(record)

    def test_a_form_takes_a_hundred_files(self, make_site, kinto, files):
        record = make_site(kinto, files, **FIELDS).collection().record()
        many = [("pictures", f"{number}.txt", b"%d" % number) for number in range(100)]
        answer = form(record, *many, data={"a": 1}, permissions={}, status=201)
        assert len(answer.json["pictures"]) == 100
        assert filenames(record) == [name for _, name, _ in many]
        assert len(record.collection.keys) == 100

    def test_max_size_of_a_field(self, make_site, kinto, files):
        collection = make_site(kinto, files, **FIELDS).collection()
        sizes = {
            f"kinto.attachment.resources.{collection.bucket}.fonts.pictures.max_size": "3",
            f"kinto.attachment.resources.{collection.bucket}.fonts.cover.extensions": "png",
        }
        record = make_site(kinto, files, **FIELDS, **sizes).collection().record()
        assert record  # another bucket: the general settings apply
        small = make_site(kinto, files, **FIELDS, **sizes)
        uri = f"/buckets/{collection.bucket}"
        small.http.put_json(uri, {}, headers=ALICE)
        small.http.put_json(collection.uri, {}, headers=ALICE)
        record = type(collection)(small, collection.bucket, "fonts").record()
        answer = send(record, "pictures", b"1234", status=400)
        assert answer.json["details"][0]["name"] == "pictures"
        answer = send(record, "cover", b"1", "a.txt", status=400)
        assert answer.json["details"][0]["name"] == "cover"
        send(record, "pictures", b"123", status=201)
        send(record, "notes", b"1234", status=201)


class TestLists:
    def test_append(self, record):
        first = send(record, "pictures", b"one", "one.txt", status=201)
        second = send(record, "pictures", b"two", "two.txt", part="pictures[]", status=201)
        for answer, content in ((first, b"one"), (second, b"two")):
            entry = answer.json
            path = f"{record.uri}/attachments/pictures/{entry['id']}"
            assert answer.headers["Location"].endswith(path)
            assert record.http.get(path, headers=ALICE).body == content
        data = record.data
        assert data["pictures"] == [first.json, second.json]
        assert second.headers["ETag"] == f'"{data["last_modified"]}"'
        check_whole(record)

    def test_get(self, record):
        entries = pictures(record, *NAMES)
        answer = get(record, "/pictures")
        assert answer.json == entries
        assert answer.headers["ETag"] == f'"{record.data["last_modified"]}"'
        headers = {**ALICE, "If-None-Match": answer.headers["ETag"]}
        record.http.get(f"{record.uri}/attachments/pictures", headers=headers, status=304)
        assert record.http.head(f"{record.uri}/attachments/pictures", headers=ALICE).body == b""
        record.http.get(f"{record.uri}/attachments/pictures", headers=BOB, status=403)
        record.http.get(f"{record.uri}/attachments", headers=BOB, status=403)

    def test_empty(self, record):
        record.put(family="sans")
        assert get(record).json == {}
        assert get(record, "/pictures").json == []
        get(record, "/cover", status=404)
        put(record, pictures=[])
        assert get(record).json == {}
        [entry] = pictures(record, "one.txt")
        url = f"{record.uri}/attachments/pictures"
        record.http.delete(f"{url}/{entry['id']}", headers=ALICE, status=204)
        assert record.data["pictures"] == []
        record.http.delete(url, headers=ALICE, status=204)
        assert "pictures" not in record.data
        record.http.delete(url, headers=ALICE, status=404)
        record.http.delete(f"{url}/{entry['id']}", headers=ALICE, status=404)
        check_whole(record)

    def test_replace(self, record):
        one, two, three = pictures(record, *NAMES)
        answer = send(record, f"pictures/{two['id']}", b"new", "new.txt", "put", status=200)
        assert answer.json["id"] == two["id"]
        assert filenames(record) == ["one.txt", "new.txt", "three.txt"]
        assert record.data["pictures"][1] == answer.json
        assert get(record, f"/pictures/{two['id']}").body == b"new"
        check_whole(record)
        texts = [("data", json.dumps({"pictures": [one, three]}))]
        mimetype, body = record.http.encode_multipart(texts, [("pictures", "x.txt", b"x")])
        headers = {**ALICE, "Content-Type": mimetype}
        url = f"{record.uri}/attachments/pictures/{two['id']}"
        answer = record.http.put(url, body, headers=headers, status=400)
        assert answer.json["details"][0]["name"] == "pictures"
        send(record, f"pictures/{uuid4()}", b"new", "new.txt", "put", status=404)
        send(record, f"notes/{two['id']}", b"new", "new.txt", "put", status=404)
        assert filenames(record) == ["one.txt", "new.txt", "three.txt"]

    def test_delete(self, record):
        one, two, three = pictures(record, *NAMES)
        url = f"{record.uri}/attachments/pictures"
        answer = record.http.delete(f"{url}/{two['id']}", headers=ALICE, status=204)
        assert answer.headers["ETag"] == f'"{record.data["last_modified"]}"'
        assert record.data["pictures"] == [one, three]
        get(record, f"/pictures/{two['id']}", status=404)
        check_whole(record)
        record.http.delete(url, headers=ALICE, status=204)
        assert record.collection.keys == []

    def test_unknown_fields(self, record):
        pictures(record, "one.txt")
        before = record.snapshot()
        for field in ("other", "data", "covers"):
            send(record, field, status=404)
            get(record, f"/{field}", status=404)
            record.http.delete(f"{record.uri}/attachments/{field}", headers=ALICE, status=404)
        for entry in ("x", "..", "%00", "0x0x0", str(uuid4())[:-1]):
            send(record, f"pictures/{entry}", method="put", status=404)
            get(record, f"/pictures/{entry}", status=404)
        assert record.snapshot() == before

    def test_ranges_and_head(self, record):
        entry = send(record, "pictures", b"0123456789").json
        url = f"{record.uri}/attachments/pictures/{entry['id']}"
        part = record.http.get(url, headers={**ALICE, "Range": "bytes=2-4"}, status=206)
        assert part.body == b"234"
        head = record.http.head(url, headers=ALICE)
        assert head.headers["ETag"] == f'"{entry["hash"]}"'
        assert head.headers["Content-Length"] == "10"

    def test_other_methods(self, record):
        [entry] = pictures(record, "one.txt")
        url = f"{record.uri}/attachments"
        for method, path in (
            ("put", ""),
            ("delete", ""),
            ("put", "/pictures"),
            ("post", f"/pictures/{entry['id']}"),
            ("patch", "/cover"),
        ):
            getattr(record.http, method)(f"{url}{path}", headers=ALICE, status=405)


class TestDeclarations:
    def test_a_server_without_attachment(self, make_site, kinto, files):
        fields = {"kinto.attachment.fields": "cover"}
        record = make_site(kinto, files, **fields).collection().record()
        record.upload(status=404)
        record.put(attachment={"any": "thing"})
        record.http.get(record.attachment_uri, headers=ALICE, status=404)
        send(record, "attachment", status=404)
        send(record, "cover", status=200)
        assert record.data["attachment"] == {"any": "thing"}

    def test_a_field_that_is_no_longer_declared(self, make_site, kinto_settings, file_settings):
        settings = {**kinto_settings("postgresql"), **file_settings("local")}
        settings = {**settings, "kinto.attachment.randomize": "true"}
        old = make_site("postgresql", "local", **{**settings, **FIELDS})
        collection = old.collection()
        record = collection.record("r")
        one, two = pictures(record, "one.txt", "two.txt")
        cover = send(record, "cover").json
        new = make_site("postgresql", "local", **settings)
        record = type(collection)(new, collection.bucket, "fonts").record("r")
        assert get(record).json == {"cover": cover, "pictures": [one, two]}
        assert get(record, "/pictures").json == [one, two]
        assert get(record, f"/pictures/{one['id']}").body == b"one.txt"
        assert get(record, "/cover").body == b"bytes"
        send(record, "cover", status=404)
        send(record, "pictures", status=404)
        forged = {**cover, "size": 1}
        put(record, cover=forged, pictures=[one, two], status=400)
        put(record, cover=cover, pictures=[two, {**one, "size": 9}], status=400)
        put(record, cover=cover, pictures=[two])
        assert len(record.collection.keys) == 2
        record.http.delete(f"{record.uri}/attachments/cover", headers=ALICE, status=204)
        put(record)
        assert record.collection.keys == []
        put(record, cover=forged, pictures=[one])  # ordinary attributes now
        assert get(record).json == {}
        get(record, "/cover", status=404)

    def test_a_field_that_becomes_a_list(self, make_site, kinto_settings, file_settings):
        settings = {**kinto_settings("postgresql"), **file_settings("local")}
        old = make_site("postgresql", "local", **settings, **FIELDS)
        collection = old.collection()
        cover = send(collection.record("r"), "cover").json
        fields = {"kinto.attachment.fields": "cover[]"}
        new = make_site("postgresql", "local", **settings, **fields)
        record = type(collection)(new, collection.bucket, "fonts").record("r")
        assert get(record, "/cover").body == b"bytes"
        answer = send(record, "cover", status=400)
        assert "has a single file" in answer.json["message"]
        assert record.data["cover"] == cover
        record.http.delete(f"{record.uri}/attachments/cover", headers=ALICE, status=204)
        send(record, "cover", status=201)
        check_whole(record)

    def test_attachment_as_a_list(self, make_site, kinto, files):
        fields = {"kinto.attachment.fields": "attachment[]"}
        record = make_site(kinto, files, **fields).collection().record()
        answer = record.upload(b"one", status=201)
        entry = answer.json
        assert record.http.get(record.attachment_uri, headers=ALICE).json == [entry]
        url = f"{record.attachment_uri}/{entry['id']}"
        assert record.http.get(url, headers=ALICE).body == b"one"
        assert get(record, f"/attachment/{entry['id']}").body == b"one"
        record.upload(b"two", status=201)
        assert record.http.delete(url, headers=ALICE, status=204)
        assert len(record.data["attachment"]) == 1
        check_whole(record)

    def test_capability(self, site):
        assert site.http.get("/").json["capabilities"]["attachments"]["fields"] is True

    def test_alias(self, record):
        """``{record}/attachment`` is the field ``attachment``."""
        value = send(record, "attachment", b"bytes", status=201).json
        assert record.data["attachment"] == value
        assert record.http.get(record.attachment_uri, headers=ALICE).body == b"bytes"
        record.upload(b"other", status=200)
        assert get(record, "/attachment").body == b"other"
        record.http.delete(f"{record.uri}/attachments/attachment", headers=ALICE, status=204)
        assert record.collection.keys == []


class TestSharedKeys:
    """Files with the same bytes share a key."""

    @pytest.fixture
    def site(self, make_site, kinto, files):
        pattern = {"kinto.attachment.filename_pattern": "{hash}{extension}"}
        return make_site(kinto, files, **FIELDS, **pattern)

    def test_the_same_bytes_twice_in_a_list(self, record):
        one = send(record, "pictures", b"same", "one.txt").json
        two = send(record, "pictures", b"same", "two.txt").json
        three = send(record, "cover", b"same", "three.txt").json
        assert one["location"] == two["location"] == three["location"]
        put(record, cover=three, pictures=[two])
        put(record, cover=three, pictures=[two], family="sans")
        assert record.data["pictures"] == [two]
        assert get(record, f"/pictures/{two['id']}").body == b"same"
        assert len(record.collection.links) == 2


class TestDefaultBucket:
    def test_all_routes(self, site):
        uri = f"/buckets/default/collections/c{uuid4().hex}/records/r/attachments"
        form = site.http.encode_multipart(
            (), [("pictures", "a.txt", b"a"), ("cover", "b.txt", b"b")]
        )
        headers = {**ALICE, "Content-Type": form[0]}
        [entry] = site.http.post(uri, form[1], headers=headers, status=201).json["pictures"]
        assert {*site.http.get(uri, headers=ALICE).json} == {"cover", "pictures"}
        assert site.http.get(f"{uri}/pictures", headers=ALICE).json == [entry]
        url = f"{uri}/pictures/{entry['id']}"
        assert site.http.get(url, headers=ALICE).body == b"a"
        part = site.http.encode_multipart((), [("pictures", "c.txt", b"c")])
        headers = {**ALICE, "Content-Type": part[0]}
        site.http.put(url, part[1], headers=headers, status=200)
        answer = site.http.post(f"{uri}/pictures", part[1], headers=headers, status=201)
        assert site.http.get(url, headers=ALICE).body == b"c"
        location = answer.headers["Location"].removeprefix("http://localhost/v1")
        assert site.http.get(location, headers=ALICE).body == b"c"
        site.http.get(location, headers=BOB, status=403)
        site.http.delete(url, headers=ALICE, status=204)
        site.http.delete(f"{uri}/cover", headers=ALICE, status=204)
        assert len(site.http.get(uri, headers=ALICE).json["pictures"]) == 1
        site.http.get(uri, status=401)


class TestImages:
    def test_at_any_size(self, record):
        entry = send(record, "pictures", jpeg(), "a.jpg").json
        send(record, "cover", jpeg(), "b.jpg")
        for path in (f"pictures/{entry['id']}", "cover"):
            answer = get(record, f"/{path}/16x0")
            assert answer.content_type == "image/jpeg"
            assert size_of(answer.body)[0] == 16
            assert get(record, f"/{path}/0x0").body == jpeg()
        answer = get(record, "/pictures/16x0", status=404)
        assert answer.json["message"] == "pictures is a list: request one of its entries."
        get(record, f"/pictures/{uuid4()}/16x0", status=404)
        get(record, f"/notes/{entry['id']}/16x0", status=404)
        url = f"{record.uri}/attachments/pictures/{entry['id']}/16x0"
        record.http.get(url, headers=BOB, status=403)
        record.http.delete(f"{record.uri}/attachments/pictures", headers=ALICE)
        record.http.delete(f"{record.uri}/attachments/cover", headers=ALICE)
        assert record.collection.keys == []
