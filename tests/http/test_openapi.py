"""The two documents that describe the API: valid, complete, and true."""

import json
from collections import Counter

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV2SpecValidator, OpenAPIV31SpecValidator
from pyramid.request import Request

from kinto_attachment.http.openapi.document import METHODS
from tests.support.library import jpeg
from tests.support.openapi import Conformance, template_of
from tests.support.site import ALICE, BOB

LIBRARY = {"kinto.attachment.library.bucket": "site"}
UNSPLASH = {**LIBRARY, "kinto.attachment.unsplash.access_key": "key"}


@pytest.fixture
def swagger():
    """Kinto's document of a site. A process makes it only once."""

    def get(site):
        view = kintos_view()
        vars(view).pop("__json__", None)
        try:
            return site.http.get("/__api__").json
        finally:
            vars(view).pop("__json__", None)

    return get


def kintos_view():
    # Not imported before a site was made: services take Kinto's CORS settings when they are.
    from kinto.core.views.openapi import openapi_view

    return openapi_view


def openapi(site):
    return site.http.get("/attachments/__api__").json


def operations(document):
    return {
        (method, path): item[method]
        for path, item in document["paths"].items()
        for method in METHODS
        if method in item
    }


@pytest.mark.parametrize("settings", [{}, LIBRARY, UNSPLASH], ids=["", "library", "unsplash"])
class TestDocuments:
    def test_openapi_is_valid(self, make_site, settings):
        document = openapi(make_site(**settings))
        assert document["openapi"].startswith("3.1")
        assert list(OpenAPIV31SpecValidator(document).iter_errors()) == []

    def test_swagger_is_valid_but_for_a_path_of_kinto(self, make_site, settings, swagger):
        document = swagger(make_site(**settings))
        of_kinto = [path for path in document["paths"] if "@{timestamp}" in path]
        for path in of_kinto:
            del document["paths"][path]
        assert list(OpenAPIV2SpecValidator(document).iter_errors()) == []

    def test_both_have_every_route_that_is_on(self, make_site, settings, swagger):
        site = make_site(**settings)
        ours = {
            (method.lower(), template_of(service.path))
            for service in site.registry.cornice_services.values()
            if service.name in site.registry.attachment_services
            for method in service.defined_methods
            if method != "OPTIONS"
        }
        assert set(operations(openapi(site))) == ours
        assert ours <= set(operations(swagger(site)))

    def test_operation_ids_are_unique(self, make_site, settings, swagger):
        site = make_site(**settings)
        for document in (openapi(site), swagger(site)):
            ids = Counter(each["operationId"] for each in operations(document).values())
            assert [name for name, count in ids.items() if count > 1] == []

    def test_both_say_the_same(self, make_site, settings, swagger):
        site = make_site(**settings)
        of_swagger = operations(swagger(site))
        for key, operation in operations(openapi(site)).items():
            other = of_swagger[key]
            assert other["operationId"] == operation["operationId"]
            assert set(other["responses"]) == set(operation["responses"])


def test_library_and_unsplash_are_there_only_where_they_are_on(make_site):
    def paths(**settings):
        return set(openapi(make_site(**settings))["paths"])

    library = {path for path in paths(**LIBRARY) if path.startswith(("/image/", "/content/"))}
    assert library and not library & paths()
    assert "/unsplash/{id}" not in paths(**LIBRARY)
    assert "/unsplash/{id}" in paths(**UNSPLASH)
    forms = [
        "multipart/form-data"
        in openapi(make_site(**settings))["paths"]["/media"]["post"]["requestBody"]["content"]
        for settings in ({}, LIBRARY)
    ]
    assert forms == [False, True]


def test_openapi_document(make_site):
    document = openapi(make_site())
    assert document["servers"] == [{"url": "/v1"}]
    schemes = document["components"]["securitySchemes"]
    assert {each["scheme"] for each in schemes.values()} == {"basic", "bearer"}
    part = document["paths"]["/media/{hash}"]["get"]["responses"]["206"]
    assert "multipart/byteranges" in part["content"]
    form = operations(document)["post", ATTACHMENT]["requestBody"]["content"]
    assert form["multipart/form-data"]["encoding"]["data"]["contentType"] == "application/json"


RECORD = "/buckets/{bucket_id}/collections/{collection_id}/records/{id}"
ATTACHMENT = f"{RECORD}/attachment"


def test_swagger_document(make_site, swagger):
    found = operations(swagger(make_site(**LIBRARY)))
    upload = found["post", ATTACHMENT]
    assert upload["consumes"] == ["multipart/form-data"]
    fields = {each["name"]: each["type"] for each in upload["parameters"] if each["in"] != "header"}
    assert fields == {"attachment": "file", "data": "string", "permissions": "string"}
    store = found["post", "/media"]
    names = {each["name"] for each in store["parameters"]}
    assert {"verify", "Content-Digest", "body"} <= names
    image = found["get", f"{ATTACHMENT}/{{width}}x{{height}}"]
    assert {"format", "Range", "If-None-Match"} <= {each["name"] for each in image["parameters"]}
    assert {"image/webp", "multipart/byteranges", "application/json"} <= set(image["produces"])
    assert upload["security"] == [{"basicauth": []}]


def test_kinto_still_says_what_it_says(make_site, swagger):
    """Only our own operations are replaced."""
    site = make_site()
    merged = swagger(site)
    request = Request.blank("/v1/__api__")
    request.registry = site.registry
    kintos = kintos_view()(request)
    vars(kintos_view()).pop("__json__")
    ours = openapi(site)["paths"]
    for path, item in kintos["paths"].items():
        if template_of(path) not in ours:
            assert merged["paths"][path] == json.loads(json.dumps(item))
    assert merged["info"] == kintos["info"]


def test_documents_are_for_everyone(make_site):
    site = make_site()
    origin = {"Origin": "https://editor.example"}
    for path in ("/__api__", "/attachments/__api__"):
        response = site.http.get(path, headers=origin)
        assert response.content_type == "application/json"
        assert response.headers["Access-Control-Allow-Origin"]
        assert "operationId" in response.text


class TestResponses:
    """Real responses have a listed status, a listed type and the right schema. A site checks
    that of every response, in all tests (:class:`tests.support.openapi.CheckedApp`).
    """

    @pytest.fixture
    def site(self, make_site):
        site = make_site(
            **LIBRARY,
            **{
                "kinto.attachment.max_size": "100000",
                "kinto.attachment.images.sizes": "20x0",
                "kinto.attachment.fields": "attachment cover pictures[]",
            },
        )
        bucket = {"permissions": {"read": ["system.Everyone"]}}
        site.http.put_json("/buckets/site", bucket, headers=ALICE)
        site.http.put_json("/buckets/site/collections/media", headers=ALICE)
        return site

    def test_of_attachments(self, site):
        record = site.collection().record()
        image = jpeg(40, 30)
        url = record.attachment_uri
        record.upload(image, status=201, data={"a": 1})
        record.upload(image, status=200)
        record.upload(b"x", filename="a.exe", status=400)
        record.upload(b"x" * 100001, status=400)
        record.upload(image, status=412, headers={"If-Match": '"1"'})
        record.upload(image, status=403, headers=BOB)
        record.post(b"", "text/plain", status=400)
        record.post_raw(b"", headers={"Content-Encoding": "gzip"}, status=415)
        missing = "/buckets/none/collections/none/records/r/attachment"
        site.http.post(missing, headers=ALICE, status=404)
        for headers, status in (
            ({}, 200),
            ({"Range": "bytes=0-3"}, 206),
            ({"Range": "bytes=0-3,8-9"}, 206),
            ({"Range": "bytes=1000000-"}, 416),
            ({"If-Match": '"x"'}, 412),
            ({"If-None-Match": "*"}, 304),
        ):
            site.http.get(url, headers={**ALICE, **headers}, status=status)
        site.http.head(url, headers=ALICE, status=200)
        site.http.get(url, status=401)
        site.http.get(f"{url}/20x0", headers=ALICE, status=200)
        site.http.get(f"{url}/20x0?format=webp", headers=ALICE, status=200)
        site.http.get(f"{url}/0x0", headers=ALICE, status=200)
        site.http.head(f"{url}/20x0", headers=ALICE, status=200)
        site.http.get(f"{url}/30x0", headers=ALICE, status=400)
        site.http.get(f"{url}/20x0?format=bmp", headers=ALICE, status=400)
        record.detach(headers={"If-Match": '"1"'}, status=412)
        record.detach(status=204)
        record.detach(status=404)
        site.http.get(url, headers=ALICE, status=404)

    def test_of_fields(self, site):
        record = site.collection().record()
        http, url, image = site.http, f"{record.uri}/attachments", jpeg(40, 30)

        def post(path, *names, method="post", status, headers=ALICE):
            files = [(name, "lake.jpg", image) for name in names]
            mimetype, body = http.encode_multipart([("data", "{}")], files)
            headers = {**headers, "Content-Type": mimetype}
            return getattr(http, method)(f"{url}{path}", body, headers=headers, status=status)

        entry = post("", "cover", "pictures", "pictures[]", status=201).json["pictures"][0]["id"]
        post("", "pictures", status=200)
        post("", "other", status=400)
        post("", "cover", status=403, headers=BOB)
        post("", "cover", status=401, headers={})
        post("/cover", "attachment", status=200)
        post("/cover", "cover[]", status=400)
        post("/pictures", "pictures", status=201)
        post("/pictures", "pictures[]", status=201)
        post("/other", "attachment", status=404)
        one = f"/pictures/{entry}"
        post(one, "attachment", method="put", status=200)
        post(one, "attachment", method="put", status=412, headers={**ALICE, "If-Match": '"1"'})
        version = http.get(url, headers=ALICE, status=200).headers["ETag"]
        for path in ("", "/pictures"):
            for headers, status in (
                ({"If-None-Match": version}, 304),
                ({"If-Match": version}, 200),
                ({"If-Match": '"1"'}, 412),
                ({"If-None-Match": "x"}, 400),
                ({"Range": "bytes=0-1"}, 200),
                ({"Range": "bytes=1000000-"}, 200),
            ):
                found = http.get(f"{url}{path}", headers={**ALICE, **headers}, status=status)
                assert status == 400 or found.headers["ETag"] == version
                assert status != 200 or found.json
            http.head(f"{url}{path}", headers=ALICE, status=200)
            http.get(f"{url}{path}", headers=BOB, status=403)
        for path, size in (("/cover", "/20x0"), (one, "/20x0?format=webp")):
            http.get(f"{url}{path}", headers={**ALICE, "Range": "bytes=0-3"}, status=206)
            http.get(f"{url}{path}{size}", headers=ALICE, status=200)
            http.head(f"{url}{path}/20x0", headers=ALICE, status=200)
            http.get(f"{url}{path}/30x0", headers=ALICE, status=400)
        http.get(f"{url}/pictures/20x0", headers=ALICE, status=404)
        http.delete(f"{url}{one}", headers=ALICE, status=204)
        http.delete(f"{url}{one}", headers=ALICE, status=404)
        http.delete(f"{url}/pictures", headers={**ALICE, "If-Match": '"1"'}, status=412)
        http.delete(f"{url}/pictures", headers=ALICE, status=204)

    def test_of_the_media_store(self, site):
        http = site.http
        digest = http.post("/media", b"stored", headers=ALICE, status=201).text
        http.post("/media", b"stored", headers=ALICE, status=200)
        json_too = {**ALICE, "Accept": "application/json"}
        http.post("/media", b"stored", headers=json_too, status=200)
        http.post(f"/media/{digest}?verify=false", b"stored", headers=json_too, status=202)
        http.put(f"/media/{digest}", b"stored", headers=ALICE, status=200)
        http.put(f"/media/{digest}", b"other", headers=ALICE, status=400)
        http.post("/media?verify=false", b"stored", headers=ALICE, status=400)
        http.post("/media", b"", headers=ALICE, status=400)
        http.post("/media", b"stored", status=401)
        http.post("/media", b"x", headers={**ALICE, "Content-Encoding": "br"}, status=415)
        http.get(f"/media/{digest}", headers=ALICE, status=200)
        http.get(f"/media/{digest}", headers={**ALICE, "Range": "bytes=0-1,3-4"}, status=206)
        http.head(f"/media/{digest}", headers=ALICE, status=200)
        http.get(f"/media/{'0' * 64}", headers=ALICE, status=404)
        http.post_json("/media/stat", [digest], headers=ALICE, status=200)
        http.post_json("/media/stat", {"hashes": [digest]}, headers=ALICE, status=200)
        http.post_json("/media/stat", ["x"], headers=ALICE, status=400)
        http.post("/media/stat", b" " * 200_000, headers=ALICE, status=413)
        http.delete(f"/media/{digest}", headers=ALICE, status=204)
        http.delete(f"/media/{digest}", headers=ALICE, status=404)

    def test_of_the_library(self, site):
        http = site.http
        form = [("file", "lake.jpg", jpeg(40, 30))]
        uploaded = http.post("/media", upload_files=form, headers=ALICE, status=201).json
        saved = http.post("/media", {"save": "1"}, ALICE, upload_files=form, status=201).json
        http.post("/media", {"type": "file"}, ALICE, upload_files=form, status=400)
        big = [("file", "a.txt", b"x" * 100001)]
        http.post("/media", upload_files=big, headers=ALICE, status=413)
        http.post("/media", upload_files=form, headers=BOB, status=403)
        objects = "/content/_media"
        described = {**uploaded, "alt": "A lake", "tags": ["lake"]}
        trim = {"name": "sun", "trim": {"top": 0, "left": 0, "width": 20, "height": 10}}
        http.post_json(objects, {**described, "variants": [trim]}, headers=ALICE, status=201)
        http.post_json(objects, described, headers=ALICE, status=400)
        http.post_json(objects, described, headers=BOB, status=403)
        http.post_json(objects, described, status=401)
        text = {**ALICE, "Content-Type": "text/plain"}
        http.post(objects, json.dumps(described), headers=text, status=415)
        listed = http.get(objects, headers=ALICE, status=200)
        http.get(f"{objects}?_fields=alt", headers=ALICE, status=200)
        version = {"If-None-Match": listed.headers["ETag"]}
        http.get(objects, headers={**ALICE, **version}, status=304)
        http.get(objects, headers={**ALICE, "If-Match": '"1"'}, status=412)
        http.get(objects, headers={**ALICE, "Accept": "image/png"}, status=406)
        http.head(objects, headers=ALICE, status=200)
        one = f"{objects}/{uploaded['id']}"
        http.get(one, headers=ALICE, status=200)
        http.patch_json(one, {"title": "Lake"}, headers=ALICE, status=200)
        http.patch_json(one, {"size": 1}, headers=ALICE, status=400)
        http.put_json(one, {"data": described}, headers=ALICE, status=200)
        http.put_json(one, described, headers={**ALICE, "If-Match": '"1"'}, status=412)
        http.patch_json(one, {"data": {"variants": [trim]}}, headers=ALICE, status=200)
        http.get(f"{objects}/none", headers=ALICE, status=404)
        name = f"{uploaded['id']}.jpg"
        http.get(f"/original/{name}", status=200)
        http.get(f"/original/{name}?format=png", status=400)
        http.get(f"/image/20x0/{name}", status=200)
        http.get(f"/image/20x0/{uploaded['id']}/lake.jpg", status=200)
        http.get(f"/image/20x0/{uploaded['id']}/lake.jpg/variant/sun", status=200)
        http.get(f"/image/20x0/{uploaded['id']}/lake.jpg/variant/moon", status=404)
        http.get("/image/20x0/none.jpg", status=404)
        http.get("/internal/contenttype/_media", status=200)
        http.delete(one, headers=ALICE, status=200)
        http.delete(f"{objects}/{saved['id']}", headers=BOB, status=403)


class TestFields:
    """What the document says about lists. Its schema of ``GET {record}/attachments/{field}``
    allows any JSON, because a file may be JSON, too."""

    def test_schemas(self, make_site):
        site = make_site(**{"kinto.attachment.fields": "cover pictures[]"})
        url = f"{site.collection().record().uri}/attachments"
        files = [(name, "a.txt", b"x") for name in ("cover", "pictures")]
        site.http.post(url, upload_files=files, headers=ALICE)
        found = site.http.get(url, headers=ALICE).json
        entries = site.http.get(f"{url}/pictures", headers=ALICE).json
        assert entries == found["pictures"]
        components = openapi(site)["components"]
        for name, value in (
            ("Fields", found),
            ("Attachment", found["cover"]),
            ("Entry", entries[0]),
        ):
            schema = {**components["schemas"][name], "components": components}
            Draft202012Validator(schema).validate(value)
            assert set(value) == set(components["schemas"][name].get("required", value))

    @pytest.mark.parametrize(
        "path",
        ["/cover", "/pictures", "/pictures/38e4e0f8-1419-4a38-a3f3-a30f62ecc133", "/cover/1x1"],
    )
    def test_each_url_is_of_one_path(self, make_site, path):
        conformance = Conformance(openapi(make_site()))
        names = {"/cover": "field", "/pictures": "field", "/cover/1x1": "field_image"}
        operation = conformance.operation("GET", f"/v1{RECORD}/attachments{path}")
        assert operation["operationId"] == f"get_{names.get(path, 'entry')}"


class TestConformance:
    """What :class:`~tests.support.openapi.Conformance` refuses."""

    @pytest.mark.parametrize(
        "status, mimetype, body",
        [
            (418, "application/json", b"{}"),
            (400, "application/json", b'{"code": "400", "errno": 1, "error": "Bad Request"}'),
            (400, "text/html", b"<p>no"),
            (204, "text/plain", b"a body"),
        ],
    )
    def test_refuses(self, make_site, status, mimetype, body):
        conformance = Conformance(openapi(make_site()))
        path = f"/v1/media/{'0' * 64}"
        conformance.check("DELETE", path, 204, None, b"")
        with pytest.raises(AssertionError):
            conformance.check("DELETE", path, status, mimetype, body)
