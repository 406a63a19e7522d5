"""Servers with the API of S3 that lack some of it: uploads and deletions work all the same."""

import json
import logging
import secrets
from datetime import timedelta
from uuid import uuid4

import pytest
import transaction

from kinto_attachment.files.key import MARKER
from kinto_attachment.maintenance.server import Server
from tests.support.maintenance import gc
from tests.support.media import MediaClient, random_content
from tests.support.servers.odd_s3 import OddS3
from tests.support.site import ALICE, Site
from tests.support.streaming import uploads

SIZES = {"small": 100, "in parts": 11 * 1024 * 1024}


def is_bulk_deletion(handler) -> bool:
    return handler.command == "POST" and handler.path.partition("?")[2].startswith("delete")


@pytest.fixture
def make_odd_site(moto, make_database):
    """Return a function that makes a site whose S3 server refuses some requests."""
    opened = []

    def make(refuse, **settings):
        server = OddS3(moto.endpoint_url, refuse).__enter__()
        bucket = moto.bucket()
        site = Site(
            **{
                **make_database(),
                **{f"kinto.{key}": value for key, value in moto.settings(bucket).items()},
                "kinto.attachment.aws.endpoint_url": server.endpoint_url,
                **settings,
            }
        )
        opened.extend([site.close, lambda: server.__exit__()])
        site.odd = server
        site.server = Server.of(site.registry, transaction.manager)
        return site

    yield make
    for close in opened:
        close()


def with_acl(status: int, code: str):
    return lambda handler: (status, code) if "x-amz-acl" in handler.headers else None


class TestACL:
    @pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
    def test_files_are_public_unless_they_are_private(self, make_odd_site, size):
        private = {"kinto.attachment.resources.hidden.private": "true"}
        sent = []

        def note(handler):
            if handler.command in ("PUT", "POST") and "uploadId=" not in handler.path:
                sent.append((handler.path, handler.headers.get("x-amz-acl")))

        site = make_odd_site(note, **private)
        record = site.collection().record()
        record.upload(secrets.token_bytes(size))
        (key,) = record.collection.keys
        assert [acl for path, acl in sent if key in path] == ["public-read"]
        for uri in ("/buckets/hidden", "/buckets/hidden/collections/c"):
            site.http.put_json(uri, {}, headers=ALICE)
        uri = f"/buckets/hidden/collections/c/records/{uuid4()}/attachment"
        files = [("attachment", "a.txt", secrets.token_bytes(size))]
        site.http.post(uri, headers=ALICE, upload_files=files, status=201)
        (hidden,) = {stat.key for stat in site.storage.list()} - {key, MARKER}
        assert [acl for path, acl in sent if hidden in path] == [None]

    @pytest.mark.parametrize(
        "size, refusal",
        [
            ("small", (400, "AccessControlListNotSupported")),
            ("in parts", (400, "AccessControlListNotSupported")),
            ("small", (403, "AccessDenied")),
            ("small", (501, "NotImplemented")),
            ("small", (400, "InvalidArgument")),
        ],
    )
    def test_a_bucket_without_acls(self, make_odd_site, caplog, refusal, size):
        site = make_odd_site(with_acl(*refusal))
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                record = site.collection().record()
                content = secrets.token_bytes(SIZES[size])
                record.upload(content, status=201)
                record.check(content)
        assert len(site.odd.refused) == 1
        refused = [
            each.getMessage() for each in caplog.records if "refuses the ACL" in each.message
        ]
        assert len(refused) == 1 and "public-read" in refused[0]

    def test_a_policy_for_one_key(self, make_odd_site, caplog):
        """The files that come later are still public."""
        sent = []

        def refuse(handler):
            acl = handler.headers.get("x-amz-acl")
            if handler.command == "PUT" and ".txt" in handler.path:
                sent.append((handler.path.rpartition("/")[2], acl))
            return (403, "AccessDenied") if acl and "secret" in handler.path else None

        site = make_odd_site(refuse, **{"kinto.attachment.randomize": "false"})
        for name in ("first.txt", "secret.txt", "second.txt"):
            site.collection().record().upload(b"content", name, status=201)
        assert sent == [
            ("first.txt", "public-read"),
            ("secret.txt", "public-read"),
            ("secret.txt", None),
            ("second.txt", "public-read"),
        ]
        assert not [text for text in caplog.messages if "refuses the ACL" in text]

    def test_a_bucket_that_is_not_ours(self, make_odd_site):
        """It refuses uploads without ACL, too."""
        site = make_odd_site(
            lambda handler: (403, "AccessDenied") if handler.command == "PUT" else None
        )
        record = site.collection().record()
        for _ in range(2):
            record.upload(status=503)
        assert record.snapshot()[0] == 404

    def test_no_acl_by_the_settings(self, make_odd_site):
        site = make_odd_site(
            with_acl(400, "AccessControlListNotSupported"), **{"kinto.attachment.aws.acl": ""}
        )
        record = site.collection().record()
        record.upload(status=201)
        assert site.odd.refused == []

    def test_a_copy(self, make_odd_site):
        """The media store copies what it has verified."""
        public = {"kinto.media_read_principals": "system.Everyone"}
        site = make_odd_site(with_acl(400, "AccessControlListNotSupported"), **public)
        media, (content, digest) = MediaClient(site), random_content()
        media.post(content, digest, query="?verify=false", status=202)
        media.verify()
        assert site.http.get(f"/media/{digest}").body == content


class TestDeletions:
    @pytest.mark.parametrize(
        "refusal",
        [
            (501, "NotImplemented"),
            (400, "MissingContentMD5"),
            (400, "InvalidRequest"),
            (405, "MethodNotAllowed"),
        ],
    )
    def test_one_by_one(self, make_odd_site, caplog, refusal):
        site = make_odd_site(lambda handler: refusal if is_bulk_deletion(handler) else None)
        collection = site.collection()
        records = [collection.record() for _ in range(8)]
        for record in records:
            record.upload(b"content")
        with caplog.at_level(logging.WARNING):
            records[0].detach()
            assert len(collection.keys) == 7
            records[1].upload(b"another")
            assert len(collection.keys) == 7
            site.http.delete(f"{collection.uri}/records", headers=ALICE)
        assert collection.keys == collection.releases == []
        assert len(site.odd.refused) == 1
        assert [each for each in caplog.records if "one by one" in each.message]

    def test_heartbeat_and_gc(self, make_odd_site):
        site = make_odd_site(
            lambda handler: (501, "NotImplemented") if is_bulk_deletion(handler) else None
        )
        for _ in range(2):
            assert json.loads(site.http.get("/__heartbeat__").body)["attachments"] is True
        assert [stat.key for stat in site.storage.list("__heartbeat__/")] == []
        site.storage.delete([f"missing-{number}" for number in range(3)])
        gc(site, timedelta(hours=1))

    def test_another_error_is_an_error(self, make_odd_site):
        refuse = {"now": True}

        def slow_down(handler):
            return (503, "SlowDown") if is_bulk_deletion(handler) and refuse["now"] else None

        site = make_odd_site(slow_down, **{"kinto.attachment.aws.num_retries": "0"})
        record = site.collection().record()
        record.upload(b"content")
        record.detach()
        assert len(record.collection.keys) == 1
        refuse["now"] = False
        gc(site, timedelta(hours=1))
        assert record.collection.keys == []


@pytest.mark.parametrize("settings", [{}, {"kinto.attachment.randomize": "false"}])
def test_each_request_of_an_upload_in_parts_fails(make_odd_site, settings):
    """One after the other, up to the deletion of what is replaced."""
    sent, left = [], []

    def refuse(handler):
        if handler.command in ("GET", "HEAD"):
            return None
        sent.append(handler.path)
        return (500, "InternalError") if left and left[0] == len(sent) else None

    site = make_odd_site(refuse, **{"kinto.attachment.aws.num_retries": "0", **settings})
    record = site.collection().record()
    record.upload(b"before")
    statuses, number = [], 0
    while len(sent) >= number:  # as long as there was a request of that number
        before, number = record.snapshot(), number + 1
        sent.clear()
        left.append(number)
        content = secrets.token_bytes(SIZES["in parts"])
        statuses.append(record.upload(content, status="*").status_int)
        left.clear()
        if statuses[-1] == 503:
            assert record.snapshot()[:4] == before[:4]
        gc(site, offline=True)
        assert record.collection.keys == record.collection.links
        assert uploads(site) == []
    # CreateMultipartUpload, two parts and CompleteMultipartUpload; not the deletion.
    assert statuses[:4] == [503] * 4 and set(statuses[4:]) == {200}
