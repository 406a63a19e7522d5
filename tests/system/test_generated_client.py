"""A client that openapi-python-client makes of our OpenAPI document works with a real server."""

import io
import json
import subprocess
import sys
from base64 import b64encode
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace

import pytest
import requests

from tests.support.library import jpeg
from tests.support.servers.wsgi import Gunicorn

ROOT = Path(__file__).parents[2]
AUTH = ("alice", "secret")
LIBRARY = "/buckets/site/collections/media"
RECORD = {"bucket_id": "default", "collection_id": "assets", "id": "generated"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    settings = {
        "kinto.attachment.base_path": str(folder / "files"),
        "kinto.attachment.library.bucket": "site",
        "kinto.attachment.fields": "attachment cover pictures[]",
    }
    with Gunicorn(settings, folder) as server:
        for path in ("/buckets/site", LIBRARY):
            requests.put(f"{server.url}{path}", auth=AUTH, timeout=30).raise_for_status()
        yield server


@pytest.fixture(scope="module")
def api(server, tmp_path_factory):
    """The generated modules, and a client."""
    folder = tmp_path_factory.mktemp("generated")
    document = requests.get(f"{server.url}/attachments/__api__", timeout=30)
    (folder / "openapi.json").write_text(document.text)
    # Without ruff, which would only make the code look better.
    (folder / "config.yml").write_text("post_hooks: []\n")
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none"]
    paths = ["--path", "openapi.json", "--config", "config.yml", "--output-path", "generated_api"]
    made = subprocess.run([*command, *paths], cwd=folder, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    # It knows no bodies of any type; application/octet-stream stands beside it.
    problems = {line for line in made.stdout.splitlines() if line.startswith("Unsupported")}
    assert problems <= {"Unsupported content type */*"}, made.stdout
    sys.path.insert(0, str(folder))
    try:
        client = import_module("generated_api.client")
        token = b64encode(":".join(AUTH).encode()).decode()
        yield SimpleNamespace(
            client=client.AuthenticatedClient(server.url, token, prefix="Basic", timeout=30),
            url=server.url,
            models=import_module("generated_api.models"),
            types=import_module("generated_api.types"),
            of=lambda tag, name: import_module(f"generated_api.api.{tag}.{name}"),
        )
    finally:
        sys.path.remove(str(folder))


def test_example_of_the_documentation(api, capsys, monkeypatch):
    page = (ROOT / "docs" / "http-api.rst").read_text()
    block = page.partition("\n    from kinto_files")[2].partition("\n\nThe generator")[0]
    example = dedent(f"    from kinto_files{block}").replace("kinto_files", "generated_api")
    monkeypatch.chdir(ROOT)
    exec(example.replace("http://127.0.0.1:8888/v1", api.url), {})
    assert capsys.readouterr().out.endswith(".jpg\n")


def file(api, content, name, mimetype="image/jpeg"):
    return api.types.File(io.BytesIO(content), name, mimetype)


def test_attaches_a_file(api):
    content, models = jpeg(40, 30), api.models
    form = models.UploadAttachmentBody(
        attachment=file(api, content, "lake.jpg"),
        data=models.UploadAttachmentBodyData.from_dict({"theme": "orange"}),
    )
    upload = api.of("attachments", "upload_attachment")
    attached = upload.sync_detailed(client=api.client, body=form, **RECORD)
    assert attached.status_code == 201
    assert attached.parsed.hash_ == sha256(content).hexdigest()
    assert attached.parsed.filename == "lake.jpg"
    download = api.of("attachments", "get_attachment")
    fetched = download.sync_detailed(client=api.client, **RECORD)
    assert fetched.parsed.payload.read() == content
    ranged = download.sync_detailed(client=api.client, range_="bytes=0-3", **RECORD)
    assert (ranged.status_code, ranged.content) == (206, content[:4])
    again = upload.sync_detailed(client=api.client, body=form, if_none_match="*", **RECORD)
    assert isinstance(again.parsed, models.Error)
    assert again.parsed.code == 412
    delete = api.of("attachments", "delete_attachment")
    assert delete.sync_detailed(client=api.client, **RECORD).status_code == 204


def test_attaches_files_to_fields(api):
    models = api.models
    form = models.UploadAttachmentsBody(
        data=models.UploadAttachmentsBodyData.from_dict({"theme": "orange"})
    )
    form["cover"] = file(api, jpeg(40, 30), "lake.jpg")
    form["pictures"] = file(api, b"1", "one.txt")
    upload = api.of("attachments", "upload_attachments")
    record = {**RECORD, "id": "fields"}
    uploaded = upload.sync_detailed(client=api.client, body=form, **record)
    assert uploaded.status_code == 201, uploaded.content
    assert uploaded.parsed["cover"].filename == "lake.jpg"
    [one] = uploaded.parsed["pictures"]
    more = models.UploadFieldBody(attachment=file(api, b"2", "two.txt"))
    append = api.of("attachments", "upload_field")
    two = append.sync(client=api.client, body=more, field="pictures", **record)
    assert isinstance(two, models.Entry)
    place = {**record, "field": "pictures", "entry": one.id}
    new = models.ReplaceEntryBody(attachment=file(api, b"3", "three.txt"))
    replaced = api.of("attachments", "replace_entry").sync(client=api.client, body=new, **place)
    assert (replaced.id, replaced.filename) == (one.id, "three.txt")
    fetched = api.of("attachments", "get_entry").sync(client=api.client, **place)
    assert fetched.payload.read() == b"3"
    delete = api.of("attachments", "delete_entry").sync_detailed(client=api.client, **place)
    assert delete.status_code == 204
    image = api.of("attachments", "get_field_image").sync_detailed(
        client=api.client, field="cover", width="20", height="0", **record
    )
    assert image.content.startswith(b"\xff\xd8\xff")
    read = api.of("attachments", "get_attachments").sync(client=api.client, **record)
    assert [each.id for each in read["pictures"]] == [two.id]


def test_stores_media(api):
    content = b"a picture"
    stored = api.of("media_store", "store_media").sync(
        client=api.client, body=file(api, content, "a.bin")
    )
    assert stored == sha256(content).hexdigest()
    fetched = api.of("media_store", "get_media").sync(hash_=stored, client=api.client)
    assert fetched.payload.read() == content
    question = api.models.StatMediaBodyType0(hashes=[stored, "0" * 64])
    known = api.of("media_store", "stat_media").sync(client=api.client, body=question)
    assert (known.present, known.missing) == ([stored], ["0" * 64])


def test_makes_a_library_object_and_gets_its_image(api):
    models = api.models
    form = models.StoreMediaFilesBody(file=file(api, jpeg(40, 30), "lake.jpg"))
    uploaded = api.of("media_store", "store_media").sync_detailed(client=api.client, body=form)
    assert uploaded.status_code == 201
    facts = models.MediaFile.from_dict(json.loads(uploaded.content))
    assert (facts.width, facts.height) == (40, 30)
    described = models.MediaDescription.from_dict({**facts.to_dict(), "alt": "A lake"})
    create = api.of("media_library", "create_media_object")
    made = create.sync_detailed(client=api.client, body=described)
    assert made.status_code == 201, made.content
    assert made.parsed.data.alt == "A lake"
    read = api.of("media_library", "get_media_object")
    assert read.sync(id=facts.id, client=api.client).data.file_name == "lake.jpg"
    image = api.of("media_library", "get_image").sync_detailed(
        size="20x0", file=f"{facts.id}.jpg", client=api.client
    )
    assert image.status_code == 200
    assert image.parsed.payload.read().startswith(b"\xff\xd8\xff")
