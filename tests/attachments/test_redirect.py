"""``attachment.download = redirect``: clients get a URL of the storage for a while."""

import secrets
import time
from urllib.parse import parse_qs, quote, unquote, urlsplit

import pytest
import requests

from tests.support.google_account import make_private_key, write_account
from tests.support.http_record import ALICE, BOB, CONTENT, HTTPRecord
from tests.support.servers.nginx import NGINX, Nginx
from tests.support.servers.wsgi import Gunicorn


@pytest.fixture(scope="module")
def account(tmp_path_factory):
    """The path of the file of a Google service account, with a key that signs."""
    path = tmp_path_factory.mktemp("account") / "account.json"
    return str(write_account(path, make_private_key()))


@pytest.fixture(scope="module", params=["seaweedfs", "moto", "gcs"])
def server(request, field_name, file_settings, tmp_path_factory):
    settings = {
        **file_settings(request.param),
        "kinto.attachment.extensions": "any",
        "kinto.attachment.fields": field_name,
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
def record(server, field_name):
    return HTTPRecord(server, field_name)


def test_the_storage_serves_the_file(record):
    record.upload(CONTENT, "写真.pdf", "application/pdf")
    response = record.get()
    assert (response.status_code, response.content) == (307, b"")
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Referrer-Policy"] == "no-referrer"
    file = requests.get(response.headers["Location"], timeout=60)
    assert file.status_code == 200
    assert file.content == CONTENT
    assert file.headers["Content-Type"] == "application/pdf"


@pytest.mark.skipif(not NGINX, reason="nginx is not installed")
@pytest.mark.parametrize("filename", ["写" * 220 + ".txt", "😀" * 251 + ".txt", "a" * 251 + ".txt"])
def test_long_filenames_behind_nginx(server, record, tmp_path, filename):
    """Response headers are longer than nginx expects by default."""
    record.upload(CONTENT, filename, "text/plain")
    with Nginx(server.port, tmp_path, tmp_path) as nginx:
        url = record.url.replace(server.url, nginx.url)
        head = requests.head(f"{url}", auth=ALICE, timeout=60)
        response = requests.get(f"{url}", auth=ALICE, allow_redirects=False, timeout=60)
    assert head.status_code == 200
    assert quote(filename) in head.headers["Content-Disposition"] or filename.isascii()
    assert response.status_code == 307
    assert len(response.headers["Location"]) < 3000
    file = requests.get(response.headers["Location"], timeout=60)
    assert file.content == CONTENT
    name = unquote(file.headers["Content-Disposition"].rpartition("'")[2])
    assert name.endswith(".txt") or name.endswith('.txt"')


def test_the_storage_sends_disposition_and_type(record):
    """Disposition and type are part of the signed URL."""
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


def test_names_do_not_run_backwards(record):
    record.upload(b"MZ", "photo\u202egpj.exe", "application/octet-stream")
    asked = parse_qs(urlsplit(record.get().headers["Location"]).query)
    assert asked["response-content-disposition"] == ['attachment; filename="photogpj.exe"']
    head = record.get(method="HEAD")
    assert head.headers["Content-Disposition"] == 'attachment; filename="photogpj.exe"'


def test_the_storage_serves_scripts_as_text(record):
    record.upload(b"alert(1)", "a.js", "text/javascript")
    asked = parse_qs(urlsplit(record.get().headers["Location"]).query)
    assert asked["response-content-type"] == ["text/plain"]


def test_clients_follow_the_redirect(record):
    """Clients follow with their ranges, and without their credentials."""
    record.upload()
    assert requests.get(record.url, auth=ALICE, timeout=60).content == CONTENT
    ranged = requests.get(record.url, auth=ALICE, headers={"Range": "bytes=5-104"}, timeout=60)
    assert (ranged.status_code, ranged.content) == (206, CONTENT[5:105])


def test_a_url_expires(record):
    record.upload()
    location = record.get().headers["Location"]
    assert requests.get(location, timeout=60).status_code == 200
    if record.server.files != "seaweedfs":
        # The other two are imitations, which accept any signature.
        asked = parse_qs(urlsplit(location).query)
        assert (asked.get("X-Amz-Expires") or asked.get("X-Goog-Expires")) == ["2"]
        return
    time.sleep(3)
    assert requests.get(location, timeout=60).status_code == 403


def test_head_is_not_redirected(record):
    record.upload()
    response = record.get(method="HEAD")
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["Content-Length"] == str(len(CONTENT))


def test_responses_without_bytes_are_not_redirected(record):
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
    record.url = f"{record.record}/{record.path}"
    record.upload()
    response = record.get()
    assert response.status_code == 307
    assert requests.get(response.headers["Location"], timeout=60).content == CONTENT


def test_without_a_key_the_server_streams(field_name, file_settings, tmp_path):
    """Default credentials of Google may have no key to sign with."""
    settings = {
        **file_settings("gcs"),
        "kinto.attachment.fields": field_name,
        "kinto.attachment.download": "redirect",
    }
    with Gunicorn(settings, tmp_path) as server:
        record = HTTPRecord(server, field_name)
        content = secrets.token_bytes(1000)
        record.upload(content, "a.pdf")
        response = record.get(Range="bytes=0-9")
        assert (response.status_code, response.content) == (206, content[:10])
        assert "cannot sign" in server.log.read_text()
