"""``library init`` in a bucket that another user has created first, as its name is public."""

from uuid import uuid4

import pytest
import transaction

from kinto_attachment.errors import SettingError
from kinto_attachment.maintenance.init_library import init_library
from kinto_attachment.maintenance.server import Server
from tests.support.library import jpeg
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


def user(site, headers) -> str:
    """Return the principal of a user."""
    return site.http.get("/", headers=headers).json["user"]["id"]


def send_image(site, headers, **options):
    """Upload an image and make an object of it; return the response."""
    mimetype, body = site.http.encode_multipart([("save", "1")], [("file", "a.jpg", jpeg())])
    headers = {**headers, "Content-Type": mimetype}
    return site.http.post("/media", body, headers=headers, **options)


def take_over(site, **options) -> set[tuple[str, str, str]]:
    """Take the library over; return kind, URI and detail of each finding about a stranger. A dry
    run finds the same."""
    dry = [
        (f.kind, f.record, f.detail) for f in init(site, **options, take_over=True, dry_run=True)
    ]
    done = [(f.kind, f.record, f.detail) for f in init(site, **options, take_over=True)]
    assert dry == done
    return {each for each in done if each[0] in ("removed", "group member")}


class TestGroups:
    """Groups in the bucket that another user has created."""

    def test_a_named_group_keeps_its_members_and_tells_them(self, site):
        bob, group = user(site, BOB), f"{site.bucket}/groups/editors"
        site.http.put_json(site.bucket, {}, headers=BOB)
        site.http.put_json(group, {"data": {"members": [bob]}}, headers=BOB)
        foreign = {(site.bucket, f"write {bob}"), (group, f"write {bob}")}
        member = (group, f"member {bob}")
        assert refused(site, editors=[group]) == foreign | {member}
        assert take_over(site, editors=[group]) == {
            *(("removed", *each) for each in foreign),
            ("group member", *member),
        }
        members = {"data": {"members": [bob, user(site, ALICE)]}}
        site.http.patch_json(group, members, headers=BOB, status=403)
        assert list(init(site)) == []

    def test_another_group_is_deleted(self, site):
        bob, uri = user(site, BOB), f"{site.bucket}/collections/media"
        groups = [f"{site.bucket}/groups/{name}" for name in ("a_b", "axb")]
        site.http.put_json(site.bucket, {}, headers=BOB)
        for group in groups:
            site.http.put_json(group, {"data": {"members": [bob]}}, headers=BOB)
        site.http.put_json(uri, {"permissions": {"write": groups}}, headers=BOB)
        assert {(group, "") for group in groups} < refused(site, editors=["x"])
        found = take_over(site, editors=["x"])
        assert {("removed", group, "") for group in groups} < found
        assert {("removed", uri, f"write {group}") for group in groups} < found
        site.http.patch_json(uri, {"data": {"x": 1}}, headers=BOB, status=403)
        principals = site.http.get("/", headers=BOB).json["user"]["principals"]
        assert not any(principal in groups for principal in principals)

    def test_members_of_a_group_whose_bucket_was_deleted(self, site):
        """Kinto leaves them the principal of the group."""
        group, uri = f"{site.bucket}/groups/editors", f"{site.bucket}/collections/media"
        site.http.put_json(site.bucket, {}, headers=BOB)
        site.http.put_json(group, {"data": {"members": [user(site, BOB)]}}, headers=BOB)
        site.http.delete(site.bucket, headers=BOB)
        list(init(site, editors=[group]))
        site.http.patch_json(uri, {"data": {"x": 1}}, headers=BOB, status=403)


class TestRecords:
    @pytest.fixture
    def record(self, site):
        """The URI of a record that Bob has made in his own library."""
        site.http.put_json(site.bucket, {}, headers=BOB)
        uri = f"{site.bucket}/collections/media"
        site.http.put_json(uri, {}, headers=BOB)
        return f"{uri}/records/{send_image(site, BOB).json['id']}"

    def test_of_another_user(self, site, record):
        alice, foreign = user(site, ALICE), (record, f"write {user(site, BOB)}")
        assert foreign in refused(site, editors=[alice])
        assert ("removed", *foreign) in take_over(site, editors=[alice])
        site.http.patch_json(record, {"data": {"title": "x"}}, headers=BOB, status=403)
        site.http.patch_json(record, {"data": {"title": "x"}}, headers=ALICE)

    def test_after_a_process_died(self, site, record):
        """Bob may not write bucket and collection any more, and still the record."""
        alice, foreign = user(site, ALICE), (record, f"write {user(site, BOB)}")
        uri = f"{site.bucket}/collections/media"
        list(init(site, editors=[alice], take_over=True))
        add = site.registry.permission.add_principal_to_ace
        for each in (uri, record):
            site.in_transaction(lambda each=each: add(each, "write", user(site, BOB)))
        job = init(site, editors=[alice], take_over=True)
        while next(job).record != uri:
            pass
        next(job)
        job.close()
        assert refused(site, editors=[alice]) == {foreign}
        assert take_over(site, editors=[alice]) == {("removed", *foreign)}

    def test_of_authors_stay_theirs(self, site, record):
        everybody = ["system.Authenticated"]
        site.http.patch_json(record, {"permissions": {"write": ["system.Everyone"]}}, headers=BOB)
        found = take_over(site, authors=everybody)
        assert ("removed", record, "write system.Everyone") in found
        site.http.patch_json(record, {"data": {"title": "x"}}, headers=BOB)
        site.http.patch_json(record, {"permissions": {"write": ["x"]}}, headers=BOB)
        assert list(init(site, authors=everybody)) == []


def test_metadata_of_another_user(site):
    uri, alice = f"{site.bucket}/collections/media", user(site, ALICE)
    schemas = {"record:schema": {"type": "object", "required": ["x"]}, "collection:schema": {}}
    site.http.put_json(site.bucket, {"data": schemas}, headers=BOB)
    site.http.put_json(uri, {"data": {"cache_expires": 9, "sort": "title"}}, headers=BOB)
    foreign = {*((site.bucket, name) for name in schemas), (uri, "cache_expires")}
    assert foreign < refused(site, editors=[alice])
    assert {("removed", *each) for each in foreign} < take_over(site, editors=[alice])
    send_image(site, ALICE, status=201)
    data = site.http.get(uri, headers=ALICE).json["data"]
    assert "cache_expires" not in data and data["sort"] == "-last_modified"
    site.http.patch_json(uri, {"data": {"cache_expires": 9}}, headers=ALICE)
    assert list(init(site, editors=[alice])) == []  # What an editor changes stays.
