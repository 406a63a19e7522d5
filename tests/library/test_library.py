"""The media library: lists, permissions, expiry, maintenance jobs and the content type."""

import time
from datetime import timedelta

import pytest
import transaction

from kinto_attachment.errors import SettingError
from kinto_attachment.library import schema
from kinto_attachment.maintenance.fsck import fsck
from kinto_attachment.maintenance.gc import collect
from kinto_attachment.maintenance.init_library import init_library
from kinto_attachment.maintenance.server import Server
from tests.support.library import MediaLibrary, field_of, jpeg, settings
from tests.support.site import ALICE, Site

TEXT = b"a text, and nothing else\n"


class TestList:
    def test_filters_sorts_and_pages(self, make_library):
        library = make_library()
        for size in (10, 30, 20):
            library.add(jpeg(size, size), title=f"t{size}")
        library.add(TEXT, "a.txt")
        library.upload()
        response = library.get("content/_media?type=image&_sort=-width&_limit=2&_fields=width")
        assert [each["width"] for each in response.json["data"]] == [30, 20]
        assert "/content/_media?" in response.headers["Next-Page"]
        rest = library.http.get(response.headers["Next-Page"].partition("/v1")[2])
        assert [each["width"] for each in rest.json["data"]] == [10]
        assert library.get("content/_media?title=t20").json["data"][0]["width"] == 20
        assert library.get("content/_media?min_width=25").json["data"][0]["title"] == "t30"
        head = library.http.head("/content/_media")
        assert head.headers["Total-Objects"] == "4"

    def test_is_cached(self, library):
        library.add()
        etag = library.get("content/_media").headers["ETag"]
        library.get("content/_media", headers={"If-None-Match": etag}, status=304)

    def test_includes_deletions(self, make_library):
        library = make_library()
        data = library.add()
        library.http.delete(f"/content/_media/{data['id']}", headers=ALICE)
        (tombstone,) = library.get("content/_media?_since=1").json["data"]
        assert (tombstone["id"], tombstone["deleted"]) == (data["id"], True)


class TestPrivate:
    @pytest.fixture
    def private(self, make_server):
        site = make_server("memory", **settings("site"))
        return MediaLibrary(site, editors=["system.Authenticated"], readers=[])

    def test_anonymous_requests_cannot_read_it(self, private):
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
    def test_deletes_the_file_too(self, make_library, files):
        library = make_library(files)
        data = library.add()
        assert len(library.keys) == 1
        library.http.delete(f"/content/_media/{data['id']}", headers=ALICE)
        library.get(data["url"], status=404)
        assert library.keys == []

    def test_of_the_collection_deletes_all_files(self, make_library):
        library = make_library()
        for _ in range(3):
            library.add()
        bucket, permission = library.uri.split("/collections")[0], library.site.registry.permission
        alice = library.http.get("/", headers=ALICE).json["user"]["id"]
        allow = (bucket, "write", alice)
        library.site.in_transaction(lambda: permission.add_principal_to_ace(*allow))
        library.http.delete(library.uri, headers=ALICE)
        assert library.keys == []


class TestExpiry:
    def test_uploads_without_description_expire(self, make_library, files):
        library = make_library(files, **{"kinto.attachment.library.unclaimed_ttl": "1"})
        kept = library.add()
        facts = library.upload(TEXT, "a.txt")
        assert len(library.keys) == 2
        assert list(fsck(library.server)) == []
        expire()
        assert field_of(library.describe(facts, status=400)) == "id"
        (dry,) = collect(library.server, timedelta(0), dry_run=True)
        assert (dry.kind, dry.record, dry.detail) == (
            "expired",
            f"/uploads/{facts['id']}",
            "a.txt",
        )
        assert [each.kind for each in collect(library.server, timedelta(0))] == [
            "expired",
            "deleted",
        ]
        assert len(library.keys) == 1
        assert library.get(kept["url"]).body == jpeg()
        assert list(fsck(library.server)) == []
        assert list(collect(library.server, timedelta(0))) == []

    def test_recent_uploads_stay(self, make_library):
        library = make_library()
        facts = library.upload()
        assert list(collect(library.server, timedelta(0), force=True)) == []
        library.describe(facts)

    def test_uploads_named_by_their_hash_expire(self, make_library):
        by_hash = {
            "kinto.attachment.library.unclaimed_ttl": "1",
            "kinto.attachment.randomize": "false",
            "kinto.attachment.filename_pattern": "{hash}{extension}",
        }
        library = make_library(**by_hash)
        kept, _ = library.add(), library.upload()
        expire()
        list(collect(library.server, timedelta(0)))
        list(collect(library.server, offline=True))
        assert library.waiting == []
        assert library.get(kept["url"]).body == jpeg()

    def test_flush_deletes_objects_and_uploads(self, make_library):
        library = make_library()
        library.add()
        library.upload()
        library.http.post("/__flush__", headers=ALICE)
        assert library.keys == []


def expire() -> None:
    """Wait until all uploads have expired, if ``unclaimed_ttl`` is one second."""
    time.sleep(1.1)


class TestMaintenance:
    def test_rebase_applies_to_uploads_without_description(self, make_library):
        old = {"kinto.attachment.base_url": "https://old.example/"}
        library = make_library("local", **old)
        facts = library.upload()
        new = {**library.site.settings, "kinto.attachment.base_url": "https://new.example/"}
        site = Site(**new)
        data = MediaLibrary(site, (), ()).describe(facts)["data"]
        assert data["attachment"]["location"].startswith("https://new.example/")
        site.close()

    def test_link_of_an_unknown_upload_is_released(self, make_library):
        """A crash can leave such a link if Kinto's storage has no transactions."""
        library = make_library()
        facts, kept = library.upload(), library.add()
        uploads = library.site.rows.unclaimed
        library.site.in_transaction(lambda: uploads.take(uploads.get(facts["id"])))
        (finding,) = fsck(library.server)
        assert finding.kind == "link without record"
        kinds = [each.kind for each in collect(library.server, offline=True)]
        assert kinds == ["released", "deleted"]
        assert list(fsck(library.server)) == []
        assert library.get(kept["url"]).body == jpeg()


class TestDefinition:
    """The content type definition of ``_media`` objects."""

    def test_is_served(self, library):
        definition = library.get("internal/contenttype/_media").json
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

    def test_names_every_fact_of_an_upload(self, library):
        properties = schema.definition()["schemaDefinition"]["allOf"][1]["properties"]
        assert library.upload().keys() - {"id"} <= properties.keys()

    def test_agrees_with_the_schema_of_the_collection(self, library):
        collection = library.get(library.uri[1:], headers=ALICE).json["data"]
        definition = schema.definition()["schemaDefinition"]["allOf"][1]["properties"]
        properties = collection["schema"]["properties"]
        assert properties.keys() - {"attachment"} == definition.keys()
        for name, described in definition.items():
            assert described.items() <= properties[name].items()
        # Kinto Admin cannot edit records if the schema requires or forbids properties.
        assert collection["schema"].keys() == {"type", "title", "properties"}
        assert collection["attachment"]["enabled"] is True
        assert set(collection["displayFields"]) <= definition.keys()
        assert collection["uiSchema"]["fileName"] == {"ui:widget": "hidden"}


class TestInit:
    def test_a_second_run_changes_nothing(self, make_library):
        library = make_library()
        kinds = [finding.kind for finding in library.findings]
        assert kinds == ["created", "created", "allowed", "allowed"]
        assert [each.kind for each in MediaLibrary(library.site, (), ()).findings] == []

    def test_an_old_collection_is_updated(self, make_library):
        library = make_library()
        library.http.patch_json(library.uri, {"data": {"schema": {}, "x": 1}}, headers=ALICE)
        # Kinto gives a user who changes a collection the permission to write it.
        alice = library.http.get("/", headers=ALICE).json["user"]["id"]
        findings = MediaLibrary(library.site, (alice,), ()).findings
        assert [each.kind for each in findings] == ["updated"]
        data = library.get(library.uri[1:], headers=ALICE).json["data"]
        assert data["schema"] == schema.metadata()["schema"] and data["x"] == 1

    def test_a_collection_of_other_records_is_refused(self, make_library):
        site = make_library().site
        site.http.delete("/buckets/site", headers=ALICE, status="*")
        library = site.registry.attachment_library
        site.in_transaction(
            lambda: site.registry.storage.create("record", library.uri, {"id": "a", "b": 1})
        )
        with pytest.raises(SettingError, match="not media"):
            MediaLibrary(site)

    def test_dry_run_changes_nothing(self, make_server):
        site = make_server("memory", **settings("site"))
        server = Server.of(site.registry, transaction.manager)
        found = list(
            init_library(
                server, site.registry.attachment_library, site.registry.permission,
                editors=["a"], authors=["b"], readers=[], dry_run=True,
            )
        )  # fmt: skip
        assert [each.kind for each in found] == ["created", "created", "allowed", "allowed"]
        site.http.get("/buckets/site/collections/media", headers=ALICE, status="4*")
        with pytest.raises(SettingError, match="library.bucket"):
            list(init_library(server, None, None, editors=[], authors=[], readers=[]))
