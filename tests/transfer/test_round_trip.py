"""Files that are uploaded, and downloaded again."""

import secrets
import time
from hashlib import sha256

import psutil
import pytest
import requests

from kinto_attachment.transfer.client import Client
from kinto_attachment.transfer.download import download
from kinto_attachment.transfer.paths import PART
from kinto_attachment.transfer.upload import record_id, upload
from tests.support.http_record import ALICE, HTTPRecord
from tests.support.servers.wsgi import Gunicorn
from tests.support.transfers import AUTH, Told, client_of, files_in, kinds, make_files, one


class TestRoundTrip:
    def test_many_files(self, client, record, tmp_path):
        files = make_files(tmp_path / "from", 300)
        told = Told()
        assert kinds(upload(client, [tmp_path / "from"], progress=told)) == {"uploaded": 300}
        assert sum(told.bytes) == sum(map(len, files.values()))
        assert kinds(upload(client, [tmp_path / "from"])) == {"unchanged": 300}
        told = Told()
        to = tmp_path / "to"
        assert kinds(download(client, to, progress=told)) == {"downloaded": 300}
        assert sum(told.bytes) == sum(map(len, files.values()))
        assert files_in(to) == files
        assert kinds(download(client, to)) == {"unchanged": 300}
        stored = requests.get(f"{record.collection}/records?_limit=999", auth=ALICE, timeout=60)
        records = stored.json()["data"]
        assert {r["path"]: r["attachment"]["hash"] for r in records} == {
            name: sha256(content).hexdigest() for name, content in files.items()
        }
        assert all(r["id"] == record_id(r["path"]) for r in records)

    def test_dry_run(self, client, record, tmp_path):
        files = make_files(tmp_path / "from", 3)
        assert kinds(upload(client, [tmp_path / "from"], dry_run=True)) == {"uploaded": 3}
        assert kinds(download(client, tmp_path / "to")) == {}
        kinds(upload(client, [tmp_path / "from"]))
        assert kinds(download(client, tmp_path / "to", dry_run=True)) == {"downloaded": 3}
        assert not (tmp_path / "to").exists()
        assert len(files) == 3

    @pytest.mark.parametrize("made", [[], ["default"], ["default", "default/collections/c"]])
    def test_dry_run_makes_no_default_bucket(self, file_settings, tmp_path, made):
        """Kinto creates that bucket, and its collections, for any client that reads them."""
        files = make_files(tmp_path / "from", 2)
        settings = {**file_settings("local"), "kinto.attachment.extensions": "any"}
        with Gunicorn(settings, tmp_path) as server:
            for uri in made:
                requests.put(f"{server.url}/buckets/{uri}", auth=ALICE, timeout=60)
            own = requests.get(f"{server.url}/", auth=ALICE, timeout=60).json()["user"]["bucket"]

            def there():
                uris = (f"buckets/{own}", f"buckets/{own}/collections/c")
                answers = [requests.get(f"{server.url}/{u}", auth=ALICE, timeout=60) for u in uris]
                return [answer.ok for answer in answers]

            before = there()
            assert before == ([True] * len(made) + [False] * 2)[:2]
            with Client(server.url, "default", "c", AUTH) as client:
                assert kinds(download(client, tmp_path / "to", dry_run=True)) == {}
                assert kinds(upload(client, [tmp_path / "from"], dry_run=True)) == {"uploaded": 2}
                assert there() == before
                assert kinds(upload(client, [tmp_path / "from"])) == {"uploaded": 2}
                assert kinds(upload(client, [tmp_path / "from"], dry_run=True)) == {"unchanged": 2}
                job = download(client, tmp_path / "to", dry_run=True)
                assert kinds(job) == {"downloaded": len(files)}

    def test_redirected_downloads(self, file_settings, tmp_path):
        settings = {
            **file_settings("seaweedfs"),
            "kinto.attachment.extensions": "any",
            "kinto.attachment.download": "redirect",
        }
        with Gunicorn(settings, tmp_path) as server, client_of(HTTPRecord(server)) as client:
            files = make_files(tmp_path / "from", 20)
            assert kinds(upload(client, [tmp_path / "from"])) == {"uploaded": 20}
            name = max(files, key=lambda name: len(files[name]))
            part = tmp_path / "to" / (name + PART)
            part.parent.mkdir(parents=True)
            part.write_bytes(files[name][:1000])
            told = Told()
            found = download(client, tmp_path / "to", progress=told)
            assert kinds(found) == {"downloaded": 20}
            assert files_in(tmp_path / "to") == files
            assert sum(told.bytes) == sum(map(len, files.values())) - 1000

    @pytest.mark.slow
    def test_memory_is_constant(self, client, tmp_path):
        """The memory of this process hardly grows while it transfers 512 MiB."""
        big = tmp_path / "from" / "big.bin"
        big.parent.mkdir()
        with big.open("wb") as file:
            for _ in range(512):
                file.write(secrets.token_bytes(1024 * 1024))
        process, most = psutil.Process(), []

        def look(size):
            most.append(process.memory_info().rss)

        before = process.memory_info().rss
        for way in (
            lambda: upload(client, [big], progress=Told(look)),
            lambda: download(client, tmp_path / "to", progress=Told(look)),
        ):
            start = time.monotonic()
            most.clear()
            one(way())
            seconds = time.monotonic() - start
            print(f"{(max(most) - before) / 2**20:.1f} MiB more, {512 / seconds:.0f} MiB/s")
            assert max(most) - before < 16 * 1024 * 1024
        assert (tmp_path / "to" / "big.bin").stat().st_size == 512 * 1024 * 1024
