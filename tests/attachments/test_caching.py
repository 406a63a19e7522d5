"""``Cache-Control`` of ``GET {record}/attachment``."""

from tests.support.site import ALICE


def test_caching_is_that_of_the_record(make_site):
    """By the collection, else by its settings, those of its bucket, and the general one."""
    expires = "record_cache_expires_seconds"
    settings = {
        expires: "10",
        f"cached.{expires}": "20",
        f"cached.c.{expires}": "30",
        f"cached.never.{expires}": "0",
        f"older_{expires}": "40",
    }
    everyone = {"permissions": {"read": ["system.Everyone"]}}

    def sent(site, bucket, collection, **data) -> tuple[str, str]:
        uri = f"/buckets/{bucket}/collections/{collection}"
        site.http.put_json(f"/buckets/{bucket}", everyone, headers=ALICE)
        site.http.put_json(uri, {"data": data}, headers=ALICE)
        uri = f"{uri}/records/r"
        files = [("attachment", "a.txt", b"content")]
        site.http.post(f"{uri}/attachment", headers=ALICE, upload_files=files)
        file, record = site.http.get(f"{uri}/attachment"), site.http.get(uri)
        user = site.http.get(f"{uri}/attachment", headers=ALICE)
        assert user.headers["Cache-Control"] == "private, no-cache"
        return file.headers["Cache-Control"], record.headers["Cache-Control"]

    site = make_site(**{f"kinto.{name}": value for name, value in settings.items()})
    assert sent(site, "other", "c") == ("max-age=10",) * 2
    assert sent(site, "cached", "d") == ("max-age=20",) * 2
    assert sent(site, "cached", "c") == ("max-age=30",) * 2
    assert sent(site, "cached", "mine", cache_expires=50) == ("max-age=50",) * 2
    file, record = sent(site, "cached", "never")
    assert file == "no-cache, no-store"
    assert {"no-cache", "no-store"} <= set(record.split(", "))
    del settings[expires]
    site = make_site(**{f"kinto.{name}": value for name, value in settings.items()})
    assert sent(site, "older", "c") == ("max-age=40",) * 2
    assert sent(site, "other", "never", cache_expires=0)[0] == "no-cache, no-store"
    assert sent(site, "other", "unset")[0] == "no-cache"
