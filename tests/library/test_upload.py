"""``POST /media``: the upload of a file to the media library."""

from hashlib import sha256

import pytest
from PIL import Image

from tests.support import images
from tests.support.library import MediaLibrary, field_of, jpeg, settings
from tests.support.site import ALICE
from tests.support.threads import at_once

TEXT = b"a text, and nothing else\n"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="30" height="20"><rect/></svg>'


class TestUpload:
    def test_responds_with_the_facts(self, library):
        content = jpeg(120, 80, orientation=6)
        facts = library.upload(content)
        assert facts == {
            "id": facts["id"],
            "extension": "jpg",
            "fileName": "photo.jpg",
            "mimeType": "image/jpeg",
            "size": len(content),
            "type": "image",
            "source": "disk",
            "externalId": "",
            "url": f"original/{facts['id']}.jpg",
            "height": 120,
            "width": 80,
        }

    def test_files_that_are_no_images_have_no_dimensions(self, library):
        facts = library.upload(TEXT, "notes.doc")
        assert facts["type"] == "file"
        assert (facts["width"], facts["height"]) == (0, 0)
        assert facts["mimeType"] == "application/msword"
        assert facts["url"] == f"original/{facts['id']}.doc"

    @pytest.mark.parametrize(
        ("format", "mimetype"),
        [("PNG", "image/png"), ("GIF", "image/gif"), ("WEBP", "image/webp"), ("AVIF", "image/avif"),
         ("TIFF", "image/tiff"), ("BMP", "image/bmp"), ("JPEG", "image/jpeg")],
    )  # fmt: skip
    def test_type_is_detected_from_the_bytes(self, make_site, format, mimetype):
        library = MediaLibrary(make_site("memory", "local", **settings("site")))
        content = images.encode(Image.new("RGB", (30, 20)), format)
        facts = library.upload(content, "wrong.txt")
        assert (facts["type"], facts["mimeType"]) == ("image", mimetype)
        assert (facts["width"], facts["height"]) == (30, 20)
        assert facts["extension"] == "txt"

    def test_svg_is_an_image_and_html_is_not(self, library):
        assert library.upload(SVG, "a.svg")["type"] == "image"
        assert library.upload(b"<html><body>", "a.svg")["type"] == "file"

    def test_a_text_named_png_is_no_image(self, library):
        facts = library.upload(TEXT, "a.png")
        assert (facts["type"], facts["mimeType"]) == ("file", "application/octet-stream")

    def test_missing_extension_is_derived_from_the_type(self, make_site):
        any_name = {"kinto.attachment.extensions": "any"}
        library = MediaLibrary(make_site(**settings("site", **any_name)))
        assert library.upload(jpeg(), "photo")["url"].endswith(".jpg")
        assert library.upload(b"\0\1\2", "thing")["url"].endswith(".bin")

    @pytest.mark.parametrize("kind", ["image", "file"])
    def test_type_may_be_given(self, library, kind):
        content = jpeg() if kind == "image" else TEXT
        assert library.upload(content, "a.jpg", type=kind)["type"] == kind

    @pytest.mark.parametrize(
        ("content", "kind"), [(jpeg(), "file"), (TEXT, "image"), (TEXT, "video"), (TEXT, "")]
    )
    def test_wrong_type_is_refused(self, library, content, kind):
        before = library.keys
        response = library.upload(content, "a.jpg", type=kind, status=400)
        assert field_of(response) == "type"
        assert library.keys == before

    def test_save_creates_the_object_at_once(self, library):
        facts = library.upload(save="1")
        data = library.get(f"content/_media/{facts['id']}").json["data"]
        assert facts.items() <= data.items()
        assert data["attachment"]["hash"] == sha256(jpeg()).hexdigest()
        assert facts["id"] not in library.waiting

    @pytest.mark.parametrize("fields", [{}, {"save": "0"}], ids=["default", "0"])
    def test_creates_no_object_unless_asked(self, library, fields):
        facts = library.upload(**fields)
        assert facts["id"] in library.waiting
        library.get(f"content/_media/{facts['id']}", status=404)
        library.get(facts["url"], status=404)

    @pytest.mark.parametrize(
        ("fields", "name"), [({"save": "perhaps"}, "save"), ({"title": "a"}, "title")]
    )
    def test_other_fields_are_refused(self, library, fields, name):
        assert field_of(library.upload(status=400, **fields)) == name

    def test_needs_a_file(self, library):
        mimetype, body = library.http.encode_multipart([("type", "image")], [])
        headers = {**ALICE, "Content-Type": mimetype}
        response = library.http.post("/media", body, headers=headers, status=400).json
        assert response["message"] == "File missing."
        assert field_of(response) == "file"

    def test_refuses_other_extensions(self, make_site):
        only_images = {"kinto.attachment.resources.site.media.extensions": "images"}
        library = MediaLibrary(make_site("memory", "local", **settings("site", **only_images)))
        assert field_of(library.upload(TEXT, "a.exe", status=400)) == "file"
        library.upload()

    def test_refuses_files_over_the_limit(self, make_site):
        small = {"kinto.attachment.resources.site.media.max_size": "1000"}
        library = MediaLibrary(make_site("memory", "local", **settings("site", **small)))
        library.upload(b"x" * 1000, "a.txt")
        assert "1001 bytes" in library.upload(b"x" * 1001, "a.txt", status=413)["message"]
        library.upload(b"x" * 5_000_000, "a.txt", status=413)

    def test_needs_permission_to_create(self, library):
        library.upload(headers={}, status=401)

    def test_a_body_that_is_no_form_goes_to_the_media_store(self, library):
        headers = {**ALICE, "Content-Type": "image/jpeg"}
        response = library.http.post("/media", jpeg(), headers=headers)
        assert response.text == sha256(jpeg()).hexdigest()

    def test_is_a_400_without_a_library(self, make_site):
        site = make_site("memory", "local")
        mimetype, body = site.http.encode_multipart([], [("file", "a.jpg", jpeg())])
        headers = {**ALICE, "Content-Type": mimetype}
        site.http.post("/media", body, headers=headers, status=400)
        site.http.get("/content/_media", headers=ALICE, status=404)

    def test_is_a_404_before_library_init(self, make_site):
        site = make_site("memory", "local", **settings("nobody-made-it"))
        mimetype, body = site.http.encode_multipart([], [("file", "a.jpg", jpeg())])
        headers = {**ALICE, "Content-Type": mimetype}
        response = site.http.post("/media", body, headers=headers, status=404)
        assert "library init" in response.json["message"]
        assert "library init" in site.http.get("/content/_media", status=404).json["message"]

    def test_many_at_the_same_time(self, library):
        responses = at_once(12, lambda: library.upload(save="yes"))
        assert len({facts["id"] for facts in responses}) == 12
        for facts in responses:
            assert library.get(facts["url"]).body == jpeg()
