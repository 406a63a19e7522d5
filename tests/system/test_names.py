"""Many uploads of one filename, by several processes: no file is ever another's."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from hashlib import sha256
from uuid import uuid4

import pytest
import requests

from tests.support.selection import mostly
from tests.support.servers.wsgi import Gunicorn
from tests.support.site import Site

AUTH = ("alice", "secret")
RECORDS = 100


@pytest.fixture(params=mostly(["local", "seaweedfs", "gcs"], {"local", "seaweedfs"}))
def servers(request, kinto_settings, file_settings, tmp_path):
    """Two servers of one database and one storage."""
    settings = {
        **kinto_settings("postgresql", fresh=True),
        **file_settings(request.param),
        "kinto.attachment.folder": f"names-{uuid4().hex[:8]}",
        "kinto.attachment.randomize": "false",
    }
    Site(**settings).close()  # creates the tables
    with ExitStack() as stack:
        yield [stack.enter_context(Gunicorn(settings, tmp_path)) for _ in range(2)]


def test_one_name_for_many_records(servers):
    requests.put(f"{servers[0].url}/buckets/b", auth=AUTH, timeout=30).raise_for_status()
    collection = "buckets/b/collections/c"
    requests.put(f"{servers[0].url}/{collection}", auth=AUTH, timeout=30).raise_for_status()

    def upload(number: int) -> dict:
        content = b"%d" % number * 1000
        url = f"{servers[number % 2].url}/{collection}/records/r{number}/attachment"
        files = {"attachment": ("image.jpg", content, "image/jpeg")}
        for _ in range(2):  # the second replaces the first
            response = requests.post(url, files=files, auth=AUTH, timeout=60)
            assert response.status_code in (200, 201), response.text
        assert response.json()["hash"] == sha256(content).hexdigest()
        return response.json()

    with ThreadPoolExecutor(8) as pool:
        attachments = list(pool.map(upload, range(RECORDS)))
    locations = [attachment["location"] for attachment in attachments]
    assert len(set(locations)) == RECORDS
    for number in range(RECORDS):
        url = f"{servers[1].url}/{collection}/records/r{number}/attachment"
        response = requests.get(url, auth=AUTH, timeout=30)
        assert response.content == b"%d" % number * 1000
