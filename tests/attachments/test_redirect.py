"""``attachment.download = redirect``: the storage itself serves, for a while, who may read."""

import json
import secrets
import time
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.attachments.test_get import ALICE, BOB, CONTENT, Attached
from tests.support.servers.wsgi import Gunicorn


@pytest.fixture(scope="module")
def account(tmp_path_factory):
    """The file of a Google service account, with a key that signs."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    encoding = (
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    account = {
        "type": "service_account",
        "project_id": "tests",
        "private_key_id": "1",
        "private_key": key.private_bytes(*encoding).decode(),
        "client_email": "kinto@tests.iam.gserviceaccount.com",
        "token_uri": "http://127.0.0.1:9/token",
    }
    path = tmp_path_factory.mktemp("account") / "account.json"
    path.write_text(json.dumps(account))
    return str(path)


@pytest.fixture(scope="module", params=["seaweedfs", "moto", "gcs"])
def server(request, file_settings, tmp_path_factory):
    settings = {
        **file_settings(request.param),
        "kinto.attachment.extensions": "any",
        "kinto.attachment.download": "redirect",
        "kinto.attachment.redirect_expires": "2",
    }
    if request.param == "gcs":
        account = request.getfixturevalue("account")
        settings["kinto.attachment.gcloud.credentials"] = account
    with Gunicorn(settings, tmp_path_factory.mktemp("redirect")) as server:
        server.files = request.param
        yield server


@pytest.fixture
def record(server):
    return Attached(server)


def test_the_storage_serves(record):
    record.upload(CONTENT, "写真.pdf", "application/pdf")
    response = record.get()
    assert (response.status_code, response.content) == (307, b"")
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Referrer-Policy"] == "no-referrer"
    file = requests.get(response.headers["Location"], timeout=60)
    assert file.status_code == 200
    assert file.content == CONTENT
    assert file.headers["Content-Type"] == "application/pdf"


def test_it_says_what_we_would_say(record):
    """Disposition and type are part of what is signed."""
    record.upload(CONTENT, "写真.txt", "text/plain")
    for query, disposition in (("", "inline"), ("?download", "attachment")):
        expected = f"{disposition}; filename=\"file.txt\"; filename*=UTF-8''%E5%86%99%E7%9C%9F.txt"
        location = record.get(query=query).headers["Location"]
        asked = parse_qs(urlsplit(location).query)
        assert asked["response-content-disposition"] == [expected]
        assert asked["response-content-type"] == ["text/plain"]
        file = requests.get(location, timeout=60)
        assert file.content == CONTENT
        if record.server.files != "gcs":  # fake-gcs-server does not know these parameters
            assert file.headers["Content-Disposition"] == expected
            assert file.headers["Content-Type"].partition(";")[0] == "text/plain"


def test_scripts_are_text_there_too(record):
    record.upload(b"alert(1)", "a.js", "text/javascript")
    asked = parse_qs(urlsplit(record.get().headers["Location"]).query)
    assert asked["response-content-type"] == ["text/plain"]


def test_clients_follow(record):
    """With their ranges, and without their credentials."""
    record.upload()
    assert requests.get(record.url, auth=ALICE, timeout=60).content == CONTENT
    ranged = requests.get(record.url, auth=ALICE, headers={"Range": "bytes=5-104"}, timeout=60)
    assert (ranged.status_code, ranged.content) == (206, CONTENT[5:105])


def test_a_url_ends(record):
    record.upload()
    location = record.get().headers["Location"]
    assert requests.get(location, timeout=60).status_code == 200
    if record.server.files != "seaweedfs":
        # The others only imitate: they take any signature.
        asked = parse_qs(urlsplit(location).query)
        assert (asked.get("X-Amz-Expires") or asked.get("X-Goog-Expires")) == ["2"]
        return
    time.sleep(3)
    assert requests.get(location, timeout=60).status_code == 403


def test_head_is_answered_here(record):
    record.upload()
    response = record.get(method="HEAD")
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["Content-Length"] == str(len(CONTENT))


def test_what_needs_no_bytes_is_answered_here(record):
    record.upload()
    etag = record.get(method="HEAD").headers["ETag"]
    assert record.get(If_None_Match=etag).status_code == 304
    assert record.get(If_Match='"other"').status_code == 412
    assert record.get(auth=None).status_code == 401
    assert record.get(auth=BOB).status_code == 403
    record.url = record.url.replace("/r/", "/other/")
    assert record.get().status_code == 404


def test_in_the_default_bucket(record):
    record.record = f"{record.server.url}/buckets/default/collections/c/records/r"
    record.url = f"{record.record}/attachment"
    record.upload()
    response = record.get()
    assert response.status_code == 307
    assert requests.get(response.headers["Location"], timeout=60).content == CONTENT


def test_who_cannot_sign_streams(file_settings, tmp_path):
    """Google's default credentials may have no key."""
    settings = {**file_settings("gcs"), "kinto.attachment.download": "redirect"}
    with Gunicorn(settings, tmp_path) as server:
        record = Attached(server)
        content = secrets.token_bytes(1000)
        record.upload(content, "a.pdf")
        response = record.get(Range="bytes=0-9")
        assert (response.status_code, response.content) == (206, content[:10])
        assert "cannot sign" in server.log.read_text()
