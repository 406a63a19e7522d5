"""Resized images over HTTP: those of the media library, and those attached to any record."""

import time
from hashlib import sha256

import pytest
from PIL import Image

from tests.conftest import FILE_STORAGES
from tests.support import images
from tests.support.library import MediaLibrary, jpeg, settings
from tests.support.site import ALICE

SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="30" height="20"><rect/></svg>'
LANCZOS = Image.Resampling.LANCZOS
ANY = {"kinto.attachment.extensions": "any"}


@pytest.fixture(params=FILE_STORAGES)
def files(request):
    return request.param


class TestSize:
    @pytest.mark.parametrize(
        ("size", "expected"),
        [
            ("60x0", (60, 40)),
            ("0x40", (60, 40)),
            ("60x60", (60, 60)),
            ("30x60", (30, 60)),
            ("500x0", (120, 80)),
            ("500x500", (120, 80)),
            ("500x40", (120, 40)),
            ("0x0", (120, 80)),
            ("7x0", (7, 5)),
            ("1x1", (1, 1)),
        ],
    )
    def test_is_as_requested(self, local_library, size, expected):
        data = local_library.add()
        for name in (f"{data['id']}.jpg", f"{data['id']}/any name.jpg"):
            response = local_library.get(f"image/{size}/{name}")
            assert response.content_type == "image/jpeg"
            assert images.size_of(response.body) == expected

    @pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "WEBP"])
    def test_has_no_more_bytes_than_the_original(self, make_site, format):
        library = MediaLibrary(make_site(**settings("site", **ANY)))
        picture = images.corners(300, 200)
        picture = picture.quantize(8) if format in ("PNG", "GIF") else picture
        content = images.encode(picture, format, quality=10)
        extension = {"JPEG": "jpg"}.get(format, format.lower())
        data = library.add(content, f"a.{extension}")
        response = library.get(f"image/5000x0/{data['id']}.{extension}")
        assert len(response.body) <= len(content)
        assert images.psnr(images.decode(response.body), images.decode(content)) > 40
        smaller = library.get(f"image/150x0/{data['id']}.{extension}")
        assert images.decode(smaller.body).mode == images.decode(content).mode

    def test_works_on_every_storage(self, library):
        data = library.add(jpeg(400, 300))
        small = library.get(f"image/40x0/{data['id']}.jpg")
        assert images.size_of(small.body) == (40, 30)
        assert library.get(f"image/40x0/{data['id']}.jpg").body == small.body
        assert library.get(f"image/0x0/{data['id']}.jpg").body == jpeg(400, 300)
        head = library.http.head(f"/image/40x0/{data['id']}.jpg")
        assert head.content_length == len(small.body)

    def test_respects_the_orientation(self, local_library):
        data = local_library.add(jpeg(120, 80, orientation=6))
        assert images.size_of(local_library.get(f"image/40x0/{data['id']}.jpg").body) == (40, 60)

    def test_respects_an_orientation_at_the_end_of_the_file(self, make_site, files):
        """A WebP file has its EXIF data, with the orientation of the photo, at its end."""
        library = MediaLibrary(make_site("memory", files, **settings("site", **ANY)))
        exif = Image.Exif()
        exif[0x0112] = 6
        content = images.encode(images.photo(1600, 1200), "WEBP", quality=100, exif=exif)
        assert len(content) > 512 * 1024
        data = library.add(content, "a.webp")
        assert (data["width"], data["height"]) == (1200, 1600)
        assert images.size_of(library.get(f"image/300x0/{data['id']}.webp").body) == (300, 400)

    @pytest.mark.parametrize("size", ["320x0", "0x200", "200x200", "300x100"])
    def test_looks_like_the_result_of_pillow(self, local_library, size):
        content = images.encode(images.photo(800, 600), "JPEG", quality=95)
        original, data = images.decode(content), local_library.add(content)
        result = images.decode(local_library.get(f"image/{size}/{data['id']}.jpg?format=png").body)
        width, height = result.size
        scale = max(width / 800, height / 600)
        box = width / scale, height / scale
        left, top = (800 - box[0]) / 2, (600 - box[1]) / 2
        expected = original.resize(result.size, LANCZOS, (left, top, left + box[0], top + box[1]))
        assert images.psnr(result, expected) > 28

    @pytest.mark.parametrize(
        ("path", "status"),
        [
            ("image/999999x0/{id}.jpg", 400),
            ("image/axb/{id}.jpg", 400),
            ("image/10x10/{id}.png", 404),
            ("image/10x10/{id}", 404),
            ("image/10x10/2b2b2b2b-0000-4000-8000-000000000000.jpg", 404),
            ("original/{id}.png", 404),
            ("image/10x10/{id}.jpg?format=tiff", 400),
            ("original/{id}.jpg?format=webp", 400),
            ("image/1920x0/_media-5472384.jpg", 400),
            ("image/10x10/{id}/x.jpg/variant/nobody", 404),
        ],
    )
    def test_refuses_invalid_paths(self, local_library, path, status):
        data = local_library.add()
        local_library.get(path.format(**data), status=status)

    def test_files_that_are_no_images_cannot_be_resized(self, local_library):
        data = local_library.add(b"a text", "a.doc")
        assert local_library.get(f"image/0x0/{data['id']}.doc").body == b"a text"
        response = local_library.get(f"image/10x0/{data['id']}.doc", status=400)
        assert "application/msword" in response.json["message"]

    def test_svg_is_served_unchanged(self, local_library):
        data = local_library.add(SVG, "a.svg")
        response = local_library.get(f"image/10x0/{data['id']}.svg")
        assert response.body == SVG
        assert response.content_type == "image/svg+xml"
        assert "sandbox" in response.headers["Content-Security-Policy"]
        local_library.get(f"image/10x0/{data['id']}.svg?format=png", status=400)
        assert response.headers["X-Content-Type-Options"] == "nosniff"

    def test_refuses_formats_that_cannot_be_resized(self, local_library):
        data = local_library.add(images.encode(Image.new("RGB", (30, 20)), "TIFF"), "a.tiff")
        response = local_library.get(f"image/10x0/{data['id']}.tiff", status=400)
        assert "cannot be resized: request 0x0" in response.json["message"]
        local_library.get(f"original/{data['id']}.tiff")

    def test_may_be_limited_to_a_list(self, make_site):
        sizes = {"kinto.attachment.images.sizes": "60x0 30x30"}
        library = MediaLibrary(make_site(**settings("site", **sizes)))
        data = library.add()
        for size, status in (("60x0", 200), ("30x30", 200), ("0x0", 200), ("61x0", 400)):
            library.get(f"image/{size}/{data['id']}.jpg", status=status)

    def test_may_be_limited_to_multiples_of_a_step(self, make_site):
        library = MediaLibrary(
            make_site(**settings("site", **{"kinto.attachment.images.step": "20"}))
        )
        data = library.add()
        for size, status in (("60x0", 200), ("40x20", 200), ("0x0", 200), ("50x0", 400)):
            library.get(f"image/{size}/{data['id']}.jpg", status=status)


class TestFormat:
    @pytest.mark.parametrize("format", ["webp", "avif", "jpeg", "png"])
    def test_may_be_requested(self, local_library, format):
        data = local_library.add()
        response = local_library.get(f"image/60x0/{data['id']}.jpg?format={format}")
        assert response.content_type == f"image/{format}"
        assert images.decode(response.body).format == format.upper()
        extension = {"jpeg": "jpg"}.get(format, format)
        assert f"photo-60x40.{extension}" in response.headers["Content-Disposition"]

    @pytest.mark.parametrize("path", ["original/{id}.jpg", "image/60x0/{id}.jpg"])
    def test_is_not_hidden_by_bidirectional_characters(self, local_library, path):
        data = local_library.add(filename="a\u202egnp\u2069.jpg")
        disposition = local_library.get(path.format(**data)).headers["Content-Disposition"]
        assert disposition.startswith('inline; filename="agnp')
        assert "%E2%80%AE" not in disposition

    @pytest.mark.parametrize("format", ["PNG", "GIF", "WEBP", "AVIF"])
    def test_is_that_of_the_original_by_default(self, make_site, format):
        library = MediaLibrary(make_site(**settings("site", **ANY)))
        content = images.encode(Image.new("RGB", (120, 80), (200, 30, 30)), format)
        data = library.add(content, f"a.{format.lower()}")
        response = library.get(f"image/60x0/{data['id']}.{format.lower()}")
        assert (images.decode(response.body).format, images.size_of(response.body)) == (
            format,
            (60, 40),
        )

    def test_is_not_negotiated_by_default(self, local_library):
        data = local_library.add()
        accept = {"Accept": "image/avif,image/webp,*/*"}
        response = local_library.get(f"image/60x0/{data['id']}.jpg", headers=accept)
        assert response.content_type == "image/jpeg"
        assert response.headers["Vary"] == "Origin"

    @pytest.mark.parametrize(
        ("accept", "mimetype"),
        [
            ("image/avif,image/webp,image/apng,*/*;q=0.8", "image/avif"),
            ("image/webp,*/*", "image/webp"),
            ("image/avif;q=0,image/webp", "image/webp"),
            ("*/*", "image/jpeg"),
            ("nonsense", "image/jpeg"),
            ("", "image/jpeg"),
        ],
    )
    def test_is_negotiated(self, make_site, accept, mimetype):
        negotiate = {"kinto.attachment.images.negotiate": "true"}
        library = MediaLibrary(make_site(**settings("site", **negotiate)))
        data = library.add()
        response = library.get(f"image/60x0/{data['id']}.jpg", headers={"Accept": accept})
        assert response.content_type == mimetype
        assert response.headers["Vary"] == "Accept, Origin"
        explicit = library.get(
            f"image/60x0/{data['id']}.jpg?format=png", headers={"Accept": accept}
        )
        assert explicit.content_type == "image/png"

    @pytest.mark.parametrize("source", ["GIF", "WEBP"])
    @pytest.mark.parametrize(
        ("accept", "mimetype"),
        [("image/avif,image/webp,*/*", "image/webp"), ("image/avif,*/*", None), ("*/*", None)],
    )
    def test_keeps_the_motion(self, make_site, source, accept, mimetype):
        options = {"kinto.attachment.images.negotiate": "true", **ANY}
        library = MediaLibrary(make_site(**settings("site", **options)))
        content, extension = images.animation(source, 90, 60, 5), source.lower()
        data = library.add(content, f"a.{extension}")
        response = library.get(f"image/45x0/{data['id']}.{extension}", headers={"Accept": accept})
        assert response.content_type == (mimetype or f"image/{extension}")
        result = images.decode(response.body)
        assert (result.n_frames, result.size) == (5, (45, 30))

    def test_keeps_the_motion_of_an_animated_png_in_the_original(self, make_site):
        library = MediaLibrary(make_site(**settings("site", **ANY)))
        content = images.animation("PNG", 90, 60, 5)
        data = library.add(content, "a.png")
        assert library.get(f"image/0x0/{data['id']}.png").body == content
        small = images.decode(library.get(f"image/45x0/{data['id']}.png").body)
        assert (getattr(small, "n_frames", 1), small.size) == (1, (45, 30))


class TestCaching:
    def test_public_images_are_immutable(self, local_library):
        data = local_library.add()
        for path in (f"image/60x0/{data['id']}.jpg", data["url"]):
            response = local_library.get(path)
            assert response.headers["Cache-Control"] == "public, max-age=31536000, immutable"
            etag = response.headers["ETag"]
            not_modified = local_library.get(path, headers={"If-None-Match": etag}, status=304)
            assert not_modified.headers["ETag"] == etag

    def test_responses_to_authenticated_requests_are_private(self, local_library):
        data = local_library.add()
        for path in (f"image/60x0/{data['id']}.jpg", data["url"]):
            response = local_library.get(path, headers=ALICE)
            assert response.headers["Cache-Control"] == "private, max-age=31536000, immutable"

    def test_etag_is_the_hash_of_the_bytes(self, local_library):
        data = local_library.add()
        response = local_library.get(f"image/60x0/{data['id']}.jpg")
        assert response.headers["ETag"] == f'"{sha256(response.body).hexdigest()}"'
        assert response.headers["Repr-Digest"]

    def test_ranges_apply_to_the_variant(self, local_library):
        data = local_library.add()
        path = f"image/60x0/{data['id']}.jpg"
        whole = local_library.get(path).body
        part = local_library.get(path, headers={"Range": "bytes=5-9"}, status=206)
        assert part.body == whole[5:10]


class TestPermission:
    def test_to_read_the_library_is_required(self, make_library):
        library = make_library()
        library = MediaLibrary(library.site, (), ())
        data = library.add()
        acl = {"permissions": {"read": []}}
        library.http.patch_json(library.uri, acl, headers=ALICE)
        path = f"image/60x0/{data['id']}.jpg"
        library.get(path, status=401)
        library.get(path, headers=ALICE)
        library.get(path, status=401)  # even after a response to another user
        library.get(data["url"], status=401)


class TestTrim:
    VARIANTS = [{"name": "corner", "trim": {"top": 0, "left": 0, "width": 60, "height": 40}}]

    def image(self) -> bytes:
        """Return a blue PNG whose top left quarter is red."""
        image = Image.new("RGB", (120, 80), (0, 0, 255))
        image.paste((255, 0, 0), (0, 0, 60, 40))
        return images.encode(image, "PNG")

    def test_selects_a_part_of_the_image(self, library):
        data = library.add(self.image(), "a.png", variants=self.VARIANTS)
        path = f"image/30x0/{data['id']}/any.png/variant/corner"
        result = images.decode(library.get(path).body)
        assert result.size == (30, 20)
        assert result.convert("RGB").getextrema() == ((255, 255), (0, 0), (0, 0))
        whole = images.decode(library.get(f"image/0x0/{data['id']}/any.png/variant/corner").body)
        assert whole.size == (60, 40)

    def test_last_modified_is_that_of_the_record(self, local_library):
        data = local_library.add(self.image(), "a.png", variants=self.VARIANTS)
        path = f"image/30x0/{data['id']}/any.png/variant/corner"
        other = [{"name": "corner", "trim": {"top": 9, "left": 9, "width": 30, "height": 30}}]
        local_library.get(path)
        time.sleep(1.1)
        uri = f"/content/_media/{data['id']}"
        local_library.http.patch_json(uri, {"variants": other}, headers=ALICE)
        date = local_library.get(path).headers["Last-Modified"]
        time.sleep(1.1)
        local_library.http.patch_json(uri, {"variants": self.VARIANTS}, headers=ALICE)
        local_library.get(path, headers={"If-Modified-Since": date}, status=200)

    def test_may_change(self, local_library):
        data = local_library.add(self.image(), "a.png", variants=self.VARIANTS)
        path = f"image/0x0/{data['id']}/any.png/variant/corner"
        assert "immutable" not in local_library.get(path).headers["Cache-Control"]
        trim = {"top": 40, "left": 60, "width": 20, "height": 10}
        body = {"variants": [{"name": "corner", "trim": trim}]}
        local_library.http.patch_json(f"/content/_media/{data['id']}", body, headers=ALICE)
        result = images.decode(local_library.get(path).body)
        assert result.size == (20, 10)
        assert result.convert("RGB").getextrema() == ((0, 0), (0, 0), (255, 255))


class TestAttachment:
    """``GET {record}/attachment/{width}x{height}``, for any record with an image."""

    def test_can_be_resized(self, site):
        record = site.collection().record()
        record.upload(jpeg(), "photo.jpg")
        response = site.http.get(f"{record.attachment_uri}/60x0", headers=ALICE)
        assert images.size_of(response.body) == (60, 40)
        assert response.headers["Cache-Control"] == "private, no-cache"
        whole = site.http.get(f"{record.attachment_uri}/0x0", headers=ALICE)
        assert whole.body == jpeg()
        site.http.get(f"{record.attachment_uri}/60x0", status=401)
        record.detach()
        assert record.collection.keys == []

    def test_replacing_the_file_replaces_its_variants(self, make_site):
        site = make_site()
        record = site.collection().record()
        record.upload(jpeg(), "photo.jpg")
        uri = f"{record.attachment_uri}/60x0"
        before = [stat.key for stat in site.storage.list("private/_variants")]
        first = site.http.get(uri, headers=ALICE)
        record.upload(jpeg(80, 120), "photo.jpg")
        second = site.http.get(uri, headers=ALICE)
        assert (images.size_of(first.body), images.size_of(second.body)) == ((60, 40), (60, 90))
        assert first.headers["ETag"] != second.headers["ETag"]
        record.detach()
        assert [stat.key for stat in site.storage.list("private/_variants")] == before

    def test_works_in_the_default_bucket(self, make_site):
        site = make_site()
        uri = "/buckets/default/collections/c/records/photo/attachment"
        mimetype, body = site.http.encode_multipart([], [("attachment", "a.jpg", jpeg())])
        site.http.post(uri, body, headers={**ALICE, "Content-Type": mimetype})
        assert images.size_of(site.http.get(f"{uri}/60x0", headers=ALICE).body) == (60, 40)

    def test_that_is_no_image_is_refused(self, make_site):
        site = make_site()
        record = site.collection().record()
        site.http.get(f"{record.attachment_uri}/60x0", headers=ALICE, status=404)
        record.upload(b"text", "photo.txt")
        site.http.get(f"{record.attachment_uri}/60x0", headers=ALICE, status=400)

    def test_needs_no_library(self, make_site):
        site = make_site()
        assert site.registry.attachment_library is None
        site.http.get("/image/60x0/a.jpg", status=404)


@pytest.mark.parametrize("path", ["original/{}.jpg", "image/0x0/{}.jpg", "image/60x0/{}.jpg"])
def test_download_has_browsers_save_it(local_library, path):
    path = path.format(local_library.add()["id"])
    for query, disposition in (
        ("", "inline"),
        ("?download", "attachment"),
        ("?download=no", "inline"),
    ):
        response = local_library.get(f"{path}{query}")
        assert response.headers["Content-Disposition"].startswith(disposition)
