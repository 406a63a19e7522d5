"""A Kinto with this plugin, for tests: over HTTP, and with a look into its storage."""

import json
from hashlib import sha256
from typing import Any
from uuid import uuid4

import transaction
import webtest
from kinto import main
from kinto.core import testing

from kinto_attachment.files.blob import Source

ALICE = {"Authorization": "Basic YWxpY2U6c2VjcmV0"}  # alice:secret
BOB = {"Authorization": "Basic Ym9iOnNlY3JldA=="}  # bob:secret
ATTRIBUTES = {"filename", "hash", "location", "mimetype", "size"}

SETTINGS = {
    "kinto.includes": "kinto.plugins.default_bucket kinto_attachment kinto.plugins.flush "
    "kinto.plugins.history",
    "kinto.userid_hmac_secret": "b4c96a8692291d88fe5a97dd91846eb4",
    "kinto.bucket_create_principals": "system.Authenticated",
    "kinto.experimental_collection_schema_validation": "true",
    "kinto.attachment.base_url": "https://cdn.example/files/",
    "kinto.attachment.folder": "{bucket_id}/{collection_id}",
    "kinto.attachment.media.verifier": "none",  # tests verify when they want to
    "multiauth.policies": "basicauth",
    # SeaweedFS is slow with many buckets.
    "kinto.heartbeat_timeout_seconds": "60",
}

SCHEMA = {
    "type": "object",
    "properties": {"family": {"type": "string"}, "author": {"type": "string"}},
}


class Site:
    """
    :param settings: of the ini file, over :data:`SETTINGS`.

    Each test works in buckets of its own, so that one site serves many.
    """

    def __init__(self, **settings: str):
        self.settings = {**SETTINGS, **settings}
        self.wsgi = main({}, **self.settings)
        self.registry = self.wsgi.registry
        self.registry.storage.initialize_schema()
        self.registry.permission.initialize_schema()
        self.registry.cache.initialize_schema()
        self.http = webtest.TestApp(self.wsgi)
        self.http.RequestClass = testing.get_request_class(prefix="v1")
        self.plugin = self.registry.attachment_plugin
        self.storage, self.rows = self.plugin.storage, self.plugin.rows
        self.links, self.releases = self.rows.links, self.rows.releases

    def collection(self, **data: Any) -> "Collection":
        """A new collection ``fonts`` in a new bucket, alice's."""
        bucket = f"b_{uuid4().hex}"
        self.http.put_json(f"/buckets/{bucket}", {}, headers=ALICE)
        collection = Collection(self, bucket, "fonts")
        self.http.put_json(collection.uri, {"data": data}, headers=ALICE)
        return collection

    def close(self) -> None:
        """Close the connections to the database, and the image workers."""
        self.registry.attachment_images.close()
        for backend in (self.registry.storage, self.registry.permission):
            if hasattr(backend, "client"):
                backend.client.session_factory.session_factory.kw["bind"].dispose()

    def in_transaction(self, call):
        """Call a function in a transaction, and return what it returns."""
        with transaction.manager:
            return call()

    def put(self, key: str, content: bytes = b"content") -> None:
        """Store an object that no record has."""
        with self.storage.spool() as file:
            file.write(content)
            file.flush()
            digest = sha256(content).hexdigest()
            self.storage.put(key, Source(file, "a.txt", "text/plain", len(content), digest))

    @property
    def keys(self) -> list[str]:
        """The keys of all files in the storage."""
        return sorted(stat.key for stat in self.storage.list())

    def read(self, location: str) -> bytes:
        """Return the bytes of the file at a location."""
        return b"".join(self.storage.open(self.key(location)))

    def key(self, location: str) -> str:
        return location.removeprefix(self.settings["kinto.attachment.base_url"])


class Collection:
    def __init__(self, site: Site, bucket: str, collection: str):
        self.site = site
        self.http = site.http
        self.bucket = bucket
        self.uri = f"/buckets/{bucket}/collections/{collection}"

    def record(self, record: str | None = None) -> "Record":
        return Record(self, record or uuid4().hex)

    @property
    def keys(self) -> list[str]:
        """The keys of all files of the bucket that are in the storage."""
        return sorted(stat.key for stat in self.site.storage.list(f"{self.bucket}/"))

    @property
    def links(self) -> list[str]:
        """The keys of the files of all records of the bucket."""
        links = self.site.in_transaction(lambda: list(self.site.links.all()))
        return sorted(link.key for link in links if link.ref.path[0] == self.bucket)

    @property
    def releases(self) -> list[tuple[str, str]]:
        """``(rule, key)`` of all releases of the bucket."""
        releases = self.site.in_transaction(lambda: list(self.site.releases.all()))
        return sorted(
            (release.rule.value, key)
            for release in releases
            for key in release.keys
            if key.startswith(f"{self.bucket}/")
        )


class Record:
    def __init__(self, collection: Collection, record: str):
        self.collection = collection
        self.site, self.http = collection.site, collection.http
        self.id = record
        self.uri = f"{collection.uri}/records/{record}"
        self.attachment_uri = f"{self.uri}/attachment"

    def put(self, headers: dict = ALICE, **data: Any):
        return self.http.put_json(self.uri, {"data": data}, headers=headers)

    @property
    def data(self) -> dict[str, Any]:
        return self.http.get(self.uri, headers=ALICE).json["data"]

    def upload(
        self,
        content: bytes = b"--fake--",
        filename: str = "image.jpg",
        *,
        headers: dict | None = None,
        status: int | str | None = None,
        files: list | None = None,
        **fields: Any,
    ):
        """Post a form as browsers do; values of fields are sent as JSON unless they are text."""
        texts = [
            (name, value if isinstance(value, str | bytes) else json.dumps(value))
            for name, value in fields.items()
        ]
        if files is None:
            files = [("attachment", filename, content)]
        mimetype, body = self.http.encode_multipart(texts, files)
        return self.post(body, mimetype, headers=headers, status=status)

    def post(self, body, content_type, *, headers=None, status=None):
        headers = {**ALICE, **(headers or {}), "Content-Type": content_type}
        return self.http.post(self.attachment_uri, body, headers=headers, status=status)

    def post_raw(self, body: bytes, boundary: str = "XX", **options):
        return self.post(body, f"multipart/form-data; boundary={boundary}", **options)

    def detach(self, headers: dict | None = None, status: int | None = None):
        headers = {**ALICE, **(headers or {})}
        return self.http.delete(self.attachment_uri, headers=headers, status=status)

    def snapshot(self) -> tuple:
        """Return the record, its permissions and its file, and the files of its bucket: all that a
        request that fails must not change."""
        record = self.http.get(self.uri, headers=ALICE, status="*")
        attachment = record.json.get("data", {}).get("attachment")
        content = self.site.read(attachment["location"]) if attachment else None
        return (
            record.status_int,
            record.json.get("data"),
            record.json.get("permissions"),
            content,
            self.collection.keys,
            self.collection.links,
            self.collection.releases,
        )

    def check(self, content: bytes) -> dict[str, Any]:
        """Check that the record has this file, and that the bucket has no other; return the
        attachment."""
        attachment = self.data["attachment"]
        key = self.site.key(attachment["location"])
        assert attachment["hash"] == sha256(content).hexdigest()
        assert attachment["size"] == len(content)
        assert self.site.read(attachment["location"]) == content
        assert self.collection.keys == self.collection.links == [key]
        assert self.collection.releases == []
        return attachment


def call_wsgi(record, environ):
    """Call the application without WebTest and WebOb, which would read the input themselves."""
    full = webtest.TestRequest.blank(f"/v1{record.attachment_uri}").environ
    full.update({"HTTP_AUTHORIZATION": "Basic YWxpY2U6c2VjcmV0", **environ})
    answer = {}

    def start_response(status, headers, exc_info=None):
        answer.update(status=status, headers=headers)

    body = b"".join(record.site.wsgi(full, start_response))

    class Answer:
        status_int = int(answer["status"][:3])
        json = json.loads(body)

    return Answer
