"""Photos imported from Unsplash into the media library; a fake server stands in for its API."""

import pytest

from tests.support.library import MediaLibrary, field_of, jpeg, settings
from tests.support.servers.unsplash import FakeUnsplash, limited
from tests.support.servers.web import drips, redirects, says, silent, truncated
from tests.support.site import ALICE

PHOTO = "Dwu85P9SOIk"
TIMEOUT = {"kinto.attachment.unsplash.timeout": "3"}


@pytest.fixture(scope="module")
def api():
    with FakeUnsplash() as server:
        yield server


@pytest.fixture
def library(make_site, kinto, files, api):
    site = make_site(kinto, files, **_settings(api))
    return _fresh(api, MediaLibrary(site))


@pytest.fixture
def local_library(make_site, api):
    """Return a library for tests that do not depend on the storage."""
    return _fresh(api, MediaLibrary(make_site(**_settings(api, **TIMEOUT))))


def _settings(api, **more):
    return settings(
        "site",
        **{
            "kinto.attachment.unsplash.api_url": api.url,
            "kinto.attachment.unsplash.access_key": api.key,
            **more,
        },
    )


def _fresh(api, library):
    """Reset the fake API to one photo, and return the library."""
    api.on_photo = api.on_download = api.on_image = None
    api.add(PHOTO, jpeg(240, 160, orientation=6), author="Annie Spratt")
    return library


class TestImport:
    @pytest.mark.parametrize(
        "site", ["cross-site", "Cross-Site ", "same-site", "same-origin", "none"]
    )
    def test_refuses_cross_site_get_requests(self, library, api, site):
        """A browser sends the user's credentials for an ``<img>`` on a page of another site too."""
        headers = {**ALICE, "Sec-Fetch-Site": site}
        before = len(api.tracked), library.waiting
        if "cross" in site.lower():
            response = library.http.get(f"/unsplash/{PHOTO}", headers=headers, status=403)
            assert (response.json["errno"], response.json["code"]) == (121, 403)
            assert field_of(response.json) == "Sec-Fetch-Site"
            assert response.headers["Cache-Control"] == "no-store"
            assert before == (len(api.tracked), library.waiting)
        else:
            response = library.http.get(f"/unsplash/{PHOTO}", headers=headers, status=201)
            assert response.headers["Cache-Control"] == "no-store"
        library.http.post(f"/unsplash/{PHOTO}", headers=headers, status=201)

    @pytest.mark.parametrize("method", ["get", "post"])
    def test_responds_like_an_upload(self, library, api, method):
        before = len(api.tracked)
        call = getattr(library.http, method)
        facts = call(f"/unsplash/{PHOTO}", headers=ALICE, status=201).json
        content = jpeg(240, 160, orientation=6)
        assert facts == {
            "id": facts["id"],
            "extension": "jpg",
            "fileName": f"{PHOTO}.jpg",
            "mimeType": "image/jpeg",
            "size": len(content),
            "type": "image",
            "source": "unsplash",
            "externalId": PHOTO,
            "url": f"original/{facts['id']}.jpg",
            "height": 240,
            "width": 160,
        }
        assert api.tracked[before:] == [PHOTO]
        data = library.describe(facts)["data"]
        assert data["title"] == "Photo by Annie Spratt on Unsplash"
        assert library.get(facts["url"]).body == content

    def test_keeps_a_title_that_is_given(self, library):
        facts = library.http.get(f"/unsplash/{PHOTO}", headers=ALICE).json
        assert library.describe(facts, title="Mine")["data"]["title"] == "Mine"

    def test_save_creates_the_object_at_once(self, library):
        facts = library.http.get(f"/unsplash/{PHOTO}?save=1", headers=ALICE).json
        data = library.get(f"content/_media/{facts['id']}").json["data"]
        assert data["title"] == "Photo by Annie Spratt on Unsplash"
        assert facts.items() <= data.items()

    def test_cannot_be_forged_by_an_editor(self, library):
        facts = library.upload()
        for name, value in (("source", "unsplash"), ("externalId", PHOTO)):
            assert (
                library.describe({**facts, name: value}, status=400)["details"][0]["name"] == name
            )

    def test_needs_permission(self, local_library, api):
        before = len(api.requests)
        local_library.get(f"unsplash/{PHOTO}", status=401)
        assert len(api.requests) == before

    def test_access_key_stays_secret(self, local_library, api):
        api.on_photo = says(401, b'{"errors": ["OAuth error"]}')
        response = local_library.get(f"unsplash/{PHOTO}", headers=ALICE, status=502)
        assert api.key not in response.text

    def test_head_requests_import_nothing(self, local_library, api):
        before = len(api.requests)
        local_library.http.head(f"/unsplash/{PHOTO}", headers=ALICE, status=405)
        assert len(api.requests) == before

    def test_obeys_the_settings_of_the_collection(self, make_site, api):
        rules = {
            "kinto.attachment.resources.site.media.extensions": "png",
            "kinto.attachment.resources.site.media.max_size": "100",
        }
        library = _fresh(api, MediaLibrary(make_site(**_settings(api, **rules))))
        library.get(f"unsplash/{PHOTO}", headers=ALICE, status=400)
        rules["kinto.attachment.resources.site.media.extensions"] = "any"
        library = _fresh(api, MediaLibrary(make_site(**_settings(api, **rules))))
        library.get(f"unsplash/{PHOTO}", headers=ALICE, status=413)

    def test_needs_an_access_key(self, make_site):
        library = MediaLibrary(make_site(**settings("site")))
        library.get(f"unsplash/{PHOTO}", headers=ALICE, status=404)


class TestRefused:
    """Each failure has its own status, and leaves no file behind."""

    def import_(self, library, status, photo=PHOTO):
        """Import a photo; check that it fails with the status and leaves no file."""
        before = library.keys
        response = library.get(f"unsplash/{photo}", headers=ALICE, status=status)
        assert library.keys == before
        assert response.json["code"] == status
        return response

    def test_unknown_photo(self, local_library):
        self.import_(local_library, 404, "unknown-id0")

    @pytest.mark.parametrize("status", [403, 429])
    def test_rate_limit(self, local_library, api, status):
        api.on_photo = limited(status)
        response = self.import_(local_library, 429)
        assert 0 < int(response.headers["Retry-After"]) <= 3600

    def test_api_error(self, local_library, api):
        api.on_photo = says(500)
        self.import_(local_library, 502)

    def test_image_that_is_cut_off(self, local_library, api):
        api.on_image = truncated(jpeg())
        self.import_(local_library, 502)

    def test_image_at_a_private_address(self, local_library, api):
        api.on_image = redirects("http://169.254.169.254/latest/meta-data")
        self.import_(local_library, 502)
        api.on_image = redirects("http://127.0.0.1:1/")
        self.import_(local_library, 502)

    def test_response_that_is_no_image(self, local_library, api):
        api.add(PHOTO, b"this is no image, whatever its type says")
        self.import_(local_library, 502)

    def test_server_that_is_too_slow(self, local_library, api):
        api.on_image = silent
        self.import_(local_library, 504)
        head = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: 999\r\n\r\n"
        api.on_image = drips(head, 0.2)
        self.import_(local_library, 504)

    def test_image_that_is_too_large(self, make_site, api):
        small = {"kinto.attachment.unsplash.max_size": "1000"}
        library = _fresh(api, MediaLibrary(make_site(**_settings(api, **small))))
        api.add(PHOTO, jpeg(1000, 1000))
        self.import_(library, 413)
