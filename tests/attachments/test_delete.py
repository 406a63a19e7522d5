"""DELETE {record}/attachment."""

from tests.support.site import ALICE

FIELD_NAMES = {"attachment", "cover"}


def test_removes_the_file_and_the_key(record):
    record.upload(b"content", data={"family": "sans"}, permissions={"read": ["system.Everyone"]})
    before = record.snapshot()
    response = record.detach(status=204)
    assert response.body == b""
    data = record.data
    assert data == {"family": "sans", "id": record.id, "last_modified": data["last_modified"]}
    assert data["last_modified"] > before[1]["last_modified"]
    assert response.headers["ETag"] == f'"{data["last_modified"]}"'
    assert record.snapshot()[2] == before[2]
    assert record.snapshot()[3:] == (None, [], [], [])


def test_without_attachment_is_a_404(record):
    record.put(family="sans")
    before = record.snapshot()
    response = record.detach(status=404)
    assert response.json["message"] == "No attachment on this record."
    assert record.snapshot() == before


def test_again_is_a_404(record):
    record.upload()
    record.detach(status=204)
    record.detach(status=404)


def test_without_record_is_a_404(record):
    assert record.detach(status=404).json["code"] == 404


def test_in_a_batch(site):
    collection = site.collection()
    one, two = collection.record(), collection.record()
    one.upload(b"one")
    two.upload(b"two")
    requests = [
        {"method": "DELETE", "path": one.attachment_uri},
        {"method": "DELETE", "path": "/buckets/a/collections/b/records/c/attachment"},
        {"method": "PATCH", "path": two.uri, "body": {"data": {"family": "sans"}}},
        {"method": "DELETE", "path": two.attachment_uri},
    ]
    body = {"requests": requests}
    responses = site.http.post_json("/batch", body, headers=ALICE).json["responses"]
    assert [response["status"] for response in responses] == [204, 404, 200, 204]
    assert collection.keys == collection.links == []
    assert "attachment" not in one.data
    assert two.data["family"] == "sans"


def test_keep_old_files(make_site, kinto, files):
    site = make_site(kinto, files, **{"kinto.attachment.keep_old_files": "true"})
    record = site.collection().record()
    location = record.upload(b"content").json["location"]
    record.detach(status=204)
    assert site.read(location) == b"content"
    assert record.collection.links == []
    assert record.collection.releases == [("keep", site.key(location))]


def test_the_file_can_be_attached_again(record):
    record.upload(b"first")
    record.detach()
    record.upload(b"second", status=200)
    record.check(b"second")
