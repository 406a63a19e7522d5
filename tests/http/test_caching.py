"""No error and no response to a write is cached as the file, whatever the route and the reason."""

from hashlib import sha256
from uuid import uuid4

import pytest

from kinto_attachment.errors import BlobDamaged, BlobNotFound, ResizeBusy, StorageUnavailable
from kinto_attachment.images.service import ImageService
from tests.support.library import MediaLibrary, jpeg, settings
from tests.support.media import PUBLIC
from tests.support.site import ALICE

DIGITS = "0" * 64
LONG_AGO = "Mon, 01 Jan 2001 00:00:00 GMT"
VARIANTS = [{"name": "corner", "trim": {"top": 0, "left": 0, "width": 60, "height": 40}}]

FILES = {
    "attachment": "{record}/attachment",
    "attachment-image": "{record}/attachment/30x0",
    "media": "/media/{hash}",
    "original": "/original/{id}.jpg",
    "image": "/image/30x0/{id}.jpg",
    "original-size": "/image/0x0/{id}.jpg",
    "named-image": "/image/30x0/{id}/any.jpg",
    "image-variant": "/image/30x0/{id}/any.jpg/variant/corner",
}

REFUSED = {
    "if-match": ({"If-Match": '"x"'}, 412),
    "if-match-of-many": ({"If-Match": '"x", "y"', "Range": "bytes=0-1"}, 412),
    "if-unmodified-since": ({"If-Unmodified-Since": LONG_AGO}, 412),
    "range": ({"Range": "bytes=99999999-"}, 416),
    "no-bytes": ({"Range": "bytes=-0"}, 416),
}

ERRORS = [
    ("GET", "/image/30x0/unknown.jpg"),
    ("GET", "/image/30x0/{id}.png"),
    ("GET", "/image/30x0/{id}/any.jpg/variant/unknown"),
    ("GET", "/image/999999x0/{id}.jpg"),
    ("GET", "/image/30x0/{id}.jpg?format=tiff"),
    ("GET", "/original/{id}.jpg?format=webp"),
    ("GET", "/original/unknown"),
    ("POST", "/image/30x0/{id}.jpg"),
    ("GET", "/image"),
    ("GET", f"/media/{DIGITS}"),
    ("GET", "/media/nonsense"),
    ("POST", "/media"),
    ("PATCH", f"/media/{DIGITS}"),
    ("GET", "{record}-unknown/attachment"),
    ("GET", "{secret}/attachment"),
    ("GET", "{record}/attachment/1x1x1"),
    ("GET", "{record}/attachment/99999x99999?format=gif"),
    ("DELETE", "{record}/attachment"),
    ("PUT", "{record}/attachment"),
    ("POST", "{record}/attachment"),
    ("GET", "/content/_media/unknown"),
    ("POST", "/content/_media"),
    ("PUT", "/internal/contenttype/_media"),
]


@pytest.fixture(params=["local", "seaweedfs"])
def files(request):
    return request.param


@pytest.fixture
def public(make_site, kinto, files):
    """Files that everyone may read: the URLs by the names in :data:`FILES`."""
    site = make_site(kinto, files, **settings("site", **PUBLIC))
    library = MediaLibrary(site)
    library.names = {"id": library.add(variants=VARIANTS)["id"]}
    for name in ("record", "secret"):
        record = site.collection().record()
        record.upload(jpeg(), "photo.jpg")
        library.names[name] = record.uri
    readers = {"permissions": {"read": ["system.Everyone"]}}
    site.http.patch_json(library.names["record"], readers, headers=ALICE)
    library.names["hash"] = site.http.post("/media", jpeg(), headers=ALICE).text
    return library


def check(response):
    assert response.headers.getall("Cache-Control") == ["no-store"]
    assert "Expires" not in response.headers


@pytest.mark.parametrize("reason", REFUSED)
def test_what_a_client_asks_in_vain(public, reason):
    headers, status = REFUSED[reason]
    for name, path in FILES.items():
        url = path.format(**public.names)
        usual = public.http.get(url).headers["Cache-Control"]
        check(public.http.get(url, headers=headers, status=status))
        assert public.http.get(url).headers["Cache-Control"] == usual, name
        assert "no-store" not in usual, name


def test_no_other_error(public):
    for method, path in ERRORS:
        response = public.http.request(path.format(**public.names), method=method, status="*")
        assert 400 <= response.status_int < 500, (method, path)
        check(response)


def test_what_answers_a_write(public):
    http, names = public.http, public.names
    facts = public.upload()
    uri = f"/content/_media/{facts['id']}"
    now, later = uuid4().bytes, uuid4().bytes
    digest = sha256(later).hexdigest()
    form = {"upload_files": [("attachment", "photo.jpg", jpeg())]}
    responses = [
        http.post("{record}-new/attachment".format(**names), headers=ALICE, **form, status=201),
        http.post("{record}/attachment".format(**names), headers=ALICE, **form, status=200),
        http.delete("{record}/attachment".format(**names), headers=ALICE, status=204),
        http.post("/media", now, headers=ALICE, status=201),
        http.post("/media", now, headers=ALICE, status=200),
        http.put(f"/media/{digest}", later, headers=ALICE, status=201),
        http.post(f"/media/{digest}?verify=false", later, headers=ALICE, status=202),
        http.delete(f"/media/{digest}", headers=ALICE, status=204),
        http.post_json("/media/stat", [digest], headers=ALICE, status=200),
        http.post("/media", headers=ALICE, upload_files=[("file", "a.jpg", jpeg())], status=201),
        http.post_json("/content/_media", facts, headers=ALICE, status=201),
        http.patch_json(uri, {"title": "a"}, headers=ALICE, status=200),
        http.put_json(uri, {"title": "b"}, headers=ALICE, status=200),
        http.delete(uri, headers=ALICE, status=200),
    ]
    for response in responses:
        check(response)


def test_what_answers_a_write_in_the_default_bucket(public):
    uri = f"/buckets/default/collections/c/records/{uuid4()}/attachment"
    form = {"upload_files": [("attachment", "photo.jpg", jpeg())]}
    check(public.http.post(uri, headers=ALICE, **form, status=201))
    check(public.http.delete(uri, headers=ALICE, status=204))


def test_a_redirect(make_site):
    """It is signed, and soon out of date."""
    redirect = {"kinto.attachment.download": "redirect"}
    record = make_site("memory", "seaweedfs", **redirect).collection().record()
    record.upload()
    check(record.http.get(record.attachment_uri, headers=ALICE, status=307))


def test_routes_of_kinto_are_left_alone(public):
    response = public.http.put_json(public.names["record"], {}, headers=ALICE)
    assert "Cache-Control" not in response.headers


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (StorageUnavailable("a", "no route to host"), 503),
        (BlobNotFound("a"), 404),
        (BlobDamaged("a"), 500),
        (RuntimeError("a fault of ours"), 500),
    ],
)
def test_what_the_storage_cannot_do(public, monkeypatch, error, status):
    def fail(*args):
        raise error

    for path in FILES.values():
        public.http.get(path.format(**public.names))
    monkeypatch.setattr(public.site.storage, "open", fail)
    for name in ("attachment", "media", "original", "original-size"):
        check(public.http.get(FILES[name].format(**public.names), status=status))


def test_an_image_that_cannot_be_made_now(public, monkeypatch):
    def fail(*args):
        raise ResizeBusy("No worker became free.")

    monkeypatch.setattr(ImageService, "make", fail)
    response = public.http.get(f"/image/31x0/{public.names['id']}.jpg", status=503)
    check(response)
    assert "Retry-After" in response.headers


def test_the_cache_of_the_process_keeps_none(make_site):
    more = {"kinto.attachment.images.cache_seconds": "60"}
    library = MediaLibrary(make_site(**settings("site", **more)))
    path = f"image/30x0/{library.add()['id']}.jpg"
    for headers, status in REFUSED.values():
        for _ in range(2):
            check(library.get(path, headers=headers, status=status))
    whole = library.get(path)
    assert "immutable" in whole.headers["Cache-Control"]
    for headers, status in REFUSED.values():
        for _ in range(2):
            check(library.get(path, headers=headers, status=status))
    assert library.get(path).body == whole.body
