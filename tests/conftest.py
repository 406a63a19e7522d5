"""Fixtures: a site on every Kinto storage and every file storage.

A test that asks for ``site`` runs on each of the combinations. The tests of a module that does not
depend on the file storage run on those in its ``FILES`` alone, and on the others only in ``make
tests-all``. Tests with another field than ``attachment`` run in the places of ``USUAL``, if the
``FIELD_NAMES`` of their module include it; in ``make tests-all`` they run everywhere.
Servers are started when the first test needs them, and stopped at the end.
"""

import re
import signal
import sys
from collections import deque
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import pytest
import transaction
from kinto.views.records import Record as RecordResource
from pyramid.events import NewRequest

from kinto_attachment.maintenance import fsck, gc
from kinto_attachment.maintenance.server import Server
from tests.support.other_field import OTHER
from tests.support.servers.gcs import FakeGCS
from tests.support.servers.postgresql import PostgreSQL
from tests.support.servers.s3 import Moto, SeaweedFS
from tests.support.servers.wsgi import Gunicorn
from tests.support.site import ALICE, Site
from tests.support.threads import in_thread

# A shell that runs the tests in the background makes them ignore Ctrl-C, and with them all
# processes that they start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

KINTO_STORAGES = ["memory", "postgresql"]
FILE_STORAGES = ["local", "moto", "seaweedfs", "gcs", "own"]

# The other combinations find the same: only `make tests-all` runs these. SeaweedFS stands for S3,
# which `tests/storage` tests with Moto, too.
RARE = {
    ("memory", "moto"),
    ("memory", "seaweedfs"),
    ("memory", "gcs"),
    ("postgresql", "moto"),
    ("postgresql", "own"),
}

# Where tests with another field run.
USUAL = ("postgresql", "local", Gunicorn, None)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        names = getattr(getattr(item, "callspec", None), "params", {})
        kinto, files = names.get("kinto"), names.get("files")
        is_whole_site = "site" in item.fixturenames and kinto
        is_rare = (kinto, files) in RARE or (files == "own" and not is_whole_site)
        if names.get("field_name") == OTHER:
            server = names.get("server")
            place = server if isinstance(server, tuple) else (server,)
            is_rare = is_rare or not all(each in USUAL for each in (kinto, files, *place))
            is_rare = is_rare or OTHER not in getattr(item.module, "FIELD_NAMES", ())
        if is_rare or (files and files not in getattr(item.module, "FILES", FILE_STORAGES)):
            item.add_marker("slow")


@pytest.fixture(scope="session", autouse=True)
def state_home(tmp_path_factory):
    """The folder in which commands remember what they have not finished."""
    folder = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder))
        yield folder


def pytest_collection_finish(session):
    early = [name for name in sys.modules if re.fullmatch(r"kinto_attachment\..*views", name)]
    if early:
        reason = "services read Kinto's CORS settings when they are imported"
        raise pytest.UsageError(f"{early[0]} is imported before Kinto is set up: {reason}")


@pytest.fixture(scope="session")
def postgresql():
    # Not below pytest's folder, which only its owner may enter: root runs the server as another
    # user.
    with (
        TemporaryDirectory(prefix="kinto-postgresql-") as folder,
        PostgreSQL(Path(folder)) as server,
    ):
        yield server


@pytest.fixture(scope="session")
def moto(tmp_path_factory):
    with Moto(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory):
    with SeaweedFS(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture(scope="session")
def fake_gcs(tmp_path_factory):
    with FakeGCS(tmp_path_factory.mktemp("gcs")) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.env.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture(scope="session")
def kinto_settings(request):
    """Settings of a Kinto storage by its name.

    PostgreSQL has one database for all tests, unless a ``fresh`` one is asked for.
    """
    databases = {}

    def settings(name: str, *, fresh: bool = False) -> dict[str, str]:
        if name == "memory":
            kinds = ("storage", "permission", "cache")
            return {f"kinto.{kind}_backend": f"kinto.core.{kind}.memory" for kind in kinds}
        server: PostgreSQL = request.getfixturevalue("postgresql")
        url = server.create_database() if fresh else databases.get("shared")
        url = url or databases.setdefault("shared", server.create_database())
        return {
            "kinto.storage_backend": "kinto.core.storage.postgresql",
            "kinto.storage_url": url,
            "kinto.permission_backend": "kinto.core.permission.postgresql",
            "kinto.permission_url": url,
            "kinto.cache_backend": "kinto.core.cache.memory",
        }

    return settings


@pytest.fixture(scope="session")
def file_settings(request, tmp_path_factory):
    """Settings of a new, empty file storage of one kind."""

    def settings(name: str) -> dict[str, str]:
        if name == "memory":
            return {"kinto.attachment.storage": "memory"}
        if name == "own":
            path = "tests.support.own_storage.OwnStorage"
            place = {"kinto.attachment.storage.place": uuid4().hex}
            return {"kinto.attachment.storage": path, **place}
        if name == "local":
            folder: Path = tmp_path_factory.mktemp("files") / "root"
            return {"kinto.attachment.base_path": str(folder)}
        server = request.getfixturevalue({"gcs": "fake_gcs"}.get(name, name))
        return {f"kinto.{key}": value for key, value in server.settings(server.bucket()).items()}

    return settings


@pytest.fixture(scope="session")
def make_site(kinto_settings, file_settings):
    """Sites by their settings; the same settings give the same site."""
    sites: dict[tuple, Site] = {}

    def make(kinto: str = "memory", files: str = "local", **settings: str) -> Site:
        key = (kinto, files, *sorted(settings.items()))
        if key not in sites:
            sites[key] = Site(**{**kinto_settings(kinto), **file_settings(files), **settings})
        return sites[key]

    return make


@pytest.fixture(scope="session")
def empty_databases():
    """Settings of the databases that earlier tests have emptied, the oldest first."""
    return deque()


@pytest.fixture
def make_database(postgresql, kinto_settings, empty_databases):
    """Settings of PostgreSQL databases that are empty, each for one test at a time.

    A new database takes hundreds of files, which is slow to create and to delete.
    """
    made = []

    def make() -> dict[str, str]:
        # Not the one of the test before: one of its threads may not have ended yet.
        is_reused = len(empty_databases) > 4
        made.append(
            empty_databases.popleft() if is_reused else kinto_settings("postgresql", fresh=True)
        )
        return made[-1]

    yield make
    for settings in made:
        postgresql.empty_database(settings["kinto.storage_url"])
        empty_databases.append(settings)


@pytest.fixture
def make_server(make_database, file_settings, monkeypatch):
    """Sites with a database and a storage of their own, as jobs read all of both."""

    # Without uploads at the same time, which a test would have to start, fsck need not wait.
    monkeypatch.setattr(fsck, "PAUSE_SECONDS", 0)
    monkeypatch.setattr(gc, "MIN_AGE", timedelta(0))
    sites = []

    def make(files, **settings):
        database = {} if "kinto.storage_url" in settings else make_database()
        site = Site(**{**database, **file_settings(files), **settings})
        site.server = Server.of(site.registry, transaction.manager)
        sites.append(site)
        return site

    yield make
    for site in sites:
        site.close()


@pytest.fixture(params=FILE_STORAGES)
def files(request):
    return request.param


@pytest.fixture(params=KINTO_STORAGES)
def kinto(request):
    return request.param


@pytest.fixture
def site(make_site, kinto, files):
    return make_site(kinto, files)


@pytest.fixture
def collection(site):
    return site.collection()


@pytest.fixture
def record(collection):
    """A record that does not exist yet."""
    return collection.record()


@pytest.fixture
def between_read_and_write(monkeypatch):
    """Call a function once, after the next request has read its record and before it stores it."""

    def install(call):
        original, left = RecordResource.process_object, [call]

        def process_object(self, new, old=None):
            processed = original(self, new, old)
            if left and self.request.method in ("PATCH", "PUT"):
                in_thread(left.pop())
            return processed

        monkeypatch.setattr(RecordResource, "process_object", process_object)

    return install


@pytest.fixture
def copying(site):
    """Headers of a request that copies a record as kinto-signer does: it marks the request."""

    def listener(event):
        if event.request.headers.get("X-Copy"):
            event.request._attachment_auto_save = True

    site.registry.registerHandler(listener, (NewRequest,))
    yield {**ALICE, "X-Copy": "yes"}
    site.registry.unregisterHandler(listener, (NewRequest,))
