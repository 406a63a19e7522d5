"""The statements that Kinto saves when it writes a record for an upload, and none else."""

import time
from contextlib import contextmanager

import pytest
from kinto.core.events import ResourceChanged
from kinto.core.resource import Resource
from kinto.core.resource.model import Model
from kinto.views.records import Record as RecordResource
from sqlalchemy import event

from kinto_attachment.attachments import records
from tests.support.site import ALICE, BOB
from tests.support.threads import in_thread

TOMORROW = 4102444800000
"""Milliseconds, in 2100: a client may say when a record was modified."""


@pytest.fixture
def site(make_site, kinto):
    """The file storage makes no difference here."""
    return make_site(kinto)


@pytest.fixture
def timestamps(site):
    """The timestamps of the events of records, in their order."""
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

    def test_of_a_client_in_the_past_and_a_new_collection(self, site, timestamps):
        """A collection has a timestamp before its first record."""
        started = time.time()
        record = site.collection().record()
        response = record.upload(data={"last_modified": 1000})
        assert response.headers["ETag"] == '"1000"'
        assert timestamps == [collection_timestamp(record)]
        assert timestamps[0] / 1000 == pytest.approx(started, abs=30)

    def test_of_a_client_in_the_future(self, record, timestamps):
        record.upload(data={"last_modified": TOMORROW})
        assert record.data["last_modified"] == TOMORROW
        assert timestamps == [TOMORROW] == [collection_timestamp(record)]
        record.upload(b"again")
        assert timestamps[1:] == [TOMORROW + 1] == [collection_timestamp(record)]

    def test_of_a_response(self, record):
        response = record.upload()
        assert response.headers["ETag"] == f'"{record.data["last_modified"]}"'

    def test_of_a_collection_without_the_record(self, record):
        """Kinto tells it when the precondition that the record exists fails."""
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
    @pytest.fixture
    def between(self, site, monkeypatch):
        """Call a function right before the record is created, after the last look for it."""

        def install(call):
            create = site.registry.storage.create

            def create_late(resource_name, *arguments, **options):
                if resource_name == "record":
                    monkeypatch.undo()
                    in_thread(call)
                return create(resource_name, *arguments, **options)

            monkeypatch.setattr(site.registry.storage, "create", create_late)

        return install

    @pytest.fixture
    def while_it_comes(self, site, monkeypatch):
        """Call a function once, after the look for the record and before it is written."""

        def install(call):
            put = site.storage.put

            def put_slowly(key, source):
                put(key, source)
                monkeypatch.undo()
                in_thread(call)

            monkeypatch.setattr(site.storage, "put", put_slowly)

        return install

    def test_loses_its_race(self, record, between):
        between(lambda: record.put(family="sans"))
        record.upload(b"content", status=200)
        record.check(b"content")
        assert record.data["family"] == "sans"

    def test_loses_its_race_and_its_precondition(self, record, between):
        between(lambda: record.put(family="sans"))
        record.upload(b"content", headers={**ALICE, "If-None-Match": "*"}, status=412)
        assert "attachment" not in record.data
        assert record.collection.keys == record.collection.links == []

    def test_is_judged_as_the_update_that_it_became(self, site, while_it_comes):
        schema = {"type": "object", "required": ["family"]}
        record = site.collection(schema=schema).record()
        while_it_comes(lambda: record.put(family="sans"))
        record.upload(b"content", status=200)
        record.check(b"content")

    def test_by_a_user_who_may_only_create(self, record, while_it_comes):
        may = {"permissions": {"record:create": ["system.Authenticated"]}}
        record.http.patch_json(record.collection.uri, may, headers=ALICE)
        while_it_comes(lambda: record.put(family="sans"))
        record.upload(b"content", headers={**BOB, "If-None-Match": "*"}, status=412)
        while_it_comes(lambda: None)
        record.upload(b"content", headers=BOB, status=403)
        assert record.data["family"] == "sans"
        assert record.collection.keys == []

    def test_where_another_plugin_has_a_model(self, record, monkeypatch, while_it_comes):
        class Theirs(Model):
            pass

        while_it_comes(lambda: record.put(family="sans"))
        monkeypatch.setattr(RecordResource, "default_model", Theirs)
        record.upload(b"content", status=200)
        assert record.data["family"] == "sans"

    def test_of_a_record_that_was_deleted(self, record):
        record.upload(b"first")
        record.http.delete(record.uri, headers=ALICE)
        record.upload(b"second", status=201)
        record.check(b"second")


class TestModel:
    """The model, as plugins see it that wrap Kinto's resource of records."""

    @pytest.fixture
    def wrap(self, monkeypatch):
        def install(method, then):
            original = getattr(RecordResource, method)

            def wrapped(self, *arguments, **options):
                returned = original(self, *arguments, **options)
                then(self, *arguments)
                return returned

            monkeypatch.setattr(RecordResource, method, wrapped)

        return install

    def test_creates_others_under_their_own_id(self, record, wrap):
        def create(resource, *arguments):
            resource.model.create_object({"id": "companion", "secret": 1})

        wrap("process_object", create)
        record.upload(b"content", status=201)
        assert "secret" not in record.data
        uri = record.uri.replace(record.id, "companion")
        assert record.http.get(uri, headers=ALICE).json["data"]["secret"] == 1

    def test_reads_the_record_it_wrote(self, record, wrap):
        seen = []
        wrap("postprocess", lambda resource, *_: seen.append(resource.model.get_object(record.id)))
        record.upload(b"content")
        assert [each[record.field] for each in seen] == [record.data["attachment"]]

    def test_reads_another_collection(self, site, record, wrap):
        other = site.collection().record(record.id)
        other.put(family="sans")
        seen, timestamp = [], collection_timestamp(other)

        def read(resource, *arguments):
            model = resource.model
            seen.append(model.get_object(record.id, other.collection.uri)["family"])
            seen.append(model.timestamp(other.collection.uri))

        wrap("process_object", read)
        wrap("postprocess", read)
        record.upload(b"content")
        assert seen == ["sans", timestamp] * 2

    def test_has_the_timestamp_of_the_collection(self, record, wrap):
        before = collection_timestamp(record)
        seen = []
        wrap("process_object", lambda resource, *_: seen.append(resource.timestamp))
        record.upload(b"content")
        assert seen == [before]

    def test_says_that_permissions_are_not_known(self, record):
        seen = []
        original = RecordResource.postprocess

        def postprocess(self, result, *arguments, **options):
            seen.append(result["__permissions__"])
            return original(self, result, *arguments, **options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(RecordResource, "postprocess", postprocess)
            record.upload(b"content")
        assert seen == [{}]

    def test_is_a_class_for_subclasses(self):
        assert RecordResource.default_model is Model


@pytest.mark.parametrize("storage", ["memory", "no transactions"])
class TestUndo:
    """Undoing what Kinto's storage does not roll back."""

    @pytest.fixture
    def site(self, make_site, storage):
        more = {"kinto.transaction_per_request": "false"} if storage != "memory" else {}
        return make_site("memory" if storage == "memory" else "postgresql", **more)

    @pytest.fixture
    def record(self, site):
        return site.collection().record()

    @pytest.fixture
    def failing(self, site):
        """A listener that fails, once a record is written."""

        def listener(event):
            if event.payload["resource_name"] == "record":
                raise RuntimeError("a listener")

        yield lambda: site.registry.registerHandler(listener, (ResourceChanged,))
        site.registry.unregisterHandler(listener, (ResourceChanged,))

    def test_spares_a_concurrent_write(self, site, record, monkeypatch, failing):
        put = site.storage.put

        def put_slowly(key, source):
            put(key, source)
            monkeypatch.undo()
            in_thread(lambda: record.put(family="sans"))
            failing()

        monkeypatch.setattr(site.storage, "put", put_slowly)
        record.upload(b"content", status=500)
        assert record.data["family"] == "sans"
        assert "attachment" not in record.data
        assert record.collection.keys == record.collection.links == []

    def test_does_nothing_if_nothing_was_written(self, site, record, monkeypatch):
        record.upload(b"content")
        version = f'"{record.data["last_modified"]}"'
        build = records.build_request

        def late(*arguments):
            monkeypatch.undo()
            in_thread(lambda: record.put(attachment=None))
            return build(*arguments)

        monkeypatch.setattr(records, "build_request", late)
        record.detach(headers={**ALICE, "If-Match": version}, status=412)
        assert record.data["attachment"] is None
        assert record.collection.keys == record.collection.links == []


@contextmanager
def statements(site):
    """Yield a list of the statements that PostgreSQL gets during the block."""
    engine = site.registry.storage.client.session_factory.session_factory.kw["bind"]
    asked = []

    def remember(connection, cursor, statement, *_):
        asked.append(statement)

    event.listen(engine, "before_cursor_execute", remember)
    yield asked
    event.remove(engine, "before_cursor_execute", remember)


class TestStatements:
    """The number of statements that benchmarks/README.rst tells, without the history plugin."""

    @pytest.fixture
    def record(self, make_server):
        site = make_server("local", **{"kinto.includes": "kinto_attachment"})
        site.collection().record().upload()  # the first request looks for rows of version 8
        return site.collection().record()

    @pytest.mark.parametrize("operation", ["create", "replace", "detach"])
    def test_are_few(self, record, operation):
        if operation != "create":
            record.upload()
        call = record.detach if operation == "detach" else record.upload
        with statements(record.site) as asked:
            call()
        count = {"create": 11, "replace": 20, "detach": 21}[operation]
        if record.field != "attachment" and operation != "detach":
            count += 2  # an upload locks the record, as each deletion does, and reads it again
        assert len(asked) == count, asked

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
            monkeypatch.setattr(RecordResource, "timestamp", Resource.timestamp)
        assert counts[0] == counts[1]
