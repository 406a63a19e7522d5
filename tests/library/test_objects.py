"""The objects that describe the files of the media library."""

import encodings
import json
import threading
from hashlib import sha256
from uuid import uuid4

import pytest

from tests.support.library import MediaLibrary, field_of, jpeg, settings
from tests.support.site import ALICE, BOB

FILES = {"local"}

TEXT = b"a text, and nothing else\n"
FACTS = {
    "id", "extension", "fileName", "mimeType", "size", "type", "source", "externalId", "url",
    "height", "width",
}  # fmt: skip


class TestObject:
    def test_is_created_from_an_upload(self, library):
        facts = library.upload()
        assert facts.keys() == FACTS
        described = {"alt": "red", "title": "Red", "tags": ["a", "b"]}
        response = library.describe(facts, **described)
        data = response["data"]
        assert {**facts, **described}.items() <= data.items()
        assert "write" in response["permissions"]
        attachment = data["attachment"]
        assert attachment["filename"] == facts["fileName"]
        assert attachment["mimetype"] == facts["mimeType"]
        assert attachment["size"] == facts["size"]
        assert attachment["hash"] == sha256(jpeg()).hexdigest()
        assert library.get(f"content/_media/{facts['id']}").json["data"] == data
        assert library.get(facts["url"]).body == jpeg()
        assert facts["id"] not in library.waiting

    def test_is_a_record(self, library):
        data = library.add(alt="red")
        uri = f"{library.uri[1:]}/records/{data['id']}"
        assert library.get(uri).json["data"] == data
        assert library.get(f"{uri}/attachment").body == jpeg()
        history = library.get("buckets/site/history", headers=ALICE).json["data"]
        assert f"/{uri}" in {entry["uri"] for entry in history}

    def test_answer_has_location_and_etag(self, library):
        facts = library.upload()
        response = library.http.post_json("/content/_media", facts, headers=ALICE)
        assert response.headers["Location"].endswith(f"/content/_media/{facts['id']}")
        assert response.headers["ETag"]

    def test_accepts_the_envelope_of_kinto(self, library):
        facts = library.upload()
        body = {"data": facts, "permissions": {"read": ["system.Everyone"]}}
        response = library.http.post_json("/content/_media", body, headers=ALICE, status=201).json
        assert response["permissions"]["read"] == ["system.Everyone"]

    def test_may_be_created_as_a_record(self, library):
        facts = library.upload()
        uri = f"{library.uri}/records/{facts['id']}"
        data = library.http.put_json(uri, {"data": facts}, headers=ALICE, status=201).json["data"]
        assert data["attachment"]["hash"] == sha256(jpeg()).hexdigest()

    def test_may_be_created_in_a_batch(self, library):
        facts = [library.upload(), library.upload()]
        requests = [{"method": "POST", "path": "/content/_media", "body": body} for body in facts]
        wrong = {"method": "POST", "path": "/content/_media", "body": {**facts[0], "size": 1}}
        body = {"requests": [requests[0], wrong, requests[1]]}
        responses = library.http.post_json("/batch", body, headers=ALICE).json["responses"]
        assert [response["status"] for response in responses] == [201, 400, 201]
        for each in facts:
            assert library.get(each["url"]).body == jpeg()

    def test_a_refusal_in_a_batch_changes_nothing(self, library):
        facts = library.upload()
        wrong = {"method": "POST", "path": "/content/_media", "body": {**facts, "width": 9}}
        list_ = {"method": "GET", "path": "/content/_media"}
        body = {"requests": [wrong, list_]}
        responses = library.http.post_json("/batch", body, headers=ALICE).json["responses"]
        assert [response["status"] for response in responses] == [400, 200]
        assert facts["id"] in library.waiting
        library.describe(facts)

    def test_cannot_be_forged_in_a_batch(self, make_site, kinto):
        """Once an operation of a batch has claimed an upload, no later one can forge its facts."""
        by_hash = {
            "kinto.attachment.randomize": "false",
            "kinto.attachment.filename_pattern": "{hash}{extension}",
        }
        library = MediaLibrary(make_site(kinto, **settings("site", **by_hash)))
        victim, facts = library.add(jpeg(300, 200)), library.upload(jpeg(90, 60))
        uri = f"{library.uri}/records/{facts['id']}"
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
        responses = library.http.post_json("/batch", {"requests": requests}, headers=ALICE)
        statuses = [response["status"] for response in responses.json["responses"]]
        assert statuses == [201, 400, 200, 400]
        assert library.get(f"image/150x0/{victim['id']}.jpg").content_type == "image/jpeg"

    @pytest.mark.parametrize("name", sorted(FACTS - {"id"}))
    def test_that_contradicts_its_upload_is_refused(self, library, name):
        facts = library.upload()
        wrong = 7 if isinstance(facts[name], int) else "unsplash" if name == "source" else "file"
        response = library.describe({**facts, name: wrong}, status=400)
        assert field_of(response) == name
        assert facts["id"] in library.waiting
        library.describe(facts)

    @pytest.mark.parametrize(
        "name", ["fileName", "mimeType", "size", "url", "source", "extension", "type"]
    )
    def test_needs_the_required_properties(self, library, name):
        facts = library.upload()
        body = {key: value for key, value in facts.items() if key != name}
        response = library.describe(body, status=400)
        assert field_of(response) == name
        assert facts["id"] in library.waiting

    def test_missing_optional_properties_are_filled_in(self, library):
        facts = library.upload()
        body = {k: v for k, v in facts.items() if k not in ("width", "height", "externalId")}
        assert facts.items() <= library.describe(body)["data"].items()

    def test_cannot_have_unknown_properties(self, library):
        facts = library.upload()
        assert field_of(library.describe(facts, colour="red", status=400)) == "colour"
        library.describe(facts)

    def test_types_are_checked(self, library):
        facts = library.upload()
        assert field_of(library.describe(facts, tags="red", status=400)) == "tags"
        assert field_of(library.describe(facts, alt=["red"], status=400)) == "alt"

    def test_of_an_unknown_upload_is_refused(self, library):
        facts = {**library.upload(), "id": "2b2b2b2b-0000-4000-8000-000000000000"}
        facts["url"] = f"original/{facts['id']}.jpg"
        assert field_of(library.describe(facts, status=400)) == "id"
        without = {name: value for name, value in facts.items() if name != "id"}
        assert field_of(library.describe(without, status=400)) == "id"

    def test_of_another_users_upload_is_refused(self, library):
        facts = library.upload()
        assert field_of(library.describe(facts, headers=BOB, status=400)) == "id"
        library.describe(facts)

    def test_is_created_only_once(self, library):
        facts = library.upload()
        library.describe(facts, alt="red")
        for headers in (ALICE, BOB):
            assert (
                field_of(library.describe(facts, headers=headers, alt="blue", status=400)) == "id"
            )
        assert library.get(f"content/_media/{facts['id']}").json["data"]["alt"] == "red"

    def test_is_created_once_by_simultaneous_requests(self, library):
        facts, responses = library.upload(), []

        def describe():
            responses.append(
                library.http.post_json("/content/_media", facts, headers=ALICE, status="*")
            )

        threads = [threading.Thread(target=describe) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(response.status_int for response in responses) == [201] + 5 * [400]
        assert library.get(facts["url"]).body == jpeg()

    def test_attachment_cannot_be_forged(self, library):
        facts = library.upload()
        forged = {"hash": "0" * 64, "location": "a", "filename": "a", "mimetype": "a/b", "size": 1}
        library.describe(facts, attachment=forged, status=400)
        assert facts["id"] in library.waiting

    def test_body_must_be_json(self, library):
        response = library.http.post("/content/_media", b"{", headers=ALICE, status=400)
        assert "JSON" in response.json["message"]

    def test_needs_permission(self, library):
        library.describe(library.upload(), headers={}, status=401)


class TestDescription:
    def test_is_replaced_by_put(self, library):
        data = library.add(alt="red", title="Red")
        uri = f"/content/_media/{data['id']}"
        new = library.http.put_json(uri, {"alt": "blue"}, headers=ALICE).json["data"]
        assert new["alt"] == "blue" and "title" not in new
        kept = {name: data[name] for name in (*FACTS, "attachment")}
        assert kept.items() <= new.items()
        assert library.get(data["url"]).body == jpeg()

    def test_is_changed_by_patch(self, library):
        data = library.add(alt="red", title="Red")
        uri = f"/content/_media/{data['id']}"
        new = library.http.patch_json(uri, {"data": {"alt": "blue"}}, headers=ALICE).json["data"]
        assert (new["alt"], new["title"]) == ("blue", "Red")

    def test_may_be_sent_back_unchanged(self, library):
        data = library.add(alt="red")
        uri = f"/content/_media/{data['id']}"
        new = library.http.put_json(uri, {**data, "alt": "blue"}, headers=ALICE).json["data"]
        assert new["alt"] == "blue"

    @pytest.mark.parametrize("method", ["put_json", "patch_json"])
    @pytest.mark.parametrize("alias", [True, False])
    @pytest.mark.parametrize("name", ["fileName", "size", "url", "width", "type", "attachment"])
    def test_cannot_change_facts_of_the_file(self, make_site, method, alias, name):
        library = MediaLibrary(make_site("memory", "local", **settings("site")))
        data = library.add()
        parent = "/content/_media" if alias else f"{library.uri}/records"
        for value in (None, 5, "x"):
            call = getattr(library.http, method)
            body = {"data": {name: value}}
            call(f"{parent}/{data['id']}", body, headers=ALICE, status=400)
        assert library.get(f"content/_media/{data['id']}").json["data"] == data

    def test_cannot_have_unknown_properties(self, library):
        data = library.add()
        uri = f"/content/_media/{data['id']}"
        response = library.http.patch_json(uri, {"colour": "red"}, headers=ALICE, status=400)
        assert field_of(response.json) == "colour"

    def test_honours_preconditions(self, library):
        data = library.add()
        uri = f"/content/_media/{data['id']}"
        headers = {**ALICE, "If-Match": '"1"'}
        library.http.patch_json(uri, {"alt": "blue"}, headers=headers, status=412)

    def test_merge_patch_removes_a_title(self, library):
        data = library.add(title="Red")
        headers = {**ALICE, "Content-Type": "application/merge-patch+json"}
        uri = f"/content/_media/{data['id']}"
        body = json.dumps({"data": {"title": None, "attachment": None}})
        new = library.http.patch(uri, body, headers=headers).json["data"]
        assert "title" not in new
        assert new["attachment"] == data["attachment"]

    def test_file_cannot_be_replaced(self, library):
        data = library.add()
        uri = f"{library.uri}/records/{data['id']}/attachment"
        mimetype, body = library.http.encode_multipart([], [("attachment", "b.jpg", TEXT)])
        headers = {**ALICE, "Content-Type": mimetype}
        library.http.post(uri, body, headers=headers, status=400)
        library.http.delete(uri, headers=ALICE, status=400)
        assert library.get(data["url"]).body == jpeg()

    def test_file_may_come_as_an_attachment(self, library):
        """Kinto Admin sends the file and its description in one form."""
        uri = f"{library.uri}/records/{uuid4()}"
        description = json.dumps({"alt": "red", "fileName": "", "size": 0})
        mimetype, body = library.http.encode_multipart(
            [("data", description)], [("attachment", "photo.jpg", jpeg())]
        )
        headers = {**ALICE, "Content-Type": mimetype}
        library.http.post(f"{uri}/attachment", body, headers=headers, status=201)
        data = library.get(uri[1:]).json["data"]
        assert (data["fileName"], data["width"], data["alt"]) == ("photo.jpg", 120, "red")
        assert library.get(data["url"]).body == jpeg()


class TestBody:
    """The JSON of a request that creates or changes an object."""

    @pytest.fixture
    def library(self, local_library):
        return local_library

    def requests(self, library):
        uri = f"/content/_media/{library.add()['id']}"
        return [("POST", "/content/_media"), ("PUT", uri), ("PATCH", uri)]

    @pytest.mark.parametrize("charset", ["punycode", "idna", "utf-7", "hex", "nope", "z" * 3000])
    def test_has_a_charset_of_forms(self, library, charset):
        # Long enough to take minutes with a codec that is quadratic.
        body = json.dumps({"title": "-" + "a" * 900_000}).encode()
        headers = {**ALICE, "Content-Type": f"application/json; charset={charset}"}
        known = len(encodings._cache)
        for method, uri in self.requests(library):
            options = {"method": method, "body": body, "headers": headers, "status": 400}
            response = library.http.request(uri, **options).json
            assert field_of(response) == "Content-Type"
            assert "use UTF-8, US-ASCII, ISO-8859-1 or UTF-16" in response["message"]
        assert len(encodings._cache) == known

    @pytest.mark.parametrize("charset", ["utf-8", "UTF8", "latin1", "iso-8859-1", "utf-16", ""])
    def test_is_read_in_its_charset(self, library, charset):
        (_, put, patch) = self.requests(library)
        suffix = f'; charset="{charset}"' if charset else ""
        for number, (method, uri) in enumerate((put, patch)):
            body = f'{{"title": "été {number}"}}'.encode(charset or "utf-8")
            headers = {**ALICE, "Content-Type": f"application/json{suffix}"}
            data = library.http.request(uri, method=method, body=body, headers=headers).json["data"]
            assert data["title"] == f"été {number}"

    @pytest.mark.parametrize(
        ("body", "reason"),
        [
            ('{"title": "\\u0000"}', "contains a null character"),
            ('{"\\u0000": 1}', "contains a null character"),
            ('{"data": {}, "permissions": {"read": ["\\u0000"]}}', "contains a null character"),
            ('{"title": "\\ud800"}', "is not valid JSON"),
            ('{"title": NaN, "a": }', "is not valid JSON"),
            ('{"tags": ' + "[" * 300 + "]" * 300 + "}", "is nested too deeply"),
            ("[" * 100_000, "is not valid JSON"),
            ('"\xff"', "is not UTF-8 text"),
        ],
    )
    def test_is_json_that_can_be_stored(self, library, body, reason):
        for method, uri in self.requests(library):
            options = {"method": method, "body": body.encode("latin-1"), "status": 400}
            headers = {**ALICE, "Content-Type": "application/json"}
            response = library.http.request(uri, headers=headers, **options).json
            assert reason in response["message"]

    def test_a_type_of_what_has_no_body_is_ignored(self, library):
        uri = f"/content/_media/{library.add()['id']}"
        for mimetype in ("multipart/form-data", "application/json; charset=nope"):
            headers = {**ALICE, "Content-Type": mimetype}
            library.http.get(uri, headers=headers, status=200)
            library.http.delete("/content/_media/unknown", headers=headers, status=404)

    @pytest.mark.parametrize("name", ["If-Match", "If-None-Match"])
    @pytest.mark.parametrize("value", ["*,*", "**", '"1", "2"', f'"{"9" * 5000}"'])
    def test_comes_with_preconditions_that_can_be_read(self, library, name, value):
        requests = self.requests(library)
        others = [(method, requests[-1][1]) for method in ("GET", "DELETE")]
        for method, uri in [*requests, *others, ("GET", "/content/_media")]:
            body = b"{}" if method.startswith("P") else b""
            headers = {**ALICE, "Content-Type": "application/json", name: value}
            options = {"method": method, "body": body, "headers": headers, "status": 400}
            assert field_of(library.http.request(uri, **options).json) == name


class TestVariants:
    """The property ``variants``: named parts of an image."""

    TRIM = {"top": 10, "left": 20, "width": 60, "height": 40}

    def test_may_be_parts_of_the_image(self, library):
        variants = [{"name": "square", "trim": self.TRIM}]
        assert library.add(variants=variants)["variants"] == variants

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
    def test_refuses_invalid_variants(self, make_site, variants):
        library = MediaLibrary(make_site("memory", "local", **settings("site")))
        response = library.describe(library.upload(), variants=variants, status=400)
        assert field_of(response).startswith("variants")

    def test_refuses_variants_of_files_that_are_no_images(self, library):
        facts = library.upload(TEXT, "a.txt")
        variants = [{"name": "a", "trim": self.TRIM}]
        assert "variants" in field_of(library.describe(facts, variants=variants, status=400))
