"""A deployment of version 8, and a site with this plugin that takes it over."""

import secrets
import shutil
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import psycopg2
import requests
import transaction

from kinto_attachment.files.ref import RecordRef
from kinto_attachment.finding import Finding
from kinto_attachment.legacy.adoption import LegacyRows
from kinto_attachment.maintenance.fsck import fsck
from kinto_attachment.maintenance.server import Server
from kinto_attachment.rows.links import Link
from tests.support.legacy import keeps_nothing
from tests.support.site import ALICE, Collection, Site

AUTH = ("alice", "secret")
BUCKETS = ("b1", "b_2", "b-3")
COLLECTIONS = ("c1", "c_2")
LOCATIONS = {
    "absolute": {"kinto.attachment.base_url": "https://cdn.example/files/"},
    "relative": {
        "kinto.attachment.base_url": "",
        "kinto.attachment.extra.base_url": "https://cdn.example/files/",
    },
    "named": {"kinto.attachment.base_url": "", "kinto.attachment.randomize": "false"},
}


class Client:
    """A client of a server with version 8."""

    def __init__(self, url: str):
        self._url = url

    def request(self, method: str, path: str, **options) -> requests.Response:
        response = requests.request(method, self._url + path, auth=AUTH, timeout=30, **options)
        response.raise_for_status()
        return response

    def upload(self, path: str, filename: str = "a.png") -> dict:
        file = (filename, secrets.token_bytes(2000), "image/png")
        return self.request("POST", f"{path}/attachment", files={"attachment": file}).json()


def use(client: Client) -> None:
    """Do what the clients of a deployment do: upload, replace, detach, delete and copy files."""
    for bucket in (*BUCKETS, "gone"):
        client.request("PUT", f"/buckets/{bucket}")
        for collection in (*COLLECTIONS, "gone"):
            uri = f"/buckets/{bucket}/collections/{collection}"
            client.request("PUT", uri)
            for number in range(10):
                client.upload(f"{uri}/records/r_{number}")
            client.request("PUT", f"{uri}/records/plain", json={"data": {"a": 1}})
            client.upload(f"{uri}/records/r_0", "b.png")  # replaced
            client.request("DELETE", f"{uri}/records/r_1/attachment")
            client.request("DELETE", f"{uri}/records/r_2")
            # Version 8 does not notice that this removes the attachment: its row and file stay.
            client.request("PUT", f"{uri}/records/r_3", json={"data": {"a": 1}})
        client.request("DELETE", f"/buckets/{bucket}/collections/gone")
    client.request("DELETE", "/buckets/gone")
    records = "/buckets/b1/collections/c1/records"
    data = client.request("GET", f"{records}/r_4").json()["data"]
    for name in ("c1/records/copy", "c_2/records/copy"):
        client.request(
            "PUT",
            f"/buckets/b1/collections/{name}",
            json={"data": {"attachment": data["attachment"]}},
            headers={"X-Copy": "yes"},
        )


ATTACHED = {f"r_{number}" for number in (0, *range(4, 10))}
STALE = {f"/buckets/{b}/collections/{c}/records/r_3" for b in BUCKETS for c in COLLECTIONS}
COPIES = {
    RecordRef("b1", collection, record)
    for collection, record in (("c1", "r_4"), ("c1", "copy"), ("c_2", "copy"))
}


def attached() -> set[RecordRef]:
    """Return the records that have a file after :func:`use`."""
    refs = (RecordRef(b, c, r) for b in BUCKETS for c in COLLECTIONS for r in ATTACHED)
    return {*refs, *COPIES}


class Deployment:
    """The database, the folder and the settings of a server with version 8."""

    def __init__(self, settings: dict[str, str], database: str, folder: Path, ini: Path):
        self.settings, self.database, self.folder, self.ini = settings, database, folder, ini

    def copy(self, folder: Path) -> "Deployment":
        """Return a copy that a test may change, with a database of its own.

        :param folder: where to put the files and the ini file.
        """
        with closing(psycopg2.connect(self.database)) as connection:
            own, copied = connection.info.dbname, f"kinto_{secrets.token_hex(16)}"
        url = self.database.replace(own, copied)
        with closing(psycopg2.connect(self.database.replace(own, "postgres"))) as connection:
            connection.autocommit = True  # CREATE DATABASE cannot run in a transaction.
            connection.cursor().execute(f"CREATE DATABASE {copied} TEMPLATE {own}")
        shutil.copytree(self.folder, folder / "files")
        ini = folder / "kinto.ini"
        text = self.ini.read_text().replace(own, copied)
        ini.write_text(text.replace(str(self.folder), str(folder / "files")))
        changed = {self.database: url, str(self.folder): str(folder / "files")}
        settings = {name: changed.get(value, value) for name, value in self.settings.items()}
        return Deployment(settings, url, folder / "files", ini)

    def query(self, query: str) -> list[tuple]:
        with closing(psycopg2.connect(self.database)) as connection, connection.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchall()

    @property
    def rows(self) -> list[tuple]:
        """The rows in which version 8 recorded its files."""
        return self.query("SELECT * FROM objects WHERE parent_id = '__attachments__'")

    def snapshot(self) -> tuple:
        """Return what the adoption must not change: objects, timestamps and files."""
        objects = self.query(
            "SELECT id, parent_id, resource_name, last_modified, data::text, deleted FROM objects"
            " WHERE parent_id NOT LIKE '/attachment-%' AND parent_id <> '__attachments__'"
            " ORDER BY 1, 2, 3"
        )
        timestamps = self.query(
            "SELECT parent_id, resource_name, last_modified FROM timestamps"
            " WHERE parent_id NOT LIKE '/attachment-%' AND parent_id <> '__attachments__'"
            " ORDER BY 1, 2"
        )
        files = [
            (path, path.stat().st_mtime_ns, path.read_bytes())
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        ]
        return objects, timestamps, files


class AdoptedSite(Site):
    """A site with this plugin that uses the database and the folder of a deployment."""

    def __init__(self, deployment: Deployment):
        self.deployment = deployment
        settings = {**deployment.settings}
        settings["kinto.includes"] = settings["kinto.includes"].replace("copier", "")
        super().__init__(**settings)
        self.server = Server.of(self.registry, transaction.manager)
        base_url = settings["kinto.attachment.base_url"]
        self.legacy = LegacyRows(self.rows, base_url, keeps_nothing(self))

    def adopt(self, *scope: str) -> list[Finding]:
        """Adopt the rows of version 8; return the findings.

        :param scope: a bucket, a collection and a record, or only the first of these.
        """
        return list(self.legacy.adopt(*scope, transaction_manager=transaction.manager))

    def record(self, ref: RecordRef):
        return Collection(self, ref.bucket, ref.collection).record(ref.record)

    def every_link(self) -> list[Link]:
        return self.in_transaction(lambda: list(self.links.all()))

    def problems(self) -> set[tuple[str, str]]:
        return {(finding.kind, finding.key) for finding in fsck(self.server, deep=True)}

    def check_complete(self) -> None:
        """Check that every attachment is linked and readable, and that ``fsck`` finds only the
        files that version 8 itself lost track of."""
        links = self.every_link()
        assert {link.ref.record for link in links} == attached()
        assert len(links) == len(attached())
        assert {link.ref.record for link in links if link.shared} == COPIES
        for ref in attached():
            record = self.record(ref)
            attachment = record.data["attachment"]
            content = self.http.get(record.attachment_uri, headers=ALICE).body
            assert sha256(content).hexdigest() == attachment["hash"]
            assert self.read(attachment["location"]) == content
        problems = self.problems()
        assert {kind for kind, _ in problems} == {"orphan object"}
        assert len(problems) == len(STALE)
        assert not self.deployment.rows
