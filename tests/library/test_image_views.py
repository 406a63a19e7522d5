"""Images at any size, over HTTP: of the media library, and of any record."""

import math
import os
import threading
import time
from datetime import timedelta
from hashlib import sha256
from io import BytesIO

import psutil
import pytest
import requests
from PIL import Image, ImageChops, ImageStat

from kinto_attachment.images import host_lock
from kinto_attachment.images.worker import pool as workers
from kinto_attachment.images.worker.pool import BorrowedWorker
from kinto_attachment.maintenance.fsck import fsck
from kinto_attachment.maintenance.gc import collect
from tests.support.images import photo
from tests.support.library import Shelf, decoded, encoded, jpeg, settings
from tests.support.site import ALICE, Site

SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="30" height="20"><rect/></svg>'
BUCKET = "site"
COLOURS = ((255, 0, 0), (0, 0, 255))
LANCZOS = Image.Resampling.LANCZOS
ANY = {"kinto.attachment.extensions": "any"}


@pytest.fixture
def shelf(make_site, kinto, files):
    return Shelf(make_site(kinto, files, **settings(BUCKET)))


@pytest.fixture
def quick(make_site):
    """One is enough, where it does not matter what is stored where."""
    return Shelf(make_site(**settings(BUCKET)))


@pytest.fixture
def own(make_server):
    return lambda files="memory", **more: Shelf(make_server(files, **settings(BUCKET, **more)))


@pytest.fixture
def resizes(monkeypatch):
    """What was resized since: the sizes, one by one."""
    done, original = [], BorrowedWorker.resize

    def resize(self, input, picture, plan, output, into):
        done.append((plan.width, plan.height))
        return original(self, input, picture, plan, output, into)

    monkeypatch.setattr(BorrowedWorker, "resize", resize)
    return done


def size_of(content: bytes) -> tuple[int, int]:
    return Image.open(BytesIO(content)).size


def psnr(one: Image.Image, other: Image.Image) -> float:
    """Decibels: over 30 nobody sees a difference."""
    difference = ImageChops.difference(one.convert("RGB"), other.convert("RGB"))
    error = sum(value**2 for value in ImageStat.Stat(difference).rms) / 3
    return 99.0 if not error else 10 * math.log10(255**2 / error)


def _as_jpeg(image: Image.Image) -> Image.Image:
    return decoded(encoded(image, "JPEG", quality=80))


def at_once(count: int, call) -> list:
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(call())) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


class TestSize:
    @pytest.mark.parametrize(
        ("asked", "size"),
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
    def test_is_what_was_asked(self, quick, asked, size):
        data = quick.add()
        for name in (f"{data['id']}.jpg", f"{data['id']}/any name.jpg"):
            answer = quick.get(f"image/{asked}/{name}")
            assert answer.content_type == "image/jpeg"
            assert size_of(answer.body) == size

    def test_of_all_storages(self, shelf):
        data = shelf.add(jpeg(400, 300))
        small = shelf.get(f"image/40x0/{data['id']}.jpg")
        assert size_of(small.body) == (40, 30)
        assert shelf.get(f"image/40x0/{data['id']}.jpg").body == small.body
        assert shelf.get(f"image/0x0/{data['id']}.jpg").body == jpeg(400, 300)
        head = shelf.http.head(f"/image/40x0/{data['id']}.jpg")
        assert head.content_length == len(small.body)

    def test_is_that_of_the_image_as_it_is_shown(self, quick):
        data = quick.add(jpeg(120, 80, orientation=6))
        assert size_of(quick.get(f"image/40x0/{data['id']}.jpg").body) == (40, 60)

    def test_is_told_by_what_is_anywhere_in_the_file(self, make_site, files):
        """WebP says at its end how a photo has to be turned."""
        shelf = Shelf(make_site("memory", files, **settings(BUCKET, **ANY)))
        exif = Image.Exif()
        exif[0x0112] = 6
        content = encoded(photo(1600, 1200), "WEBP", quality=100, exif=exif)
        assert len(content) > 512 * 1024
        data = shelf.add(content, "a.webp")
        assert (data["width"], data["height"]) == (1200, 1600)
        assert size_of(shelf.get(f"image/300x0/{data['id']}.webp").body) == (300, 400)

    @pytest.mark.parametrize("asked", ["320x0", "0x200", "200x200", "300x100"])
    def test_looks_as_pillow_makes_it(self, quick, asked):
        content = encoded(photo(800, 600), "JPEG", quality=95)
        original, data = decoded(content), quick.add(content)
        made = decoded(quick.get(f"image/{asked}/{data['id']}.jpg?format=png").body)
        width, height = made.size
        scale = max(width / 800, height / 600)
        box = width / scale, height / scale
        left, top = (800 - box[0]) / 2, (600 - box[1]) / 2
        expected = original.resize(made.size, LANCZOS, (left, top, left + box[0], top + box[1]))
        assert psnr(made, expected) > 28

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
    def test_that_is_none(self, quick, path, status):
        data = quick.add()
        quick.get(path.format(**data), status=status)

    def test_of_a_file_is_its_own(self, quick):
        data = quick.add(b"a text", "a.doc")
        assert quick.get(f"image/0x0/{data['id']}.doc").body == b"a text"
        answer = quick.get(f"image/10x0/{data['id']}.doc", status=400)
        assert "application/msword" in answer.json["message"]

    def test_of_svg_is_for_the_browser(self, quick):
        data = quick.add(SVG, "a.svg")
        answer = quick.get(f"image/10x0/{data['id']}.svg")
        assert answer.body == SVG
        assert answer.content_type == "image/svg+xml"
        assert "sandbox" in answer.headers["Content-Security-Policy"]
        quick.get(f"image/10x0/{data['id']}.svg?format=png", status=400)
        assert answer.headers["X-Content-Type-Options"] == "nosniff"

    def test_of_a_format_that_cannot_be_resized(self, quick):
        data = quick.add(encoded(Image.new("RGB", (30, 20)), "TIFF"), "a.tiff")
        assert "one size" in quick.get(f"image/10x0/{data['id']}.tiff", status=400).json["message"]
        quick.get(f"original/{data['id']}.tiff")

    def test_may_be_limited_to_some(self, make_site):
        some = {"kinto.attachment.images.sizes": "60x0 30x30"}
        shelf = Shelf(make_site(**settings(BUCKET, **some)))
        data = shelf.add()
        for asked, status in (("60x0", 200), ("30x30", 200), ("0x0", 200), ("61x0", 400)):
            shelf.get(f"image/{asked}/{data['id']}.jpg", status=status)

    def test_may_be_limited_to_steps(self, make_site):
        shelf = Shelf(make_site(**settings(BUCKET, **{"kinto.attachment.images.step": "20"})))
        data = shelf.add()
        for asked, status in (("60x0", 200), ("40x20", 200), ("0x0", 200), ("50x0", 400)):
            shelf.get(f"image/{asked}/{data['id']}.jpg", status=status)


class TestFormat:
    @pytest.mark.parametrize("format", ["webp", "avif", "jpeg", "png"])
    def test_may_be_asked_for(self, quick, format):
        data = quick.add()
        answer = quick.get(f"image/60x0/{data['id']}.jpg?format={format}")
        assert answer.content_type == f"image/{format}"
        assert decoded(answer.body).format == format.upper()
        extension = {"jpeg": "jpg"}.get(format, format)
        assert f"photo-60x40.{extension}" in answer.headers["Content-Disposition"]

    @pytest.mark.parametrize("format", ["PNG", "GIF", "WEBP", "AVIF"])
    def test_stays_that_of_the_original(self, make_site, format):
        quick = Shelf(make_site(**settings(BUCKET, **ANY)))
        content = encoded(Image.new("RGB", (120, 80), (200, 30, 30)), format)
        data = quick.add(content, f"a.{format.lower()}")
        answer = quick.get(f"image/60x0/{data['id']}.{format.lower()}")
        assert (decoded(answer.body).format, size_of(answer.body)) == (format, (60, 40))

    def test_is_not_negotiated_unless_it_is_set(self, quick):
        data = quick.add()
        accept = {"Accept": "image/avif,image/webp,*/*"}
        answer = quick.get(f"image/60x0/{data['id']}.jpg", headers=accept)
        assert answer.content_type == "image/jpeg"
        assert answer.headers["Vary"] == "Origin"

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
        shelf = Shelf(make_site(**settings(BUCKET, **negotiate)))
        data = shelf.add()
        answer = shelf.get(f"image/60x0/{data['id']}.jpg", headers={"Accept": accept})
        assert answer.content_type == mimetype
        assert answer.headers["Vary"] == "Accept, Origin"
        asked = shelf.get(f"image/60x0/{data['id']}.jpg?format=png", headers={"Accept": accept})
        assert asked.content_type == "image/png"


class TestCaching:
    def test_of_what_is_public_is_for_ever(self, quick):
        data = quick.add()
        for path in (f"image/60x0/{data['id']}.jpg", data["url"]):
            answer = quick.get(path)
            assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
            etag = answer.headers["ETag"]
            not_again = quick.get(path, headers={"If-None-Match": etag}, status=304)
            assert not_again.headers["ETag"] == etag

    def test_of_who_is_known_is_private(self, quick):
        data = quick.add()
        answer = quick.get(f"image/60x0/{data['id']}.jpg", headers=ALICE)
        assert answer.headers["Cache-Control"] == "private, no-cache"

    def test_etag_is_the_hash_of_the_bytes(self, quick):
        data = quick.add()
        answer = quick.get(f"image/60x0/{data['id']}.jpg")
        assert answer.headers["ETag"] == f'"{sha256(answer.body).hexdigest()}"'
        assert answer.headers["Repr-Digest"]

    def test_ranges_are_of_the_variant(self, quick):
        data = quick.add()
        path = f"image/60x0/{data['id']}.jpg"
        whole = quick.get(path).body
        part = quick.get(path, headers={"Range": "bytes=5-9"}, status=206)
        assert part.body == whole[5:10]


class TestPermission:
    def test_to_read_decides(self, own):
        shelf = own()
        shelf = Shelf(shelf.site, (), ())
        data = shelf.add()
        acl = {"permissions": {"read": []}}
        shelf.http.patch_json(shelf.library.uri, acl, headers=ALICE)
        path = f"image/60x0/{data['id']}.jpg"
        shelf.get(path, status=401)
        shelf.get(path, headers=ALICE)
        shelf.get(path, status=401)  # whoever asked before
        shelf.get(data["url"], status=401)


class TestVariant:
    def test_is_made_once(self, shelf, resizes):
        data = shelf.add()
        for asked in ("60x0", "0x40", "60x40", "60x0"):
            shelf.get(f"image/{asked}/{data['id']}.jpg")
        assert resizes == [(60, 40)]

    def test_of_any_size_above_is_one(self, quick, resizes):
        data = quick.add()
        for asked in ("120x0", "5000x0", "0x99999", "500x300"):
            quick.get(f"image/{asked}/{data['id']}.jpg")
        assert resizes == [(120, 80)]

    def test_is_made_once_for_many_at_the_same_time(self, shelf, resizes):
        data = shelf.add(jpeg(1200, 800))
        answers = at_once(24, lambda: shelf.get(f"image/600x0/{data['id']}.jpg").body)
        assert len(answers) == 24 and len(set(answers)) == 1
        assert resizes == [(600, 400)]

    def test_of_many_sizes_at_the_same_time(self, quick):
        data, widths = quick.add(), list(range(20, 36))
        answers = at_once(
            16, lambda: size_of(quick.get(f"image/{widths.pop()}x0/{data['id']}.jpg").body)
        )
        assert sorted(width for width, _ in answers) == list(range(20, 36))

    def test_is_kept_below_the_hash_of_its_original(self, own, files):
        shelf = own(files)
        data = shelf.add()
        shelf.get(f"image/60x0/{data['id']}.jpg")
        digest = data["attachment"]["hash"]
        (variant,) = set(shelf.keys) - {shelf.site.key(data["attachment"]["location"])}
        assert variant.startswith(f"private/_variants/{digest[:2]}/{digest}/")

    def test_goes_with_its_original(self, own, files):
        shelf = own(files)
        data, other = shelf.add(), shelf.add(jpeg(90, 90))
        for each in (data, other):
            for asked in ("60x0", "30x30"):
                shelf.get(f"image/{asked}/{each['id']}.jpg")
        assert len(shelf.keys) == 6
        shelf.http.delete(f"/content/_media/{data['id']}", headers=ALICE)
        assert len(shelf.keys) == 3
        assert list(fsck(shelf.server)) == []
        shelf.http.delete(f"{shelf.library.uri}/records", headers=ALICE)
        assert shelf.keys == []
        variants = shelf.site.rows.variants
        assert shelf.site.in_transaction(lambda: list(variants.all())) == []

    def test_of_a_name_by_hash_goes_with_gc(self, own):
        by_hash = {
            "kinto.attachment.randomize": "false",
            "kinto.attachment.filename_pattern": "{hash}{extension}",
        }
        shelf = own(**by_hash)
        data = shelf.add()
        shelf.get(f"image/60x0/{data['id']}.jpg")
        shelf.http.delete(f"/content/_media/{data['id']}", headers=ALICE)
        list(collect(shelf.server, offline=True))
        assert shelf.keys == []

    def test_oldest_of_very_many_makes_room(self, own, resizes):
        shelf = own(**{"kinto.attachment.images.max_variants": "3"})
        data = shelf.add()
        for width in (10, 20, 30, 40, 50):
            shelf.get(f"image/{width}x0/{data['id']}.jpg")
        assert len(shelf.keys) == 4
        assert list(fsck(shelf.server)) == []
        for width in (30, 40, 50):
            shelf.get(f"image/{width}x0/{data['id']}.jpg")
        assert len(resizes) == 5
        assert shelf.get(f"image/10x0/{data['id']}.jpg").body
        assert len(resizes) == 6

    def test_that_is_lost_is_made_again(self, shelf, resizes):
        data = shelf.add()
        path = f"image/60x0/{data['id']}.jpg"
        before = shelf.get(path).body
        variants = shelf.site.rows.variants
        key = shelf.site.key(data["attachment"]["location"])
        (variant,) = shelf.site.in_transaction(lambda: variants.of([key]))
        shelf.site.storage.delete([variant.key])
        assert shelf.get(path).body == before
        assert resizes == [(60, 40), (60, 40)]
        assert len(shelf.site.in_transaction(lambda: variants.of([key]))) == 1

    def test_that_is_cut_off_is_made_again(self, own, resizes):
        shelf = own("local")
        data = shelf.add()
        path = f"image/60x0/{data['id']}.jpg"
        before = shelf.get(path).body
        folder = shelf.site.settings["kinto.attachment.base_path"]
        (key,) = (key for key in shelf.keys if key.startswith("private"))
        os.truncate(f"{folder}/{key}", 100)
        assert shelf.get(path).body == before

    def test_is_made_of_a_larger_one(self, quick, monkeypatch):
        read, original = [], BorrowedWorker.resize

        def resize(self, input, picture, *rest):
            read.append((picture.width, picture.height))
            return original(self, input, picture, *rest)

        monkeypatch.setattr(BorrowedWorker, "resize", resize)
        content = encoded(photo(1600, 1200), "JPEG", quality=95)
        image, data = decoded(content), quick.add(content)
        for asked in ("800x0", "200x0", "300x300", "500x0"):
            quick.get(f"image/{asked}/{data['id']}.jpg")
        assert read == [(1600, 1200), (800, 600), (800, 600), (1600, 1200)]
        small = decoded(quick.get(f"image/200x0/{data['id']}.jpg").body)
        assert psnr(small, _as_jpeg(image.resize((200, 150), LANCZOS))) > 28
        square = decoded(quick.get(f"image/300x300/{data['id']}.jpg").body)
        assert psnr(square, _as_jpeg(image.resize((300, 300), LANCZOS, (200, 0, 1400, 1200)))) > 28

    def test_is_not_made_of_a_worse_one(self, make_server):
        common = settings(BUCKET)
        site = make_server("local", **common, **{"kinto.attachment.images.jpeg_quality": "5"})
        content = encoded(photo(800, 600), "JPEG", quality=95)
        bad = Shelf(site)
        data = bad.add(content)
        bad.get(f"image/400x0/{data['id']}.jpg")
        better = Site(**{**site.settings, "kinto.attachment.images.jpeg_quality": "95"})
        made = decoded(better.http.get(f"/image/150x0/{data['id']}.jpg").body)
        assert psnr(made, decoded(content).resize(made.size, LANCZOS)) > 30
        better.close()

    def test_no_connection_is_held_while_it_is_made(self, make_site, monkeypatch):
        shelf = Shelf(make_site("postgresql", "local", **settings(BUCKET)))
        data = shelf.add()
        held, original = [], BorrowedWorker.resize
        engine = shelf.site.registry.storage.client.session_factory().get_bind()

        def resize(*arguments):
            held.append(engine.pool.checkedout())
            return original(*arguments)

        shelf.site.registry.storage.client.session_factory.remove()
        monkeypatch.setattr(BorrowedWorker, "resize", resize)
        shelf.get(f"image/60x0/{data['id']}.jpg")
        assert held == [0]


class TestTrim:
    VARIANTS = [{"name": "corner", "trim": {"top": 0, "left": 0, "width": 60, "height": 40}}]

    def picture(self) -> bytes:
        image = Image.new("RGB", (120, 80), (0, 0, 255))
        image.paste((255, 0, 0), (0, 0, 60, 40))
        return encoded(image, "PNG")

    def test_is_a_part_of_the_image(self, shelf):
        data = shelf.add(self.picture(), "a.png", variants=self.VARIANTS)
        path = f"image/30x0/{data['id']}/any.png/variant/corner"
        made = decoded(shelf.get(path).body)
        assert made.size == (30, 20)
        assert made.convert("RGB").getextrema() == ((255, 255), (0, 0), (0, 0))
        whole = decoded(shelf.get(f"image/0x0/{data['id']}/any.png/variant/corner").body)
        assert whole.size == (60, 40)

    def test_is_dated_by_its_record(self, quick):
        data = quick.add(self.picture(), "a.png", variants=self.VARIANTS)
        path = f"image/30x0/{data['id']}/any.png/variant/corner"
        other = [{"name": "corner", "trim": {"top": 9, "left": 9, "width": 30, "height": 30}}]
        quick.get(path)
        time.sleep(1.1)
        uri = f"/content/_media/{data['id']}"
        quick.http.patch_json(uri, {"variants": other}, headers=ALICE)
        date = quick.get(path).headers["Last-Modified"]
        time.sleep(1.1)
        quick.http.patch_json(uri, {"variants": self.VARIANTS}, headers=ALICE)
        quick.get(path, headers={"If-Modified-Since": date}, status=200)

    def test_may_change(self, quick):
        data = quick.add(self.picture(), "a.png", variants=self.VARIANTS)
        path = f"image/0x0/{data['id']}/any.png/variant/corner"
        assert "immutable" not in quick.get(path).headers["Cache-Control"]
        trim = {"top": 40, "left": 60, "width": 20, "height": 10}
        body = {"variants": [{"name": "corner", "trim": trim}]}
        quick.http.patch_json(f"/content/_media/{data['id']}", body, headers=ALICE)
        made = decoded(quick.get(path).body)
        assert made.size == (20, 10)
        assert made.convert("RGB").getextrema() == ((0, 0), (0, 0), (255, 255))


class TestAttachment:
    """The same for any record with an image."""

    def test_has_sizes(self, site):
        record = site.collection().record()
        record.upload(jpeg(), "photo.jpg")
        answer = site.http.get(f"{record.attachment_uri}/60x0", headers=ALICE)
        assert size_of(answer.body) == (60, 40)
        assert answer.headers["Cache-Control"] == "private, no-cache"
        whole = site.http.get(f"{record.attachment_uri}/0x0", headers=ALICE)
        assert whole.body == jpeg()
        site.http.get(f"{record.attachment_uri}/60x0", status=401)
        record.detach()
        assert record.collection.keys == []

    def test_that_is_replaced_has_others(self, make_site):
        site = make_site()
        record = site.collection().record()
        record.upload(jpeg(), "photo.jpg")
        uri = f"{record.attachment_uri}/60x0"
        before = [stat.key for stat in site.storage.list("private/_variants")]
        first = site.http.get(uri, headers=ALICE)
        record.upload(jpeg(80, 120), "photo.jpg")
        second = site.http.get(uri, headers=ALICE)
        assert (size_of(first.body), size_of(second.body)) == ((60, 40), (60, 90))
        assert first.headers["ETag"] != second.headers["ETag"]
        record.detach()
        assert [stat.key for stat in site.storage.list("private/_variants")] == before

    def test_of_the_default_bucket(self, make_site):
        site = make_site()
        uri = "/buckets/default/collections/c/records/photo/attachment"
        mimetype, body = site.http.encode_multipart([], [("attachment", "a.jpg", jpeg())])
        site.http.post(uri, body, headers={**ALICE, "Content-Type": mimetype})
        assert size_of(site.http.get(f"{uri}/60x0", headers=ALICE).body) == (60, 40)

    def test_that_is_no_image(self, make_site):
        site = make_site()
        record = site.collection().record()
        site.http.get(f"{record.attachment_uri}/60x0", headers=ALICE, status=404)
        record.upload(b"text", "photo.txt")
        site.http.get(f"{record.attachment_uri}/60x0", headers=ALICE, status=400)

    def test_needs_no_library(self, make_site):
        site = make_site()
        assert site.registry.attachment_library is None
        site.http.get("/image/60x0/a.jpg", status=404)


class TestMaintenance:
    def test_variants_are_known(self, own):
        shelf = own()
        data = shelf.add()
        shelf.get(f"image/60x0/{data['id']}.jpg")
        assert list(fsck(shelf.server, deep=True)) == []
        assert list(collect(shelf.server, offline=True)) == []
        assert len(shelf.keys) == 2

    def test_of_images_that_are_gone_go(self, own, monkeypatch):
        shelf = own()
        data = shelf.add()
        variants, kept = shelf.site.rows.variants, shelf.add()
        for each in (data, kept):
            shelf.get(f"image/60x0/{each['id']}.jpg")
        key = shelf.site.key(data["attachment"]["location"])
        with monkeypatch.context() as racing:
            # Made in the moment in which the image was deleted.
            racing.setattr(type(variants), "of", lambda self, originals: [])
            shelf.http.delete(f"/content/_media/{data['id']}", headers=ALICE)
        assert len(shelf.keys) == 3
        assert shelf.site.in_transaction(lambda: variants.of([key]))
        assert len(list(collect(shelf.server, timedelta(hours=1)))) == 0
        (finding,) = collect(shelf.server, offline=True)
        assert finding.key.startswith("private/_variants/")
        assert len(shelf.keys) == 2
        assert shelf.site.in_transaction(lambda: variants.of([key])) == []

    def test_without_row_are_orphans(self, own):
        shelf = own()
        data = shelf.add()
        shelf.get(f"image/60x0/{data['id']}.jpg")
        variants = shelf.site.rows.variants
        shelf.site.in_transaction(lambda: variants.drop(list(variants.all())))
        (finding,) = fsck(shelf.server)
        assert finding.kind == "orphan object"
        list(collect(shelf.server, offline=True))
        assert len(shelf.keys) == 1
        shelf.get(f"image/60x0/{data['id']}.jpg")

    def test_flush_takes_them(self, own):
        shelf = own()
        data = shelf.add()
        shelf.get(f"image/60x0/{data['id']}.jpg")
        shelf.http.post("/__flush__", headers=ALICE)
        assert shelf.keys == []


class TestTrouble:
    def test_without_the_extra_is_a_501(self, own, monkeypatch):
        quick = own()
        data = quick.add()
        monkeypatch.setattr(workers.importlib.util, "find_spec", lambda name: None)
        answer = quick.get(f"image/61x0/{data['id']}.jpg", status=501)
        assert "kinto-attachment[images]" in answer.json["message"]
        assert quick.get(data["url"]).body == jpeg()
        assert quick.upload()["width"] == 120

    def test_too_many_at_once_are_503(self, make_site):
        few = {"kinto.attachment.images.queue": "0"}
        shelf = Shelf(make_site(**settings(BUCKET, **few)))
        data = shelf.add(encoded(photo(3000, 2000), "PNG"), "a.png")
        widths = list(range(1001, 1009))

        def get():
            return shelf.get(f"image/{widths.pop()}x0/{data['id']}.png", status="*")

        answers = at_once(8, get)
        statuses = {answer.status_int for answer in answers}
        assert statuses == {200, 503}
        refused = next(answer for answer in answers if answer.status_int == 503)
        assert int(refused.headers["Retry-After"]) > 0

    def test_worker_that_is_killed_is_replaced(self, make_site):
        shelf = Shelf(make_site(**settings(BUCKET, **{"kinto.attachment.images.timeout": "9"})))
        data = shelf.add(encoded(photo(4000, 3000), "PNG"), "a.png")
        others = set(psutil.Process().children())
        shelf.get(f"image/30x0/{data['id']}.png")  # starts one
        (worker,) = set(psutil.Process().children()) - others
        idle, answers = worker.cpu_times().user, []

        def get():
            answers.append(shelf.get(f"image/2000x0/{data['id']}.png", status="*"))

        thread = threading.Thread(target=get)
        thread.start()
        while worker.cpu_times().user < idle + 0.05:
            thread.join(0.01)
        worker.kill()
        thread.join(30)
        assert answers[0].status_int in (200, 503)
        assert size_of(shelf.get(f"image/2000x0/{data['id']}.png").body) == (2000, 1500)

    def test_what_was_cut_off_and_restored_is_seen(self, own):
        shelf = own("local")
        content = encoded(photo(400, 300), "JPEG")
        data = shelf.add(content)
        path = shelf.site.settings["kinto.attachment.base_path"] + "/" + shelf.keys[0]
        os.truncate(path, 100)
        shelf.get(f"image/60x0/{data['id']}.jpg", status=500)
        with open(path, "wb") as file:
            file.write(content)
        assert size_of(shelf.get(f"image/60x0/{data['id']}.jpg").body) == (60, 45)

    def test_nothing_can_be_locked(self, quick, monkeypatch, tmp_path):
        (tmp_path / f"kinto-attachment-{os.getuid()}").write_text("somebody else's")
        monkeypatch.setattr(host_lock.tempfile, "gettempdir", lambda: str(tmp_path))
        data = quick.add()
        assert size_of(quick.get(f"image/60x0/{data['id']}.jpg").body) == (60, 40)

    def test_broken_image_is_a_400(self, quick):
        content = encoded(photo(400, 300), "JPEG", quality=90)
        data = quick.add(content[: len(content) // 2])
        answer = quick.get(f"image/60x0/{data['id']}.jpg", status=400)
        assert "cut off" in answer.json["message"]
        assert quick.get(data["url"]).body == content[: len(content) // 2]


class TestReused:
    """A key that is given again, to other bytes."""

    NAMED = {"kinto.attachment.randomize": "false"}

    def test_name_shows_the_new_image(self, make_server, monkeypatch):
        site = make_server("local", **settings(BUCKET, **self.NAMED))
        record = site.collection().record()
        red, blue = (encoded(Image.new("RGB", (120, 80), colour), "PNG") for colour in COLOURS)
        record.upload(red, "logo.png")
        original = BorrowedWorker.resize

        def resize(self, *arguments):
            monkeypatch.setattr(BorrowedWorker, "resize", original)
            record.detach()
            record.upload(blue, "logo.png")
            return original(self, *arguments)

        monkeypatch.setattr(BorrowedWorker, "resize", resize)
        uri = f"{record.attachment_uri}/60x0"
        site.http.get(uri, headers=ALICE, status="*")
        shown = decoded(site.http.get(uri, headers=ALICE).body)
        assert shown.convert("RGB").getpixel((5, 5)) == COLOURS[1]
        list(collect(site.server, offline=True))
        left = [stat.key for stat in site.storage.list("private/_variants")]
        assert len(left) == 1
        assert list(fsck(site.server)) == []

    def test_id_is_not_given_again(self, quick):
        data = quick.add()
        uri = f"{quick.library.uri}/records/{data['id']}"
        quick.http.delete(uri, headers=ALICE)
        mimetype, body = quick.http.encode_multipart([], [("attachment", "b.jpg", jpeg(9, 9))])
        headers = {**ALICE, "Content-Type": mimetype}
        quick.http.post(f"{uri}/attachment", body, headers=headers, status=400)
        waiting = quick.upload()
        uri = f"{quick.library.uri}/records/{waiting['id']}"
        quick.http.post(f"{uri}/attachment", body, headers=headers, status=400)
        quick.describe(waiting)


class TestDownload:
    def test_redirects_to_what_is_there(self, make_server):
        redirect = {"kinto.attachment.download": "redirect"}
        site = make_server("moto", **settings(BUCKET, **redirect))
        shelf = Shelf(site)
        data = shelf.add()
        path = f"image/60x0/{data['id']}.jpg"
        first = shelf.get(path, status=307).headers["Location"]
        assert size_of(requests.get(first, timeout=30).content) == (60, 40)
        site.storage.delete([key for key in shelf.keys if key.startswith("private")])
        again = shelf.get(path, status=307).headers["Location"]
        assert size_of(requests.get(again, timeout=30).content) == (60, 40)


class TestReadonly:
    def test_has_what_was_made(self, make_site, kinto_settings, file_settings):
        common = {
            **kinto_settings("postgresql", fresh=True),
            **file_settings("local"),
            **settings(BUCKET),
        }
        shelf = Shelf(Site(**common))
        data = shelf.add()
        made = shelf.get(f"image/60x0/{data['id']}.jpg").body
        readonly = Site(**common, **{"kinto.readonly": "true"})
        assert readonly.http.get(f"/image/60x0/{data['id']}.jpg").body == made
        readonly.http.get(f"/image/61x0/{data['id']}.jpg", status=503)
        readonly.http.get(f"/original/{data['id']}.jpg")
        for site in (shelf.site, readonly):
            site.close()


class TestSharedCache:
    SECONDS = {"kinto.attachment.images.cache_seconds": "2"}

    @pytest.fixture
    def shelf(self, make_server):
        return Shelf(make_server("local", **settings(BUCKET, **self.SECONDS)))

    def statements(self, shelf, monkeypatch):
        asked = []
        storage = shelf.site.registry.storage
        original = storage.get

        def get(*arguments, **options):
            asked.append(arguments)
            return original(*arguments, **options)

        monkeypatch.setattr(storage, "get", get)
        return asked

    def test_remembers_what_everybody_may_see(self, shelf, monkeypatch):
        data = shelf.add()
        path = f"image/60x0/{data['id']}.jpg"
        first = shelf.get(path)
        asked = self.statements(shelf, monkeypatch)
        again = shelf.get(path)
        assert asked == []
        assert again.body == first.body
        same = ("ETag", "Cache-Control", "Content-Type", "Content-Disposition", "Vary",
                "Content-Security-Policy", "X-Content-Type-Options", "Last-Modified")  # fmt: skip
        assert [again.headers[name] for name in same] == [first.headers[name] for name in same]
        shelf.get(path, headers={"If-None-Match": first.headers["ETag"]}, status=304)
        assert shelf.http.head(f"/{path}").content_length == len(first.body)
        shelf.get(path, headers={"Range": "bytes=1-2"}, status=206)
        assert asked == []

    def test_asks_for_who_is_somebody(self, shelf, monkeypatch):
        data = shelf.add()
        path = f"image/60x0/{data['id']}.jpg"
        shelf.get(path)
        asked = self.statements(shelf, monkeypatch)
        assert shelf.get(path, headers=ALICE).headers["Cache-Control"] == "private, no-cache"
        assert len(asked) == 1
        answer = shelf.get(path, headers={"Origin": "https://example.com"})
        assert answer.headers["Access-Control-Allow-Origin"]
        assert len(asked) == 2

    def test_forgets(self, shelf):
        data = shelf.add()
        path = f"image/60x0/{data['id']}.jpg"
        shelf.get(path)
        shelf.http.patch_json(shelf.library.uri, {"permissions": {"read": []}}, headers=ALICE)
        time.sleep(2.1)
        shelf.get(path, status=401)

    def test_never_answers_with_what_is_gone(self, shelf):
        data = shelf.add()
        path = f"image/60x0/{data['id']}.jpg"
        shelf.get(path)
        shelf.http.delete(f"/content/_media/{data['id']}", headers=ALICE)
        shelf.get(path, status=404)  # its bytes are gone

    def test_remembers_nothing_private(self, make_server, monkeypatch):
        site = make_server("local", **settings(BUCKET, **self.SECONDS))
        shelf = Shelf(site, readers=())
        data = shelf.add()
        path = f"image/60x0/{data['id']}.jpg"
        shelf.get(path, headers=ALICE)
        shelf.get(path, status=401)
