"""Storages of other packages."""

from importlib.metadata import EntryPoint

import pytest

from kinto_attachment import storage as module
from kinto_attachment.errors import SettingError
from kinto_attachment.settings import read_settings
from kinto_attachment.storage import open_storage
from kinto_attachment.storage.staged import sign
from kinto_attachment.storage.testing import StorageTest
from tests.support.own_storage import OwnStorage

PATH = "tests.support.own_storage.OwnStorage"
OWN = {"attachment.storage": PATH, "attachment.storage.place": "here"}


class TestOwnStorage(StorageTest):
    """The shipped suite."""

    @pytest.fixture
    def storage(self):
        return OwnStorage("suite", "https://cdn.example/files/")


def test_a_class_by_its_path():
    for path in (PATH, "tests.support.own_storage:OwnStorage"):
        settings = read_settings({**OWN, "attachment.storage": path, "attachment.base_url": "/f"})
        storage = open_storage(settings)
        assert isinstance(storage, OwnStorage)
        assert storage.url("a") == "/f/a"
        assert sign(storage, "a", expires=60) is None


def test_an_entry_point(monkeypatch):
    point = EntryPoint("own", "tests.support.own_storage:OwnStorage", "kinto_attachment.storage")

    def entry_points(group, name):
        return [point] if (group, name) == (point.group, point.name) else []

    monkeypatch.setattr(module, "entry_points", entry_points)
    assert isinstance(open_storage(read_settings({**OWN, "attachment.storage": "own"})), OwnStorage)


@pytest.mark.parametrize(
    "settings, message",
    [
        (
            {"attachment.storage": "tape"},
            "attachment.storage: 'tape' is not a storage, use auto, local, s3",
        ),
        (
            {"attachment.storage": "no.such.Storage"},
            "no.such.Storage cannot be loaded",
        ),
        ({"attachment.storage": f"{PATH}s"}, f"attachment.storage: {PATH}s cannot be loaded"),
        ({"attachment.storage": "json.JSONDecoder"}, "json.JSONDecoder cannot be loaded"),
        (
            {"attachment.storage": "tests.support.own_storage.Incomplete"},
            "attachment.storage: tests.support.own_storage.Incomplete does not provide IStorage",
        ),
        ({"attachment.storage": PATH}, "attachment.storage.place: this storage needs a place"),
        ({**OWN, "attachment.download": "redirect"}, f"attachment.download: {PATH} cannot sign"),
        (
            {**OWN, "attachment.download": "accel"},
            f"attachment.download: {PATH} keeps no local files",
        ),
    ],
)
def test_refused(settings, message):
    with pytest.raises(SettingError) as error:
        open_storage(read_settings(settings))
    assert message in str(error.value)


@pytest.mark.parametrize("storage", ["memory", "local", "auto"])
def test_options_are_not_for_our_own_storages(storage):
    given = {"attachment.storage": storage, "attachment.base_path": "/srv"}
    with pytest.raises(SettingError, match="attachment.storage.place: is only for a storage of an"):
        read_settings({**given, "attachment.storage.place": "here"})
