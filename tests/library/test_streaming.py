"""Large files of the media library, which are sent on to the storage while they arrive: the facts
are those that a server finds that has the whole file."""

import struct

import pytest

from tests.support import images
from tests.support.library import MediaLibrary, jpeg, settings
from tests.support.servers.unsplash import FakeUnsplash
from tests.support.site import ALICE
from tests.support.streaming import LARGE, content_of, uploads, watched

PHOTO = "Dwu85P9SOIk"


def tiff() -> bytes:
    """An image whose size and orientation are at its end, as most programs write them."""
    entries = [(256, 3, 1, 320), (257, 3, 1, 200), (274, 3, 1, 6)]
    directory = struct.pack("<H", len(entries))
    directory += b"".join(struct.pack("<HHIHxx", *entry) for entry in entries) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + LARGE) + bytes(LARGE) + directory


def webp() -> bytes:
    """An image that is turned by the EXIF at its end."""
    exif = b"MM\0*" + bytes([0, 0, 0, 8, 0, 1, 1, 18, 0, 3, 0, 0, 0, 1, 0, 6, 0, 0])
    exif += bytes(len(exif) % 2)
    pixels = b"VP8L" + struct.pack("<I", LARGE + 1) + bytes(LARGE + 1)
    parts = [images.vp8x(320, 200, flags=8), pixels, b"EXIF" + struct.pack("<I", len(exif)) + exif]
    return images.riff(b"".join(parts))


CONTENTS = {
    "photo.jpg": lambda: jpeg(120, 80, orientation=6) + bytes(LARGE),
    "scan.tiff": tiff,
    "photo.webp": webp,
    "text.png": lambda: b"a text, and nothing else\n" * (LARGE // 20),
    "report.pdf": lambda: content_of(LARGE),
    "no-image.tif": lambda: b"II*\0" + bytes(LARGE),
}


@pytest.fixture(params=["moto", "gcs"])
def files(request):
    return request.param


@pytest.mark.parametrize("filename", CONTENTS)
def test_facts(make_site, library, filename):
    content = CONTENTS[filename]()
    spooled = MediaLibrary(make_site("memory", "local", **settings("site")))
    with watched(library.site.storage) as seen:
        facts = library.upload(content, filename)
    assert "finish" in seen
    expected = spooled.upload(content, filename)
    assert facts == {**expected, "id": facts["id"], "url": facts["url"]}
    assert library.get(facts["url"], headers=ALICE).body == content
    described = library.describe(facts)["data"]
    assert described["width"] == expected["width"]


@pytest.mark.parametrize("filename, kind", [("photo.jpg", "file"), ("report.pdf", "image")])
def test_another_type_than_the_form_says(library, filename, kind):
    before = library.keys
    library.upload(CONTENTS[filename](), filename, type=kind, status=400)
    assert library.keys == before
    assert uploads(library.site) == []


def test_a_photo_of_unsplash(make_site, kinto, files):
    content = jpeg(240, 160, orientation=6) + bytes(LARGE)
    with FakeUnsplash() as api:
        own = {"unsplash.api_url": api.url, "unsplash.access_key": api.key}
        own = {f"kinto.attachment.{name}": value for name, value in own.items()}
        library = MediaLibrary(make_site(kinto, files, **settings("site", **own)))
        api.add(PHOTO, content, author="Annie Spratt")
        with watched(library.site.storage) as seen:
            answer = library.http.get(f"/unsplash/{PHOTO}", headers=ALICE, status=201)
    facts = answer.json
    assert "finish" in seen
    assert (facts["width"], facts["height"], facts["size"]) == (160, 240, len(content))
    assert facts["mimeType"] == "image/jpeg"
