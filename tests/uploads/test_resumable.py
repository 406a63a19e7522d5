"""Resumable uploads to records: what arrives, and what becomes of it."""

import os
from base64 import b64encode
from email.utils import parsedate_to_datetime
from hashlib import md5, sha1, sha256
from time import time

import pytest

from tests.support.site import ALICE, BOB, SCHEMA
from tests.support.tus import Uploads

FILES = {"local", "seaweedfs", "gcs"}

CHUNK = 256 * 1024


@pytest.fixture
def site(make_site, kinto, files):
    return make_site(kinto, files, **{"kinto.attachment.uploads.segment_size": "256KiB"})


class TestSend:
    def test_two_pieces(self, record, uploads, staged):
        created = uploads.create(11)
        url = created.headers["Location"]
        assert created.headers["Upload-Offset"] == "0"
        assert uploads.offset(url) == 0
        first = uploads.patch(url, 0, b"hello ")
        assert first.headers["Upload-Offset"] == "6"
        assert "ETag" not in first.headers
        assert uploads.offset(url) == 6
        last = uploads.patch(url, 6, b"world")
        assert last.headers["Upload-Offset"] == "11"
        attachment = record.check(b"hello world")
        assert (attachment["filename"], attachment["mimetype"]) == ("a.txt", "text/plain")
        assert last.headers["ETag"] == f'"{record.data["last_modified"]}"'
        assert last.headers["Content-Location"].endswith(record.attachment_uri)
        done = uploads.head(url)
        assert done.headers["Upload-Offset"] == done.headers["Upload-Length"] == "11"
        assert done.headers["ETag"] == last.headers["ETag"]
        assert staged() == []

    def test_segments(self, record, uploads, staged):
        content = os.urandom(3 * CHUNK + 17)
        url = uploads.create(len(content)).headers["Location"]
        uploads.patch(url, 0, content[: 2 * CHUNK + 5])
        assert len(staged()) == 3
        uploads.patch(url, 2 * CHUNK + 5, content[2 * CHUNK + 5 :])
        record.check(content)
        assert staged() == []

    def test_many_small_pieces(self, record, uploads, staged):
        content = os.urandom(40)
        url = uploads.create(40).headers["Location"]
        for offset in range(40):
            uploads.patch(url, offset, content[offset : offset + 1])
        record.check(content)
        assert staged() == []

    def test_nothing_is_sent(self, record, uploads):
        url = uploads.create(3).headers["Location"]
        answer = uploads.patch(url, 0, b"")
        assert answer.headers["Upload-Offset"] == "0"
        uploads.patch(url, 0, b"abc")
        record.check(b"abc")

    def test_a_file_without_bytes(self, record, uploads, staged):
        created = uploads.create(0)
        assert created.headers["Upload-Offset"] == "0"
        assert created.json["hash"] == sha256(b"").hexdigest()
        record.check(b"")
        assert uploads.head(created.headers["Location"]).headers["Upload-Length"] == "0"
        assert staged() == []

    def test_a_second_file_replaces_the_first(self, record, uploads):
        record.upload(b"before")
        url = uploads.create(5).headers["Location"]
        record.check(b"before")
        uploads.patch(url, 0, b"after")
        record.check(b"after")

    def test_data_and_permissions(self, record, uploads):
        uploads.create(
            2, b"hi", data='{"family": "sans"}', permissions='{"read": ["system.Everyone"]}'
        )
        assert record.data["family"] == "sans"
        assert record.http.get(record.uri, headers=BOB)


class TestCreation:
    def test_with_all_bytes(self, record, uploads, staged):
        created = uploads.create(5, b"hello")
        assert created.headers["Upload-Offset"] == "5"
        assert created.json == record.check(b"hello")
        assert created.headers["ETag"] == f'"{record.data["last_modified"]}"'
        assert staged() == []

    def test_with_the_first_bytes(self, record, uploads):
        created = uploads.create(5, b"hel")
        assert created.headers["Upload-Offset"] == "3"
        uploads.patch(created.headers["Location"], 3, b"lo")
        record.check(b"hello")

    def test_of_unknown_length(self, record, uploads):
        url = uploads.create(None).headers["Location"]
        head = uploads.head(url)
        assert head.headers["Upload-Defer-Length"] == "1"
        assert "Upload-Length" not in head.headers
        uploads.patch(url, 0, b"hel")
        uploads.patch(url, 3, b"l", headers={"Upload-Length": "5"})
        head = uploads.head(url)
        assert head.headers["Upload-Length"] == "5"
        assert "Upload-Defer-Length" not in head.headers
        uploads.patch(url, 4, b"o", headers={"Upload-Length": "6"}, status=400)
        assert uploads.offset(url) == 4
        uploads.patch(url, 4, b"o")
        record.check(b"hello")

    def test_the_length_after_all_bytes(self, record, uploads, staged):
        url = uploads.create(None).headers["Location"]
        uploads.patch(url, 0, b"hello")
        uploads.patch(url, 5, b"", headers={"Upload-Length": "4"}, status=400)
        last = uploads.patch(url, 5, b"", headers={"Upload-Length": "5"})
        assert last.headers["ETag"]
        record.check(b"hello")
        assert staged() == []

    def test_expires(self, uploads):
        created = uploads.create(5)
        expires = parsedate_to_datetime(created.headers["Upload-Expires"])
        assert abs(expires.timestamp() - time() - 86400) < 60
        sent = uploads.patch(created.headers["Location"], 0, b"a")
        assert sent.headers["Upload-Expires"].endswith(" GMT")


class TestConcatenation:
    def test_two_parts(self, record, uploads, staged):
        first = uploads.create(6, b"hello ", {"Upload-Concat": "partial"})
        second = uploads.create(5, headers={"Upload-Concat": "partial"})
        urls = [each.headers["Location"] for each in (first, second)]
        final = {"Upload-Concat": f"final;{' '.join(urls)}", "Upload-Length": None}
        uploads.create(0, headers=final, status=400)
        uploads.patch(urls[1], 0, b"world")
        record.http.get(record.uri, headers=ALICE, status=404)
        assert uploads.head(urls[0]).headers["Upload-Concat"] == "partial"
        joined = uploads.create(0, headers=final)
        assert joined.json == record.check(b"hello world")
        head = uploads.head(joined.headers["Location"])
        assert head.headers["Upload-Concat"] == final["Upload-Concat"]
        assert head.headers["Upload-Length"] == head.headers["Upload-Offset"] == "11"
        uploads.patch(joined.headers["Location"], 11, b"", status=403)
        assert staged() == []
        uploads.create(0, headers=final, status=400)
        record.check(b"hello world")

    def test_a_length_is_refused(self, uploads):
        part = uploads.create(1, b"a", {"Upload-Concat": "partial"}).headers["Location"]
        uploads.create(1, headers={"Upload-Concat": f"final;{part}"}, status=400)

    @pytest.mark.parametrize("concat", ["final;", "final", "partial;a", "whole", "final;/x /x"])
    def test_malformed(self, uploads, concat):
        uploads.create(0, headers={"Upload-Concat": concat, "Upload-Length": None}, status=400)

    def test_parts_of_another_record(self, site, uploads):
        other = site.collection().record()
        others = Uploads(other.http, f"{other.attachment_uri}/uploads")
        part = others.create(1, b"a", {"Upload-Concat": "partial"}).headers["Location"]
        final = {"Upload-Concat": f"final;{part}", "Upload-Length": None}
        uploads.create(0, headers=final, status=400)
        assert others.offset(part) == 1


class TestChecksum:
    @pytest.mark.parametrize("algorithm", [sha1, sha256, md5])
    def test_right(self, record, uploads, algorithm):
        url = uploads.create(5).headers["Location"]
        digest = algorithm(b"hello")
        value = f"{digest.name} {b64encode(digest.digest()).decode()}"
        uploads.patch(url, 0, b"hello", {"Upload-Checksum": value})
        record.check(b"hello")

    def test_wrong(self, record, uploads, staged):
        url = uploads.create(5).headers["Location"]
        value = f"sha1 {b64encode(sha1(b'hello').digest()).decode()}"
        uploads.patch(url, 0, b"jello", {"Upload-Checksum": value}, status=460)
        assert uploads.offset(url) == 0
        assert staged() == []
        uploads.patch(url, 0, b"hello", {"Upload-Checksum": value})
        record.check(b"hello")

    def test_wrong_over_segments(self, uploads, staged):
        url = uploads.create(3 * CHUNK).headers["Location"]
        value = f"sha1 {b64encode(sha1(b'hello').digest()).decode()}"
        uploads.patch(url, 0, bytes(2 * CHUNK), {"Upload-Checksum": value}, status=460)
        assert uploads.offset(url) == 0
        assert staged() == []

    @pytest.mark.parametrize("value", ["crc32 AAAA", "sha1", "sha1 AAAA", "sha1 %%%", ""])
    def test_malformed(self, uploads, value):
        url = uploads.create(5).headers["Location"]
        uploads.http.patch(
            uploads._path(url),
            b"hello",
            headers={
                **ALICE,
                "Tus-Resumable": "1.0.0",
                "Upload-Offset": "0",
                "Content-Type": "application/offset+octet-stream",
                "Upload-Checksum": value,
            },
            status=400,
        )
        assert uploads.offset(url) == 0


class TestTermination:
    def test_unfinished(self, record, uploads, staged):
        url = uploads.create(5, b"hel").headers["Location"]
        assert len(staged()) == 1
        uploads.delete(url)
        assert staged() == []
        uploads.head(url, status=404)
        uploads.patch(url, 3, b"lo", status=404)
        uploads.delete(url, status=404)
        record.http.get(record.uri, headers=ALICE, status=404)

    def test_finished(self, record, uploads):
        url = uploads.create(5, b"hello").headers["Location"]
        uploads.delete(url)
        record.check(b"hello")
        uploads.head(url, status=404)


class TestState:
    def test_as_json(self, record, uploads):
        url = uploads.create(5, b"hel").headers["Location"]
        state = uploads.get(url).json
        assert state["id"] == url.rpartition("/")[2]
        assert (state["state"], state["offset"], state["length"]) == ("open", 3, 5)
        assert state["filename"] == "a.txt"
        assert abs(state["expires"] / 1000 - time() - 86400) < 60
        assert state["file"] is None
        uploads.patch(url, 3, b"lo")
        attached = uploads.get(url).json
        assert attached["state"] == "attached"
        assert attached["file"] == record.data["attachment"]

    def test_list(self, site, uploads):
        other = site.collection().record()
        Uploads(other.http, f"{other.attachment_uri}/uploads").create(3)
        created = [uploads.create(5).headers["Location"].rpartition("/")[2] for _ in range(3)]
        listed = uploads.get(uploads.base).json
        assert sorted(each["id"] for each in listed) == sorted(created)


class TestMeanwhile:
    """What may change between two requests of an upload."""

    def test_the_record_is_deleted(self, record, uploads):
        record.upload(b"before")
        url = uploads.create(5, b"hel").headers["Location"]
        record.http.delete(record.uri, headers=ALICE)
        uploads.patch(url, 3, b"lo")
        record.check(b"hello")

    def test_the_record_is_deleted_with_a_precondition(self, record, uploads):
        record.upload(b"before")
        version = f'"{record.data["last_modified"]}"'
        url = uploads.create(5, b"hel", {"If-Match": version}).headers["Location"]
        record.http.delete(record.uri, headers=ALICE)
        uploads.patch(url, 3, b"lo", status=412)
        assert uploads.offset(url) == 3
        record.http.get(record.uri, headers=ALICE, status=404)

    def test_the_record_is_changed(self, record, uploads):
        record.upload(b"before")
        version = f'"{record.data["last_modified"]}"'
        url = uploads.create(5, b"hel", {"If-Match": version}).headers["Location"]
        record.http.patch_json(record.uri, {"data": {"family": "sans"}}, headers=ALICE)
        uploads.patch(url, 3, b"lo", status=412)
        assert uploads.offset(url) == 3
        record.check(b"before")
        uploads.create(5, headers={"If-Match": version}, status=412)

    def test_the_record_is_created(self, record, uploads):
        url = uploads.create(5, b"hel", {"If-None-Match": "*"}).headers["Location"]
        record.put(family="sans")
        uploads.patch(url, 3, b"lo", status=412)
        assert "attachment" not in record.data

    def test_the_permission_is_withdrawn(self, record, uploads):
        record.put()
        record.http.patch_json(
            record.uri, {"permissions": {"write": ["system.Authenticated"]}}, headers=ALICE
        )
        bobs = Uploads(record.http, uploads.base, BOB)
        url = bobs.create(5, b"hel").headers["Location"]
        record.http.patch_json(record.uri, {"permissions": {"write": []}}, headers=ALICE)
        for call in (bobs.head, bobs.get, bobs.delete):
            call(url, status=403)
        bobs.patch(url, 3, b"lo", status=403)
        assert "attachment" not in record.data

    def test_a_schema_comes(self, record, uploads):
        url = uploads.create(5, b"hel", data='{"family": 7}').headers["Location"]
        uri = record.collection.uri
        record.http.patch_json(uri, {"data": {"schema": SCHEMA}}, headers=ALICE)
        uploads.patch(url, 3, b"lo", status=400)
        assert uploads.offset(url) == 3
        record.http.get(record.uri, headers=ALICE, status=404)
        record.http.patch_json(uri, {"data": {"schema": {}}}, headers=ALICE)
        uploads.patch(url, 3, b"lo")
        record.check(b"hello")

    def test_the_collection_is_deleted(self, record, uploads):
        url = uploads.create(5, b"hel").headers["Location"]
        record.http.delete(record.collection.uri, headers=ALICE)
        uploads.patch(url, 3, b"lo", status=404)
