"""What Kinto is spared when it writes a record for an upload, and that nothing else is."""

from contextlib import contextmanager

import pytest
from kinto.core.events import ResourceChanged
from kinto.core.resource.model import Model
from kinto.views.records import Record as RecordResource
from sqlalchemy import event

from .conftest import in_thread
from .site import ALICE

TOMORROW = 4102444800000
"""Milliseconds, in 2100: a client may say when a record was modified."""


@pytest.fixture
def timestamps(site):
    """Of the events of records, as they come."""
    seen = []

    def listener(event):
        if event.payload["resource_name"] == "record":
            seen.append(event.payload["timestamp"])

    site.registry.registerHandler(listener, (ResourceChanged,))
    yield seen
    site.registry.unregisterHandler(listener, (ResourceChanged,))


def collection_timestamp(record) -> int:
    response = record.http.get(f"{record.collection.uri}/records", headers=ALICE)
    return int(response.headers["ETag"].strip('"'))


class TestTimestamp:
    def test_of_the_event_is_that_of_the_collection(self, record, timestamps):
        for operation in (record.upload, record.upload, record.detach):
            operation()
            assert timestamps.pop() == record.data["last_modified"] == collection_timestamp(record)
        assert timestamps == []

    def test_of_a_client_in_the_past(self, record, timestamps):
        other = record.collection.record()
        other.upload()
        timestamps.clear()
        record.upload(data={"last_modified": 1000})
        assert record.data["last_modified"] == 1000
        assert timestamps == [other.data["last_modified"]] == [collection_timestamp(record)]

    def test_of_a_client_in_the_future(self, record, timestamps):
        record.upload(data={"last_modified": TOMORROW})
        assert record.data["last_modified"] == TOMORROW
        assert timestamps == [TOMORROW] == [collection_timestamp(record)]
        record.upload(b"again")
        assert timestamps[1:] == [TOMORROW + 1] == [collection_timestamp(record)]

    def test_of_an_answer(self, record):
        response = record.upload()
        assert response.headers["ETag"] == f'"{record.data["last_modified"]}"'

    def test_of_a_collection_whose_record_is_not_there(self, record):
        """Kinto says it when the precondition fails that the record is there."""
        other = record.collection.record()
        other.upload()
        headers = {**ALICE, "If-Match": '"1000"'}
        record.upload(headers=headers, status=412)
        assert record.snapshot()[0] == 404


class TestPermissions:
    def test_are_the_uploaders(self, record):
        record.upload()
        user = record.http.get("/", headers=ALICE).json["user"]["id"]
        found = record.http.get(record.uri, headers=ALICE).json["permissions"]
        assert found == {"write": [user]}

    def test_stay_when_the_file_goes(self, record):
        record.upload(permissions={"read": ["system.Everyone"]})
        before = record.http.get(record.uri, headers=ALICE).json["permissions"]
        record.upload(b"again")
        record.detach()
        assert record.http.get(record.uri, headers=ALICE).json["permissions"] == before
        assert before["read"] == ["system.Everyone"]


class TestCreation:
    def test_loses_its_race_within_the_write(self, site, record, monkeypatch):
        """Nothing looks for the record again before it is written."""
        create = site.registry.storage.create

        def create_late(resource_name, *arguments, **options):
            if resource_name == "record":
                monkeypatch.undo()
                in_thread(lambda: record.put(family="sans"))
            return create(resource_name, *arguments, **options)

        monkeypatch.setattr(site.registry.storage, "create", create_late)
        record.upload(b"content", status=200)
        record.check(b"content")
        assert record.data["family"] == "sans"

    def test_loses_its_race_and_its_precondition(self, site, record, monkeypatch):
        create = site.registry.storage.create

        def create_late(resource_name, *arguments, **options):
            if resource_name == "record":
                monkeypatch.undo()
                in_thread(lambda: record.put(family="sans"))
            return create(resource_name, *arguments, **options)

        monkeypatch.setattr(site.registry.storage, "create", create_late)
        headers = {**ALICE, "If-None-Match": "*"}
        record.upload(b"content", headers=headers, status=412)
        assert "attachment" not in record.data
        assert record.collection.keys == record.collection.links == []

    def test_of_what_was_deleted(self, record):
        record.upload(b"first")
        record.http.delete(record.uri, headers=ALICE)
        record.upload(b"second", status=201)
        record.check(b"second")


@contextmanager
def statements(site):
    """What is asked of PostgreSQL meanwhile."""
    engine = site.registry.storage.client.session_factory.session_factory.kw["bind"]
    asked = []

    def remember(connection, cursor, statement, *_):
        asked.append(statement)

    event.listen(engine, "before_cursor_execute", remember)
    yield asked
    event.remove(engine, "before_cursor_execute", remember)


class TestStatements:
    """As few as benchmarks/README.rst says, and no history."""

    @pytest.fixture
    def record(self, make_server):
        site = make_server("local", **{"kinto.includes": "kinto_attachment"})
        site.collection().record().upload()  # it asks for what 8.0.0 left, once
        return site.collection().record()

    @pytest.mark.parametrize("operation", ["create", "replace", "detach"])
    def test_are_few(self, record, operation):
        if operation != "create":
            record.upload()
        call = record.detach if operation == "detach" else record.upload
        with statements(record.site) as asked:
            call()
        assert len(asked) == {"create": 11, "replace": 19, "detach": 18}[operation], asked

    def test_of_other_requests_are_kintos_own(self, record, monkeypatch):
        counts = []
        record.put()
        for _ in range(2):
            other = record.collection.record()
            with statements(record.site) as asked:
                other.put(family="sans")
                other.http.patch_json(other.uri, {"data": {"family": "serif"}}, headers=ALICE)
                other.http.get(other.uri, headers=ALICE)
                other.http.delete(other.uri, headers=ALICE)
            counts.append(len(asked))
            monkeypatch.setattr(RecordResource, "default_model", Model)
        assert counts[0] == counts[1]
