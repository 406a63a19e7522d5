"""Uploads that are sent on to S3 and Google Cloud Storage while they arrive."""

from uuid import uuid4

import pytest

from kinto_attachment.files.mimetype import DEFAULT_MIMETYPE
from kinto_attachment.storage.stream import PART_BYTES
from kinto_attachment.transactions import placement
from tests.support.fields import FIELDS, check_whole, form
from tests.support.site import ALICE, call_wsgi
from tests.support.streaming import (
    BY_HASH,
    BY_NAME,
    LARGE,
    SIZES,
    STREAMING,
    check_nothing_is_left,
    content_of,
    failing,
    reservations,
    uploads,
    watched,
)
from tests.support.threads import in_thread

FILES = STREAMING


@pytest.fixture
def no_spool(site, monkeypatch):
    """Let the test fail if something is written to the disk of the server."""

    def spool():
        raise AssertionError("there must be no spool")

    site.put(uuid4().hex, b"marks the storage")
    monkeypatch.setattr(site.storage, "spool", spool)
    monkeypatch.setattr("tempfile.TemporaryFile", spool)


@pytest.mark.parametrize("size", SIZES)
def test_the_bytes_are_right(site, record, no_spool, size):
    for content in (content_of(size), content_of(size)):
        answer = record.upload(content, "film.pdf")
        assert answer.json["size"] == size
        record.check(content)
        check_nothing_is_left(record)


def test_a_very_large_file(site, record, no_spool):
    content = content_of(50 * 1024 * 1024)
    record.upload(content)
    record.check(content)


@pytest.mark.parametrize("size", [PART_BYTES, PART_BYTES + 1])
def test_what_is_no_more_than_a_part_is_one_request(site, record, size):
    with watched(site.storage) as seen:
        record.upload(content_of(size))
    assert bool(seen) == (size > PART_BYTES)


def test_type_and_disposition(make_site):
    site = make_site("memory", "seaweedfs")
    record = site.collection().record()
    answer = record.upload(b"\x89PNG\r\n\x1a\n" + content_of(LARGE), "写真.png")
    (key,) = record.collection.keys
    head = site.storage.client.head_object(Bucket=site.storage.bucket_name, Key=key)
    assert head["ContentType"] == answer.json["mimetype"] == "image/png"
    assert "filename*=" in head["ContentDisposition"]


def test_markup_that_is_declared_as_an_image(site, record):
    answer = record.upload(b"<html>" + content_of(LARGE), "a.png")
    assert answer.json["mimetype"] == DEFAULT_MIMETYPE


class TestRefusals:
    """After each, nothing has changed and nothing is left."""

    SETTINGS = {
        "kinto.attachment.max_size": str(LARGE),
        "kinto.attachment.check_content": "true",
    }

    @pytest.fixture
    def site(self, make_site, kinto, files):
        return make_site(kinto, files, **self.SETTINGS)

    @pytest.fixture
    def record(self, collection):
        record = collection.record()
        record.upload(b"%PDF-before", "a.pdf", data={"family": "sans"})
        return record

    @pytest.fixture
    def refused(self, record):
        """Check that a request is refused, and what is left of it."""
        before = record.snapshot()

        def check(response, status=400):
            assert response.status_int == status, response.json
            assert record.snapshot() == before
            check_nothing_is_left(record)

        return check

    def test_too_large(self, record, refused):
        refused(record.upload(content_of(LARGE + 1), "a.pdf", status="*"))

    def test_another_type(self, site, record, refused):
        with watched(site.storage) as seen:
            content = b"<html>" + content_of(LARGE - 6)
            refused(record.upload(content, "a.png", status="*"))
        assert seen == []

    @pytest.mark.parametrize(
        "texts",
        [{"data": "{"}, {"other": "x"}, {"data": {"family": 5}}, {"permissions": "[]"}],
        ids=["JSON", "field", "schema", "permissions"],
    )
    def test_a_wrong_field_after_the_file(self, record, refused, texts):
        if texts == {"data": {"family": 5}}:
            schema = {"properties": {"family": {"type": "string"}}}
            uri = record.collection.uri
            record.http.patch_json(uri, {"data": {"schema": schema}}, headers=ALICE)
        ((name, value),) = texts.items()
        value = value if isinstance(value, str) else '{"family": 5}'
        body = _form([("attachment", "a.pdf", content_of(LARGE))], [(name, value)])
        refused(record.post_raw(body, status="*"))

    def test_a_second_file(self, record, refused):
        files = [("attachment", "a.pdf", content_of(LARGE)), ("attachment", "b.pdf", b"b")]
        refused(record.upload(files=files, status="*"))

    def test_a_record_that_was_changed_meanwhile(self, site, record, no_spool):
        etag = record.http.get(record.uri, headers=ALICE).headers["ETag"]
        with watched(site.storage, lambda key: in_thread(lambda: record.put(family="serif"))):
            record.upload(content_of(LARGE), "a.pdf", headers={"If-Match": etag}, status=412)
        assert record.data["family"] == "serif"
        check_nothing_is_left(record)

    @pytest.mark.parametrize("sent", [PART_BYTES // 2, PART_BYTES + 9, LARGE])
    def test_a_client_that_breaks_off(self, record, refused, sent):
        whole = _form([("attachment", "a.pdf", content_of(LARGE))])

        class Input:
            left = whole[:sent]

            def read(self, size=-1):
                if not self.left:
                    raise OSError("the client is gone")
                chunk, self.left = self.left[:size], self.left[size:]
                return chunk

        environ = {
            "REQUEST_METHOD": "POST",
            "CONTENT_TYPE": "multipart/form-data; boundary=XX",
            "CONTENT_LENGTH": str(len(whole)),
            "wsgi.input": Input(),
        }
        refused(call_wsgi(record, environ))

    @pytest.mark.parametrize("call", ["write", "finish"])
    @pytest.mark.parametrize("number", [1, 3])
    def test_a_storage_that_fails(self, site, record, refused, call, number):
        with watched(site.storage, on_call=failing(call, number)) as seen:
            response = record.upload(content_of(LARGE), "a.pdf", status="*")
        if call == "write" or number == 1:
            refused(response, 503)
            assert seen[-1] == "abort" or call == "finish"

    def test_a_storage_that_fails_after_it_has_stored_the_file(self, site, record, refused):
        original = site.storage.stream

        def stream(key, label):
            opened = original(key, label)
            finish = opened.finish

            def fail():
                finish()
                failing("finish")("finish")

            opened.finish = fail
            return opened

        site.storage.stream = stream
        try:
            refused(record.upload(content_of(LARGE), "a.pdf", status="*"), 503)
        finally:
            del site.storage.stream


def _form(files, texts=()):
    named = 'Content-Disposition: form-data; name="{}"'
    parts = [
        f'--XX\r\n{named.format(name)}; filename="{filename}"\r\n\r\n'.encode() + content
        for name, filename, content in files
    ]
    parts += [f"--XX\r\n{named.format(name)}\r\n\r\n{text}".encode() for name, text in texts]
    return b"\r\n".join([*parts, b"--XX--\r\n"])


class TestNames:
    @pytest.fixture
    def site(self, make_site, kinto, files):
        return make_site(kinto, files, **BY_NAME)

    @pytest.mark.parametrize("size", [10, LARGE])
    def test_another_upload_takes_another_name(self, site, collection, no_spool, size):
        """While the first one arrives, and when it is there."""
        one, two, three = (collection.record() for _ in range(3))
        contents = [content_of(LARGE), content_of(size), content_of(LARGE)]
        left = [lambda: two.upload(contents[1], "a.pdf")]
        with watched(site.storage, lambda key: left and in_thread(left.pop())):
            one.upload(contents[0], "a.pdf")
        three.upload(contents[2], "a.pdf")
        for record, content in zip((one, two, three), contents, strict=True):
            assert site.read(record.data["attachment"]["location"]) == content
        assert one.data["attachment"]["location"].endswith("/a.pdf")
        assert len(collection.keys) == 3
        check_nothing_is_left(one)

    def test_a_name_is_free_again_after_a_failure(self, site, record):
        with watched(site.storage, on_call=failing("write", 3)):
            record.upload(content_of(LARGE), "a.pdf", status=503)
        answer = record.upload(content_of(LARGE), "a.pdf")
        assert answer.json["location"].endswith("/a.pdf")

    def test_a_name_stays_taken_if_the_storage_may_have_stored_it(self, site, record):
        with watched(site.storage, on_call=failing("finish")):
            record.upload(content_of(LARGE), "a.pdf", status=503)
        answer = record.upload(content_of(LARGE), "a.pdf")
        assert not answer.json["location"].endswith("/a.pdf")
        check_nothing_is_left(record)


def test_a_hash_needs_the_spool(make_site, files):
    site = make_site("memory", files, **BY_HASH)
    record = site.collection().record()
    with watched(site.storage) as seen:
        record.upload(content_of(LARGE))
    assert seen == []


class TestReservations:
    """A key is reserved as long as its bytes arrive: no ``gc`` deletes them."""

    def test_they_are_renewed(self, site, record, monkeypatch):
        monkeypatch.setattr(placement, "RENEW_SECONDS", 0)
        seen = []

        def note(name):
            in_thread(lambda: seen.append(reservations(site)))

        with watched(site.storage, on_call=note):
            record.upload(content_of(LARGE))
        keys = [[key for key in each if record.collection.bucket in key] for each in seen]
        assert keys and all(key == record.collection.keys for key in keys)
        check_nothing_is_left(record)

    @pytest.mark.parametrize("settings", [{}, BY_NAME], ids=["random", "by name"])
    def test_an_upload_that_has_lost_its_key(self, make_site, kinto, files, settings):
        """As after a sleep of the machine, during which ``gc`` has run."""
        site = make_site(kinto, files, **settings)
        record, left = site.collection().record(), [1]

        def lose(name):
            if left and left.pop():
                drop = site.rows.reservations.drop_before
                in_thread(lambda: site.in_transaction(lambda: drop(2**50)))

        with watched(site.storage, on_call=lose):
            record.upload(content_of(LARGE), status=503)
        check_nothing_is_left(record)


class TestSeveralFiles:
    @pytest.fixture
    def site(self, make_site, kinto, files):
        return make_site(kinto, files, **FIELDS)

    def test_of_all_sizes(self, site, record, no_spool):
        sizes = [LARGE, 1, PART_BYTES - 1, 0, PART_BYTES // 2, PART_BYTES, 9, PART_BYTES + 1]
        files = [("pictures", f"{size}.pdf", content_of(size)) for size in sizes]
        answer = form(record, ("cover", "a.pdf", content_of(LARGE)), *files)
        assert [entry["size"] for entry in answer.json["pictures"]] == sizes
        check_whole(record)
        check_nothing_is_left(record)

    def test_one_that_is_refused(self, site, record):
        files = [("pictures", f"{index}.pdf", content_of(LARGE)) for index in range(3)]
        form(record, *files, ("unknown", "a.pdf", b"x"), status=400)
        check_nothing_is_left(record)
        assert record.collection.keys == []

    def test_one_at_a_time_is_on_its_way(self, site, record):
        seen = []
        with watched(site.storage, lambda key: seen.append(uploads(site))):
            files = [("pictures", f"{index}.pdf", content_of(LARGE)) for index in range(3)]
            form(record, *files)
        bucket = record.collection.bucket
        assert [[key for key in each if bucket in key] for each in seen] == [[], [], []]
