"""URLs with ids, hashes, sizes and names that Kinto does not know: a clear answer, never a 500."""

from io import BytesIO
from urllib.parse import unquote_to_bytes

import pytest
from webob import Request

from tests.conftest import KINTO_STORAGES
from tests.support.library import MediaLibrary, jpeg, settings
from tests.support.media import PUBLIC
from tests.support.selection import mostly
from tests.support.servers.unsplash import FakeUnsplash
from tests.support.site import ALICE, BOB

ODD = [
    *(
        "%00",
        "a%00b",
        "%00.jpg",
        "%ff",
        "%c3%28",
        "%ed%a0%80",
        "%F0%9F%92%A9",
        "%c3%a9",
        "%e2%80%ae",
    ),
    *("..", "%2e%2e", "%0a", "a%0d%0ab", "a%20b", "%7f", "_x", "*", "%25", "%", "a'b", "%5C", "~"),
    *("a;b", "a,b", "%u0000", "0" * 3000, "-" * 3000),
]

# Ours, and the URL of Kinto's that answers in the same way.
RECORDS = {
    "/buckets/{odd}/collections/fonts/records/a/attachment": (
        "/buckets/{odd}/collections/fonts/records/a"
    ),
    "/buckets/{bucket}/collections/{odd}/records/a/attachment": (
        "/buckets/{bucket}/collections/{odd}/records/a"
    ),
    "/buckets/{bucket}/collections/fonts/records/{odd}/attachment": (
        "/buckets/{bucket}/collections/fonts/records/{odd}"
    ),
    "/buckets/{bucket}/collections/fonts/records/{odd}/attachment/10x0": (
        "/buckets/{bucket}/collections/fonts/records/{odd}"
    ),
    "/image/100x0/{odd}.jpg": "/buckets/site/collections/media/records/{odd}",
    "/image/100x0/{odd}/any.jpg": "/buckets/site/collections/media/records/{odd}",
    "/original/{odd}.jpg": "/buckets/site/collections/media/records/{odd}",
    "/content/_media/{odd}": "/buckets/site/collections/media/records/{odd}",
}

OTHERS = [
    "/buckets/{bucket}/collections/fonts/records/there/attachment/{odd}",
    "/buckets/{bucket}/collections/fonts/records/there/attachment/{odd}10x0",
    "/buckets/{bucket}/collections/fonts/records/there/attachment/10x0?format={odd}",
    "/buckets/default/collections/{odd}/records/a/attachment",
    "/buckets/default/collections/c/records/{odd}/attachment",
    "/buckets/default/collections/c/records/{odd}/attachment/10x0",
    "/buckets/default/collections//records/a/attachment",
    "/image/{odd}/{id}.jpg",
    "/image/100x0/{id}.{odd}",
    "/image/100x0/{id}/{odd}.jpg",
    "/image/100x0/{id}/any.jpg/variant/{odd}",
    "/image/100x0/{id}.jpg?format={odd}",
    "/original/{id}.{odd}",
    "/media/{odd}",
    "/media/{odd}?verify={odd}",
    "/unsplash/{odd}",
    "/unsplash/{odd}?save={odd}",
]


@pytest.fixture(scope="module")
def api():
    with FakeUnsplash() as server:
        yield server


@pytest.fixture
def names(make_site, kinto, api):
    more = {
        "kinto.attachment.unsplash.access_key": api.key,
        "kinto.attachment.unsplash.api_url": api.url,
        "kinto.attachment.images.cache_seconds": "9",
    }
    site = make_site(kinto, "local", **settings("site", **more, **PUBLIC))
    library = MediaLibrary(site)
    collection = site.collection()
    collection.record("there").upload(jpeg(), "photo.jpg")
    return {"site": site, "bucket": collection.bucket, "id": library.add()["id"]}


def ask(names, url: str, method: str, headers: dict, body: bytes = b"", mimetype: str = "") -> int:
    """Return the status. Any byte may be in the path, which no client of ours would send."""
    path, _, query = url.partition("?")
    request = Request.blank("/", method=method, headers=headers, body=body)
    request.environ["PATH_INFO"] = f"/v1{unquote_to_bytes(path).decode('latin-1')}"
    request.environ["QUERY_STRING"] = query
    request.environ["CONTENT_TYPE"] = mimetype
    request.environ["wsgi.input"] = BytesIO(body)
    response = request.get_response(names["site"].wsgi)
    getattr(response.app_iter, "close", lambda: None)()
    return response.status_int


@pytest.mark.parametrize("odd", ODD)
def test_answers_are_those_of_kinto(names, odd):
    for headers in (ALICE, BOB, {}):
        for ours, theirs in RECORDS.items():
            url, expected = ours.format(odd=odd, **names), theirs.format(odd=odd, **names)
            for method in ("GET", "HEAD"):
                status = ask(names, url, method, headers)
                assert status == ask(names, expected, method, headers), (method, url)
                assert status != 500, (method, url)


@pytest.mark.parametrize("kinto", mostly(KINTO_STORAGES, {"postgresql"}))
@pytest.mark.parametrize("odd", ODD)
def test_no_method_fails(names, odd):
    form_type, form = names["site"].http.encode_multipart([], [("attachment", "a.jpg", jpeg())])
    bodies = {"POST": (form, form_type), "PUT": (b"{}", "application/json")}
    bodies["PATCH"] = bodies["PUT"]
    for ours in (*RECORDS, *OTHERS):
        url = ours.format(odd=odd, **names)
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
            for headers in (ALICE, {}):
                status = ask(names, url, method, headers, *bodies.get(method, (b"", "")))
                assert status != 500, (method, url)
