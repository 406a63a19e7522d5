"""The media store under real servers: many clients, killed processes, the background thread."""

import os
import signal
import subprocess
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from hashlib import sha256

import pytest
import requests
import transaction

from kinto_attachment.maintenance.fsck import fsck
from kinto_attachment.maintenance.gc import collect
from kinto_attachment.maintenance.server import Server
from kinto_attachment.rows.uploads import leases as lease_rows
from tests.support.media import random_content
from tests.support.servers.wsgi import UWSGI, Gunicorn, GunicornProcesses
from tests.support.site import Site

ALICE, BOB = ("alice", "secret"), ("bob", "secret")
THREAD = {"kinto.attachment.media.verifier": "thread"}
OPEN = {
    "kinto.media_create_principals": "system.Everyone",
    "kinto.media_read_principals": "system.Everyone",
}
MIB = 1024 * 1024


@pytest.fixture(params=["local", pytest.param("seaweedfs", marks=pytest.mark.slow)])
def settings(request, make_database, file_settings):
    return {
        **make_database(),
        **file_settings(request.param),
        "kinto.storage_pool_size": "50",
        "kinto.storage_max_overflow": "10",
    }


@pytest.fixture
def site(settings):
    site = Site(**settings)
    yield site
    site.close()


def media_keys(site):
    return sorted(stat.key for stat in site.storage.list() if "media" in stat.key)


def wait_for(url, seconds=60, **options):
    deadline = time.monotonic() + seconds
    while (answer := requests.get(url, timeout=30, **options)).status_code == 404:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return answer


def test_the_three_snippets(settings, site, tmp_path):
    """The code of an application that keeps only the hash: fetch, store, store by hash, and store
    without waiting."""
    with Gunicorn({**settings, **OPEN, **THREAD}, tmp_path) as server:
        content, _ = random_content(1000)
        hash_value = requests.post(f"{server.url}/media", data=content, timeout=30).text
        fetched = requests.get(f"{server.url}/media/{hash_value}", timeout=30).content
        assert fetched == content

        content, _ = random_content(1000)
        hasher = sha256()
        hasher.update(content)
        hash_value = hasher.hexdigest()
        url = f"{server.url}/media/{hash_value}"
        answer = requests.post(url, data=content, timeout=30)
        assert (answer.status_code, answer.text) == (201, hash_value)
        assert requests.get(url, timeout=30).content == content

        content, hash_value = random_content(5 * MIB)
        url = f"{server.url}/media/{hash_value}"
        answer = requests.post(f"{url}?verify=false", data=content, timeout=30)
        assert (answer.status_code, answer.text) == (202, hash_value)
        assert wait_for(url).content == content

        junk, _ = random_content(1000)
        _, hash_value = random_content(1000)
        url = f"{server.url}/media/{hash_value}"
        assert requests.post(f"{url}?verify=false", data=junk, timeout=30).status_code == 202
        deadline = time.monotonic() + 30
        while any("pending" in key for key in media_keys(site)):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert requests.get(url, timeout=30).status_code == 404


def test_200_posts_of_one_body(settings, site, tmp_path):
    content, digest = random_content(100_000)
    with GunicornProcesses(settings, tmp_path) as server:

        def post(number):
            auth = ALICE if number % 2 else BOB
            return requests.post(f"{server.url}/media", data=content, auth=auth, timeout=120)

        with ThreadPoolExecutor(100) as pool:
            answers = list(pool.map(post, range(200)))
        assert {answer.text for answer in answers} == {digest}
        statuses = Counter(answer.status_code for answer in answers)
        assert statuses[201] + statuses[200] == 200
        assert statuses[201] >= 2
        assert len(media_keys(site)) == 1
        for auth in (ALICE, BOB):
            url = f"{server.url}/media/{digest}"
            assert requests.get(url, auth=auth, timeout=30).content == content
    server = Server.of(site.registry, transaction.manager)
    assert list(fsck(server, deep=True)) == []


@pytest.mark.parametrize("rounds", [60, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.timeout(1200)
def test_deletions_while_the_same_bytes_are_stored(settings, site, tmp_path, rounds):
    """Two processes, with gc in between: a client whose upload succeeded can read the bytes."""
    content, digest = random_content(1000)
    server_side = Server.of(site.registry, transaction.manager)
    stopped, swept = threading.Event(), []

    def sweep():
        while not stopped.is_set():
            swept.extend(collect(server_side, timedelta(0), force=True))

    with GunicornProcesses({**settings, "kinto.media_read_principals": ""}, tmp_path) as server:
        url = f"{server.url}/media/{digest}"
        sweeper = threading.Thread(target=sweep)
        sweeper.start()

        def work(number):
            auth = (f"user{number}", "secret")
            with requests.Session() as session:
                session.auth = auth
                for turn in range(rounds // 4):
                    later = "?verify=true" if turn % 2 else ""
                    answer = session.post(f"{url}{later}", data=content, timeout=120)
                    assert answer.status_code in (200, 201), answer.text
                    got = session.get(url, timeout=120)
                    assert (got.status_code, got.content) == (200, content), got.text
                    assert session.delete(url, timeout=120).status_code == 204
                session.post(url, data=content, timeout=120).raise_for_status()

        try:
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(work, range(4)))
        finally:
            stopped.set()
            sweeper.join()
        for number in range(4):
            got = requests.get(url, auth=(f"user{number}", "secret"), timeout=30)
            assert (got.status_code, got.content) == (200, content)
    assert list(fsck(server_side, deep=True)) == []


def verify_command(server, *options):
    return [str(server.command()[0]).replace("gunicorn", "kinto-attachment"), "verify", *options]


def test_a_verifier_that_is_killed(settings, site, tmp_path, monkeypatch):
    """The first verifier dies in the middle; another one takes over when the lease has expired."""
    uploads = [random_content(64 * MIB) for _ in range(2)]
    with Gunicorn(settings, tmp_path) as server:
        for content, digest in uploads:
            url = f"{server.url}/media/{digest}?verify=false"
            assert requests.post(url, data=content, auth=ALICE, timeout=60).status_code == 202
        command = [*verify_command(server), "--ini", str(server.ini)]
        victim = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE)

        def leases():
            parent = f"{lease_rows.LEASES_PARENT}/*"
            return site.registry.storage.list_all(lease_rows.LEASE_ROWS, parent)

        deadline = time.monotonic() + 30
        while not site.in_transaction(leases):
            assert time.monotonic() < deadline
        os.killpg(victim.pid, signal.SIGKILL)
        victim.communicate()
        (lease,) = site.in_transaction(leases)
        # Let the lease expire without waiting for it.
        over = lease["last_modified"] - lease_rows.LEASE_SECONDS * 1000 - 1
        row = {**lease, "last_modified": over}
        parent = f"{lease_rows.LEASES_PARENT}/{lease['id']}"
        site.in_transaction(
            lambda: site.registry.storage.update(lease_rows.LEASE_ROWS, parent, lease["id"], row)
        )
        done = subprocess.run([*command, "--once"], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert "2 verified" in done.stderr or "1 verified" in done.stderr
        for content, digest in uploads:
            got = requests.get(f"{server.url}/media/{digest}", auth=ALICE, timeout=60)
            assert sha256(got.content).hexdigest() == digest, len(content)
    assert not any("pending" in key for key in media_keys(site))


def test_a_server_that_is_killed(settings, tmp_path, site):
    """Uploads that were not verified yet are verified by the next server."""
    content, digest = random_content(1000)
    with Gunicorn(settings, tmp_path) as server:  # its verifier is off
        url = f"{server.url}/media/{digest}?verify=false"
        assert requests.post(url, data=content, auth=ALICE, timeout=30).status_code == 202
        server.stop(signal.SIGKILL)
    with Gunicorn({**settings, **THREAD}, tmp_path) as server:
        got = wait_for(f"{server.url}/media/{digest}", auth=ALICE)
        assert got.content == content


@pytest.mark.parametrize("kind", [GunicornProcesses, UWSGI])
def test_uploads_are_verified_under_preforking_servers(
    make_database, file_settings, tmp_path, kind
):
    settings = {**make_database(), **file_settings("local")}
    Site(**settings).close()  # makes the tables
    with kind({**settings, **THREAD}, tmp_path) as server:
        uploads = [random_content(1000) for _ in range(20)]
        for content, digest in uploads:
            url = f"{server.url}/media/{digest}?verify=false"
            assert requests.post(url, data=content, auth=ALICE, timeout=30).status_code == 202
        for content, digest in uploads:
            got = wait_for(f"{server.url}/media/{digest}", auth=ALICE)
            assert got.content == content


def test_two_verifiers(settings, site, tmp_path):
    """Each upload is verified once."""
    uploads = [random_content(200_000) for _ in range(40)]
    with Gunicorn(settings, tmp_path) as server:
        for content, digest in uploads:
            url = f"{server.url}/media/{digest}?verify=false"
            requests.post(url, data=content, auth=ALICE, timeout=30).raise_for_status()
        command = [*verify_command(server), "--once", "--json", "--ini", str(server.ini)]
        both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        lines = "".join(each.communicate(timeout=120)[0] for each in both).splitlines()
        assert [each.returncode for each in both] == [0, 0]
        assert len(lines) == len(uploads)
        for content, digest in uploads:
            got = requests.get(f"{server.url}/media/{digest}", auth=ALICE, timeout=30)
            assert got.content == content
    assert len(media_keys(site)) == len(uploads)
