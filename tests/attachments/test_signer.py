"""Records that kinto-signer copies: every copy keeps its file, whatever happens to the others."""

import pytest

from tests.support.maintenance import check, gc
from tests.support.site import ALICE

BUCKETS = ("workspace", "preview", "published")
SIGNER = {"kinto.includes": "kinto_attachment tests.support.signer"}


class Signed:
    """A collection in the three buckets of kinto-signer."""

    def __init__(self, site):
        self.site, self.http = site, site.http
        for bucket in BUCKETS:
            self.http.put_json(f"/buckets/{bucket}", {}, headers=ALICE)
            self.http.put_json(f"/buckets/{bucket}/collections/c", {}, headers=ALICE)

    def uri(self, record: str, bucket: str = "workspace") -> str:
        return f"/buckets/{bucket}/collections/c/records/{record}"

    def upload(self, record: str, content: bytes) -> None:
        files = [("attachment", f"{record}.txt", content)]
        self.http.post(f"{self.uri(record)}/attachment", headers=ALICE, upload_files=files)

    def ask(self, status: str) -> None:
        body = {"data": {"status": status}}
        self.http.patch_json("/buckets/workspace/collections/c", body, headers=ALICE)

    def check(self, bucket: str, expected: dict[str, bytes | None]) -> None:
        """Check which records a bucket has, and their files."""
        uri = f"/buckets/{bucket}/collections/c/records"
        records = {each["id"]: each for each in self.http.get(uri, headers=ALICE).json["data"]}
        assert set(records) == set(expected)
        for name, content in expected.items():
            uri, status = f"{self.uri(name, bucket)}/attachment", 404 if content is None else 200
            response = self.http.get(uri, headers=ALICE, status=status)
            assert content is None or response.body == content
            assert ("attachment" in records[name]) == (content is not None)

    def check_storage(self, kept: int) -> None:
        """Check that the records, and ``kept`` older files, are all that there is."""
        locations = {
            record["attachment"]["location"]
            for bucket in BUCKETS
            for record in self.http.get(
                f"/buckets/{bucket}/collections/c/records", headers=ALICE
            ).json["data"]
            if "attachment" in record
        }
        assert check(self.site, deep=True) == []
        gc(self.site)
        keys = [stat.key for stat in self.site.storage.list() if "__" not in stat.key]
        assert len(keys) == len(locations) + kept
        assert {self.site.key(location) for location in locations} <= set(keys)


@pytest.fixture(params=["false", "true"], ids=["delete", "keep"])
def signed(request, make_server):
    site = make_server("local", **SIGNER, **{"kinto.attachment.keep_old_files": request.param})
    signed = Signed(site)
    signed.keeps = request.param == "true"
    for name in ("r1", "r3", "r4", "r5"):
        signed.upload(name, name.encode())
    return signed


PUBLISHED = {"r1": b"r1", "r3": b"r3", "r4": b"r4", "r5": b"r5"}


def change(signed) -> dict[str, bytes | None]:
    """Change the workspace in every way; return what it has then."""
    signed.upload("r1", b"new")
    signed.http.delete(signed.uri("r3"), headers=ALICE)
    signed.http.delete(f"{signed.uri('r4')}/attachment", headers=ALICE)
    signed.upload("r2", b"r2")
    return {"r1": b"new", "r2": b"r2", "r4": None, "r5": b"r5"}


def test_review_and_approval(signed):
    signed.ask("to-review")
    signed.check("preview", PUBLISHED)
    signed.ask("to-sign")
    for bucket in BUCKETS:
        signed.check(bucket, PUBLISHED)
    changed = change(signed)
    signed.check("published", PUBLISHED)
    signed.check("preview", PUBLISHED)
    signed.ask("to-review")
    signed.check("published", PUBLISHED)
    signed.check("preview", changed)
    signed.ask("to-sign")
    for bucket in BUCKETS:
        signed.check(bucket, changed)
    signed.ask("to-resign")
    # The old file of r1 and those of r3 and r4.
    signed.check_storage(kept=3 if signed.keeps else 0)


@pytest.mark.parametrize("reviewed", [False, True], ids=["edited", "reviewed"])
def test_rollback(signed, reviewed):
    signed.ask("to-sign")
    change(signed)
    if reviewed:
        signed.ask("to-review")
    signed.ask("to-rollback")
    for bucket in BUCKETS:
        signed.check(bucket, PUBLISHED)
    # The new files of r1 and r2 went with the change.
    signed.check_storage(kept=2 if signed.keeps else 0)
    for name in PUBLISHED:
        body = {"data": {"title": "edited"}}
        response = signed.http.patch_json(signed.uri(name), body, headers=ALICE)
        assert response.json["data"]["title"] == "edited"
    signed.check("workspace", PUBLISHED)
    changed = change(signed)
    signed.ask("to-sign")
    for bucket in BUCKETS:
        signed.check(bucket, changed)
    signed.check_storage(kept=5 if signed.keeps else 0)


def test_rollback_of_everything(signed):
    """Nothing was published yet."""
    signed.ask("to-review")
    signed.ask("to-rollback")
    for bucket in BUCKETS:
        signed.check(bucket, {})
    signed.check_storage(kept=4 if signed.keeps else 0)


@pytest.mark.parametrize("name", ["r2", "r4"])
def test_an_offline_client_after_a_rollback(signed, name):
    """It has seen a file that the rollback took away."""
    signed.http.delete(f"{signed.uri('r4')}/attachment", headers=ALICE)
    signed.ask("to-sign")
    signed.upload(name, b"seen")
    seen = signed.http.get(signed.uri(name), headers=ALICE).json["data"]
    signed.ask("to-rollback")
    response = signed.http.put_json(signed.uri(name), {"data": {**seen, "a": 1}}, headers=ALICE)
    assert "attachment" not in response.json["data"]


def test_a_location_that_is_not_encoded(make_server):
    """As the existing plugin wrote it, with a percent sign in its folder."""
    site = make_server("local", **SIGNER, **{"kinto.attachment.folder": "50%25off"})
    signed = Signed(site)
    signed.upload("r1", b"r1")
    storage, where = site.registry.storage, "/buckets/workspace/collections/c"

    def write_raw():
        record = storage.get("record", where, "r1")
        attachment, base_url = record[site.field], site.settings["kinto.attachment.base_url"]
        attachment["location"] = base_url + site.key(attachment["location"])
        storage.update("record", where, "r1", record)

    site.in_transaction(write_raw)
    signed.ask("to-sign")
    for bucket in ("workspace", "published"):
        signed.check(bucket, {"r1": b"r1"})
    signed.http.delete(signed.uri("r1"), headers=ALICE)
    signed.check("published", {"r1": b"r1"})
    assert check(site) == []


def test_the_collection_of_a_copy_is_deleted(signed):
    signed.ask("to-sign")
    signed.http.delete("/buckets/workspace/collections/c", headers=ALICE)
    signed.check("published", PUBLISHED)
    signed.http.delete("/buckets/preview", headers=ALICE)
    signed.check("published", PUBLISHED)


@pytest.mark.parametrize("change", ["replace", "remove"])
def test_a_private_file_is_rolled_back(make_server, change):
    """Its location is that of the record that has lost it; the published copy has it still."""
    signed = Signed(make_server("local", **SIGNER, **{"kinto.attachment.private": "true"}))
    signed.upload("a", b"first")
    signed.ask("to-sign")
    if change == "replace":
        signed.upload("a", b"second")
    else:
        signed.http.delete(f"{signed.uri('a')}/attachment", headers=ALICE)
    signed.ask("to-rollback")
    for bucket in BUCKETS:
        signed.check(bucket, {"a": b"first"})
    gc(signed.site)
    assert check(signed.site, deep=True) == []
