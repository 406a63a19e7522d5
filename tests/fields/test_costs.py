"""What fields cost: no statement more for records with many files, or for servers without them."""

import pytest

from tests.attachments.test_record_model import statements
from tests.support.fields import FIELDS, PRIVATE, form, get, send
from tests.support.site import ALICE


@pytest.fixture(params=[FIELDS, PRIVATE], ids=["public", "private"])
def site(make_site, request):
    return make_site("postgresql", "local", **request.param)


def record_with(site, count):
    record = site.collection().record()
    form(record, *[("pictures", f"{n}.txt", b"%d" % n) for n in range(count)])
    return record


def append(record):
    return send(record, "pictures", b"new", status=201)


def reorder(record):
    turned = record.data["pictures"][::-1]
    return lambda: record.http.patch_json(record.uri, {"data": {"pictures": turned}}, headers=ALICE)


def replace(record):
    entry = record.data["pictures"][0]["id"]
    return lambda: send(record, f"pictures/{entry}", b"other", method="put")


def remove(record):
    entry = record.data["pictures"][0]["id"]
    uri = f"{record.uri}/attachments/pictures/{entry}"
    return lambda: record.http.delete(uri, headers=ALICE)


def read(record):
    return lambda: get(record, "/pictures")


def download(record):
    entry = record.data["pictures"][0]["id"]
    return lambda: get(record, f"/pictures/{entry}")


OPERATIONS = {
    "append": lambda record: lambda: append(record),
    "reorder": reorder,
    "replace": replace,
    "remove": remove,
    "read": read,
    "download": download,
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_statements_do_not_grow_with_the_entries(site, operation):
    asked = []
    record_with(site, 1)  # the first request looks for rows of version 8
    for count in (2, 90):
        run = OPERATIONS[operation](record_with(site, count))
        with statements(site) as seen:
            run()
        asked.append(len(seen))
    assert asked[0] == asked[1], asked


def test_rows_of_a_server_without_other_fields(make_site):
    """They are what they were before there were fields, so that no database needs a migration."""
    site = make_site("postgresql", "local")
    record = site.collection().record()
    record.upload(b"first")
    record.upload(b"second")
    bucket = "~5f~".join(record.collection.bucket.split("_"))
    parent = f"/attachment-links/{bucket}/fonts/{record.id}"
    attachment = record.data["attachment"]
    list_all = site.registry.storage.list_all
    [row] = site.in_transaction(lambda: list_all("attachment-link", f"{parent}*"))
    assert row.pop("last_modified")
    assert row == {
        "id": f"own:{site.key(attachment['location'])}",
        "record": record.uri,
        **{name: attachment[name] for name in ("hash", "filename", "mimetype", "size")},
    }
    assert site.in_transaction(lambda: list_all("attachment-link", parent))
    assert len(site.in_transaction(lambda: list_all("attachment-former", f"{parent}*"))) == 1
    assert len(site.in_transaction(lambda: list_all("attachment-former", parent))) == 1
