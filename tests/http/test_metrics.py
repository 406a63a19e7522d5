"""Metrics: what a real server says at ``/__metrics__``, and what its log says of each request."""

import io
import logging
import time
from dataclasses import replace
from hashlib import sha256
from uuid import uuid4

import pytest
import requests
import transaction
from prometheus_client.parser import text_string_to_metric_families

from kinto_attachment.errors import ReplacedMeanwhile, StorageUnavailable
from kinto_attachment.images.admission import Applicant
from kinto_attachment.maintenance import gc
from kinto_attachment.maintenance.server import Server
from kinto_attachment.metrics import METRICS
from tests.support.library import MediaLibrary, jpeg
from tests.support.media import MediaClient
from tests.support.servers.outage import FaultyProxy
from tests.support.servers.unsplash import FakeUnsplash
from tests.support.servers.wsgi import Gunicorn
from tests.support.site import ALICE, SETTINGS, Site

AUTH = ("alice", "secret")
ASSETS = "/buckets/default/collections/assets/records"


TUS = {"Tus-Resumable": "1.0.0", "Upload-Metadata": "filename YS50eHQ="}


@pytest.fixture(scope="module")
def unsplash():
    with FakeUnsplash() as api:
        api.add("photo", jpeg(64, 48))
        yield api


@pytest.fixture(scope="module")
def server(unsplash, tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    settings = {
        "kinto.includes": f"{SETTINGS['kinto.includes']} kinto.plugins.prometheus",
        "kinto.attachment.base_path": str(folder / "files"),
        "kinto.attachment.fields": "attachment cover pictures[]",
        "kinto.attachment.library.bucket": "site",
        "kinto.attachment.images.cache_seconds": "60",
        "kinto.attachment.media.verifier": "thread",
        "kinto.attachment.unsplash.access_key": unsplash.key,
        "kinto.attachment.unsplash.api_url": unsplash.url,
    }
    with Gunicorn(settings, folder) as server:
        public = {"permissions": {"read": ["system.Everyone"]}}
        for path in ("/buckets/site", "/buckets/site/collections/media"):
            requests.put(f"{server.url}{path}", json=public, auth=AUTH).raise_for_status()
        yield server


class Scrape:
    """What a server says at ``/__metrics__``."""

    def __init__(self, server):
        text = requests.get(f"{server.url}/__metrics__", timeout=30).text
        self.families = {each.name: each for each in text_string_to_metric_families(text)}
        self._values = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def get(self, name, **labels):
        return self._values.get((f"kinto_attachments_{name}", frozenset(labels.items())), 0)


@pytest.fixture
def increase(server):
    """Return a function that says by how much a sample has increased in this test."""
    before = Scrape(server)

    def since(name, **labels):
        return Scrape(server).get(name, **labels) - before.get(name, **labels)

    return since


@pytest.fixture
def call(server):
    def request(method, path, status, **options):
        options = {"auth": AUTH, "timeout": 30, **options}
        response = requests.request(method, f"{server.url}{path}", **options)
        assert response.status_code == status, response.text
        return response

    return request


def form(field, content, name="lake.jpg"):
    return {field: (name, io.BytesIO(content))}


class TestScraped:
    def test_attachments(self, call, increase):
        path, content = f"{ASSETS}/one/attachment", b"a" * 1000
        for status in (201, 200):
            call("POST", path, status, files=form("attachment", content))
        call("POST", path, 400, files=form("attachment", b"x", "a.exe"))
        call("POST", path, 412, files=form("attachment", b"x"), headers={"If-Match": '"1"'})
        etag = call("GET", path, 200).headers["ETag"]
        call("GET", path, 206, headers={"Range": "bytes=0-99"})
        call("GET", path, 304, headers={"If-None-Match": etag})
        call("GET", f"{ASSETS}/none/attachment", 404)
        call("HEAD", path, 200)
        door = {"door": "attachments"}
        found = {
            result: increase("uploads_total", **door, result=result)
            for result in ("created", "updated", "refused", "failed", "pending")
        }
        assert found == {"created": 1, "updated": 1, "refused": 2, "failed": 0, "pending": 0}
        assert increase("received_bytes_sum", **door) == 2000
        assert increase("received_bytes_count", **door) == 2
        assert increase("upload_seconds_count", **door) == 4
        results = {
            result: increase("downloads_total", **door, result=result)
            for result in ("sent", "unchanged", "refused")
        }
        assert results == {"sent": 2, "unchanged": 1, "refused": 1}
        assert increase("sent_bytes_sum", **door) == 1100
        assert increase("download_seconds_count", **door) == 2
        assert increase("deletions_total", result="deleted") == 1  # the file that was replaced

    def test_fields(self, call, increase):
        path = f"{ASSETS}/fields/attachments"
        files = [
            ("cover", ("a.txt", b"a" * 100)),
            ("pictures", ("b.txt", b"b" * 20)),
            ("pictures", ("c.txt", b"c" * 3)),
        ]
        entry = call("POST", path, 201, files=files).json()["pictures"][0]["id"]
        call("POST", f"{path}/pictures", 201, files=form("pictures", b"d"))
        call("PUT", f"{path}/pictures/{entry}", 200, files=form("attachment", b"e"))
        call("POST", path, 400, files=form("other", b"f"))
        door = {"door": "attachments"}
        found = {
            result: increase("uploads_total", **door, result=result)
            for result in ("created", "updated", "refused")
        }
        assert found == {"created": 2, "updated": 1, "refused": 1}
        assert increase("received_bytes_sum", **door) == 125
        assert increase("received_bytes_count", **door) == 5
        call("GET", f"{path}/cover", 200)
        call("GET", f"{path}/pictures/{entry}", 200)
        for about_files in (path, f"{path}/pictures"):
            call("GET", about_files, 200)
        assert increase("downloads_total", **door, result="sent") == 2
        assert increase("sent_bytes_sum", **door) == 101

    def test_a_download_that_the_client_gives_up(self, call, increase, server):
        path = f"{ASSETS}/large/attachment"
        size = 20_000_000
        call("POST", path, 201, files=form("attachment", bytes(size)))
        for headers in ({}, {"Range": "bytes=1-"}):
            with requests.get(
                f"{server.url}{path}", auth=AUTH, headers=headers, stream=True, timeout=30
            ) as response:
                next(response.iter_content(1000))
        deadline = time.monotonic() + 20
        while increase("sent_bytes_count", door="attachments") < 2:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert 0 < increase("sent_bytes_sum", door="attachments") < size

    def test_media_store(self, call, increase):
        digest = sha256(b"stored").hexdigest()
        for status in (201, 200):
            call("POST", "/media", status, data=b"stored")
        call("PUT", f"/media/{digest}", 400, data=b"other")
        pending = sha256(b"later").hexdigest()
        call("POST", f"/media/{pending}?verify=false", 202, data=b"later")
        call("POST", f"/media/{'0' * 64}?verify=false", 202, data=b"wrong")
        call("POST", "/media", 401, data=b"x", auth=None)
        call("GET", f"/media/{digest}", 200)
        door = {"door": "media"}
        results = {
            result: increase("uploads_total", **door, result=result)
            for result in ("created", "updated", "pending", "refused")
        }
        assert results == {"created": 1, "updated": 1, "pending": 2, "refused": 2}
        assert increase("received_bytes_sum", **door) == 6 + 6 + 5 + 5
        assert increase("sent_bytes_sum", **door) == 6
        deadline = time.monotonic() + 20
        while not increase("pending_verifications_count"):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert increase("verifications_total", result="verified") == 1
        assert increase("verifications_total", result="refused") == 1

    def test_library_and_images(self, call, increase):
        content = jpeg(400, 300)
        uploaded = call("POST", "/media", 201, files=form("file", content), data={"save": "1"})
        call("POST", "/media", 400, files=form("file", content), data={"type": "file"})
        name = f"{uploaded.json()['id']}.jpg"
        for _ in range(2):
            call("GET", f"/image/20x0/{name}", 200)
        # The cache of the process gives the second and the third. Only a GET counts.
        for method in ("HEAD", "GET", "GET", "GET", "HEAD"):
            call(method, f"/original/{name}", 200, auth=None)
        call("GET", "/image/20x0/none.jpg", 404)
        broken = call("POST", "/media", 201, files=form("file", content[:1000]), data={"save": "1"})
        call("GET", f"/image/20x0/{broken.json()['id']}.jpg", 400)
        door = {"door": "library"}
        assert increase("uploads_total", **door, result="created") == 2
        assert increase("uploads_total", **door, result="refused") == 1
        assert increase("downloads_total", **door, result="sent") == 5
        assert increase("downloads_total", **door, result="refused") == 2
        assert increase("download_seconds_count", **door) == 5
        images = {
            result: increase("images_total", result=result)
            for result in ("made", "kept", "refused", "busy", "failed")
        }
        assert images == {"made": 1, "kept": 1, "refused": 1, "busy": 0, "failed": 0}
        assert increase("image_seconds_count") == 1
        assert increase("images_waiting_count") == 2

    def test_unsplash(self, call, increase):
        call("POST", "/unsplash/photo", 201)
        call("POST", "/unsplash/none", 404)
        door = {"door": "unsplash"}
        assert increase("uploads_total", **door, result="created") == 1
        assert increase("uploads_total", **door, result="refused") == 1
        assert increase("received_bytes_sum", **door) == len(jpeg(64, 48))

    def test_resumable_uploads(self, call, increase):
        path, begin = f"{ASSETS}/resumed/attachment/uploads", {**TUS, "Upload-Length": "5"}
        first, second = (
            call("POST", path, 201, headers=begin).headers["Location"].partition("/v1")[2]
            for _ in range(2)
        )
        sent = {**TUS, "Content-Type": "application/offset+octet-stream"}
        for offset, piece in enumerate((b"a", b"bcde")):
            call("PATCH", first, 204, data=piece, headers={**sent, "Upload-Offset": str(offset)})
        call("DELETE", second, 204, headers=TUS)
        found = {
            event: increase("resumable_total", event=event)
            for event in ("begun", "completed", "deleted", "expired")
        }
        assert found == {"begun": 2, "completed": 1, "deleted": 1, "expired": 0}
        assert increase("uploads_total", door="attachments", result="created") == 1
        assert increase("received_bytes_sum", door="attachments") == 5

    def test_batch_is_no_transfer(self, call, increase):
        operation = {"method": "POST", "path": f"/v1{ASSETS}/one/attachment", "body": {}}
        call("POST", "/batch", 200, json={"requests": [operation]})
        assert increase("uploads_total", door="attachments", result="refused") == 0

    def test_counters_begin_at_zero(self, server):
        families = Scrape(server).families
        for metric in METRICS:
            if metric.kind == "counter":
                family = families[f"kinto_{metric.name.replace('.', '_')}"]
                samples = [each for each in family.samples if each.name.endswith("_total")]
                found = [sorted(each.labels.items()) for each in samples]
                assert sorted(found) == sorted(sorted(labels) for labels in metric.series)

    def test_labels_are_those_of_the_table(self, server):
        """No label has values that clients choose."""
        known = {f"kinto_{metric.name.replace('.', '_')}": metric for metric in METRICS}
        for name, family in Scrape(server).families.items():
            if name.startswith("kinto_attachments_"):
                metric = known[name.removesuffix("_created")]
                for sample in family.samples:
                    for label, value in sample.labels.items():
                        assert label == "le" or value in metric.labels[label]


class Recorder:
    """A metrics service that keeps what it is told."""

    def __init__(self):
        self.counted = {}
        self.observed = {}

    def timer(self, key, value=None, labels=()):
        assert value is not None
        self.observed.setdefault(key, []).append(value)

    def observe(self, key, value, labels=()):
        self.observed.setdefault(key, []).append(value)

    def count(self, key, count=1, unique=None):
        name = (key, *(value for _, value in unique or ()))
        self.counted[name] = self.counted.get(name, 0) + count


@pytest.fixture
def record(monkeypatch):
    """Return a function that has a site tell a :class:`Recorder`."""

    def of(site):
        recorder = Recorder()
        monkeypatch.setattr(site.plugin.metrics, "_service", lambda: recorder)
        return recorder

    return of


def deletions(recorder):
    return {
        name[1]: count
        for name, count in recorder.counted.items()
        if name[0] == "attachments.deletions" and count
    }


class TestWhatFails:
    def test_files_that_are_left_and_deleted_late(self, make_server, record, monkeypatch):
        site = make_server("local")
        recorder, made = record(site), site.collection().record()
        made.upload(b"old", status=201)

        def fail(keys):
            raise StorageUnavailable("key")

        with monkeypatch.context() as patch:
            patch.setattr(site.storage, "delete", fail)
            made.upload(b"new", status=200)
        assert deletions(recorder) == {"left": 1}
        list(gc.collect(Server.of(site.registry, transaction.manager)))
        assert deletions(recorder) == {"left": 1, "late": 1}

    def test_storage_that_is_down(self, kinto_settings, record, tmp_path):
        with FaultyProxy(1) as line:
            line.silence()
            s3 = {"bucket_name": "b", "endpoint_url": line.url, "access_key": "a"}
            s3 |= {"secret_key": "s", "timeout": "0.4", "num_retries": "0"}
            more = {f"kinto.attachment.aws.{name}": value for name, value in s3.items()}
            site = Site(**kinto_settings("memory"), **more)
            recorder = record(site)
            for _ in range(4):
                site.http.post("/media", b"content", headers=ALICE, status=503)
        counted = recorder.counted
        assert counted["attachments.uploads", "media", "failed"] == 4
        assert counted["attachments.breaker", "opened"] == 1
        assert counted["attachments.breaker", "refused"] >= 1
        assert "attachments.received_bytes" not in recorder.observed

    def test_image_that_cannot_be_made_now(self, kinto_settings, file_settings, record):
        site = Site(
            **kinto_settings("memory"),
            **file_settings("local"),
            **{"kinto.attachment.library.bucket": "site", "kinto.attachment.images.queue": "0"},
        )
        library, recorder = MediaLibrary(site), record(site)
        made = library.add()
        pool = site.registry.attachment_images._workers
        with pool.admit(Applicant("other", "other")):
            library.get(f"image/20x0/{made['id']}.jpg", status=503)
        assert recorder.counted["attachments.images", "busy"] == 1
        assert recorder.observed["attachments.images_waiting"] == [1]
        site.close()

    def test_pending_verifications(self, kinto_settings, file_settings, record):
        site = Site(**kinto_settings("memory"), **file_settings("local"))
        recorder = record(site)
        for content in (b"one", b"two"):
            url = f"/media/{sha256(content).hexdigest()}?verify=false"
            site.http.post(url, content, headers=ALICE, status=202)
        assert MediaClient(site).verify() == ["verified", "verified"]
        assert recorder.counted["attachments.verifications", "verified"] == 2


class TestSummary:
    """Kinto's log ``request.summary``."""

    @pytest.fixture
    def summaries(self, caplog):
        with caplog.at_level(logging.INFO, logger="request.summary"):
            yield lambda: [each for each in caplog.records if each.name == "request.summary"]

    def test_of_uploads_and_downloads(self, make_site, summaries):
        site, content = make_site(), b"content"
        made = site.collection().record()
        made.upload(content, status=201)
        site.http.get(made.attachment_uri, headers=ALICE)
        for summary in summaries()[-2:]:
            assert summary.attachment_size == len(content)
            assert summary.hash == sha256(content).hexdigest()
            assert summary.storage_ms >= 0

    def test_of_several_files(self, make_site, summaries):
        site = make_site(**{"kinto.attachment.fields": "pictures[]"})
        files = [("pictures", name, b"x") for name in ("a.txt", "b.txt")]
        site.http.post(f"{ASSETS}/r/attachments", upload_files=files, headers=ALICE)
        assert summaries()[-1].attachment_size == 2
        assert not hasattr(summaries()[-1], "hash")

    def test_of_the_default_bucket(self, make_site, summaries):
        site = make_site()
        url = f"{ASSETS}/r/attachment"
        files = [("attachment", "a.txt", b"in default")]
        site.http.post(url, upload_files=files, headers=ALICE)
        assert summaries()[-1].attachment_size == 10

    def test_of_the_media_store(self, make_site, summaries):
        site = make_site()
        digest = site.http.post("/media", b"stored", headers=ALICE).text
        site.http.get(f"/media/{digest}", headers=ALICE)
        assert [each.hash for each in summaries()[-2:]] == [digest, digest]

    def test_of_a_file_of_unknown_size(self, make_site, summaries):
        """Its row was written by other means. The storage tells the size."""
        site, content = make_site(), uuid4().bytes
        digest = site.http.post("/media", content, headers=ALICE).text
        [link] = [each for each in site.links.all() if each.digest == digest]
        site.links.add(replace(link, size=None))
        assert site.http.get(f"/media/{digest}", headers=ALICE).body == content
        assert summaries()[-1].attachment_size == len(content)

    def test_of_other_requests(self, make_site, summaries):
        make_site().http.get("/")
        assert not hasattr(summaries()[-1], "attachment_size")


def test_a_repeated_request_is_counted_once(make_site, monkeypatch):
    site = make_site("postgresql", **{"kinto.attachment.max_size": "1000001"})
    counted = []
    metrics = site.plugin.metrics
    monkeypatch.setattr(metrics, "_call", lambda *call, **labels: counted.append((call[1], labels)))
    link, failures = site.links.add, iter([ReplacedMeanwhile()] * 2)

    def fail_twice(*args, **options):
        error = next(failures, None)
        if error:
            raise error
        return link(*args, **options)

    monkeypatch.setattr(site.links, "add", fail_twice)
    record = site.collection().record()
    record.upload(b"content")
    assert next(failures, None) is None
    names = [name for name, _ in counted]
    assert names.count("uploads") == names.count("upload_seconds") == 1
    assert names.count("received_bytes") == 1

    def test_direct_uploads(self, call, increase):
        path = f"{ASSETS}/direct/attachment/uploads"
        as_json = {"Content-Type": "application/json"}
        announced = b'{"filename": "a.txt", "size": 5, "hash": "%s"}'
        right, wrong = (sha256(content).hexdigest().encode() for content in (b"abcde", b"x"))
        begun = [
            call("POST", path, 201, data=announced % digest, headers=as_json).json()
            for digest in (right, wrong, right)
        ]
        for each in begun[:2]:
            call("PUT", each["url"].partition("/v1")[2], 200, data=b"abcde")
        for each, status in zip(begun, (201, 400), strict=False):
            call("POST", each["complete"].partition("/v1")[2], status)
        call("DELETE", f"{path}/{begun[2]['id']}", 204)
        events = ("begun", "completed", "refused", "deleted", "expired")
        found = {event: increase("direct_total", event=event) for event in events}
        assert list(found.values()) == [3, 1, 1, 1, 0]
        assert increase("uploads_total", door="attachments", result="created") == 1
        assert increase("received_bytes_sum", door="attachments") == 5
