"""The storage is down, silent, overloaded or slow: requests that need it end in time with a 503 and
change nothing, others are served, and everything works again when it recovers."""

import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import cache
from itertools import product
from types import SimpleNamespace
from urllib.parse import urlsplit

import psycopg2
import pytest
import requests
import transaction

from kinto_attachment.errors import BlobNotFound, StorageUnavailable
from kinto_attachment.maintenance.fsck import fsck
from kinto_attachment.maintenance.gc import collect
from kinto_attachment.maintenance.server import Server
from kinto_attachment.rows.deletion import Rule
from kinto_attachment.storage.circuit_breaker import SLOW_FAILURES, CircuitBreaker
from tests.support.servers.gcs import FakeGCS
from tests.support.servers.outage import FaultyProxy
from tests.support.servers.wsgi import Gunicorn
from tests.support.site import Site

ALICE = ("alice", "secret")
TIMEOUT = 1
BOUND = 10
"""Seconds. Six time-outs are what the README promises; the rest is for a busy machine."""

MIB = 1024 * 1024
SMALL, LARGE = secrets.token_bytes(100_000), secrets.token_bytes(MIB) * 12
MANY = 100

OUTAGES = {
    "refused": lambda line: line.refuse(),
    "silent": lambda line: line.silence(),
    "cut": lambda line: line.cut(after=0),
    "slow down": lambda line: line.answer(503, "SlowDown"),
    "too many": lambda line: line.answer(429, "TooManyRequests"),
    "error": lambda line: line.answer(500, "InternalError"),
}


class Deployment:
    """A server, its storage, and the line between them.

    :ivar site: a site with the same database and the same storage, connected directly.
    """

    def __init__(self, server: Gunicorn, line: FaultyProxy, site: Site, database: str):
        self.server, self.line, self.site, self.database = server, line, site, database
        self.parts = Server.of(site.registry, transaction.manager)

    def collection(self) -> "Collection":
        return Collection(self.server.url)

    def recover(self, url: str) -> None:
        """End the outage, and wait until a file can be downloaded again."""
        self.line.recover()
        deadline = time.monotonic() + BOUND
        while (response := get(f"{url}/attachment")).status_code == 503:
            assert time.monotonic() < deadline, response.text
            time.sleep(0.1)
        assert response.status_code == 200

    def released(self) -> int:
        """Return how many keys are released and not deleted yet."""
        releases = self.site.in_transaction(lambda: list(self.site.releases.all()))
        return sum(len(release.keys) for release in releases if release.rule is Rule.DELETE)

    def check_nothing_is_left(self) -> None:
        """Check that ``gc`` finishes what the outage left undone: ``fsck`` finds nothing then."""
        found = {finding.kind for finding in collect(self.parts, offline=True, force=True)}
        assert found <= {"deleted"}
        assert list(fsck(self.parts, deep=True)) == []
        linked = self.site.in_transaction(lambda: {link.key for link in self.site.links.all()})
        assert {stat.key for stat in self.site.storage.list()} == linked
        assert self.released() == 0
        client = getattr(self.site.storage, "client", None)
        if client:
            uploads = client.list_multipart_uploads(Bucket=self.site.storage.bucket_name)
            assert not uploads.get("Uploads")


class Collection:
    def __init__(self, server: str):
        bucket = f"{server}/buckets/b{secrets.token_hex(8)}"
        self.url = f"{bucket}/collections/c"
        for url in (bucket, self.url):
            requests.put(url, auth=ALICE, timeout=60).raise_for_status()

    def record(self, name: str, content: bytes | None = None) -> str:
        """The URL of a record, with a file if there is content."""
        url = f"{self.url}/records/{name}"
        if content is not None:
            post(url, content).raise_for_status()
        return url

    def fill(self) -> None:
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda n: self.record(f"many{n}", b"one of many"), range(MANY)))


def post(url: str, content: bytes = SMALL) -> requests.Response:
    form = {"attachment": ("file.pdf", content)}
    return requests.post(f"{url}/attachment", files=form, auth=ALICE, timeout=120)


def get(url: str) -> requests.Response:
    return requests.get(url, auth=ALICE, timeout=60)


def delete(url: str) -> requests.Response:
    return requests.delete(url, auth=ALICE, timeout=60)


def timed(call):
    """Return what the call returned, and the seconds that it took."""
    start = time.monotonic()
    return call(), time.monotonic() - start


def check_refusal(response: requests.Response) -> None:
    """Kinto's own format: https://docs.kinto-storage.org/en/stable/api/1.x/errors.html"""
    assert response.status_code == 503, response.text
    assert int(response.headers["Retry-After"]) > 0
    if response.request.method != "HEAD":
        error = response.json()
        assert (error["code"], error["errno"]) == (503, 201)
        assert error["message"] == "The file storage is unavailable, please retry later."


@pytest.fixture(scope="module")
def make_storage(request, tmp_path_factory):
    """Storages behind a line: their settings with and without the line, and the environment."""
    with ExitStack() as stack:

        @cache
        def make(name: str) -> SimpleNamespace:
            if name == "s3":
                server = request.getfixturevalue("seaweedfs")
                line = stack.enter_context(FaultyProxy(server.port))
                behind = {"aws.endpoint_url": line.url, "aws.timeout": TIMEOUT}
                env = {}
            else:
                server = FakeGCS(tmp_path_factory.mktemp("gcs"))
                line = stack.enter_context(FaultyProxy(urlsplit(server.url).port))
                stack.enter_context(pytest.MonkeyPatch.context()).setenv(*server.env.popitem())
                server.url = line.url  # also where it says that an upload is to go on
                stack.enter_context(server)
                behind, env = {"gcloud.timeout": TIMEOUT}, server.env
            direct = {f"kinto.{k}": v for k, v in server.settings(server.bucket()).items()}
            behind = {f"kinto.attachment.{k}": v for k, v in behind.items()}
            return SimpleNamespace(line=line, direct=direct, behind=direct | behind, env=env)

        yield make


@pytest.fixture(scope="module")
def make_deployment(make_storage, kinto_settings, tmp_path_factory):
    with ExitStack() as stack:

        @cache
        def make(name: str) -> Deployment:
            storage = make_storage(name)
            # Only two connections, so that a request that holds one while it waits is noticed.
            database = {
                **kinto_settings("postgresql", fresh=True),
                "kinto.storage_pool_size": "2",
                "kinto.storage_max_overflow": "0",
            }
            site = stack.enter_context(closing(Site(**database, **storage.direct)))
            settings, folder = {**database, **storage.behind}, tmp_path_factory.mktemp("kinto")
            server = stack.enter_context(Gunicorn(settings, folder, storage.env))
            return Deployment(server, storage.line, site, database["kinto.storage_url"])

        yield make


@pytest.fixture
def deployment(make_deployment, storage):
    return make_deployment(storage)


def combined(**options):
    """Parametrise by both storages and each option; those that are not ``short`` are slow."""
    short = options.pop("short")
    ((name, values),) = options.items()
    return pytest.mark.parametrize(
        f"storage, {name}",
        [
            pytest.param(*each, marks=[] if each in short else pytest.mark.slow)
            for each in product(("s3", "gcs"), values)
        ],
    )


class TestRequests:
    @combined(outage=OUTAGES, short=[("s3", "silent"), ("gcs", "refused")])
    def test_end_in_time_and_change_nothing(self, deployment, outage):
        here, gone = deployment.collection(), deployment.collection()
        old, lost = here.record("old", SMALL), here.record("lost", SMALL)
        gone.fill()
        before = get(old).json()
        refused = {
            "small": lambda: post(here.record("small")),
            "large": lambda: post(here.record("large"), LARGE),
            "replacement": lambda: post(old, b"new"),
            "GET": lambda: get(f"{old}/attachment"),
            "HEAD": lambda: requests.head(f"{old}/attachment", auth=ALICE, timeout=60),
        }
        done = {
            "DELETE": lambda: delete(f"{lost}/attachment"),
            "DELETE of many": lambda: delete(gone.url),
        }
        OUTAGES[outage](deployment.line)
        with ThreadPoolExecutor() as pool:
            calls = [*refused.values(), *done.values()]
            heartbeat = pool.submit(timed, lambda: get(f"{deployment.server.url}/__heartbeat__"))
            answers = dict(zip([*refused, *done], pool.map(timed, calls), strict=True))
        for name, (response, seconds) in answers.items():
            assert seconds < BOUND, name
            if name in refused:
                check_refusal(response)
            else:
                assert response.status_code in (200, 204), name
        response, seconds = heartbeat.result()
        assert (response.status_code, response.json()["attachments"]) == (503, False)
        assert seconds < BOUND
        assert get(old).json() == before
        assert [get(here.record(name)).status_code for name in ("small", "large")] == [404, 404]
        assert get(lost).status_code == 200
        assert get(gone.url).status_code == 404
        assert deployment.released() == 1 + MANY

        deployment.recover(old)
        assert get(f"{old}/attachment").content == SMALL
        assert post(here.record("small")).status_code == 201
        assert post(here.record("large"), LARGE).status_code == 201
        assert post(old, b"new").status_code == 200
        assert delete(f"{here.record('small')}/attachment").status_code == 204
        assert get(f"{deployment.server.url}/__heartbeat__").json()["attachments"] is True
        assert get(f"{here.record('large')}/attachment").content == LARGE
        deployment.check_nothing_is_left()

    @combined(how=["silence", "cut"], short=[("s3", "silence"), ("gcs", "cut")])
    def test_an_upload_that_stops_in_its_middle(self, deployment, how):
        old = deployment.collection().record("old", SMALL)
        before = get(old).json()
        getattr(deployment.line, how)(after=9 * MIB)
        response, seconds = timed(lambda: post(old, LARGE))
        check_refusal(response)
        assert seconds < BOUND
        assert deployment.line.up > 9 * MIB
        assert get(old).json() == before
        deployment.recover(old)
        assert get(f"{old}/attachment").content == SMALL
        deployment.check_nothing_is_left()

    @combined(how=["silence", "cut"], short=[("s3", "cut"), ("gcs", "silence")])
    def test_a_download_that_stops_in_its_middle(self, deployment, how):
        large = deployment.collection().record("large", LARGE)
        getattr(deployment.line, how)(after=9 * MIB, down=True)
        start = time.monotonic()
        with requests.get(f"{large}/attachment", auth=ALICE, stream=True, timeout=60) as response:
            assert response.status_code == 200
            assert int(response.headers["Content-Length"]) == len(LARGE)
            # Fewer bytes arrive than were announced, so no client takes them for the file.
            with pytest.raises(requests.RequestException, match="IncompleteRead|more expected"):
                _ = response.content
        assert time.monotonic() - start < BOUND
        deployment.recover(large)
        assert get(f"{large}/attachment").content == LARGE

    @combined(rate=[500_000], short=[("gcs", 500_000)])
    def test_a_slow_storage_is_not_down(self, deployment, rate):
        """A file may take longer than the time-out, as long as bytes arrive."""
        content = secrets.token_bytes(800_000)
        slow = deployment.collection().record("slow", content)
        deployment.line.slow(rate)
        response, seconds = timed(lambda: get(f"{slow}/attachment"))
        assert response.content == content
        assert seconds > TIMEOUT
        assert post(slow).status_code == 200
        deployment.recover(slow)
        deployment.check_nothing_is_left()


class TestThreads:
    @combined(threads=[8], short=[("s3", 8)])
    def test_others_are_served_while_some_wait(self, deployment, threads):
        """Seven of eight threads wait for the storage. The other one serves records, with only two
        connections to the database."""
        collection = deployment.collection()
        records = [collection.record(f"r{n}", SMALL) for n in range(5)]
        deployment.line.silence()
        waiting = [
            lambda: post(collection.record("new1")),
            lambda: post(collection.record("new2"), LARGE),
            lambda: post(records[0], b"new"),
            lambda: get(f"{records[1]}/attachment"),
            lambda: requests.head(f"{records[2]}/attachment", auth=ALICE, timeout=60),
            lambda: delete(f"{records[3]}/attachment"),
            lambda: delete(records[4]),
        ]
        assert len(waiting) == threads - 1
        with ThreadPoolExecutor(len(waiting)) as pool:
            answers = [pool.submit(call) for call in waiting]
            time.sleep(0.5)
            looks = 0
            while True:
                response, seconds = timed(lambda: get(records[0]))
                in_use = self.in_use(deployment)
                if any(answer.done() for answer in answers):
                    break
                assert (response.status_code, in_use) == (200, [])
                assert seconds < 1
                looks += 1
            assert looks > 1
            statuses = [answer.result().status_code for answer in answers]
        assert statuses == [503, 503, 503, 503, 503, 204, 200]
        deployment.recover(records[0])
        deployment.check_nothing_is_left()

    def in_use(self, deployment: Deployment) -> list[str]:
        """Return the states of the connections to the database that are not idle."""
        connection = psycopg2.connect(deployment.database)
        try:
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT state FROM pg_stat_activity WHERE datname = current_database() "
                    "AND backend_type = 'client backend' AND pid <> pg_backend_pid() "
                    "AND state <> 'idle'"
                )
                return [state for (state,) in cursor]
        finally:
            connection.close()

    @combined(threads=[8], short=[("gcs", 8)])
    def test_soon_requests_do_not_wait(self, deployment, threads):
        """More requests than threads: all but the first are refused at once."""
        collection = deployment.collection()
        old = collection.record("old", SMALL)
        deployment.line.silence()
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda n: post(collection.record(f"n{n}")), range(threads)))
            answers = list(pool.map(lambda n: timed(lambda: post(old, b"new")), range(60)))
        for response, _ in answers:
            check_refusal(response)
        # One call at a time checks whether the storage is back.
        assert sorted(seconds for _, seconds in answers)[50] < 1
        deployment.recover(old)
        assert post(old, b"new").status_code == 200
        deployment.check_nothing_is_left()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["s3", "gcs"])
def test_a_server_that_starts_during_an_outage(make_storage, kinto_settings, tmp_path, name):
    database, storage = kinto_settings("postgresql", fresh=True), make_storage(name)
    Site(**database, **storage.direct).close()
    storage.line.silence()
    with Gunicorn({**database, **storage.behind}, tmp_path, storage.env) as server:
        record = Collection(server.url).record("first")
        check_refusal(post(record))
        storage.line.recover()
        deadline = time.monotonic() + BOUND
        while (status := post(record).status_code) == 503 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert status == 201


class TestBreaker:
    @pytest.fixture
    def clock(self):
        return SimpleNamespace(now=100.0)

    @pytest.fixture
    def breaker(self, clock):
        return CircuitBreaker(patience=2, pause=5, clock=lambda: clock.now)

    def fail(self, breaker, clock, seconds, error=StorageUnavailable):
        with pytest.raises(error), breaker.call("key"):
            clock.now += seconds
            raise error("key")

    def test_forbids_calls_after_slow_failures(self, breaker, clock):
        for _ in range(SLOW_FAILURES):
            self.fail(breaker, clock, 10)
        with pytest.raises(StorageUnavailable, match="in a row timed out"), breaker.call("key"):
            pytest.fail("it was called")

    def test_fast_failures_do_not_open_it(self, breaker, clock):
        for _ in range(10):
            self.fail(breaker, clock, 1)
        with breaker.call("key"):
            pass

    @pytest.mark.parametrize("answer", [None, BlobNotFound])
    def test_any_response_closes_it(self, breaker, clock, answer):
        for _ in range(5):
            self.fail(breaker, clock, 10)
            self.fail(breaker, clock, 10)
            if answer:
                self.fail(breaker, clock, 10, answer)
            else:
                with breaker.call("key"):
                    clock.now += 10

    def test_one_call_checks_whether_the_storage_is_back(self, breaker, clock):
        for _ in range(SLOW_FAILURES):
            self.fail(breaker, clock, 10)
        for _ in range(3):
            clock.now += 5.1
            self.fail(breaker, clock, 10)
            with pytest.raises(StorageUnavailable, match="in a row timed out"), breaker.call("key"):
                pytest.fail("it was called")
        clock.now += 5.1
        # Other calls do not wait for it.
        with breaker.call("key"), pytest.raises(StorageUnavailable), breaker.call("other"):
            pytest.fail("it was called")
        with breaker.call("key"):
            pass

    def test_threads_are_counted_together(self, breaker):
        breaker = CircuitBreaker(patience=0, pause=60)
        begun = threading.Barrier(SLOW_FAILURES)

        def call():
            with pytest.raises(StorageUnavailable), breaker.call("key"):
                begun.wait(10)
                raise StorageUnavailable("key")

        with ThreadPoolExecutor(SLOW_FAILURES) as pool:
            for done in [pool.submit(call) for _ in range(SLOW_FAILURES)]:
                done.result()
        with pytest.raises(StorageUnavailable, match="in a row timed out"), breaker.call("key"):
            pytest.fail("it was called")
