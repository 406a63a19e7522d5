"""The media library: a file comes, becomes an object, and goes with it."""

import json
import threading
import time
from datetime import timedelta
from hashlib import sha256
from uuid import uuid4

import pytest
import transaction
from openapi_spec_validator import OpenAPIV2SpecValidator
from PIL import Image

from kinto_attachment.errors import SettingError
from kinto_attachment.library import schema as library
from kinto_attachment.maintenance import init_library as jobs
from kinto_attachment.maintenance.fsck import fsck
from kinto_attachment.maintenance.gc import collect
from kinto_attachment.maintenance.server import Server
from tests.support.library import Shelf, encoded, jpeg, settings
from tests.support.site import ALICE, BOB, Site

TEXT = b"a text, and nothing else\n"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="30" height="20"><rect/></svg>'
FACTS = {
    "id", "extension", "fileName", "mimeType", "size", "type", "source", "externalId", "url",
    "height", "width",
}  # fmt: skip


@pytest.fixture(params=["local", "seaweedfs"])
def files(request):
    """Nothing here depends on more of the storage than the other suites check on each."""
    return request.param


@pytest.fixture
def shelf(make_site, kinto, files):
    return Shelf(make_site(kinto, files, **settings("site")))


@pytest.fixture
def own(make_server):
    """A library with a database and a storage of its own."""
    return lambda files="memory", **more: Shelf(make_server(files, **settings("site", **more)))


@pytest.fixture
def anything(make_site):
    """One that takes files of any name."""
    return Shelf(make_site(**settings("site", **{"kinto.attachment.extensions": "any"})))


def field_of(answer: dict) -> str:
    return answer["details"][0]["name"]


class TestUpload:
    def test_tells_what_it_is(self, shelf):
        content = jpeg(120, 80, orientation=6)
        facts = shelf.upload(content)
        assert facts == {
            "id": facts["id"],
            "extension": "jpg",
            "fileName": "photo.jpg",
            "mimeType": "image/jpeg",
            "size": len(content),
            "type": "image",
            "source": "disk",
            "externalId": "",
            "url": f"original/{facts['id']}.jpg",
            "height": 120,
            "width": 80,
        }

    def test_of_a_file_has_no_dimensions(self, shelf):
        facts = shelf.upload(TEXT, "notes.doc")
        assert facts["type"] == "file"
        assert (facts["width"], facts["height"]) == (0, 0)
        assert facts["mimeType"] == "application/msword"
        assert facts["url"] == f"original/{facts['id']}.doc"

    @pytest.mark.parametrize(
        ("format", "mimetype"),
        [("PNG", "image/png"), ("GIF", "image/gif"), ("WEBP", "image/webp"), ("AVIF", "image/avif"),
         ("TIFF", "image/tiff"), ("BMP", "image/bmp"), ("JPEG", "image/jpeg")],
    )  # fmt: skip
    def test_is_judged_by_its_bytes(self, make_site, format, mimetype):
        shelf = Shelf(make_site("memory", "local", **settings("site")))
        content = encoded(Image.new("RGB", (30, 20)), format)
        facts = shelf.upload(content, "wrong.txt")
        assert (facts["type"], facts["mimeType"]) == ("image", mimetype)
        assert (facts["width"], facts["height"]) == (30, 20)
        assert facts["extension"] == "txt"

    def test_of_markup_is_an_image_if_it_is_svg(self, shelf):
        assert shelf.upload(SVG, "a.svg")["type"] == "image"
        assert shelf.upload(b"<html><body>", "a.svg")["type"] == "file"

    def test_that_calls_itself_an_image_is_none(self, shelf):
        facts = shelf.upload(TEXT, "a.png")
        assert (facts["type"], facts["mimeType"]) == ("file", "application/octet-stream")

    def test_without_an_extension_gets_that_of_its_type(self, anything):
        shelf = anything
        assert shelf.upload(jpeg(), "photo")["url"].endswith(".jpg")
        assert shelf.upload(b"\0\1\2", "thing")["url"].endswith(".bin")

    @pytest.mark.parametrize("kind", ["image", "file"])
    def test_type_may_be_said(self, shelf, kind):
        content = jpeg() if kind == "image" else TEXT
        assert shelf.upload(content, "a.jpg", type=kind)["type"] == kind

    @pytest.mark.parametrize(
        ("content", "kind"), [(jpeg(), "file"), (TEXT, "image"), (TEXT, "video"), (TEXT, "")]
    )
    def test_that_contradicts_its_form_is_refused(self, shelf, content, kind):
        before = shelf.keys
        answer = shelf.upload(content, "a.jpg", type=kind, status=400)
        assert field_of(answer) == "type"
        assert shelf.keys == before

    def test_save_makes_an_object_at_once(self, shelf):
        facts = shelf.upload(save="1")
        data = shelf.get(f"content/_media/{facts['id']}").json["data"]
        assert facts.items() <= data.items()
        assert data["attachment"]["hash"] == sha256(jpeg()).hexdigest()
        assert facts["id"] not in shelf.waiting

    def test_not_to_save_is_what_happens_anyway(self, shelf):
        facts = shelf.upload(save="0")
        assert facts["id"] in shelf.waiting
        shelf.get(f"content/_media/{facts['id']}", status=404)
        shelf.get(facts["url"], status=404)

    @pytest.mark.parametrize(
        ("fields", "name"), [({"save": "perhaps"}, "save"), ({"title": "a"}, "title")]
    )
    def test_other_fields_are_refused(self, shelf, fields, name):
        assert field_of(shelf.upload(status=400, **fields)) == name

    def test_needs_a_file(self, shelf):
        mimetype, body = shelf.http.encode_multipart([("type", "image")], [])
        headers = {**ALICE, "Content-Type": mimetype}
        answer = shelf.http.post("/media", body, headers=headers, status=400).json
        assert answer["message"] == "File missing."
        assert field_of(answer) == "file"

    def test_of_another_extension_is_refused(self, make_site):
        images = {"kinto.attachment.resources.site.media.extensions": "images"}
        shelf = Shelf(make_site("memory", "local", **settings("site", **images)))
        assert field_of(shelf.upload(TEXT, "a.exe", status=400)) == "file"
        shelf.upload()

    def test_over_the_limit_is_refused(self, make_site):
        small = {"kinto.attachment.resources.site.media.max_size": "1000"}
        shelf = Shelf(make_site("memory", "local", **settings("site", **small)))
        shelf.upload(b"x" * 1000, "a.txt")
        assert "1001 bytes" in shelf.upload(b"x" * 1001, "a.txt", status=413)["message"]
        shelf.upload(b"x" * 5_000_000, "a.txt", status=413)

    def test_needs_permission_to_create(self, shelf):
        shelf.upload(headers={}, status=401)

    def test_that_is_no_form_goes_to_the_media_store(self, shelf):
        headers = {**ALICE, "Content-Type": "image/jpeg"}
        answer = shelf.http.post("/media", jpeg(), headers=headers)
        assert answer.text == sha256(jpeg()).hexdigest()

    def test_is_a_400_where_there_is_no_library(self, make_site):
        site = make_site("memory", "local")
        mimetype, body = site.http.encode_multipart([], [("file", "a.jpg", jpeg())])
        headers = {**ALICE, "Content-Type": mimetype}
        site.http.post("/media", body, headers=headers, status=400)
        site.http.get("/content/_media", headers=ALICE, status=404)

    def test_is_a_404_before_it_is_made(self, make_site):
        site = make_site("memory", "local", **settings("nobody-made-it"))
        mimetype, body = site.http.encode_multipart([], [("file", "a.jpg", jpeg())])
        headers = {**ALICE, "Content-Type": mimetype}
        answer = site.http.post("/media", body, headers=headers, status=404)
        assert "library init" in answer.json["message"]
        assert "library init" in site.http.get("/content/_media", status=404).json["message"]

    def test_many_at_the_same_time(self, shelf):
        answers = []
        threads = [
            threading.Thread(target=lambda: answers.append(shelf.upload(save="yes")))
            for _ in range(12)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({facts["id"] for facts in answers}) == 12
        for facts in answers:
            assert shelf.get(facts["url"]).body == jpeg()


class TestObject:
    def test_is_made_of_an_upload(self, shelf):
        facts = shelf.upload()
        assert facts.keys() == FACTS
        described = {"alt": "red", "title": "Red", "tags": ["a", "b"]}
        answer = shelf.describe(facts, **described)
        data = answer["data"]
        assert {**facts, **described}.items() <= data.items()
        assert "write" in answer["permissions"]
        attachment = data["attachment"]
        assert attachment["filename"] == facts["fileName"]
        assert attachment["mimetype"] == facts["mimeType"]
        assert attachment["size"] == facts["size"]
        assert attachment["hash"] == sha256(jpeg()).hexdigest()
        assert shelf.get(f"content/_media/{facts['id']}").json["data"] == data
        assert shelf.get(facts["url"]).body == jpeg()
        assert facts["id"] not in shelf.waiting

    def test_is_a_record(self, shelf):
        data = shelf.add(alt="red")
        uri = f"{shelf.library.uri[1:]}/records/{data['id']}"
        assert shelf.get(uri).json["data"] == data
        assert shelf.get(f"{uri}/attachment").body == jpeg()
        history = shelf.get("buckets/site/history", headers=ALICE).json["data"]
        assert f"/{uri}" in {entry["uri"] for entry in history}

    def test_answer_tells_where_it_is(self, shelf):
        facts = shelf.upload()
        answer = shelf.http.post_json("/content/_media", facts, headers=ALICE)
        assert answer.headers["Location"].endswith(f"/content/_media/{facts['id']}")
        assert answer.headers["ETag"]

    def test_may_come_in_the_envelope_of_kinto(self, shelf):
        facts = shelf.upload()
        body = {"data": facts, "permissions": {"read": ["system.Everyone"]}}
        answer = shelf.http.post_json("/content/_media", body, headers=ALICE, status=201).json
        assert answer["permissions"]["read"] == ["system.Everyone"]

    def test_may_be_made_where_the_records_are(self, shelf):
        facts = shelf.upload()
        uri = f"{shelf.library.uri}/records/{facts['id']}"
        data = shelf.http.put_json(uri, {"data": facts}, headers=ALICE, status=201).json["data"]
        assert data["attachment"]["hash"] == sha256(jpeg()).hexdigest()

    def test_may_be_made_in_a_batch(self, shelf):
        facts = [shelf.upload(), shelf.upload()]
        requests = [{"method": "POST", "path": "/content/_media", "body": body} for body in facts]
        wrong = {"method": "POST", "path": "/content/_media", "body": {**facts[0], "size": 1}}
        body = {"requests": [requests[0], wrong, requests[1]]}
        answers = shelf.http.post_json("/batch", body, headers=ALICE).json["responses"]
        assert [answer["status"] for answer in answers] == [201, 400, 201]
        for each in facts:
            assert shelf.get(each["url"]).body == jpeg()

    def test_what_was_refused_in_a_batch_is_as_before(self, shelf):
        facts = shelf.upload()
        wrong = {"method": "POST", "path": "/content/_media", "body": {**facts, "width": 9}}
        list_ = {"method": "GET", "path": "/content/_media"}
        body = {"requests": [wrong, list_]}
        answers = shelf.http.post_json("/batch", body, headers=ALICE).json["responses"]
        assert [answer["status"] for answer in answers] == [400, 200]
        assert facts["id"] in shelf.waiting
        shelf.describe(facts)

    def test_cannot_be_forged_in_a_batch(self, make_site, kinto):
        """What a claim has written is not what the next operation may write."""
        by_hash = {
            "kinto.attachment.randomize": "false",
            "kinto.attachment.filename_pattern": "{hash}{extension}",
        }
        shelf = Shelf(make_site(kinto, **settings("site", **by_hash)))
        victim, facts = shelf.add(jpeg(300, 200)), shelf.upload(jpeg(90, 60))
        uri = f"{shelf.library.uri}/records/{facts['id']}"
        forged = {
            "hash": victim["attachment"]["hash"],
            "mimetype": "text/html",
            "filename": "evil.html",
            "size": facts["size"],
            "location": "https://cdn.example/files/site/media/"
            + sha256(jpeg(90, 60)).hexdigest()
            + ".jpg",
        }
        false = {**facts, "width": 9999, "fileName": "other.exe", "attachment": forged}
        requests = [
            {"method": "POST", "path": "/content/_media", "body": facts},
            {"method": "PATCH", "path": uri, "body": {"data": {"attachment": forged}}},
            {"method": "DELETE", "path": uri},
            {"method": "PUT", "path": uri, "body": {"data": false}},
        ]
        answers = shelf.http.post_json("/batch", {"requests": requests}, headers=ALICE)
        statuses = [answer["status"] for answer in answers.json["responses"]]
        assert statuses == [201, 400, 200, 400]
        assert shelf.get(f"image/150x0/{victim['id']}.jpg").content_type == "image/jpeg"

    @pytest.mark.parametrize("name", sorted(FACTS - {"id"}))
    def test_that_contradicts_its_upload_is_refused(self, shelf, name):
        facts = shelf.upload()
        wrong = 7 if isinstance(facts[name], int) else "unsplash" if name == "source" else "file"
        answer = shelf.describe({**facts, name: wrong}, status=400)
        assert field_of(answer) == name
        assert facts["id"] in shelf.waiting
        shelf.describe(facts)

    @pytest.mark.parametrize(
        "name", ["fileName", "mimeType", "size", "url", "source", "extension", "type"]
    )
    def test_needs_what_is_required(self, shelf, name):
        facts = shelf.upload()
        body = {key: value for key, value in facts.items() if key != name}
        answer = shelf.describe(body, status=400)
        assert field_of(answer) == name
        assert facts["id"] in shelf.waiting

    def test_gets_what_is_not_required(self, shelf):
        facts = shelf.upload()
        body = {k: v for k, v in facts.items() if k not in ("width", "height", "externalId")}
        assert facts.items() <= shelf.describe(body)["data"].items()

    def test_has_no_other_properties(self, shelf):
        facts = shelf.upload()
        assert field_of(shelf.describe(facts, colour="red", status=400)) == "colour"
        shelf.describe(facts)

    def test_types_are_checked(self, shelf):
        facts = shelf.upload()
        assert field_of(shelf.describe(facts, tags="red", status=400)) == "tags"
        assert field_of(shelf.describe(facts, alt=["red"], status=400)) == "alt"

    def test_of_an_unknown_upload_is_refused(self, shelf):
        facts = {**shelf.upload(), "id": "2b2b2b2b-0000-4000-8000-000000000000"}
        facts["url"] = f"original/{facts['id']}.jpg"
        assert field_of(shelf.describe(facts, status=400)) == "id"
        without = {name: value for name, value in facts.items() if name != "id"}
        assert field_of(shelf.describe(without, status=400)) == "id"

    def test_of_somebody_elses_upload_is_refused(self, shelf):
        facts = shelf.upload()
        assert field_of(shelf.describe(facts, headers=BOB, status=400)) == "id"
        shelf.describe(facts)

    def test_is_made_once(self, shelf):
        facts = shelf.upload()
        shelf.describe(facts, alt="red")
        for headers in (ALICE, BOB):
            assert field_of(shelf.describe(facts, headers=headers, alt="blue", status=400)) == "id"
        assert shelf.get(f"content/_media/{facts['id']}").json["data"]["alt"] == "red"

    def test_is_made_by_one_of_many(self, shelf):
        facts, answers = shelf.upload(), []

        def describe():
            answers.append(
                shelf.http.post_json("/content/_media", facts, headers=ALICE, status="*")
            )

        threads = [threading.Thread(target=describe) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(answer.status_int for answer in answers) == [201] + 5 * [400]
        assert shelf.get(facts["url"]).body == jpeg()

    def test_attachment_cannot_be_made_up(self, shelf):
        facts = shelf.upload()
        forged = {"hash": "0" * 64, "location": "a", "filename": "a", "mimetype": "a/b", "size": 1}
        shelf.describe(facts, attachment=forged, status=400)
        assert facts["id"] in shelf.waiting

    def test_body_is_json(self, shelf):
        answer = shelf.http.post("/content/_media", b"{", headers=ALICE, status=400)
        assert "JSON" in answer.json["message"]

    def test_needs_permission(self, shelf):
        shelf.describe(shelf.upload(), headers={}, status=401)


class TestDescription:
    def test_is_replaced(self, shelf):
        data = shelf.add(alt="red", title="Red")
        uri = f"/content/_media/{data['id']}"
        new = shelf.http.put_json(uri, {"alt": "blue"}, headers=ALICE).json["data"]
        assert new["alt"] == "blue" and "title" not in new
        kept = {name: data[name] for name in (*FACTS, "attachment")}
        assert kept.items() <= new.items()
        assert shelf.get(data["url"]).body == jpeg()

    def test_is_changed(self, shelf):
        data = shelf.add(alt="red", title="Red")
        uri = f"/content/_media/{data['id']}"
        new = shelf.http.patch_json(uri, {"data": {"alt": "blue"}}, headers=ALICE).json["data"]
        assert (new["alt"], new["title"]) == ("blue", "Red")

    def test_may_be_sent_back_whole(self, shelf):
        data = shelf.add(alt="red")
        uri = f"/content/_media/{data['id']}"
        new = shelf.http.put_json(uri, {**data, "alt": "blue"}, headers=ALICE).json["data"]
        assert new["alt"] == "blue"

    @pytest.mark.parametrize("method", ["put_json", "patch_json"])
    @pytest.mark.parametrize("alias", [True, False])
    @pytest.mark.parametrize("name", ["fileName", "size", "url", "width", "type", "attachment"])
    def test_says_nothing_of_the_file(self, make_site, method, alias, name):
        shelf = Shelf(make_site("memory", "local", **settings("site")))
        data = shelf.add()
        where = "/content/_media" if alias else f"{shelf.library.uri}/records"
        for value in (None, 5, "x"):
            call = getattr(shelf.http, method)
            body = {"data": {name: value}}
            call(f"{where}/{data['id']}", body, headers=ALICE, status=400)
        assert shelf.get(f"content/_media/{data['id']}").json["data"] == data

    def test_is_checked(self, shelf):
        data = shelf.add()
        uri = f"/content/_media/{data['id']}"
        answer = shelf.http.patch_json(uri, {"colour": "red"}, headers=ALICE, status=400)
        assert field_of(answer.json) == "colour"

    def test_honours_preconditions(self, shelf):
        data = shelf.add()
        uri = f"/content/_media/{data['id']}"
        headers = {**ALICE, "If-Match": '"1"'}
        shelf.http.patch_json(uri, {"alt": "blue"}, headers=headers, status=412)

    def test_merge_patch_removes_a_title(self, shelf):
        data = shelf.add(title="Red")
        headers = {**ALICE, "Content-Type": "application/merge-patch+json"}
        uri = f"/content/_media/{data['id']}"
        body = json.dumps({"data": {"title": None, "attachment": None}})
        new = shelf.http.patch(uri, body, headers=headers).json["data"]
        assert "title" not in new
        assert new["attachment"] == data["attachment"]

    def test_file_cannot_be_replaced(self, shelf):
        data = shelf.add()
        uri = f"{shelf.library.uri}/records/{data['id']}/attachment"
        mimetype, body = shelf.http.encode_multipart([], [("attachment", "b.jpg", TEXT)])
        headers = {**ALICE, "Content-Type": mimetype}
        shelf.http.post(uri, body, headers=headers, status=400)
        shelf.http.delete(uri, headers=ALICE, status=400)
        assert shelf.get(data["url"]).body == jpeg()

    def test_file_may_come_as_an_attachment(self, shelf):
        """As Kinto Admin sends it."""
        uri = f"{shelf.library.uri}/records/{uuid4()}"
        told = json.dumps({"alt": "red", "fileName": "", "size": 0})
        mimetype, body = shelf.http.encode_multipart(
            [("data", told)], [("attachment", "photo.jpg", jpeg())]
        )
        headers = {**ALICE, "Content-Type": mimetype}
        shelf.http.post(f"{uri}/attachment", body, headers=headers, status=201)
        data = shelf.get(uri[1:]).json["data"]
        assert (data["fileName"], data["width"], data["alt"]) == ("photo.jpg", 120, "red")
        assert shelf.get(data["url"]).body == jpeg()


class TestVariants:
    TRIM = {"top": 10, "left": 20, "width": 60, "height": 40}

    def test_are_parts_of_the_image(self, shelf):
        variants = [{"name": "square", "trim": self.TRIM}]
        assert shelf.add(variants=variants)["variants"] == variants

    @pytest.mark.parametrize(
        "variants",
        [
            [{"name": "a", "trim": {**TRIM, "width": 101}}],
            [{"name": "a", "trim": {**TRIM, "top": 41}}],
            [{"name": "a", "trim": {**TRIM, "top": -1}}],
            [{"name": "a", "trim": {**TRIM, "height": 0}}],
            [{"name": "a", "trim": {**TRIM, "height": 40.0}}],
            [{"name": "a", "trim": {**TRIM, "angle": 1}}],
            [{"name": "a/b", "trim": TRIM}],
            [{"name": "a"}],
            [{"trim": TRIM}],
            [{"name": "a", "trim": TRIM}, {"name": "a", "trim": TRIM}],
            [{"name": "a", "trim": TRIM, "resize": {}}],
            {"a": TRIM},
        ],
    )
    def test_outside_of_it_are_refused(self, make_site, variants):
        shelf = Shelf(make_site("memory", "local", **settings("site")))
        answer = shelf.describe(shelf.upload(), variants=variants, status=400)
        assert field_of(answer).startswith("variants")

    def test_files_have_none(self, shelf):
        facts = shelf.upload(TEXT, "a.txt")
        variants = [{"name": "a", "trim": self.TRIM}]
        assert "variants" in field_of(shelf.describe(facts, variants=variants, status=400))


class TestList:
    def test_filters_sorts_and_pages(self, own):
        shelf = own()
        for size in (10, 30, 20):
            shelf.add(jpeg(size, size), title=f"t{size}")
        shelf.add(TEXT, "a.txt")
        shelf.upload()
        answer = shelf.get("content/_media?type=image&_sort=-width&_limit=2&_fields=width")
        assert [each["width"] for each in answer.json["data"]] == [30, 20]
        assert "/content/_media?" in answer.headers["Next-Page"]
        rest = shelf.http.get(answer.headers["Next-Page"].partition("/v1")[2])
        assert [each["width"] for each in rest.json["data"]] == [10]
        assert shelf.get("content/_media?title=t20").json["data"][0]["width"] == 20
        assert shelf.get("content/_media?min_width=25").json["data"][0]["title"] == "t30"
        head = shelf.http.head("/content/_media")
        assert head.headers["Total-Objects"] == "4"

    def test_is_cached(self, shelf):
        shelf.add()
        etag = shelf.get("content/_media").headers["ETag"]
        shelf.get("content/_media", headers={"If-None-Match": etag}, status=304)

    def test_of_deletions(self, own):
        shelf = own()
        data = shelf.add()
        shelf.http.delete(f"/content/_media/{data['id']}", headers=ALICE)
        (tombstone,) = shelf.get("content/_media?_since=1").json["data"]
        assert (tombstone["id"], tombstone["deleted"]) == (data["id"], True)


class TestPrivate:
    @pytest.fixture
    def private(self, make_server):
        site = make_server("memory", **settings("site"))
        return Shelf(site, editors=["system.Authenticated"], readers=[])

    def test_nobody_else_reads_it(self, private):
        data = private.add()
        for path in (data["url"], f"content/_media/{data['id']}", "content/_media"):
            private.get(path, status=401)
            private.get(path, headers=ALICE)

    def test_one_object_may_be_shown_to_all(self, private):
        facts = private.upload()
        body = {"data": facts, "permissions": {"read": ["system.Everyone"]}}
        private.http.post_json("/content/_media", body, headers=ALICE)
        private.get(facts["url"])
        private.get(f"content/_media/{facts['id']}")


class TestDelete:
    def test_takes_the_file_along(self, own, files):
        shelf = own(files)
        data = shelf.add()
        assert len(shelf.keys) == 1
        shelf.http.delete(f"/content/_media/{data['id']}", headers=ALICE)
        shelf.get(data["url"], status=404)
        assert shelf.keys == []

    def test_of_the_collection_takes_all(self, own):
        shelf = own()
        for _ in range(3):
            shelf.add()
        shelf.http.delete(shelf.library.uri, headers=ALICE)
        assert shelf.keys == []


class TestExpiry:
    def test_what_nobody_describes_goes(self, own, files):
        shelf = own(files, **{"kinto.attachment.library.unclaimed_ttl": "1"})
        kept = shelf.add()
        facts = shelf.upload(TEXT, "a.txt")
        assert len(shelf.keys) == 2
        assert list(fsck(shelf.server)) == []
        age(shelf)
        assert field_of(shelf.describe(facts, status=400)) == "id"
        dry = [str(each) for each in collect(shelf.server, timedelta(0), dry_run=True)]
        assert dry == [f"expired: /uploads/{facts['id']} a.txt"]
        assert [each.kind for each in collect(shelf.server, timedelta(0))] == ["expired", "deleted"]
        assert len(shelf.keys) == 1
        assert shelf.get(kept["url"]).body == jpeg()
        assert list(fsck(shelf.server)) == []
        assert list(collect(shelf.server, timedelta(0))) == []

    def test_what_is_young_stays(self, own):
        shelf = own()
        facts = shelf.upload()
        assert list(collect(shelf.server, timedelta(0), force=True)) == []
        shelf.describe(facts)

    def test_of_names_by_hash(self, own):
        by_hash = {
            "kinto.attachment.library.unclaimed_ttl": "1",
            "kinto.attachment.randomize": "false",
            "kinto.attachment.filename_pattern": "{hash}{extension}",
        }
        shelf = own(**by_hash)
        kept, _ = shelf.add(), shelf.upload()
        age(shelf)
        list(collect(shelf.server, timedelta(0)))
        list(collect(shelf.server, offline=True))
        assert shelf.waiting == []
        assert shelf.get(kept["url"]).body == jpeg()

    def test_object_is_found_by_flush(self, own):
        shelf = own()
        shelf.add()
        shelf.upload()
        shelf.http.post("/__flush__", headers=ALICE)
        assert shelf.keys == []


def age(shelf: Shelf) -> None:
    """Two seconds pass."""
    time.sleep(2)


class TestMaintenance:
    def test_rebase_reaches_what_waits(self, own):
        old = {"kinto.attachment.base_url": "https://old.example/"}
        shelf = own("local", **old)
        facts = shelf.upload()
        new = {**shelf.site.settings, "kinto.attachment.base_url": "https://new.example/"}
        site = Site(**new)
        data = Shelf(site, (), ()).describe(facts)["data"]
        assert data["attachment"]["location"].startswith("https://new.example/")
        site.close()

    def test_link_of_an_upload_that_nobody_knows(self, own):
        """As a crash without transactions leaves it."""
        shelf = own()
        facts, kept = shelf.upload(), shelf.add()
        uploads = shelf.site.rows.unclaimed
        shelf.site.in_transaction(lambda: uploads.take(uploads.get(facts["id"])))
        (finding,) = fsck(shelf.server)
        assert finding.kind == "link without record"
        kinds = [each.kind for each in collect(shelf.server, offline=True)]
        assert kinds == ["released", "deleted"]
        assert list(fsck(shelf.server)) == []
        assert shelf.get(kept["url"]).body == jpeg()


class TestOpenAPI:
    def test_is_valid(self, make_site):
        site = make_site(**settings("site"))
        described = site.http.get("/__api__").json
        # Kinto's own: https://github.com/Kinto/kinto, ``/buckets/{id}@{timestamp}``
        described["paths"] = {
            path: operations for path, operations in described["paths"].items() if "@" not in path
        }
        errors = [str(error.message) for error in OpenAPIV2SpecValidator(described).iter_errors()]
        assert errors == []
        for path in ("/image/{size}/{file}", "/original/{file}", "/content/_media/{id}"):
            assert "get" in described["paths"][path]


class TestDefinition:
    """What the documentation says of ``_media`` objects."""

    def test_is_told(self, shelf):
        definition = shelf.get("internal/contenttype/_media").json
        assert (definition["name"], definition["label"]) == ("_media", "Media")
        schema = definition["schemaDefinition"]
        assert schema["type"] == "object"
        reference, own = schema["allOf"]
        assert reference == {"$ref": "#/components/schemas/AbstractContentTypeSchemaDefinition"}
        types = {name: each["type"] for name, each in own["properties"].items()}
        assert types == {
            "fileName": "string", "mimeType": "string", "size": "number", "width": "number",
            "height": "number", "url": "string", "externalId": "string", "source": "string",
            "extension": "string", "type": "string", "alt": "string", "title": "string",
            "tags": "array", "variants": "array",
        }  # fmt: skip
        assert schema["required"] == [
            "fileName", "mimeType", "size", "url", "source", "extension", "type",
        ]  # fmt: skip
        assert schema["additionalProperties"] is False
        meta = definition["metaDefinition"]
        assert meta["order"][:10] == list(types)[:10]
        config = meta["propertiesConfig"]
        assert config["fileName"]["idTitlePart"] is True
        assert config["size"]["inputType"] == "number"
        assert config["source"]["inputType"] == "select"
        assert config["source"]["options"] == ["disk", "unsplash"]
        assert config["type"]["options"] == ["file", "image"]
        assert not any(each["unique"] for each in config.values())

    def test_names_what_an_upload_answers(self, shelf):
        properties = library.definition()["schemaDefinition"]["allOf"][1]["properties"]
        assert shelf.upload().keys() - {"id"} <= properties.keys()

    def test_is_that_of_the_collection(self, shelf):
        collection = shelf.get(shelf.library.uri[1:], headers=ALICE).json["data"]
        definition = library.definition()["schemaDefinition"]["allOf"][1]["properties"]
        shown = collection["schema"]["properties"]
        assert shown.keys() - {"attachment"} == definition.keys()
        for name, schema in definition.items():
            assert schema.items() <= shown[name].items()
        # Kinto Admin cannot edit records of a schema that requires or forbids.
        assert collection["schema"].keys() == {"type", "title", "properties"}
        assert collection["attachment"]["enabled"] is True
        assert set(collection["displayFields"]) <= definition.keys()
        assert collection["uiSchema"]["fileName"] == {"ui:readonly": True}


class TestInit:
    def test_again_changes_nothing(self, own):
        shelf = own()
        kinds = [finding.kind for finding in shelf.findings]
        assert kinds == ["created", "created", "allowed", "allowed"]
        assert [each.kind for each in Shelf(shelf.site, (), ()).findings] == []

    def test_brings_up_to_date(self, own):
        shelf = own()
        shelf.http.patch_json(shelf.library.uri, {"data": {"schema": {}, "x": 1}}, headers=ALICE)
        assert [each.kind for each in Shelf(shelf.site, (), ()).findings] == ["updated"]
        data = shelf.get(shelf.library.uri[1:], headers=ALICE).json["data"]
        assert data["schema"] == library.metadata()["schema"] and data["x"] == 1

    def test_refuses_a_collection_of_other_things(self, own):
        site = own().site
        site.http.delete("/buckets/site", headers=ALICE, status="*")
        library_ = site.registry.attachment_library
        site.in_transaction(
            lambda: site.registry.storage.create("record", library_.uri, {"id": "a", "b": 1})
        )
        with pytest.raises(SettingError, match="no media"):
            Shelf(site)

    def test_dry_run_changes_nothing(self, make_server):
        site = make_server("memory", **settings("site"))
        server = Server.of(site.registry, transaction.manager)
        found = list(
            jobs.init_library(
                server, site.registry.attachment_library, site.registry.permission,
                editors=["a"], authors=["b"], readers=[], dry_run=True,
            )
        )  # fmt: skip
        assert [each.kind for each in found] == ["created", "created", "allowed", "allowed"]
        site.http.get("/buckets/site/collections/media", headers=ALICE, status="4*")
        with pytest.raises(SettingError, match="library.bucket"):
            list(jobs.init_library(server, None, None, editors=[], authors=[], readers=[]))
