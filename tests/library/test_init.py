"""``library init`` in a bucket that another user has created first, as its name is public."""

from uuid import uuid4

import pytest
import transaction

from kinto_attachment.errors import SettingError
from kinto_attachment.maintenance.init_library import init_library
from kinto_attachment.maintenance.server import Server
from tests.support.site import ALICE, BOB, Site

NO_PRINCIPALS = {"editors": [], "authors": [], "readers": []}


@pytest.fixture(params=["memory", "postgresql"])
def site(request, kinto_settings, file_settings):
    bucket = {"kinto.attachment.library.bucket": f"b{uuid4().hex}"}
    site = Site(**kinto_settings(request.param), **file_settings("memory"), **bucket)
    site.server = Server.of(site.registry, transaction.manager)
    site.bucket = f"/buckets/{bucket['kinto.attachment.library.bucket']}"
    yield site
    site.close()


def init(site, **options):
    """Yield the findings of ``library init`` as it runs."""
    registry = site.registry
    options = {**NO_PRINCIPALS, **options}
    return init_library(site.server, registry.attachment_library, registry.permission, **options)


def seized(site):
    """Let Bob create the bucket and the collection, open to others; return Bob's principal."""
    permissions = {"record:create": ["system.Everyone"], "read": ["system.Everyone"]}
    site.http.put_json(site.bucket, {"permissions": {"group:create": ["x"]}}, headers=BOB)
    uri = f"{site.bucket}/collections/media"
    site.http.put_json(uri, {"permissions": permissions}, headers=BOB)
    return site.http.get(uri, headers=BOB).json["permissions"]["write"][0]


def refused(site, **options) -> set[tuple[str, str]]:
    """Run a ``library init`` that is refused; return URI and detail of each of its findings."""
    found = []
    with pytest.raises(SettingError, match="--take-over"):
        for finding in init(site, **options):
            assert finding.is_problem
            found.append((finding.record, finding.detail))
    return set(found)


def test_takes_over_from_another_user_only_if_asked(site):
    bob, uri = seized(site), f"{site.bucket}/collections/media"
    before = site.http.get(uri, headers=BOB).json
    alice = site.http.get("/", headers=ALICE).json["user"]["id"]
    foreign = {
        (site.bucket, f"write {bob}"),
        (site.bucket, "group:create x"),
        (uri, f"write {bob}"),
        (uri, "record:create system.Everyone"),
    }
    assert refused(site, editors=[alice]) == refused(site, dry_run=True) == foreign
    assert site.http.get(uri, headers=BOB).json == before
    site.http.get(uri, headers=ALICE, status=200)  # Bob lets everyone read it.
    dry = [finding.kind for finding in init(site, editors=[alice], take_over=True, dry_run=True)]
    done = list(init(site, editors=[alice], take_over=True))
    assert dry == [finding.kind for finding in done]
    assert {(f.record, f.detail) for f in done if f.kind == "removed"} == foreign
    site.http.patch_json(uri, {"data": {"x": 1}}, headers=BOB, status=403)
    site.http.patch_json(uri, {"data": {"x": 1}}, headers=ALICE, status=200)
    site.http.post_json(f"{uri}/records", {"data": {}}, headers=BOB, status=403)


def test_refuses_a_bucket_that_another_user_created(site):
    site.http.put_json(site.bucket, {}, headers=BOB)
    ((uri, detail),) = refused(site)
    assert (uri, detail.split()[0]) == (site.bucket, "write")


def test_accepts_principals_that_the_operator_names(site):
    bob = seized(site)
    list(init(site, editors=[bob, "x"], authors=["system.Everyone"]))
    assert list(init(site)) == []  # The first run has recorded these principals.


def test_refuses_a_bucket_that_another_user_created_again(site):
    alice = site.http.get("/", headers=ALICE).json["user"]["id"]
    list(init(site, editors=[alice]))
    site.in_transaction(lambda: site.registry.storage.delete_all("bucket", ""))
    site.in_transaction(lambda: site.registry.permission.delete_object_permissions(site.bucket))
    site.http.put_json(site.bucket, {}, headers=BOB)
    assert len(refused(site)) == 1


def test_refuses_a_bucket_that_an_author_created(site):
    site.http.put_json(site.bucket, {}, headers=BOB)
    bob = site.http.get("/", headers=BOB).json["user"]["id"]
    assert refused(site, authors=[bob]) == {(site.bucket, f"write {bob}")}
