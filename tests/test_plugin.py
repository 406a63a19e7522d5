"""What the plugin adds to Kinto besides routes: capability, heartbeat, metrics."""

import io
import json

import pytest
from kinto.core.metrics import IMetricsService, NoOpMetricsService
from pyramid.exceptions import ConfigurationError
from pyramid_storage.exceptions import FileNotAllowed
from pyramid_storage.interfaces import IFileStorage

import kinto_attachment
from kinto_attachment.errors import StorageUnavailable
from kinto_attachment.images.worker.pool import WorkerPool
from kinto_attachment.legacy.pyramid_storage import IFileStorage as OwnIFileStorage
from tests.support.site import ALICE, Site


class TestCapability:
    def capability(self, site, name="attachments"):
        return site.http.get("/").json["capabilities"][name]

    def test_describes_the_plugin(self, make_site):
        capability = self.capability(make_site())
        assert {"pdf", "jpg"} <= set(capability.pop("extensions"))
        assert capability == {
            "description": "Attach files to any record: POST, GET or DELETE {record}/attachment,"
            " and {record}/attachments/{field} for other fields",
            "fields": True,
            "resumable": True,
            "direct": True,
            "url": "https://github.com/Kinto/kinto-attachment/",
            "version": kinto_attachment.__version__,
            "base_url": "https://cdn.example/files/",
            "images": True,
            "private": False,
        }

    def test_has_what_is_accepted(self, make_site):
        names = {"max_size": "10", "extensions": "jpg+.png", "private": "true"}
        site = make_site(**{f"kinto.attachment.{name}": names[name] for name in names})
        capability = self.capability(site)
        assert capability["max_size"] == 10
        assert capability["extensions"] == ["jpg", "png"]
        assert capability["private"] is True
        assert self.capability(site, "media_store")["max_size"] == 10
        form = {"upload_files": [("attachment", "a.gif", b"x")], "headers": ALICE}
        record = site.collection().record()
        site.http.post(f"{record.uri}/attachment", status=400, **form)

    def test_lacks_limits_that_do_not_exist(self, make_site):
        site = make_site(**{"kinto.attachment.extensions": "any"})
        assert not {"max_size", "extensions"} & self.capability(site).keys()
        assert "max_size" not in self.capability(site, "media_store")

    def test_of_the_library(self, make_site):
        library = {"kinto.attachment.library.bucket": "site"}
        capability = self.capability(make_site(**library), "media_library")
        assert (capability["bucket"], capability["collection"]) == ("site", "media")
        assert capability["images"] is True and capability["unsplash"] is False
        key = {"kinto.attachment.unsplash.access_key": "key"}
        assert self.capability(make_site(**library, **key), "media_library")["unsplash"] is True
        assert "media_library" not in make_site().http.get("/").json["capabilities"]

    def test_says_if_images_cannot_be_resized(self, make_site, monkeypatch):
        monkeypatch.setattr(WorkerPool, "is_installed", lambda: False)
        never_made_before = {"kinto.attachment.max_size": "123456"}
        assert self.capability(make_site(**never_made_before))["images"] is False

    def test_extra_base_url_goes_first(self, make_site):
        site = make_site(
            **{"kinto.attachment.base_url": "", "kinto.attachment.extra.base_url": "https://x.org"}
        )
        assert self.capability(site)["base_url"] == "https://x.org/"

    def test_has_no_base_url_rather_than_null(self, make_site):
        # Kinto Admin crashes on null.
        assert "base_url" not in self.capability(make_site(**{"kinto.attachment.base_url": ""}))


class TestHeartbeat:
    def test_writes_reads_and_deletes(self, site, monkeypatch):
        calls = []
        for name in ("put", "open", "delete"):
            original = getattr(site.storage, name)

            def call(*args, name=name, original=original):
                calls.append(name)
                return original(*args)

            monkeypatch.setattr(site.storage, name, call)
        assert site.http.get("/__heartbeat__").json["attachments"] is True
        assert calls == ["put", "open", "delete"]
        assert list(site.storage.list("__heartbeat__/")) == []

    @pytest.mark.parametrize("name", ["spool", "put", "open", "delete"])
    def test_is_false_when_one_fails(self, site, monkeypatch, name):
        def fail(*args):
            raise StorageUnavailable("key")

        monkeypatch.setattr(site.storage, name, fail)
        assert site.http.get("/__heartbeat__", status=503).json["attachments"] is False

    def test_is_false_when_other_bytes_come_back(self, site, monkeypatch):
        monkeypatch.setattr(site.storage, "open", lambda key: iter([b"other"]))
        assert site.http.get("/__heartbeat__", status=503).json["attachments"] is False

    def test_writes_nothing_when_readonly(self, make_site, kinto_settings, file_settings, files):
        settings = {**kinto_settings("memory"), **file_settings(files)}
        site = Site(**settings, **{"kinto.readonly": "true"})
        site.storage.put = None
        assert site.http.get("/__heartbeat__", status="*").json["attachments"] is True


@pytest.mark.parametrize("kinto", ["memory", "postgresql"])
def test_attachments_are_counted(kinto_settings, file_settings, kinto):
    """By Kinto's plugin, which knows the rows of the existing plugin."""
    site = Site(
        **kinto_settings(kinto, fresh=True),
        **file_settings("local"),
        **{"kinto.includes": "kinto_attachment kinto.plugins.counters"},
    )
    records = [site.collection().record() for _ in range(3)]
    for record in records:
        record.upload()
    assert site.http.get("/__counters__").json["objects"]["attachments"] == 3
    records[0].detach()
    counters = site.http.get("/__counters__").json
    assert counters["objects"]["attachments"] == 2
    assert counters["tombstones"]["attachments"] == 1
    site.close()


class TestMetrics:
    def test_storage_calls_are_timed(self, kinto_settings, file_settings):
        keys = []

        class Metrics(NoOpMetricsService):
            def timer(self, key, value=None, labels=()):
                keys.append((key, dict(labels).get("method")))
                return super().timer(key)

        site = make_with_metrics(Metrics(), **kinto_settings("memory"), **file_settings("local"))
        methods = {method for key, method in keys if key == "backend.localfilestorage.seconds"}
        assert {"put", "open", "delete", "stat", "list"} <= methods
        site.collection().record().upload(status=201)


def make_with_metrics(metrics, **settings):
    from pyramid.config import Configurator

    original = Configurator.make_wsgi_app

    def make_wsgi_app(self):
        self.registry.registerUtility(metrics, IMetricsService)
        return original(self)

    Configurator.make_wsgi_app = make_wsgi_app
    try:
        return Site(**settings)
    finally:
        Configurator.make_wsgi_app = original


class TestRegistry:
    """As pyramid_storage's backends are found and called."""

    @pytest.fixture
    def attachment(self, site):
        assert OwnIFileStorage is IFileStorage
        return site.registry.getUtility(IFileStorage)

    def test_request_has_it(self, make_site):
        from pyramid.request import Request, apply_request_extensions

        site = make_site()
        request = Request.blank("/")
        request.registry = site.registry
        apply_request_extensions(request)
        assert request.attachment is site.registry.getUtility(IFileStorage)

    def test_save_exists_url_delete(self, attachment):
        class Upload:
            file = io.BytesIO(b"content")
            filename = "my photo.jpg"

        key = attachment.save(Upload, folder="app", randomize=True)
        assert key.startswith("app/") and key.endswith(".jpg")
        assert attachment.exists(key)
        assert attachment.url(key) == f"https://cdn.example/files/{key}"
        assert b"".join(attachment.storage.open(key)) == b"content"
        assert attachment.delete(key) is True
        assert attachment.delete(key) is False
        assert not attachment.exists(key)
        assert attachment.url("") == "https://cdn.example/files/"

    def test_save_file_never_replaces(self, attachment):
        from uuid import uuid4

        folder = f"app/{uuid4().hex}"
        keys = {
            attachment.save_file(io.BytesIO(b"%d" % index), "../a b.txt", folder=folder)
            for index in range(3)
        }
        assert len(keys) == 3
        assert all(key.startswith(folder) for key in keys)

    def test_save_filename(self, attachment, tmp_path):
        (tmp_path / "a.txt").write_bytes(b"content")
        key = attachment.save_filename(str(tmp_path / "a.txt"), randomize=True)
        assert b"".join(attachment.storage.open(key)) == b"content"

    def test_extensions(self, attachment):
        for extensions in (None, "images", ("jpg",)):
            with pytest.raises(FileNotAllowed):
                attachment.save_file(io.BytesIO(b"x"), "a.exe", extensions=extensions)
        assert attachment.save_file(io.BytesIO(b"x"), "a.exe", extensions=(), randomize=True)

    def test_path(self, make_site, files):
        attachment = make_site("memory", files).registry.getUtility(IFileStorage)
        if files == "local":
            assert attachment.path("a/b").endswith("/root/a/b")
        else:
            with pytest.raises(NotImplementedError):
                attachment.path("a/b")


class TestTrustedCopies:
    """kinto-signer copies records between collections, and says so on the request."""

    def test_are_accepted_and_keep_the_bytes(self, site, copying):
        source = site.collection().record("r")
        attachment = source.upload(b"content").json
        copy = site.collection().record("r")
        copy.put(headers=copying, attachment=attachment)
        assert copy.data["attachment"] == attachment
        # The source gets another file, and is deleted: the copy still has its bytes.
        source.upload(b"newer")
        assert site.read(attachment["location"]) == b"content"
        site.http.delete(source.collection.uri, headers=ALICE)
        assert site.read(attachment["location"]) == b"content"
        # They are deleted with the copy.
        site.http.delete(copy.uri, headers=ALICE)
        assert list(site.storage.list(f"{source.collection.bucket}/")) == []

    def test_replace_what_was_copied_before(self, site, copying):
        source, copy = site.collection().record("r"), site.collection().record("r")
        for content in (b"first", b"second"):
            attachment = source.upload(content).json
            copy.put(headers=copying, attachment=attachment)
            assert site.read(copy.data["attachment"]["location"]) == content
        assert len(source.collection.keys) == 1

    def test_are_refused_without_the_mark(self, site):
        source, copy = site.collection().record("r"), site.collection().record("r")
        attachment = source.upload(b"content").json
        body = {"data": {"attachment": attachment}}
        site.http.put_json(copy.uri, body, headers=ALICE, status=400)


class TestStart:
    def test_nothing_configured(self, kinto_settings):
        with pytest.raises(ConfigurationError, match="attachment.base_path: no storage is conf"):
            Site(**kinto_settings("memory"))

    def test_unknown_setting(self, kinto_settings, file_settings):
        settings = {**kinto_settings("memory"), **file_settings("local")}
        with pytest.raises(
            ConfigurationError, match="kinto.attachment.basepath: unknown; did you mean"
        ):
            Site(**settings, **{"kinto.attachment.basepath": "/tmp"})

    def test_base_path_that_is_a_file(self, kinto_settings, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(ConfigurationError, match="attachment.base_path: .* is not a folder"):
            Site(
                **kinto_settings("memory"),
                **{"kinto.attachment.base_path": str(tmp_path / "file")},
            )

    def test_error_is_json_when_nothing_matches(self, make_site):
        response = make_site().http.get("/nope", status=404)
        assert json.loads(response.body)["code"] == 404
