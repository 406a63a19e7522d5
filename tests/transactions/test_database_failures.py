"""The database dies at a commit, or refuses what another request wrote at the same moment."""

from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from uuid import uuid4

import psycopg2
import pytest
import requests
from sqlalchemy import event

from tests.support.library import MediaLibrary, jpeg
from tests.support.library import settings as library_settings
from tests.support.servers.wsgi import GunicornProcesses
from tests.support.site import ALICE, SETTINGS, Collection, Site
from tests.support.threads import in_thread

AUTH = ("alice", "secret")


@pytest.fixture
def site(make_site, files):
    """With a library; names by hash are reserved in transactions of their own."""
    by_hash = {"kinto.attachment.randomize": "false", "kinto.attachment.filename_pattern": "{hash}"}
    return make_site("postgresql", files, **library_settings("site"), **by_hash)


@pytest.fixture(params=["local", "seaweedfs"])
def files(request):
    return request.param


@pytest.fixture
def dying(site):
    """Let PostgreSQL end the connection of the n-th commit from now on."""
    client = site.registry.storage.client
    engine = client.session_factory.session_factory.kw["bind"]
    left = []

    def die(connection):
        if left and not left.pop():
            own = connection.connection.dbapi_connection
            url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
            admin = psycopg2.connect(url)
            with admin.cursor() as cursor:
                pid = own.info.backend_pid
                cursor.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
            admin.close()

    event.listen(engine, "commit", die)
    yield lambda commit: left.extend([False] + [True] * (commit - 1))
    left.clear()
    event.remove(engine, "commit", die)


def attach(record):
    return record.upload(b"second", status="*")


def store_media(record):
    return record.http.post("/media", uuid4().bytes, headers=ALICE, status="*")


def store_in_library(record):
    mimetype, body = record.http.encode_multipart([("save", "1")], [("file", "a.jpg", jpeg())])
    headers = {**ALICE, "Content-Type": mimetype}
    return record.http.post("/media", body, headers=headers, status="*")


def delete(record):
    return record.http.delete(record.uri, headers=ALICE, status="*")


def detach(record):
    return record.detach(status="*")


@pytest.mark.parametrize("commit", [1, 2, 3])
@pytest.mark.parametrize("request_", [attach, detach, delete, store_media, store_in_library])
def test_a_commit_that_fails_is_a_503(site, dying, request_, commit):
    MediaLibrary(site)
    record = site.collection().record()
    record.upload(b"first")
    dying(commit)
    response = request_(record)
    if response.status_int < 300:
        assert commit > 1  # it needs fewer commits, or the last one was that of what is left to do
        return
    assert response.status_int == 503, response.text
    assert response.json["errno"] == 201
    assert response.headers["Retry-After"]
    assert record.data["attachment"]["hash"] == sha256(b"first").hexdigest()
    assert site.read(record.data["attachment"]["location"]) == b"first"


def test_a_conflict_is_logged_only_if_it_decides_the_answer(make_site, caplog):
    collection = make_site("postgresql").collection()
    collection.record().upload(data={"last_modified": 1000})
    # No attempt can succeed: dates are unique in a collection.
    collection.record().upload(data={"last_modified": 1000}, status=409)
    tracebacks = [entry for entry in caplog.records if entry.exc_info]
    assert [entry.name for entry in tracebacks] == ["kinto.core.storage.postgresql.client"]


def test_uploads_that_all_succeed_log_no_traceback(kinto_settings, file_settings, tmp_path):
    settings = {
        **kinto_settings("postgresql", fresh=True),
        **file_settings("local"),
        **library_settings("site"),
        "kinto.storage_pool_size": "50",
        "kinto.storage_max_overflow": "10",
    }
    site = Site(**settings)
    MediaLibrary(site)
    record = site.collection().record()
    site.close()

    def upload(number):
        if number % 2:
            url, name, content = "/media", "file", jpeg()
        else:
            url, name, content = f"{record.uri}{number}/attachment", "attachment", b"content"
        form = {name: ("a.jpg", content), **({"save": (None, "1")} if number % 2 else {})}
        return requests.post(server.url + url, files=form, auth=AUTH, timeout=120).status_code

    with GunicornProcesses(settings, tmp_path) as server:
        with ThreadPoolExecutor(50) as pool:
            assert set(pool.map(upload, range(200))) == {201}
        assert "Traceback" not in server.log.read_text()


ACCOUNTS = {
    "kinto.includes": f"{SETTINGS['kinto.includes']} kinto.plugins.accounts",
    "multiauth.policies": "account",
    "multiauth.policy.account.use": (
        "kinto.plugins.accounts.authentication.AccountsAuthenticationPolicy"
    ),
    "kinto.account_create_principals": "system.Everyone",
}


@pytest.mark.parametrize("bucket", ["own", "default"])
def test_a_password_that_changes_during_an_upload_is_a_401(make_site, kinto, monkeypatch, bucket):
    site, user = make_site(kinto, **ACCOUNTS), uuid4().hex
    account, put = f"/accounts/{user}", site.storage.put

    def basic(password):
        return {"Authorization": f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"}

    def set_password(password, headers=None):
        site.http.put_json(account, {"data": {"password": password}}, headers=headers)

    set_password("before")
    before = basic("before")
    collection = Collection(site, user if bucket == "own" else "default", "fonts")
    site.http.put_json(f"/buckets/{collection.bucket}", {}, headers=before)
    site.http.put_json(collection.uri, {}, headers=before)
    record, keys = collection.record(), site.keys

    def put_late(key, source):
        put(key, source)
        in_thread(lambda: set_password("after", before))

    monkeypatch.setattr(site.storage, "put", put_late)
    response = record.upload(headers=before, status=401)
    assert response.json["errno"] == 104
    assert response.headers["WWW-Authenticate"].startswith("Basic")
    assert "no-store" in response.headers["Cache-Control"]
    site.http.get(record.uri, headers=basic("after"), status=404)
    assert site.keys == keys
