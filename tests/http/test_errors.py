"""Errors: one shape for one kind of mistake, and a message in every one."""

import json

import pytest

from tests.support.library import jpeg
from tests.support.site import ALICE, BOB, Site

ANONYMOUS = {}
DIGEST = "0" * 64
UNKNOWN = "a" * 36
MULTIPART = {"Content-Type": "multipart/form-data; boundary=a"}
JSON = {"Content-Type": "application/json"}
RECORD = "/buckets/site/collections/docs/records/lake"
ROUTES = [
    f"{RECORD}/attachment",
    f"{RECORD}/attachment/10x10",
    "/media",
    f"/media/{DIGEST}",
    "/media/stat",
    "/content/_media",
    f"/content/_media/{UNKNOWN}",
    "/internal/contenttype/_media",
    f"/image/10x10/{UNKNOWN}.jpg",
    f"/image/10x10/{UNKNOWN}/lake.jpg",
    f"/image/10x10/{UNKNOWN}/lake.jpg/variant/sun",
    f"/original/{UNKNOWN}.jpg",
    "/original/lake",
    "/unsplash/abc",
]


@pytest.fixture(scope="module")
def http(kinto_settings):
    site = Site(
        **kinto_settings("memory"),
        **{
            "kinto.attachment.storage": "memory",
            "kinto.attachment.max_size": "100000",
            "kinto.attachment.library.bucket": "site",
            "kinto.attachment.unsplash.access_key": "key",
            # Nothing answers there.
            "kinto.attachment.unsplash.api_url": "http://127.0.0.1:9",
        },
    )
    site.http.put_json("/buckets/site", {}, headers=ALICE)
    for name in ("docs", "media"):
        everyone = {"permissions": {"record:create": ["system.Authenticated"]}}
        site.http.put_json(f"/buckets/site/collections/{name}", everyone, headers=ALICE)
    yield site.http
    site.close()


def check(response) -> dict:
    """Check the shape of an error; return it."""
    error = response.json
    assert response.status_code < 500 or response.status_code in (501, 502, 503, 504), error
    assert error["code"] == response.status_code
    assert isinstance(error["errno"], int)
    assert error["error"] and error["message"]
    assert error["message"][0] not in "'\"[{"
    if response.status_code == 400:
        (detail,) = error["details"]
        assert error["error"] == "Invalid parameters"
        assert detail["location"] in ("body", "header", "path", "querystring")
        assert detail["description"]
        if error["errno"] == 109:  # what the fields of a form or attributes contain
            assert detail["location"] == "body"
        else:
            assert error["errno"] == 107
    return error


@pytest.mark.parametrize("user", [ANONYMOUS, ALICE, BOB], ids=["anonymous", "alice", "bob"])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("route", ROUTES)
def test_every_route_and_method(http, route, method, user):
    for headers, body in (({}, b""), (MULTIPART, b"x"), (JSON, b"[]"), (JSON, b"{")):
        response = http.request(
            route, method=method, body=body, headers={**user, **headers}, expect_errors=True
        )
        if response.status_code >= 400:
            check(response)


def form(name: str = "lake.jpg", field: str = "attachment", content: bytes = b"x", **fields):
    return {"params": fields, "upload_files": [(field, name, content)]}


ATTACHMENT = f"{RECORD}/attachment"
MISTAKES = {  # name: (path, form, location and name of what is wrong)
    "no file": (ATTACHMENT, form(field="other"), ("body", "attachment")),
    "bad JSON": (ATTACHMENT, form(data="{"), ("body", "data")),
    "not an object": (ATTACHMENT, form(data="[]"), ("body", "data")),
    "unknown field": (ATTACHMENT, form(dat="{}"), ("body", "dat")),
    "permission": (ATTACHMENT, form(permissions='{"fly": []}'), ("body", "permissions")),
    "extension": (ATTACHMENT, form("a.exe"), ("body", "attachment")),
    "path": (ATTACHMENT, form("a/b.jpg"), ("body", "attachment")),
    "size": (ATTACHMENT, form(content=b"x" * 100_001), ("body", "attachment")),
    "library: no file": ("/media", form(field="other"), ("body", "file")),
    "library: type": ("/media", form(field="file", type="film"), ("body", "type")),
    "library: no image": ("/media", form(field="file", type="image"), ("body", "type")),
    "library: flag": ("/media", form(field="file", save="maybe"), ("body", "save")),
    "library: extension": ("/media", form("a.exe", "file"), ("body", "file")),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_form(http, mistake):
    path, options, where = MISTAKES[mistake]
    error = check(http.post(path, headers=ALICE, status=400, **options))
    (detail,) = error["details"]
    assert (detail["location"], detail["name"]) == where


def test_file_of_the_library_is_too_large(http):
    options = form(field="file", content=b"x" * 100_001)
    error = check(http.post("/media", headers=ALICE, status=413, **options))
    assert error["details"][0]["name"] == "file"


BAD_REQUESTS = {  # name: (method, path, headers, body, location and name of what is wrong)
    "empty": ("POST", "/media", {}, b"", ("body", "body")),
    "hash": ("POST", "/media/abc", {}, b"x", ("path", "hash")),
    "other hash": ("POST", f"/media/{DIGEST}", {}, b"x", ("path", "hash")),
    "verify": ("POST", "/media?verify=maybe", {}, b"x", ("querystring", "verify")),
    "verify what": ("POST", "/media?verify=no", {}, b"x", ("querystring", "verify")),
    "digest": ("POST", "/media", {"Repr-Digest": "sha-256=:a:"}, b"x", ("header", "Repr-Digest")),
    "hashes": ("POST", "/media/stat", JSON, b'["x"]', ("body", "hashes")),
    "too many": (
        "POST",
        "/media/stat",
        JSON,
        json.dumps(["x"] * 1001).encode(),
        ("body", "hashes"),
    ),
    "not JSON": ("POST", "/media/stat", JSON, b"[", ("body", "body")),
    "not JSON either": ("POST", "/content/_media", JSON, b"{", ("body", "body")),
    "list": ("POST", "/content/_media", JSON, b"[]", ("body", "body")),
    "data": ("POST", "/content/_media", JSON, b'{"data": 3}', ("body", "data")),
    "no upload": ("POST", "/content/_media", JSON, b'{"id": "abc"}', ("body", "id")),
}


@pytest.mark.parametrize("mistake", BAD_REQUESTS)
def test_request(http, mistake):
    method, path, headers, body, where = BAD_REQUESTS[mistake]
    response = http.request(
        path, method=method, headers={**ALICE, **headers}, body=body, expect_errors=True
    )
    assert response.status_code == 400
    (detail,) = check(response)["details"]
    assert (detail["location"], detail["name"]) == where


def test_image(http):
    photo = {"upload_files": [("file", "a.jpg", jpeg(60, 40))], "params": {"save": "1"}}
    name = http.post("/media", headers=ALICE, status=201, **photo).json["id"]
    for path, status, where in (
        (f"/image/10x10/{name}.jpg?format=bmp", 400, ("querystring", "format")),
        (f"/original/{name}.jpg?format=webp", 400, ("querystring", "format")),
        (f"/image/x/{name}.jpg", 400, ("path", "size")),
        (f"/image/123456x1/{name}.jpg", 400, ("path", "size")),
        (f"/image/10x10/{name}.png", 404, None),
        (f"/image/10x10/{name}/a.jpg/variant/sun", 404, None),
        (f"/image/10x10/{UNKNOWN}.jpg", 404, None),
    ):
        error = check(http.get(path, headers=ALICE, status=status))
        if where:
            (detail,) = error["details"]
            assert (detail["location"], detail["name"]) == where


def test_batch(http):
    """What Kinto itself refuses has a message there, too."""
    paths = [f"/v1{path}" for path in (ATTACHMENT, f"/content/_media/{UNKNOWN}")]
    requests = {"requests": [{"path": path} for path in paths]}
    for each in http.post_json("/batch", requests, headers=ALICE).json["responses"]:
        assert each["status"] in (400, 404)
        assert each["body"]["message"]
