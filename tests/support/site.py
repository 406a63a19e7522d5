"""A Kinto with this plugin, for tests. They use it over HTTP, and can look into its storages."""

import gc
import json
from hashlib import sha256
from typing import Any
from urllib.parse import unquote
from uuid import uuid4

import transaction
import webtest
from kinto import main
from kinto.core import testing

from kinto_attachment.files.blob import Source
from kinto_attachment.files.ref import FieldRef, RecordRef
from tests.support.openapi import CheckedApp
from tests.support.other_field import OWN, OtherField

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
    "kinto.attachment.media.verifier": "none",  # Tests start the verification themselves.
    "multiauth.policies": "basicauth",
    # SeaweedFS is slow with many buckets.
    "kinto.heartbeat_timeout_seconds": "60",
}

SCHEMA = {
    "type": "object",
    "properties": {"family": {"type": "string"}, "author": {"type": "string"}},
}


class Site:
    """A Kinto with this plugin.

    Each test works in buckets of its own, so that many tests can share a site.

    :param field: the one field that records have. Over HTTP, tests call it ``attachment``, whatever
        its name is; see :mod:`tests.support.other_field`.
    :param settings: settings of the ini file, which take precedence over :data:`SETTINGS`.
    """

    def __init__(self, *, field: str = OWN, **settings: str):
        is_other = field != OWN
        fields = {"kinto.attachment.fields": field} if is_other else {}
        self.field = field
        self.settings = {**SETTINGS, **fields, **settings}
        app = main({}, **self.settings)
        self.wsgi = OtherField(app) if is_other else app
        self.registry = app.registry
        self.registry.storage.initialize_schema()
        self.registry.permission.initialize_schema()
        self.registry.cache.initialize_schema()
        self.http = CheckedApp(self.wsgi, self.registry.attachment_api)
        self.http.RequestClass = testing.get_request_class(prefix="v1")
        self.plugin = self.registry.attachment_plugin
        self.storage, self.rows = self.plugin.storage, self.plugin.rows
        self.links, self.releases = self.rows.links, self.rows.releases
        # Kinto keeps every application that a process makes. Each garbage collection would look
        # through all of them, and the next sites would take ever longer.
        gc.freeze()

    def collection(self, **data: Any) -> "Collection":
        """Create a collection ``fonts`` in a new bucket of Alice; return it.

        :param data: the attributes of the collection.
        """
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
        """Store an object that belongs to no record."""
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
        """Return the key of the file at a location."""
        return unquote(location.removeprefix(self.settings["kinto.attachment.base_url"]))


class Collection:
    """A collection of a site, and the files of its bucket."""

    def __init__(self, site: Site, bucket: str, collection: str):
        self.site = site
        self.http = site.http
        self.bucket = bucket
        self.uri = f"/buckets/{bucket}/collections/{collection}"

    def record(self, record: str | None = None) -> "Record":
        """Return a record with this id or a new one, without creating it."""
        return Record(self, record or uuid4().hex)

    @property
    def keys(self) -> list[str]:
        """The keys of all files in the storage that belong to the bucket."""
        folders = (f"{self.bucket}/", f"private/{self.bucket}/")
        return sorted(stat.key for each in folders for stat in self.site.storage.list(each))

    @property
    def links(self) -> list[str]:
        """The keys of all files that are linked to records of the bucket."""
        links = self.site.in_transaction(lambda: list(self.site.links.all()))
        return sorted(link.key for link in links if link.ref.path[0] == self.bucket)

    @property
    def releases(self) -> list[tuple[str, str]]:
        """``(rule, key)`` of each released file of the bucket."""
        releases = self.site.in_transaction(lambda: list(self.site.releases.all()))
        return sorted(
            (release.rule.value, key)
            for release in releases
            for key in release.keys
            if key.removeprefix("private/").startswith(f"{self.bucket}/")
        )


class Record:
    """A record of a collection, which may not exist yet, and its file.

    :ivar field: the name of the field that has the file, in Kinto's storage.
    """

    def __init__(self, collection: Collection, record: str):
        self.collection = collection
        self.site, self.http = collection.site, collection.http
        self.field = collection.site.field
        self.id = record
        self.uri = f"{collection.uri}/records/{record}"
        self.attachment_uri = f"{self.uri}/attachment"

    def put(self, headers: dict = ALICE, **data: Any):
        return self.http.put_json(self.uri, {"data": data}, headers=headers)

    @property
    def data(self) -> dict[str, Any]:
        return self.http.get(self.uri, headers=ALICE).json["data"]

    @property
    def place(self) -> FieldRef:
        """Where its file is, in this plugin's rows and findings."""
        return FieldRef(RecordRef.from_uri(self.uri), self.field)

    @property
    def row(self) -> dict[str, Any]:
        """The record as it is in Kinto's storage."""
        storage = self.site.registry.storage
        return self.site.in_transaction(lambda: storage.get("record", self.collection.uri, self.id))

    def write_row(self, row: dict[str, Any]) -> None:
        """Change the record directly in Kinto's storage."""
        storage, where = self.site.registry.storage, self.collection.uri
        self.site.in_transaction(lambda: storage.update("record", where, self.id, row))

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
        """Post a form as browsers do; return the response.

        :param files: ``(field, filename, content)`` of each file; by default, one for the field.
        :param fields: the other fields. Values are sent as JSON unless they are text.
        """
        texts = [
            (name, value if isinstance(value, str | bytes) else json.dumps(value))
            for name, value in fields.items()
        ]
        if files is None:
            files = [(self.field, filename, content)]
        mimetype, body = self.http.encode_multipart(texts, files)
        return self.post(body, mimetype, headers=headers, status=status)

    def post(self, body, content_type, *, headers=None, status=None):
        """Post a body to the attachment of the record; return the response."""
        headers = {**ALICE, **(headers or {}), "Content-Type": content_type}
        return self.http.post(self.attachment_uri, body, headers=headers, status=status)

    def post_raw(self, body: bytes, boundary: str = "XX", **options):
        """Post a form that the test has encoded itself; return the response."""
        return self.post(body, f"multipart/form-data; boundary={boundary}", **options)

    def detach(self, headers: dict | None = None, status: int | None = None):
        """Delete the attachment of the record; return the response."""
        headers = {**ALICE, **(headers or {})}
        return self.http.delete(self.attachment_uri, headers=headers, status=status)

    def snapshot(self) -> tuple:
        """Return everything that a failed request must not change: the record, its permissions and
        its file, and the keys, links and releases of its bucket."""
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
        """Check that the record has this file and that the bucket has no other file; return the
        attachment."""
        attachment = self.data["attachment"]
        key = self.site.key(attachment["location"])
        assert attachment["hash"] == sha256(content).hexdigest()
        assert attachment["size"] == len(content)
        assert self.site.read(attachment["location"]) == content
        assert self.collection.keys == self.collection.links == [key]
        assert self.collection.releases == []
        return attachment


def batch(record: Record, *operations: tuple, status: int = 200):
    """Send operations (method, URI, body or None) in one batch; return the response."""
    requests = [
        {"method": method, "path": f"/v1{path}", **({"body": body} if body else {})}
        for method, path, body in operations
    ]
    return record.http.post_json("/batch", {"requests": requests}, headers=ALICE, status=status)


def call_wsgi(record, environ):
    """Post to the attachment of a record without WebTest and WebOb, which would read the input
    themselves; return the response.

    :param environ: entries of the WSGI environment.
    """
    full = webtest.TestRequest.blank(f"/v1{record.attachment_uri}").environ
    full.update({"HTTP_AUTHORIZATION": "Basic YWxpY2U6c2VjcmV0", **environ})
    response = {}

    def start_response(status, headers, exc_info=None):
        response.update(status=status, headers=headers)

    body = b"".join(record.site.wsgi(full, start_response))

    class Response:
        status_int = int(response["status"][:3])
        json = json.loads(body)

    return Response
