"""Real clients: kinto-http.py, kinto.js, HTTPie and curl."""

import json
import shutil
import subprocess
from hashlib import sha256
from uuid import uuid4

import kinto_http
import pytest

from tests.support.servers import Process, free_port, is_listening
from tests.support.servers.wsgi import BIN, Gunicorn
from tests.support.site import Site


@pytest.fixture(scope="module")
def server(kinto_settings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("clients")
    settings = {
        **kinto_settings("postgresql", fresh=True),
        "kinto.attachment.base_path": str(folder / "files"),
    }
    Site(**settings)
    # The location of a file is a URL that can be followed.
    port = free_port()
    (folder / "files").mkdir()
    command = [str(BIN / "python"), "-m", "http.server", str(port), "--bind", "127.0.0.1"]
    settings["kinto.attachment.base_url"] = f"http://127.0.0.1:{port}/"
    with (
        Process(command, folder / "files", lambda: is_listening(port)),
        Gunicorn(settings, folder) as server,
    ):
        yield server


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "background.jpg"
    path.write_bytes(uuid4().bytes * 10_000)
    return path


def test_kinto_http(server, picture, tmp_path):
    client = kinto_http.Client(
        server_url=server.url, bucket=f"b{uuid4().hex}", collection="c", auth=("alice", "secret")
    )
    client.create_bucket()
    client.create_collection()
    client.add_attachment(
        id="r",
        filepath=str(picture),
        mimetype="image/jpeg",
        data={"type": "wallpaper"},
        permissions={"read": ["system.Everyone"]},
    )
    record = client.get_record(id="r")
    assert record["data"]["type"] == "wallpaper"
    assert record["permissions"]["read"] == ["system.Everyone"]
    attachment = record["data"]["attachment"]
    assert attachment["hash"] == sha256(picture.read_bytes()).hexdigest()
    assert attachment["mimetype"] == "image/jpeg"
    client.download_attachment(record["data"], filepath=str(tmp_path / "copy.jpg"))
    assert (tmp_path / "copy.jpg").read_bytes() == picture.read_bytes()
    client.remove_attachment(id="r")
    assert "attachment" not in client.get_record(id="r")["data"]


def test_curl(server, picture):
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
    url = f"{server.url}/buckets/default/collections/c/records/{uuid4().hex}/attachment"
    command = ["curl", "-sS", "-u", "alice:secret", "-F", f"attachment=@{picture}", url]
    answer = json.loads(subprocess.check_output(command, timeout=60))
    assert answer["hash"] == sha256(picture.read_bytes()).hexdigest()
    # From a pipe, curl sends chunks, without a length.
    command[5] = "attachment=@-;filename=a.jpg"
    answer = json.loads(subprocess.check_output(command, input=b"piped", timeout=60))
    assert answer["hash"] == sha256(b"piped").hexdigest()


def test_httpie(server, picture):
    url = f"{server.url}/buckets/default/collections/c/records/{uuid4().hex}/attachment"
    command = [str(BIN / "http"), "--ignore-stdin", "--check-status", "-b", "-a", "alice:secret"]
    command += ["--form", "POST", url, 'data={"theme": "orange"}', f"attachment@{picture}"]
    answer = json.loads(subprocess.check_output(command, timeout=60))
    assert answer["hash"] == sha256(picture.read_bytes()).hexdigest()
    assert answer["mimetype"] == "image/jpeg"


KINTO_JS = """
const { KintoClient } = require("kinto");
const [url, bucket] = process.argv.slice(2);
const headers = { Authorization: "Basic " + btoa("alice:secret") };

(async () => {
  const client = new KintoClient(url, { headers });
  const collection = client.bucket(bucket).collection("c");
  const png = "data:image/png;name=dot.png;base64," + btoa("not really a dot");
  const attached = await collection.addAttachment(
    png,
    { id: "r", theme: "orange" },
    { permissions: { read: ["system.Everyone"] } }
  );
  const again = await collection.addAttachment(png, attached.data, { safe: true });
  let refused = null;
  try {
    await collection.addAttachment(png, attached.data, { safe: true });
  } catch (error) {
    refused = error.response.status;
  }
  await collection.removeAttachment("r");
  const detached = await collection.getRecord("r");
  console.log(JSON.stringify({ attached, again, refused, detached }));
})().catch((error) => { console.error(error); process.exit(1); });
"""


@pytest.fixture(scope="session")
def node_modules(tmp_path_factory):
    """A folder with kinto.js from npm."""
    if not shutil.which("npm"):
        pytest.skip("npm is not installed")
    folder = tmp_path_factory.mktemp("node")
    command = ["npm", "install", "--no-audit", "--no-fund", "--silent", "kinto@17"]
    try:
        subprocess.run(command, cwd=folder, check=True, timeout=110, capture_output=True)
    except (subprocess.SubprocessError, OSError) as error:
        pytest.skip(f"npm cannot install kinto: {error}")
    return folder


def test_kinto_js(server, node_modules):
    bucket = f"b{uuid4().hex}"
    client = kinto_http.Client(server_url=server.url, bucket=bucket, auth=("alice", "secret"))
    client.create_bucket()
    client.create_collection(id="c")
    (node_modules / "upload.js").write_text(KINTO_JS)
    command = ["node", "upload.js", server.url, bucket]
    done = subprocess.run(command, cwd=node_modules, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    answer = json.loads(done.stdout)
    attachment = answer["attached"]["data"]["attachment"]
    assert attachment["filename"] == "dot.png"
    assert attachment["mimetype"] == "image/png"
    assert attachment["hash"] == sha256(b"not really a dot").hexdigest()
    assert answer["attached"]["data"]["theme"] == "orange"
    assert answer["attached"]["permissions"]["read"] == ["system.Everyone"]
    assert answer["again"]["data"]["last_modified"] > answer["attached"]["data"]["last_modified"]
    assert answer["refused"] == 412
    assert "attachment" not in answer["detached"]["data"]
