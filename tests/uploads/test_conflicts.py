"""Requests that meet, and requests that are refused in the end: an upload never says more than is
true, and loses nothing."""

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from uuid import uuid4

import pytest
from kinto.core.events import ResourceChanged
from kinto.core.storage.exceptions import IntegrityError
from pyramid import httpexceptions

from kinto_attachment.uploads import resumable
from tests.support.library import settings as library_settings
from tests.support.site import ALICE, SCHEMA
from tests.support.tus import STREAM, VERSION, Uploads

FILES = {"local"}
PARTIAL = {"Upload-Concat": "partial"}


def is_missing(record) -> bool:
    return record.http.get(record.uri, headers=ALICE, status="*").status_int == 404


def with_schema(record) -> None:
    """Let the collection of the record refuse ``family: 7``."""
    record.http.patch_json(record.collection.uri, {"data": {"schema": SCHEMA}}, headers=ALICE)


class TestRefused:
    """Kinto refuses the record once all bytes are there."""

    def test_a_length_that_comes_last(self, record, uploads):
        url = uploads.create(None, data='{"family": 7}').headers["Location"]
        uploads.patch(url, 0, b"hello")
        with_schema(record)
        uploads.patch(url, 5, b"", {"Upload-Length": "5"}, status=400)
        head = uploads.head(url).headers
        assert head["Upload-Offset"] == "5" and "Upload-Length" not in head

    def test_parts_of_another_upload(self, record, uploads):
        parts = [
            uploads.create(3, content, PARTIAL).headers["Location"] for content in (b"abc", b"def")
        ]
        with_schema(record)
        final = {"Upload-Concat": f"final;{' '.join(parts)}", "Upload-Length": None}
        uploads.create(0, headers=final, status=400, data='{"family": 7}')
        assert [uploads.offset(part) for part in parts] == [3, 3]
        uploads.create(0, headers=final, data='{"family": "x"}')
        record.check(b"abcdef")

    def test_by_a_listener(self, site, record, uploads):
        url = uploads.create(6, b"abc").headers["Location"]

        def refuse(event):
            if event.request.headers.get("X-Refuse"):
                raise httpexceptions.HTTPForbidden()

        site.registry.registerHandler(refuse, (ResourceChanged,))
        try:
            uploads.patch(url, 3, b"def", {"X-Refuse": "1"}, status=403)
        finally:
            site.registry.unregisterHandler(refuse, (ResourceChanged,))
        assert uploads.offset(url) == 3
        uploads.patch(url, 3, b"def")
        record.check(b"abcdef")

    def test_creation_leaves_nothing(self, record, uploads):
        """The client would not know the URL of what is left."""
        with_schema(record)
        wrong = {"Upload-Checksum": f"sha1 {'A' * 27}="}
        uploads.create(5, b"hello", status=400, data='{"family": 7}')
        uploads.create(5, b"hello", wrong, status=460)
        uploads.create(5, b"hello!", status=413)
        assert uploads.get(uploads.base).json == []


@pytest.mark.parametrize("case", ["patch", "post", "join", "override", "defer", "store", "library"])
def test_a_conflict_is_repeated(make_site, kinto, files, monkeypatch, case):
    site = make_site(kinto, files, **library_settings("resumed"))
    for path in ("/buckets/resumed", "/buckets/resumed/collections/media"):
        site.http.put_json(path, {}, headers=ALICE, status="*")
    record = site.collection().record()
    of_record = f"{record.attachment_uri}/uploads"
    base = "/media/uploads" if case in ("store", "library") else of_record
    uploads, target = Uploads(site.http, base), {"target": case} if base != of_record else {}
    content, release, left = uuid4().hex.encode(), resumable._release_segments, [1]

    def conflict(*args):
        release(*args)
        if left and resumable._release_segments is conflict:
            left.pop()
            raise IntegrityError(message="two rows of one millisecond")

    def upload(**options):
        monkeypatch.setattr(resumable, "_release_segments", conflict)
        return uploads.patch(url, 4, content[4:], status="*", **options)

    before = {stat.key for stat in site.storage.list("private/_uploads/")}
    if case == "post":
        monkeypatch.setattr(resumable, "_release_segments", conflict)
        answer = uploads.create(32, content)
    elif case == "join":
        pieces = (content[:4], content[4:])
        parts = [uploads.create(len(each), each, PARTIAL).headers["Location"] for each in pieces]
        monkeypatch.setattr(resumable, "_release_segments", conflict)
        final = {"Upload-Concat": f"final;{' '.join(parts)}", "Upload-Length": None}
        answer = uploads.create(0, headers=final)
    else:
        length = None if case == "defer" else 32
        url = uploads.create(length, content[:4], **target).headers["Location"]
        if case == "override":
            monkeypatch.setattr(resumable, "_release_segments", conflict)
            sent = {"X-HTTP-Method-Override": "PATCH", "Content-Type": STREAM, "Upload-Offset": "4"}
            headers = {**ALICE, **VERSION, **sent}
            answer = uploads.http.post(uploads._path(url), content[4:], headers=headers)
        else:
            answer = upload(headers={"Upload-Length": "32"} if case == "defer" else None)
    assert answer.status_int < 300 and not left
    if base == of_record:
        record.check(content)
    assert {stat.key for stat in site.storage.list("private/_uploads/")} == before


class TestMeeting:
    """Two requests on PostgreSQL at the same moment, a little later each time."""

    ROUNDS = 12

    @pytest.fixture
    def kinto(self):
        return "postgresql"

    def meet(self, number, first, second):
        with ThreadPoolExecutor(2) as pool:
            one = pool.submit(first)
            time.sleep(0.0015 * number)
            other = pool.submit(second)
            return one.result().status_int, other.result().status_int

    def test_deletion_and_the_last_bytes(self, site):
        collection = site.collection()
        for number in range(self.ROUNDS):
            record = collection.record()
            uploads = Uploads(site.http, f"{record.attachment_uri}/uploads")
            url = uploads.create(5, b"hel").headers["Location"]
            sent, deleted = self.meet(
                number,
                partial(uploads.patch, url, 3, b"lo", status="*"),
                partial(uploads.delete, url, status="*"),
            )
            assert deleted == 204
            uploads.head(url, status=404)
            assert is_missing(record) == (sent != 204)

    def test_a_length_and_bytes_without_one(self, site):
        collection = site.collection()
        for number in range(self.ROUNDS):
            record = collection.record()
            uploads = Uploads(site.http, f"{record.attachment_uri}/uploads")
            url = uploads.create(None).headers["Location"]
            self.meet(
                number,
                partial(uploads.patch, url, 0, b"hello", status="*"),
                partial(uploads.patch, url, 0, b"hello", {"Upload-Length": "5"}, status="*"),
            )
            head = uploads.head(url).headers
            is_complete = head["Upload-Offset"] == head.get("Upload-Length")
            assert is_missing(record) != is_complete
            if not is_complete:
                offset = int(head["Upload-Offset"])
                uploads.patch(url, offset, b"hello"[offset:], {"Upload-Length": "5"})
            assert site.http.get(record.attachment_uri, headers=ALICE).body == b"hello"


def test_two_lengths(record, uploads):
    url = uploads.create(None).headers["Location"]
    uploads.patch(url, 0, b"", {"Upload-Length": "5"})
    uploads.patch(url, 0, b"", {"Upload-Length": "3"}, status=400)
    uploads.patch(url, 0, b"hello")
    record.check(b"hello")


def test_anonymous_senders_do_not_see_each_other(site):
    collection = site.collection()
    anyone = {"permissions": {"record:create": ["system.Everyone"]}}
    site.http.patch_json(collection.uri, anyone, headers=ALICE)
    uploads = Uploads(site.http, f"{collection.record().attachment_uri}/uploads", {})
    url = uploads.create(5, b"hel").headers["Location"]
    assert uploads.offset(url) == 3
    assert uploads.get(uploads.base).json == []


@pytest.mark.parametrize("filetype", ["\0", "text/plain\0", "a\r\nX: 1", "x" * 4000, "\U0001f600"])
def test_types_that_are_none(record, uploads, filetype):
    uploads.create(5, b"hello", filetype=filetype)
    record.check(b"hello")


def test_undeclared_fields(site, record):
    uploads = Uploads(site.http, f"{record.uri}/attachments/nonsense/uploads")
    uploads.create(3, b"abc", PARTIAL, status=404)
    uploads.get(uploads.base, status=404)
