"""Photos of Unsplash in the media library, over HTTP, from an imitation of its API."""

import pytest

from tests.support.library import Shelf, jpeg, settings
from tests.support.servers import unsplash as imitation
from tests.support.servers.unsplash import Unsplash
from tests.support.site import ALICE

PHOTO = "Dwu85P9SOIk"
SECONDS = {"kinto.attachment.unsplash.timeout": "3"}


@pytest.fixture(scope="module")
def api():
    with Unsplash() as server:
        yield server


@pytest.fixture(params=["local", "seaweedfs"])
def files(request):
    """Nothing here depends on more of the storage than the other suites check on each."""
    return request.param


@pytest.fixture
def shelf(make_site, kinto, files, api):
    site = make_site(kinto, files, **_settings(api))
    return _fresh(api, Shelf(site))


@pytest.fixture
def quick(make_site, api):
    """One is enough, where nothing is stored."""
    return _fresh(api, Shelf(make_site(**_settings(api, **SECONDS))))


def _settings(api, **more):
    return settings(
        "site",
        **{
            "kinto.attachment.unsplash.api_url": api.url,
            "kinto.attachment.unsplash.access_key": api.key,
            **more,
        },
    )


def _fresh(api, shelf):
    api.on_photo = api.on_download = api.on_image = None
    api.add(PHOTO, jpeg(240, 160, orientation=6), author="Annie Spratt")
    return shelf


def field_of(answer):
    return answer.json["details"][0]["name"]


class TestImport:
    @pytest.mark.parametrize("method", ["get", "post"])
    def test_answers_as_an_upload(self, shelf, api, method):
        before = len(api.tracked)
        call = getattr(shelf.http, method)
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
        data = shelf.describe(facts)["data"]
        assert data["title"] == "Photo by Annie Spratt on Unsplash"
        assert shelf.get(facts["url"]).body == content

    def test_keeps_a_title_that_is_given(self, shelf):
        facts = shelf.http.get(f"/unsplash/{PHOTO}", headers=ALICE).json
        assert shelf.describe(facts, title="Mine")["data"]["title"] == "Mine"

    def test_saves_at_once_if_asked(self, shelf):
        facts = shelf.http.get(f"/unsplash/{PHOTO}?save=1", headers=ALICE).json
        data = shelf.get(f"content/_media/{facts['id']}").json["data"]
        assert data["title"] == "Photo by Annie Spratt on Unsplash"
        assert facts.items() <= data.items()

    def test_cannot_be_said_by_an_editor(self, shelf):
        facts = shelf.upload()
        for name, value in (("source", "unsplash"), ("externalId", PHOTO)):
            assert shelf.describe({**facts, name: value}, status=400)["details"][0]["name"] == name

    def test_needs_permission(self, quick, api):
        before = len(api.requests)
        quick.get(f"unsplash/{PHOTO}", status=401)
        assert len(api.requests) == before

    def test_key_stays_secret(self, quick, api):
        api.on_photo = imitation.says(401, b'{"errors": ["OAuth error"]}')
        answer = quick.get(f"unsplash/{PHOTO}", headers=ALICE, status=502)
        assert api.key not in answer.text

    def test_is_asked_for_by_get_or_post_only(self, quick, api):
        before = len(api.requests)
        quick.http.head(f"/unsplash/{PHOTO}", headers=ALICE, status=405)
        assert len(api.requests) == before

    def test_keeps_to_the_rules_of_its_collection(self, make_site, api):
        rules = {
            "kinto.attachment.resources.site.media.extensions": "png",
            "kinto.attachment.resources.site.media.max_size": "100",
        }
        shelf = _fresh(api, Shelf(make_site(**_settings(api, **rules))))
        shelf.get(f"unsplash/{PHOTO}", headers=ALICE, status=400)
        rules["kinto.attachment.resources.site.media.extensions"] = "any"
        shelf = _fresh(api, Shelf(make_site(**_settings(api, **rules))))
        shelf.get(f"unsplash/{PHOTO}", headers=ALICE, status=413)

    def test_is_not_there_without_a_key(self, make_site):
        shelf = Shelf(make_site(**settings("site")))
        shelf.get(f"unsplash/{PHOTO}", headers=ALICE, status=404)


class TestRefused:
    """Each way in which it can go wrong is told apart, and leaves nothing behind."""

    def import_(self, shelf, status, photo=PHOTO):
        before = shelf.keys
        answer = shelf.get(f"unsplash/{photo}", headers=ALICE, status=status)
        assert shelf.keys == before
        assert answer.json["code"] == status
        return answer

    def test_unknown(self, quick):
        self.import_(quick, 404, "nobodyhasit")

    @pytest.mark.parametrize("status", [403, 429])
    def test_too_often(self, quick, api, status):
        api.on_photo = imitation.limited(status)
        answer = self.import_(quick, 429)
        assert 0 < int(answer.headers["Retry-After"]) <= 3600

    def test_not_well(self, quick, api):
        api.on_photo = imitation.says(500)
        self.import_(quick, 502)

    def test_cut_off(self, quick, api):
        api.on_image = imitation.truncated(jpeg())
        self.import_(quick, 502)

    def test_at_a_private_address(self, quick, api):
        api.on_image = imitation.redirects("http://169.254.169.254/latest/meta-data")
        self.import_(quick, 502)
        api.on_image = imitation.redirects("http://127.0.0.1:1/")
        self.import_(quick, 502)

    def test_no_image(self, quick, api):
        api.add(PHOTO, b"this is no image, whatever its type says")
        self.import_(quick, 502)

    def test_too_slow(self, quick, api):
        api.on_image = imitation.silent
        self.import_(quick, 504)
        head = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: 999\r\n\r\n"
        api.on_image = imitation.drips(head, 0.2)
        self.import_(quick, 504)

    def test_too_large(self, make_site, api):
        small = {"kinto.attachment.unsplash.max_size": "1000"}
        shelf = _fresh(api, Shelf(make_site(**_settings(api, **small))))
        api.add(PHOTO, jpeg(1000, 1000))
        self.import_(shelf, 413)
