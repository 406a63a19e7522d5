"""Keys that are named after their hash: the first upload of the bytes decides their type."""

import time
from urllib.parse import quote

import pytest
import requests
from requests.adapters import HTTPAdapter

from kinto_attachment.errors import StorageUnavailable
from kinto_attachment.rows import turns
from kinto_attachment.transactions import placement
from tests.support.media import PUBLIC, MediaClient, random_content
from tests.support.servers.gcs import as_the_real_one
from tests.support.site import ALICE, BOB
from tests.support.threads import in_thread

# Those of Amazon's protocol do the same.
FILES = {"local", "seaweedfs", "gcs"}

BY_HASH = {"kinto.attachment.randomize": "false", "kinto.attachment.filename_pattern": "{hash}"}
PRIVATE = {"kinto.attachment.private": "true"}


@pytest.fixture
def head(request, site, files, monkeypatch):
    """Return what the storage itself says of a key; None where that is nothing but the bytes."""
    if files == "gcs":
        server = request.getfixturevalue("fake_gcs")
        monkeypatch.setattr(HTTPAdapter, "send", as_the_real_one(HTTPAdapter.send))

    def ask(key):
        if files in ("moto", "seaweedfs"):
            found = site.storage.client.head_object(Bucket=site.storage.bucket_name, Key=key)
            return found["ContentType"], found["ContentDisposition"]
        if files == "gcs":
            bucket = site.settings["kinto.attachment.gcloud.bucket_name"]
            url = f"{server.url}/storage/v1/b/{bucket}/o/{quote(key, safe='')}"
            found = requests.get(url, timeout=10).json()
            return found["contentType"], found["contentDisposition"]
        return None

    return ask


def key_of(site, digest) -> str:
    """Return the only key of these bytes."""
    (key,) = [stat.key for stat in site.storage.list() if digest in stat.key]
    return key


@pytest.fixture(params=["public", "private"])
def site(request, make_site, kinto, files):
    more = PUBLIC if request.param == "public" else PRIVATE
    return make_site(kinto, files, **BY_HASH, **more)


def test_a_second_upload_leaves_the_first_ones_type(site, head):
    collection, (content, digest) = site.collection(), random_content()
    form = [("attachment", "good.png", content)]
    one, two = collection.record(), collection.record()
    one.upload(files=form)
    key = key_of(site, digest)
    before = head(key)
    evil = (
        b'--XX\r\nContent-Disposition: form-data; name="attachment"; filename="evil.png"\r\n'
        b"Content-Type: text/html\r\n\r\n" + content + b"\r\n--XX--\r\n"
    )
    two.post_raw(evil, status=201)
    assert two.data["attachment"]["filename"] == "evil.png"
    assert key_of(site, digest) == key
    assert head(key) == before


@pytest.mark.parametrize("first", ["verified", "pending"])
@pytest.mark.parametrize("second", ["verified", "pending"])
def test_the_media_store_does_the_same(site, head, first, second):
    media, (content, digest) = MediaClient(site), random_content()

    def post(how, user, mimetype):
        headers = {**user, "Content-Type": mimetype}
        if how == "verified":
            media.post(content, digest, headers, status=201)
        else:
            media.post(content, digest, headers, "?verify=false", status=202)
            assert "verified" in media.verify()

    post(first, ALICE, "image/png")
    key = key_of(site, digest)
    before = head(key)
    post(second, BOB, "text/html")
    assert key_of(site, digest) == key
    assert head(key) == before
    assert media.get(digest, BOB).body == content


def test_bytes_of_another_length_are_replaced(site):
    """A broken or full disk, or an unfinished copy, left them."""
    collection, (content, digest) = site.collection(), random_content()
    collection.record().upload(content)
    key = key_of(site, digest)
    site.storage.delete([key])
    site.put(key, content[:50])
    collection.record().upload(content)
    assert b"".join(site.storage.open(key)) == content
    assert key_of(site, digest) == key


def test_gc_deletes_nothing_that_an_upload_found(site, monkeypatch):
    """The bytes are reserved when the upload looks for them, and gc spares what is reserved."""
    collection, (content, digest) = site.collection(), random_content()
    collection.record().upload(content)
    key = key_of(site, digest)
    seen = []

    def look():
        seen.append(site.rows.reservations.reserved([key], since=0))

    def watch(name):
        original = getattr(site.storage, name)

        def watched(found_key, *arguments):
            if found_key == key:
                in_thread(lambda: site.in_transaction(look))
            return original(found_key, *arguments)

        monkeypatch.setattr(site.storage, name, watched)

    watch("stat")
    watch("put")
    collection.record().upload(content)
    assert seen and all(reserved == {key} for reserved in seen)


@pytest.fixture
def form():
    """Return a form with a file of that name and type."""

    def encode(filename, mimetype, content):
        head = f'--XX\r\nContent-Disposition: form-data; name="attachment"; filename="{filename}"'
        return f"{head}\r\nContent-Type: {mimetype}\r\n\r\n".encode() + content + b"\r\n--XX--\r\n"

    return encode


@pytest.fixture
def in_put(site, monkeypatch):
    """Call a function once, right before the storage stores a key with this hash; return the list
    of the types that it stores there."""
    stored, put = [], site.storage.inner.put

    def install(digest, call):
        def watched(key, source):
            if digest in key:
                stored.append(source.mimetype)
                if len(stored) == 1:
                    call()
            return put(key, source)

        monkeypatch.setattr(site.storage.inner, "put", watched)
        return stored

    return install


def test_a_second_upload_that_began_before_the_first_ended(site, form, in_put, head):
    collection, (content, digest) = site.collection(), random_content()
    one, two, threads = collection.record(), collection.record(), []

    def overtake():
        body = form("evil.html.txt", "text/plain", content)
        threads.append(in_thread(lambda: two.post_raw(body, status=201), timeout=1))

    stored = in_put(digest, overtake)
    one.post_raw(form("good.png", "image/png", content), status=201)
    before = head(key_of(site, digest))
    threads[0].join()
    assert two.data["attachment"]["mimetype"] == "text/plain"
    assert head(key_of(site, digest)) == before
    if not site.storage.exclusive:
        assert stored == ["image/png"]
        assert before is None or before[0] == "image/png"


def test_the_second_upload_stores_what_the_first_did_not(site, form, in_put):
    collection, (content, digest) = site.collection(), random_content()
    one, two, threads = collection.record(), collection.record(), []

    def fail():
        body = form("good.png", "image/png", content)
        threads.append(in_thread(lambda: two.post_raw(body, status=201), timeout=1))
        raise StorageUnavailable(digest, "the cable is cut")

    in_put(digest, fail)
    one.post_raw(form("first.png", "image/png", content), status=503)
    threads[0].join()
    key = key_of(site, digest)
    assert b"".join(site.storage.open(key)) == content
    assert two.data["attachment"]["hash"] == digest


def test_a_process_that_died_before_it_stored_delays_one_upload(site, monkeypatch):
    monkeypatch.setattr(turns, "TURN_SECONDS", 2)
    collection, (content, digest) = site.collection(), random_content()
    record = collection.record()
    record.upload(content)
    key = key_of(site, digest)
    record.detach()
    site.storage.delete([key])
    reservation = site.in_transaction(lambda: site.rows.reservations.reserve(key))
    now = reservation.modified
    assert site.in_transaction(lambda: site.rows.turns.take(key, "dead", now))
    begin = time.monotonic()
    collection.record().upload(random_content()[0])
    assert time.monotonic() - begin < 1.5  # another key does not wait
    collection.record().upload(content)
    assert time.monotonic() - begin < 10
    assert b"".join(site.storage.open(key)) == content
    assert site.storage.exclusive or site.in_transaction(
        lambda: site.rows.turns.take(key, "another", now)
    )


def test_an_upload_does_not_wait_for_ever(site, monkeypatch):
    """Other uploads have the turn, one after the other."""
    monkeypatch.setattr(placement, "TURN_SECONDS", 1)
    monkeypatch.setattr(site.rows.turns, "take", lambda key, holder, now: False)
    content, digest = random_content()
    site.collection().record().upload(content)
    assert b"".join(site.storage.open(key_of(site, digest))) == content
