"""What each role of the library may do, renamed files, and uploads that no object describes."""

import json
import time

import pytest

from kinto_attachment.maintenance.gc import collect
from kinto_attachment.maintenance.init_library import init_library
from tests.support import images
from tests.support.library import MediaLibrary, field_of, jpeg
from tests.support.site import ALICE, BOB

FILES = {"local"}

CAROL = {"Authorization": "Basic Y2Fyb2w6c2VjcmV0"}  # carol:secret


def user(library, headers) -> str:
    return library.http.get("/", headers=headers).json["user"]["id"]


@pytest.fixture
def roles(make_library):
    """A library whose editor is Alice, whose authors are all users, and that all may read."""
    library = make_library(**{"kinto.experimental_permissions_endpoint": "true"})
    MediaLibrary(library.site, (user(library, ALICE),), ())
    return library


@pytest.fixture(params=["memory", "postgresql"])
def strict(request, make_site):
    """A library that Alice may edit, that Bob may add to, and that nobody else may read."""
    settings = {"kinto.attachment.library.bucket": f"roles-{request.param}"}
    site = make_site(request.param, "memory", **settings)
    library = MediaLibrary(site, (), ())
    alice, bob = (user(library, each) for each in (ALICE, BOB))
    names = {"editors": [alice], "authors": [bob], "readers": []}
    arguments = site.registry.attachment_library, site.registry.permission
    list(init_library(library.server, *arguments, **names))
    return library


class TestRoles:
    def test_editor_writes_all_objects(self, strict):
        facts = strict.upload(headers=BOB)
        data = strict.describe(facts, headers=BOB)["data"]
        uri = f"/content/_media/{data['id']}"
        assert strict.http.patch_json(uri, {"alt": "a"}, headers=ALICE).json["data"]["alt"] == "a"
        strict.http.delete(uri, headers=ALICE)

    @pytest.mark.parametrize("where", ["collection", "collections", "bucket", "batch"])
    def test_editor_cannot_delete_the_library(self, strict, where):
        data = strict.describe(strict.upload(headers=BOB), headers=BOB)["data"]
        bucket, collections = strict.uri.split("/")[2], strict.uri.rpartition("/")[0]
        uri = {"collections": collections, "bucket": f"/buckets/{bucket}"}.get(where, strict.uri)
        if where == "batch":
            body = {"requests": [{"method": "DELETE", "path": f"/v1{uri}"}]}
            answer = strict.http.post_json("/batch", body, headers=ALICE).json["responses"][0]
            assert answer["status"] == 403
        else:
            strict.http.delete(uri, headers=ALICE, status=403)
        assert strict.http.get(f"/content/_media/{data['id']}", headers=ALICE).json["data"] == data

    def test_those_who_may_write_the_bucket_can(self, strict):
        bucket = "/".join(strict.uri.split("/")[:3])
        permission = strict.site.registry.permission
        grant = (bucket, "write", user(strict, CAROL))
        strict.site.in_transaction(lambda: permission.add_principal_to_ace(*grant))
        strict.http.delete(strict.uri, headers=CAROL)
        strict.site.in_transaction(lambda: permission.remove_principal_from_ace(*grant))

    def test_editor_of_another_collection_can_delete_it(self, strict):
        bucket = "/".join(strict.uri.split("/")[:3])
        permission, other = strict.site.registry.permission, f"{bucket}/collections/other"
        grant = (bucket, "collection:create", user(strict, BOB))
        strict.site.in_transaction(lambda: permission.add_principal_to_ace(*grant))
        strict.http.put_json(other, {}, headers=BOB)
        strict.http.delete(other, headers=BOB)
        strict.site.in_transaction(lambda: permission.remove_principal_from_ace(*grant))

    def test_author_writes_own_objects_as_kinto_admin_does(self, strict):
        """Kinto Admin sends the whole record, and may not see a file that is required."""
        data = strict.describe(strict.upload(headers=BOB), headers=BOB)["data"]
        record = f"{strict.uri}/records/{data['id']}"
        headers = {**BOB, "If-Match": f'"{data["last_modified"]}"'}
        body = {"data": {**data, "title": "Lake"}}
        assert strict.http.put_json(record, body, headers=headers).json["data"]["title"] == "Lake"
        collection = strict.http.get(strict.uri, headers=ALICE).json["data"]
        assert collection["attachment"] == {"enabled": True, "required": False}
        other = strict.describe(strict.upload(headers=ALICE), headers=ALICE)["data"]
        record = f"{strict.uri}/records/{other['id']}"
        strict.http.patch_json(record, {"data": {"title": "x"}}, headers=BOB, status=403)

    def test_form_of_kinto_admin_hides_the_facts(self, strict):
        collection = strict.http.get(strict.uri, headers=ALICE).json["data"]
        form = collection["uiSchema"]
        hidden = {name for name in form if form[name] == {"ui:widget": "hidden"}}
        facts = {"fileName", "mimeType", "size", "width", "height", "url", "externalId", "source"}
        assert hidden == {*facts, "extension", "type", "attachment"}
        assert {"alt", "title", "tags"} <= set(collection["schema"]["properties"]) - hidden

    def test_permissions_endpoint_lists_what_an_author_may_write(self, roles):
        """Kinto Admin asks it whether to offer the form."""
        data = roles.describe(roles.upload(headers=BOB), headers=BOB)["data"]
        listed = roles.http.get("/permissions", headers=BOB).json["data"]
        record = next(each for each in listed if each.get("record_id") == data["id"])
        assert "write" in record["permissions"]


class TestRename:
    @pytest.fixture
    def renamed(self, library):
        data = library.add(filename="IMG_0001.jpg")
        uri = f"/content/_media/{data['id']}"
        return library.http.patch_json(uri, {"fileName": "sun & sea 写真.jpg"}, headers=ALICE).json[
            "data"
        ]

    def test_changes_the_name_and_nothing_else(self, library, renamed):
        assert renamed["fileName"] == "sun & sea 写真.jpg"
        assert renamed["attachment"]["filename"] == "IMG_0001.jpg"
        assert library.get(f"content/_media/{renamed['id']}").json["data"] == renamed
        uri = f"{library.uri}/records/{renamed['id']}"
        body = {"data": {**renamed, "fileName": "again.JPG"}}
        assert library.http.put_json(uri, body, headers=ALICE).json["data"] == {
            **body["data"],
            "last_modified": pytest.approx(time.time() * 1000, abs=60_000),
        }

    @pytest.mark.parametrize("path", ["original/{}.jpg", "image/0x0/{}.jpg"])
    def test_downloads_have_the_new_name(self, library, renamed, path):
        response = library.get(path.format(renamed["id"]))
        assert "sun%20%26%20sea" in response.headers["Content-Disposition"]
        assert response.body == jpeg()

    def test_sizes_have_the_new_name(self, library, renamed):
        response = library.get(f"image/60x0/{renamed['id']}.jpg")
        assert (
            "sun%20%26%20sea%20%E5%86%99%E7%9C%9F-60x40.jpg"
            in (response.headers["Content-Disposition"])
        )

    @pytest.mark.parametrize(
        "name",
        ["a.png", "a", "a.jpg.exe", "", ".", "a/b.jpg", "a\\b.jpg", "a\nb.jpg", "x" * 252 + ".jpg"],
    )
    def test_other_names_are_refused(self, library, name):
        data = library.add()
        for uri in (f"/content/_media/{data['id']}", f"{library.uri}/records/{data['id']}"):
            body = {"data": {"fileName": name}}
            answer = library.http.patch_json(uri, body, headers=ALICE, status=400)
            assert field_of(answer.json) == "fileName"
        assert library.get(f"content/_media/{data['id']}").json["data"] == data

    def test_a_name_without_extension_stays_so(self, make_library):
        library = make_library(**{"kinto.attachment.extensions": "any"})
        data = library.add(b"text", "README")
        uri = f"/content/_media/{data['id']}"
        library.http.patch_json(uri, {"fileName": "README.md"}, headers=ALICE, status=400)
        new = library.http.patch_json(uri, {"fileName": "LICENSE"}, headers=ALICE).json["data"]
        assert new["fileName"] == "LICENSE"
        library.get(new["url"])

    def test_an_object_without_a_name_gets_none(self, make_site):
        """Kinto has stored it before the collection was a library."""
        site = make_site(**{"kinto.attachment.library.bucket": "older"})
        library = MediaLibrary(site)
        row = {"id": "old", "title": "x"}
        site.in_transaction(lambda: site.registry.storage.create("record", library.uri, dict(row)))
        body = {"data": {"fileName": "x.jpg"}}
        for uri in ("/content/_media/old", f"{library.uri}/records/old"):
            answer = library.http.patch_json(uri, body, headers=ALICE, status=400)
            assert field_of(answer.json) == "fileName"


class TestUpload:
    PATHS = ("original/{}.jpg", "image/0x0/{}.jpg", "image/60x0/{}.jpg", "image/60x0/{}/a.jpg")

    @pytest.mark.parametrize("path", PATHS)
    def test_is_seen_by_its_sender_alone(self, library, path):
        facts = library.upload(headers=ALICE)
        path = path.format(facts["id"])
        response = library.get(path, headers=ALICE)
        assert images.size_of(response.body) in ((120, 80), (60, 40))
        assert response.headers["Cache-Control"] == "private, no-cache"
        head = library.http.head(f"/{path}", headers=ALICE)
        assert head.content_length == len(response.body)
        for headers in (BOB, {}):
            library.get(path, headers=headers, status=404)
        library.describe(facts)
        assert "immutable" in library.get(path, headers=BOB).headers["Cache-Control"]

    def test_is_seen_by_a_sender_who_may_not_read(self, strict):
        facts = strict.upload(headers=BOB)
        for path in self.PATHS:
            strict.get(path.format(facts["id"]), headers=BOB)
            strict.get(path.format(facts["id"]), headers=CAROL, status=403)
            strict.get(path.format(facts["id"]), status=401)

    def test_has_ranges_and_conditions(self, library):
        facts = library.upload()
        path = facts["url"]
        part = library.get(path, headers={**ALICE, "Range": "bytes=0-9"}, status=206)
        assert part.body == jpeg()[:10]
        same = {**ALICE, "If-None-Match": part.headers["ETag"]}
        library.get(path, headers=same, status=304)
        library.get(path.replace(".jpg", ".png"), headers=ALICE, status=404)

    def test_has_no_variants_and_no_attachment(self, library):
        facts = library.upload()
        library.get(f"image/60x0/{facts['id']}/a.jpg/variant/sun", headers=ALICE, status=404)
        record = f"{library.uri[1:]}/records/{facts['id']}"
        library.get(f"{record}/attachment", headers=ALICE, status=404)
        library.get(f"content/_media/{facts['id']}", headers=ALICE, status=404)

    def test_expires_with_its_sizes(self, make_library):
        library = make_library(**{"kinto.attachment.library.unclaimed_ttl": "1"})
        facts = library.upload()
        library.get(f"image/60x0/{facts['id']}.jpg", headers=ALICE)
        assert len(library.keys) == 2
        time.sleep(1.1)
        library.get(facts["url"], headers=ALICE, status=404)
        list(collect(library.server, offline=True))
        assert library.keys == []

    def test_of_a_sender_who_is_not_authenticated_is_not_seen(self, make_library):
        """Any other client could be that sender."""
        library = make_library(**{"kinto.attachment.images.cache_seconds": "60"})
        MediaLibrary(library.site, ("system.Everyone",))
        facts = library.upload(headers={})
        for headers in ({}, ALICE):
            library.get(facts["url"], headers=headers, status=404)
        library.describe(facts, headers={})
        assert library.get(facts["url"]).body == jpeg()

    def test_becomes_an_object_while_it_is_read(self, library, monkeypatch):
        facts = library.upload()
        links, of = library.site.links, library.site.links.of

        def once(ref):
            monkeypatch.setattr(links, "of", of)
            library.describe(facts)
            return of(ref)

        monkeypatch.setattr(links, "of", once)
        assert library.get(facts["url"], headers=ALICE).body == jpeg()


def test_create_form_of_kinto_admin_without_a_file(library):
    """The form lets an editor forget the file; the answer says what to do."""
    body = {"data": {"title": "Lake"}}
    answer = library.http.post_json(f"{library.uri}/records", body, headers=ALICE, status=400)
    assert "upload" in json.dumps(answer.json)


def test_kinto_admin_is_served_from_a_folder(make_site, tmp_path):
    """As the documentation says, because the package of Kinto does not contain it."""
    (tmp_path / "index.html").write_text("<html>Kinto Admin</html>")
    (tmp_path / "VERSION").write_text("6.6.0")
    includes = "kinto_attachment kinto.plugins.admin"
    site = make_site(**{"kinto.includes": includes, "kinto.admin_assets_path": str(tmp_path)})
    assert "Kinto Admin" in site.http.get("/admin/").text
    assert "permissions_endpoint" in site.http.get("/").json["capabilities"]
