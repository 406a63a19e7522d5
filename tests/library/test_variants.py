"""Variants: the resized copies of an image that the plugin stores."""

import os
import threading
import time
from datetime import timedelta
from types import SimpleNamespace

import psutil
import pytest
import requests
from PIL import Image

from kinto_attachment.http import response_cache
from kinto_attachment.images import host_lock
from kinto_attachment.images.service import ImageService
from kinto_attachment.images.worker import pool
from kinto_attachment.images.worker.pool import BorrowedWorker
from kinto_attachment.maintenance.fsck import fsck
from kinto_attachment.maintenance.gc import collect
from tests.conftest import FILE_STORAGES
from tests.support import images
from tests.support.library import MediaLibrary, jpeg, settings
from tests.support.site import ALICE, Site
from tests.support.threads import at_once

COLOURS = ((255, 0, 0), (0, 0, 255))
LANCZOS = Image.Resampling.LANCZOS
ALL_WAIT = {"kinto.attachment.images.queue": "64"}
"""Settings with which no request of a test is refused."""


@pytest.fixture(params=FILE_STORAGES)
def files(request):
    return request.param


@pytest.fixture
def resizes(monkeypatch):
    """Return a list that receives the size of each variant made during the test."""
    done, original = [], BorrowedWorker.resize

    def resize(self, input, header, plan, output, into):
        done.append((plan.width, plan.height))
        return original(self, input, header, plan, output, into)

    monkeypatch.setattr(BorrowedWorker, "resize", resize)
    return done


def _as_jpeg(image: Image.Image) -> Image.Image:
    """Return the image with the losses of a JPEG of the default quality."""
    return images.decode(images.encode(image, "JPEG", quality=80))


class TestVariant:
    def test_is_made_once(self, library, resizes):
        data = library.add()
        for size in ("60x0", "0x40", "60x40", "60x0"):
            library.get(f"image/{size}/{data['id']}.jpg")
        assert resizes == [(60, 40)]

    def test_sizes_larger_than_the_image_share_one(self, local_library, resizes):
        data = local_library.add()
        for size in ("120x0", "5000x0", "0x99999", "500x300"):
            local_library.get(f"image/{size}/{data['id']}.jpg")
        assert resizes == [(120, 80)]

    def test_is_made_once_for_simultaneous_requests(self, make_site, kinto, files, resizes):
        library = MediaLibrary(make_site(kinto, files, **settings("site", **ALL_WAIT)))
        data = library.add(jpeg(1200, 800))
        responses = at_once(24, lambda: library.get(f"image/600x0/{data['id']}.jpg").body)
        assert len(responses) == 24 and len(set(responses)) == 1
        assert resizes == [(600, 400)]

    def test_many_sizes_are_made_at_the_same_time(self, make_site):
        library = MediaLibrary(make_site(**settings("site", **ALL_WAIT)))
        data, widths = library.add(), list(range(20, 36))
        responses = at_once(
            16,
            lambda: images.size_of(library.get(f"image/{widths.pop()}x0/{data['id']}.jpg").body),
        )
        assert sorted(width for width, _ in responses) == list(range(20, 36))

    def test_is_stored_under_the_hash_of_its_original(self, make_library, files):
        library = make_library(files)
        data = library.add()
        library.get(f"image/60x0/{data['id']}.jpg")
        digest = data["attachment"]["hash"]
        (variant,) = set(library.keys) - {library.site.key(data["attachment"]["location"])}
        assert variant.startswith(f"private/_variants/{digest[:2]}/{digest}-")

    def test_is_deleted_with_its_original(self, make_library, files):
        library = make_library(files)
        data, other = library.add(), library.add(jpeg(90, 90))
        for each in (data, other):
            for size in ("60x0", "30x30"):
                library.get(f"image/{size}/{each['id']}.jpg")
        assert len(library.keys) == 6
        library.http.delete(f"/content/_media/{data['id']}", headers=ALICE)
        assert len(library.keys) == 3
        assert list(fsck(library.server)) == []
        library.http.delete(f"{library.uri}/records", headers=ALICE)
        assert library.keys == []
        variants = library.site.rows.variants
        assert library.site.in_transaction(lambda: list(variants.all())) == []

    def test_of_an_original_named_by_hash_is_deleted_by_gc(self, make_library):
        by_hash = {
            "kinto.attachment.randomize": "false",
            "kinto.attachment.filename_pattern": "{hash}{extension}",
        }
        library = make_library(**by_hash)
        data = library.add()
        library.get(f"image/60x0/{data['id']}.jpg")
        library.http.delete(f"/content/_media/{data['id']}", headers=ALICE)
        list(collect(library.server, offline=True))
        assert library.keys == []

    def test_oldest_is_deleted_when_there_are_too_many(self, make_library, resizes):
        library = make_library(**{"kinto.attachment.images.max_variants": "3"})
        data = library.add()
        for width in (10, 20, 30, 40, 50):
            library.get(f"image/{width}x0/{data['id']}.jpg")
        assert len(library.keys) == 4
        assert list(fsck(library.server)) == []
        for width in (30, 40, 50):
            library.get(f"image/{width}x0/{data['id']}.jpg")
        assert len(resizes) == 5
        assert library.get(f"image/10x0/{data['id']}.jpg").body
        assert len(resizes) == 6

    def test_is_made_again_if_it_is_lost(self, library, resizes):
        data = library.add()
        path = f"image/60x0/{data['id']}.jpg"
        before = library.get(path).body
        variants = library.site.rows.variants
        key = library.site.key(data["attachment"]["location"])
        (variant,) = library.site.in_transaction(lambda: variants.of([key]))
        library.site.storage.delete([variant.key])
        assert library.get(path).body == before
        assert resizes == [(60, 40), (60, 40)]
        assert len(library.site.in_transaction(lambda: variants.of([key]))) == 1

    def test_is_made_again_if_it_is_cut_off(self, make_library, resizes):
        library = make_library("local")
        data = library.add()
        path = f"image/60x0/{data['id']}.jpg"
        before = library.get(path).body
        folder = library.site.settings["kinto.attachment.base_path"]
        (key,) = (key for key in library.keys if key.startswith("private"))
        os.truncate(f"{folder}/{key}", 100)
        assert library.get(path).body == before
        assert len(resizes) == 2

    def test_is_made_from_a_larger_variant(self, local_library, monkeypatch):
        inputs, original = [], BorrowedWorker.resize

        def resize(self, input, header, *rest):
            inputs.append((header.width, header.height))
            return original(self, input, header, *rest)

        monkeypatch.setattr(BorrowedWorker, "resize", resize)
        content = images.encode(images.photo(1600, 1200), "JPEG", quality=95)
        image, data = images.decode(content), local_library.add(content)
        for size in ("800x0", "200x0", "300x300", "500x0"):
            local_library.get(f"image/{size}/{data['id']}.jpg")
        assert inputs == [(1600, 1200), (800, 600), (800, 600), (1600, 1200)]
        small = images.decode(local_library.get(f"image/200x0/{data['id']}.jpg").body)
        assert images.psnr(small, _as_jpeg(image.resize((200, 150), LANCZOS))) > 28
        square = images.decode(local_library.get(f"image/300x300/{data['id']}.jpg").body)
        assert (
            images.psnr(square, _as_jpeg(image.resize((300, 300), LANCZOS, (200, 0, 1400, 1200))))
            > 28
        )

    def test_is_not_made_from_a_variant_of_lower_quality(self, make_server):
        common = settings("site")
        site = make_server("local", **common, **{"kinto.attachment.images.jpeg_quality": "5"})
        content = images.encode(images.photo(800, 600), "JPEG", quality=95)
        poor = MediaLibrary(site)
        data = poor.add(content)
        poor.get(f"image/400x0/{data['id']}.jpg")
        better = Site(**{**site.settings, "kinto.attachment.images.jpeg_quality": "95"})
        result = images.decode(better.http.get(f"/image/150x0/{data['id']}.jpg").body)
        assert images.psnr(result, images.decode(content).resize(result.size, LANCZOS)) > 30
        better.close()

    def test_no_database_connection_is_held_while_it_is_made(self, make_site, monkeypatch):
        library = MediaLibrary(make_site("postgresql", "local", **settings("site")))
        data = library.add()
        held, original = [], BorrowedWorker.resize
        engine = library.site.registry.storage.client.session_factory().get_bind()

        def resize(*arguments):
            held.append(engine.pool.checkedout())
            return original(*arguments)

        library.site.registry.storage.client.session_factory.remove()
        monkeypatch.setattr(BorrowedWorker, "resize", resize)
        library.get(f"image/60x0/{data['id']}.jpg")
        assert held == [0]


class TestMaintenance:
    def test_variants_are_known_to_fsck_and_gc(self, make_library):
        library = make_library()
        data = library.add()
        library.get(f"image/60x0/{data['id']}.jpg")
        assert list(fsck(library.server, deep=True)) == []
        assert list(collect(library.server, offline=True)) == []
        assert len(library.keys) == 2

    def test_variants_of_deleted_images_are_collected(self, make_library, monkeypatch):
        library = make_library()
        data = library.add()
        variants, kept = library.site.rows.variants, library.add()
        for each in (data, kept):
            library.get(f"image/60x0/{each['id']}.jpg")
        key = library.site.key(data["attachment"]["location"])
        with monkeypatch.context() as racing:
            # As if another request made the variant while the image is deleted.
            racing.setattr(type(variants), "of", lambda self, originals: [])
            library.http.delete(f"/content/_media/{data['id']}", headers=ALICE)
        assert len(library.keys) == 3
        assert library.site.in_transaction(lambda: variants.of([key]))
        assert len(list(collect(library.server, timedelta(hours=1)))) == 0
        (finding,) = collect(library.server, offline=True)
        assert finding.key.startswith("private/_variants/")
        assert len(library.keys) == 2
        assert library.site.in_transaction(lambda: variants.of([key])) == []

    def test_variants_without_row_are_orphans(self, make_library):
        library = make_library()
        data = library.add()
        library.get(f"image/60x0/{data['id']}.jpg")
        variants = library.site.rows.variants
        library.site.in_transaction(lambda: variants.drop(list(variants.all())))
        (finding,) = fsck(library.server)
        assert finding.kind == "orphan object"
        list(collect(library.server, offline=True))
        assert len(library.keys) == 1
        library.get(f"image/60x0/{data['id']}.jpg")

    def test_flush_deletes_variants(self, make_library):
        library = make_library()
        data = library.add()
        library.get(f"image/60x0/{data['id']}.jpg")
        library.http.post("/__flush__", headers=ALICE)
        assert library.keys == []


class TestFailures:
    def test_missing_extra_is_a_501(self, make_library, monkeypatch):
        library = make_library()
        data = library.add()
        monkeypatch.setattr(pool.importlib.util, "find_spec", lambda name: None)
        response = library.get(f"image/61x0/{data['id']}.jpg", status=501)
        assert "kinto-attachment[images]" in response.json["message"]
        assert library.get(data["url"]).body == jpeg()
        assert library.upload()["width"] == 120

    def test_too_many_requests_at_once_are_503(self, make_site):
        few = {"kinto.attachment.images.queue": "0"}
        library = MediaLibrary(make_site(**settings("site", **few)))
        data = library.add(images.encode(images.photo(3000, 2000), "PNG"), "a.png")
        widths = list(range(1001, 1009))

        def get():
            return library.get(f"image/{widths.pop()}x0/{data['id']}.png", status="*")

        responses = at_once(8, get)
        statuses = {response.status_int for response in responses}
        assert statuses == {200, 503}
        refused = next(response for response in responses if response.status_int == 503)
        assert int(refused.headers["Retry-After"]) > 0

    def test_requests_that_wait_for_the_same_image_count_too(self, make_site):
        library = MediaLibrary(make_site(**settings("site")))
        data = library.add(images.encode(images.photo(3000, 2000), "PNG"), "a.png")

        def get():
            return library.get(f"image/1001x0/{data['id']}.png", status="*").status_int

        statuses = at_once(16, get)
        assert 503 in statuses and statuses.count(200) >= 4

    @pytest.mark.parametrize(
        ("address", "forwarded_for", "expected"),
        [
            ("9.9.9.9", "", "9.9.9.9"),
            ("9.9.9.9", "8.8.8.8", "9.9.9.9"),
            ("127.0.0.1", "1.1.1.1, 8.8.8.8", "8.8.8.8"),
            ("10.0.0.7", "8.8.8.8", "8.8.8.8"),
            ("", "8.8.8.8", "8.8.8.8"),
            ("127.0.0.1", "", "127.0.0.1"),
        ],
    )
    def test_clients_are_identified_by_their_address(
        self, make_site, monkeypatch, address, forwarded_for, expected
    ):
        library, clients = MediaLibrary(make_site(**settings("site"))), []
        original = ImageService.make

        def make(self, *args):
            clients.append(args[-1])
            return original(self, *args)

        monkeypatch.setattr(ImageService, "make", make)
        data = library.add()
        library.http.get(
            f"/image/33x0/{data['id']}.jpg",
            headers={"X-Forwarded-For": forwarded_for} if forwarded_for else {},
            extra_environ={"REMOTE_ADDR": address},
        )
        assert clients == [expected]

    def test_worker_that_is_killed_is_replaced(self, make_site):
        library = MediaLibrary(
            make_site(**settings("site", **{"kinto.attachment.images.timeout": "9"}))
        )
        data = library.add(images.encode(images.photo(4000, 3000), "PNG"), "a.png")
        others = set(psutil.Process().children())
        library.get(f"image/30x0/{data['id']}.png")  # The site starts a worker.
        (worker,) = set(psutil.Process().children()) - others
        idle_seconds, responses = worker.cpu_times().user, []

        def get():
            responses.append(library.get(f"image/2000x0/{data['id']}.png", status="*"))

        thread = threading.Thread(target=get)
        thread.start()
        while worker.cpu_times().user < idle_seconds + 0.05:
            thread.join(0.01)
        worker.kill()
        thread.join(30)
        assert responses[0].status_int in (200, 503)
        assert images.size_of(library.get(f"image/2000x0/{data['id']}.png").body) == (2000, 1500)

    def test_a_restored_image_is_read_again(self, make_library):
        library = make_library("local")
        content = images.encode(images.photo(400, 300), "JPEG")
        data = library.add(content)
        path = library.site.settings["kinto.attachment.base_path"] + "/" + library.keys[0]
        os.truncate(path, 100)
        library.get(f"image/60x0/{data['id']}.jpg", status=500)
        with open(path, "wb") as file:
            file.write(content)
        assert images.size_of(library.get(f"image/60x0/{data['id']}.jpg").body) == (60, 45)

    def test_images_are_made_without_a_lock_file(self, local_library, monkeypatch, tmp_path):
        (tmp_path / f"kinto-attachment-{os.getuid()}").write_text("a file of another user")
        monkeypatch.setattr(host_lock.tempfile, "gettempdir", lambda: str(tmp_path))
        data = local_library.add()
        assert images.size_of(local_library.get(f"image/60x0/{data['id']}.jpg").body) == (60, 40)

    def test_broken_image_is_a_400(self, local_library):
        content = images.encode(images.photo(400, 300), "JPEG", quality=90)
        data = local_library.add(content[: len(content) // 2])
        response = local_library.get(f"image/60x0/{data['id']}.jpg", status=400)
        assert "cut off" in response.json["message"]
        assert local_library.get(data["url"]).body == content[: len(content) // 2]


class TestReusedKeys:
    """A storage key that is used for one file, and later for another."""

    BY_NAME = {"kinto.attachment.randomize": "false"}

    def test_variant_is_of_the_new_image(self, make_server, monkeypatch):
        site = make_server("local", **settings("site", **self.BY_NAME))
        record = site.collection().record()
        red, blue = (
            images.encode(Image.new("RGB", (120, 80), colour), "PNG") for colour in COLOURS
        )
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
        shown = images.decode(site.http.get(uri, headers=ALICE).body)
        assert shown.convert("RGB").getpixel((5, 5)) == COLOURS[1]
        list(collect(site.server, offline=True))
        variants = [stat.key for stat in site.storage.list("private/_variants")]
        assert len(variants) == 1
        assert list(fsck(site.server)) == []

    def test_id_of_an_object_cannot_be_reused(self, local_library):
        data = local_library.add()
        uri = f"{local_library.uri}/records/{data['id']}"
        local_library.http.delete(uri, headers=ALICE)
        mimetype, body = local_library.http.encode_multipart(
            [], [("attachment", "b.jpg", jpeg(9, 9))]
        )
        headers = {**ALICE, "Content-Type": mimetype}
        local_library.http.post(f"{uri}/attachment", body, headers=headers, status=400)
        waiting = local_library.upload()
        uri = f"{local_library.uri}/records/{waiting['id']}"
        local_library.http.post(f"{uri}/attachment", body, headers=headers, status=400)
        local_library.describe(waiting)


class TestDownload:
    def test_redirects_to_a_variant_that_exists(self, make_server):
        redirect = {"kinto.attachment.download": "redirect"}
        site = make_server("moto", **settings("site", **redirect))
        library = MediaLibrary(site)
        data = library.add()
        path = f"image/60x0/{data['id']}.jpg"
        first = library.get(path, status=307).headers["Location"]
        assert images.size_of(requests.get(first, timeout=30).content) == (60, 40)
        site.storage.delete([key for key in library.keys if key.startswith("private")])
        again = library.get(path, status=307).headers["Location"]
        assert images.size_of(requests.get(again, timeout=30).content) == (60, 40)


class TestReadonly:
    def test_serves_existing_variants_only(self, make_site, kinto_settings, file_settings):
        common = {
            **kinto_settings("postgresql", fresh=True),
            **file_settings("local"),
            **settings("site"),
        }
        library = MediaLibrary(Site(**common))
        data = library.add()
        result = library.get(f"image/60x0/{data['id']}.jpg").body
        readonly = Site(**common, **{"kinto.readonly": "true"})
        assert readonly.http.get(f"/image/60x0/{data['id']}.jpg").body == result
        readonly.http.get(f"/image/61x0/{data['id']}.jpg", status=503)
        readonly.http.get(f"/original/{data['id']}.jpg")
        for site in (library.site, readonly):
            site.close()


class TestResponseCache:
    SECONDS = {"kinto.attachment.images.cache_seconds": "100"}

    @pytest.fixture
    def library(self, make_server):
        return MediaLibrary(make_server("local", **settings("site", **self.SECONDS)))

    def reads(self, library, monkeypatch):
        """Return a list that receives the arguments of each read from Kinto's storage."""
        reads = []
        storage = library.site.registry.storage
        original = storage.get

        def get(*arguments, **options):
            reads.append(arguments)
            return original(*arguments, **options)

        monkeypatch.setattr(storage, "get", get)
        return reads

    def test_remembers_public_images(self, library, monkeypatch):
        data = library.add()
        path = f"image/60x0/{data['id']}.jpg"
        first = library.get(path)
        reads = self.reads(library, monkeypatch)
        again = library.get(path)
        assert reads == []
        assert again.body == first.body
        same = ("ETag", "Cache-Control", "Content-Type", "Content-Disposition", "Vary",
                "Content-Security-Policy", "X-Content-Type-Options", "Last-Modified")  # fmt: skip
        assert [again.headers[name] for name in same] == [first.headers[name] for name in same]
        library.get(path, headers={"If-None-Match": first.headers["ETag"]}, status=304)
        assert library.http.head(f"/{path}").content_length == len(first.body)
        library.get(path, headers={"Range": "bytes=1-2"}, status=206)
        assert reads == []

    def test_is_not_used_for_authenticated_requests(self, library, monkeypatch):
        data = library.add()
        path = f"image/60x0/{data['id']}.jpg"
        library.get(path)
        reads = self.reads(library, monkeypatch)
        assert library.get(path, headers=ALICE).headers["Cache-Control"].startswith("private, ")
        assert len(reads) == 1
        response = library.get(path, headers={"Origin": "https://example.com"})
        assert response.headers["Access-Control-Allow-Origin"]
        assert len(reads) == 2

    def test_forgets_after_some_seconds(self, library, monkeypatch):
        data = library.add()
        path = f"image/60x0/{data['id']}.jpg"
        library.get(path)
        library.http.patch_json(library.uri, {"permissions": {"read": []}}, headers=ALICE)
        library.get(path)
        later = SimpleNamespace(monotonic=lambda: time.monotonic() + 101)
        monkeypatch.setattr(response_cache, "time", later)
        library.get(path, status=401)

    def test_does_not_answer_for_a_deleted_image(self, library):
        data = library.add()
        path = f"image/60x0/{data['id']}.jpg"
        library.get(path)
        library.http.delete(f"/content/_media/{data['id']}", headers=ALICE)
        library.get(path, status=404)  # The cache still knows the key, but the bytes are gone.

    def test_remembers_nothing_private(self, make_server):
        site = make_server("local", **settings("site", **self.SECONDS))
        library = MediaLibrary(site, readers=())
        data = library.add()
        path = f"image/60x0/{data['id']}.jpg"
        library.get(path, headers=ALICE)
        library.get(path, status=401)
